/*
 * cpu_features.h - the CPUID feature bits that the monitor has an opinion on, by name.
 *
 * A feature word is one register of one CPUID leaf. The word that a guest sees is computed from
 * what the accelerator offers and from this table; bits that the table does not name are hidden by
 * the portable and v3 models and passed through by the host model.
 */
#ifndef VMM_CPU_FEATURES_H
#define VMM_CPU_FEATURES_H

#include "cpu/cpu_model.h"

enum cpuid_register { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

/* Text of the features that a model needs and the host lacks: "sse4_2, popcnt". */
struct missing_features {
    unsigned count;
    char text[320];
};

uint32_t cpuid_register(const struct cpuid_entry *e, enum cpuid_register reg);

/* What `supported` offers in that word, 0 when it has no such leaf. */
uint32_t cpu_feature_offered(const struct cpuid_table *supported, uint32_t leaf, uint32_t subleaf,
                             enum cpuid_register reg);

/*
 * The word that the guest sees. Features that the model needs and the host lacks are added to
 * *missing. xcr0: the XSAVE components that the guest may enable; features that live in others are
 * taken out.
 */
uint32_t cpu_feature_word(enum cpu_model model, const struct cpuid_table *supported, uint32_t leaf,
                          uint32_t subleaf, enum cpuid_register reg, uint64_t xcr0,
                          struct missing_features *missing);

/* The XSAVE components that the model lets the guest enable, 0 when it has no XSAVE. */
uint64_t cpu_feature_xcr0(enum cpu_model model, const struct cpuid_table *supported);

/* The features that the table names and `t` has, as words: "fpu de pse". -ENOSPC: they do not fit.
 */
int cpu_feature_names(const struct cpuid_table *t, char *text, size_t size);

/* What it means for a guest, which was told that it has a feature, when it goes on without. */
enum feature_loss {
    LOSS_BREAKS,  /* it uses it, and fails */
    LOSS_EXPOSES, /* it relies on a processor without a hole that this one may have */
    LOSS_NOTHING, /* a hint */
};
/* The first of these words that `t` does not have, and its length; NULL: it has them all. */
const char *cpu_feature_lacking(const struct cpuid_table *t, const char *words, size_t *len,
                                enum feature_loss *loss);

#endif

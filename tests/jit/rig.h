/*
 * rig.h - one sequence on the three CPUs, compared.
 */
#ifndef TESTS_JIT_RIG_H
#define TESTS_JIT_RIG_H

#include "guest.h"
#include "native.h"
#include "sequence.h"

enum { TRANSLATED_RUNS = 3 }; /* just translated, linked to what follows, and once more */

struct rig {
    const char *program; /* jit-native-child */
    struct native *native;
    struct guest *interpreter, *translator;
    struct forms forms[2]; /* of 32-bit and of 64-bit code */
    bool precise;          /* flags count in the translator even where nothing reads them */
    uint64_t lost;         /* sequences that the kernel ended with the child */
    uint64_t memory_seed;
    uint8_t memory[PAGE_END * PAGE] __attribute__((aligned(8)));
};

enum verdict { SAME, DIFFERENT, NOT_COMPARED };

struct comparison {
    uint16_t undefined[ITEMS_MAX + 1]; /* of sequence_define_flags() */
    struct outcome native;
    struct outcome other; /* the one that differs */
    char who[24];         /* "translator, run 2" */
    char what[512];
};

int rig_open(struct rig *r, const char *program, struct qz_error *err);
void rig_close(struct rig *r);

/* Places and runs it; the flags of sequence_define_flags() are in *c already. -errno: no CPU. */
int rig_compare(struct rig *r, struct sequence *s, struct comparison *c, enum verdict *verdict,
                struct qz_error *err);

/* --- outcome.c */

/* Text of what differs, NULL: nothing. last: the instruction that ended it. undefined: flags that
 * do not count. */
const char *outcome_difference(const struct outcome *native, const struct outcome *other,
                               const struct insn *last, enum code_width width, uint16_t undefined,
                               char *text, size_t len);
void outcome_print(const char *who, const struct outcome *o);
void registers_print(const struct registers *r);

#endif

/*
 * cpu_model.h - what the guest's CPUID says.
 *
 * A model is a set of features that the guest may see: `portable` is what every back end and every
 * x86-64-v2 host offers (so snapshots move; only which speculation holes there are not depends on
 * where it runs), `v3` adds AVX2, BMI, FMA and the rest of x86-64-v3, `host` is whatever this
 * host's accelerator supports. Topology, APIC id, frequency and hypervisor leaves are filled here
 * for every vCPU, so that no guest calibrates a clock in vain.
 */
#ifndef VMM_CPU_MODEL_H
#define VMM_CPU_MODEL_H

#include <queztl/base.h>

enum cpu_model { CPU_MODEL_PORTABLE, CPU_MODEL_V3, CPU_MODEL_HOST };

struct cpuid_entry {
    uint32_t leaf, subleaf;
    bool subleaf_matters;
    uint32_t eax, ebx, ecx, edx;
};

enum { CPUID_MAX_ENTRIES = 192 };

struct cpuid_table {
    unsigned count;
    struct cpuid_entry entry[CPUID_MAX_ENTRIES];
};

struct cpu_topology {
    unsigned sockets, cores,
        threads; /* sockets * cores * threads = number of vCPUs; all at least 1 */
};

/*
 * The APIC id of the vCPU with this index: thread, core and socket number in bit fields of their
 * own, as leaf 0xB describes them. Equal to the index unless a lower level's count is no power of
 * two.
 */
uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index);

int cpu_model_parse(const char *name, enum cpu_model *model, struct qz_error *err);
const char *cpu_model_name(enum cpu_model model);

/*
 * Fills *out for the vCPU with this APIC id. `supported` is what the accelerator offers (for KVM:
 * KVM_GET_SUPPORTED_CPUID and emulated leaves). tsc_khz 0 leaves leaf 0x15 out. -ENOTSUP when the
 * host lacks something that the model promises; the error names the missing features.
 */
int cpu_model_cpuid(enum cpu_model model, const struct cpuid_table *supported,
                    const struct cpu_topology *topology, uint32_t apic_id, uint32_t tsc_khz,
                    struct cpuid_table *out, struct qz_error *err);

/* Guest-physical address bits that the table announces (leaf 0x80000008), 36 when the leaf is
 * missing. */
unsigned cpuid_physical_bits(const struct cpuid_table *t);
const struct cpuid_entry *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf);

#endif

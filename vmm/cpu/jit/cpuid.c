/*
 * cpuid.c - what the software CPU can do, for cpu_model.c to choose from; and the CPUID instruction.
 */
#include <cpuid.h>
#include <linux/kvm_para.h>

#include "cpu/jit/msr.h"

static uint32_t bits(const uint8_t *list, unsigned n)
{
    uint32_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v |= 1u << list[i];
    return v;
}
#define BITS(...) bits((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void add(struct cpuid_table *t, uint32_t leaf, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    t->entry[t->count++] = (struct cpuid_entry){.leaf = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

void jit_cpuid_supported(struct cpuid_table *t)
{
    uint32_t a, b, c, d, host1_c, host7_b = 0;

    memset(t, 0, sizeof(*t));
    __cpuid(1, a, b, host1_c, d);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        host7_b = b;
    add(t, 0, 0x16, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
    /* Vector instructions run on the host's own: those that it lacks are not there. */
    add(t, 1, 0x000306f2, 0,
        BITS(13, 17, 21, 22, 24, 31) | (host1_c & BITS(0, 1, 9, 19, 20, 23, 25, 30)),
        BITS(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26));
    add(t, 6, 1 << 2, 0, 0, 0);
    add(t, 7, 0, BITS(0, 7, 9, 10, 20) | (host7_b & BITS(3, 8, 18)), BITS(2), BITS(29));
    t->entry[t->count - 1].subleaf_matters = true;
    add(t, 0x80000000, 0x80000008, 0, 0, 0);
    add(t, 0x80000001, 0, 0, BITS(0, 5), BITS(11, 20, 26, 27, 29));
    add(t, 0x80000007, 0, 0, 0, BITS(8));
    add(t, 0x80000008, 46 | 48 << 8, 0, 0, 0);
    add(t, KVM_CPUID_SIGNATURE, KVM_CPUID_FEATURES, 0x4b4d564b, 0x564b4d56, 0x4d);
    add(t, KVM_CPUID_FEATURES,
        BITS(KVM_FEATURE_NOP_IO_DELAY, KVM_FEATURE_CLOCKSOURCE2, KVM_FEATURE_CLOCKSOURCE_STABLE_BIT), 0, 0, 0);
}

uint64_t jit_features(const struct cpuid_table *t)
{
    static const struct {
        uint32_t leaf;
        uint8_t reg, bit, feature; /* reg: 0 eax to 3 edx */
    } map[] = {
        {1, 2, 0, CPU_SSE3},       {1, 2, 1, CPU_PCLMUL},    {1, 2, 9, CPU_SSSE3},     {1, 2, 13, CPU_CX16},
        {1, 2, 17, CPU_PCID},      {1, 2, 19, CPU_SSE41},    {1, 2, 20, CPU_SSE42},    {1, 2, 22, CPU_MOVBE},
        {1, 2, 23, CPU_POPCNT},    {1, 2, 25, CPU_AES},      {1, 2, 26, CPU_XSAVE},    {1, 2, 28, CPU_AVX},
        {1, 2, 30, CPU_RDRAND},    {7, 1, 0, CPU_FSGSBASE},  {7, 1, 3, CPU_BMI1},      {7, 1, 7, CPU_SMEP},
        {7, 1, 8, CPU_BMI2},       {7, 1, 10, CPU_INVPCID},  {7, 1, 18, CPU_RDSEED},   {7, 1, 19, CPU_ADX},
        {7, 1, 20, CPU_SMAP},      {7, 1, 23, CPU_CLFLUSHOPT}, {7, 1, 24, CPU_CLWB},   {7, 1, 29, CPU_SHA},
        {7, 2, 2, CPU_UMIP},       {7, 2, 22, CPU_RDPID},    {0x80000001, 2, 0, CPU_LAHF64},
        {0x80000001, 2, 5, CPU_LZCNT}, {0x80000001, 2, 8, CPU_PREFETCHW}, {0x80000001, 3, 27, CPU_RDTSCP},
    };
    uint64_t features = CPU_FEATURE(CPU_BASE);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(map); i++) {
        const struct cpuid_entry *e = cpuid_find(t, map[i].leaf, 0);
        const uint32_t word = !e ? 0 : map[i].reg == 1 ? e->ebx : map[i].reg == 2 ? e->ecx : e->edx;

        if (word >> map[i].bit & 1)
            features |= CPU_FEATURE(map[i].feature);
    }
    if (cpuid_find(t, KVM_CPUID_SIGNATURE, 0))
        features |= CPU_FEATURE(CPU_HYPERCALL);
    return features;
}

void jit_cpuid(struct jit_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct cpuid_entry *e = cpuid_find(&cpu->cpuid, leaf, subleaf);

    memset(out, 0, 4 * sizeof(*out));
    if (!e)
        return;
    out[0] = e->eax;
    out[1] = e->ebx;
    out[2] = e->ecx;
    out[3] = e->edx;
    if (leaf == 1 && (cpu->cr4 & CR4_OSXSAVE))
        out[2] |= 1u << 27;
}

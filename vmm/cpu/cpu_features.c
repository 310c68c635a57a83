/*
 * cpu_features.c - the table of CPUID features and what each CPU model does with them.
 *
 * portable is x86-64-v2 and v3 is x86-64-v3 as the psABI defines them, plus what every 64-bit
 * processor of that age has (NX, SYSCALL, RDTSCP). Bit positions: SDM vol 2A CPUID, APM vol 3
 * appendix E; leaf 0x40000001: Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "cpu/cpu_features.h"

enum rule {
    V2,      /* every model has it; an accelerator without it cannot offer portable or v3 */
    V3,      /* v3 needs it */
    V3_MAY,  /* v3 has it where the host has it: makes the guest faster or safer, changes no ABI */
    OFFERED, /* every model has it where the host has it */
    GIVEN,   /* the monitor and its interrupt controllers supply it, whatever the host says */
    NEVER,   /* taken away from every model: the machine has nothing of the kind behind it */
};

struct feature {
    const char *name;
    uint32_t leaf, subleaf;
    uint8_t reg, bit;
    uint8_t rule;
};

static const struct feature features[] = {
    {"fpu", 1, 0, CPUID_EDX, 0, V2},
    {"de", 1, 0, CPUID_EDX, 2, V2},
    {"pse", 1, 0, CPUID_EDX, 3, V2},
    {"tsc", 1, 0, CPUID_EDX, 4, V2},
    {"msr", 1, 0, CPUID_EDX, 5, V2},
    {"pae", 1, 0, CPUID_EDX, 6, V2},
    {"mce", 1, 0, CPUID_EDX, 7, V2},
    {"cx8", 1, 0, CPUID_EDX, 8, V2},
    {"apic", 1, 0, CPUID_EDX, 9, GIVEN},
    {"sep", 1, 0, CPUID_EDX, 11, V2},
    {"mtrr", 1, 0, CPUID_EDX, 12, V2},
    {"pge", 1, 0, CPUID_EDX, 13, V2},
    {"mca", 1, 0, CPUID_EDX, 14, V2},
    {"cmov", 1, 0, CPUID_EDX, 15, V2},
    {"pat", 1, 0, CPUID_EDX, 16, V2},
    {"pse36", 1, 0, CPUID_EDX, 17, V2},
    {"clflush", 1, 0, CPUID_EDX, 19, V2},
    {"ds", 1, 0, CPUID_EDX, 21, NEVER},
    {"acpi", 1, 0, CPUID_EDX, 22, NEVER}, /* thermal MSRs */
    {"mmx", 1, 0, CPUID_EDX, 23, V2},
    {"fxsr", 1, 0, CPUID_EDX, 24, V2},
    {"sse", 1, 0, CPUID_EDX, 25, V2},
    {"sse2", 1, 0, CPUID_EDX, 26, V2},
    {"ht", 1, 0, CPUID_EDX, 28, NEVER}, /* set from the topology */
    {"tm", 1, 0, CPUID_EDX, 29, NEVER},
    {"pbe", 1, 0, CPUID_EDX, 31, NEVER},

    {"sse3", 1, 0, CPUID_ECX, 0, V2},
    {"pclmulqdq", 1, 0, CPUID_ECX, 1, V3_MAY},
    {"dtes64", 1, 0, CPUID_ECX, 2, NEVER},
    {"monitor", 1, 0, CPUID_ECX, 3, NEVER},
    {"ds_cpl", 1, 0, CPUID_ECX, 4, NEVER},
    {"vmx", 1, 0, CPUID_ECX, 5, NEVER},
    {"smx", 1, 0, CPUID_ECX, 6, NEVER},
    {"est", 1, 0, CPUID_ECX, 7, NEVER},
    {"tm2", 1, 0, CPUID_ECX, 8, NEVER},
    {"ssse3", 1, 0, CPUID_ECX, 9, V2},
    {"sdbg", 1, 0, CPUID_ECX, 11, NEVER},
    {"fma", 1, 0, CPUID_ECX, 12, V3},
    {"cx16", 1, 0, CPUID_ECX, 13, V2},
    {"xtpr", 1, 0, CPUID_ECX, 14, NEVER},
    {"pdcm", 1, 0, CPUID_ECX, 15, NEVER},
    {"pcid", 1, 0, CPUID_ECX, 17, V3_MAY},
    {"dca", 1, 0, CPUID_ECX, 18, NEVER},
    {"sse4_1", 1, 0, CPUID_ECX, 19, V2},
    {"sse4_2", 1, 0, CPUID_ECX, 20, V2},
    {"x2apic", 1, 0, CPUID_ECX, 21, GIVEN},
    {"movbe", 1, 0, CPUID_ECX, 22, V3},
    {"popcnt", 1, 0, CPUID_ECX, 23, V2},
    {"tsc_deadline_timer", 1, 0, CPUID_ECX, 24, GIVEN},
    {"aes", 1, 0, CPUID_ECX, 25, V3_MAY},
    {"xsave", 1, 0, CPUID_ECX, 26, V3},
    {"osxsave", 1, 0, CPUID_ECX, 27, NEVER}, /* follows CR4 at run time */
    {"avx", 1, 0, CPUID_ECX, 28, V3},
    {"f16c", 1, 0, CPUID_ECX, 29, V3},
    {"rdrand", 1, 0, CPUID_ECX, 30, V3_MAY},
    {"hypervisor", 1, 0, CPUID_ECX, 31, GIVEN},

    {"arat", 6, 0, CPUID_EAX, 2, GIVEN}, /* the local APIC timer never stops */

    {"fsgsbase", 7, 0, CPUID_EBX, 0, V3_MAY},
    {"sgx", 7, 0, CPUID_EBX, 2, NEVER},
    {"bmi1", 7, 0, CPUID_EBX, 3, V3},
    {"avx2", 7, 0, CPUID_EBX, 5, V3},
    {"smep", 7, 0, CPUID_EBX, 7, V3_MAY},
    {"bmi2", 7, 0, CPUID_EBX, 8, V3},
    {"erms", 7, 0, CPUID_EBX, 9, V3_MAY},
    {"invpcid", 7, 0, CPUID_EBX, 10, V3_MAY},
    {"cqm", 7, 0, CPUID_EBX, 12, NEVER},
    {"rdt_a", 7, 0, CPUID_EBX, 15, NEVER},
    {"smap", 7, 0, CPUID_EBX, 20, V3_MAY},
    {"intel_pt", 7, 0, CPUID_EBX, 25, NEVER},
    {"waitpkg", 7, 0, CPUID_ECX, 5, NEVER},
    {"la57", 7, 0, CPUID_ECX, 16, NEVER}, /* 46 physical bits need no fifth level */
    {"ospke", 7, 0, CPUID_ECX, 4, NEVER},
    {"key_locker", 7, 0, CPUID_ECX, 23, NEVER},
    {"enqcmd", 7, 0, CPUID_ECX, 29, NEVER},
    {"sgx_lc", 7, 0, CPUID_ECX, 30, NEVER},
    {"uintr", 7, 0, CPUID_EDX, 5, NEVER},
    {"pconfig", 7, 0, CPUID_EDX, 18, NEVER},
    {"arch_lbr", 7, 0, CPUID_EDX, 19, NEVER},

    {"xsaveopt", 0xd, 1, CPUID_EAX, 0, V3_MAY},
    {"xgetbv1", 0xd, 1, CPUID_EAX, 2, V3_MAY},

    {"syscall", 0x80000001, 0, CPUID_EDX, 11, V2},
    {"nx", 0x80000001, 0, CPUID_EDX, 20, V2},
    {"pdpe1gb", 0x80000001, 0, CPUID_EDX, 26, V3_MAY},
    {"rdtscp", 0x80000001, 0, CPUID_EDX, 27, V2},
    {"lm", 0x80000001, 0, CPUID_EDX, 29, V2},

    {"lahf_lm", 0x80000001, 0, CPUID_ECX, 0, V2},
    {"cmp_legacy", 0x80000001, 0, CPUID_ECX, 1, NEVER}, /* set from the topology */
    {"svm", 0x80000001, 0, CPUID_ECX, 2, NEVER},
    {"extapic", 0x80000001, 0, CPUID_ECX, 3, NEVER},
    {"lzcnt", 0x80000001, 0, CPUID_ECX, 5, V3},
    {"ibs", 0x80000001, 0, CPUID_ECX, 10, NEVER},
    {"skinit", 0x80000001, 0, CPUID_ECX, 12, NEVER},
    {"wdt", 0x80000001, 0, CPUID_ECX, 13, NEVER},
    {"lwp", 0x80000001, 0, CPUID_ECX, 15, NEVER},
    {"nodeid_msr", 0x80000001, 0, CPUID_ECX, 19, NEVER},
    {"topoext", 0x80000001, 0, CPUID_ECX, 22, NEVER}, /* set from the vendor */
    {"perfctr_core", 0x80000001, 0, CPUID_ECX, 23, NEVER},
    {"perfctr_nb", 0x80000001, 0, CPUID_ECX, 24, NEVER},
    {"ptsc", 0x80000001, 0, CPUID_ECX, 27, NEVER},
    {"perfctr_llc", 0x80000001, 0, CPUID_ECX, 28, NEVER},
    {"mwaitx", 0x80000001, 0, CPUID_ECX, 29, NEVER},

    /*
     * Ticks at a constant rate through every idle state. KVM names it only where the host's clock
     * is known stable; a guest whose time comes from us needs to know it either way.
     */
    {"invtsc", 0x80000007, 0, CPUID_EDX, 8, GIVEN},

    /*
     * What says that a hole is not there, and that IBRS needs no help. The software CPU has none of
     * them; a processor says so itself. A guest told of a hole plugs it at a price.
     */
    {"spec_ctrl", 7, 0, CPUID_EDX, 26, OFFERED},
    {"arch_capabilities", 7, 0, CPUID_EDX, 29, OFFERED},
    {"ssb_no", 0x80000008, 0, CPUID_EBX, 26, OFFERED},
    {"btc_no", 0x80000008, 0, CPUID_EBX, 29, OFFERED},
    {"lfence_rdtsc", 0x80000021, 0, CPUID_EAX, 2, OFFERED},
    {"null_sel_clr_base", 0x80000021, 0, CPUID_EAX, 6, OFFERED},
    {"auto_ibrs", 0x80000021, 0, CPUID_EAX, 8, OFFERED},
    {"srso_no", 0x80000021, 0, CPUID_EAX, 29, OFFERED},

    {"kvmclock_old", 0x40000001, 0, CPUID_EAX, 0, OFFERED},
    {"nop_io_delay", 0x40000001, 0, CPUID_EAX, 1, OFFERED},
    {"mmu_op", 0x40000001, 0, CPUID_EAX, 2, NEVER},
    {"kvmclock", 0x40000001, 0, CPUID_EAX, 3, OFFERED},
    /* Asynchronous page faults and steal time want pages of the guest pinned into every snapshot.
     */
    {"async_pf", 0x40000001, 0, CPUID_EAX, 4, NEVER},
    {"steal_time", 0x40000001, 0, CPUID_EAX, 5, NEVER},
    {"pv_eoi", 0x40000001, 0, CPUID_EAX, 6, OFFERED},
    {"pv_tlb_flush", 0x40000001, 0, CPUID_EAX, 9, NEVER}, /* needs steal time */
    {"async_pf_vmexit", 0x40000001, 0, CPUID_EAX, 10, NEVER},
    {"pv_sched_yield", 0x40000001, 0, CPUID_EAX, 13, NEVER}, /* needs steal time */
    {"async_pf_int", 0x40000001, 0, CPUID_EAX, 14, NEVER},
    {"msi_ext_dest_id", 0x40000001, 0, CPUID_EAX, 15, OFFERED},
    {"map_gpa_range", 0x40000001, 0, CPUID_EAX, 16, NEVER},
    {"migration_control", 0x40000001, 0, CPUID_EAX, 17, NEVER},
    {"kvmclock_stable", 0x40000001, 0, CPUID_EAX, 24, OFFERED},
};

/* Features that are useless, or a fault, without certain XSAVE components (SDM vol 1 §13.1). */
static const struct {
    uint32_t leaf, subleaf;
    uint8_t reg;
    uint32_t bits;
    uint64_t components;
} xsave_needs[] = {
    {1, 0, CPUID_ECX, 1u << 12 | 1u << 28 | 1u << 29, 0x7}, /* fma avx f16c */
    {7, 0, CPUID_EBX, 1u << 5, 0x7},                        /* avx2 */
    {7, 0, CPUID_ECX, 1u << 9 | 1u << 10, 0x7},             /* vaes vpclmulqdq */
    {7, 1, CPUID_EAX, 1u << 4 | 1u << 23, 0x7},             /* avx_vnni avx_ifma */
    {7, 1, CPUID_EDX, 1u << 4 | 1u << 5 | 1u << 10,
     0x7},                                /* avx_vnni_int8, avx_ne_convert, _int16 */
    {7, 0, CPUID_EBX, 0xdc230000u, 0xe7}, /* avx512 f dq ifma pf er cd bw vl */
    {7, 0, CPUID_ECX, 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14, 0xe7}, /* avx512 vbmi.. */
    {7, 0, CPUID_EDX, 1u << 2 | 1u << 3 | 1u << 8 | 1u << 23,
     0xe7},                            /* 4vnniw 4fmaps vp2intersect fp16 */
    {7, 1, CPUID_EAX, 1u << 5, 0xe7},  /* avx512_bf16 */
    {7, 1, CPUID_EDX, 1u << 19, 0xe7}, /* avx10 */
    {7, 0, CPUID_EBX, 1u << 14, 0x18}, /* mpx */
    {7, 0, CPUID_ECX, 1u << 3, 0x200}, /* pku */
    {7, 0, CPUID_EDX, 1u << 22 | 1u << 24 | 1u << 25, 0x60000}, /* amx bf16 tile int8 */
    {7, 1, CPUID_EAX, 1u << 21, 0x60000},                       /* amx_fp16 */
    {7, 1, CPUID_EDX, 1u << 8, 0x60000},                        /* amx_complex */
    {0x80000001, 0, CPUID_ECX, 1u << 11 | 1u << 16, 0x7},       /* xop fma4 */
};

uint32_t cpuid_register(const struct cpuid_entry *e, enum cpuid_register reg)
{
    switch (reg) {
    case CPUID_EAX:
        return e->eax;
    case CPUID_EBX:
        return e->ebx;
    case CPUID_ECX:
        return e->ecx;
    case CPUID_EDX:
        return e->edx;
    }
    return 0;
}

uint32_t cpu_feature_offered(const struct cpuid_table *supported, uint32_t leaf, uint32_t subleaf,
                             enum cpuid_register reg)
{
    const struct cpuid_entry *e = cpuid_find(supported, leaf, subleaf);

    return e ? cpuid_register(e, reg) : 0;
}

static void add_missing(struct missing_features *missing, const char *name)
{
    size_t used = strlen(missing->text);

    snprintf(missing->text + used, sizeof(missing->text) - used, "%s%s", used ? ", " : "", name);
    missing->count++;
}

static bool model_needs(enum cpu_model model, enum rule rule)
{
    return (rule == V2 && model != CPU_MODEL_HOST) || (rule == V3 && model == CPU_MODEL_V3);
}

static bool model_takes(enum cpu_model model, enum rule rule)
{
    return model_needs(model, rule) || rule == OFFERED ||
           (rule == V3_MAY && model == CPU_MODEL_V3) || model == CPU_MODEL_HOST;
}

uint32_t cpu_feature_word(enum cpu_model model, const struct cpuid_table *supported, uint32_t leaf,
                          uint32_t subleaf, enum cpuid_register reg, uint64_t xcr0,
                          struct missing_features *missing)
{
    const uint32_t offered = cpu_feature_offered(supported, leaf, subleaf, reg);
    uint32_t word = model == CPU_MODEL_HOST ? offered : 0;

    for (size_t i = 0; i < QZ_ARRAY_LEN(features); i++) {
        const struct feature *f = &features[i];
        const uint32_t bit = 1u << f->bit;

        if (f->leaf != leaf || f->subleaf != subleaf || f->reg != (uint8_t)reg)
            continue;
        if (f->rule == GIVEN)
            word |= bit;
        else if (f->rule == NEVER)
            word &= ~bit;
        else if (!(offered & bit) && model_needs(model, f->rule))
            add_missing(missing, f->name);
        else if (model_takes(model, f->rule))
            word |= offered & bit;
    }
    for (size_t i = 0; i < QZ_ARRAY_LEN(xsave_needs); i++)
        if (xsave_needs[i].leaf == leaf && xsave_needs[i].subleaf == subleaf &&
            xsave_needs[i].reg == (uint8_t)reg &&
            (xcr0 & xsave_needs[i].components) != xsave_needs[i].components)
            word &= ~xsave_needs[i].bits;
    return word;
}

uint64_t cpu_feature_xcr0(enum cpu_model model, const struct cpuid_table *supported)
{
    const uint64_t offered = cpu_feature_offered(supported, 0xd, 0, CPUID_EAX) |
                             (uint64_t)cpu_feature_offered(supported, 0xd, 0, CPUID_EDX) << 32;
    const bool xsave = cpu_feature_offered(supported, 1, 0, CPUID_ECX) >> 26 & 1;

    if (!xsave || model == CPU_MODEL_PORTABLE)
        return 0;
    return model == CPU_MODEL_V3 ? offered & 7 : offered;
}

static bool has(const struct cpuid_table *t, const struct feature *f)
{
    return cpu_feature_offered(t, f->leaf, f->subleaf, f->reg) >> f->bit & 1;
}

int cpu_feature_names(const struct cpuid_table *t, char *text, size_t size)
{
    size_t used = 0;

    *text = '\0';
    for (size_t i = 0; i < QZ_ARRAY_LEN(features); i++) {
        if (!has(t, &features[i]))
            continue;
        used +=
            (size_t)snprintf(text + used, size - used, "%s%s", used ? " " : "", features[i].name);
        if (used >= size)
            return -ENOSPC;
    }
    return 0;
}

static const struct feature *find(const char *name, size_t len)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(features); i++)
        if (strlen(features[i].name) == len && !memcmp(features[i].name, name, len))
            return &features[i];
    return NULL;
}

static enum feature_loss loss_of(const struct feature *f)
{
    static const struct {
        const char *name;
        enum feature_loss loss;
    } mild[] = {
        {"ssb_no", LOSS_EXPOSES},
        {"btc_no", LOSS_EXPOSES},
        {"srso_no", LOSS_EXPOSES},
        {"null_sel_clr_base", LOSS_EXPOSES},
        {"auto_ibrs", LOSS_EXPOSES},
        {"lfence_rdtsc", LOSS_EXPOSES},
        {"arch_capabilities", LOSS_EXPOSES}, /* its register is read when the guest boots */
        {"kvmclock_old", LOSS_NOTHING},      /* the new registers are used where they are */
        {"nop_io_delay", LOSS_NOTHING},
        {"pv_eoi", LOSS_NOTHING},
    };

    for (size_t i = 0; f && i < QZ_ARRAY_LEN(mild); i++)
        if (!strcmp(f->name, mild[i].name))
            return mild[i].loss;
    return LOSS_BREAKS;
}

const char *cpu_feature_lacking(const struct cpuid_table *t, const char *words, size_t *len,
                                enum feature_loss *loss)
{
    for (words += strspn(words, " "); *words; words += strspn(words, " ")) {
        const struct feature *f;

        *len = strcspn(words, " ");
        f = find(words, *len);
        *loss = loss_of(f);
        if (!f || !has(t, f))
            return words;
        words += *len;
    }
    return NULL;
}

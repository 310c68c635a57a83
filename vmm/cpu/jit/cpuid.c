/*
 * cpuid.c - what the software CPU can do at most, and what a guest is told of it.
 *
 * jit_cpuid_supported() is to this accelerator what KVM_GET_SUPPORTED_CPUID is to KVM;
 * cpu_model_cpuid() makes the guest's table of it. Vendor, signature and brand are the host's.
 * Features of the instruction set are offered where the host has them, because it executes them
 * (vec_ops.c, the translator); what is modelled is offered everywhere. SDM vol 2A CPUID, APM vol 3
 * appendix E, Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
#include <cpuid.h>

#include "cpu/cpu_features.h"
#include "cpu/jit/msr.h"
#include "cpu/jit/segment.h"
#include "cpu/jit/system_internal.h"

enum { PHYSICAL_BITS = 46, LINEAR_BITS = 48, BASIC_MAX = 0x16 };
enum { OSXSAVE = 1 << 27, APIC = 1 << 9, APIC_BASE_ENABLED = 1 << 11 };

#define PV_SIGNATURE 0x40000000u
#define PV_FEATURES  0x40000001u
#define EXTENDED     0x80000000u

/* --- Features ----------------------------------------------------------------------------------
 */

struct feature {
    uint32_t leaf;
    uint8_t reg, bit;
    uint8_t feature; /* enum cpu_feature that it gates, CPU_BASE where none */
    bool host;       /* only where the host has it */
};

static const struct feature features[] = {
    {1, CPUID_EDX, 0, CPU_BASE, false},  /* fpu */
    {1, CPUID_EDX, 2, CPU_BASE, false},  /* de */
    {1, CPUID_EDX, 3, CPU_BASE, false},  /* pse */
    {1, CPUID_EDX, 4, CPU_BASE, false},  /* tsc */
    {1, CPUID_EDX, 5, CPU_BASE, false},  /* msr */
    {1, CPUID_EDX, 6, CPU_BASE, false},  /* pae */
    {1, CPUID_EDX, 7, CPU_BASE, false},  /* mce */
    {1, CPUID_EDX, 8, CPU_BASE, false},  /* cx8 */
    {1, CPUID_EDX, 9, CPU_BASE, false},  /* apic */
    {1, CPUID_EDX, 11, CPU_BASE, false}, /* sep */
    {1, CPUID_EDX, 12, CPU_BASE, false}, /* mtrr */
    {1, CPUID_EDX, 13, CPU_BASE, false}, /* pge */
    {1, CPUID_EDX, 14, CPU_BASE, false}, /* mca */
    {1, CPUID_EDX, 15, CPU_BASE, false}, /* cmov */
    {1, CPUID_EDX, 16, CPU_BASE, false}, /* pat */
    {1, CPUID_EDX, 17, CPU_BASE, false}, /* pse36 */
    {1, CPUID_EDX, 19, CPU_BASE, false}, /* clflush */
    {1, CPUID_EDX, 23, CPU_BASE, false}, /* mmx */
    {1, CPUID_EDX, 24, CPU_BASE, false}, /* fxsr */
    {1, CPUID_EDX, 25, CPU_BASE, false}, /* sse */
    {1, CPUID_EDX, 26, CPU_BASE, false}, /* sse2 */

    {1, CPUID_ECX, 0, CPU_SSE3, true},
    {1, CPUID_ECX, 1, CPU_PCLMUL, true},
    {1, CPUID_ECX, 9, CPU_SSSE3, true},
    {1, CPUID_ECX, 13, CPU_CX16, true},
    {1, CPUID_ECX, 17, CPU_PCID, false},
    {1, CPUID_ECX, 19, CPU_SSE41, true},
    {1, CPUID_ECX, 20, CPU_SSE42, true},
    {1, CPUID_ECX, 21, CPU_BASE, false}, /* x2apic */
    {1, CPUID_ECX, 22, CPU_MOVBE, true},
    {1, CPUID_ECX, 23, CPU_POPCNT, true},
    {1, CPUID_ECX, 24, CPU_BASE, false}, /* tsc_deadline_timer */
    {1, CPUID_ECX, 25, CPU_AES, true},
    {1, CPUID_ECX, 30, CPU_RDRAND, true},
    {1, CPUID_ECX, 31, CPU_BASE, false}, /* hypervisor */

    {6, CPUID_EAX, 2, CPU_BASE, false}, /* arat */

    {7, CPUID_EBX, 0, CPU_FSGSBASE, false},
    {7, CPUID_EBX, 1, CPU_BASE, false}, /* tsc_adjust */
    {7, CPUID_EBX, 3, CPU_BMI1, true},
    {7, CPUID_EBX, 7, CPU_SMEP, false},
    {7, CPUID_EBX, 8, CPU_BMI2, true},
    {7, CPUID_EBX, 9, CPU_BASE, false}, /* erms: REP MOVSB is our fast way, too */
    {7, CPUID_EBX, 10, CPU_INVPCID, false},
    {7, CPUID_EBX, 18, CPU_RDSEED, true},
    {7, CPUID_EBX, 19, CPU_ADX, true},
    {7, CPUID_EBX, 20, CPU_SMAP, false},
    {7, CPUID_EBX, 23, CPU_CLFLUSHOPT, true},
    {7, CPUID_EBX, 24, CPU_CLWB, true},
    {7, CPUID_EBX, 29, CPU_SHA, true},
    {7, CPUID_ECX, 2, CPU_UMIP, false},
    {7, CPUID_ECX, 22, CPU_RDPID, false},

    {PV_FEATURES, CPUID_EAX, 1, CPU_BASE, false},  /* nop_io_delay */
    {PV_FEATURES, CPUID_EAX, 3, CPU_BASE, false},  /* kvmclock */
    {PV_FEATURES, CPUID_EAX, 15, CPU_BASE, false}, /* msi_ext_dest_id: the machine's */
    {PV_FEATURES, CPUID_EAX, 24, CPU_BASE, false}, /* kvmclock_stable */

    {EXTENDED + 1, CPUID_ECX, 0, CPU_LAHF64, false},
    {EXTENDED + 1, CPUID_ECX, 5, CPU_LZCNT, true},
    {EXTENDED + 1, CPUID_ECX, 8, CPU_PREFETCHW, false},
    {EXTENDED + 1, CPUID_EDX, 11, CPU_BASE, false}, /* syscall */
    {EXTENDED + 1, CPUID_EDX, 20, CPU_BASE, false}, /* nx */
    {EXTENDED + 1, CPUID_EDX, 26, CPU_BASE, false}, /* pdpe1gb */
    {EXTENDED + 1, CPUID_EDX, 27, CPU_RDTSCP, false},
    {EXTENDED + 1, CPUID_EDX, 29, CPU_BASE, false}, /* lm */
    {EXTENDED + 7, CPUID_EDX, 8, CPU_BASE, false},  /* invtsc */
};

/*
 * Intel: MSRs that guests plug holes with, and the one that says there are none (msr.c). AMD's own
 * processors name none of these, and a guest that has none can go on where KVM offers none.
 */
static const struct feature intel_features[] = {
    {7, CPUID_EDX, 26, CPU_BASE, false}, /* spec_ctrl */
    {7, CPUID_EDX, 27, CPU_BASE, false}, /* stibp */
    {7, CPUID_EDX, 29, CPU_BASE, false}, /* arch_capabilities */
    {7, CPUID_EDX, 31, CPU_BASE, false}, /* ssbd */
};

/* AMD's words for the same, and for what it says of its processors' holes. */
static const struct feature amd_features[] = {
    {EXTENDED + 8, CPUID_EBX, 12, CPU_BASE, false},    /* ibpb */
    {EXTENDED + 8, CPUID_EBX, 14, CPU_BASE, false},    /* ibrs */
    {EXTENDED + 8, CPUID_EBX, 15, CPU_BASE, false},    /* stibp */
    {EXTENDED + 8, CPUID_EBX, 24, CPU_BASE, false},    /* ssbd */
    {EXTENDED + 8, CPUID_EBX, 26, CPU_BASE, false},    /* ssb_no */
    {EXTENDED + 8, CPUID_EBX, 29, CPU_BASE, false},    /* btc_no */
    {EXTENDED + 0x21, CPUID_EAX, 2, CPU_BASE, false},  /* lfence_rdtsc */
    {EXTENDED + 0x21, CPUID_EAX, 6, CPU_BASE, false},  /* null_sel_clr_base */
    {EXTENDED + 0x21, CPUID_EAX, 8, CPU_BASE, false},  /* auto_ibrs */
    {EXTENDED + 0x21, CPUID_EAX, 29, CPU_BASE, false}, /* srso_no */
};

static uint32_t *register_of(struct cpuid_entry *e, unsigned reg)
{
    switch (reg) {
    case CPUID_EAX:
        return &e->eax;
    case CPUID_EBX:
        return &e->ebx;
    case CPUID_ECX:
        return &e->ecx;
    default:
        return &e->edx;
    }
}

/* --- What is offered ---------------------------------------------------------------------------
 */

static struct cpuid_entry host_leaf(uint32_t leaf)
{
    struct cpuid_entry e = {.leaf = leaf};

    if (!__get_cpuid_count(leaf, 0, &e.eax, &e.ebx, &e.ecx, &e.edx))
        e.eax = e.ebx = e.ecx = e.edx = 0;
    return e;
}

/* The table is ours and has room: CPUID_MAX_ENTRIES is many times what is offered. */
static struct cpuid_entry *entry_of(struct cpuid_table *t, uint32_t leaf)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->entry[i].leaf == leaf)
            return &t->entry[i];
    t->entry[t->count] = (struct cpuid_entry){.leaf = leaf, .subleaf_matters = leaf == 7};
    return &t->entry[t->count++];
}

static void offer(struct cpuid_table *t, const struct feature *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct feature *f = &list[i];
        struct cpuid_entry host = host_leaf(f->host ? f->leaf : 0);

        if (!f->host || (*register_of(&host, f->reg) >> f->bit & 1))
            *register_of(entry_of(t, f->leaf), f->reg) |= 1u << f->bit;
    }
}

static bool is_amd(const struct cpuid_entry *vendor)
{
    /* "Auth", "Hygo" */
    return vendor->ebx == 0x68747541 || vendor->ebx == 0x6f677948;
}

bool guest_is_amd(const struct jit_cpu *cpu)
{
    const struct cpuid_entry *vendor = cpuid_find(&cpu->cpuid, 0, 0);

    return vendor && is_amd(vendor);
}

void jit_cpuid_supported(struct cpuid_table *t)
{
    const struct cpuid_entry vendor = host_leaf(0), signature = host_leaf(1);
    struct cpuid_entry *e;

    t->count = 0;
    e = entry_of(t, 0);
    *e = vendor;
    e->eax = BASIC_MAX;
    entry_of(t, 1)->eax = signature.eax;
    offer(t, features, QZ_ARRAY_LEN(features));
    if (is_amd(&vendor))
        offer(t, amd_features, QZ_ARRAY_LEN(amd_features));
    else
        offer(t, intel_features, QZ_ARRAY_LEN(intel_features));

    e = entry_of(t, PV_SIGNATURE); /* "KVMKVMKVM" */
    e->eax = PV_FEATURES;
    e->ebx = 0x4b4d564b;
    e->ecx = 0x564b4d56;
    e->edx = 0x4d;
    for (uint32_t leaf = EXTENDED + 2; leaf <= EXTENDED + 4; leaf++)
        *entry_of(t, leaf) = host_leaf(leaf);
    entry_of(t, EXTENDED + 8)->eax = PHYSICAL_BITS | LINEAR_BITS << 8;
}

uint64_t jit_features(const struct cpuid_table *t)
{
    /* PREFETCHW is no operation on every 64-bit processor that does not name it. */
    uint64_t set = CPU_FEATURE(CPU_BASE) | CPU_FEATURE(CPU_PREFETCHW);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(features); i++) {
        const struct feature *f = &features[i];

        if (cpu_feature_offered(t, f->leaf, 0, f->reg) >> f->bit & 1)
            set |= CPU_FEATURE(f->feature);
    }
    if (cpuid_find(t, PV_SIGNATURE, 0))
        set |= CPU_FEATURE(CPU_HYPERCALL);
    return set;
}

/* --- The instruction ---------------------------------------------------------------------------
 */

/* The largest leaf of the range that this one is in. */
static uint32_t range_max(const struct cpuid_table *t, uint32_t leaf)
{
    const uint32_t start = leaf < PV_SIGNATURE ? 0 : leaf < EXTENDED ? PV_SIGNATURE : EXTENDED;
    const struct cpuid_entry *e = cpuid_find(t, start, 0);

    return e ? e->eax : 0;
}

/* The topology leaves answer for levels that are not there, too: which was asked, and the APIC id.
 */
static void topology_beyond(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf,
                            uint32_t out[4])
{
    const struct cpuid_entry *first = cpuid_find(t, leaf, 0);

    if ((leaf != 0xb && leaf != 0x1f) || !first)
        return;
    out[2] = subleaf & 0xff;
    out[3] = first->edx;
}

void jit_cpuid(struct jit_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct cpuid_table *t = &cpu->cpuid;
    const struct cpuid_entry *e;

    memset(out, 0, 4 * sizeof(out[0]));
    /* Beyond its range Intel's processors answer for the last basic leaf, AMD's with zeros; the
     * hypervisor's range has no such rule. */
    if (leaf > range_max(t, leaf) && !(leaf >= PV_SIGNATURE && leaf < EXTENDED)) {
        if (guest_is_amd(cpu))
            return;
        leaf = range_max(t, 0);
    }
    e = cpuid_find(t, leaf, subleaf);
    if (!e) {
        topology_beyond(t, leaf, subleaf, out);
        return;
    }
    out[0] = e->eax;
    out[1] = e->ebx;
    out[2] = e->ecx;
    out[3] = e->edx;
    if (leaf == 1) { /* these follow what the guest does */
        if (cpu->cr4 & CR4_OSXSAVE)
            out[2] |= OSXSAVE;
        if (!(cpu->apic_base & APIC_BASE_ENABLED))
            out[3] &= ~(uint32_t)APIC;
    }
}

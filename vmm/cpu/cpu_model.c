/*
 * cpu_model.c - builds the CPUID table of one vCPU.
 *
 * Feature words come from cpu_features.c. Everything else is made up here: identification, caches,
 * topology, frequencies, address widths and the hypervisor leaves, so that a guest finds its clocks
 * and its topology without measuring or guessing. Leaves: SDM vol 2A CPUID, APM vol 3 appendix E,
 * for the hypervisor range Linux Documentation/virt/kvm/x86/cpuid.rst.
 *
 * The vendor is the host's: SYSCALL and SYSENTER behave differently on AMD and Intel processors,
 * and a guest kernel chooses by vendor which speculation holes to plug. Family and model are, for
 * portable and v3, those of the first processor of that vendor which guests treat without special
 * cases for the level (Nehalem, Haswell; Zen).
 */
#include "cpu/cpu_model.h"
#include "cpu/cpu_features.h"

#define PV_SIGNATURE 0x40000000u
#define PV_FEATURES  0x40000001u
#define PV_TIMING    0x40000010u

enum {
    APIC_BUS_KHZ = 1000000, /* local APIC timers count nanoseconds, KVM's and ours */
    LINEAR_BITS = 48,
    PHYSICAL_BITS_MAX = 46,      /* 64 TiB: more than any machine here, within 4-level paging */
    PHYSICAL_BITS_PORTABLE = 40, /* 1 TiB, which all but a few client processors reach */
    PHYSICAL_BITS_DEFAULT = 36,
};

static const char *const model_names[] = {
    [CPU_MODEL_PORTABLE] = "portable",
    [CPU_MODEL_V3] = "v3",
    [CPU_MODEL_HOST] = "host",
};

int cpu_model_parse(const char *name, enum cpu_model *model, struct qz_error *err)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(model_names); i++) {
        if (strcmp(name, model_names[i]) == 0) {
            *model = (enum cpu_model)i;
            return 0;
        }
    }
    return qz_fail(err, -EINVAL, "CPU model '%s' is not known: portable, v3 or host", name);
}

const char *cpu_model_name(enum cpu_model model)
{
    return model_names[model];
}

const struct cpuid_entry *cpuid_find(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < t->count; i++) {
        const struct cpuid_entry *e = &t->entry[i];

        if (e->leaf == leaf && (!e->subleaf_matters || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

unsigned cpuid_physical_bits(const struct cpuid_table *t)
{
    const struct cpuid_entry *e = cpuid_find(t, 0x80000008, 0);

    return e ? e->eax & 0xff : PHYSICAL_BITS_DEFAULT;
}

/* ---- topology -------------------------------------------------------------------------------- */

static unsigned bits_for(unsigned count)
{
    unsigned bits = 0;

    while (bits < 31 && (1u << bits) < count)
        bits++;
    return bits;
}

uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index)
{
    const unsigned thread = index % t->threads;
    const unsigned core = index / t->threads % t->cores;
    const unsigned socket = index / t->threads / t->cores;
    const unsigned thread_bits = bits_for(t->threads);

    return thread | core << thread_bits | socket << (thread_bits + bits_for(t->cores));
}

/* ---- the table under construction ------------------------------------------------------------ */

struct builder {
    enum cpu_model model;
    const struct cpuid_table *supported;
    struct cpuid_table *out;
    const struct cpu_topology *topology;
    uint32_t apic_id, tsc_khz;
    unsigned thread_bits, package_bits; /* widths of the APIC id's lower fields */
    bool amd;
    uint64_t xcr0;
    struct missing_features missing;
    bool full;
};

static struct cpuid_entry *add_entry(struct builder *b, struct cpuid_entry e)
{
    static struct cpuid_entry overflow; /* the build fails with -E2BIG, nobody reads it */

    if (b->out->count == CPUID_MAX_ENTRIES) {
        b->full = true;
        return &overflow;
    }
    b->out->entry[b->out->count] = e;
    return &b->out->entry[b->out->count++];
}

static struct cpuid_entry *add_leaf(struct builder *b, uint32_t leaf, uint32_t eax, uint32_t ebx,
                                    uint32_t ecx, uint32_t edx)
{
    return add_entry(
        b, (struct cpuid_entry){.leaf = leaf, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx});
}

static struct cpuid_entry *add_subleaf(struct builder *b, uint32_t leaf, uint32_t subleaf,
                                       uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    return add_entry(b, (struct cpuid_entry){.leaf = leaf,
                                             .subleaf = subleaf,
                                             .subleaf_matters = true,
                                             .eax = eax,
                                             .ebx = ebx,
                                             .ecx = ecx,
                                             .edx = edx});
}

static uint32_t word(struct builder *b, uint32_t leaf, uint32_t subleaf, enum cpuid_register reg)
{
    return cpu_feature_word(b->model, b->supported, leaf, subleaf, reg, b->xcr0, &b->missing);
}

static uint32_t offered(const struct builder *b, uint32_t leaf, uint32_t subleaf,
                        enum cpuid_register reg)
{
    return cpu_feature_offered(b->supported, leaf, subleaf, reg);
}

/* ---- identification and features ------------------------------------------------------------- */

static uint32_t signature(const struct builder *b)
{
    switch (b->model) {
    case CPU_MODEL_PORTABLE:
        return b->amd ? 0x00800f12 /* family 17h model 01h */ : 0x000106a3 /* family 6 model 1ah */;
    case CPU_MODEL_V3:
        return b->amd ? 0x00800f12 : 0x000306c4 /* family 6 model 3ch */;
    case CPU_MODEL_HOST:
        break;
    }
    return offered(b, 1, 0, CPUID_EAX);
}

static unsigned cpus_per_package(const struct builder *b)
{
    return b->topology->cores * b->topology->threads;
}

static void add_identification(struct builder *b)
{
    const struct cpuid_entry *vendor = cpuid_find(b->supported, 0, 0);
    const unsigned logical = cpus_per_package(b);
    uint32_t edx;

    add_leaf(b, 0, 0x1f, vendor->ebx, vendor->ecx, vendor->edx);
    edx = word(b, 1, 0, CPUID_EDX);
    if (logical > 1)
        edx |= 1u << 28;
    add_leaf(b, 1, signature(b),
             (b->apic_id & 0xff) << 24 | QZ_MIN(1u << b->package_bits, 255u) << 16 | 8u << 8,
             word(b, 1, 0, CPUID_ECX), edx);
}

static void add_features(struct builder *b)
{
    add_leaf(b, 6, word(b, 6, 0, CPUID_EAX) & 1u << 2, 0, 0, 0);
    add_subleaf(b, 7, 0, QZ_MIN(offered(b, 7, 0, CPUID_EAX), 2u), word(b, 7, 0, CPUID_EBX),
                word(b, 7, 0, CPUID_ECX), word(b, 7, 0, CPUID_EDX));
    add_subleaf(b, 7, 1, word(b, 7, 1, CPUID_EAX), word(b, 7, 1, CPUID_EBX),
                word(b, 7, 1, CPUID_ECX), word(b, 7, 1, CPUID_EDX));
    add_subleaf(b, 7, 2, word(b, 7, 2, CPUID_EAX), word(b, 7, 2, CPUID_EBX),
                word(b, 7, 2, CPUID_ECX), word(b, 7, 2, CPUID_EDX));
}

static void add_extended_features(struct builder *b)
{
    const uint32_t basic_edx = cpuid_find(b->out, 1, 0)->edx;
    uint32_t ecx = word(b, 0x80000001, 0, CPUID_ECX);
    uint32_t edx = word(b, 0x80000001, 0, CPUID_EDX);

    if (b->amd) {
        edx |= basic_edx & 0x0183f3ff; /* AMD repeats most of leaf 1 there */
        ecx |= 1u << 22;               /* TOPOEXT: leaves 0x8000001D and 0x8000001E below */
        if (cpus_per_package(b) > 1)
            ecx |= 1u << 1; /* CMP_LEGACY */
    }
    add_leaf(b, 0x80000001, b->amd ? signature(b) : 0, 0, ecx, edx);
    add_leaf(b, 0x80000007, 0, 0, 0, word(b, 0x80000007, 0, CPUID_EDX) & 1u << 8);
}

static void add_brand(struct builder *b)
{
    char brand[48] = "Queztl portable CPU (x86-64-v2)";

    if (b->model == CPU_MODEL_V3)
        strcpy(brand, "Queztl v3 CPU (x86-64-v3)");
    if (b->model == CPU_MODEL_HOST && offered(b, 0x80000002, 0, CPUID_EAX) != 0) {
        for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++)
            add_leaf(b, leaf, offered(b, leaf, 0, CPUID_EAX), offered(b, leaf, 0, CPUID_EBX),
                     offered(b, leaf, 0, CPUID_ECX), offered(b, leaf, 0, CPUID_EDX));
        return;
    }
    if (b->model == CPU_MODEL_HOST)
        strcpy(brand, "Queztl host CPU");
    for (unsigned i = 0; i < 3; i++)
        add_leaf(b, 0x80000002 + i, qz_load_le32(brand + 16 * i), qz_load_le32(brand + 16 * i + 4),
                 qz_load_le32(brand + 16 * i + 8), qz_load_le32(brand + 16 * i + 12));
}

/* ---- extended state -------------------------------------------------------------------------- */

static void add_xsave(struct builder *b)
{
    uint32_t size = 576; /* legacy area and header */

    if (b->xcr0 == 0)
        return;
    for (unsigned i = 2; i < 63; i++)
        if (b->xcr0 >> i & 1)
            size = QZ_MAX(size, offered(b, 0xd, i, CPUID_EAX) + offered(b, 0xd, i, CPUID_EBX));

    /* EBX is what XCR0 enables now; KVM and the software CPU correct it when the guest sets XCR0.
     */
    add_subleaf(b, 0xd, 0, (uint32_t)b->xcr0, 576, size, (uint32_t)(b->xcr0 >> 32));
    add_subleaf(b, 0xd, 1, word(b, 0xd, 1, CPUID_EAX), 0, word(b, 0xd, 1, CPUID_ECX),
                word(b, 0xd, 1, CPUID_EDX));
    for (unsigned i = 2; i < 63; i++) {
        const uint64_t supervisor =
            offered(b, 0xd, 1, CPUID_ECX) | (uint64_t)offered(b, 0xd, 1, CPUID_EDX) << 32;
        const bool user = b->xcr0 >> i & 1;

        if (user || (b->model == CPU_MODEL_HOST && supervisor >> i & 1))
            add_subleaf(b, 0xd, i, offered(b, 0xd, i, CPUID_EAX), offered(b, 0xd, i, CPUID_EBX),
                        offered(b, 0xd, i, CPUID_ECX), 0);
    }
}

/* ---- caches ---------------------------------------------------------------------------------- */

struct cache {
    uint8_t type; /* 1 data, 2 instruction, 3 unified */
    uint8_t level;
    uint16_t ways;
    uint32_t sets; /* lines of 64 bytes */
};

/* 32 KiB + 32 KiB, 512 KiB for each core, 16 MiB for each package. */
static const struct cache generic_caches[] = {
    {1, 1, 8, 64},
    {2, 1, 8, 64},
    {3, 2, 8, 1024},
    {3, 3, 16, 16384},
};

/*
 * Leaf 4 and leaf 0x8000001D have the same layout, but for the number of cores in EAX[31:26] of
 * leaf 4. Sizes are the host's in the host model; who shares a cache always follows the guest's
 * topology.
 */
static void add_caches(struct builder *b)
{
    const uint32_t leaf = b->amd ? 0x8000001d : 4;
    const bool from_host =
        b->model == CPU_MODEL_HOST && (offered(b, leaf, 0, CPUID_EAX) & 0x1f) != 0;
    const uint32_t cores =
        b->amd ? 0 : QZ_MIN((1u << (b->package_bits - b->thread_bits)) - 1, 63u) << 26;
    unsigned n = 0;

    for (; n < (from_host ? 8 : QZ_ARRAY_LEN(generic_caches)); n++) {
        struct cpuid_entry e;
        uint32_t sharing;

        if (from_host) {
            const struct cpuid_entry *host = cpuid_find(b->supported, leaf, n);

            if (!host || (host->eax & 0x1f) == 0)
                break;
            e = *host;
        } else {
            const struct cache *c = &generic_caches[n];

            e = (struct cpuid_entry){.eax = c->type | (uint32_t)c->level << 5 | 1u << 8,
                                     .ebx = 63u | (c->ways - 1u) << 22,
                                     .ecx = c->sets - 1};
        }
        sharing = 1u << ((e.eax >> 5 & 7) >= 3 ? b->package_bits : b->thread_bits);
        e.eax = (e.eax & 0x3ff) | QZ_MIN(sharing - 1, 0xfffu) << 14 | cores;
        add_subleaf(b, leaf, n, e.eax, e.ebx, e.ecx, e.edx);
    }
    add_subleaf(b, leaf, n, 0, 0, 0, 0);

    if (b->amd) {
        /* The older leaves: 64-byte lines, 8-way L1 of 32 KiB, L2 of 512 KiB, L3 of 16 MiB. */
        add_leaf(b, 0x80000005, 0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140);
        add_leaf(b, 0x80000006, 0x48006400, 0x68006400, 0x02006140, 0x00808140);
    } else {
        add_leaf(b, 2, 0x00ff0001, 0, 0, 0); /* descriptor FFh: see leaf 4 */
        add_leaf(b, 0x80000006, 0, 0, 0x02006040, 0);
    }
}

/* ---- topology leaves ------------------------------------------------------------------------- */

static void add_topology(struct builder *b)
{
    static const uint32_t leaves[] = {0xb, 0x1f};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(leaves); i++) {
        add_subleaf(b, leaves[i], 0, b->thread_bits, b->topology->threads, 1u << 8 | 0, b->apic_id);
        add_subleaf(b, leaves[i], 1, b->package_bits, cpus_per_package(b), 2u << 8 | 1, b->apic_id);
        add_subleaf(b, leaves[i], 2, 0, 0, 2, b->apic_id);
    }
    if (b->amd) {
        const uint32_t core =
            b->apic_id >> b->thread_bits & ((1u << (b->package_bits - b->thread_bits)) - 1);
        const uint32_t socket = b->apic_id >> b->package_bits;

        add_leaf(b, 0x8000001e, b->apic_id, (core & 0xff) | (b->topology->threads - 1) << 8,
                 socket & 0xff, 0);
    }
}

static void add_address_sizes(struct builder *b)
{
    const unsigned host = cpuid_physical_bits(b->supported);
    const unsigned most =
        b->model == CPU_MODEL_PORTABLE ? PHYSICAL_BITS_PORTABLE : PHYSICAL_BITS_MAX;
    uint32_t ebx = 0, ecx = 0;

    if (b->amd) {
        ebx = word(b, 0x80000008, 0, CPUID_EBX);
        ecx = ((cpus_per_package(b) - 1) & 0xff) | b->package_bits << 12;
    }
    add_leaf(b, 0x80000008, QZ_MIN(host, most) | LINEAR_BITS << 8, ebx, ecx, 0);
}

/* ---- frequencies ----------------------------------------------------------------------------- */

/*
 * The best fraction n/d for khz/APIC_BUS_KHZ with n below the limit (convergents of the continued
 * fraction). The limit keeps crystal kHz times n within 32 bits, the width in which guests
 * multiply.
 */
static void frequency_ratio(uint32_t khz, uint32_t limit, uint32_t *n, uint32_t *d)
{
    uint64_t a = khz, c = APIC_BUS_KHZ;
    uint64_t n0 = 0, d0 = 1, n1 = 1, d1 = 0;

    while (c != 0) {
        const uint64_t q = a / c, rest = a % c;
        const uint64_t n2 = q * n1 + n0, d2 = q * d1 + d0;

        if (n2 > limit || d2 > UINT32_MAX)
            break;
        n0 = n1, d0 = d1, n1 = n2, d1 = d2;
        a = c, c = rest;
    }
    *n = (uint32_t)n1;
    *d = (uint32_t)d1;
}

static void add_frequencies(struct builder *b)
{
    const uint32_t mhz = b->tsc_khz / 1000;
    uint32_t n, d;

    if (b->tsc_khz == 0)
        return;
    frequency_ratio(b->tsc_khz, UINT32_MAX / APIC_BUS_KHZ - 1, &n, &d);
    if (n != 0 && d != 0)
        add_leaf(b, 0x15, d, n, APIC_BUS_KHZ * 1000u, 0);
    add_leaf(b, 0x16, mhz & 0xffff, mhz & 0xffff, 100, 0);
}

static void add_hypervisor(struct builder *b)
{
    const struct cpuid_entry *pv = cpuid_find(b->supported, PV_SIGNATURE, 0);

    if (!pv)
        return;
    add_leaf(b, PV_SIGNATURE, b->tsc_khz ? PV_TIMING : PV_FEATURES, pv->ebx, pv->ecx, pv->edx);
    add_leaf(b, PV_FEATURES, word(b, PV_FEATURES, 0, CPUID_EAX), 0, 0, 0);
    if (b->tsc_khz)
        add_leaf(b, PV_TIMING, b->tsc_khz, APIC_BUS_KHZ, 0, 0);
}

/* ---- all of it ------------------------------------------------------------------------------- */

static bool vendor_is_amd(const struct cpuid_entry *vendor)
{
    /* "Auth", "Hygo": Hygon's processors are AMD's by licence and follow the APM. */
    return vendor->ebx == 0x68747541 || vendor->ebx == 0x6f677948;
}

int cpu_model_cpuid(enum cpu_model model, const struct cpuid_table *supported,
                    const struct cpu_topology *topology, uint32_t apic_id, uint32_t tsc_khz,
                    struct cpuid_table *out, struct qz_error *err)
{
    const struct cpuid_entry *vendor = cpuid_find(supported, 0, 0);
    struct builder b = {
        .model = model,
        .supported = supported,
        .out = out,
        .topology = topology,
        .apic_id = apic_id,
        .tsc_khz = tsc_khz,
        .xcr0 = cpu_feature_xcr0(model, supported),
    };

    if (!vendor)
        return qz_fail(err, -ENOTSUP, "the accelerator offers no CPUID leaf 0");
    if (topology->sockets == 0 || topology->cores == 0 || topology->threads == 0)
        return qz_fail(err, -EINVAL,
                       "CPU topology %u sockets, %u cores, %u threads: each is at least 1",
                       topology->sockets, topology->cores, topology->threads);
    b.amd = vendor_is_amd(vendor);
    b.thread_bits = bits_for(topology->threads);
    b.package_bits = b.thread_bits + bits_for(topology->cores);
    if (b.package_bits > 16)
        return qz_fail(err, -EINVAL, "CPU topology: %u cores of %u threads do not fit an APIC id",
                       topology->cores, topology->threads);

    out->count = 0;
    add_identification(&b);
    add_features(&b);
    add_xsave(&b);
    add_topology(&b);
    add_frequencies(&b);
    add_hypervisor(&b);
    add_leaf(&b, 0x80000000, b.amd ? 0x80000021 : 0x80000008, vendor->ebx, vendor->ecx,
             vendor->edx);
    add_extended_features(&b);
    add_brand(&b);
    add_caches(&b);
    add_address_sizes(&b);
    if (b.amd)
        add_leaf(&b, 0x80000021, word(&b, 0x80000021, 0, CPUID_EAX), 0, 0, 0);

    if (b.full)
        return qz_fail(err, -E2BIG, "CPUID: more than %d leaves", CPUID_MAX_ENTRIES);
    if (b.missing.count)
        return qz_fail(err, -ENOTSUP,
                       "CPU model %s: this host lacks %s (CPU model host takes what there is)",
                       cpu_model_name(model), b.missing.text);
    if (model == CPU_MODEL_V3 && b.xcr0 != 7)
        return qz_fail(err, -ENOTSUP, "CPU model v3: this host cannot save AVX registers");
    return 0;
}

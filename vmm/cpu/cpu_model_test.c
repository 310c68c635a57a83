/*
 * cpu_model_test.c - CPUID tables of every model, against made-up hosts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/cpu_features.h"

enum vendor { INTEL, AMD };

static const struct cpu_topology one = {1, 1, 1};

static void add(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, bool matters, uint32_t a,
                uint32_t b, uint32_t c, uint32_t d)
{
    t->entry[t->count++] = (struct cpuid_entry){leaf, subleaf, matters, a, b, c, d};
}

/* A host that has every bit that its feature words can hold, and XSAVE up to AVX-512 and PKRU. */
static void full_host(struct cpuid_table *t, enum vendor vendor)
{
    const uint32_t all = 0xffffffff;

    t->count = 0;
    if (vendor == AMD)
        add(t, 0, 0, false, 0x10, 0x68747541, 0x444d4163, 0x69746e65);
    else
        add(t, 0, 0, false, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69);
    add(t, 1, 0, false, 0x00a20f10, 0x12345678, all, all);
    add(t, 7, 0, true, 2, all, all, all);
    add(t, 7, 1, true, all, 0, 0, all);
    add(t, 0xd, 0, true, 0x2e7, 0x240, 0xa88, 0);
    add(t, 0xd, 1, true, 0xf, 0, 0x1800, 0);
    add(t, 0xd, 2, true, 0x100, 0x240, 0, 0);
    add(t, 0xd, 5, true, 0x40, 0x440, 0, 0);
    add(t, 0xd, 6, true, 0x200, 0x480, 0, 0);
    add(t, 0xd, 7, true, 0x400, 0x680, 0, 0);
    add(t, 0xd, 9, true, 8, 0xa80, 0, 0);
    add(t, 0xd, 11, true, 0x10, 0, 1, 0);
    add(t, 0x40000000, 0, false, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
    add(t, 0x40000001, 0, false, all, 0, 0, all);
    add(t, 0x80000001, 0, false, 0x00a20f10, 0, all, all);
    add(t, 0x80000002, 0, false, 0x64636261, 0, 0, 0);
    add(t, 0x80000007, 0, false, 0, 0, 0, all);
    add(t, 0x80000008, 0, false, 0x3934, all, all, 0);
    add(t, 0x80000021, 0, false, 0x204, 0, 0, 0);
}

static struct cpuid_entry *edit(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    return (struct cpuid_entry *)cpuid_find(t, leaf, subleaf);
}

static void make(enum cpu_model model, const struct cpuid_table *host, const struct cpu_topology *t,
                 uint32_t apic_id, struct cpuid_table *out)
{
    struct qz_error err = {0};

    if (cpu_model_cpuid(model, host, t, apic_id, 2596118, out, &err) < 0)
        fail_msg("%s", err.text);
}

static const struct cpuid_entry *leaf(const struct cpuid_table *t, uint32_t number,
                                      uint32_t subleaf)
{
    const struct cpuid_entry *e = cpuid_find(t, number, subleaf);

    if (!e)
        fail_msg("no leaf %x.%u", number, subleaf);
    return e;
}

static void same_entry(const struct cpuid_entry *a, const struct cpuid_entry *b)
{
    assert_int_equal(a->leaf, b->leaf);
    assert_int_equal(a->subleaf, b->subleaf);
    assert_int_equal(a->subleaf_matters, b->subleaf_matters);
    assert_int_equal(a->eax, b->eax);
    assert_int_equal(a->ebx, b->ebx);
    assert_int_equal(a->ecx, b->ecx);
    assert_int_equal(a->edx, b->edx);
}

static void test_names(void **unused)
{
    enum cpu_model model;
    struct qz_error err = {0};

    for (int i = CPU_MODEL_PORTABLE; i <= CPU_MODEL_HOST; i++) {
        assert_int_equal(cpu_model_parse(cpu_model_name(i), &model, &err), 0);
        assert_int_equal(model, i);
    }
    assert_int_equal(cpu_model_parse("Host", &model, &err), -EINVAL);
    assert_non_null(strstr(err.text, "'Host'"));
}

static void test_portable_is_the_same_everywhere(void **unused)
{
    struct cpuid_table rich, poor, a, b;

    full_host(&rich, AMD);
    full_host(&poor, AMD);
    /* Exactly x86-64-v2 with NX, SYSCALL, RDTSCP; no XSAVE; other caches, brand and family. */
    edit(&poor, 1, 0)->eax = 0x00600f20;
    edit(&poor, 1, 0)->ecx = 1u << 0 | 1u << 9 | 1u << 13 | 1u << 19 | 1u << 20 | 1u << 23;
    edit(&poor, 1, 0)->edx = 0x078bfbff;
    edit(&poor, 7, 0)->ebx = edit(&poor, 7, 0)->ecx = edit(&poor, 7, 0)->edx = 0;
    edit(&poor, 7, 1)->eax = edit(&poor, 7, 1)->edx = 0;
    edit(&poor, 0xd, 0)->eax = 0;
    edit(&poor, 0x80000001, 0)->ecx = 1;
    edit(&poor, 0x80000001, 0)->edx = 1u << 11 | 1u << 20 | 1u << 27 | 1u << 29;
    edit(&poor, 0x80000007, 0)->edx = 0;
    edit(&poor, 0x80000008, 0)->eax = 0x3028;
    edit(&poor, 0x80000008, 0)->ebx = 0;
    edit(&poor, 0x80000021, 0)->eax = 0;
    make(CPU_MODEL_PORTABLE, &rich, &one, 0, &a);
    make(CPU_MODEL_PORTABLE, &poor, &one, 0, &b);
    assert_int_equal(a.count, b.count);
    /* But for the holes that a processor says it has not. */
    assert_int_equal(leaf(&a, 0x80000008, 0)->ebx & ~(1u << 26 | 1u << 29), 0);
    assert_int_equal(leaf(&a, 0x80000021, 0)->eax & ~(1u << 2 | 1u << 6 | 1u << 8 | 1u << 29), 0);
    assert_int_equal(leaf(&a, 7, 0)->edx & ~(1u << 26 | 1u << 29), 0);
    edit(&a, 0x80000008, 0)->ebx = edit(&a, 0x80000021, 0)->eax = edit(&a, 7, 0)->edx = 0;
    for (unsigned i = 0; i < a.count; i++)
        same_entry(&a.entry[i], &b.entry[i]);
    assert_int_equal(cpuid_physical_bits(&a), 40);
}

static void test_portable_bits(void **unused)
{
    struct cpuid_table host, t;
    uint32_t ecx;

    full_host(&host, INTEL);
    make(CPU_MODEL_PORTABLE, &host, &one, 0, &t);
    ecx = leaf(&t, 1, 0)->ecx;
    assert_true(ecx & 1u << 20);                                     /* sse4_2 */
    assert_true(ecx & 1u << 21);                                     /* x2apic */
    assert_true(ecx & 1u << 24);                                     /* tsc_deadline */
    assert_true(ecx & 1u << 31);                                     /* hypervisor */
    assert_false(ecx & (1u << 3 | 1u << 5));                         /* monitor, vmx */
    assert_false(ecx & (1u << 17 | 1u << 25 | 1u << 26 | 1u << 28)); /* pcid aes xsave avx */
    assert_int_equal(leaf(&t, 7, 0)->ebx, 0);
    assert_null(cpuid_find(&t, 0xd, 0));
    assert_int_equal(leaf(&t, 0x80000001, 0)->ecx, 1);
    assert_int_equal(leaf(&t, 0x80000001, 0)->edx, 1u << 11 | 1u << 20 | 1u << 27 | 1u << 29);
    assert_int_equal(leaf(&t, 0x80000007, 0)->edx, 1u << 8);
    assert_int_equal(leaf(&t, 0, 0)->ebx, 0x756e6547);
}

/* What a guest was given, looked for where it goes on. */
static void test_lost_features(void **unused)
{
    struct cpuid_table t = {.count = 1, .entry = {{.leaf = 1, .edx = 1 << 4 | 1 << 5}}};
    enum feature_loss loss;
    char words[64];
    const char *w;
    size_t len;

    assert_int_equal(cpu_feature_names(&t, words, sizeof(words)), 0);
    assert_string_equal(words, "tsc msr");
    assert_int_equal(cpu_feature_names(&t, words, 7), -ENOSPC);
    assert_null(cpu_feature_lacking(&t, "msr  tsc ", &len, &loss));
    w = cpu_feature_lacking(&t, "tsc pv_eoi sse2", &len, &loss);
    assert_int_equal(len, 6);
    assert_memory_equal(w, "pv_eoi", 6);
    assert_int_equal(loss, LOSS_NOTHING);
    w = cpu_feature_lacking(&t, w + len, &len, &loss);
    assert_memory_equal(w, "sse2", 4);
    assert_int_equal(loss, LOSS_BREAKS);
    assert_non_null(cpu_feature_lacking(&t, "auto_ibrs", &len, &loss));
    assert_int_equal(loss, LOSS_EXPOSES);
    assert_non_null(cpu_feature_lacking(&t, "unheard_of", &len, &loss));
    assert_int_equal(loss, LOSS_BREAKS);
}

static void test_missing_features_are_named(void **unused)
{
    struct cpuid_table host, t;
    struct qz_error err = {0};

    full_host(&host, AMD);
    edit(&host, 1, 0)->ecx &= ~(1u << 20 | 1u << 23);
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_PORTABLE, &host, &one, 0, 0, &t, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "this host lacks sse4_2, popcnt"));
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &host, &one, 0, 0, &t, &err), 0);

    full_host(&host, AMD);
    edit(&host, 7, 0)->ebx &= ~(1u << 5);
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_V3, &host, &one, 0, 0, &t, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "lacks avx2 "));
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_PORTABLE, &host, &one, 0, 0, &t, &err), 0);

    /* However much is missing, the text is cut and not overrun. */
    edit(&host, 1, 0)->ecx = edit(&host, 1, 0)->edx = 0;
    edit(&host, 0x80000001, 0)->ecx = edit(&host, 0x80000001, 0)->edx = 0;
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_V3, &host, &one, 0, 0, &t, &err), -ENOTSUP);

    t.count = 0;
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &t, &one, 0, 0, &host, &err), -ENOTSUP);
}

static void test_v3(void **unused)
{
    struct cpuid_table host, t;

    full_host(&host, INTEL);
    make(CPU_MODEL_V3, &host, &one, 0, &t);
    assert_true(leaf(&t, 1, 0)->ecx & 1u << 28);
    assert_true(leaf(&t, 7, 0)->ebx & 1u << 5);
    assert_false(leaf(&t, 7, 0)->ebx & 1u << 16); /* avx512f */
    assert_false(leaf(&t, 7, 0)->ecx);
    /* Extended state: x87, SSE, AVX and nothing else; sizes to match. */
    assert_int_equal(leaf(&t, 0xd, 0)->eax, 7);
    assert_int_equal(leaf(&t, 0xd, 0)->ecx, 0x340);
    assert_int_equal(leaf(&t, 0xd, 2)->eax, 0x100);
    assert_null(cpuid_find(&t, 0xd, 5));
    assert_int_equal(leaf(&t, 0xd, 1)->eax, 1 | 4);
    assert_int_equal(cpuid_physical_bits(&t), 46);
}

static void test_host_hides_what_has_nothing_behind_it(void **unused)
{
    struct cpuid_table host, t;

    full_host(&host, AMD);
    make(CPU_MODEL_HOST, &host, &one, 0, &t);
    assert_false(leaf(&t, 1, 0)->ecx & (1u << 3 | 1u << 5 | 1u << 27));
    assert_false(leaf(&t, 0x80000001, 0)->ecx & (1u << 2 | 1u << 29)); /* svm mwaitx */
    assert_true(leaf(&t, 7, 0)->ebx & 1u << 16);                       /* avx512f: state is there */
    assert_false(leaf(&t, 7, 0)->edx & 1u << 24);                      /* amx_tile: state is not */
    assert_int_equal(leaf(&t, 0xd, 0)->eax, 0x2e7);
    assert_int_equal(leaf(&t, 0xd, 0)->ecx, 0xa88);
    assert_int_equal(leaf(&t, 0xd, 11)->ecx, 1); /* supervisor state */
    assert_int_equal(leaf(&t, 0x80000002, 0)->eax, 0x64636261);
    assert_int_equal(leaf(&t, 1, 0)->eax, 0x00a20f10);
    assert_int_equal(leaf(&t, 0x40000001, 0)->eax & (1u << 4 | 1u << 5 | 1u << 14), 0);
    assert_int_equal(leaf(&t, 0x40000001, 0)->edx, 0);

    /* A host whose KVM has no XSAVE to give: nothing that lives in it may be promised. */
    edit(&host, 1, 0)->ecx &= ~(1u << 26);
    make(CPU_MODEL_HOST, &host, &one, 0, &t);
    assert_false(leaf(&t, 1, 0)->ecx & (1u << 12 | 1u << 28 | 1u << 29));
    assert_false(leaf(&t, 7, 0)->ebx & (1u << 5 | 1u << 16));
    assert_false(leaf(&t, 7, 0)->ecx & 1u << 3);
    assert_null(cpuid_find(&t, 0xd, 0));
}

static void test_apic_ids(void **unused)
{
    const struct cpu_topology flat = {1, 6, 1}, deep = {2, 3, 2};
    static const uint32_t expect[] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};

    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(cpu_topology_apic_id(&flat, i), i);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(cpu_topology_apic_id(&deep, i), expect[i]);
}

static void test_topology_leaves(void **unused)
{
    const struct cpu_topology t = {2, 3, 2};
    struct cpuid_table host, out;
    static const uint32_t leaves[] = {0xb, 0x1f};

    full_host(&host, AMD);
    make(CPU_MODEL_PORTABLE, &host, &t, 13, &out);
    assert_int_equal(leaf(&out, 1, 0)->ebx >> 24, 13);
    assert_int_equal(leaf(&out, 1, 0)->ebx >> 16 & 0xff, 8);
    assert_true(leaf(&out, 1, 0)->edx & 1u << 28);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(leaf(&out, leaves[i], 0)->eax, 1);
        assert_int_equal(leaf(&out, leaves[i], 0)->ebx, 2);
        assert_int_equal(leaf(&out, leaves[i], 0)->ecx, 0x100);
        assert_int_equal(leaf(&out, leaves[i], 0)->edx, 13);
        assert_int_equal(leaf(&out, leaves[i], 1)->eax, 3);
        assert_int_equal(leaf(&out, leaves[i], 1)->ebx, 6);
        assert_int_equal(leaf(&out, leaves[i], 1)->ecx, 0x201);
        assert_int_equal(leaf(&out, leaves[i], 2)->ecx, 2);
        assert_int_equal(leaf(&out, leaves[i], 2)->ebx, 0);
    }
    assert_int_equal(leaf(&out, 0x8000001e, 0)->eax, 13);
    assert_int_equal(leaf(&out, 0x8000001e, 0)->ebx, 2 | 1 << 8);
    assert_int_equal(leaf(&out, 0x8000001e, 0)->ecx, 1);
    assert_int_equal(leaf(&out, 0x80000008, 0)->ecx, 5 | 3 << 12);
    assert_true(leaf(&out, 0x80000001, 0)->ecx & 1u << 22);

    make(CPU_MODEL_PORTABLE, &host, &one, 300, &out);
    assert_int_equal(leaf(&out, 1, 0)->ebx >> 24, 300 & 0xff);
    assert_int_equal(leaf(&out, 0xb, 0)->edx, 300);
    assert_false(leaf(&out, 1, 0)->edx & 1u << 28);
}

static void test_caches(void **unused)
{
    const struct cpu_topology t = {1, 4, 2};
    struct cpuid_table host, out;
    const struct cpuid_entry *l3;

    full_host(&host, INTEL);
    make(CPU_MODEL_PORTABLE, &host, &t, 0, &out);
    l3 = leaf(&out, 4, 3);
    assert_int_equal(l3->eax & 0xff, 3 | 3 << 5);
    assert_int_equal((l3->eax >> 14 & 0xfff) + 1, 8); /* shared by the package */
    assert_int_equal((l3->eax >> 26) + 1, 4);         /* cores */
    assert_int_equal((leaf(&out, 4, 0)->eax >> 14 & 0xfff) + 1, 2);
    /* ways * partitions * line * sets */
    assert_int_equal(((l3->ebx >> 22) + 1) * ((l3->ebx & 0xfff) + 1) * (l3->ecx + 1), 16u << 20);
    assert_int_equal(leaf(&out, 4, 4)->eax, 0);
}

static void test_frequencies(void **unused)
{
    struct cpuid_table host, t;
    const struct cpuid_entry *e;
    struct qz_error err = {0};
    static const uint32_t khz[] = {1, 999999, 1000000, 2596118, 2893437, 5999999, 4200000000u};

    full_host(&host, INTEL);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(khz); i++) {
        assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &host, &one, 0, khz[i], &t, &err), 0);
        assert_int_equal(leaf(&t, 0x40000010, 0)->eax, khz[i]);
        assert_int_equal(leaf(&t, 0x40000010, 0)->ebx, 1000000);
        e = cpuid_find(&t, 0x15, 0);
        if (khz[i] >= 999999 && khz[i] < 6000000) {
            assert_non_null(e);
            /* As a guest computes it, in 32 bits; within two parts in a million. */
            const uint32_t guest = e->ecx / 1000 * e->ebx / e->eax;

            assert_true(llabs((long long)guest - khz[i]) <= 1 + khz[i] / 500000);
        }
    }
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &host, &one, 0, 0, &t, &err), 0);
    assert_null(cpuid_find(&t, 0x15, 0));
    assert_null(cpuid_find(&t, 0x40000010, 0));
    assert_int_equal(leaf(&t, 0x40000000, 0)->eax, 0x40000001);
}

static void test_impossible_topologies(void **unused)
{
    const struct cpu_topology none = {1, 0, 1}, huge = {1, 1u << 20, 1};
    struct cpuid_table host, t;
    struct qz_error err = {0};

    full_host(&host, INTEL);
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &host, &none, 0, 0, &t, &err), -EINVAL);
    assert_int_equal(cpu_model_cpuid(CPU_MODEL_HOST, &host, &huge, 0, 0, &t, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_portable_is_the_same_everywhere),
        cmocka_unit_test(test_portable_bits),
        cmocka_unit_test(test_lost_features),
        cmocka_unit_test(test_missing_features_are_named),
        cmocka_unit_test(test_v3),
        cmocka_unit_test(test_host_hides_what_has_nothing_behind_it),
        cmocka_unit_test(test_apic_ids),
        cmocka_unit_test(test_topology_leaves),
        cmocka_unit_test(test_caches),
        cmocka_unit_test(test_frequencies),
        cmocka_unit_test(test_impossible_topologies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

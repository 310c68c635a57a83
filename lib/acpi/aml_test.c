/* aml_test.c - the bytes of AML, against encodings written out by hand from ACPI 6.4 §20.2 and
 * §6.4. */
#include "internal.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct fixture {
    struct qz_acpi_tables t;
    struct qz_aml a;
};

static int setup(void **state)
{
    static struct fixture f;

    qz_acpi_tables_init(&f.t, "QUEZTL", "TEST");
    qz_aml_begin(&f.a, &f.t, "SSDT");
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    qz_acpi_tables_fini(&((struct fixture *)*state)->t);
    return 0;
}

/* The body of the definition block is exactly these bytes. */
#define assert_aml(f, ...)                                                                         \
    do {                                                                                           \
        const uint8_t want_[] = {__VA_ARGS__};                                                     \
        assert_string_equal((f)->t.blob.why, "");                                                  \
        assert_int_equal((f)->t.blob.len - HEADER_SIZE, sizeof(want_));                            \
        assert_memory_equal((f)->t.blob.data + HEADER_SIZE, want_, sizeof(want_));                 \
    } while (0)

static void names(void **state)
{
    static const struct {
        const char *path;
        int len;
        const char *code;
    } good[] = {
        {"A", 4, "A___"},
        {"_HID", 4, "_HID"},
        {"\\", 2, "\\\0"},
        {"^", 2, "^\0"},
        {"^^FOO", 6, "^^FOO_"},
        {"\\_SB.PCI0", 10, "\\._SB_PCI0"},
        {"A.B.C", 14, "/\3A___B___C___"},
    };
    static const char *const wrong[] = {
        "",     "a",          "TOOLONG", "0AAA", "A..B",
        "A.",   ".A",         "A ",      "A\\B", "A^",
        "\\^A", "^^^^^^^^^A", "\\\\",    "A-B",  "A.B.C.D.E.F.G.H.I.J.K.L.M.N.O.P.Q"};

    for (size_t i = 0; i < QZ_ARRAY_LEN(good); i++) {
        uint8_t out[NAME_MAX_LEN];

        assert_int_equal(name_encode(good[i].path, out), good[i].len);
        assert_memory_equal(out, good[i].code, (size_t)good[i].len);
    }
    for (size_t i = 0; i < QZ_ARRAY_LEN(wrong); i++) {
        uint8_t out[NAME_MAX_LEN];

        assert_int_equal(name_encode(wrong[i], out), -EINVAL);
    }
}

static void integers_are_shortest(void **state)
{
    static const struct {
        uint64_t v;
        size_t len;
        uint8_t code[9];
    } cases[] = {
        {0, 1, {0}},
        {1, 1, {1}},
        {2, 2, {0x0a, 2}},
        {255, 2, {0x0a, 255}},
        {256, 3, {0x0b, 0, 1}},
        {65536, 5, {0x0c, 0, 0, 1, 0}},
        {UINT32_MAX, 5, {0x0c, 255, 255, 255, 255}},
        {1ull << 32, 9, {0x0e, 0, 0, 0, 0, 1, 0, 0, 0}},
        {UINT64_MAX, 1, {0xff}},
    };

    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        uint8_t out[9];

        assert_int_equal(int_encode(cases[i].v, out), cases[i].len);
        assert_memory_equal(out, cases[i].code, cases[i].len);
    }
}

/* Decodes a package length as an interpreter does. */
static size_t pkg_length_decode(const uint8_t *p)
{
    size_t v = p[0] >> 6 ? p[0] & 15 : p[0] & 63;

    for (unsigned i = 1; i <= p[0] >> 6; i++)
        v |= (size_t)p[i] << (4 + 8 * (i - 1));
    return v;
}

static void package_lengths_at_their_edges(void **state)
{
    static const struct {
        size_t body, n;
    } cases[] = {{0, 1},
                 {62, 1},
                 {63, 2},
                 {4093, 2},
                 {4094, 3},
                 {1048572, 3},
                 {1048573, 4},
                 {(1 << 28) - 5, 4},
                 {(1 << 28) - 4, 0}};

    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        uint8_t out[4];

        assert_int_equal(pkg_length_encode(cases[i].body, out), cases[i].n);
        if (!cases[i].n)
            continue;
        assert_int_equal(out[0] >> 6, cases[i].n - 1);
        assert_int_equal(pkg_length_decode(out), cases[i].body + cases[i].n);
    }
}

static void eisa_ids_and_uuids(void **state)
{
    static const uint8_t pnp0a08[] = {0x0c, 0x41, 0xd0, 0x0a, 0x08};
    static const uint8_t osc[] = {0x11, 0x13, 0x0a, 0x10, 0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f,
                                  0x1c, 0x40, 0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
    struct qz_ax e = qz_ax_eisaid("PNP0A08");

    assert_int_equal(e.len, sizeof(pnp0a08));
    assert_memory_equal(e.code, pnp0a08, sizeof(pnp0a08));
    e = qz_ax_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766");
    assert_int_equal(e.len, sizeof(osc));
    assert_memory_equal(e.code, osc, sizeof(osc));
    assert_int_equal(qz_ax_eisaid("PNP0A0").len, QZ_AX_BAD);
    assert_int_equal(qz_ax_eisaid("PNP0A0G").len, QZ_AX_BAD);
    assert_int_equal(qz_ax_eisaid("pnp0A08").len, QZ_AX_BAD);
    assert_int_equal(qz_ax_uuid("33db4d5b-1ff7-401c-9657-7441c03dd76").len, QZ_AX_BAD);
    assert_int_equal(qz_ax_uuid("33db4d5b-1ff7-401c-9657+7441c03dd766").len, QZ_AX_BAD);
}

static void nested_blocks(void **state)
{
    struct fixture *f = *state;

    qz_aml_scope(&f->a, "\\_SB");
    qz_aml_device(&f->a, "DEV");
    qz_aml_name(&f->a, "_UID", qz_ax_int(7));
    qz_aml_end(&f->a);
    qz_aml_end(&f->a);
    assert_aml(f, 0x10, 20, '\\', '_', 'S', 'B', '_', 0x5b, 0x82, 12, 'D', 'E', 'V', '_', 0x08, '_',
               'U', 'I', 'D', 0x0a, 7);
}

static void a_long_block_keeps_its_contents(void **state)
{
    struct fixture *f = *state;
    const uint8_t *p;

    qz_aml_scope(&f->a, "\\");
    for (int i = 0; i < 1000; i++)
        qz_aml_name(&f->a, "NAME", qz_ax_int(0));
    qz_aml_end(&f->a);
    p = f->t.blob.data + HEADER_SIZE;
    assert_int_equal(f->t.blob.len - HEADER_SIZE, 1 + 3 + 2 + 6 * 1000);
    assert_int_equal(pkg_length_decode(p + 1), 3 + 2 + 6 * 1000);
    assert_memory_equal(p + 4, "\\\0\x08NAME", 7);
}

static void methods_and_conditions(void **state)
{
    struct fixture *f = *state;

    qz_aml_method(&f->a, "M", 2, QZ_AML_SERIALIZED);
    qz_aml_if(&f->a, qz_ax_less_equal(qz_ax_arg(0), qz_ax_local(3)));
    qz_aml_return(&f->a, qz_ax_int(1));
    qz_aml_else_if(&f->a, qz_ax_arg(1));
    qz_aml_return(&f->a, qz_ax_int(0));
    qz_aml_else(&f->a);
    qz_aml_store(&f->a, qz_ax_add(qz_ax_arg(0), qz_ax_int(1)), qz_ax_local(0));
    qz_aml_end(&f->a); /* the whole chain */
    qz_aml_end(&f->a);
    assert_aml(f, 0x14, 29, 'M', '_', '_', '_', 0x0a, 0xa0, 7, 0x92, 0x94, 0x68, 0x63, 0xa4, 0x01,
               0xa1, 14, 0xa0, 4, 0x69, 0xa4, 0x00, 0xa1, 7, 0x70, 0x72, 0x68, 0x01, 0x00, 0x60);
}

static void packages_are_counted(void **state)
{
    struct fixture *f = *state;

    qz_aml_name_package(&f->a, "P");
    qz_aml_put(&f->a, qz_ax_int(1));
    qz_aml_package(&f->a);
    qz_aml_put(&f->a, qz_ax_str("a"));
    qz_aml_put(&f->a, qz_ax_name("B"));
    qz_aml_end(&f->a);
    qz_aml_put(&f->a, qz_ax_int(0));
    qz_aml_end(&f->a);
    assert_aml(f, 0x08, 'P', '_', '_', '_', 0x12, 14, 3, 0x01, 0x12, 9, 2, 0x0d, 'a', 0, 'B', '_',
               '_', '_', 0x00);
}

static void a_package_of_256_elements_is_refused(void **state)
{
    struct fixture *f = *state;

    qz_aml_name_package(&f->a, "P");
    for (int i = 0; i < 256; i++)
        qz_aml_put(&f->a, qz_ax_int(0));
    qz_aml_end(&f->a);
    assert_int_equal(f->t.blob.error, -E2BIG);
}

static void field_lists(void **state)
{
    struct fixture *f = *state;

    qz_aml_operation_region(&f->a, "R", QZ_AML_SYSTEM_IO, 0x620, 16);
    qz_aml_field(&f->a, "R", QZ_AML_BYTE_ACC | QZ_AML_LOCK | QZ_AML_WRITE_AS_ZEROS);
    qz_aml_field_unit(&f->a, "X", 8);
    qz_aml_field_offset(&f->a, 1); /* already there: no gap */
    qz_aml_field_offset(&f->a, 9); /* 64 bits: two bytes of width */
    qz_aml_field_unit(&f->a, "Y", 1);
    qz_aml_end(&f->a);
    assert_aml(f, 0x5b, 0x80, 'R', '_', '_', '_', 1, 0x0b, 0x20, 0x06, 0x0a, 16, 0x5b, 0x81, 19,
               'R', '_', '_', '_', 0x51, 'X', '_', '_', '_', 8, 0, 0x40, 0x04, 'Y', '_', '_', '_',
               1);
}

static void resource_templates(void **state)
{
    struct fixture *f = *state;

    qz_aml_name_resources(&f->a, "_CRS");
    qz_aml_io(&f->a, 0x3f8, 0x3f8, 1, 8);
    qz_aml_irq_no_flags(&f->a, 4);
    qz_aml_irq(&f->a, 8, QZ_AML_EDGE | QZ_AML_ACTIVE_LOW | QZ_AML_SHARED);
    qz_aml_memory32_fixed(&f->a, 0xfed00000, 0x400, QZ_AML_MEM_RW);
    qz_aml_interrupt(&f->a, 16, QZ_AML_LEVEL | QZ_AML_ACTIVE_LOW | QZ_AML_SHARED);
    qz_aml_word_bus(&f->a, 0, 255);
    qz_aml_end(&f->a);
    assert_aml(f, 0x08, '_', 'C', 'R', 'S', 0x11, 0x39, 0x0a, 0x36,      /* 54 bytes in a buffer */
               0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8,                          /* IO */
               0x22, 0x10, 0,                                            /* IRQNoFlags */
               0x23, 0, 1, 0x19,                                         /* IRQ */
               0x86, 9, 0, 1, 0, 0, 0xd0, 0xfe, 0, 4, 0, 0,              /* Memory32Fixed */
               0x89, 6, 0, 0x0d, 1, 16, 0, 0, 0,                         /* Interrupt */
               0x88, 13, 0, 2, 0x0c, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 1, /* WordBusNumber */
               0x79, 0);
}

static void wide_windows(void **state)
{
    struct fixture *f = *state;

    qz_aml_name_resources(&f->a, "_CRS");
    qz_aml_qword_memory(&f->a, 0x380000000000, 0x38ffffffffff,
                        QZ_AML_MEM_RW | QZ_AML_MEM_PREFETCHABLE | QZ_AML_CONSUMER);
    qz_aml_end(&f->a);
    assert_aml(f, 0x08, '_', 'C', 'R', 'S', 0x11, 51, 0x0a, 48, /* */
               0x8a, 43, 0, 0, 0x0d, 7, 0, 0, 0, 0, 0, 0, 0, 0, /* granularity */
               0, 0, 0, 0, 0, 0x38, 0, 0,                       /* min */
               0xff, 0xff, 0xff, 0xff, 0xff, 0x38, 0, 0,        /* max */
               0, 0, 0, 0, 0, 0, 0, 0,                          /* translation */
               0, 0, 0, 0, 0, 1, 0, 0,                          /* length */
               0x79, 0);
}

static void prt_and_sleep_states(void **state)
{
    struct fixture *f = *state;

    qz_aml_sleep_state(&f->a, 5, 7);
    qz_aml_name_package(&f->a, "_PRT");
    qz_aml_prt_entry(&f->a, 1, 2, NULL, 18);
    qz_aml_prt_entry(&f->a, 2, 0, "LNKA", 99);
    qz_aml_end(&f->a);
    assert_aml(f, 0x08, '_', 'S', '5', '_', 0x12, 8, 4, 0x0a, 7, 0x0a, 7, 0, 0, /* */
               0x08, '_', 'P', 'R', 'T', 0x12, 0x1d, 2,                         /* */
               0x12, 12, 4, 0x0c, 0xff, 0xff, 1, 0, 0x0a, 2, 0, 0x0a, 18,       /* */
               0x12, 13, 4, 0x0c, 0xff, 0xff, 2, 0, 0, 'L', 'N', 'K', 'A', 0);
}

typedef void (*misuse)(struct qz_aml *a);
static void bad_name(struct qz_aml *a)
{
    qz_aml_device(a, "pci0");
}
static void bad_expression(struct qz_aml *a)
{
    qz_aml_return(a, qz_ax_add(qz_ax_int(1), qz_ax_name("x")));
}
static void bad_argument(struct qz_aml *a)
{
    qz_aml_return(a, qz_ax_lnot(qz_ax_arg(7)));
}
static void end_without_block(struct qz_aml *a)
{
    qz_aml_end(a);
}
static void else_without_if(struct qz_aml *a)
{
    qz_aml_else(a);
}
static void unit_outside_field(struct qz_aml *a)
{
    qz_aml_field_unit(a, "X", 8);
}
static void io_outside_template(struct qz_aml *a)
{
    qz_aml_io(a, 0, 0, 1, 1);
}
static void package_outside_package(struct qz_aml *a)
{
    qz_aml_package(a);
}
static void backwards_window(struct qz_aml *a)
{
    qz_aml_name_resources(a, "_CRS");
    qz_aml_dword_memory(a, 2, 1, 0);
}
static void whole_space_window(struct qz_aml *a)
{
    qz_aml_name_resources(a, "_CRS");
    qz_aml_dword_memory(a, 0, UINT32_MAX, 0);
}
static void name_in_template(struct qz_aml *a)
{
    qz_aml_name_resources(a, "_CRS");
    qz_aml_name(a, "_UID", qz_ax_int(0));
}
static void backwards_offset(struct qz_aml *a)
{
    qz_aml_field(a, "R", 0);
    qz_aml_field_unit(a, "X", 32);
    qz_aml_field_offset(a, 1);
}
static void odd_create_field(struct qz_aml *a)
{
    qz_aml_create_field(a, qz_ax_arg(0), qz_ax_int(0), "X", 24);
}
static void left_open(struct qz_aml *a)
{
    qz_aml_scope(a, "\\_SB");
    qz_aml_finish(a);
}
static void too_deep(struct qz_aml *a)
{
    for (int i = 0; i < QZ_AML_DEPTH_MAX; i++)
        qz_aml_scope(a, "\\_SB");
}
static void too_long(struct qz_aml *a)
{
    struct qz_ax e = qz_ax_name("\\_SB.PCI0.ISA.COM1._STA");

    qz_aml_put(a, qz_ax_call("FOO", e, e, e, e, e, e, e));
}

static void misuse_sticks(void **state)
{
    static const struct {
        misuse f;
        int code;
    } cases[] = {
        {bad_name, -EINVAL},
        {bad_expression, -EINVAL},
        {bad_argument, -EINVAL},
        {end_without_block, -EINVAL},
        {else_without_if, -EINVAL},
        {unit_outside_field, -EINVAL},
        {io_outside_template, -EINVAL},
        {package_outside_package, -EINVAL},
        {backwards_window, -EINVAL},
        {whole_space_window, -EINVAL},
        {name_in_template, -EINVAL},
        {backwards_offset, -EINVAL},
        {odd_create_field, -EINVAL},
        {left_open, -EINVAL},
        {too_deep, -E2BIG},
        {too_long, -E2BIG},
    };

    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct qz_acpi_tables t;
        struct qz_error err = {0};
        struct qz_aml a;
        size_t len;

        qz_acpi_tables_init(&t, "QUEZTL", "TEST");
        qz_aml_begin(&a, &t, "DSDT");
        cases[i].f(&a);
        assert_int_equal(t.blob.error, cases[i].code);
        assert_string_not_equal(t.blob.why, "");
        /* Nothing is appended after that, and no call minds. */
        len = t.blob.len;
        qz_aml_scope(&a, "\\_SB");
        qz_aml_else(&a);
        qz_aml_end(&a);
        qz_aml_field_unit(&a, "X", 8);
        qz_aml_cpu_devices(&a, &(struct qz_acpi_cpu){0}, 1, true);
        qz_aml_finish(&a);
        assert_int_equal(t.blob.len, len);
        assert_int_equal(qz_acpi_tables_finish(&t, &err), cases[i].code);
        assert_string_not_equal(err.text, "");
        qz_acpi_tables_fini(&t);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(integers_are_shortest),
        cmocka_unit_test(package_lengths_at_their_edges),
        cmocka_unit_test(eisa_ids_and_uuids),
        T(nested_blocks),
        T(a_long_block_keeps_its_contents),
        T(methods_and_conditions),
        T(packages_are_counted),
        T(a_package_of_256_elements_is_refused),
        T(field_lists),
        T(resource_templates),
        T(wide_windows),
        T(prt_and_sleep_states),
        cmocka_unit_test(misuse_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* verify_test.c - every single corrupted byte of a good table set is noticed, and broken structures
 * are named. */
#include "internal.h"
#include "testpc.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct image {
    struct qz_acpi_tables t;
    struct qz_acpi_blob mem; /* RSDP at 0xe0000, tables at 0xe0040 */
};

static int setup(void **state)
{
    static struct image m;
    uint8_t rsdp[QZ_ACPI_RSDP_SIZE];
    struct qz_error err = {0};

    qz_acpi_tables_init(&m.t, "QUEZTL", "TESTPC");
    testpc_build(&m.t, 2, false);
    qz_acpi_blob_init(&m.mem, 1 << 20);
    qz_acpi_put_zeros(&m.mem, 64);
    if (qz_acpi_place(&m.t, 0xe0000, 0xe0040, rsdp, &m.mem, &err) < 0)
        return -1;
    memcpy(m.mem.data, rsdp, sizeof(rsdp));
    *state = &m;
    return 0;
}

static int teardown(void **state)
{
    struct image *m = *state;

    qz_acpi_blob_fini(&m->mem);
    qz_acpi_tables_fini(&m->t);
    return 0;
}

static uint8_t *table(struct image *m, const char *signature, size_t *len)
{
    for (size_t i = 0; i < m->t.n_tables; i++)
        if (memcmp(m->t.table[i].signature, signature, 4) == 0) {
            *len = m->t.table[i].len;
            return m->mem.data + 64 + m->t.table[i].offset;
        }
    fail_msg("no table %s", signature);
    return NULL;
}

static void every_flipped_byte_is_noticed(void **state)
{
    struct image *m = *state;

    for (size_t i = 0; i < m->t.n_tables; i++) {
        uint8_t *p = m->mem.data + 64 + m->t.table[i].offset;

        if (memcmp(p, "FACS", 4) == 0) /* has no checksum */
            continue;
        for (size_t k = 0; k < m->t.table[i].len; k++) {
            struct qz_error err = {0};

            p[k] ^= 0x10;
            assert_int_equal(qz_acpi_verify(m->mem.data, m->mem.len, &err), -EBADMSG);
            assert_string_not_equal(err.text, "");
            p[k] ^= 0x10;
        }
    }
    assert_int_equal(qz_acpi_verify(m->mem.data, m->mem.len, NULL), (int)m->t.n_tables + 1);
}

static void every_cut_is_survived(void **state)
{
    struct image *m = *state;

    for (size_t len = 0; len < m->mem.len; len++) {
        uint8_t *copy =
            malloc(len ? len : 1); /* exact, so that the address sanitizer sees a read past it */

        assert_non_null(copy);
        memcpy(copy, m->mem.data, len);
        (void)qz_acpi_verify(copy, len, NULL);
        assert_int_equal(qz_acpi_verify_linked(copy, len, 0xe0000, 0xe0000, NULL), -EBADMSG);
        free(copy);
    }
}

/* Writes v over n bytes at an offset of a table, puts the checksum right and expects the verifier
 * to name `cause`. */
static void broken(struct image *m, const char *signature, size_t at, uint64_t v, unsigned n,
                   const char *cause)
{
    struct qz_error err = {0};
    uint8_t saved[8], *p, sum;
    size_t len;

    p = table(m, signature, &len);
    memcpy(saved, p + at, n);
    sum = p[9];
    for (unsigned i = 0; i < n; i++)
        p[at + i] = (uint8_t)(v >> (8 * i));
    p[9] = 0;
    p[9] = checksum8(p, len);
    assert_int_equal(qz_acpi_verify(m->mem.data, m->mem.len, &err), -EBADMSG);
    if (!strstr(err.text, cause))
        fail_msg("\"%s\" does not say \"%s\"", err.text, cause);
    memcpy(p + at, saved, n);
    p[9] = sum;
}

static void broken_structures_are_named(void **state)
{
    struct image *m = *state;

    broken(m, "APIC", 45, 0, 1, "APIC: entry at 0x2c of length 0");
    broken(m, "APIC", 45, 255, 1, "runs past the table");
    broken(m, "APIC", 45, 7, 1, "length 7 instead of 8");
    broken(m, "SRAT", 49, 24, 1, "length 24 instead of 16");
    broken(m, "SLIT", 36, 4, 8, "4 localities");
    broken(m, "SLIT", 36, 1ull << 32, 8, "localities");
    broken(m, "HMAT", 44, 0, 4, "length 0");
    broken(m, "HMAT", 44, UINT32_MAX, 4, "runs past the table");
    broken(m, "HMAT", 40 + 120 + 12, UINT32_MAX, 4, "does not fit its length");
    broken(m, "HMAT", 40 + 120 + 16, 4, 4, "does not fit its length");
}

static void short_tables_are_named(void **state)
{
    static const char *const signatures[] = {"APIC", "FACP", "HPET", "HMAT", "MCFG",
                                             "SLIT", "SPCR", "SRAT", "WAET"};

    for (size_t i = 0; i < QZ_ARRAY_LEN(signatures); i++) {
        uint8_t bare[HEADER_SIZE] = {0};
        struct qz_error err = {0};

        memcpy(bare, signatures[i], 4);
        qz_store_le32(bare + 4, HEADER_SIZE);
        bare[9] = checksum8(bare, HEADER_SIZE);
        assert_int_equal(qz_acpi_verify(bare, sizeof(bare), &err), -EBADMSG);
        assert_non_null(strstr(err.text, signatures[i]));
    }
}

/* Redirects a pointer in FADT or XSDT. */
static void relinked(struct image *m, const char *signature, size_t at, uint64_t v, unsigned n,
                     const char *cause)
{
    struct qz_error err = {0};
    uint8_t saved[8], *p, sum;
    size_t len;

    p = table(m, signature, &len);
    memcpy(saved, p + at, n);
    sum = p[9];
    for (unsigned i = 0; i < n; i++)
        p[at + i] = (uint8_t)(v >> (8 * i));
    p[9] = 0;
    p[9] = checksum8(p, len);
    assert_int_equal(qz_acpi_verify_linked(m->mem.data, m->mem.len, 0xe0000, 0xe0000, &err),
                     -EBADMSG);
    if (!strstr(err.text, cause))
        fail_msg("\"%s\" does not say \"%s\"", err.text, cause);
    memcpy(p + at, saved, n);
    p[9] = sum;
}

static void bad_links_are_named(void **state)
{
    struct image *m = *state;
    size_t len;
    uint64_t ssdt = 0xe0000 + (uint64_t)(table(m, "SSDT", &len) - m->mem.data);

    assert_int_equal(qz_acpi_verify_linked(m->mem.data, m->mem.len, 0xe0000, 0xe0000, NULL),
                     (int)m->t.n_tables);
    relinked(m, "XSDT", 36, 0, 8, "XSDT points at 0x0");
    relinked(m, "XSDT", 36, UINT64_MAX, 8, "outside the memory");
    relinked(m, "XSDT", 36, ssdt, 8, "0 FADTs");
    relinked(m, "XSDT", 44, 0xe0000 + (uint64_t)(table(m, "FACP", &len) - m->mem.data), 8,
             "2 FADTs");
    relinked(m, "FACP", FADT_DSDT, 0xe0040, 4, "two DSDTs");
    relinked(m, "FACP", FADT_X_FIRMWARE_CTRL, 0xe0040, 8, "FACS twice");
    relinked(m, "FACP", FADT_FIRMWARE_CTRL, 0xe0044, 4, "not aligned");
    assert_int_equal(qz_acpi_verify_linked(m->mem.data, m->mem.len, 0xe0000, 0xdffff, NULL),
                     -EBADMSG);
    assert_int_equal(qz_acpi_verify_linked(m->mem.data, m->mem.len, 0xe0000, UINT64_MAX, NULL),
                     -EBADMSG);
    assert_int_equal(qz_acpi_verify_linked(m->mem.data, m->mem.len, 0xe0000, 0xe0010, NULL),
                     -EBADMSG);
}

static void nothing_is_no_table(void **state)
{
    static const uint8_t zeros[100];

    assert_int_equal(qz_acpi_verify(zeros, 0, NULL), -EBADMSG);
    assert_int_equal(qz_acpi_verify(zeros, sizeof(zeros), NULL), -EBADMSG);
    assert_int_equal(qz_acpi_verify("hello, world", 12, NULL), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flipped_byte_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(every_cut_is_survived, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_structures_are_named, setup, teardown),
        cmocka_unit_test(short_tables_are_named),
        cmocka_unit_test_setup_teardown(bad_links_are_named, setup, teardown),
        cmocka_unit_test(nothing_is_no_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

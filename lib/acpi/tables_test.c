/*
 * tables_test.c - the table set: both layouts as a guest finds them, entries of MADT, SRAT and
 * HMAT, and what is refused.
 *
 * The loader's commands are carried out by a small firmware written here from the format, not from
 * the code under test.
 */
#include "internal.h"
#include "testpc.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { MEM_SIZE = 1 << 20 };

static struct qz_acpi_tables pc(unsigned n_cpus, bool x2apic_only)
{
    struct qz_acpi_tables t;

    qz_acpi_tables_init(&t, "QUEZTL", "TESTPC");
    testpc_build(&t, n_cpus, x2apic_only);
    return t;
}

static const uint8_t *table(const struct qz_acpi_tables *t, const char *signature, size_t *len)
{
    for (size_t i = 0; i < t->n_tables; i++)
        if (memcmp(t->table[i].signature, signature, 4) == 0) {
            *len = t->table[i].len;
            return t->blob.data + t->table[i].offset;
        }
    fail_msg("no table %s", signature);
    return NULL;
}

static void place_at(uint64_t rsdp_gpa, uint64_t tables_gpa)
{
    struct qz_acpi_tables t = pc(4, false);
    uint64_t gpa = QZ_MIN(rsdp_gpa, tables_gpa);
    uint8_t *mem = calloc(1, MEM_SIZE), rsdp[QZ_ACPI_RSDP_SIZE];
    const uint8_t *fadt;
    struct qz_acpi_blob out;
    struct qz_error err = {0};
    size_t len;

    assert_non_null(mem);
    qz_acpi_blob_init(&out, MEM_SIZE);
    assert_int_equal(qz_acpi_place(&t, rsdp_gpa, tables_gpa, rsdp, &out, &err), 0);
    assert_int_equal(out.len, t.blob.len);
    memcpy(mem + (rsdp_gpa - gpa), rsdp, sizeof(rsdp));
    memcpy(mem + (tables_gpa - gpa), out.data, out.len);
    assert_int_equal(qz_acpi_verify_linked(mem, MEM_SIZE, gpa, rsdp_gpa, &err), (int)t.n_tables);
    assert_int_equal(qz_acpi_verify(mem, MEM_SIZE, &err), (int)t.n_tables + 1);

    fadt = out.data + (table(&t, "FACP", &len) - t.blob.data);
    assert_int_equal(len, 276);
    assert_int_equal(fadt[8], 6);
    assert_int_equal(fadt[131], 4);
    if (tables_gpa < UINT32_MAX) {
        assert_int_equal(qz_load_le32(fadt + 40), qz_load_le64(fadt + 140));
        assert_int_not_equal(qz_load_le32(fadt + 36), 0);
        assert_int_equal(qz_load_le64(fadt + 132), 0);
    } else {
        assert_int_equal(qz_load_le32(fadt + 36), 0);
        assert_int_equal(qz_load_le32(fadt + 40), 0);
        assert_int_not_equal(qz_load_le64(fadt + 132), 0);
    }
    qz_acpi_blob_fini(&out);
    qz_acpi_tables_fini(&t);
    free(mem);
}

static void placed_where_asked(void **state)
{
    place_at(0xe0000, 0xe1000);
    place_at(0xe0000, 0xe0040);
    place_at(0x7ffff000, 0x7ff80000);
    place_at(0x100000000, 0x100001000);
}

static void bad_places_are_refused(void **state)
{
    static const uint64_t cases[][2] = {
        {0xe0008, 0xe1000}, {0xe0000, 0xe1010},         {0xe0000, 0xe0000},
        {0xe1040, 0xe1000}, {UINT64_MAX - 15, 0xe1000}, {0xe0000, UINT64_MAX - 63},
    };
    struct qz_acpi_tables t = pc(1, false);
    uint8_t rsdp[QZ_ACPI_RSDP_SIZE];
    struct qz_acpi_blob out;

    qz_acpi_blob_init(&out, MEM_SIZE);
    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct qz_error err = {0};

        assert_int_equal(qz_acpi_place(&t, cases[i][0], cases[i][1], rsdp, &out, &err), -EINVAL);
        assert_string_not_equal(err.text, "");
        assert_int_equal(out.len, 0);
    }
    qz_acpi_blob_fini(&out);
    /* A buffer too small for the tables says so. */
    qz_acpi_blob_init(&out, 100);
    assert_int_equal(qz_acpi_place(&t, 0xe0000, 0xe1000, rsdp, &out, NULL), -E2BIG);
    qz_acpi_blob_fini(&out);
    qz_acpi_tables_fini(&t);
}

/* ---- a firmware that carries out etc/table-loader -------------------------------------------- */

struct file {
    const char *name;
    const struct qz_acpi_blob *contents;
    uint8_t *at; /* NULL until allocated */
};

struct firmware {
    uint8_t mem[MEM_SIZE];
    uint64_t gpa;
    size_t next;
    struct file file[2];
};

static struct file *file_named(struct firmware *fw, const uint8_t *name)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(fw->file); i++)
        if (strncmp((const char *)name, fw->file[i].name, 56) == 0)
            return &fw->file[i];
    fail_msg("the loader names an unknown file");
    return NULL;
}

static void allocate(struct firmware *fw, const uint8_t *c)
{
    struct file *f = file_named(fw, c + 4);
    uint32_t align = qz_load_le32(c + 60);

    assert_null(f->at);
    assert_true(align >= 16 && (align & (align - 1)) == 0);
    assert_int_equal(c[64], f == &fw->file[0] ? 2 : 1);
    fw->next = QZ_ALIGN_UP(fw->next, (size_t)align);
    f->at = fw->mem + fw->next;
    assert_true(fw->next + f->contents->len <= MEM_SIZE);
    memcpy(f->at, f->contents->data, f->contents->len);
    fw->next += f->contents->len;
}

static void add_pointer(struct firmware *fw, const uint8_t *c)
{
    struct file *to = file_named(fw, c + 4), *from = file_named(fw, c + 60);
    uint32_t offset = qz_load_le32(c + 116);
    uint64_t base;

    assert_non_null(to->at);
    assert_non_null(from->at);
    base = fw->gpa + (uint64_t)(from->at - fw->mem);
    assert_true(c[120] == 4 || c[120] == 8);
    assert_true(offset + c[120] <= to->contents->len);
    if (c[120] == 4) {
        assert_true(qz_load_le32(to->at + offset) < from->contents->len);
        qz_store_le32(to->at + offset, (uint32_t)(qz_load_le32(to->at + offset) + base));
    } else {
        assert_true(qz_load_le64(to->at + offset) < from->contents->len);
        qz_store_le64(to->at + offset, qz_load_le64(to->at + offset) + base);
    }
}

static void add_checksum(struct firmware *fw, const uint8_t *c)
{
    struct file *f = file_named(fw, c + 4);
    uint32_t at = qz_load_le32(c + 60), start = qz_load_le32(c + 64), len = qz_load_le32(c + 68);

    assert_non_null(f->at);
    assert_true(start + len <= f->contents->len && at >= start && at < start + len);
    /* As OVMF does it: the old value takes part in the sum, so it has to be zero. */
    f->at[at] = checksum8(f->at + start, len);
}

static void firmware_installs_the_loader_files(void **state)
{
    struct qz_acpi_tables t = pc(4, false);
    struct qz_acpi_blob rsdp, tables, loader;
    struct qz_error err = {0};
    struct firmware *fw = calloc(1, sizeof(*fw));

    assert_non_null(fw);
    qz_acpi_blob_init(&rsdp, 4096);
    qz_acpi_blob_init(&tables, MEM_SIZE);
    qz_acpi_blob_init(&loader, 65536);
    assert_int_equal(qz_acpi_export(&t, &rsdp, &tables, &loader, &err), 0);
    assert_int_equal(loader.len % QZ_ACPI_LOADER_ENTRY_SIZE, 0);
    fw->gpa = 0x7e000000;
    fw->next = 48;
    fw->file[0] = (struct file){.name = QZ_ACPI_FILE_RSDP, .contents = &rsdp};
    fw->file[1] = (struct file){.name = QZ_ACPI_FILE_TABLES, .contents = &tables};
    for (size_t i = 0; i < loader.len; i += QZ_ACPI_LOADER_ENTRY_SIZE) {
        const uint8_t *c = loader.data + i;

        switch (qz_load_le32(c)) {
        case 1:
            allocate(fw, c);
            break;
        case 2:
            add_pointer(fw, c);
            break;
        case 3:
            add_checksum(fw, c);
            break;
        default:
            fail_msg("loader command %u", qz_load_le32(c));
        }
    }
    assert_int_equal(qz_acpi_verify_linked(fw->mem, MEM_SIZE, fw->gpa, fw->gpa + 48, &err),
                     (int)t.n_tables);
    qz_acpi_blob_fini(&rsdp);
    qz_acpi_blob_fini(&tables);
    qz_acpi_blob_fini(&loader);
    qz_acpi_tables_fini(&t);
    free(fw);
}

/* ---- entries --------------------------------------------------------------------------------- */

static unsigned count_entries(const uint8_t *p, size_t from, size_t len, uint8_t type)
{
    unsigned n = 0;

    for (size_t at = from; at < len; at += p[at + 1])
        n += p[at] == type;
    return n;
}

static void processors_past_254_are_x2apic(void **state)
{
    struct qz_acpi_tables t = pc(300, false);
    const uint8_t *p;
    size_t len = 0;

    assert_string_equal(t.blob.why, "");
    p = table(&t, "APIC", &len);
    assert_int_equal(count_entries(p, 44, len, 0), 255);
    assert_int_equal(count_entries(p, 44, len, 9), 45);
    assert_int_equal(count_entries(p, 44, len, 1), 1);
    assert_int_equal(count_entries(p, 44, len, 2), 2);
    assert_int_equal(count_entries(p, 44, len, 4), 2);  /* all, and processor 0 */
    assert_int_equal(count_entries(p, 44, len, 10), 1); /* all */
    p = table(&t, "SRAT", &len);
    assert_int_equal(count_entries(p, 48, len, 0), 255);
    assert_int_equal(count_entries(p, 48, len, 2), 45);
    assert_int_equal(count_entries(p, 48, len, 1), 4);
    assert_int_equal(count_entries(p, 48, len, 5), 1);
    qz_acpi_tables_fini(&t);
}

static void x2apic_only_leaves_no_lapic_entries(void **state)
{
    struct qz_acpi_tables t = pc(8, true);
    const uint8_t *p;
    size_t len = 0;

    p = table(&t, "APIC", &len);
    assert_int_equal(count_entries(p, 44, len, 0), 0);
    assert_int_equal(count_entries(p, 44, len, 4), 0);
    assert_int_equal(count_entries(p, 44, len, 9), 8);
    assert_int_equal(count_entries(p, 44, len, 10), 2);
    qz_acpi_tables_fini(&t);
}

static void madt_bytes(void **state)
{
    static const struct qz_acpi_cpu cpus[] = {{.apic_id = 3, .uid = 1},
                                              {.apic_id = 0x100, .uid = 2, .absent = true}};
    static const uint8_t want[] = {0, 0,  0xe0, 0xfe, 0, 0, 0, 0, 0, 8, 1, 3, 1, 0, 0, 0, /* */
                                   9, 16, 0,    0,    0, 1, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0};
    struct qz_acpi_tables t;

    qz_acpi_tables_init(&t, "A", "LONGER THAN EIGHT");
    qz_acpi_add_madt(&t, &(struct qz_acpi_madt){.cpus = cpus, .n_cpus = 2});
    assert_int_equal(t.blob.len, HEADER_SIZE + sizeof(want));
    assert_memory_equal(t.blob.data + HEADER_SIZE, want, sizeof(want));
    assert_memory_equal(t.blob.data + 10, "A     LONGER T", 14);
    qz_acpi_tables_fini(&t);
}

static void srat_bytes(void **state)
{
    static const struct qz_acpi_cpu cpus[] = {{.apic_id = 3, .proximity = 0x04030201}};
    static const struct qz_acpi_initiator gi = {
        .proximity = 5, .segment = 0x1234, .bus = 6, .devfn = 0x78, .architectural = true};
    static const uint8_t want[] = {
        1, 0,  0, 0, 0, 0, 0, 0, 0,    0,    0, 0,                /* */
        0, 16, 1, 3, 1, 0, 0, 0, 0,    2,    3, 4,    0, 0, 0, 0, /* APIC */
        5, 32, 0, 1, 5, 0, 0, 0, 0x34, 0x12, 6, 0x78, 0, 0, 0, 0,
        0, 0,  0, 0, 0, 0, 0, 0, 3,    0,    0, 0,    0, 0, 0, 0};
    struct qz_acpi_tables t;

    qz_acpi_tables_init(&t, "QUEZTL", "TEST");
    qz_acpi_add_srat(&t, &(struct qz_acpi_srat){
                             .cpus = cpus, .n_cpus = 1, .initiators = &gi, .n_initiators = 1});
    assert_int_equal(t.blob.len, HEADER_SIZE + sizeof(want));
    assert_memory_equal(t.blob.data + HEADER_SIZE, want, sizeof(want));
    qz_acpi_tables_fini(&t);
}

/* The entry base unit and the entries that a row of values becomes. */
static void hmat_row(const uint64_t *values, uint32_t n, uint64_t unit, const uint16_t *entries)
{
    static const uint32_t nodes[] = {0, 1, 2, 3};
    const struct qz_acpi_hmat_locality l = {.type = QZ_ACPI_HMAT_READ_LATENCY,
                                            .initiators = nodes,
                                            .n_initiators = 1,
                                            .targets = nodes,
                                            .n_targets = n,
                                            .values = values};
    struct qz_acpi_tables t;
    const uint8_t *p;

    qz_acpi_tables_init(&t, "QUEZTL", "TEST");
    qz_acpi_add_hmat(&t, &(struct qz_acpi_hmat){.localities = &l, .n_localities = 1});
    assert_int_equal(t.blob.error, 0);
    p = t.blob.data + 40;
    assert_int_equal(qz_load_le64(p + 24), unit);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(qz_load_le16(p + 32 + 4 + 4 * n + 2 * i), entries[i]);
    assert_true(qz_acpi_verify(t.blob.data, t.blob.len, NULL) == 1);
    qz_acpi_tables_fini(&t);
}

static void hmat_values_find_their_unit(void **state)
{
    hmat_row((const uint64_t[]){0, 1, 65533}, 3, 1, (const uint16_t[]){0, 1, 65533});
    hmat_row((const uint64_t[]){100000, 150000, 3}, 3, 10, (const uint16_t[]){10000, 15000, 1});
    hmat_row((const uint64_t[]){65534, 65535, QZ_ACPI_HMAT_UNREACHABLE}, 3, 10,
             (const uint16_t[]){6553, 6554, 0xffff});
    hmat_row((const uint64_t[]){UINT64_MAX - 1}, 1, 1000000000000000, (const uint16_t[]){18447});
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void incomplete_sets_are_refused(void **state)
{
    struct qz_acpi_tables t;
    struct qz_error err = {0};

    qz_acpi_tables_init(&t, "QUEZTL", "TEST");
    assert_int_equal(qz_acpi_tables_finish(&t, &err), -EINVAL);
    qz_acpi_add_facs(&t);
    qz_acpi_add_fadt(&t, &(struct qz_acpi_fadt){.pm1a_event = 0x600, .pm1a_control = 0x604});
    assert_int_equal(qz_acpi_tables_finish(&t, &err), -EINVAL);
    assert_non_null(strstr(err.text, "DSDT"));
    qz_acpi_table_begin(&t, "DSDT", 2);
    assert_int_equal(qz_acpi_tables_finish(&t, &err), -EINVAL); /* still open */
    assert_non_null(strstr(err.text, "DSDT was not ended"));
    qz_acpi_tables_fini(&t);
}

static void late_and_nested_tables_are_refused(void **state)
{
    struct qz_acpi_tables t = pc(1, false);

    assert_int_equal(qz_acpi_tables_finish(&t, NULL), 0);
    assert_int_equal(qz_acpi_tables_finish(&t, NULL), 0);
    qz_acpi_add_waet(&t, 0);
    assert_int_equal(t.blob.error, -EINVAL);
    qz_acpi_tables_fini(&t);

    qz_acpi_tables_init(&t, "QUEZTL", "TEST");
    qz_acpi_table_begin(&t, "AAAA", 1);
    qz_acpi_table_begin(&t, "BBBB", 1);
    assert_int_equal(t.blob.error, -EINVAL);
    qz_acpi_tables_fini(&t);

    qz_acpi_tables_init(&t, "QUEZTL", "TEST");
    for (int i = 0; i < QZ_ACPI_TABLES_MAX + 1; i++)
        qz_acpi_add_waet(&t, 0);
    assert_int_equal(t.blob.error, -E2BIG);
    qz_acpi_tables_fini(&t);
}

static void add_bad(struct qz_acpi_tables *t, int which)
{
    static const uint8_t distance[] = {10, 10, 20, 10};
    static const struct qz_acpi_lapic_nmi nmi = {.uid = 5};
    static const struct qz_acpi_memory wraps = {.base = UINT64_MAX, .len = 2};
    static const struct qz_acpi_hmat_locality empty = {0};
    static const struct qz_acpi_hmat_cache cache = {.level = 4};

    switch (which) {
    case 0:
        qz_acpi_add_slit(t, distance, 2);
        break;
    case 1:
        qz_acpi_add_slit(t, distance, 0);
        break;
    case 2:
        qz_acpi_add_fadt(t, &(struct qz_acpi_fadt){.pm1a_event = 0x600});
        break;
    case 3:
        qz_acpi_add_fadt(
            t, &(struct qz_acpi_fadt){
                   .pm1a_event = 0x600, .pm1a_control = 0x604, .gpe0 = 0x620, .gpe0_len = 3});
        break;
    case 4:
        qz_acpi_add_madt(t, &(struct qz_acpi_madt){.nmis = &nmi, .n_nmis = 1});
        break;
    case 5:
        qz_acpi_add_srat(t, &(struct qz_acpi_srat){.memories = &wraps, .n_memories = 1});
        break;
    case 6:
        qz_acpi_add_hmat(t, &(struct qz_acpi_hmat){.localities = &empty, .n_localities = 1});
        break;
    case 7:
        qz_acpi_add_hmat(t, &(struct qz_acpi_hmat){.caches = &cache, .n_caches = 1});
        break;
    case 8:
        qz_acpi_add_spcr(t, &(struct qz_acpi_spcr){.baud = 1200});
        break;
    case 9:
        qz_acpi_add_mcfg(t, &(struct qz_acpi_ecam){.first_bus = 9, .last_bus = 8}, 1);
        break;
    default:
        qz_acpi_table_begin(t, "TOOLONG", 1);
    }
}

static void bad_descriptions_are_refused(void **state)
{
    for (int i = 0; i <= 10; i++) {
        struct qz_acpi_tables t;

        qz_acpi_tables_init(&t, "QUEZTL", "TEST");
        add_bad(&t, i);
        assert_int_equal(t.blob.error, -EINVAL);
        assert_string_not_equal(t.blob.why, "");
        qz_acpi_tables_fini(&t);
    }
}

static void the_buffer_has_a_limit(void **state)
{
    struct qz_acpi_blob b;

    qz_acpi_blob_init(&b, 10);
    qz_acpi_put64(&b, 1);
    qz_acpi_put32(&b, 1);
    assert_int_equal(b.error, -E2BIG);
    assert_int_equal(b.len, 8);
    qz_acpi_put8(&b, 1); /* would fit, but the error sticks */
    assert_int_equal(b.len, 8);
    assert_null(qz_acpi_blob_grow(&b, SIZE_MAX));
    qz_acpi_blob_fini(&b);
    qz_acpi_blob_init(&b, SIZE_MAX);
    qz_acpi_put8(&b, 1);
    assert_null(qz_acpi_blob_grow(&b, SIZE_MAX));
    assert_int_equal(b.error, -E2BIG);
    qz_acpi_blob_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(placed_where_asked),
        cmocka_unit_test(bad_places_are_refused),
        cmocka_unit_test(firmware_installs_the_loader_files),
        cmocka_unit_test(processors_past_254_are_x2apic),
        cmocka_unit_test(x2apic_only_leaves_no_lapic_entries),
        cmocka_unit_test(madt_bytes),
        cmocka_unit_test(srat_bytes),
        cmocka_unit_test(hmat_values_find_their_unit),
        cmocka_unit_test(incomplete_sets_are_refused),
        cmocka_unit_test(late_and_nested_tables_are_refused),
        cmocka_unit_test(bad_descriptions_are_refused),
        cmocka_unit_test(the_buffer_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

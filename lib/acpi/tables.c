/*
 * tables.c - the table set: headers, the XSDT, and the two ways of giving the set to a guest.
 *
 * The tables stand in one block at aligned offsets. Only three places point at tables: the RSDP (at
 * the XSDT), the XSDT (at everything but DSDT and FACS) and the FADT (at DSDT and FACS).
 * qz_acpi_place() fills them with addresses; qz_acpi_export() fills them with offsets into
 * etc/acpi/tables and lists them for the firmware, which allocates the files, adds their addresses
 * and then fills the checksums.
 *
 * Sources: ACPI 6.4 §5.2.5 (RSDP), §5.2.6 (header), §5.2.8 (XSDT); the loader's command format is
 * that of QEMU's bios-linker-loader interface, which OVMF and SeaBIOS implement: 128-byte commands,
 * little-endian.
 */
#include "internal.h"

enum {
    LOADER_ALLOCATE = 1,
    LOADER_ADD_POINTER = 2,
    LOADER_ADD_CHECKSUM = 3,
    LOADER_ZONE_HIGH = 1,
    LOADER_ZONE_FSEG = 2,
    LOADER_FILE_LEN = 56,
};

void qz_acpi_tables_init(struct qz_acpi_tables *t, const char *oem_id, const char *oem_table_id)
{
    memset(t, 0, sizeof(*t));
    qz_acpi_blob_init(&t->blob, QZ_ACPI_BYTES_MAX);
    memset(t->oem_id, ' ', sizeof(t->oem_id));
    memcpy(t->oem_id, oem_id, strnlen(oem_id, sizeof(t->oem_id)));
    memset(t->oem_table_id, ' ', sizeof(t->oem_table_id));
    memcpy(t->oem_table_id, oem_table_id, strnlen(oem_table_id, sizeof(t->oem_table_id)));
}

void qz_acpi_tables_fini(struct qz_acpi_tables *t)
{
    qz_acpi_blob_fini(&t->blob);
}

/* Aligns the block and enters a table; its index, or -1 after a failure. */
static int table_enter(struct qz_acpi_tables *t, const char *signature, size_t align)
{
    struct qz_acpi_blob *b = &t->blob;

    if (t->open || t->finished)
        qz_acpi_blob_fail(b, -EINVAL, "table %.4s begun %s", signature,
                          t->open ? "inside another table" : "after the set was finished");
    else if (strlen(signature) != 4)
        qz_acpi_blob_fail(b, -EINVAL, "table signature \"%s\" is not four characters", signature);
    else if (t->n_tables == QZ_ACPI_TABLES_MAX)
        qz_acpi_blob_fail(b, -E2BIG, "more than %d tables", QZ_ACPI_TABLES_MAX);
    if (b->error)
        return -1;
    qz_acpi_put_zeros(b, QZ_ALIGN_UP(b->len, align) - b->len);
    memcpy(t->table[t->n_tables].signature, signature, 4);
    t->table[t->n_tables].offset = b->len;
    t->open = true;
    return (int)t->n_tables++;
}

static void table_leave(struct qz_acpi_tables *t)
{
    t->table[t->n_tables - 1].len = t->blob.len - t->table[t->n_tables - 1].offset;
    t->open = false;
}

void qz_acpi_table_begin(struct qz_acpi_tables *t, const char *signature, uint8_t revision)
{
    struct qz_acpi_blob *b = &t->blob;

    if (table_enter(t, signature, 16) < 0)
        return;
    qz_acpi_put_bytes(b, signature, 4);
    qz_acpi_put32(b, 0); /* length, at the end */
    qz_acpi_put8(b, revision);
    qz_acpi_put8(b, 0); /* checksum, at the end */
    qz_acpi_put_bytes(b, t->oem_id, sizeof(t->oem_id));
    qz_acpi_put_bytes(b, t->oem_table_id, sizeof(t->oem_table_id));
    qz_acpi_put32(b, 1);             /* OEM revision */
    qz_acpi_put_bytes(b, "QZTL", 4); /* creator: this library */
    qz_acpi_put32(b, 1);
}

void qz_acpi_table_end(struct qz_acpi_tables *t)
{
    uint8_t *p;

    if (t->blob.error)
        return;
    if (!t->open) {
        qz_acpi_blob_fail(&t->blob, -EINVAL, "a table was ended that was not begun");
        return;
    }
    table_leave(t);
    p = t->blob.data + t->table[t->n_tables - 1].offset;
    qz_store_le32(p + 4, (uint32_t)t->table[t->n_tables - 1].len);
    p[9] = 0;
    p[9] = checksum8(p, t->table[t->n_tables - 1].len);
}

void qz_acpi_add_facs(struct qz_acpi_tables *t)
{
    uint8_t *p;

    if (table_enter(t, "FACS", QZ_ACPI_TABLES_ALIGN) < 0)
        return;
    p = qz_acpi_blob_grow(&t->blob, FACS_SIZE);
    if (!p)
        return;
    /* Waking vectors, lock and flags start as zero: no S3, no S4BIOS. There is no checksum. */
    memcpy(p, "FACS", 4);
    qz_store_le32(p + 4, FACS_SIZE);
    p[32] = 2; /* version */
    table_leave(t);
}

static bool is(const struct qz_acpi_tables *t, size_t i, const char *signature)
{
    return memcmp(t->table[i].signature, signature, 4) == 0;
}

/* Index of the table with that signature; after finish every one asked for exists. */
static size_t find(const struct qz_acpi_tables *t, const char *signature, size_t *count)
{
    size_t found = 0, n = 0;

    for (size_t i = t->n_tables; i-- > 0;)
        if (is(t, i, signature)) {
            found = i;
            n++;
        }
    if (count)
        *count = n;
    return found;
}

static int set_error(const struct qz_acpi_blob *b, struct qz_error *err)
{
    return qz_fail(err, b->error, "ACPI tables: %s", b->why);
}

int qz_acpi_tables_finish(struct qz_acpi_tables *t, struct qz_error *err)
{
    static const char *const needed[] = {"FACP", "DSDT", "FACS"};
    struct qz_acpi_blob *b = &t->blob;
    size_t count, entries = 0;

    if (t->open)
        qz_acpi_blob_fail(b, -EINVAL, "table %.4s was not ended",
                          t->n_tables ? t->table[t->n_tables - 1].signature : "");
    if (b->error)
        return set_error(b, err);
    if (t->finished)
        return 0;
    for (size_t i = 0; i < QZ_ARRAY_LEN(needed); i++) {
        find(t, needed[i], &count);
        if (count != 1)
            return qz_fail(err, -EINVAL, "ACPI tables: %zu tables %s, and there must be one", count,
                           needed[i]);
    }
    for (size_t i = 0; i < t->n_tables; i++)
        entries += !is(t, i, "DSDT") && !is(t, i, "FACS");
    qz_acpi_table_begin(t, "XSDT", 1);
    qz_acpi_put_zeros(b, entries * 8); /* pointers, when the place is known */
    qz_acpi_table_end(t);
    if (b->error)
        return set_error(b, err);
    t->finished = true;
    return 0;
}

/* Where a pointer stands in the block, how wide it is, and which offset it points at. */
struct pointer {
    size_t at;
    unsigned width;
    size_t target;
};

/*
 * Lists the pointers of XSDT and FADT for a block that begins at base. §5.2.9: the FACS is named by
 * FIRMWARE_CTRL below 4 GiB and by X_FIRMWARE_CTRL above, never by both; X_DSDT is always there and
 * DSDT where it can be.
 */
static size_t pointers(const struct qz_acpi_tables *t, uint64_t base,
                       struct pointer out[QZ_ACPI_TABLES_MAX + 3])
{
    const size_t fadt = t->table[find(t, "FACP", NULL)].offset;
    const size_t dsdt = t->table[find(t, "DSDT", NULL)].offset;
    const size_t facs = t->table[find(t, "FACS", NULL)].offset;
    const bool low = base + t->blob.len <= UINT32_MAX;
    size_t n = 0, slot = t->table[find(t, "XSDT", NULL)].offset + HEADER_SIZE;

    if (low) {
        out[n++] = (struct pointer){fadt + FADT_FIRMWARE_CTRL, 4, facs};
        out[n++] = (struct pointer){fadt + FADT_DSDT, 4, dsdt};
    } else {
        out[n++] = (struct pointer){fadt + FADT_X_FIRMWARE_CTRL, 8, facs};
    }
    out[n++] = (struct pointer){fadt + FADT_X_DSDT, 8, dsdt};
    out[n++] = (struct pointer){slot, 8, fadt};
    for (size_t i = 0; i < t->n_tables; i++) {
        if (is(t, i, "FACP") || is(t, i, "DSDT") || is(t, i, "FACS") || is(t, i, "XSDT"))
            continue;
        slot += 8;
        out[n++] = (struct pointer){slot, 8, t->table[i].offset};
    }
    return n;
}

/* Appends a copy of the block with its pointers made for base; NULL and an error in *out when that
 * fails. */
static uint8_t *copy_block(const struct qz_acpi_tables *t, uint64_t base, struct qz_acpi_blob *out)
{
    struct pointer p[QZ_ACPI_TABLES_MAX + 3];
    uint8_t *block = qz_acpi_blob_grow(out, t->blob.len);
    size_t n = pointers(t, base, p);

    if (!block)
        return NULL;
    memcpy(block, t->blob.data, t->blob.len);
    for (size_t i = 0; i < n; i++)
        if (p[i].width == 4)
            qz_store_le32(block + p[i].at, (uint32_t)(base + p[i].target));
        else
            qz_store_le64(block + p[i].at, base + p[i].target);
    return block;
}

static void rsdp_fill(const struct qz_acpi_tables *t, uint64_t xsdt,
                      uint8_t rsdp[QZ_ACPI_RSDP_SIZE])
{
    memset(rsdp, 0, QZ_ACPI_RSDP_SIZE);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, t->oem_id, sizeof(t->oem_id));
    rsdp[15] =
        2; /* revision; the RSDT address stays zero, every system since ACPI 2.0 reads the XSDT */
    qz_store_le32(rsdp + 20, QZ_ACPI_RSDP_SIZE);
    qz_store_le64(rsdp + 24, xsdt);
}

int qz_acpi_place(struct qz_acpi_tables *t, uint64_t rsdp_gpa, uint64_t tables_gpa,
                  uint8_t rsdp[QZ_ACPI_RSDP_SIZE], struct qz_acpi_blob *out, struct qz_error *err)
{
    static const char *const pointing[] = {"FACP", "XSDT"};
    int rc = qz_acpi_tables_finish(t, err);
    uint8_t *block;

    if (rc < 0)
        return rc;
    if (rsdp_gpa % 16 || rsdp_gpa > UINT64_MAX - QZ_ACPI_RSDP_SIZE)
        return qz_fail(err, -EINVAL, "ACPI tables: RSDP cannot stand at 0x%llx",
                       (unsigned long long)rsdp_gpa);
    if (tables_gpa % QZ_ACPI_TABLES_ALIGN || tables_gpa > UINT64_MAX - t->blob.len)
        return qz_fail(err, -EINVAL, "ACPI tables cannot stand at 0x%llx",
                       (unsigned long long)tables_gpa);
    if (rsdp_gpa < tables_gpa + t->blob.len && tables_gpa < rsdp_gpa + QZ_ACPI_RSDP_SIZE)
        return qz_fail(err, -EINVAL, "ACPI tables: RSDP at 0x%llx overlaps the tables at 0x%llx",
                       (unsigned long long)rsdp_gpa, (unsigned long long)tables_gpa);
    block = copy_block(t, tables_gpa, out);
    if (!block)
        return set_error(out, err);
    for (size_t i = 0; i < QZ_ARRAY_LEN(pointing); i++) {
        size_t k = find(t, pointing[i], NULL);
        uint8_t *p = block + t->table[k].offset;

        p[9] = 0;
        p[9] = checksum8(p, t->table[k].len);
    }
    rsdp_fill(t, tables_gpa + t->table[find(t, "XSDT", NULL)].offset, rsdp);
    rsdp[8] = checksum8(rsdp, 20);
    rsdp[32] = checksum8(rsdp, QZ_ACPI_RSDP_SIZE);
    return 0;
}

static void loader_allocate(struct qz_acpi_blob *b, const char *file, uint32_t align, uint8_t zone)
{
    qz_acpi_put32(b, LOADER_ALLOCATE);
    qz_acpi_put_text(b, file, LOADER_FILE_LEN, 0);
    qz_acpi_put32(b, align);
    qz_acpi_put8(b, zone);
    qz_acpi_put_zeros(b, QZ_ACPI_LOADER_ENTRY_SIZE - 4 - LOADER_FILE_LEN - 5);
}

static void loader_pointer(struct qz_acpi_blob *b, const char *file, size_t at, unsigned width)
{
    qz_acpi_put32(b, LOADER_ADD_POINTER);
    qz_acpi_put_text(b, file, LOADER_FILE_LEN, 0);
    qz_acpi_put_text(b, QZ_ACPI_FILE_TABLES, LOADER_FILE_LEN, 0);
    qz_acpi_put32(b, (uint32_t)at);
    qz_acpi_put8(b, (uint8_t)width);
    qz_acpi_put_zeros(b, QZ_ACPI_LOADER_ENTRY_SIZE - 4 - 2 * LOADER_FILE_LEN - 5);
}

static void loader_checksum(struct qz_acpi_blob *b, const char *file, size_t at, size_t start,
                            size_t len)
{
    qz_acpi_put32(b, LOADER_ADD_CHECKSUM);
    qz_acpi_put_text(b, file, LOADER_FILE_LEN, 0);
    qz_acpi_put32(b, (uint32_t)at);
    qz_acpi_put32(b, (uint32_t)start);
    qz_acpi_put32(b, (uint32_t)len);
    qz_acpi_put_zeros(b, QZ_ACPI_LOADER_ENTRY_SIZE - 4 - LOADER_FILE_LEN - 12);
}

int qz_acpi_export(struct qz_acpi_tables *t, struct qz_acpi_blob *rsdp, struct qz_acpi_blob *tables,
                   struct qz_acpi_blob *loader, struct qz_error *err)
{
    static const char *const pointing[] = {"FACP", "XSDT"};
    struct pointer p[QZ_ACPI_TABLES_MAX + 3];
    int rc = qz_acpi_tables_finish(t, err);
    uint8_t *block, *r;
    size_t n;

    if (rc < 0)
        return rc;
    block = copy_block(t, 0, tables);
    if (!block)
        return set_error(tables, err);
    r = qz_acpi_blob_grow(rsdp, QZ_ACPI_RSDP_SIZE);
    if (!r)
        return set_error(rsdp, err);
    rsdp_fill(t, t->table[find(t, "XSDT", NULL)].offset, r);

    loader_allocate(loader, QZ_ACPI_FILE_RSDP, 16, LOADER_ZONE_FSEG);
    loader_allocate(loader, QZ_ACPI_FILE_TABLES, QZ_ACPI_TABLES_ALIGN, LOADER_ZONE_HIGH);
    n = pointers(t, 0, p);
    for (size_t i = 0; i < n; i++)
        loader_pointer(loader, QZ_ACPI_FILE_TABLES, p[i].at, p[i].width);
    for (size_t i = 0; i < QZ_ARRAY_LEN(pointing); i++) {
        size_t k = find(t, pointing[i], NULL), at = t->table[k].offset;

        /* The firmware sums with this byte included. */
        block[at + 9] = 0;
        loader_checksum(loader, QZ_ACPI_FILE_TABLES, at + 9, at, t->table[k].len);
    }
    loader_pointer(loader, QZ_ACPI_FILE_RSDP, 24, 8);
    loader_checksum(loader, QZ_ACPI_FILE_RSDP, 8, 0, 20);
    /* Covers the first checksum, so it comes after it. */
    loader_checksum(loader, QZ_ACPI_FILE_RSDP, 32, 0, QZ_ACPI_RSDP_SIZE);
    return loader->error ? set_error(loader, err) : 0;
}

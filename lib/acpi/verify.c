/*
 * verify.c - checks tables that somebody else made: lengths, checksums, entries (ACPI 6.4 §5.2).
 *
 * The bytes are hostile. Every table is first cut to its length, which must lie inside the buffer;
 * every entry walk advances by a length of at least two that lies inside its table, so all loops
 * end.
 */
#include "internal.h"

/* Entries of an XSDT may repeat, and each is summed again, so their number is bounded; real
 * machines have below 60. */
enum { XSDT_ENTRIES_MAX = 512 };

static int bad_table(struct qz_error *err, const uint8_t *table, const char *what)
{
    return qz_fail(err, -EBADMSG, "%.4s: %s", (const char *)table, what);
}

/* Tables whose length has a lower bound and, where step is not 0, is that plus whole entries. */
static const struct shape {
    char signature[5];
    uint8_t step;
    uint16_t min;
} shapes[] = {
    {"XSDT", 8, HEADER_SIZE}, {"RSDT", 4, HEADER_SIZE}, {"MCFG", 16, 44}, {"FACP", 0, 116},
    {"APIC", 0, 44},          {"HPET", 0, 56},          {"SPCR", 0, 80},  {"WAET", 0, 40},
    {"SRAT", 0, 48},          {"SLIT", 0, 44},          {"HMAT", 0, 40},
};

static bool signed_as(const uint8_t *table, const char *signature)
{
    return memcmp(table, signature, 4) == 0;
}

/* Entries of one byte type, one byte length. lengths[type] is the exact length, 0 where any is
 * allowed. */
static int check_entries(const uint8_t *table, size_t at, size_t len, const uint8_t *lengths,
                         size_t n_lengths, struct qz_error *err)
{
    while (at < len) {
        uint8_t type, n;

        if (len - at < 2)
            return bad_table(err, table, "half an entry at the end");
        type = table[at];
        n = table[at + 1];
        if (n < 2 || n > len - at)
            return qz_fail(err, -EBADMSG,
                           "%.4s: entry at 0x%zx of length %u runs past the table (0x%zx)",
                           (const char *)table, at, n, len);
        if (type < n_lengths && lengths[type] && lengths[type] != n)
            return qz_fail(err, -EBADMSG,
                           "%.4s: entry at 0x%zx of type %u has length %u instead of %u",
                           (const char *)table, at, type, n, lengths[type]);
        at += n;
    }
    return 0;
}

static int check_slit(const uint8_t *table, size_t len, struct qz_error *err)
{
    uint64_t n = qz_load_le64(table + 36);

    if (n > 65535 || n * n != len - 44)
        return qz_fail(err, -EBADMSG, "SLIT: %llu localities in %zu bytes", (unsigned long long)n,
                       len);
    return 0;
}

/* The length that an HMAT structure of n bytes should have at most, from its counts; 0 where a
 * count is absurd. */
static uint64_t hmat_needs(const uint8_t *p, uint32_t n)
{
    uint64_t ni, nt;

    switch (qz_load_le16(p)) {
    case 0:
        return 40;
    case 1:
        if (n < 32)
            return 32;
        ni = qz_load_le32(p + 12);
        nt = qz_load_le32(p + 16);
        if (ni > n || nt > n)
            return 0;
        return 32 + 4 * ni + 4 * nt + 2 * ni * nt;
    case 2:
        return n < 32 ? 32 : 32 + 2u * qz_load_le16(p + 30);
    default:
        return 8;
    }
}

static int check_hmat(const uint8_t *table, size_t len, struct qz_error *err)
{
    for (size_t at = 40; at < len;) {
        uint64_t needs;
        uint32_t n;

        if (len - at < 8)
            return bad_table(err, table, "half a structure at the end");
        n = qz_load_le32(table + at + 4);
        if (n < 8 || n > len - at)
            return qz_fail(err, -EBADMSG,
                           "HMAT: structure at 0x%zx of length %u runs past the table (0x%zx)", at,
                           n, len);
        needs = hmat_needs(table + at, n);
        if (needs == 0 || needs > n)
            return qz_fail(err, -EBADMSG, "HMAT: structure at 0x%zx does not fit its length %u", at,
                           n);
        at += n;
    }
    return 0;
}

int table_check_body(const uint8_t *table, size_t len, struct qz_error *err)
{
    static const uint8_t madt[] = {8, 12, 10, 8, 6, 12, 16, 0, 0, 16, 12};
    static const uint8_t srat[] = {16, 40, 24, 18, 12, 32};

    for (size_t i = 0; i < QZ_ARRAY_LEN(shapes); i++) {
        const struct shape *s = &shapes[i];

        if (!signed_as(table, s->signature))
            continue;
        if (len < s->min || (s->step && (len - s->min) % s->step))
            return qz_fail(err, -EBADMSG, "%s: a length of %zu bytes is wrong", s->signature, len);
    }
    if (signed_as(table, "APIC"))
        return check_entries(table, 44, len, madt, sizeof(madt), err);
    if (signed_as(table, "SRAT"))
        return check_entries(table, 48, len, srat, sizeof(srat), err);
    if (signed_as(table, "SLIT"))
        return check_slit(table, len, err);
    if (signed_as(table, "HMAT"))
        return check_hmat(table, len, err);
    return 0;
}

/* The table that begins at p with `room` bytes to the end of the buffer; its length or -EBADMSG. */
static int64_t check_table(const uint8_t *p, size_t room, struct qz_error *err)
{
    bool facs;
    uint32_t len;
    int rc;

    if (room < 8)
        return qz_fail(err, -EBADMSG, "no room for a table header");
    for (int i = 0; i < 4; i++)
        if (!((p[i] >= 'A' && p[i] <= 'Z') || (p[i] >= '0' && p[i] <= '9') || p[i] == '_'))
            return qz_fail(err, -EBADMSG, "no table signature");
    facs = signed_as(p, "FACS");
    len = qz_load_le32(p + 4);
    if (len < (facs ? FACS_SIZE : HEADER_SIZE))
        return qz_fail(err, -EBADMSG, "%.4s: a length of %u bytes is too short", (const char *)p,
                       len);
    if (len > room)
        return qz_fail(err, -EBADMSG, "%.4s: its %u bytes run past the end", (const char *)p, len);
    if (facs)
        return len;
    if (checksum8(p, len))
        return qz_fail(err, -EBADMSG, "%.4s: the checksum is wrong by 0x%02x", (const char *)p,
                       (uint8_t)-checksum8(p, len));
    rc = table_check_body(p, len, err);
    return rc < 0 ? rc : (int64_t)len;
}

/* The RSDP at p; its length or -EBADMSG. */
static int check_rsdp(const uint8_t *p, size_t room, struct qz_error *err)
{
    uint32_t len;

    if (room < 20 || memcmp(p, "RSD PTR ", 8) != 0)
        return qz_fail(err, -EBADMSG, "no RSDP");
    if (checksum8(p, 20))
        return qz_fail(err, -EBADMSG, "RSDP: the checksum is wrong");
    if (p[15] < 2)
        return 20;
    if (room < QZ_ACPI_RSDP_SIZE)
        return qz_fail(err, -EBADMSG, "RSDP: cut off");
    len = qz_load_le32(p + 20);
    if (len < QZ_ACPI_RSDP_SIZE || len > 4096 || len > room)
        return qz_fail(err, -EBADMSG, "RSDP: a length of %u bytes is wrong", len);
    if (checksum8(p, len))
        return qz_fail(err, -EBADMSG, "RSDP: the extended checksum is wrong");
    return (int)len;
}

int qz_acpi_verify(const void *data, size_t len, struct qz_error *err)
{
    const uint8_t *p = data;
    size_t at = 0;
    int n = 0;

    while (at < len) {
        int64_t step;

        if (p[at] == 0) {
            at++;
            continue;
        }
        if (len - at >= 8 && memcmp(p + at, "RSD PTR ", 8) == 0)
            step = check_rsdp(p + at, len - at, err);
        else
            step = check_table(p + at, len - at, err);
        if (step < 0) {
            qz_error_prefix(err, "ACPI tables at 0x%zx", at);
            return (int)step;
        }
        at += (size_t)step;
        n++;
    }
    if (n == 0)
        return qz_fail(err, -EBADMSG, "ACPI tables: none in %zu bytes", len);
    return n;
}

/* What verify_linked walks. */
struct image {
    const uint8_t *mem;
    size_t len;
    uint64_t gpa;
};

/* The table at that address: checked, its length in *len; NULL with *err filled. */
static const uint8_t *linked_table(const struct image *m, uint64_t at, const char *signature,
                                   const char *who, size_t *len, struct qz_error *err)
{
    const uint8_t *p;
    int64_t n;

    if (at < m->gpa || at - m->gpa >= m->len) {
        qz_fail(err, -EBADMSG, "ACPI tables: %s points at 0x%llx, outside the memory", who,
                (unsigned long long)at);
        return NULL;
    }
    p = m->mem + (at - m->gpa);
    n = check_table(p, m->len - (size_t)(at - m->gpa), err);
    if (n >= 0 && signature && !signed_as(p, signature))
        n = qz_fail(err, -EBADMSG, "%.4s instead of %s", (const char *)p, signature);
    if (n < 0) {
        qz_error_prefix(err, "ACPI tables: at 0x%llx, named by %s", (unsigned long long)at, who);
        return NULL;
    }
    *len = (size_t)n;
    return p;
}

/* DSDT and FACS; the number of tables reached or -EBADMSG. */
static int check_fadt_links(const struct image *m, const uint8_t *fadt, size_t len,
                            struct qz_error *err)
{
    uint64_t facs = qz_load_le32(fadt + FADT_FIRMWARE_CTRL), dsdt = qz_load_le32(fadt + FADT_DSDT);
    size_t n;

    if (len >= FADT_X_DSDT + 8) {
        uint64_t x_facs = qz_load_le64(fadt + FADT_X_FIRMWARE_CTRL),
                 x_dsdt = qz_load_le64(fadt + FADT_X_DSDT);

        if (x_dsdt && dsdt && x_dsdt != dsdt)
            return qz_fail(err, -EBADMSG, "ACPI tables: FADT names two DSDTs");
        if (facs && x_facs)
            return qz_fail(err, -EBADMSG, "ACPI tables: FADT names the FACS twice");
        dsdt = x_dsdt ? x_dsdt : dsdt;
        facs = x_facs ? x_facs : facs;
    }
    if (!linked_table(m, dsdt, "DSDT", "FADT", &n, err))
        return -EBADMSG;
    if (!facs)
        return 1;
    if (facs % 64)
        return qz_fail(err, -EBADMSG, "ACPI tables: FACS at 0x%llx is not aligned to 64",
                       (unsigned long long)facs);
    return linked_table(m, facs, "FACS", "FADT", &n, err) ? 2 : -EBADMSG;
}

int qz_acpi_verify_linked(const void *mem, size_t len, uint64_t gpa, uint64_t rsdp_gpa,
                          struct qz_error *err)
{
    const struct image m = {.mem = mem, .len = len, .gpa = gpa};
    const uint8_t *rsdp, *xsdt;
    size_t xsdt_len, n;
    int tables = 1, fadts = 0, rc;

    if (rsdp_gpa < gpa || rsdp_gpa - gpa >= len)
        return qz_fail(err, -EBADMSG, "ACPI tables: RSDP outside the memory");
    rsdp = m.mem + (rsdp_gpa - gpa);
    rc = check_rsdp(rsdp, len - (size_t)(rsdp_gpa - gpa), err);
    if (rc < 0)
        return rc;
    if (rc < QZ_ACPI_RSDP_SIZE)
        return qz_fail(err, -EBADMSG, "ACPI tables: an RSDP of ACPI 1.0, without XSDT");
    xsdt = linked_table(&m, qz_load_le64(rsdp + 24), "XSDT", "RSDP", &xsdt_len, err);
    if (!xsdt)
        return -EBADMSG;
    if (xsdt_len > HEADER_SIZE + 8 * XSDT_ENTRIES_MAX)
        return qz_fail(err, -EBADMSG, "ACPI tables: an XSDT of %zu bytes", xsdt_len);
    for (size_t at = HEADER_SIZE; at + 8 <= xsdt_len; at += 8) {
        const uint8_t *t = linked_table(&m, qz_load_le64(xsdt + at), NULL, "XSDT", &n, err);

        if (!t)
            return -EBADMSG;
        tables++;
        if (signed_as(t, "FACP")) {
            rc = check_fadt_links(&m, t, n, err);
            if (rc < 0)
                return rc;
            tables += rc;
            fadts++;
        }
    }
    if (fadts != 1)
        return qz_fail(err, -EBADMSG, "ACPI tables: %d FADTs", fadts);
    return tables;
}

/* internal.h - what the files of lib/acpi share. */
#ifndef QUEZTL_LIB_ACPI_INTERNAL_H
#define QUEZTL_LIB_ACPI_INTERNAL_H

#include <queztl/acpi.h>

enum {
    HEADER_SIZE = 36,  /* system description table header, ACPI 6.4 §5.2.6 */
    FACS_SIZE = 64,    /* §5.2.10 */
    FADT_SIZE = 276,   /* §5.2.9, revision 6 */
    NAME_MAX_LEN = 80, /* a path of AML: prefixes, count and 16 segments */
};

/* Offsets in the FADT (table 5.9). */
enum {
    FADT_FIRMWARE_CTRL = 36,
    FADT_DSDT = 40,
    FADT_X_FIRMWARE_CTRL = 132,
    FADT_X_DSDT = 140,
};

/* The value that makes all bytes sum to zero when the checksum byte is zero now. */
static inline uint8_t checksum8(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

/* Encodes a name path; the length (at most NAME_MAX_LEN) or -EINVAL. */
int name_encode(const char *path, uint8_t out[NAME_MAX_LEN]);
/* A name path of exactly one segment, 4 bytes; 0 or -EINVAL. */
int name_segment(const char *name, uint8_t out[4]);
/* Encodes an integer in the shortest form, at most 9 bytes; the length. */
size_t int_encode(uint64_t v, uint8_t out[9]);
/* The package length for `body` bytes that follow it, in the shortest form; its size 1..4, 0 when
 * too long. */
size_t pkg_length_encode(size_t body, uint8_t out[4]);

/* Bounds checks of a table's inside; the table itself is known to be len bytes long. 0 or -EBADMSG.
 */
int table_check_body(const uint8_t *table, size_t len, struct qz_error *err);

/* Lengths of a struct qz_ax that mark a failed expression. */
enum { QZ_AX_TOO_LONG = 0xffff, QZ_AX_BAD = 0xfffe };

/* An APIC id or processor uid that does not fit the 8-bit entries (255 is the broadcast id). */
static inline bool cpu_needs_x2apic(const struct qz_acpi_cpu *c, bool x2apic_only)
{
    return x2apic_only || c->apic_id >= 255 || c->uid >= 255;
}

/* One block of AML kinds: what may be appended where. */
enum frame_kind {
    FRAME_TERMS, /* the table itself, scope, device, method, while, else */
    FRAME_IF,    /* terms, and an else may follow */
    FRAME_PACKAGE,
    FRAME_RESOURCES,
    FRAME_FIELD,
};

/* The kind of the innermost block is `kind`? Otherwise records -EINVAL, naming `what`. */
bool aml_in(struct qz_aml *a, enum frame_kind kind, const char *what);
void aml_put_name(struct qz_aml *a, const char *path);
void aml_open(struct qz_aml *a, enum frame_kind kind);

#endif

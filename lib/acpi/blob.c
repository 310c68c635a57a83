/*
 * blob.c - the growing byte buffer with a sticky error.
 *
 * Every append goes through qz_acpi_blob_grow(); once it failed the buffer stays as it was, so that
 * builders need no error paths of their own.
 */
#include "internal.h"

void qz_acpi_blob_init(struct qz_acpi_blob *b, size_t max)
{
    *b = (struct qz_acpi_blob){.max = max};
}

void qz_acpi_blob_fini(struct qz_acpi_blob *b)
{
    free(b->data);
    *b = (struct qz_acpi_blob){.max = b->max};
}

void qz_acpi_blob_fail(struct qz_acpi_blob *b, int code, const char *fmt, ...)
{
    va_list ap;

    if (b->error)
        return;
    b->error = code;
    va_start(ap, fmt);
    vsnprintf(b->why, sizeof(b->why), fmt, ap);
    va_end(ap);
}

uint8_t *qz_acpi_blob_grow(struct qz_acpi_blob *b, size_t n)
{
    uint8_t *p;

    if (b->error)
        return NULL;
    if (n > b->max || b->len > b->max - n) {
        qz_acpi_blob_fail(b, -E2BIG, "more than %zu bytes", b->max);
        return NULL;
    }
    if (b->len + n > b->cap || !b->data) {
        size_t cap = QZ_MAX(b->cap * 2, (size_t)4096);
        uint8_t *data;

        cap = QZ_MAX(cap, b->len + n);
        data = realloc(b->data, cap);
        if (!data) {
            qz_acpi_blob_fail(b, -ENOMEM, "out of memory at %zu bytes", cap);
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    p = b->data + b->len;
    memset(p, 0, n);
    b->len += n;
    return p;
}

void qz_acpi_put8(struct qz_acpi_blob *b, uint8_t v)
{
    uint8_t *p = qz_acpi_blob_grow(b, 1);

    if (p)
        *p = v;
}

void qz_acpi_put16(struct qz_acpi_blob *b, uint16_t v)
{
    uint8_t *p = qz_acpi_blob_grow(b, 2);

    if (p)
        qz_store_le16(p, v);
}

void qz_acpi_put32(struct qz_acpi_blob *b, uint32_t v)
{
    uint8_t *p = qz_acpi_blob_grow(b, 4);

    if (p)
        qz_store_le32(p, v);
}

void qz_acpi_put64(struct qz_acpi_blob *b, uint64_t v)
{
    uint8_t *p = qz_acpi_blob_grow(b, 8);

    if (p)
        qz_store_le64(p, v);
}

void qz_acpi_put_bytes(struct qz_acpi_blob *b, const void *bytes, size_t n)
{
    uint8_t *p = qz_acpi_blob_grow(b, n);

    if (p && n)
        memcpy(p, bytes, n);
}

void qz_acpi_put_zeros(struct qz_acpi_blob *b, size_t n)
{
    (void)qz_acpi_blob_grow(b, n);
}

void qz_acpi_put_text(struct qz_acpi_blob *b, const char *s, size_t n, char pad)
{
    uint8_t *p = qz_acpi_blob_grow(b, n);

    if (!p)
        return;
    memset(p, pad, n);
    memcpy(p, s, strnlen(s, n));
}

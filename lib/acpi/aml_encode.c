/*
 * aml_encode.c - the small encodings of AML: names, integers, package lengths (ACPI 6.4 §20.2.2 to
 * §20.2.4).
 *
 * Each has several legal forms; the shortest is chosen, so that a table compiled again by iasl
 * gives the same bytes.
 */
#include "internal.h"

enum {
    NULL_NAME = 0x00,
    DUAL_NAME_PREFIX = 0x2e,
    MULTI_NAME_PREFIX = 0x2f,
    ROOT_CHAR = '\\',
    PARENT_CHAR = '^',
    SEGMENTS_MAX = 16,
    PARENTS_MAX = 8,
};

/* One segment from *path, which is moved past it. */
static int segment(const char **path, uint8_t out[4])
{
    const char *p = *path;
    size_t n;

    for (n = 0; p[n] && p[n] != '.'; n++) {
        bool letter = (p[n] >= 'A' && p[n] <= 'Z') || p[n] == '_';

        if (n == 4 || (!letter && (n == 0 || p[n] < '0' || p[n] > '9')))
            return -EINVAL;
        out[n] = (uint8_t)p[n];
    }
    if (n == 0)
        return -EINVAL;
    memset(out + n, '_', 4 - n);
    *path = p + n;
    return 0;
}

int name_segment(const char *name, uint8_t out[4])
{
    const char *p = name;

    return segment(&p, out) < 0 || *p ? -EINVAL : 0;
}

int name_encode(const char *path, uint8_t out[NAME_MAX_LEN])
{
    uint8_t segments[SEGMENTS_MAX * 4];
    size_t len = 0, n = 0;

    if (*path == ROOT_CHAR)
        out[len++] = (uint8_t)*path++;
    else
        while (*path == PARENT_CHAR) {
            if (len == PARENTS_MAX)
                return -EINVAL;
            out[len++] = (uint8_t)*path++;
        }
    while (*path) {
        if (n == SEGMENTS_MAX || segment(&path, segments + 4 * n) < 0)
            return -EINVAL;
        n++;
        if (*path == '.' && *++path == '\0')
            return -EINVAL;
    }
    if (n == 0) {
        if (len == 0)
            return -EINVAL;
        out[len++] = NULL_NAME;
    } else if (n == 2) {
        out[len++] = DUAL_NAME_PREFIX;
    } else if (n > 2) {
        out[len++] = MULTI_NAME_PREFIX;
        out[len++] = (uint8_t)n;
    }
    memcpy(out + len, segments, 4 * n);
    return (int)(len + 4 * n);
}

size_t int_encode(uint64_t v, uint8_t out[9])
{
    if (v <= 1 || v == UINT64_MAX) { /* ZeroOp, OneOp, OnesOp */
        out[0] = (uint8_t)v;
        return 1;
    }
    if (v <= UINT8_MAX) {
        out[0] = 0x0a;
        out[1] = (uint8_t)v;
        return 2;
    }
    if (v <= UINT16_MAX) {
        out[0] = 0x0b;
        qz_store_le16(out + 1, (uint16_t)v);
        return 3;
    }
    if (v <= UINT32_MAX) {
        out[0] = 0x0c;
        qz_store_le32(out + 1, (uint32_t)v);
        return 5;
    }
    out[0] = 0x0e;
    qz_store_le64(out + 1, v);
    return 9;
}

size_t pkg_length_encode(size_t body, uint8_t out[4])
{
    /* The length counts its own bytes. One byte holds 6 bits; n bytes hold 4 + 8 * (n - 1). */
    if (body + 1 < 1u << 6) {
        out[0] = (uint8_t)(body + 1);
        return 1;
    }
    for (size_t n = 2; n <= 4; n++) {
        size_t total = body + n;

        if (total >= (size_t)1 << (4 + 8 * (n - 1)))
            continue;
        out[0] = (uint8_t)((n - 1) << 6 | (total & 15));
        for (size_t i = 1; i < n; i++)
            out[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
        return n;
    }
    return 0;
}

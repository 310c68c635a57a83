/*
 * bitmap.c - persistent bitmaps of others ("Bitmaps extension"): kept as they are.
 *
 * We do not follow writes in bitmaps. Those that should follow them (flag auto) are marked in_use
 * before the first change, which says to whoever made them that they are no longer true. Disabled
 * ones stay valid. The extension and all its clusters stay in place.
 */
#include "image.h"

enum { ENTRY = 24, IN_USE = 1, AUTO = 2 };

int qcow2_bitmaps_invalidate(struct qcow2 *i, struct disk_queue *q)
{
    uint64_t length = i->header.bitmap_directory_size, at = 0;
    uint64_t padded = QZ_ALIGN_UP(length, QZ_MAX(i->layer.below->info.alignment, 8u));
    QZ_AUTO_FREE uint8_t *bytes = qcow2_buffer(padded);
    bool changed = false;
    int rc;

    if (!bytes)
        return -ENOMEM;
    memset(bytes, 0, padded);
    rc = layer_read(i->layer.below, q, i->header.bitmap_directory, bytes,
                    QZ_MIN(padded, i->layer.below->info.size - i->header.bitmap_directory));
    for (uint32_t n = 0; !rc && n < i->header.bitmaps; n++) {
        uint8_t *b = bytes + at;
        uint32_t flags, rest;

        if (length - at < ENTRY)
            return qcow2_corrupt(i, "the bitmap directory ends before bitmap %u", n);
        flags = qz_load_be32(b + 12);
        rest = qz_load_be16(b + 18) + qz_load_be32(b + 20);
        if (rest > length - at - ENTRY)
            return qcow2_corrupt(i, "bitmap %u runs past the end of the bitmap directory", n);
        if ((flags & AUTO) && !(flags & IN_USE)) {
            qz_store_be32(b + 12, flags | IN_USE);
            changed = true;
        }
        at += QZ_MIN(QZ_ALIGN_UP(ENTRY + (uint64_t)rest, 8ull), length - at);
    }
    if (!rc && changed)
        rc = layer_write(i->layer.below, q, i->header.bitmap_directory, bytes,
                         QZ_MIN(padded, i->layer.below->info.size - i->header.bitmap_directory));
    if (!rc && changed)
        rc = layer_flush(i->layer.below, q);
    return rc;
}

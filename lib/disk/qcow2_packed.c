/*
 * qcow2_packed.c - compressed clusters: read, and packed behind each other when written.
 */
#include "qcow2_compress.h"
#include "qcow2_internal.h"

/* "Compressed Clusters Descriptor": where the bytes are and how many can be of use. */
static void place_of(const struct qcow2 *i, uint64_t entry, uint64_t *offset, uint64_t *length)
{
    unsigned x = 62 - (i->cluster_bits - 8);
    uint64_t sectors = (entry >> x & ((1ull << (i->cluster_bits - 8)) - 1)) + 1;

    *offset = entry & ((1ull << x) - 1);
    *length = sectors * 512 - (*offset & 511);
}

int qcow2_unpack(struct qcow2 *i, struct disk_queue *q, uint64_t entry, uint8_t *out)
{
    struct layer *file = i->layer.below;
    uint64_t size = __atomic_load_n(&file->info.size, __ATOMIC_RELAXED), at, length, start, end;
    QZ_AUTO_FREE uint8_t *in = NULL;
    int rc;

    place_of(i, entry, &at, &length);
    if (at >= size)
        return qcow2_corrupt(i, "a compressed cluster is at 0x%llx, past the end of the file",
                             (unsigned long long)at);
    length = QZ_MIN(length, size - at);
    start = QZ_ALIGN_DOWN(at, file->info.alignment);
    end = QZ_MIN(QZ_ALIGN_UP(at + length, file->info.alignment), size);
    in = qcow2_buffer(end - start);
    if (!in)
        return -ENOMEM;
    rc = layer_read(file, q, start, in, end - start);
    if (rc)
        return rc;
    rc = qcow2_inflate(i->header.compression, in + (at - start), length, out, i->cluster_size);
    if (rc == -EIO)
        qz_guest_warn("%s: the compressed cluster at 0x%llx cannot be decompressed", i->layer.label,
                      (unsigned long long)at);
    return rc;
}

/* image.h - opening, creating and changing an image as a whole. All calls are [task]. */
#ifndef DISK_QCOW2_IMAGE_H
#define DISK_QCOW2_IMAGE_H

#include "../format.h"
#include "internal.h"

/* The header of an image that is not open. */
int qcow2_read_header(struct layer *file, struct disk_queue *q, struct qcow2_header *h,
                      struct qz_error *err);
int qcow2_open(struct layer **l, struct layer *file, struct disk_queue *q,
               const struct format_open *o, struct qz_error *err);
int qcow2_create(struct layer *file, struct disk_queue *q, const struct format_create *c,
                 struct qz_error *err);
int qcow2_resize(struct layer *l, struct disk_queue *q, uint64_t size, struct qz_error *err);
/* close.c */
int qcow2_close(struct layer *l, struct disk_queue *q, struct qz_error *err);
int qcow2_freeze(struct layer *l, struct disk_queue *q, struct qz_error *err);
/* Before the first change of an image: what others' data would make stale is marked so. */
int qcow2_touch(struct qcow2 *i, struct disk_queue *q);
/* A table of 64-bit offsets from the file into memory. */
int qcow2_read_table(struct layer *file, struct disk_queue *q, uint64_t offset, uint32_t count,
                     uint32_t cluster, struct qcow2_top *t, const char *what, struct qz_error *err);
/* Entries for the guest's bytes of [from, to) that have no place yet: places, without bytes. */
int qcow2_preallocate(struct qcow2 *i, struct disk_queue *q, uint64_t from, uint64_t to);

/* Another L1 table in another place, with from's entries (which may be the one in use); the header
 * still has to be written. [lock] */
int qcow2_switch_l1(struct qcow2 *i, struct disk_queue *q, const struct qcow2_top *from,
                    uint32_t entries);

/* snapshot_table.c, snapshot.c */
/* Writes the list of snapshots and the header that points at it. [lock] */
int qcow2_snapshots_store(struct qcow2 *i, struct disk_queue *q);
int qcow2_snapshots_load(struct qcow2 *i, struct disk_queue *q, struct qz_error *err);
void qcow2_snapshots_clear(struct qcow2 *i);
int qcow2_snapshot_list(struct layer *l, struct disk_queue *q, struct format_snapshot **list,
                        unsigned *count, struct qz_error *err);
int qcow2_snapshot_create(struct layer *l, struct disk_queue *q, const char *name,
                          struct qz_error *err);
int qcow2_snapshot_apply(struct layer *l, struct disk_queue *q, const char *which,
                         struct qz_error *err);
int qcow2_snapshot_delete(struct layer *l, struct disk_queue *q, const char *which,
                          struct qz_error *err);

/* bitmap.c: the bitmaps that follow writes do not know about ours. */
int qcow2_bitmaps_invalidate(struct qcow2 *i, struct disk_queue *q);

/* check.c */
int qcow2_check(struct layer *l, struct disk_queue *q, struct format_check *c,
                struct qz_error *err);
int qcow2_repair_refcounts(struct qcow2 *i, struct disk_queue *q, struct qz_error *err);

/* log.c: before the tables are read. */
int qcow2_log_replay(struct qcow2 *i, struct disk_queue *q, struct qz_error *err);

/* packed.c */
int qcow2_write_packed(struct layer *l, struct disk_queue *q, uint64_t offset, const void *bytes,
                       size_t length);
int qcow2_packer_end(struct qcow2 *i, struct disk_queue *q);
void qcow2_packer_free(struct qcow2 *i);

/* crypto.c */
/* A LUKS header for a new image, at an offset of its file. */
int qcow2_crypto_create(struct layer *file, struct disk_queue *q, uint64_t offset,
                        struct options *o, struct qz_error *err);
int qcow2_crypto_open(struct qcow2 *i, struct disk_queue *q, const struct format_open *o,
                      struct qz_error *err);

#endif

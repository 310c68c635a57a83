/*
 * overlay_lab.h - for tests of overlays: a disk in a folder of its own, and a model in memory of
 * what it must hold.
 */
#ifndef DISK_OVERLAY_LAB_H
#define DISK_OVERLAY_LAB_H

#include <queztl/disk.h>

enum { SIZE = 4 << 20 }; /* of all disks here */

struct lab {
    struct qz_disk *d;
    struct qz_disk_queue *q;
    uint8_t *model;
    uint64_t random;
};

extern bool lab_has_qemu;
/* Set-up and tear-down of a group of tests. */
int lab_make_folder(void **state);
int lab_remove_folder(void **state);

/* Kept for the next few calls. */
char *lab_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *lab_path(const char *name);

void lab_create(const char *options);
/* name over the image below it, as another process would make it for the one with the disk. */
void lab_create_overlay(const char *name, const char *below, const char *format);
int lab_open_fd(const char *name, int flags);

/* A negative errno: it cannot be opened. */
int lab_try_start(struct lab *m, const char *options);
struct lab lab_start(const char *options);
void lab_end(struct lab *m);
/* Writes and zeroes here and there; the first error. */
int lab_try_scribble(struct lab *m, unsigned count, uint8_t seed);
void lab_scribble(struct lab *m, unsigned count, uint8_t seed);
void lab_holds(struct qz_disk_queue *q, const uint8_t *model, const char *what);
/* qz_disk_overlay(), and that the disk tells so. */
void lab_go_on(struct lab *m, const char *name);

/* What somebody else finds who opens an image now. */
void lab_found(const char *options, const uint8_t *model);
void lab_is_clean(const char *options);
/* Others may read the image and find this, and may not write it. */
void lab_is_frozen(const char *options, const uint8_t *model);

#endif

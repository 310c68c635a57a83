/*
 * format.h - what a disk format (qcow2, LUKS) offers besides its layer: create, info, check,
 * snapshots.
 *
 * A format never opens files itself. It tells which ones its header names, and whoever builds the
 * chain decides whether they are opened: an image must not make us read a file that its maker
 * chose. All calls run inside a task.
 */
#ifndef DISK_FORMAT_H
#define DISK_FORMAT_H

#include "layer.h"
#include "options.h"

/* What the header of an image names; the strings are the caller's to free. NULL: none. */
struct format_names {
    char *backing_file, *backing_format;
    char *data_file; /* an external data file, raw */
};

struct format_open {
    bool readonly;
    bool check;              /* open what is damaged as far as check and repair need it */
    struct layer *data_file; /* NULL: none was opened */
    struct options *options; /* takes the keys that it knows */
    const char *label;
};

struct format_create {
    uint64_t size;
    /* Written down as they are; the format of a backing file is always said. NULL: none. */
    const char *backing_file, *backing_format, *data_file_name;
    struct layer *data_file;
    struct options *options; /* takes the keys that it knows: cluster_size, compat, ... */
};

/* One line of what `info` shows. */
struct format_fact {
    const char *key; /* static: "cluster_size" */
    enum { FACT_TEXT, FACT_NUMBER, FACT_BYTES, FACT_FLAG } kind;
    char text[160];
    uint64_t number;
};
enum { FORMAT_FACTS_MAX = 48 };
struct format_info {
    struct format_fact facts[FORMAT_FACTS_MAX];
    unsigned count;
};
void format_fact_text(struct format_info *i, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void format_fact_number(struct format_info *i, const char *key, uint64_t number);
void format_fact_bytes(struct format_info *i, const char *key, uint64_t bytes);
void format_fact_flag(struct format_info *i, const char *key, bool value);

struct format_check {
    bool repair;
    /* A finding, for a person. May be NULL. */
    void (*say)(struct format_check *c, const char *text);
    /* How far it is, 0..1. May be NULL. */
    void (*progress)(struct format_check *c, double share);
    /* Found, and of these repaired. */
    uint64_t errors, leaks, errors_repaired, leaks_repaired;
    uint64_t clusters, allocated, compressed, fragmented;
    uint64_t image_end; /* bytes of the file that are used */
};

struct format_snapshot {
    char *id, *name;
    int64_t created; /* seconds since 1970 */
    uint64_t vm_state_bytes, disk_bytes;
};

struct format_ops {
    const char *name;
    /* Is this the beginning of such an image? Only asked when the user wants a guess. */
    bool (*probe)(const void *head, size_t length);
    int (*names)(struct layer *file, struct disk_queue *q, struct format_names *n,
                 struct qz_error *err);
    /* On success the layer stands on file, which stays the caller's to close after it. The caller
     * sets l->backing before the first request. */
    int (*open)(struct layer **l, struct layer *file, struct disk_queue *q,
                const struct format_open *o, struct qz_error *err);
    /* file: empty, writable, can be resized. Afterwards it holds an image, flushed. */
    int (*create)(struct layer *file, struct disk_queue *q, const struct format_create *c,
                  struct qz_error *err);
    /* The rest is optional. l: from open(). */
    /* Whether nothing was ever stored in it, so that all of it is the backing file's. */
    bool (*is_empty)(struct layer *l);
    void (*info)(struct layer *l, struct format_info *i);
    int (*check)(struct layer *l, struct disk_queue *q, struct format_check *c,
                 struct qz_error *err);
    int (*snapshot_list)(struct layer *l, struct disk_queue *q, struct format_snapshot **list,
                         unsigned *count, struct qz_error *err);
    int (*snapshot_create)(struct layer *l, struct disk_queue *q, const char *name,
                           struct qz_error *err);
    int (*snapshot_apply)(struct layer *l, struct disk_queue *q, const char *name_or_id,
                          struct qz_error *err);
    int (*snapshot_delete)(struct layer *l, struct disk_queue *q, const char *name_or_id,
                           struct qz_error *err);
    /* Packs bytes into the image where it is smaller; length: at most info.preferred, offset a
     * multiple of it. Nothing was there before. */
    int (*write_compressed)(struct layer *l, struct disk_queue *q, uint64_t offset,
                            const void *bytes, size_t length);
};

/* The formats that are built in, by name; NULL: none has it. */
const struct format_ops *format_find(const char *name);
/* What the bytes look like; NULL: none of ours. Only when the user asked for a guess. */
const struct format_ops *format_guess(const void *head, size_t length);
char *format_list(char *text, size_t size); /* all names, with commas between; text */
void format_snapshots_free(struct format_snapshot *list, unsigned count);
void format_names_clear(struct format_names *n);

/* Where each of them is defined; format.c lists them. */
extern const struct format_ops cow_format;
extern const struct format_ops qcow2_format;
extern const struct format_ops luks_format;

#endif

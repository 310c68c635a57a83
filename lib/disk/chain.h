/*
 * chain.h - from options to a chain of layers, and back to nothing.
 */
#ifndef DISK_CHAIN_H
#define DISK_CHAIN_H

#include "filter.h"
#include "format.h"
#include "layer.h"

enum { CHAIN_BACKING_MAX = 64 };

/* What was built: layers from top by below; the format layer's backing is the backing chain's top.
 */
struct chain {
    struct layer *top;
    struct layer *format_layer;             /* the format's own; the protocol's for raw */
    const struct format_ops *format;        /* NULL: raw */
    struct layer *data_file;                /* an external one; closed with the chain */
    struct layer *throttle, *stats, *cache; /* NULL: not there */
    struct chain *backing;
};

/* [task] Takes all of o. check: open a damaged image as far as check needs it. */
int chain_open(struct chain *c, struct options *o, bool check, struct disk_queue *q,
               struct qz_error *err);
/* [task] Closes from the top down and frees all; the first error is told, and all are closed. */
int chain_close(struct chain *c, struct disk_queue *q, struct qz_error *err);

/* A format tells what is wrong with its image; which image that is, is said here, once; r. */
int chain_name_image(struct qz_error *err, const char *label, int r);

/* Frees without closing: nothing was written, or nobody will read it. Nothing is in flight. */
void chain_abandon(struct chain *c);

/*
 * [task] The image on top, not its backing files: all is written out and it is marked clean; it is
 * readonly from now on, and others may read it. Nothing is in flight. On failure it is as before.
 */
int chain_freeze(struct chain *c, struct disk_queue *q, struct qz_error *err);

/* Divides bytes between the caches of all layers. Any thread. */
void chain_set_memory(struct chain *c, uint64_t bytes);

/* What filters keep of the image's bytes is not what it holds. Nothing is in flight. */
void chain_forget(struct chain *c);

/* [task] Opens only the protocol that o names. */
int chain_open_protocol(struct layer **l, struct options *o, bool readonly, struct disk_queue *q,
                        struct qz_error *err);
/* Limits, injected errors, block cache and statistics on c->top, as o asks. */
int chain_add_filters(struct chain *c, struct options *o, struct qz_error *err);
/* key: "inject" or "inject-below" */
int chain_add_inject(struct chain *c, struct options *o, const char *key, struct qz_error *err);
/* The format that o asks for; NULL in *f: raw. [task] file may be looked at for format=auto. */
int chain_find_format(const struct format_ops **f, struct options *o, struct layer *file,
                      struct disk_queue *q, struct qz_error *err);
/* [task] What a request would find, through its backing files. */
int chain_map(struct chain *c, struct disk_queue *q, uint64_t offset, uint64_t length, bool deep,
              struct extent *e, bool *zero);

#endif

/* snapshots.c - snapshots inside of an image (<queztl/disk.h>). */
#include "disk_internal.h"

struct snapshot_call {
    struct qz_disk *disk;
    const char *name;
    int (*fn)(struct layer *l, struct disk_queue *q, const char *name, struct qz_error *err);
    struct format_snapshot *list;
    unsigned count;
    struct qz_error *err;
};

static int list_main(struct disk_queue *q, void *argument)
{
    struct snapshot_call *c = argument;
    struct chain *chain = &c->disk->chain;

    return chain->format->snapshot_list(chain->format_layer, q, &c->list, &c->count, c->err);
}

static int no_snapshots(struct qz_disk *d, struct qz_error *err)
{
    return qz_fail(err, -ENOTSUP, "%s: a %s disk has no snapshots inside (format=qcow2 has)",
                   d->label, d->chain.format ? d->chain.format->name : "raw");
}

int qz_disk_snapshots(struct qz_disk *d, struct qz_disk_snapshot **list, unsigned *count,
                      struct qz_error *err)
{
    struct snapshot_call c = {.disk = d, .err = err};
    int r;

    *list = NULL;
    *count = 0;
    if (!d->chain.format || !d->chain.format->snapshot_list)
        return no_snapshots(d, err);
    r = disk_run(list_main, &c, err);
    if (r < 0)
        return r;
    *list = calloc(QZ_MAX(c.count, 1u), sizeof(**list));
    if (!*list) {
        format_snapshots_free(c.list, c.count);
        return qz_fail(err, -ENOMEM, "%s: no memory", d->label);
    }
    for (unsigned i = 0; i < c.count; i++) /* the strings change owners */
        (*list)[i] = (struct qz_disk_snapshot){c.list[i].id, c.list[i].name, c.list[i].created,
                                               c.list[i].vm_state_bytes, c.list[i].disk_bytes};
    free(c.list);
    *count = c.count;
    return 0;
}

void qz_disk_snapshots_free(struct qz_disk_snapshot *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

static int snapshot_main(struct disk_queue *q, void *argument)
{
    struct snapshot_call *c = argument;

    return c->fn(c->disk->chain.format_layer, q, c->name, c->err);
}

static int snapshot_run(struct qz_disk *d, const char *name,
                        int (*fn)(struct layer *, struct disk_queue *, const char *,
                                  struct qz_error *),
                        struct qz_error *err)
{
    struct snapshot_call c = {.disk = d, .name = name, .fn = fn, .err = err};

    if (!fn)
        return no_snapshots(d, err);
    if (d->chain.top->info.readonly)
        return qz_fail(err, -EROFS, "%s: readonly", d->label);
    return disk_run(snapshot_main, &c, err);
}

int qz_disk_snapshot_create(struct qz_disk *d, const char *name, struct qz_error *err)
{
    return snapshot_run(d, name, d->chain.format ? d->chain.format->snapshot_create : NULL, err);
}

int qz_disk_snapshot_apply(struct qz_disk *d, const char *name_or_id, struct qz_error *err)
{
    return snapshot_run(d, name_or_id, d->chain.format ? d->chain.format->snapshot_apply : NULL,
                        err);
}

int qz_disk_snapshot_delete(struct qz_disk *d, const char *name_or_id, struct qz_error *err)
{
    return snapshot_run(d, name_or_id, d->chain.format ? d->chain.format->snapshot_delete : NULL,
                        err);
}

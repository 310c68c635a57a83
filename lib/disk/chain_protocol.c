/* chain_protocol.c - what lies below a chain: a file, memory, a server (chain.h). */
#include <limits.h>
#include <queztl/disk.h>

#include "chain.h"
#include "file.h"
#include "memory.h"
#include "nbd/nbd_client.h"

static int file_keys(struct file_options *f, struct options *o, struct qz_error *err)
{
    static const char *const caches[] = {"writeback", "writethrough", "none", "unsafe", NULL};
    static const char *const discards[] = {"unmap", "ignore", NULL};
    unsigned cache = FILE_WRITEBACK, discard = 0;
    bool locking = true;
    int r;

    if ((r = options_word(o, "cache", caches, &cache, err)) < 0 ||
        (r = options_word(o, "discard", discards, &discard, err)) < 0 ||
        (r = options_switch(o, "locking", &locking, err)) < 0)
        return r;
    if (options_has(o, "fd")) {
        uint64_t fd;

        if ((r = options_number(o, "fd", 0, INT_MAX, &fd, err)) < 0)
            return r;
        f->by_fd = true;
        f->fd = (int)fd;
    }
    f->cache = cache;
    f->no_discard = discard == 1;
    f->no_lock = !locking;
    return 0;
}

/* "null:1GiB", "memory:64MiB" */
static int open_sized(struct layer **l, const char *kind, const char *size, struct qz_error *err)
{
    struct memory_options m = {0};
    int r = qz_parse_size(size, &m.size, err);

    if (r < 0)
        return qz_error_prefix(err, "%s:%s", kind, size);
    m.size_max = m.size;
    return !strcmp(kind, "null") ? null_open(l, m.size, err) : memory_open(l, &m, err);
}

static int open_nbd(struct layer **l, struct options *o, const struct file_options *f,
                    struct qz_error *err)
{
    uint64_t connections = 4, reconnect = 10;
    int r;

    if ((r = options_number(o, "connections", 1, 16, &connections, err)) < 0 ||
        (r = options_number(o, "reconnect", 1, 86400, &reconnect, err)) < 0)
        return qz_error_prefix(err, "disk %s", f->path);
    return nbd_client_open(l,
                           &(struct nbd_client_options){
                               .uri = f->path,
                               .readonly = f->readonly,
                               .unsafe = f->cache == FILE_UNSAFE,
                               .no_discard = f->no_discard,
                               .connections = (unsigned)connections,
                               .reconnect_s = (unsigned)reconnect,
                           },
                           err);
}

int chain_open_protocol(struct layer **l, struct options *o, bool readonly, struct disk_queue *q,
                        struct qz_error *err)
{
    const char *file = options_text(o, "file");
    struct file_options f = {.path = file, .readonly = readonly};
    struct layer *aligned;
    int r;

    if (!file || !*file)
        return qz_fail(err, -EINVAL, "disk: file= is missing");
    if ((r = file_keys(&f, o, err)) < 0)
        return qz_error_prefix(err, "disk %s", file);
    if (f.by_fd && !qz_disk_is_local_file(file))
        return qz_fail(err, -EINVAL, "disk %s: fd= is for files and block devices", file);
    if (!strncmp(file, "null:", 5))
        return open_sized(l, "null", file + 5, err);
    if (!strncmp(file, "memory:", 7))
        return open_sized(l, "memory", file + 7, err);
    if (!strncmp(file, "file:", 5))
        f.path = file + 5;
    r = qz_disk_is_local_file(file) ? file_open(l, &f, err) : open_nbd(l, o, &f, err);
    if (r < 0)
        return r;
    if ((*l)->info.alignment == 1 && (*l)->info.memory_alignment == 1)
        return 0;
    if ((r = align_open(&aligned, *l, err)) < 0) {
        (*l)->ops->free(*l);
        return r;
    }
    *l = aligned;
    return 0;
}

/*
 * memory_base.c - memory that is frozen: layers that nobody writes any more, under pages of our own
 * (memory.h, memory_layers.h).
 *
 * Theory of operation. Freezing for the first time copies nothing: the file that RAM lies in is
 * mapped once more at the same addresses, privately, and sealed. The kernel copies a page when it
 * is written; the file stays as it was for whoever else maps it: a snapshot that is written to disk
 * while the guest runs, or clones. Freezing again copies the chunks that were written since into a
 * new file, a layer upon the others, and maps them from there. So the guest stands for as long as
 * it takes to walk its page tables and to copy what it wrote.
 *
 * Layers do not become ever more: when there are some, those above the lowest are folded into one
 * while the guest runs (memory_fold.c), and the lowest, too, when the others have grown to half of
 * it. The next times that memory is frozen, more and more of it is mapped from the new file, until
 * the old ones are needed no more. Only if there are too many before that is done, or too many
 * mappings, does the guest stand for all of it.
 */
#include <assert.h>

#include "machine/memory_fold.h"
#include "machine/memory_internal.h"

QZ_SYSCALLS(main, "mmap munmap mremap");

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum {
    FOLD_AT = 6,      /* layers */
    RUNS_MAX = 32768, /* mappings; the kernel allows a process 65530 of them (vm.max_map_count) */
    FOLD_AT_RUNS = 24576,
    MOVE_SHARE = 8, /* so many times does a machine stand until all is mapped from the new file */
    TIDY_BYTES = 1 << 20,
    TIDY_UNMAP = 8 << 20,
};

/* The mapping that has the byte at `offset` of RAM. */
static uint8_t *host_of(const struct guest_memory *m, uint64_t offset)
{
    return offset < m->low_size ? m->low + offset : m->high + (offset - m->low_size);
}

/* ---- mapping layers */

int memory_map_zeroes(const struct guest_memory *m, uint8_t *at, uint64_t len)
{
    if (mmap(at, len, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return -errno;
    memory_advise(m, at, len);
    return 0;
}

/* For whoever freezes next, when nothing moves. A chunk of which a part was given back must be
 * looked at. */
static void note_forgotten(const struct guest_memory *m, uint64_t offset, uint64_t end,
                           enum chunk_change whole)
{
    const uint64_t chunk = m->layers->chunk;

    for (uint64_t i = offset / chunk; i * chunk < end; i++) {
        const bool all = i * chunk >= offset && layers_end_of(m->layers, i) <= end;

        if (all || __atomic_load_n(&m->changed[i], __ATOMIC_RELAXED) != CHUNK_GIVEN_BACK)
            __atomic_store_n(&m->changed[i], all ? whole : CHUNK_CHANGED, __ATOMIC_RELAXED);
    }
}

int memory_forget(const struct guest_memory *m, uint64_t offset, uint64_t len)
{
    uint8_t *at = host_of(m, offset);
    int r = memory_map_zeroes(m, at, len);

    note_forgotten(m, offset, offset + len, r == 0 ? CHUNK_GIVEN_BACK : CHUNK_CHANGED);
    if (r != -ENOMEM)
        return r;
    /* The process has as many mappings as it may have: the guest reads zeroes all the same. */
    memset(at, 0, len);
    return 0;
}

/* Chunks from `first` on that one mapping can have; the hole under 4 GiB lies between two. */
static size_t mapping_end(const struct guest_memory *m, const struct memory_layers *l,
                          const uint8_t *which, size_t first)
{
    size_t end = first + 1;

    while (end < l->chunks && which[end] && l->table[end] == l->table[first] &&
           end * l->chunk != m->low_size)
        end++;
    return end;
}

/* The chunks that `which` names, as `l` has them. */
static int map_chunks(const struct guest_memory *m, const struct memory_layers *l,
                      const uint8_t *which)
{
    int r = 0;

    for (size_t i = 0, end; r == 0 && i < l->chunks; i = end) {
        const uint64_t offset = i * l->chunk;
        uint64_t len;

        end = i + 1;
        if (!which[i])
            continue;
        end = mapping_end(m, l, which, i);
        len = layers_end_of(l, end - 1) - offset;
        if (l->table[i] == LAYER_ZERO)
            r = memory_map_zeroes(m, host_of(m, offset), len);
        else if (mmap(host_of(m, offset), len, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, l->fd[l->table[i]],
                      (off_t)offset) == MAP_FAILED)
            r = -errno;
        else
            memory_advise(m, host_of(m, offset), len);
    }
    return r;
}

static void leave_fold(struct guest_memory *m)
{
    fold_free(m->fold);
    m->fold = NULL;
}

/* `l` is taken over. The old layers go later: a large file takes its time to vanish. */
static void replace_layers(struct guest_memory *m, struct memory_layers *l)
{
    layers_drop(m->retired);
    m->retired = m->layers;
    m->layers = l;
    memset(m->changed, 0, l->chunks);
}

/* ---- back, and to nothing */

int guest_memory_revert(struct guest_memory *m, struct memory_layers *layers)
{
    int r;

    if (m->layers == layers) {
        memory_find_written(m, m->changed, NULL);
    } else {
        memory_leave_untidied(m);
        memset(m->changed, CHUNK_CHANGED, layers->chunks);
    }
    r = map_chunks(m, layers, m->changed);
    if (r < 0)
        return r;
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
    replace_layers(m, layers_hold(layers));
    return 0;
}

int guest_memory_clear(struct guest_memory *m)
{
    int fd, r;

    if (guest_memory_is_reserved(m))
        return memory_zero_in_place(m);
    if (!m->layers)
        return fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->size) < 0
                   ? -errno
                   : 0;
    if (m->options.merge) {
        memory_leave_untidied(m);
        return memory_begin_private(m);
    }
    fd = ram_file_new(m->size);
    r = fd < 0 ? fd : memory_map_file(m, fd, MAP_SHARED);
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return r;
    }
    memory_leave_untidied(m);
    layers_drop(m->layers);
    m->layers = NULL;
    m->fd = fd;
    return 0;
}

/* ---- freezing for the first time */

/*
 * What is mapped now is mapped elsewhere, and nothing remains of it here but the right to map it
 * again. Then it need not be taken to pieces page by page while the guest stands. Where the kernel
 * cannot (Linux 5.13 can), that is done when the new mapping comes.
 */
static uint8_t *put_aside(uint8_t *at, uint64_t size)
{
    uint8_t *to = at ? memory_reserve(size) : NULL;

    if (!to || mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to)
        return to;
    munmap(to, size);
    return NULL;
}

static int freeze_shared(struct guest_memory *m)
{
    QZ_AUTO_FD int fd = m->fd;
    struct memory_layers *l = layers_new(m->size);
    int r;

    m->fd = -1;
    memory_leave_untidied(m);
    m->aside[0] = put_aside(m->low, m->low_size);
    m->aside[1] = put_aside(m->high, m->high_size);
    r = l ? memory_map_file(m, fd, MAP_PRIVATE) : -ENOMEM;
    if (r == 0)
        r = ram_file_seal(fd);
    if (r < 0) { /* nothing was written through a private mapping */
        memory_map_file(m, fd, MAP_SHARED);
        layers_drop(l);
        m->fd = QZ_TAKE_FD(fd);
        return r;
    }
    memset(l->table, layers_add(l, QZ_TAKE_FD(fd)), l->chunks);
    replace_layers(m, l);
    return 0;
}

/* ---- freezing again */

static int64_t write_chunk(const struct guest_memory *m, int fd, size_t i)
{
    const uint64_t offset = i * m->layers->chunk;

    return ram_file_write(fd, host_of(m, offset), layers_end_of(m->layers, i) - offset, offset);
}

/* Everything into one file: what has changed from here, the rest from the layers. */
static int freeze_whole(struct guest_memory *m)
{
    struct memory_layers *rest = layers_copy(m->layers), *l = NULL;
    struct memory_fold *f = NULL;
    int64_t r = rest ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < rest->chunks; i++)
        if (m->changed[i])
            rest->table[i] = LAYER_ZERO;
    if (r == 0)
        r = (f = fold_new(rest, 0)) ? 0 : -ENOMEM;
    for (size_t i = 0; r >= 0 && i < rest->chunks; i++)
        if (m->changed[i] == CHUNK_CHANGED)
            r = write_chunk(m, f->fd, i);
    if (r >= 0)
        while ((r = fold_step(f, UINT64_MAX)) > 0)
            ;
    if (r == 0)
        r = (l = fold_result(f)) ? 0 : -ENOMEM;
    fold_free(f);
    layers_drop(rest);
    if (r < 0)
        return (int)r;
    memset(m->changed, CHUNK_CHANGED, l->chunks);
    r = map_chunks(m, l, m->changed);
    if (r < 0) { /* the same bytes from either file, and `changed` says that nobody knows which */
        layers_drop(l);
        return (int)r;
    }
    leave_fold(m);
    replace_layers(m, l);
    return 0;
}

/* What has changed as a new layer upon `l`. */
static int add_changed(const struct guest_memory *m, struct memory_layers *l, uint8_t *moved)
{
    QZ_AUTO_FD int fd = ram_file_new(l->size);
    const uint8_t layer = (uint8_t)l->count;
    bool empty = true;
    int r;

    if (fd < 0)
        return fd;
    for (size_t i = 0; i < l->chunks; i++) {
        int64_t n;

        if (m->changed[i] == CHUNK_GIVEN_BACK) /* and not written since: zeroes are mapped there */
            l->table[i] = LAYER_ZERO;
        if (m->changed[i] != CHUNK_CHANGED)
            continue;
        n = write_chunk(m, fd, i);
        if (n < 0)
            return (int)n;
        l->table[i] = n ? layer : LAYER_ZERO;
        moved[i] = 1;
        empty = empty && n == 0;
    }
    if (empty)
        return 0;
    r = ram_file_seal(fd);
    if (r == 0)
        layers_add(l, QZ_TAKE_FD(fd));
    return r;
}

/* A set of layers in the making. */
struct next_layers {
    struct memory_layers *l;
    uint8_t *moved; /* which chunks lie elsewhere than before */
    size_t folded;  /* up to here they lie in the file that was folded, which has this number */
    uint8_t folded_as;
};

/* The present layers, and as much as may be at a time of what was folded from the new file. */
static struct memory_layers *layers_below(struct guest_memory *m, struct next_layers *n)
{
    const bool urgent = m->layers->count >= LAYERS_MAX - 1;
    int r = 0;

    if (m->fold && urgent) /* it was too slow */
        while ((r = fold_step(m->fold, UINT64_MAX)) > 0)
            ;
    if (r < 0)
        leave_fold(m);
    if (!m->fold || !fold_is_done(m->fold) || m->layers->count == LAYERS_MAX)
        return layers_copy(m->layers);
    return fold_apply(m->fold, m->layers, urgent ? UINT64_MAX : m->fold->cost / MOVE_SHARE + 1,
                      n->moved, &n->folded, &n->folded_as);
}

/* The machine has these layers from now on. */
static void take_layers(struct guest_memory *m, const struct next_layers *n)
{
    if (n->folded == n->l->chunks) {
        leave_fold(m);
    } else if (n->folded) {
        m->fold->moved = n->folded;
        m->fold->as = n->folded_as;
    }
    replace_layers(m, n->l);
}

static int freeze_again(struct guest_memory *m, const struct memory_threads *threads)
{
    QZ_AUTO_FREE uint8_t *moved = calloc(m->layers->chunks, 1);
    struct next_layers n = {.moved = moved};
    int r;

    n.l = moved ? layers_below(m, &n) : NULL;
    memory_find_written(m, m->changed, threads);
    r = !n.l ? -ENOMEM : n.l->count == LAYERS_MAX ? -E2BIG : add_changed(m, n.l, moved);
    if (r == 0 && layers_runs(n.l) > RUNS_MAX)
        r = -E2BIG;
    if (r == 0 && (r = map_chunks(m, n.l, moved)) < 0)
        for (size_t i = 0; i < n.l->chunks; i++)
            if (moved[i]) /* the same bytes, but nobody knows from which file */
                m->changed[i] = CHUNK_CHANGED;
    if (r == 0) {
        take_layers(m, &n);
        return 0;
    }
    layers_drop(n.l);
    return r == -E2BIG || r == -ENOMEM ? freeze_whole(m) : r;
}

void guest_memory_foresee(const struct guest_memory *m)
{
    QZ_AUTO_FREE uint8_t *ignored = m->layers ? calloc(m->layers->chunks, 1) : NULL;

    if (ignored && m->pagemap >= 0)
        memory_find_written(m, ignored, NULL);
}

int guest_memory_freeze(struct guest_memory *m, const struct memory_threads *threads,
                        struct qz_error *err)
{
    int r;

    if (guest_memory_is_reserved(m))
        return qz_fail(err, -ENOTSUP,
                       "memory on reserved huge pages cannot be frozen: each that is written "
                       "afterwards needs another, and where none is left the machine would end");
    r = m->layers ? freeze_again(m, threads) : freeze_shared(m);
    return r < 0 ? qz_fail(err, r, "memory: cannot be frozen: %s", strerror(-r)) : 0;
}

/* ---- what can wait */

/* Old mappings; true: there were some. */
static bool unmap_some(struct guest_memory *m)
{
    const unsigned part = m->aside[0] ? 0 : 1;
    const uint64_t size = part ? m->high_size : m->low_size;
    uint64_t len;

    if (!m->aside[part])
        return false;
    len = QZ_MIN((uint64_t)TIDY_UNMAP, size - m->aside_done);
    munmap(m->aside[part] + m->aside_done, len);
    m->aside_done += len;
    if (m->aside_done == size) {
        m->aside[part] = NULL;
        m->aside_done = 0;
    }
    return true;
}

/* The lowest layer that is to be folded with those above it; -1: none. */
static int fold_from(const struct memory_layers *l)
{
    uint64_t above = 0;

    if (layers_runs(l) > FOLD_AT_RUNS)
        return 0;
    if (l->count < FOLD_AT)
        return -1;
    for (unsigned i = 1; i < l->count; i++)
        above += ram_file_bytes(l->fd[i]);
    return above >= ram_file_bytes(l->fd[0]) / 2 ? 0 : 1;
}

bool guest_memory_tidy(struct guest_memory *m)
{
    int from, r;

    if (unmap_some(m))
        return true;
    layers_drop(m->retired);
    m->retired = NULL;
    if (!m->layers)
        return false;
    if (!m->fold) {
        from = fold_from(m->layers);
        m->fold = from < 0 ? NULL : fold_new(m->layers, (unsigned)from);
    }
    if (!m->fold || fold_is_done(m->fold))
        return false;
    r = fold_step(m->fold, TIDY_BYTES);
    if (r < 0) /* the next snapshot tries again, and when it must, while the guest stands */
        leave_fold(m);
    return r > 0;
}

void memory_leave_untidied(struct guest_memory *m)
{
    while (unmap_some(m))
        ;
    layers_drop(m->retired);
    m->retired = NULL;
    leave_fold(m);
}

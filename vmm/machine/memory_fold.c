/* memory_fold.c - several layers become one (memory_fold.h). */
#include "machine/memory_fold.h"

#include <assert.h>
#include <fcntl.h>

QZ_SYSCALLS(main, "pread64 lseek");

enum {
    ROOM = 256 << 10,
    MAPPING_COST = 128, /* in pages that a mapping loses */
};

/* Whether what this entry of the table stands for goes into the new file. */
static bool is_folded(const struct memory_fold *f, uint8_t entry)
{
    return f->from == 0 || (entry != LAYER_ZERO && entry >= f->from);
}

static uint64_t whole_cost(const struct memory_fold *f)
{
    bool before = false;
    uint64_t cost = 0;

    for (size_t i = 0; i < f->of->chunks; i++) {
        const bool now = is_folded(f, f->of->table[i]);

        cost += !now ? 0 : before ? 1 : MAPPING_COST;
        before = now;
    }
    return cost;
}

struct memory_fold *fold_new(struct memory_layers *of, unsigned from)
{
    struct memory_fold *f = malloc(sizeof(*f));

    if (!f)
        return NULL;
    *f = (struct memory_fold){
        .of = layers_hold(of), .from = from, .room_size = QZ_MAX(of->chunk, (uint64_t)ROOM)};
    f->cost = whole_cost(f);
    f->room = malloc(f->room_size);
    f->fd = ram_file_new(of->size);
    if (f->fd >= 0 && f->room)
        return f;
    fold_free(f);
    return NULL;
}

void fold_free(struct memory_fold *f)
{
    if (!f)
        return;
    layers_drop(f->of);
    if (f->fd >= 0)
        close(f->fd);
    free(f->room);
    free(f);
}

/* Chunks from `first` on that lie in the same layer. */
static size_t run_end(const struct memory_layers *l, size_t first)
{
    size_t end = first + 1;

    while (end < l->chunks && l->table[end] == l->table[first])
        end++;
    return end;
}

/* A bit of the run [first, end) of chunks: how many bytes were looked at, or -errno. */
static int64_t copy_some(struct memory_fold *f, size_t first, size_t end)
{
    const int from = f->of->fd[f->of->table[first]];
    const uint64_t offset = first * f->of->chunk, limit = layers_end_of(f->of, end - 1);
    const off_t found = lseek(from, (off_t)offset, SEEK_DATA);
    const uint64_t data = found < 0 ? limit : QZ_ALIGN_DOWN((uint64_t)found, f->of->chunk);
    size_t len;
    ssize_t n;
    int64_t r;

    if (found < 0 && errno != ENXIO)
        return -errno;
    if (data >= limit) {
        f->next = end;
        return 0;
    }
    len = QZ_MIN(limit - data, (uint64_t)f->room_size);
    n = pread(from, f->room, len, (off_t)data);
    if (n != (ssize_t)len)
        return n < 0 ? -errno : -EIO;
    r = ram_file_write(f->fd, f->room, len, data);
    if (r < 0)
        return r;
    f->next = data + len == limit ? end : (data + len) / f->of->chunk;
    return n;
}

int fold_step(struct memory_fold *f, uint64_t bytes)
{
    const struct memory_layers *of = f->of;

    for (uint64_t done = 0; done < bytes && !fold_is_done(f);) {
        const uint8_t entry = of->table[f->next];
        const size_t end = run_end(of, f->next);
        int64_t n = 0;

        if (entry == LAYER_ZERO || !is_folded(f, entry))
            f->next = end;
        else
            n = copy_some(f, f->next, end);
        if (n < 0)
            return (int)n;
        done += (uint64_t)n + 64; /* runs cost something, too */
    }
    return fold_is_done(f) ? ram_file_seal(f->fd) : 1;
}

struct memory_layers *fold_result(const struct memory_fold *f)
{
    const int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);

    assert(fold_is_done(f) && f->from == 0);
    return fd < 0 ? NULL : layers_of_file(fd, f->of->size);
}

/* Without the layers that were folded, and the new one in their place. */
static int leave_folded(const struct memory_fold *f, struct memory_layers **l, uint8_t as)
{
    struct memory_layers *old = *l, *l2 = layers_new(old->size);
    uint8_t number[LAYER_ZERO + 1] = {[LAYER_ZERO] = LAYER_ZERO};
    int r = l2 ? 0 : -ENOMEM;

    for (unsigned i = 0; r == 0 && i < old->count; i++) {
        const bool is_new = i >= f->of->count && i != as;

        if (i == f->from) { /* the lowest of those that go */
            number[as] = (uint8_t)l2->count;
            r = layers_add_again(l2, old->fd[as]);
        }
        if (r < 0 || (i >= f->from && !is_new))
            continue;
        number[i] = (uint8_t)l2->count;
        r = layers_add_again(l2, old->fd[i]);
    }
    if (r < 0) {
        layers_drop(l2);
        return r;
    }
    for (size_t i = 0; i < old->chunks; i++)
        l2->table[i] = number[old->table[i]];
    layers_drop(old);
    *l = l2;
    return 0;
}

struct memory_layers *fold_apply(const struct memory_fold *f, const struct memory_layers *now,
                                 uint64_t cost, uint8_t *moved, size_t *end, uint8_t *as)
{
    struct memory_layers *l = layers_copy(now);
    size_t i = f->moved;

    assert(fold_is_done(f));
    if (!l)
        return NULL;
    *as = f->as ? f->as : (uint8_t)l->count;
    if (f->as || layers_add_again(l, f->fd) == 0) {
        for (uint64_t spent = 0; i < l->chunks && spent < cost; i++) {
            /* What was written since is in a layer that is newer than these. */
            if (l->table[i] != f->of->table[i] || !is_folded(f, l->table[i]))
                continue;
            spent += i == 0 || l->table[i - 1] != *as ? MAPPING_COST : 1;
            l->table[i] = *as;
            moved[i] = 1;
        }
        *end = i;
        if (i < l->chunks || leave_folded(f, &l, *as) == 0)
            return l;
    }
    layers_drop(l);
    return NULL;
}

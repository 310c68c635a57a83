/*
 * release.c - clusters that lost a mention, on their way to a lower refcount.
 *
 *   unlinked    the L2 entry is changed in memory
 *   unflushed   a commit that writes it is under way
 *   current     it is on the medium; requests that entered in this phase or the one before may
 *               still be at the cluster
 *   waiting     only requests of the phase before may be
 *
 * Then the refcount goes down, and what reaches zero can be allocated again. A crash on the way
 * leaves clusters marked used that are not, which costs space and nothing else.
 */
#include "internal.h"

static int append(struct qcow2_ranges *r, uint64_t first, uint64_t count)
{
    struct qcow2_range *last = r->count ? &r->list[r->count - 1] : NULL;

    if (last && last->first + last->count == first) {
        last->count += count;
        return 0;
    }
    if (r->count == r->room) {
        unsigned room = r->room ? r->room * 2 : 64;
        struct qcow2_range *list = realloc(r->list, room * sizeof(*list));

        if (!list)
            return -ENOMEM;
        r->list = list;
        r->room = room;
    }
    r->list[r->count++] = (struct qcow2_range){first, count};
    return 0;
}

/* Moves all of `from` behind `to`. No memory: it stays, and is moved another time. */
static void move(struct qcow2_ranges *to, struct qcow2_ranges *from)
{
    if (!to->count) {
        struct qcow2_ranges was = *to;

        *to = *from;
        *from = was;
        from->count = 0;
        return;
    }
    while (from->count) {
        struct qcow2_range *r = &from->list[from->count - 1];

        if (append(to, r->first, r->count))
            return;
        from->count--;
    }
}

int qcow2_release(struct qcow2 *i, uint64_t first, uint64_t count)
{
    QZ_LOCKED(&i->release_mutex);
    atomic_fetch_add(&i->releases, 1);
    return append(&i->unlinked, first, count);
}

void qcow2_release_begin(struct qcow2 *i)
{
    QZ_LOCKED(&i->release_mutex);
    move(&i->unflushed, &i->unlinked);
}

void qcow2_release_end(struct qcow2 *i, bool durable)
{
    QZ_LOCKED(&i->release_mutex);
    if (durable)
        move(&i->current, &i->unflushed);
}

bool qcow2_release_pending(struct qcow2 *i)
{
    QZ_LOCKED(&i->release_mutex);
    return i->unlinked.count || i->unflushed.count || i->current.count || i->waiting.count;
}

bool qcow2_release_crowded(struct qcow2 *i, unsigned most)
{
    QZ_LOCKED(&i->release_mutex);
    return i->unlinked.count > most;
}

static bool phase_empty(struct qcow2 *i, uint32_t phase)
{
    for (unsigned n = 0; n < DISK_QUEUES_MAX; n++)
        if (atomic_load(&i->lanes[n].inside[phase & 1]))
            return false;
    return true;
}

/* Takes what nobody can be at any more. */
static struct qcow2_ranges take_settled(struct qcow2 *i)
{
    struct qcow2_ranges done = {0};
    uint32_t phase = atomic_load(&i->phase);

    QZ_LOCKED(&i->release_mutex);
    if (!i->waiting.count && !i->current.count)
        return done;
    if (!phase_empty(i, phase - 1))
        return done;
    done = i->waiting;
    i->waiting = i->current;
    i->current = (struct qcow2_ranges){0};
    /* Pairs with qcow2_enter(). */
    atomic_store(&i->phase, phase + 1);
    return done;
}

/* Gives the space of clusters that are about to be free to the layer below; while their refcount is
 * still 1, so that nobody has them. A failure costs space only. */
static void punch(struct qcow2 *i, struct disk_queue *q, uint64_t first, uint64_t count)
{
    struct layer *file = i->layer.below;
    uint64_t size = __atomic_load_n(&file->info.size, __ATOMIC_RELAXED), run = 0;

    if (!file->info.discard)
        return;
    for (uint64_t n = 0; n <= count; n++) {
        uint64_t value = 0, end = (first + n) << i->cluster_bits;

        if (n < count && qcow2_refcount_get(i, q, first + n, &value))
            return;
        if (n < count && value == 1) {
            run++;
            continue;
        }
        if (run && end <= size)
            layer_discard(file, q, end - (run << i->cluster_bits), run << i->cluster_bits);
        run = 0;
    }
}

int qcow2_release_settle(struct qcow2 *i, struct disk_queue *q)
{
    int result = 0;

    /* Twice: the second look finds what the first made to wait, if nothing is in flight. */
    for (int turn = 0; turn < 2; turn++) {
        struct qcow2_ranges done = take_settled(i);

        for (unsigned n = 0; n < done.count; n++) {
            struct qcow2_range *r = &done.list[n];
            int rc;

            punch(i, q, r->first, r->count);
            rc = qcow2_refcount_change(i, q, r->first, r->count, -1);

            /* A failure leaves them marked used; that is safe. */
            if (rc && !result)
                result = rc;
        }
        free(done.list);
    }
    return result;
}

void qcow2_release_clear(struct qcow2 *i)
{
    free(i->unlinked.list);
    free(i->unflushed.list);
    free(i->current.list);
    free(i->waiting.list);
}

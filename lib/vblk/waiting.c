/*
 * waiting.c - the order of waiting requests.
 *
 * Classes are FIFO lists; every AGEING-th pop takes from the lowest class that has something, so
 * that nothing starves. Deadlines are a pairing heap in head[0]: `child` is the first child, `next`
 * the next sibling; push is constant, pop is logarithmic on average and never recursive.
 */
#include "waiting.h"

enum { AGEING = 8 };

static uint64_t due(const struct vblk_request *r)
{
    return r->deadline_ns ? r->deadline_ns : UINT64_MAX;
}

static struct vblk_request *heap_meld(struct vblk_request *a, struct vblk_request *b)
{
    if (!a || !b)
        return a ? a : b;
    if (due(b) < due(a)) {
        struct vblk_request *t = a;

        a = b;
        b = t;
    }
    b->next = a->child;
    a->child = b;
    return a;
}

/* Melds a list of siblings: pairs from the front, then the pairs from the back. */
static struct vblk_request *heap_merge_list(struct vblk_request *list)
{
    struct vblk_request *pairs = NULL, *root = NULL;

    while (list) {
        struct vblk_request *a = list, *b = a->next;

        list = b ? b->next : NULL;
        a->next = NULL;
        if (b)
            b->next = NULL;
        a = heap_meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct vblk_request *a = pairs;

        pairs = a->next;
        a->next = NULL;
        root = heap_meld(root, a);
    }
    return root;
}

static unsigned class_of(enum vblk_scheduler by, const struct vblk_request *r)
{
    return by == VBLK_SCHED_PRIORITY ? r->priority : 0;
}

void waiting_push(struct waiting *w, enum vblk_scheduler by, struct vblk_request *r)
{
    unsigned c = class_of(by, r);

    r->next = r->child = NULL;
    w->count++;
    if (by == VBLK_SCHED_DEADLINE) {
        w->head[0] = heap_meld(w->head[0], r);
        return;
    }
    if (w->head[c])
        w->last[c]->next = r;
    else
        w->head[c] = r;
    w->last[c] = r;
}

static unsigned next_class(const struct waiting *w)
{
    if (w->since_aged >= AGEING - 1)
        for (unsigned c = VBLK_PRIO_COUNT; c-- > 0;)
            if (w->head[c])
                return c;
    for (unsigned c = 0; c < VBLK_PRIO_COUNT; c++)
        if (w->head[c])
            return c;
    return 0;
}

struct vblk_request *waiting_peek(struct waiting *w, enum vblk_scheduler by)
{
    return w->head[by == VBLK_SCHED_PRIORITY ? next_class(w) : 0];
}

struct vblk_request *waiting_pop(struct waiting *w, enum vblk_scheduler by)
{
    unsigned c = by == VBLK_SCHED_PRIORITY ? next_class(w) : 0;
    struct vblk_request *r = w->head[c];

    if (!r)
        return NULL;
    w->count--;
    w->since_aged = w->since_aged >= AGEING - 1 ? 0 : w->since_aged + 1;
    if (by == VBLK_SCHED_DEADLINE)
        w->head[0] = heap_merge_list(r->child);
    else
        w->head[c] = r->next;
    r->next = r->child = NULL;
    return r;
}

struct vblk_request *waiting_take(struct waiting *w, enum vblk_scheduler by, bool everything,
                                  uint64_t now)
{
    struct vblk_request *taken = NULL, **tail = &taken, *r;
    struct waiting rest = {.since_aged = w->since_aged};

    /* By deadline the late ones are at the front; otherwise all are looked at and kept in order. */
    while ((r = by == VBLK_SCHED_DEADLINE ? w->head[0] : waiting_peek(w, by))) {
        bool late = everything || (r->deadline_ns && r->deadline_ns <= now);

        if (by == VBLK_SCHED_DEADLINE && !late)
            return taken;
        waiting_pop(w, by);
        if (late) {
            *tail = r;
            tail = &r->next;
        } else {
            waiting_push(&rest, by, r);
        }
    }
    *w = rest;
    return taken;
}

/*
 * cache_lines.c - which line holds which block: hash, list of free lines, list of dirty lines.
 */
#include "cache.h"

void list_remove(struct line_list *list, struct line *l)
{
    if (l->prev)
        l->prev->next = l->next;
    else
        list->head = l->next;
    if (l->next)
        l->next->prev = l->prev;
    else
        list->tail = l->prev;
    l->prev = l->next = NULL;
    l->listed = false;
    list->count--;
}

void list_prepend(struct line_list *list, struct line *l)
{
    l->prev = NULL;
    l->next = list->head;
    if (list->head)
        list->head->prev = l;
    else
        list->tail = l;
    list->head = l;
    l->listed = true;
    list->count++;
}

static void list_append(struct line_list *list, struct line *l)
{
    l->next = NULL;
    l->prev = list->tail;
    if (list->tail)
        list->tail->next = l;
    else
        list->head = l;
    list->tail = l;
    l->listed = true;
    list->count++;
}

static struct line **bucket(const struct vblk_cache *c, uint64_t block)
{
    return &c->hash[(block * UINT64_C(0x9e3779b97f4a7c15) >> 32) & c->hash_mask];
}

struct line *line_find(const struct vblk_cache *c, uint64_t block)
{
    struct line *l = *bucket(c, block);

    while (l && l->block != block)
        l = l->hash_next;
    return l;
}

static void unhash(struct vblk_cache *c, struct line *l)
{
    struct line **at = bucket(c, l->block);

    while (*at != l)
        at = &(*at)->hash_next;
    *at = l->hash_next;
}

struct line *line_take(struct vblk_cache *c, uint64_t block)
{
    struct line *l = c->free.head;

    if (!l)
        return NULL;
    list_remove(&c->free, l);
    if (l->state != LINE_EMPTY)
        unhash(c, l);
    l->block = block;
    l->state = LINE_VALID;
    l->stale = false;
    l->hash_next = *bucket(c, block);
    *bucket(c, block) = l;
    return l;
}

void line_drop(struct vblk_cache *c, struct line *l)
{
    if (l->listed)
        list_remove(l->dirty ? &c->dirty : &c->free, l);
    unhash(c, l);
    l->state = LINE_EMPTY;
    l->dirty = l->stale = false;
    list_prepend(&c->free, l);
}

void line_settle(struct vblk_cache *c, struct line *l)
{
    if (l->pins || l->dirty || l->state == LINE_FILLING || l->state == LINE_WRITING)
        return;
    if (l->state == LINE_FAILED || l->stale)
        line_drop(c, l);
    else if (!l->listed)
        list_append(&c->free, l);
}

void line_pin(struct vblk_cache *c, struct line *l)
{
    if (l->listed && !l->dirty)
        list_remove(&c->free, l);
    l->pins++;
}

void line_unpin(struct vblk_cache *c, struct line *l)
{
    l->pins--;
    line_settle(c, l);
}

void line_dirty(struct vblk_cache *c, struct line *l)
{
    l->stale = false;
    if (l->dirty)
        return;
    if (l->listed)
        list_remove(&c->free, l);
    l->dirty = true;
    l->order = ++c->order;
    list_append(&c->dirty, l);
}

/*
 * place.c - items become code at an address (sequence.h).
 */
#include "sequence.h"

static void place_branch(struct sequence *s, struct item *item)
{
    const uint32_t next = item->at + item->len;
    int64_t distance = (int64_t)s->item[item->target].at - next;

    if (item->rel == 1 && distance != (int8_t)distance) { /* too far: to the next item instead */
        item->target = (int16_t)(item - s->item + 1);
        distance = 0;
    }
    memcpy(item->bytes + item->len - item->rel, &distance, item->rel);
}

void sequence_place(struct sequence *s)
{
    unsigned at = 0;

    for (unsigned k = 0; k < s->count; k++) {
        s->item[k].at = (uint16_t)at;
        at += s->item[k].len;
    }
    s->code_len = at;
    for (unsigned k = 0; k < s->count; k++) {
        struct item *item = &s->item[k];

        if (item->rel)
            place_branch(s, item);
        if (item->rip) {
            const struct item *target = &s->item[QZ_MAX(item->target, 0)];
            const uint64_t address =
                item->target == NO_ITEM ? item->address : s->rip + target->at + target->len - 1;
            const uint64_t disp = address - (s->rip + item->at + item->len);

            memcpy(item->bytes + item->rip, &disp, 4);
        }
        if (item->label) {
            const uint64_t address = s->rip + s->item[item->target].at;

            memcpy(item->bytes + item->len - item->label, &address, item->label);
        }
        memcpy(s->code + item->at, item->bytes, item->len);
    }
}

unsigned sequence_item_at(const struct sequence *s, uint64_t rip)
{
    for (unsigned k = 0; k < s->count; k++)
        if (s->rip + s->item[k].at == rip)
            return k;
    return s->count;
}

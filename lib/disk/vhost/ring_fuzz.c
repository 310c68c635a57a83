/*
 * ring_fuzz.c - rings and descriptors of any content: chains stay inside of the memory shown, and
 * looking at them ends.
 *
 * Input: one byte of switches, one of the ring's size, then what lies in the memory.
 */
#include "ring.h"

enum { MEMORY = 16384, GPA = 0x100000, USER = 0x7f0000000000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct ring_chain *c, const uint8_t *memory)
{
    uint64_t out = 0, in = 0;

    if (c->out_count + c->in_count > RING_SEGMENTS_MAX)
        abort();
    for (unsigned i = 0; i < c->out_count + c->in_count; i++) {
        const uint8_t *p = c->iov[i].iov_base;

        if (p < memory || c->iov[i].iov_len > MEMORY || p + c->iov[i].iov_len > memory + MEMORY ||
            !c->iov[i].iov_len)
            abort();
        *(i < c->out_count ? &out : &in) += c->iov[i].iov_len;
    }
    if (out != c->out_bytes || in != c->in_bytes)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t memory[MEMORY] __attribute__((aligned(4096)));
    static struct ring_chain c;
    struct memory_map map = {.count = 2};
    struct device_ring r = {.memory = &map};
    unsigned rounds = 0;
    int n;

    if (size < 2)
        return 0;
    memset(memory, 0, sizeof(memory));
    memcpy(memory, data + 2, QZ_MIN(size - 2, (size_t)MEMORY));
    map.region[0] = (struct map_region){GPA, USER, MEMORY / 2, memory, NULL, 0};
    map.region[1] = (struct map_region){
        GPA + MEMORY / 2, USER + MEMORY / 2, MEMORY / 2, memory + MEMORY / 2, NULL, 0};
    r.packed = data[0] & 1;
    r.event_idx = data[0] & 2;
    r.indirect = data[0] & 4;
    r.size = (uint16_t)(1 << data[1] % 8);
    r.desc = memory;
    r.driver = memory + 16 * r.size;
    r.device = memory + 16 * r.size + QZ_ALIGN_UP(ring_driver_bytes(&r), (size_t)4);
    ring_start(&r, data[0] >> 3);
    /* A ring of any content offers at most its size; what is pushed changes it, so more may come.
     */
    while (!r.broken && (n = ring_pop(&r, &c)) == 1) {
        check(&c, memory);
        if (++rounds > 4096)
            break;
        ring_push(&r, c.id, c.descriptors, (uint32_t)c.in_bytes);
        ring_wants_call(&r);
        ring_set_kicks(&r, rounds & 1);
    }
    return 0;
}

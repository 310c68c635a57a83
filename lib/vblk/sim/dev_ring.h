/*
 * dev_ring.h - the device's side of a virtqueue, for tests: split and packed (VirtIO 1.3 §2.7,
 * §2.8).
 *
 * Written from the specification and not from the driver beside it, so that the two check each
 * other. It trusts nothing: what a driver must not do is recorded as a violation and the chain is
 * refused.
 */
#ifndef SIM_DEV_RING_H
#define SIM_DEV_RING_H

#include <queztl/vblk.h>

enum { DEV_CHAIN_MAX = 64 };

struct dev_piece {
    uint8_t *at;
    uint32_t len;
    bool write;
};

struct dev_chain {
    uint16_t id;    /* descriptor index or buffer id */
    uint16_t descs; /* of the ring */
    uint64_t order; /* of arrival */
    unsigned count;
    struct dev_piece pieces[DEV_CHAIN_MAX];
};

struct dev_ring {
    bool packed, event_idx, in_order, indirect_ok;
    unsigned size;
    uint8_t *desc, *driver, *device;
    /* Device address to pointer for len bytes; NULL when the driver never gave that memory. */
    uint8_t *(*translate)(void *ctx, uint64_t addr, uint64_t len);
    void *ctx;
    uint16_t next_avail, next_used, signalled;
    bool avail_wrap, used_wrap, signalled_wrap;
    unsigned in_device, used_unsignalled, violations;
    uint64_t orders;
    const char *violation; /* the last one */
};

void dev_ring_init(struct dev_ring *r);
/* 1 and a chain, 0 when none is there, -1 when the driver broke a rule. */
int dev_ring_pop(struct dev_ring *r, struct dev_chain *c);
/* A chain that another device took from this ring before: its head, or a copy of its descriptors.
 * The ring's position moves as if it had been taken now. */
int dev_ring_again_split(struct dev_ring *r, uint16_t head, struct dev_chain *c);
int dev_ring_again_packed(struct dev_ring *r, uint8_t (*descs)[16], unsigned n,
                          struct dev_chain *c);
/* Uses a chain; nothing is visible before dev_ring_flush(). */
void dev_ring_push(struct dev_ring *r, const struct dev_chain *c, uint32_t len);
/* Shows what was used; true when the driver wants an interrupt for it. */
bool dev_ring_flush(struct dev_ring *r);
/* Asks for a doorbell; true when chains are there already. */
bool dev_ring_want_doorbell(struct dev_ring *r);
void dev_ring_no_doorbell(struct dev_ring *r);
/* Raw used entry for tests of nonsense: at the next place, with any id and length. */
void dev_ring_forge(struct dev_ring *r, uint32_t id, uint32_t len);

#endif

/*
 * checks.h - the checks that demands.c refers to, and what they share. Requests go into the ring
 * past the driver's own checks, since many a demand is about what a device has to refuse. They
 * write to the first and to the last 64 KiB of the device.
 */
#ifndef VBLK_CHECKS_H
#define VBLK_CHECKS_H

#include "conform.h"

enum { BLOCK = 4096, BLOCK_SECTORS = BLOCK / VBLK_SECTOR_SIZE };

static inline bool has(const struct conform *c, unsigned feature)
{
    return c->dev->info.features & VBLK_BIT(feature);
}
static inline enum conform_result fail(struct conform *c, const char *why)
{
    c->why = why;
    return CONFORM_FAILED;
}
static inline enum conform_result verdict(struct conform *c, bool good, const char *why)
{
    return good ? CONFORM_PASSED : fail(c, why);
}

/* Rings the doorbell and waits for the one request that is in the ring. False: no answer. */
bool conform_wait(struct conform *c, struct vblk_queue *q, unsigned slot);
/* One request, whatever it is. */
bool conform_raw(struct conform *c, struct vblk_request *r);
/* The same with len bytes of c->data. */
bool conform_move(struct conform *c, uint32_t op, uint64_t sector, uint32_t len);
void conform_fill(struct conform *c, uint8_t with, unsigned len);
bool conform_holds(const struct conform *c, uint8_t what, unsigned len);
/* The device's address of c->data; false when it has none. */
bool conform_address(const struct conform *c, uint64_t *addr);
/* Time in which a device that does what it must not would have done it. */
void conform_quiet(struct conform *c);
/* Has the device used anything that was not collected? */
bool conform_used(const struct vblk_queue *q);
/* Forgets what is in the rings and negotiates anew, without these features too. */
bool conform_restart(struct conform *c, uint64_t off);

typedef enum conform_result conform_check(struct conform *c);
/* device.c */
conform_check check_driver_ok, check_undescribed, check_version_1, check_subsets, check_status_zero,
    check_reset_quiet, check_config_early, check_queue_reset, check_queue_reenable;
/* ring.c */
conform_check check_framing, check_readable_kept, check_table_kept, check_write_flag,
    check_mixed_chain, check_notified, check_notified_event, check_used_event_ignored,
    check_used_len, check_used_flags, check_spurious, check_available_only, check_chain_order,
    check_used_kept;
/* block.c */
conform_check check_data, check_flush_offered, check_writeback_zero, check_padding, check_read_only,
    check_discard_unmap, check_discard_flags, check_zeroes_flags, check_erase_flags, check_zeroes,
    check_lifetime, check_zones_refused, check_unknown_type, check_past_end, check_across_end,
    check_flush, check_id, check_writeback;

#endif

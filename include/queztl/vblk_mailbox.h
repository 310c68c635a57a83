/*
 * vblk_mailbox.h - how a driver on a bare machine is asked and steered from outside: a page of
 * memory at an agreed place, into which the machine's monitor puts a question on behalf of
 * virtioctl and from which it takes the answer.
 *
 * The driver writes the magic number once it is ready, and looks at `asked` between batches. Both
 * sides write their own number last; equal numbers mean that the driver waits.
 */
#ifndef QUEZTL_VBLK_MAILBOX_H
#define QUEZTL_VBLK_MAILBOX_H

#include <stdint.h>

#define VBLK_MAILBOX_ADDRESS 0x4000000ull /* guest-physical */
#define VBLK_MAILBOX_MAGIC   0x4b4c42565a51ull

enum { VBLK_MAILBOX_LINE = 104, VBLK_MAILBOX_ANSWER = 16256 };

struct vblk_mailbox {
    uint64_t magic;
    uint32_t asked;    /* questions, by the monitor */
    uint32_t answered; /* by the driver */
    uint32_t answer_len, unused;
    char line[VBLK_MAILBOX_LINE]; /* "queue-reset 1", ended by a zero */
    char answer[VBLK_MAILBOX_ANSWER];
};

#endif

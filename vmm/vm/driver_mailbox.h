/*
 * driver_mailbox.h - questions to a block driver that runs in the guest, for virtioctl
 * (queztl/vblk_mailbox.h says what the driver does).
 */
#ifndef VMM_DRIVER_MAILBOX_H
#define VMM_DRIVER_MAILBOX_H

#include <jansson.h>

#include "machine/memory.h"

/* Puts a question there. -ENOENT: no driver with a mailbox; -EBUSY: the last question waits. */
int driver_ask(const struct guest_memory *m, const char *line, struct qz_error *err);
/* {"pending": true} or {"answer": TEXT}; -EPROTO when the guest wrote nonsense. */
int driver_answer(const struct guest_memory *m, json_t **data, struct qz_error *err);

#endif

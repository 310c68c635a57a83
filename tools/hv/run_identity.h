/*
 * run_identity.h - a machine that `queztl-hv run --snapshot` begins under another name or with
 * other addresses: its guest is told.
 */
#ifndef TOOLS_RUN_IDENTITY_H
#define TOOLS_RUN_IDENTITY_H

#include <jansson.h>

#include "vm/config.h"

/*
 * For the process that becomes the machine: keeps the context id that was typed, and leaves a
 * process behind that waits for the guest's agent (at most a minute and a half) and says on
 * standard error what went wrong. name: that was typed, NULL: none. Does nothing when the guest is
 * to be what it was, or has no vsock.
 */
int run_identity(const struct vm_config *c, const char *name, const json_t *description,
                 struct qz_error *err);

#endif

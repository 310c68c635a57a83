/* clone_identity.h - an identity for each clone of a machine. */
#ifndef TOOLS_CLONE_IDENTITY_H
#define TOOLS_CLONE_IDENTITY_H

#include "machine_identity.h"

struct clone_plan {
    const char *net[VM_NETS_MAX]; /* --net as it was typed; none: as the machine has it */
    unsigned nets;
    unsigned count;
    struct own_macs macs;
    uint64_t next_id; /* of vsock */
};

/* Fills the plan with what the machine has, and checks that each clone can have it. */
int clone_plan_complete(struct clone_plan *p, const json_t *options, struct qz_error *err);
/* For clone `number` (from 1) of this name, whose vsock socket will be in `folder`. */
int clone_identity(struct machine_identity *i, struct clone_plan *p, const json_t *options,
                   unsigned number, const char *name, const char *folder, struct qz_error *err);

#endif

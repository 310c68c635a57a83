/* clone_list.h - the clones of one call: what their guests are told, and how they are listed. */
#ifndef TOOLS_CLONE_LIST_H
#define TOOLS_CLONE_LIST_H

#include "clone_identity.h"

struct clone {
    char name[96], socket[512], console[512];
    struct machine_identity identity;
    pid_t pid;
    int log;
    const char *agent; /* what became of its identity */
};

/*
 * Gives each guest the identity of its machine, all at a time, if the machine that they come from
 * had an agent; a minute and a half at most. What went wrong is said on standard error.
 */
void clones_hand_over(struct clone *clones, unsigned count, const json_t *description);
/* On standard output: JSON, or a line each with tabs between the columns. */
void clones_print(const struct clone *clones, unsigned count, bool json);

#endif

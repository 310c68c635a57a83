/*
 * hooks.h - programs of the guest's own that run when its identity changed: they renew DHCP leases,
 * SSH host keys, the machine id.
 */
#ifndef AGENT_HOOKS_H
#define AGENT_HOOKS_H

#include <jansson.h>
#include <queztl/base.h>

enum { HOOKS_MAX = 64 };

/*
 * Runs the executables of `dir` one after the other, in the order of their names, for at most
 * limit_ns together; one that runs then is killed with all that it began. Each is run without
 * arguments, standard input from /dev/null, in the environment `environment`. A list of
 * {"name":NAME,"done":DONE}; empty when there is no such folder. NULL: no memory.
 */
json_t *hooks_run(const char *dir, char *const *environment, int64_t limit_ns);

#endif

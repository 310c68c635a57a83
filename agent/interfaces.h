/* interfaces.h - the guest's network interfaces and their addresses. */
#ifndef AGENT_INTERFACES_H
#define AGENT_INTERFACES_H

#include <net/if.h>

#include "request.h"

enum change { CHANGE_DONE, CHANGE_ALREADY };

/*
 * The interface that has the address `was` gets `mac`; name: which one it is. CHANGE_DONE,
 * CHANGE_ALREADY (it has it), or a negative errno: -ENODEV no interface has either of them.
 * A driver that cannot change the address of a link that is up has it taken down for the change,
 * which loses its routes.
 */
int interface_change(const struct identity_interface *i, char name[IF_NAMESIZE],
                     struct qz_error *err);

#endif

/* hostname.h - the guest's host name: the kernel's, and the file from which a boot takes it. */
#ifndef AGENT_HOSTNAME_H
#define AGENT_HOSTNAME_H

#include "interfaces.h"

/* file: /etc/hostname; it is changed if it is there, and replaced as a whole. A `change`, or a
 * negative errno. */
int hostname_change(const char *name, const char *file, struct qz_error *err);

#endif

/* identity.h - the guest becomes another machine: host name, addresses, then the hooks. */
#ifndef AGENT_IDENTITY_H
#define AGENT_IDENTITY_H

#include <jansson.h>

#include "request.h"

struct identity_places {
    const char *hostname_file; /* /etc/hostname */
    const char *hooks;         /* /etc/queztl/identity.d */
    int64_t hooks_limit_ns;
};

/* The "data" of the answer. */
json_t *identity_take(const struct identity *i, const struct identity_places *at);

#endif

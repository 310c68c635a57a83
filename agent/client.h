/* client.h - one connection: lines in, lines out. */
#ifndef AGENT_CLIENT_H
#define AGENT_CLIENT_H

#include "identity.h"

struct agent {
    struct identity_places places;
    int lock_fd;     /* a file: one client at a time changes the guest */
    int64_t idle_ns; /* without a line a client is given up */
};

/* Serves it until it ends, breaks the rules or says nothing; fd stays the caller's. */
void client_serve(const struct agent *a, int fd);
/* One line's answer, with its end; the caller's to free. NULL: no memory. */
char *client_answer(const struct agent *a, const char *line, size_t len);
/* A refusal, as a line; the caller's to free. */
char *client_refusal(const char *text);

#endif

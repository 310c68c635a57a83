/* server.h - the agent's socket, and a process for each client. */
#ifndef AGENT_SERVER_H
#define AGENT_SERVER_H

#include "client.h"

/* Listens on vsock; a descriptor or a negative errno. */
int server_listen(unsigned port, struct qz_error *err);
/*
 * Serves whoever connects, for ever. A client that goes wrong takes only its own process with it.
 * Returns a negative errno when the socket itself fails.
 */
int server_run(const struct agent *a, int listener, struct qz_error *err);
/* One round: takes clients that wait and looks after those that ended. For tests. */
struct server {
    const struct agent *agent;
    int listener;
    pid_t client[QZ_AGENT_CLIENTS_MAX]; /* 0: nobody */
};
int server_accept(struct server *s, struct qz_error *err);

#endif

/*
 * listener.h - the socket at which a debugger connects, on the main loop.
 *
 * One debugger at a time. A connection stops the machine; its loss lets it run on without
 * breakpoints. A unix socket is for its owner (and root) alone; a TCP port is for everybody who
 * reaches it.
 */
#ifndef VMM_GDB_LISTENER_H
#define VMM_GDB_LISTENER_H

#include <queztl/loop.h>

#include "gdb/address.h"
#include "gdb/server.h"

struct gdb_listener;

/* Before confinement. The machine is stopped or runs; the target's stop() is called on connection
 * and does nothing when it is stopped already. */
int gdb_listener_new(struct gdb_listener **l, struct qz_loop *loop,
                     const struct gdb_address *address, const struct gdb_target *target,
                     struct qz_error *err);
/* The machine is gone or about to be: nothing of it is touched. */
void gdb_listener_free(struct gdb_listener *l);

/* A debugger is connected and waits for the machine to stop. */
bool gdb_listener_is_waiting(const struct gdb_listener *l);
/* See server.h. */
void gdb_listener_stopped(struct gdb_listener *l, const struct gdb_stop *stop);
void gdb_listener_exited(struct gdb_listener *l, int code);

#endif

/*
 * server.h - one debugger's conversation: commands in, answers and stops out (GDB manual, appendix
 * E).
 *
 * Theory of operation. All-stop: while the debugger talks the whole machine stands; `c`, `s` or
 * vCont let it run, and from then on nothing is said until it stops again. vCPUs are threads,
 * numbered from 1. Everything runs on the main loop's thread; the caller moves the bytes
 * (listener.c does), so that tests and the fuzzer can.
 *
 * The peer is not trusted: what it says is bounded by the packet, and no answer needs more memory
 * than the structure has. What it may do is all that a debugger may: anything to the guest, nothing
 * to the monitor.
 */
#ifndef VMM_GDB_SERVER_H
#define VMM_GDB_SERVER_H

#include "gdb/target.h"

struct gdb_server;

enum gdb_stop_kind {
    GDB_STOP_POINT, /* .point was met */
    GDB_STOP_STEP,
    GDB_STOP_INTERRUPT, /* the debugger asked for it, or the machine's owner did */
    GDB_STOP_CRASH,     /* triple fault */
    GDB_STOP_PANIC,     /* the guest said so */
};

struct gdb_stop {
    enum gdb_stop_kind kind;
    unsigned cpu;
    struct accel_point point;
};

/* The machine is stopped; nobody is connected. -ENOMEM. */
int gdb_server_new(struct gdb_server **s, const struct gdb_target *target);
/* Does not touch the machine: gdb_server_detach() it before, unless it is gone. */
void gdb_server_free(struct gdb_server *s);
/* The connection is lost: all breakpoints go out of machine and guest memory, the machine runs on.
 */
void gdb_server_detach(struct gdb_server *s);

/* Whether the machine runs, as far as this debugger is concerned. */
bool gdb_server_is_running(const struct gdb_server *s);
/* D, k or a lost connection: the listener closes it when all output was sent. */
bool gdb_server_is_over(const struct gdb_server *s);

/* Takes at most len bytes and answers; stops taking when there is output. Returns what it took. */
size_t gdb_server_input(struct gdb_server *s, const uint8_t *data, size_t len);
/* What is to be sent; gdb_server_sent() says how much was. */
const uint8_t *gdb_server_output(const struct gdb_server *s, size_t *len);
void gdb_server_sent(struct gdb_server *s, size_t len);

/* The machine stopped by itself (all vCPUs are parked), or ended. Ignored unless it runs. */
void gdb_server_stopped(struct gdb_server *s, const struct gdb_stop *stop);
void gdb_server_exited(struct gdb_server *s, int code);

#endif

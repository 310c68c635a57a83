/* server_internal.h - the conversation's state, between the files that carry it on (server.h). */
#ifndef VMM_GDB_SERVER_INTERNAL_H
#define VMM_GDB_SERVER_INTERNAL_H

#include "gdb/memory.h"
#include "gdb/packet.h"
#include "gdb/registers.h"
#include "gdb/server.h"

/* A breakpoint of ours that lies in guest memory as INT3 (accel_ops.patches). */
struct gdb_patch {
    uint64_t gpa;
    uint8_t original;
};

struct gdb_server {
    struct gdb_target target;
    struct gdb_link link;
    struct gdb_reply reply;
    uint8_t data[GDB_PACKET_MAX]; /* memory on its way */

    bool running, over;
    bool no_ack_next; /* after the answer that agrees to it */
    bool physical;    /* m, M and X take physical addresses */
    bool tell_swbreak, tell_hwbreak;
    unsigned cpu;    /* that g, m and others are about (Hg) */
    unsigned step;   /* that s and c are about (Hc) */
    unsigned listed; /* vCPUs that qfThreadInfo and qsThreadInfo have told */
    struct gdb_stop stop;

    struct accel_point point[ACCEL_POINTS_MAX];
    struct gdb_patch patch[ACCEL_POINTS_MAX]; /* beside its point */
    unsigned points;

    struct gdb_action *action; /* of target.cpus */
    struct vcpu_state *state;  /* of state_cpu, while state_valid */
    unsigned state_cpu;
    bool state_valid;
};

/* Error answers: GDB shows the number only. Those of errno.h, as other servers do. */
void gdb_answer(struct gdb_server *s, int result); /* OK, or E and the number */

/* server_memory.c. NULL: the vCPU's state cannot be had. */
struct vcpu_state *gdb_state(struct gdb_server *s, unsigned cpu);
void gdb_read_registers(struct gdb_server *s);
void gdb_write_registers(struct gdb_server *s, struct gdb_scan *a);
void gdb_read_register(struct gdb_server *s, struct gdb_scan *a);
void gdb_write_register(struct gdb_server *s, struct gdb_scan *a);
void gdb_read_memory(struct gdb_server *s, struct gdb_scan *a, bool binary);
void gdb_write_memory(struct gdb_server *s, struct gdb_scan *a, bool binary);

/* server_points.c */
void gdb_insert_point(struct gdb_server *s, struct gdb_scan *a);
void gdb_remove_point(struct gdb_server *s, struct gdb_scan *a);
void gdb_remove_all_points(struct gdb_server *s);
/* Our INT3s are not there for the debugger: what it reads has the bytes under them, and what it
 * writes goes under them. state as for gdb_memory(). */
void gdb_hide_patches(struct gdb_server *s, const struct vcpu_state *state, uint64_t address,
                      uint8_t *data, size_t len);
void gdb_write_through_patches(struct gdb_server *s, const struct vcpu_state *state,
                               uint64_t address, uint8_t *data, size_t len);

/* server_run.c */
void gdb_continue(struct gdb_server *s, struct gdb_scan *a, bool step, bool with_signal);
void gdb_vcont(struct gdb_server *s, struct gdb_scan *a);
void gdb_detach(struct gdb_server *s);
void gdb_tell_stop(struct gdb_server *s);
/* GDB's number of a vCPU. *any: 0 or -1. False: no such thread. */
bool gdb_get_thread(const struct gdb_server *s, struct gdb_scan *a, unsigned *cpu, bool *any);

/* server_query.c */
void gdb_query(struct gdb_server *s, struct gdb_scan *a);
void gdb_set(struct gdb_server *s, struct gdb_scan *a);
void gdb_monitor(struct gdb_server *s, struct gdb_scan *a);

#endif

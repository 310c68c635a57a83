/*
 * turns.h - deterministic machines: whose turn it is, until when, and the time that passes.
 *
 * One vCPU runs at a time, TURN_NS of virtual time, then the next one in order that can run. An
 * instruction takes a nanosecond. Timers fire, and devices work (io_gate.h), between two
 * instructions of the vCPU whose turn it is; where all of them halt, time jumps to the next timer.
 * So everything that a guest sees follows from what it did before.
 *
 * All functions but turns_whose() belong to the vCPU whose turn it is.
 */
#ifndef VMM_TURNS_H
#define VMM_TURNS_H

#include "machine/clock.h"

enum { TURN_NS = 50000 };

struct turns;

int turns_new(struct turns **t, struct vm_clock *clock, struct qz_error *err);
void turns_free(struct turns *t);

unsigned turns_whose(const struct turns *t);    /* the group's lock held, or one's own */
void turns_give(struct turns *t, unsigned cpu); /* a whole turn from now; the group's lock held */
bool turns_is_over(const struct turns *t);

/* A moment at which a run ends, whoever's it is; INT64_MAX: none. */
void turns_stop_at(struct turns *t, int64_t moment);

/* Around a run of at most that many instructions: to the turn's end or the next timer. */
uint32_t turns_begin(struct turns *t);
void turns_end(struct turns *t, uint32_t executed); /* fires what is due */
/* The machine answers an access in the middle of it: its clock says what the guest's does. */
void turns_arrive(struct turns *t, uint32_t executed);
/* A timer is due before that run ends. */
bool turns_is_late(const struct turns *t);

/* To the next timer, which fires. False: there is none. */
bool turns_skip(struct turns *t);

#endif

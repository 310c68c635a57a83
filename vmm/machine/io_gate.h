/*
 * io_gate.h - deterministic machines: devices work while no vCPU does.
 *
 * A doorbell that the guest rings is held back for a fixed virtual time. Then, on the thread of the
 * vCPU whose turn it is, the devices' loops are told one after the other, each is waited for until
 * it has nothing left to do, and only then the guest goes on: how long the host took for it cannot
 * be seen. What comes from outside (typed input, packets) still enters whenever it comes.
 */
#ifndef VMM_IO_GATE_H
#define VMM_IO_GATE_H

#include <queztl/loop.h>

#include "machine/clock.h"

enum { IO_GATE_LATENCY_NS = 5000 };

struct io_gate;

int io_gate_new(struct io_gate **gate, struct vm_clock *clock, struct qz_error *err);
void io_gate_free(struct io_gate *gate);

/* The eventfd that `loop` watches is to be signalled. From that loop itself it is at once. */
void io_gate_ring(struct io_gate *gate, struct qz_loop *loop, int eventfd);
/* Returns when the loop has nothing left to do; the vCPU's thread, no lock held that the loop could
 * want. */
void io_gate_settle(struct io_gate *gate, struct qz_loop *loop);
/* The loop waits for the host (a request to a disk) and is not done before it came. Any thread;
 * gate may be NULL. */
void io_gate_begin(struct io_gate *gate);
void io_gate_end(struct io_gate *gate);

#endif

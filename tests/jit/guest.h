/*
 * guest.h - sequences on the software CPU, through struct accel_ops as a machine uses it.
 *
 * A guest with a few instructions of ring 0 and the window in user memory: it loads the registers,
 * goes to user mode, and takes the exception that ends the sequence. Between two sequences its vCPU
 * only leaves for a port access, so that translations of addresses and code stay as warm as they
 * are under a kernel.
 */
#ifndef TESTS_JIT_GUEST_H
#define TESTS_JIT_GUEST_H

#include <queztl/base.h>

#include "window.h"

struct guest;

/* interpret: without the translator. */
int guest_open(struct guest **g, bool interpret, struct qz_error *err);
void guest_close(struct guest *g);

/* The guest's memory behind a page of the window. */
uint8_t *guest_page(struct guest *g, unsigned page);
/* Code in the window was written. */
void guest_code_written(struct guest *g);

/* What instructions this guest may execute, CPU_FEATURE bits. */
uint64_t guest_features(struct guest *g);

/* -errno: the machine stopped (a triple fault); it can be used no more. */
int guest_run(struct guest *g, const struct registers *in, struct outcome *out);

#endif

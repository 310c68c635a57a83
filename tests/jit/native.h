/*
 * native.h - sequences on the host's own CPU, in a confined child with an address space of its own.
 *
 * One at a time, one thread. native_window() is the memory that the child's window shows; write the
 * code there, too.
 */
#ifndef TESTS_JIT_NATIVE_H
#define TESTS_JIT_NATIVE_H

#include <queztl/base.h>

#include "window.h"

struct native;

/* program: path of jit-native-child. */
int native_open(struct native **n, const char *program, struct qz_error *err);
void native_close(struct native *n);

uint8_t *native_window(struct native *n);

/*
 * From these registers to the next exception. VECTOR_ENDLESS: stopped after a while.
 * -errno: the child died, which native_open() cures.
 */
int native_run(struct native *n, const struct registers *in, struct outcome *out);

#endif

/*
 * step.h - how many instructions a function executes.
 */
#ifndef VBLK_STEP_H
#define VBLK_STEP_H

#include <queztl/base.h>

/* Runs f(arg) in a child, whose changes are lost, and counts. 0 where that is not possible. */
uint64_t count_steps(void (*f)(void *arg), void *arg);

#endif

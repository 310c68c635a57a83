/*
 * fpu_test_native.h - one instruction executed by the host, with all of its registers given.
 */
#ifndef VMM_JIT_FPU_TEST_NATIVE_H
#define VMM_JIT_FPU_TEST_NATIVE_H

#include <stdint.h>

/* In and out: an FXSAVE64 image, the general registers (RSP apart), RFLAGS. */
extern uint8_t native_fpu[512];
extern uint64_t native_gpr[16], native_flags;

/* Once in each test: cmocka has signal handlers of its own between them. */
void native_setup(void);
/* The vector of the exception that the instruction raised, -1 when it raised none. */
int native_run(const uint8_t *code, unsigned len);

#endif

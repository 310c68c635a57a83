/*
 * fpu_test_fake.h - the surroundings of vector and x87 instructions in unit tests: one flat piece
 * of memory whose linear addresses are host addresses, exceptions that come back as numbers, and
 * the host itself executing the same instruction for comparison.
 */
#ifndef VMM_JIT_FPU_TEST_FAKE_H
#define VMM_JIT_FPU_TEST_FAKE_H

#include "cpu/jit/fpu.h"

enum { NO_EXCEPTION = -1, FAKE_MEMORY = 8192 };

/* What instructions may access; everything else is a page fault. */
extern uint8_t *fake_memory;

struct jit_cpu *fake_cpu_new(void); /* 64-bit mode, ring 3, SSE on; free() it */
void fake_map_tlb(struct jit_cpu *cpu, bool on);
/* The exception's vector or NO_EXCEPTION. */
int fake_exec(struct jit_cpu *cpu, jit_handler *handler, const struct insn *i);
jit_handler *fake_handler(enum insn_op op);

/*
 * Executes one instruction on the host with the state of cpu, which it replaces by what the host
 * made of it, FIP, FDP, FOP apart. The vector of the exception that the host raised, or
 * NO_EXCEPTION.
 */
int native_exec(struct jit_cpu *cpu, const uint8_t *code, unsigned len);

/* Deterministic numbers, and values in which floating-point arithmetic is interesting. */
uint64_t test_random(void);
void test_random_operand(uint8_t *p, unsigned len);

#endif

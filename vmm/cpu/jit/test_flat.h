/*
 * test_flat.h - the handlers of exec.h without the rest of the software CPU: memory whose linear
 * addresses are host addresses, exceptions that come back, ports that are a function.
 *
 * The first half of the pages is plain memory and enters the TLB; the second half is never offered
 * as host memory, so that everything there takes the slow ways, as MMIO and pages with code do.
 */
#ifndef VMM_JIT_TEST_FLAT_H
#define VMM_JIT_TEST_FLAT_H

#include <setjmp.h>

#include "cpu/jit/exec.h"

enum { FLAT_PAGES = 4, FLAT_SIZE = FLAT_PAGES * 4096 };

enum { FLAT_NONE = -1 }; /* no exception */

struct flat {
    struct jit_cpu *cpu;
    uint8_t *memory; /* FLAT_SIZE, inaccessible pages on either side */
    jmp_buf unwind;
    int vector;     /* of the last instruction, or FLAT_NONE */
    uint32_t code;  /* its error code */
    int interrupt;  /* vector given to event_interrupt, or FLAT_NONE */
    bool exclusive; /* between jit_exclusive_begin and _end */
    bool io_denied;
    unsigned serves;         /* calls of jit_serve */
    struct vcpu_exit served; /* the last one */
    uint8_t port_data[512];  /* what ports read, or took last */
    unsigned
        attention_after; /* serves or memory accesses until somebody wants attention; 0: never */
};

extern struct flat flat;

void flat_open(void);
void flat_close(void);
/* 64-bit code at CPL 0 with flat segments and zeroed registers. */
void flat_reset_64(void);
/* 16- or 32-bit protected mode, all segments flat. */
void flat_reset_legacy(unsigned bits);
/* Executes i at cpu->rip with the given handler; rip moves on as the run loop does it. */
void flat_execute(jit_handler *handler, const struct insn *i);

/* The linear address of a byte of memory, and its contents. */
static inline uint64_t flat_linear(uint64_t offset)
{
    return (uintptr_t)flat.memory + offset;
}
static inline uint64_t flat_peek(uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, flat.memory + offset, size);
    return value;
}
static inline void flat_poke(uint64_t offset, uint64_t value, unsigned size)
{
    memcpy(flat.memory + offset, &value, size);
}

#endif

/*
 * stubs.h - the fixed pieces of host code that translated blocks and C meet through.
 */
#ifndef VMM_JIT_STUBS_H
#define VMM_JIT_STUBS_H

#include "cpu/jit/code_cache.h"
#include "cpu/jit/cpu.h"

#define ENV(field)   ((uint32_t)offsetof(struct jit_cpu, field))
#define ENV_GPR(reg) (ENV(gpr) + (reg)*8)

enum { STUB_SIZES = 5 }; /* 1, 2, 4, 8, 16 bytes */

struct jit_stubs {
    /* C: loads the guest's registers and jumps to code; returns when that leaves. */
    void (*enter)(struct jit_cpu *cpu, const uint8_t *code);

    /* For generated code: jumped to. Guest registers are in host registers. */
    const uint8_t *leave;        /* cpu->rip is set */
    const uint8_t *leave_stored; /* the same with the registers in memory already */
    const uint8_t *lookup;       /* r11: linear address to go to */
    const uint8_t
        *execute_end; /* r10: an instruction that ends the block, for the interpreter; leaves */

    /* For generated code: called. All change r10, r11 and the host's flags. */
    const uint8_t
        *fill[TLB_KINDS][STUB_SIZES]; /* r11: linear, r10: instruction; r11: host address or 0 */
    const uint8_t *execute;  /* r10: an instruction for the interpreter; r11: not 0 when the block
                                has to be left */
    const uint8_t *fpu_need; /* xmm and MXCSR are loaded afterwards; r10 and r11 stay */
};

void jit_stubs_emit(struct jit_stubs *s, struct emitter *e);

/* Host register of a guest register, or HOST_NONE for those that live in memory. */
enum { HOST_NONE = 0xff };
extern const uint8_t jit_host_register[16];

#endif

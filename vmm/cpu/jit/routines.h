/*
 * routines.h - the fixed pieces of host code that translated blocks and C meet through.
 */
#ifndef VMM_JIT_ROUTINES_H
#define VMM_JIT_ROUTINES_H

#include "cpu/jit/code_cache.h"
#include "cpu/jit/cpu.h"

#define ENV(field)   ((uint32_t)offsetof(struct jit_cpu, field))
#define ENV_GPR(reg) (ENV(gpr) + (reg)*8)

enum { ROUTINE_SIZES = 5 }; /* 1, 2, 4, 8, 16 bytes */

/* An instruction by its place: offset in the page, length. */
#define INSN_AT(offset, len) ((offset) | (unsigned)(len) << 16)
#define INSN_AT_OFFSET(at)   ((at)&0xffff)
#define INSN_AT_LEN(at)      ((at) >> 16)

struct jit_routines {
    /* C: loads the guest's registers and jumps to code; returns when that leaves. */
    void (*enter)(struct jit_cpu *cpu, const uint8_t *code);

    /* For generated code: jumped to. Guest registers are in host registers. */
    const uint8_t *leave;         /* cpu->rip is set */
    const uint8_t *leave_stored;  /* the same with the registers in memory already */
    const uint8_t *lookup_missed; /* r11: linear address to go to, xor jump_key */
    /* The interpreter executes the instruction that ends the block (r10: it, or INSN_AT); leaves.
     */
    const uint8_t *execute_end, *execute_at_end;

    /* For generated code: called. All change r10, r11 and the host's flags. */
    const uint8_t *fill[TLB_KINDS][ROUTINE_SIZES]; /* r11: linear, r10: offset of the instruction;
                                                   r11: host address or 0 */
    /* The interpreter executes an instruction (r10: it, or INSN_AT); r11: not 0 when the block has
     * to be left. */
    const uint8_t *execute, *execute_at;
    /* xmm and MXCSR are loaded afterwards, or all of them; r10 and r11 stay. */
    const uint8_t *fpu_need, *x87_need;
};

void jit_routines_emit(struct jit_routines *s, struct emitter *e);

/* Host register of a guest register, or HOST_NONE for those that live in memory. */
enum { HOST_NONE = 0xff };
extern const uint8_t jit_host_register[16];

#endif

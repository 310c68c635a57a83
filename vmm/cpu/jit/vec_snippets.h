/*
 * vec_snippets.h - the host's own vector and x87 instructions as callable code, assembled at build
 * time.
 *
 * The interpreter must work where no memory can be made executable, so every instruction of vec_ops
 * and every x87 instruction exists once (imm8 instructions 256 times) with fixed operands, followed
 * by RET: vec_snippets_gen.c prints them, vec_run.S calls them. Snippets of instructions that the
 * host lacks exist too and are never reached: what is called was decoded under the guest's CPUID,
 * which offers nothing that the host has not.
 *
 * Operands of vector snippets: reg is register 1 (xmm1, mm1, rcx), rm is register 2 (xmm2, mm2,
 * rdx) or memory at [rdi]; implicit operands are where the architecture has them. Memory operands
 * of x87 snippets are at [rdi].
 */
#ifndef VMM_JIT_VEC_SNIPPETS_H
#define VMM_JIT_VEC_SNIPPETS_H

#include "cpu/jit/cpu.h"

enum { VEC_SNIPPET_SIZE = 8, X87_SNIPPET_SIZE = 4 };

/* Forms of an instruction, each with 1 or 256 snippets. W: with REX.W. */
enum vec_form { VEC_FORM_REG, VEC_FORM_REG_W, VEC_FORM_MEM, VEC_FORM_MEM_W, VEC_FORMS };

#define VEC_NO_SNIPPET UINT32_MAX

extern const uint8_t vec_snippet_code[];
extern const uint32_t vec_snippet_slot[]
                                      [VEC_FORMS]; /* by index into vec_ops: number of the first */
extern const uint8_t x87_snippet_reg[];            /* (opcode & 7) * 64 + (modrm & 63) */
extern const uint8_t x87_snippet_mem[];            /* (opcode & 7) * 8 + modrm.reg */

/* What a snippet finds in the registers and leaves there. */
struct vec_frame {
    uint8_t xmm[3][16];
    uint64_t mm[2]; /* mm1, mm2 */
    uint64_t rax, rcx, rdx;
    uint64_t rflags; /* out */
    uint32_t mxcsr;  /* in and out, for vec_run_fp and vec_run_mmx */
} __attribute__((aligned(16)));

/*
 * Run one snippet; mem is what its memory operand is, NULL for register forms. MXCSR must have all
 * exceptions masked. MXCSR and the x87 tag word of the host are as before (empty) afterwards.
 */
/* xmm1 and xmm2 only; what xmm1 (or xmm2) became is stored, the other stays. */
void vec_run_reg(const void *snippet, void *xmm1, const void *xmm2, void *mem);
void vec_run_rm(const void *snippet, const void *xmm1, void *xmm2, void *mem);
void vec_run_frame(const void *snippet, struct vec_frame *f, void *mem); /* no MXCSR, no MMX */
void vec_run_fp(const void *snippet, struct vec_frame *f, void *mem);
void vec_run_mmx(const void *snippet, struct vec_frame *f, void *mem);

/*
 * Loads `in`, runs the snippet, stores `out` (which may be the same; FIP, FDP and FOP come out as
 * the host's). Unmasked exceptions do not trap: an x87 instruction only notes them, the next
 * waiting one would raise #MF (SDM vol 1 §8.7), and there is none before the state is reset. For
 * the same reason `in` must have no exception pending (FSW.ES clear). The _flags form has the
 * arithmetic flags in *flags before and after.
 */
void x87_run(const void *snippet, const struct jit_fpu *in, struct jit_fpu *out, void *mem);
void x87_run_flags(const void *snippet, const struct jit_fpu *in, struct jit_fpu *out,
                   uint64_t *flags);

#endif

/*
 * fpu.h - the state of x87, MMX and SSE between instructions.
 *
 * struct jit_fpu always holds what a CPU could hold: reserved bits of the control words are clear,
 * FSW.ES and FSW.B say whether an unmasked exception is pending. Everything that comes from outside
 * (guest memory, snapshots) goes through fpu_set_image(), so that the host may load it without
 * looking again.
 */
#ifndef VMM_JIT_FPU_H
#define VMM_JIT_FPU_H

#include "cpu/jit/exec.h"

enum {
    FSW_EXCEPTIONS = 0x3f, /* IE DE ZE OE UE PE, the mask bits of FCW in the same place */
    FSW_PE = 1 << 5,
    FSW_SF = 1 << 6,
    FSW_ES = 1 << 7,
    FSW_TOP_SHIFT = 11,
    FSW_TOP = 7 << FSW_TOP_SHIFT,
    FSW_B = 1 << 15,
    FCW_SETTABLE = 0x1f3f,
    FCW_ONES = 0x0040, /* reads as one (SDM vol 1 §8.1.5) */
    FCW_INIT = 0x037f,
};

enum {
    MXCSR_EXCEPTIONS = 0x3f,
    MXCSR_IE = 1 << 0,
    MXCSR_DE = 1 << 1,
    MXCSR_ZE = 1 << 2,
    MXCSR_OE = 1 << 3,
    MXCSR_UE = 1 << 4,
    MXCSR_PE = 1 << 5,
    MXCSR_MASK_SHIFT = 7,
    MXCSR_MASKS = MXCSR_EXCEPTIONS << MXCSR_MASK_SHIFT,
    MXCSR_FTZ = 1 << 15,
    MXCSR_INIT = 0x1f80,
    MXCSR_VALID = 0xffff, /* MXCSR_MASK of the guest: DAZ is there, what lies above is not */
};

enum { FPU_IMAGE_SIZE = 512, FPU_IMAGE_BYTES_32 = 288, FPU_IMAGE_BYTES_64 = 416 };

static inline unsigned fpu_top(const struct jit_fpu *f)
{
    return f->fsw >> FSW_TOP_SHIFT & 7;
}

/* Changes TOP and leaves every register where it physically is. */
void fpu_set_top(struct jit_fpu *f, unsigned top);
/* After FCW or the flags of FSW were loaded: ES and B follow from them. */
void fpu_update_summary(struct jit_fpu *f);
void fpu_set_fcw(struct jit_fpu *f, uint16_t fcw);
void fpu_init(struct jit_fpu *f); /* FNINIT */
/* As any MMX instruction but EMMS does: TOP 0, all registers valid (SDM vol 1 §9.5.1). */
void fpu_enter_mmx(struct jit_fpu *f);
/* MMX register n as it is before and after fpu_enter_mmx(). */
static inline uint8_t *fpu_mmx(struct jit_fpu *f, unsigned n)
{
    return f->st[(n - fpu_top(f)) & 7];
}

/*
 * The state from a 512-byte FXSAVE64 image: x87 (with MMX), SSE registers and MXCSR. Whatever the
 * bytes are, the result is valid.
 */
enum { FPU_PART_X87 = 1, FPU_PART_SSE = 2, FPU_PART_MXCSR = 4, FPU_PART_ALL = 7 };
void fpu_set_image(struct jit_fpu *f, const uint8_t image[FPU_IMAGE_SIZE], unsigned parts);
/* The image of the state, reserved bytes zero. */
void fpu_get_image(const struct jit_fpu *f, struct jit_fpu *image);

/* #NM where x87 instructions raise it, and #MF when `waiting` and an exception is pending. */
void fpu_check_x87(struct jit_cpu *cpu, bool waiting);
/* #UD and #NM as MMX (sse false) and SSE instructions raise them. */
void fpu_check_sse(struct jit_cpu *cpu, bool sse);
/* #MF when an x87 exception is pending. */
void fpu_check_pending(struct jit_cpu *cpu);

/* Handlers, for the table in exec_x87.c. */
jit_handler fpu_fxsave, fpu_fxrstor, fpu_ldmxcsr, fpu_stmxcsr, fpu_emms;
jit_handler fpu_xsave, fpu_xrstor;

/* x87 environment (x87_env.c): FNSTENV, FNSAVE, FLDENV, FRSTOR in the layout of the operand size
 * and mode. */
void x87_store_env(struct jit_cpu *cpu, const struct insn *i, bool registers);
void x87_load_env(struct jit_cpu *cpu, const struct insn *i, bool registers);

#endif

/*
 * fpu_xsave.c - XSAVE, XSAVEOPT, XRSTOR with the components x87 and SSE (SDM vol 1 chapter 13).
 *
 * Both components always count as in use: XSAVE writes every one that is asked for, and XSAVEOPT is
 * XSAVE (its optimisations may be left out, vol 1 §13.9). Only the standard form exists; XSAVEC and
 * XSAVES are not offered.
 */
#include "cpu/jit/fpu.h"

enum { XCR0_X87 = 1, XCR0_SSE = 2 };
enum { XSAVE_SIZE = 576, HEADER_AT = 512, X87_BYTES = 24, MXCSR_AT = 24, ST_AT = 32, XMM_AT = 160 };

struct xsave_header {
    uint64_t xstate_bv, xcomp_bv, reserved[6];
};

static uint64_t area(struct jit_cpu *cpu, const struct insn *i, bool write)
{
    uint64_t linear;

    if (!(cpu->cr4 & CR4_OSXSAVE))
        jit_raise(cpu, VECTOR_UD);
    if (cpu->cr0 & CR0_TS)
        jit_raise(cpu, VECTOR_NM);
    linear = jit_operand_linear(cpu, i, XSAVE_SIZE, write);
    if (linear & 63)
        jit_raise_code(cpu, VECTOR_GP, 0);
    return linear;
}

/* The requested-feature bitmap: EDX:EAX and XCR0. */
static uint64_t requested(const struct jit_cpu *cpu)
{
    return cpu->xcr0 & ((uint64_t)(uint32_t)cpu->gpr[RDX] << 32 | (uint32_t)cpu->gpr[RAX]);
}

static unsigned xmm_bytes(const struct jit_cpu *cpu)
{
    return cpu->code_width == CODE_64 ? sizeof(cpu->fpu.xmm) : sizeof(cpu->fpu.xmm) / 2;
}

void fpu_xsave(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = area(cpu, i, true), rfbm = requested(cpu), bv;
    struct jit_fpu image;

    mmu_probe(cpu, linear, XSAVE_SIZE, true);
    bv = mmu_load(cpu, linear + HEADER_AT, 8);
    fpu_get_image(&cpu->fpu, &image);
    if (!(i->prefix & PREFIX_REX_W)) {
        image.fip = (uint32_t)image.fip;
        image.fdp = (uint32_t)image.fdp;
    }
    if (rfbm & XCR0_X87) {
        mmu_store_bytes(cpu, linear, &image, X87_BYTES);
        mmu_store_bytes(cpu, linear + ST_AT, image.st, sizeof(image.st));
    }
    if (rfbm & XCR0_SSE) {
        mmu_store_bytes(cpu, linear + MXCSR_AT, &image.mxcsr, 8); /* and MXCSR_MASK */
        mmu_store_bytes(cpu, linear + XMM_AT, image.xmm, xmm_bytes(cpu));
    }
    mmu_store(cpu, linear + HEADER_AT, 8, bv | rfbm);
}

/* A component that XSTATE_BV does not have gets its initial configuration (vol 1 §13.6). */
static void restore_x87(struct jit_cpu *cpu, const struct jit_fpu *image, bool present)
{
    if (present) {
        fpu_set_image(&cpu->fpu, (const uint8_t *)image, FPU_PART_X87);
        return;
    }
    fpu_init(&cpu->fpu);
    memset(cpu->fpu.st, 0, sizeof(cpu->fpu.st));
}

static void restore_xmm(struct jit_cpu *cpu, const struct jit_fpu *image, bool present)
{
    if (present)
        memcpy(cpu->fpu.xmm, image->xmm, xmm_bytes(cpu));
    else
        memset(cpu->fpu.xmm, 0, xmm_bytes(cpu));
}

void fpu_xrstor(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = area(cpu, i, false), rfbm = requested(cpu);
    struct xsave_header header;
    struct jit_fpu image;

    mmu_load_bytes(cpu, linear, &image, sizeof(image));
    mmu_load_bytes(cpu, linear + HEADER_AT, &header, sizeof(header));
    /* bytes 23:8 of the header are zero in the standard form (vol 1 §13.8) */
    if ((header.xstate_bv & ~cpu->xcr0) || header.xcomp_bv || header.reserved[0])
        jit_raise_code(cpu, VECTOR_GP, 0);
    /* MXCSR comes from memory whatever XSTATE_BV says */
    if ((rfbm & XCR0_SSE) && (image.mxcsr & ~MXCSR_VALID))
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (!(i->prefix & PREFIX_REX_W)) {
        image.fip = (uint32_t)image.fip;
        image.fdp = (uint32_t)image.fdp;
    }
    if (rfbm & XCR0_X87)
        restore_x87(cpu, &image, header.xstate_bv & XCR0_X87);
    if (rfbm & XCR0_SSE) {
        restore_xmm(cpu, &image, header.xstate_bv & XCR0_SSE);
        cpu->fpu.mxcsr = image.mxcsr;
    }
}

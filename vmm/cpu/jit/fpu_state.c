/*
 * fpu_state.c - x87, MMX and SSE state as a whole: what changes it at once, saves and restores it.
 */
#include "cpu/jit/fpu.h"

_Static_assert(sizeof(struct jit_fpu) == FPU_IMAGE_SIZE, "the layout of FXSAVE64");

void fpu_set_top(struct jit_fpu *f, unsigned top)
{
    unsigned by = (top - fpu_top(f)) & 7;
    uint8_t old[8][16];

    if (!by)
        return;
    memcpy(old, f->st, sizeof(old));
    for (unsigned n = 0; n < 8; n++)
        memcpy(f->st[n], old[(n + by) & 7], sizeof(old[0]));
    f->fsw = (f->fsw & ~FSW_TOP) | top << FSW_TOP_SHIFT;
}

void fpu_update_summary(struct jit_fpu *f)
{
    f->fsw &= ~(FSW_ES | FSW_B);
    if (f->fsw & ~f->fcw & FSW_EXCEPTIONS)
        f->fsw |= FSW_ES | FSW_B;
}

void fpu_set_fcw(struct jit_fpu *f, uint16_t fcw)
{
    f->fcw = (fcw & FCW_SETTABLE) | FCW_ONES;
    fpu_update_summary(f);
}

void fpu_init(struct jit_fpu *f)
{
    fpu_set_top(f, 0);
    f->fcw = FCW_INIT;
    f->fsw = 0;
    f->ftw_abridged = 0;
    f->fop = 0;
    f->fip = f->fdp = 0;
}

void fpu_enter_mmx(struct jit_fpu *f)
{
    fpu_set_top(f, 0);
    f->ftw_abridged = 0xff;
}

void fpu_set_image(struct jit_fpu *f, const uint8_t image[FPU_IMAGE_SIZE], unsigned parts)
{
    struct jit_fpu from;

    memcpy(&from, image, sizeof(from));
    if (parts & FPU_PART_X87) {
        f->fcw = from.fcw;
        f->fsw = from.fsw;
        f->ftw_abridged = from.ftw_abridged;
        f->fop = from.fop & 0x7ff;
        f->fip = from.fip;
        f->fdp = from.fdp;
        for (unsigned n = 0; n < 8; n++) {
            memset(f->st[n], 0, sizeof(f->st[n]));
            memcpy(f->st[n], from.st[n], 10);
        }
        fpu_set_fcw(f, f->fcw);
    }
    if (parts & FPU_PART_SSE)
        memcpy(f->xmm, from.xmm, sizeof(f->xmm));
    if (parts & FPU_PART_MXCSR)
        f->mxcsr = from.mxcsr & MXCSR_VALID;
    f->mxcsr_mask = MXCSR_VALID;
}

void fpu_get_image(const struct jit_fpu *f, struct jit_fpu *image)
{
    *image = *f;
    image->reserved0 = 0;
    image->mxcsr_mask = MXCSR_VALID;
    memset(image->reserved1, 0, sizeof(image->reserved1));
}

void fpu_check_x87(struct jit_cpu *cpu, bool waiting)
{
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        jit_raise(cpu, VECTOR_NM);
    if (waiting)
        fpu_check_pending(cpu);
}

/*
 * With CR0.NE clear a PC would raise IRQ 13 through FERR# instead; no guest of this machine relies
 * on that (its chipset has no FERR# logic), so the exception is always #MF.
 */
void fpu_check_pending(struct jit_cpu *cpu)
{
    if (cpu->fpu.fsw & FSW_ES)
        jit_raise(cpu, VECTOR_MF);
}

/* SDM vol 3 §2.5 (EM, TS) and vol 2 table 2-18 and following. */
void fpu_check_sse(struct jit_cpu *cpu, bool sse)
{
    if ((cpu->cr0 & CR0_EM) || (sse && !(cpu->cr4 & CR4_OSFXSR)))
        jit_raise(cpu, VECTOR_UD);
    if (cpu->cr0 & CR0_TS)
        jit_raise(cpu, VECTOR_NM);
}

/* --- FXSAVE, FXRSTOR (SDM vol 2) --- */

/* EM raises #UD here, not #NM. CR4.OSFXSR clear does not keep the SSE registers out of the image.
 */
static uint64_t image_operand(struct jit_cpu *cpu, const struct insn *i, bool write)
{
    uint64_t linear;

    fpu_check_sse(cpu, false);
    linear = jit_operand_linear(cpu, i, FPU_IMAGE_SIZE, write);
    if (linear & 15)
        jit_raise_code(cpu, VECTOR_GP, 0);
    return linear;
}

/* The layout without REX.W has 32-bit pointers with selectors, which this CPU deprecates: zero. */
static void narrow_pointers(const struct insn *i, struct jit_fpu *image)
{
    if (i->prefix & PREFIX_REX_W)
        return;
    image->fip = (uint32_t)image->fip;
    image->fdp = (uint32_t)image->fdp;
}

void fpu_fxsave(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = image_operand(cpu, i, true);
    struct jit_fpu image;

    fpu_get_image(&cpu->fpu, &image);
    narrow_pointers(i, &image);
    mmu_probe(cpu, linear, FPU_IMAGE_SIZE, true);
    /* bytes 416 to 511 belong to software; XMM8 to XMM15 are 64-bit mode's */
    mmu_store_bytes(cpu, linear, &image,
                    cpu->code_width == CODE_64 ? FPU_IMAGE_BYTES_64 : FPU_IMAGE_BYTES_32);
}

void fpu_fxrstor(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = image_operand(cpu, i, false);
    struct jit_fpu image;

    mmu_load_bytes(cpu, linear, &image, sizeof(image));
    if (image.mxcsr & ~MXCSR_VALID)
        jit_raise_code(cpu, VECTOR_GP, 0);
    narrow_pointers(i, &image);
    if (cpu->code_width != CODE_64)
        memcpy(image.xmm[8], cpu->fpu.xmm[8], sizeof(image.xmm) / 2);
    fpu_set_image(&cpu->fpu, (const uint8_t *)&image, FPU_PART_ALL);
}

/* --- MXCSR, EMMS --- */

void fpu_ldmxcsr(struct jit_cpu *cpu, const struct insn *i)
{
    uint32_t value;

    fpu_check_sse(cpu, true);
    value = mmu_load(cpu, jit_operand_linear(cpu, i, 4, false), 4);
    if (value & ~MXCSR_VALID)
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->fpu.mxcsr = value;
}

void fpu_stmxcsr(struct jit_cpu *cpu, const struct insn *i)
{
    fpu_check_sse(cpu, true);
    mmu_store(cpu, jit_operand_linear(cpu, i, 4, true), 4, cpu->fpu.mxcsr);
}

/* SDM vol 3 table 13-1: all registers empty, TOP 0. */
void fpu_emms(struct jit_cpu *cpu, const struct insn *i)
{
    fpu_check_sse(cpu, false);
    fpu_check_pending(cpu);
    fpu_set_top(&cpu->fpu, 0);
    cpu->fpu.ftw_abridged = 0;
}

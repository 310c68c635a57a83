/*
 * vec_fp.c - SIMD floating-point exceptions.
 *
 * Snippets run with all exceptions masked; the sticky flags tell what was raised. Two things differ
 * when an exception is not masked: those of the operands (invalid, denormal, divide by zero) keep
 * those of the result from being found, and every tiny result underflows, not only inexact ones.
 *
 * With an unmasked overflow or underflow, hardware sets PE only when the result would be inexact
 * with an unbounded exponent too; here PE is set when the masked result is inexact. A handler of
 * #XM has the operands and need not tell a result by it.
 */
#include "cpu/jit/vec_fp.h"

#include "cpu/jit/fpu.h"

enum { DPPS = 0x40, DPPD = 0x41 };

static bool tiny_singles(const uint8_t *p, unsigned lanes)
{
    for (unsigned n = 0; n < lanes; n++) {
        uint32_t v;

        memcpy(&v, p + 4 * n, 4);
        if (!(v & 0x7f800000) && (v & 0x007fffff))
            return true;
    }
    return false;
}

static bool tiny_doubles(const uint8_t *p, unsigned lanes)
{
    for (unsigned n = 0; n < lanes; n++) {
        uint64_t v;

        memcpy(&v, p + 8 * n, 8);
        if (!(v >> 52 & 0x7ff) && (v << 12))
            return true;
    }
    return false;
}

/*
 * An unmasked underflow is raised for every tiny result, a masked one only for those that are also
 * inexact (SDM vol 1 §4.9.1.5): the snippet's flags do not tell of the exact ones, the result does.
 */
static bool result_is_tiny(const struct vec_op *op, const uint8_t *result)
{
    bool scalar = op->prefix == VEC_PREFIX_F3 || op->prefix == VEC_PREFIX_F2;

    if (op->map != 1)
        return false;
    switch (op->opcode) {
    case 0x58: /* ADD, MUL, SUB, DIV */
    case 0x59:
    case 0x5c:
    case 0x5e:
        return op->prefix == VEC_PREFIX_NONE || op->prefix == VEC_PREFIX_F3
                   ? tiny_singles(result, scalar ? 1 : 4)
                   : tiny_doubles(result, scalar ? 1 : 2);
    case 0x5a: /* CVTPD2PS, CVTSD2SS */
        return (op->prefix == VEC_PREFIX_66 || op->prefix == VEC_PREFIX_F2) &&
               tiny_singles(result, scalar ? 1 : 2);
    case 0x7c: /* HADD, HSUB, ADDSUB: F2 is packed single */
    case 0x7d:
    case 0xd0:
        return scalar ? tiny_singles(result, 4) : tiny_doubles(result, 2);
    default:
        return false;
    }
}

/* Flush-to-zero counts only while underflow is masked (SDM vol 1 §10.2.3.3). */
uint32_t vec_fp_mxcsr(uint32_t guest)
{
    uint32_t run = (guest & MXCSR_VALID & ~MXCSR_EXCEPTIONS) | MXCSR_MASKS;

    return guest & MXCSR_UE << MXCSR_MASK_SHIFT ? run : run & ~MXCSR_FTZ;
}

uint32_t vec_fp_unmasked(uint32_t guest, uint32_t raised)
{
    return raised & ~(guest >> MXCSR_MASK_SHIFT) & MXCSR_EXCEPTIONS;
}

uint32_t vec_fp_raised(const struct vec_op *op, uint32_t guest, const struct vec_frame *f)
{
    const uint32_t operands = MXCSR_IE | MXCSR_DE | MXCSR_ZE;
    uint32_t raised = f->mxcsr & MXCSR_EXCEPTIONS;

    if (vec_fp_unmasked(guest, MXCSR_UE) && result_is_tiny(op, f->xmm[1]))
        raised |= MXCSR_UE;
    return vec_fp_unmasked(guest, raised & operands) ? raised & operands : raised;
}

bool vec_fp_has_stages(const struct vec_op *op)
{
    return op->map == 3 && (op->opcode == DPPS || op->opcode == DPPD);
}

/* One step: xmm1 := xmm1 op xmm2 of the frame. False when it ends the instruction. */
static bool step(struct vec_frame *f, unsigned prefix, uint8_t opcode, uint32_t guest,
                 uint32_t *raised)
{
    unsigned index = vec_find(1, prefix, opcode, 0xca);
    uint32_t slot = vec_snippet_slot[index][VEC_FORM_REG];

    f->mxcsr = vec_fp_mxcsr(guest);
    vec_run_fp(vec_snippet_code + (size_t)VEC_SNIPPET_SIZE * slot, f, NULL);
    *raised |= vec_fp_raised(&vec_ops[index], guest, f);
    memcpy(f->xmm[2], f->xmm[1], 16);
    return !vec_fp_unmasked(guest, *raised);
}

uint32_t vec_fp_staged(const struct vec_op *op, uint8_t imm, uint32_t guest, const uint8_t reg[16],
                       const uint8_t rm[16])
{
    bool singles = op->opcode == DPPS;
    unsigned width = singles ? 4 : 8;
    struct vec_frame f = {0};
    uint32_t raised = 0;

    for (unsigned n = 0; n < 16 / width; n++) {
        if (!(imm >> (4 + n) & 1))
            continue; /* not multiplied: its product is zero */
        memcpy(f.xmm[1] + n * width, reg + n * width, width);
        memcpy(f.xmm[2] + n * width, rm + n * width, width);
    }
    if (step(&f, singles ? VEC_PREFIX_NONE : VEC_PREFIX_66, 0x59, guest, &raised) && /* MUL */
        step(&f, singles ? VEC_PREFIX_F2 : VEC_PREFIX_66, 0x7c, guest, &raised) &&   /* HADD */
        singles)
        step(&f, VEC_PREFIX_F2, 0x7c, guest, &raised);
    return raised;
}

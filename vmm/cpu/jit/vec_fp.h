/*
 * vec_fp.h - SIMD floating-point exceptions: what an instruction would have raised, found without
 * letting the host raise it (SDM vol 1 §11.5).
 */
#ifndef VMM_JIT_VEC_FP_H
#define VMM_JIT_VEC_FP_H

#include "cpu/jit/vec.h"
#include "cpu/jit/vec_snippets.h"

/* The host's MXCSR for a snippet: the guest's, all exceptions masked and none raised yet. */
uint32_t vec_fp_mxcsr(uint32_t guest);

/* The exceptions that the snippet which left this frame would have raised with the guest's masks.
 */
uint32_t vec_fp_raised(const struct vec_op *op, uint32_t guest, const struct vec_frame *f);
/* Those of them that are not masked. */
uint32_t vec_fp_unmasked(uint32_t guest, uint32_t raised);

/*
 * DPPS and DPPD multiply and then add; an unmasked exception ends them at the step that raises it.
 * The same as vec_fp_raised() for these two, from the operands.
 */
bool vec_fp_has_stages(const struct vec_op *op);
uint32_t vec_fp_staged(const struct vec_op *op, uint8_t imm, uint32_t guest, const uint8_t reg[16],
                       const uint8_t rm[16]);

#endif

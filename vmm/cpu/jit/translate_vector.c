/*
 * translate_vector.c - SSE and its family: copied, with general registers and memory operands
 * patched.
 */
#include "cpu/jit/translate_internal.h"
#include "cpu/jit/vec.h"

unsigned vector_memory_size(const struct insn *i)
{
    const struct vec_op *v = &vec_ops[i->vec];

    return (i->prefix & PREFIX_REX_W) && v->mem_size_w ? v->mem_size_w : v->mem_size;
}

/* MMX shares its registers with the x87 stack, which stays in memory: the interpreter's. */
bool is_native_vector(const struct insn *i)
{
    const struct vec_op *v;
    unsigned size;

    if (i->op != OP_VEC || (i->prefix & PREFIX_VEX))
        return false;
    v = &vec_ops[i->vec];
    if (v->reg == VEC_OPERAND_MMX || (!i->mem && v->rm == VEC_OPERAND_MMX) ||
        (v->implicit & VEC_IMPLICIT_RDI))
        return false;
    if (!i->mem)
        return true;
    size = vector_memory_size(i);
    return address_emittable(i) && size && size <= 16 && (size & (size - 1)) == 0;
}

static unsigned vector_operand(struct translation *x, enum vec_operand kind, unsigned guest,
                               unsigned scratch)
{
    return kind == VEC_OPERAND_GPR ? use_register(x, guest, scratch) : guest;
}

bool translate_vector(struct translation *x, const struct insn *i)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
    const struct vec_op *v = &vec_ops[i->vec];
    struct emitter *e = &x->e;
    const struct opcode o = {.size = i->prefix & PREFIX_REX_W ? 8 : 4,
                             .prefix = prefixes[v->prefix],
                             .map = v->map,
                             .byte = v->opcode};
    unsigned reg, rm;
    int32_t disp = 0;

    if (!is_native_vector(i))
        return false;
    if (i->mem)
        emit_operand(x, i, v->store ? TLB_WRITE : TLB_READ, vector_memory_size(i), v->aligned,
                     &disp);
    flags_for(x, i);
    reg = v->group >= 0 ? (unsigned)v->group : vector_operand(x, v->reg, i->reg, H_R10);
    rm = i->mem ? H_R11 : vector_operand(x, v->rm, i->rm, H_R11);
    if (i->mem) {
        emit_rmx(e, o, reg, H_R11, HOST_NONE, 0, disp);
    } else {
        emit_opcode(e, o, reg, 0, rm, false);
        emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
    }
    if (v->imm8)
        emit8(e, i->imm);
    if (v->reg == VEC_OPERAND_GPR && v->reg_written)
        put_register(x, i->reg, reg);
    if (!i->mem && v->rm == VEC_OPERAND_GPR && v->store)
        put_register(x, i->rm, rm);
    flags_after(x, i);
    return true;
}

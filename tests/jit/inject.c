/*
 * inject.c - bugs for the translator, one at a time: the comparison has to find each.
 *
 * The linker puts these functions in the place of the translator's own (--wrap, in meson.build for
 * the one program that needs them). QZ_INJECT names the bug, one of those in injected.c; without it
 * nothing is changed.
 */
#include "cpu/jit/translate_internal.h"

static bool injected(const char *name)
{
    static const char *wanted;
    static bool asked;

    if (!asked) {
        wanted = getenv("QZ_INJECT");
        asked = true;
    }
    return wanted && !strcmp(wanted, name);
}

#define REPLACE(type, name, ...)                                                                   \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

/* ---- flags */

REPLACE(void, insn_flags_live, const struct insn *i, unsigned count, uint16_t at_end,
        uint16_t *live)
{
    __real_insn_flags_live(i, count, at_end, live);
    for (unsigned k = 0; injected("liveness") && k < count; k++)
        live[k] &= ~FLAG_CF;
}

REPLACE(void, flags_save, struct translation *x)
{
    if (!injected("flags-save"))
        __real_flags_save(x);
}

REPLACE(void, flags_for, struct translation *x, const struct insn *i)
{
    if (!injected("flags-load") || (i->op != OP_ADC && i->op != OP_SBB))
        __real_flags_for(x, i);
}

/* ---- registers and memory */

REPLACE(void, put_register, struct translation *x, unsigned guest, unsigned host)
{
    if (!injected("put-register") || guest != R10)
        __real_put_register(x, guest, host);
}

REPLACE(unsigned, use_register, struct translation *x, unsigned guest, unsigned scratch)
{
    return __real_use_register(x, injected("use-register") && guest == R11 ? R10 : guest, scratch);
}

REPLACE(bool, emit_address, struct translation *x, const struct insn *i, bool with_segment)
{
    return __real_emit_address(x, i, with_segment && !injected("segment"));
}

REPLACE(void, emit_access, struct translation *x, unsigned access, unsigned size)
{
    if (injected("access-size"))
        size = 1;
    if (injected("access-kind"))
        access = TLB_READ;
    __real_emit_access(x, access, size);
}

REPLACE(void, emit_alignment_check, struct translation *x)
{
    if (!injected("alignment"))
        __real_emit_alignment_check(x);
}

REPLACE(void, emit_access_row, struct translation *x, unsigned access, unsigned bytes, unsigned row)
{
    if (injected("row-size"))
        bytes = 1;
    if (injected("row-kind"))
        access = TLB_READ;
    __real_emit_access_row(x, access, bytes, row);
}

REPLACE(void, emit_access_read_row, struct translation *x, unsigned bytes, unsigned size,
        unsigned lead, unsigned row)
{
    if (injected("row-size"))
        bytes = 1;
    if (injected("row-lead"))
        lead += 4;
    __real_emit_access_read_row(x, bytes, size, lead, row);
}

REPLACE(bool, emit_operand, struct translation *x, const struct insn *i, unsigned access,
        unsigned size, bool aligned, int32_t *disp)
{
    const bool emitted = __real_emit_operand(x, i, access, size, aligned, disp);

    if (injected("row-place") && x->in_row && *disp)
        *disp += 8;
    return emitted;
}

REPLACE(void, emit_row_alignment_check, struct translation *x, unsigned offset, unsigned row)
{
    if (!injected("row-alignment"))
        __real_emit_row_alignment_check(x, offset, row);
}

REPLACE(void, emit_canonical_check, struct translation *x)
{
    if (!injected("canonical"))
        __real_emit_canonical_check(x);
}

/* ---- instructions */

REPLACE(bool, translate_flow, struct translation *x, const struct insn *i)
{
    struct insn other = *i;

    if (injected("condition") && i->op == OP_JCC)
        other.cond ^= 1;
    if (injected("distance") && i->form == FORM_REL)
        other.imm++;
    if (injected("return") && i->op == OP_RET) {
        other.form = FORM_IMM;
        other.imm += 8;
    }
    return __real_translate_flow(x, &other);
}

REPLACE(bool, translate_integer, struct translation *x, const struct insn *i)
{
    struct insn other = *i;

    if (injected("immediate") && i->op == OP_ADD && i->form == FORM_RM_IMM)
        other.imm++;
    if (injected("operation") && i->op == OP_SBB)
        other.op = OP_SUB;
    if (injected("high-byte") && !i->mem && i->rm == REG_AH + RCX)
        other.rm = REG_AH;
    return __real_translate_integer(x, &other);
}

REPLACE(bool, translate_stack, struct translation *x, const struct insn *i)
{
    struct insn other = *i;

    if (injected("stack") && !i->mem)
        other.rm ^= 1;
    return __real_translate_stack(x, &other);
}

REPLACE(bool, translate_vector, struct translation *x, const struct insn *i)
{
    struct insn other = *i;

    if (injected("vector") && i->op == OP_VEC)
        other.reg ^= 1;
    return __real_translate_vector(x, &other);
}

/* ---- code that is no longer true */

REPLACE(bool, blocks_written, struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    return injected("stale-code") ? false : __real_blocks_written(vm, gpa, len);
}

REPLACE(void, jump_cache_flush, struct jit_cpu *cpu)
{
    if (!injected("jump-cache") || !cpu->jump_generation[0]) /* the first one makes it valid */
        __real_jump_cache_flush(cpu);
}

/* ---- what was emitted */

static void spoil(uint8_t *code, const uint8_t *end)
{
    struct insn i;

    for (; code < end; code += i.len) {
        if (insn_decode(&i, code, (unsigned)QZ_MIN(end - code, 15), CODE_64, ~0ull) != DECODE_OK)
            return;
        if (i.op == OP_XOR && i.map == 0 && !i.mem && i.opcode >= 0x30 && i.opcode <= 0x33)
            *(uint8_t *)memchr(code, i.opcode, i.len) = (uint8_t)(i.opcode - 0x28);
    }
}

REPLACE(uint8_t *, code_cache_commit, struct code_cache *c, const struct emitter *e)
{
    if (injected("emitted-byte"))
        spoil(c->write + c->used, e->p);
    return __real_code_cache_commit(c, e);
}

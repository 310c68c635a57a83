/*
 * exec.c - the interpreter's table, and what its parts share: addresses, operands, stack, branches.
 *
 * Limits and types of segments: SDM vol 3 §5.3 to §5.4.1; canonical addresses: SDM vol 1 §3.3.7.1.
 * Real mode checks limits only: CS may be written there (SDM vol 3 §21.1).
 */
#include "cpu/jit/exec.h"

#include <assert.h>

#include "cpu/jit/exec_internal.h"

jit_handler *jit_handlers[OP_COUNT];

static void exec_ud(struct jit_cpu *cpu, const struct insn *i)
{
    jit_raise(cpu, VECTOR_UD);
}

/* An operation that no part executes is undefined to the guest, as on a CPU that lacks it. */
__attribute__((constructor)) static void handlers_fill(void)
{
    const struct jit_handler_entry *const parts[] = {
        jit_exec_integer, jit_exec_string, jit_exec_flow, jit_exec_system,
        jit_exec_segment, jit_exec_x87,    jit_exec_vec,  exec_bits,
        exec_decimal,     exec_flags,      exec_io,
    };

    for (unsigned part = 0; part < sizeof(parts) / sizeof(parts[0]); part++) {
        for (const struct jit_handler_entry *e = parts[part]; e->handler; e++) {
            assert(!jit_handlers[e->op]);
            jit_handlers[e->op] = e->handler;
        }
    }
    for (unsigned op = 0; op < OP_COUNT; op++) {
        if (!jit_handlers[op])
            jit_handlers[op] = exec_ud;
    }
}

/* --- Addresses ------------------------------------------------------------------------------- */

uint64_t jit_effective_address(const struct jit_cpu *cpu, const struct insn *i)
{
    return operand_address(cpu, i);
}

/* Whether the segment's type lets the access be. SS cannot hold a segment that may not be written
 * (SDM vol 3 §5.4.1), so that the check holds for every register. */
static bool type_allows(const struct jit_cpu *cpu, const struct segment *s, bool write)
{
    if (s->attr & SEG_UNUSABLE)
        return false;
    if (!(cpu->cr0 & CR0_PE) || (cpu->rflags & RFLAGS_VM))
        return true;
    if (write)
        return (s->attr & 0xa) == 0x2; /* data, writable */
    return (s->attr & 0xa) != 0x8;     /* data, or readable code */
}

/* First and last valid offset (SDM vol 3 §5.3). */
static void segment_bounds(const struct segment *s, uint64_t *first, uint64_t *last)
{
    if ((s->attr & 0xc) == 0x4 && (s->attr & SEG_S)) { /* expand-down data */
        *first = (uint64_t)s->limit + 1;
        *last = s->attr & SEG_DB ? 0xffffffff : 0xffff;
    } else {
        *first = 0;
        *last = s->limit;
    }
}

_Noreturn static void raise_segment(struct jit_cpu *cpu, unsigned seg)
{
    jit_raise_code(cpu, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

uint64_t jit_linear(struct jit_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write)
{
    const struct segment *s = &cpu->seg[seg];
    uint64_t first, last;

    if (cpu->long_mode) {
        uint64_t linear = offset + (seg >= SEG_FS ? s->base : 0);

        if (!linear_is_canonical(linear, size))
            raise_segment(cpu, seg);
        return linear;
    }
    segment_bounds(s, &first, &last);
    if (!type_allows(cpu, s, write) || offset < first || offset + (size - 1) > last)
        raise_segment(cpu, seg);
    return (uint32_t)(s->base + offset);
}

uint64_t jit_segment_span(const struct jit_cpu *cpu, unsigned seg, uint64_t offset, uint64_t len,
                          unsigned asize, bool write)
{
    const struct segment *s = &cpu->seg[seg];
    uint64_t first = 0, last = UINT64_MAX, span;

    if (cpu->long_mode) {
        uint64_t linear = offset + (seg >= SEG_FS ? s->base : 0);

        if (!linear_is_canonical(linear, 1))
            return 0;
        span = (linear >> 63 ? 0 : 1ull << 47) - linear;
        if (asize == 4 && span > (1ull << 32) - offset)
            span = (1ull << 32) - offset;
        return span < len ? span : len;
    }
    segment_bounds(s, &first, &last);
    if (last > (asize == 2 ? 0xffff : 0xffffffff))
        last = asize == 2 ? 0xffff : 0xffffffff;
    if (!type_allows(cpu, s, write) || offset < first || offset > last)
        return 0;
    span = last - offset + 1;
    return span < len ? span : len;
}

uint64_t jit_read_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size)
{
    if (!i->mem)
        return jit_get_reg(cpu, i->rm, size);
    return mmu_load(cpu, operand_linear(cpu, i, size, false), size);
}

void jit_write_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size, uint64_t value)
{
    if (i->mem)
        mmu_store(cpu, operand_linear(cpu, i, size, true), size, value);
    else
        jit_set_reg(cpu, i->rm, size, value);
}

/* --- Stack and branches ---------------------------------------------------------------------- */

void jit_push(struct jit_cpu *cpu, unsigned size, uint64_t value)
{
    stack_push(cpu, size, value);
}

uint64_t jit_pop(struct jit_cpu *cpu, unsigned size)
{
    uint64_t value = stack_load(cpu, cpu->gpr[RSP], size);

    stack_drop(cpu, size);
    return value;
}

void jit_branch(struct jit_cpu *cpu, uint64_t target, unsigned size)
{
    near_branch(cpu, target, size);
}

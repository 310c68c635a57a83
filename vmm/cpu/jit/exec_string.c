/*
 * exec_string.c - MOVS STOS LODS CMPS SCAS.
 *
 * Repeated ones go in chunks that lie within a page of each operand and are plain memory; the
 * host's own string instructions work on those, so that operands that overlap come out right,
 * whatever linear addresses they overlap under. Everything else goes element by element.
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/event.h"
#include "cpu/jit/string_internal.h"

enum { PAGE = 4096 };

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void string_repeat(struct jit_cpu *cpu, const struct insn *i, string_step *step)
{
    bool end = false;

    if (!(i->prefix & (PREFIX_REP | PREFIX_REPNE))) {
        step(cpu, i, 1, &end);
        return;
    }
    for (;;) {
        const uint64_t count = string_index(cpu, i, RCX);
        unsigned attention = __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED);
        uint64_t done;

        if (!count)
            return;
        done = step(cpu, i, attention & ATTENTION_TRACE ? 1 : count, &end);
        jit_set_reg(cpu, RCX, i->asize, count - done);
        if (done == count || end)
            return;
        if (__atomic_load_n(&cpu->attention, __ATOMIC_RELAXED)) {
            cpu->next_rip = cpu->rip;
            cpu->unfinished = true;
            return;
        }
    }
}

uint64_t string_chunk(struct jit_cpu *cpu, const struct insn *i, unsigned seg, unsigned reg,
                      uint64_t count, bool write, uint64_t *low)
{
    const uint64_t offset = string_index(cpu, i, reg), size = i->size;
    const uint64_t base = cpu->long_mode && seg < SEG_FS ? 0 : cpu->seg[seg].base;
    const uint64_t linear = cpu->long_mode ? base + offset : (uint64_t)(uint32_t)(base + offset);
    const uint64_t in_page = linear & (PAGE - 1);
    uint64_t n = lesser(count, PAGE / size);

    if (!string_backward(cpu)) {
        uint64_t bytes = lesser(n * size, PAGE - in_page);

        *low = linear;
        return jit_segment_span(cpu, seg, offset, bytes, i->asize, write) / size;
    }
    if (in_page + size > PAGE)
        return 0;
    n = lesser(n, in_page / size + 1);
    n = lesser(n, offset / size + 1);
    *low = linear - (n - 1) * size;
    if (jit_segment_span(cpu, seg, offset - (n - 1) * size, n * size, i->asize, write) != n * size)
        return 0;
    return n;
}

/* How many of `n` elements a run of `got` bytes from the lowest address holds: going backward the
 * first one is at the end of the run, so that it is all or nothing. */
static uint64_t run_elements(const struct jit_cpu *cpu, const struct insn *i, uint64_t n,
                             uint64_t got)
{
    if (string_backward(cpu))
        return got >= n * i->size ? n : 0;
    return lesser(n, got / i->size);
}

/*
 * Going backward a chunk begins at its last element, but it is the first one that faults. Where
 * alignment is checked there are no runs, and so no faults by them.
 */
static void probe_first(struct jit_cpu *cpu, const struct insn *i, uint64_t low, uint64_t n,
                        bool write)
{
    if (string_backward(cpu) && cpu->tlb.data_set != TLB_USER_STRICT)
        mmu_probe(cpu, low + (n - 1) * i->size, i->size, write);
}

static const uint8_t *read_chunk(struct jit_cpu *cpu, const struct insn *i, unsigned seg,
                                 unsigned reg, uint64_t *n)
{
    uint64_t low, got = 0;
    const uint8_t *host;

    *n = string_chunk(cpu, i, seg, reg, *n, false, &low);
    if (!*n)
        return NULL;
    probe_first(cpu, i, low, *n, false);
    host = mmu_run_read(cpu, low, *n * i->size, &got);
    *n = host ? run_elements(cpu, i, *n, got) : 0;
    return host;
}

static uint8_t *write_chunk(struct jit_cpu *cpu, const struct insn *i, uint64_t *n)
{
    uint64_t low, got = 0;
    uint8_t *host;

    *n = string_chunk(cpu, i, SEG_ES, RDI, *n, true, &low);
    if (!*n)
        return NULL;
    probe_first(cpu, i, low, *n, true);
    host = mmu_run_write(cpu, low, *n * i->size, &got);
    *n = host ? run_elements(cpu, i, *n, got) : 0;
    return host;
}

/* --- The host's string instructions ---------------------------------------------------------- */

#define HOST_STRING(suffix)                                                                        \
    static void host_movs_##suffix(uint8_t *to, const uint8_t *from, uint64_t n, bool backward)    \
    {                                                                                              \
        if (backward)                                                                              \
            __asm__ volatile("std\n\trep movs" #suffix "\n\tcld"                                   \
                             : "+D"(to), "+S"(from), "+c"(n)                                       \
                             :                                                                     \
                             : "memory", "cc");                                                    \
        else                                                                                       \
            __asm__ volatile("rep movs" #suffix : "+D"(to), "+S"(from), "+c"(n) : : "memory");     \
    }                                                                                              \
    static void host_stos_##suffix(uint8_t *to, uint64_t value, uint64_t n)                        \
    {                                                                                              \
        __asm__ volatile("rep stos" #suffix : "+D"(to), "+c"(n) : "a"(value) : "memory");          \
    }
HOST_STRING(b)
HOST_STRING(w)
HOST_STRING(l)
HOST_STRING(q)

/* --- MOVS, STOS, LODS ------------------------------------------------------------------------ */

static void movs_chunk(uint8_t *to, const uint8_t *from, unsigned size, uint64_t n, bool backward)
{
    static void (*const by_size[SIZES])(uint8_t *, const uint8_t *, uint64_t, bool) = {
        host_movs_b, host_movs_w, host_movs_l, host_movs_q};
    const uint64_t first = backward ? (n - 1) * size : 0;

    by_size[size_index(size)](to + first, from + first, n, backward);
}

static uint64_t movs_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    uint64_t n = 0;

    if (count > 1) {
        uint64_t readable = count;
        const uint8_t *from = read_chunk(cpu, i, i->seg, RSI, &readable);

        if (readable) {
            uint64_t asked = n = readable;
            uint8_t *to = write_chunk(cpu, i, &n);

            /* Fewer backward: the run read ends with the first element. */
            if (string_backward(cpu))
                from += (asked - n) * i->size;
            if (n)
                movs_chunk(to, from, i->size, n, string_backward(cpu));
        }
    }
    if (!n) {
        uint64_t from = string_linear(cpu, i, i->seg, RSI, false), value;

        value = mmu_load(cpu, from, i->size);
        mmu_store(cpu, string_linear(cpu, i, SEG_ES, RDI, true), i->size, value);
        n = 1;
    }
    string_advance(cpu, i, RSI, n);
    string_advance(cpu, i, RDI, n);
    return n;
}

static uint64_t stos_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    static void (*const by_size[SIZES])(uint8_t *, uint64_t, uint64_t) = {host_stos_b, host_stos_w,
                                                                          host_stos_l, host_stos_q};
    const uint64_t value = jit_get_reg(cpu, RAX, i->size);
    uint64_t n = count;
    uint8_t *to = count > 1 ? write_chunk(cpu, i, &n) : NULL;

    if (to && n) {
        by_size[size_index(i->size)](to, value, n);
    } else {
        mmu_store(cpu, string_linear(cpu, i, SEG_ES, RDI, true), i->size, value);
        n = 1;
    }
    string_advance(cpu, i, RDI, n);
    return n;
}

static uint64_t lods_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    uint64_t value = mmu_load(cpu, string_linear(cpu, i, i->seg, RSI, false), i->size);

    jit_set_reg(cpu, RAX, i->size, value);
    string_advance(cpu, i, RSI, 1);
    return 1;
}

/* --- CMPS, SCAS ------------------------------------------------------------------------------ */

/* The flags of the last comparison, and whether it ends the repetition. */
static bool compared(struct jit_cpu *cpu, const struct insn *i, uint64_t a, uint64_t b)
{
    alu_atomic_fn(OP_CMP, i->size)(a, b, &cpu->rflags);
    return i->prefix & PREFIX_REP ? a != b : a == b;
}

/*
 * Goes on while the prefix's condition holds. b is one value again and again where `b_step` is 0.
 * Says how many elements were compared, the last pair included.
 */
static uint64_t compare_chunk(struct jit_cpu *cpu, const struct insn *i, const uint8_t *a,
                              int64_t a_step, const uint8_t *b, int64_t b_step, uint64_t n,
                              bool *end)
{
    const bool while_equal = i->prefix & PREFIX_REP;
    uint64_t done = 0, va, vb;

    do {
        va = host_load(a, i->size);
        vb = host_load(b, i->size);
        a += a_step;
        b += b_step;
        done++;
    } while (done < n && (va == vb) == while_equal);
    *end = compared(cpu, i, va, vb);
    return done;
}

static uint64_t cmps_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    const bool backward = string_backward(cpu);
    const int64_t step = backward ? -(int64_t)i->size : i->size;
    uint64_t n = 0;

    if (count > 1) {
        uint64_t first_n = count, asked;
        const uint8_t *a = read_chunk(cpu, i, i->seg, RSI, &first_n), *b;

        if (first_n) {
            asked = n = first_n;
            b = read_chunk(cpu, i, SEG_ES, RDI, &n);
            if (n) {
                a += backward ? (asked - 1) * i->size : 0;
                b += backward ? (n - 1) * i->size : 0;
                n = compare_chunk(cpu, i, a, step, b, step, n, end);
            }
        }
    }
    if (!n) {
        uint64_t a = mmu_load(cpu, string_linear(cpu, i, i->seg, RSI, false), i->size);
        uint64_t b = mmu_load(cpu, string_linear(cpu, i, SEG_ES, RDI, false), i->size);

        *end = compared(cpu, i, a, b);
        n = 1;
    }
    string_advance(cpu, i, RSI, n);
    string_advance(cpu, i, RDI, n);
    return n;
}

static uint64_t scas_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    const bool backward = string_backward(cpu);
    const int64_t step = backward ? -(int64_t)i->size : i->size;
    const uint64_t value = jit_get_reg(cpu, RAX, i->size);
    uint64_t n = count;
    const uint8_t *b = count > 1 ? read_chunk(cpu, i, SEG_ES, RDI, &n) : NULL;

    if (b && n) {
        b += backward ? (n - 1) * i->size : 0;
        n = compare_chunk(cpu, i, (const uint8_t *)&value, 0, b, step, n, end);
    } else {
        *end = compared(cpu, i, value,
                        mmu_load(cpu, string_linear(cpu, i, SEG_ES, RDI, false), i->size));
        n = 1;
    }
    string_advance(cpu, i, RDI, n);
    return n;
}

static void exec_movs(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, movs_step);
}

static void exec_stos(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, stos_step);
}

static void exec_lods(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, lods_step);
}

static void exec_cmps(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, cmps_step);
}

static void exec_scas(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, scas_step);
}

const struct jit_handler_entry jit_exec_string[] = {
    {OP_MOVS, exec_movs}, {OP_STOS, exec_stos}, {OP_LODS, exec_lods},
    {OP_CMPS, exec_cmps}, {OP_SCAS, exec_scas}, {OP_UD, NULL},
};

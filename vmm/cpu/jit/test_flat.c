/* test_flat.c - see test_flat.h. */
#include "cpu/jit/test_flat.h"

#include <assert.h>

#include "cpu/jit/event.h"
#include "cpu/jit/test_native.h"

struct flat flat;

enum { PAGE = 4096, PLAIN_SIZE = FLAT_SIZE / 2 };

/* --- What a handler calls when it cannot go on ----------------------------------------------- */

void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code)
{
    assert(!flat.exclusive);
    flat.vector = vector;
    flat.code = code;
    longjmp(flat.unwind, 1);
}

void jit_raise(struct jit_cpu *cpu, uint8_t vector)
{
    jit_raise_code(cpu, vector, 0);
}

void jit_serve(struct jit_cpu *cpu, struct vcpu_exit *exit)
{
    size_t len = exit->pio.size * exit->pio.count;

    assert(len <= sizeof(flat.port_data));
    flat.serves++;
    flat.served = *exit;
    if (exit->pio.write)
        memcpy(flat.port_data, exit->pio.data, len);
    else
        memcpy(exit->pio.data, flat.port_data, len);
    if (flat.attention_after && !--flat.attention_after)
        jit_attention_set(cpu, ATTENTION_KICK);
}

void event_interrupt(struct jit_cpu *cpu, uint8_t vector, enum event_source source, bool has_code,
                     uint32_t code)
{
    flat.interrupt = vector;
}

void rflags_write(struct jit_cpu *cpu, uint64_t rflags)
{
    cpu->rflags = rflags | RFLAGS_FIXED;
}

bool io_allowed(struct jit_cpu *cpu, uint16_t port, unsigned size)
{
    return !flat.io_denied;
}

/* --- Memory ---------------------------------------------------------------------------------- */

/* Host memory of a range, or a page fault. */
static uint8_t *checked(struct jit_cpu *cpu, uint64_t linear, uint64_t len, bool write)
{
    uint64_t offset = linear - (uintptr_t)flat.memory;

    if (offset >= FLAT_SIZE || len > FLAT_SIZE - offset)
        jit_raise_code(cpu, VECTOR_PF, write ? PF_WRITE : 0);
    return flat.memory + offset;
}

static bool plain(const uint8_t *p)
{
    return p < flat.memory + PLAIN_SIZE;
}

static void tlb_enter(struct jit_cpu *cpu, uint64_t linear, unsigned kind)
{
    struct tlb_entry *e = &cpu->tlb.entry[cpu->tlb.data_set][kind][tlb_index(linear)];

    e->tag = linear & ~(uint64_t)(PAGE - 1);
    e->host = (uint8_t *)(uintptr_t)e->tag;
}

uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    const uint8_t *p = checked(cpu, linear, size, false);
    uint64_t value = 0;

    if (plain(p))
        tlb_enter(cpu, linear, TLB_READ);
    else if (flat.attention_after && !--flat.attention_after)
        jit_attention_set(cpu, ATTENTION_KICK);
    memcpy(&value, p, size);
    return value;
}

void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set)
{
    uint8_t *p = checked(cpu, linear, size, true);

    if (plain(p))
        tlb_enter(cpu, linear, TLB_WRITE);
    memcpy(p, &value, size);
}

void mmu_load_bytes(struct jit_cpu *cpu, uint64_t linear, void *buf, unsigned len)
{
    memcpy(buf, checked(cpu, linear, len, false), len);
}

void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len)
{
    memcpy(checked(cpu, linear, len, true), buf, len);
}

void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    checked(cpu, linear, len, write);
}

void *mmu_atomic(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    uint8_t *p = checked(cpu, linear, size, true);

    return plain(p) && (linear & (PAGE - 1)) + size <= PAGE ? p : NULL;
}

void jit_exclusive_begin(struct jit_cpu *cpu)
{
    assert(!flat.exclusive);
    flat.exclusive = true;
}

void jit_exclusive_end(struct jit_cpu *cpu)
{
    assert(flat.exclusive);
    flat.exclusive = false;
}

static void *run(struct jit_cpu *cpu, uint64_t linear, uint64_t len, bool write, uint64_t *got)
{
    uint8_t *p = checked(cpu, linear, 1, write);
    uint64_t room = PAGE - (linear & (PAGE - 1));

    *got = len < room ? len : room;
    return plain(p) ? p : NULL;
}

const void *mmu_run_read(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got)
{
    return run(cpu, linear, len, false, got);
}

void *mmu_run_write(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got)
{
    return run(cpu, linear, len, true, got);
}

/* --- The parts that are not under test ------------------------------------------------------- */

const struct jit_handler_entry jit_exec_system[] = {{OP_UD, NULL}};
const struct jit_handler_entry jit_exec_segment[] = {{OP_UD, NULL}};
const struct jit_handler_entry jit_exec_x87[] = {{OP_UD, NULL}};
const struct jit_handler_entry jit_exec_vec[] = {{OP_UD, NULL}};

/* --- The CPU --------------------------------------------------------------------------------- */

void flat_open(void)
{
    flat.cpu = calloc(1, sizeof(*flat.cpu));
    flat.memory = native_pages(FLAT_PAGES);
}

void flat_close(void)
{
    native_pages_free(flat.memory, FLAT_PAGES);
    free(flat.cpu);
}

static void tlb_empty(struct jit_tlb *tlb)
{
    struct tlb_entry *e = &tlb->entry[0][0][0];

    for (size_t n = 0; n < sizeof(tlb->entry) / sizeof(*e); n++)
        e[n].tag = tlb_empty_tag((unsigned)n);
}

static void reset(void)
{
    struct jit_cpu *cpu = flat.cpu;

    memset(cpu, 0, sizeof(*cpu));
    tlb_empty(&cpu->tlb);
    cpu->rflags = RFLAGS_FIXED;
    cpu->cr0 = CR0_PE | CR0_ET;
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        cpu->seg[seg] = (struct segment){.limit = 0xffffffff, .attr = SEG_P | SEG_S | SEG_G | 0x3};
    cpu->seg[SEG_CS].attr = SEG_P | SEG_S | SEG_G | 0xb;
    flat.interrupt = FLAT_NONE;
    flat.vector = FLAT_NONE;
    flat.io_denied = false;
    flat.exclusive = false;
    flat.serves = flat.attention_after = 0;
}

void flat_reset_64(void)
{
    reset();
    flat.cpu->cr0 |= CR0_PG;
    flat.cpu->seg[SEG_CS].attr |= SEG_L;
    flat.cpu->code_width = CODE_64;
    flat.cpu->stack_size = 8;
    flat.cpu->long_mode = true;
}

void flat_reset_legacy(unsigned bits)
{
    reset();
    flat.cpu->code_width = bits == 32 ? CODE_32 : CODE_16;
    flat.cpu->stack_size = (uint8_t)(bits / 8);
    if (bits == 32) {
        for (unsigned seg = 0; seg < SEG_COUNT; seg++)
            flat.cpu->seg[seg].attr |= SEG_DB;
    }
}

void flat_execute(jit_handler *handler, const struct insn *i)
{
    flat.vector = flat.interrupt = FLAT_NONE;
    flat.cpu->next_rip = flat.cpu->rip + i->len;
    if (setjmp(flat.unwind))
        return;
    handler(flat.cpu, i);
    flat.cpu->rip = flat.cpu->next_rip;
}

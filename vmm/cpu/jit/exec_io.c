/*
 * exec_io.c - IN OUT INS OUTS.
 *
 * Permission comes first, then memory is checked, then the device is asked: what a device does
 * cannot be taken back.
 */
#include "cpu/jit/event.h"
#include "cpu/jit/string_internal.h"

enum { IO_BATCH_BYTES = 256 }; /* of a repeated instruction, in one request */
enum { DR7_ENABLED = 0xff, DR_TYPE_PORT = 2 };

/* Breakpoints of ports (SDM vol 3 §17.2.4); the trap comes behind the instruction (jit_run.c). */
static void note_watch(struct jit_cpu *cpu, uint16_t port, unsigned size)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};

    if (!(cpu->dr7 & DR7_ENABLED) || !(cpu->cr4 & CR4_DE))
        return;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned length = lengths[cpu->dr7 >> (18 + 4 * i) & 3];
        const uint64_t at = cpu->dr[i] & ~(uint64_t)(length - 1);

        if ((cpu->dr7 >> (2 * i) & 3) && (cpu->dr7 >> (16 + 4 * i) & 3) == DR_TYPE_PORT &&
            port < at + length && at < port + size)
            cpu->watch_hits |= 1 << i;
    }
}

static void check_port(struct jit_cpu *cpu, uint16_t port, unsigned size)
{
    if (!io_allowed(cpu, port, size))
        jit_raise_code(cpu, VECTOR_GP, 0);
}

static void serve_port(struct jit_cpu *cpu, uint16_t port, unsigned size, bool write,
                       uint64_t count, void *data)
{
    struct vcpu_exit exit = {
        .kind = EXIT_PIO,
        .pio = {.port = port,
                .size = (uint8_t)size,
                .write = write,
                .count = (uint32_t)count,
                .data = data},
    };

    jit_serve(cpu, &exit);
    note_watch(cpu, port, size);
}

static uint16_t port_of(const struct jit_cpu *cpu, const struct insn *i)
{
    return i->form == FORM_RM_IMM ? (uint8_t)i->imm : (uint16_t)cpu->gpr[RDX];
}

static void exec_in(struct jit_cpu *cpu, const struct insn *i)
{
    uint16_t port = port_of(cpu, i);
    uint32_t value = 0;

    check_port(cpu, port, i->size);
    serve_port(cpu, port, i->size, false, 1, &value);
    jit_set_reg(cpu, RAX, i->size, value);
}

static void exec_out(struct jit_cpu *cpu, const struct insn *i)
{
    uint16_t port = port_of(cpu, i);
    uint32_t value = (uint32_t)jit_get_reg(cpu, RAX, i->size);

    check_port(cpu, port, i->size);
    serve_port(cpu, port, i->size, true, 1, &value);
}

/* The elements of one request, and where the first of them lies. */
static uint64_t batch(struct jit_cpu *cpu, const struct insn *i, unsigned seg, unsigned reg,
                      uint64_t count, bool write, uint64_t *linear)
{
    uint64_t n = 1;

    if (count > IO_BATCH_BYTES / i->size)
        count = IO_BATCH_BYTES / i->size;
    if (count > 1 && !string_backward(cpu))
        n = string_chunk(cpu, i, seg, reg, count, write, linear);
    if (n > 1)
        return n;
    *linear = string_linear(cpu, i, seg, reg, write);
    return 1;
}

static uint64_t ins_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    const uint16_t port = (uint16_t)cpu->gpr[RDX];
    uint8_t data[IO_BATCH_BYTES] = {0};
    uint64_t linear, n;

    check_port(cpu, port, i->size);
    n = batch(cpu, i, SEG_ES, RDI, count, true, &linear);
    mmu_probe(cpu, linear, (unsigned)n * i->size, true);
    serve_port(cpu, port, i->size, false, n, data);
    mmu_store_bytes(cpu, linear, data, (unsigned)n * i->size);
    string_advance(cpu, i, RDI, n);
    return n;
}

static uint64_t outs_step(struct jit_cpu *cpu, const struct insn *i, uint64_t count, bool *end)
{
    const uint16_t port = (uint16_t)cpu->gpr[RDX];
    uint8_t data[IO_BATCH_BYTES];
    uint64_t linear, n;

    check_port(cpu, port, i->size);
    n = batch(cpu, i, i->seg, RSI, count, false, &linear);
    mmu_load_bytes(cpu, linear, data, (unsigned)n * i->size);
    serve_port(cpu, port, i->size, true, n, data);
    string_advance(cpu, i, RSI, n);
    return n;
}

static void exec_ins(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, ins_step);
}

static void exec_outs(struct jit_cpu *cpu, const struct insn *i)
{
    string_repeat(cpu, i, outs_step);
}

const struct jit_handler_entry exec_io[] = {
    {OP_IN, exec_in}, {OP_OUT, exec_out}, {OP_INS, exec_ins}, {OP_OUTS, exec_outs}, {OP_UD, NULL},
};

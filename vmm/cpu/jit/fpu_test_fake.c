/* fpu_test_fake.c - see the header. */
#include "cpu/jit/fpu_test_fake.h"

#include <setjmp.h>

#include "cpu/jit/fpu_test_native.h"

uint8_t *fake_memory;
static jmp_buf raised;

/* --- What the interpreter's parts call --- */

void jit_raise(struct jit_cpu *cpu, uint8_t vector)
{
    longjmp(raised, vector + 1);
}

void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code)
{
    longjmp(raised, vector + 1);
}

static uint8_t *at(struct jit_cpu *cpu, uint64_t linear, unsigned len)
{
    uint64_t start = (uint64_t)(uintptr_t)fake_memory;

    if (linear < start || linear + len > start + FAKE_MEMORY)
        jit_raise(cpu, VECTOR_PF);
    return (uint8_t *)(uintptr_t)linear;
}

uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    uint64_t value = 0;

    memcpy(&value, at(cpu, linear, size), size);
    return value;
}

void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set)
{
    memcpy(at(cpu, linear, size), &value, size);
}

void mmu_load_bytes(struct jit_cpu *cpu, uint64_t linear, void *buf, unsigned len)
{
    memcpy(buf, at(cpu, linear, len), len);
}

void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len)
{
    memcpy(at(cpu, linear, len), buf, len);
}

void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    at(cpu, linear, len);
}

uint64_t jit_effective_address(const struct jit_cpu *cpu, const struct insn *i)
{
    return cpu->gpr[i->base] + i->disp;
}

uint64_t jit_linear(struct jit_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write)
{
    return cpu->seg[seg].base + offset;
}

void fake_map_tlb(struct jit_cpu *cpu, bool on)
{
    for (unsigned kind = 0; kind < TLB_KINDS; kind++) {
        for (unsigned n = 0; n < TLB_ENTRIES; n++)
            cpu->tlb.entry[0][kind][n].tag = tlb_empty_tag(n);
        for (unsigned n = 0; on && n < FAKE_MEMORY; n += 4096) {
            uint64_t page = (uint64_t)(uintptr_t)fake_memory + n;

            cpu->tlb.entry[0][kind][tlb_index(page)] =
                (struct tlb_entry){.tag = page, .host = fake_memory + n};
        }
    }
}

static void setup(void)
{
    native_setup();
    if (fake_memory)
        return;
    fake_memory =
        mmap(NULL, FAKE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fake_memory == MAP_FAILED)
        abort();
}

struct jit_cpu *fake_cpu_new(void)
{
    struct jit_cpu *cpu = aligned_alloc(64, sizeof(*cpu));

    setup();
    memset(cpu, 0, sizeof(*cpu));
    cpu->cr0 = CR0_PE | CR0_PG | CR0_NE | CR0_MP;
    cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->xcr0 = 3;
    cpu->code_width = CODE_64;
    cpu->long_mode = true;
    cpu->cpl = 3;
    cpu->rflags = RFLAGS_FIXED;
    fpu_init(&cpu->fpu);
    cpu->fpu.mxcsr = MXCSR_INIT;
    cpu->fpu.mxcsr_mask = MXCSR_VALID;
    fake_map_tlb(cpu, false);
    return cpu;
}

int fake_exec(struct jit_cpu *cpu, jit_handler *handler, const struct insn *i)
{
    int vector = setjmp(raised);

    if (vector)
        return vector - 1;
    handler(cpu, i);
    return NO_EXCEPTION;
}

jit_handler *fake_handler(enum insn_op op)
{
    for (const struct jit_handler_entry *e = jit_exec_vec; e->handler; e++)
        if (e->op == op)
            return e->handler;
    for (const struct jit_handler_entry *e = jit_exec_x87; e->handler; e++)
        if (e->op == op)
            return e->handler;
    return NULL;
}

/* --- The host --- */

int native_exec(struct jit_cpu *cpu, const uint8_t *code, unsigned len)
{
    struct jit_fpu before = cpu->fpu;
    int vector;

    memcpy(native_gpr, cpu->gpr, sizeof(native_gpr));
    memcpy(native_fpu, &cpu->fpu, sizeof(native_fpu));
    native_flags = (cpu->rflags & FLAGS_ARITH) | RFLAGS_FIXED;
    vector = native_run(code, len);
    memcpy(&cpu->fpu, native_fpu, sizeof(native_fpu));
    cpu->fpu.fop = before.fop;
    cpu->fpu.fip = before.fip;
    cpu->fpu.fdp = before.fdp;
    cpu->fpu.mxcsr_mask = before.mxcsr_mask;
    memcpy(cpu->fpu.reserved1, before.reserved1, sizeof(before.reserved1));
    if (vector >= 0)
        return vector;
    memcpy(cpu->gpr, native_gpr, sizeof(native_gpr));
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (native_flags & FLAGS_ARITH);
    return NO_EXCEPTION;
}

/* --- Numbers --- */

uint64_t test_random(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1d;
}

static uint32_t random_single(void)
{
    static const uint32_t special[] = {
        0,          0x80000000, 1,          0x00400000, 0x007fffff, 0x00800000, 0x3f800000,
        0xbf800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7fa00000, 0x4f000000,
        0xcf000000, 0x40490fdb, 0x33800000, 0x20000000, 0x1f800000, 0x5f800000, 0x00000002,
    };

    return special[test_random() % (sizeof(special) / sizeof(special[0]))];
}

static uint64_t random_double(void)
{
    static const uint64_t special[] = {
        0,
        1ull << 63,
        1,
        0x0008000000000000,
        0x000fffffffffffff,
        0x0010000000000000,
        0x3ff0000000000000,
        0xbff0000000000000,
        0x7fefffffffffffff,
        0x7ff0000000000000,
        0xfff0000000000000,
        0x7ff8000000000000,
        0x7ff4000000000000,
        0x41e0000000000000,
        0xc1e0000000000000,
        0x400921fb54442d18,
        0x47f0000000000000,
        0x3800000000000000,
        0x36a0000000000000,
        0x1ff0000000000000,
        0x5ff0000000000000,
    };

    return special[test_random() % (sizeof(special) / sizeof(special[0]))];
}

void test_random_operand(uint8_t *p, unsigned len)
{
    unsigned kind = test_random() % 4;

    for (unsigned n = 0; n < len; n += 8) {
        uint64_t v = test_random();

        if (kind == 1)
            v = random_single() | (uint64_t)random_single() << 32;
        else if (kind == 2)
            v = random_double();
        else if (kind == 3) /* close to one another, so that arithmetic is inexact now and then */
            v = (v & 0x807fffff807fffff) | 0x3f8000003f800000;
        memcpy(p + n, &v, len - n < 8 ? len - n : 8);
    }
}

/*
 * exec_vec_test.c - every instruction of vec_ops through exec_vec.c and on the host, with random
 * operands, registers and MXCSR: state, memory, flags and exceptions must be the same.
 */
#include "cpu/jit/fpu_test_fake.h"
#include "cpu/jit/vec.h"

#include <cpuid.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { ROUNDS = 600, OPERAND_AT = 256 };

static bool host_has(unsigned feature)
{
    unsigned a, b, c, d, b7 = 0;

    __cpuid(1, a, b, c, d);
    if (__get_cpuid_max(0, NULL) >= 7) {
        unsigned a7, c7, d7;

        __cpuid_count(7, 0, a7, b7, c7, d7);
    }
    switch (feature) {
    case CPU_SSE3:
        return c & bit_SSE3;
    case CPU_SSSE3:
        return c & bit_SSSE3;
    case CPU_SSE41:
        return c & bit_SSE4_1;
    case CPU_SSE42:
        return c & bit_SSE4_2;
    case CPU_AES:
        return c & bit_AES;
    case CPU_PCLMUL:
        return c & bit_PCLMUL;
    case CPU_SHA:
        return b7 & bit_SHA;
    default:
        return true;
    }
}

static void random_state(struct jit_cpu *cpu)
{
    for (unsigned n = 0; n < GPR_COUNT; n++)
        cpu->gpr[n] = test_random() % 2 ? test_random() : test_random() % 40;
    for (unsigned n = 0; n < 16; n++)
        test_random_operand(cpu->fpu.xmm[n], 16);
    for (unsigned n = 0; n < 8; n++)
        test_random_operand(cpu->fpu.st[n], 10);
    cpu->rflags = RFLAGS_FIXED | (test_random() & FLAGS_ARITH);
    cpu->fpu.mxcsr = test_random() & MXCSR_VALID;
    if (test_random() % 2)
        cpu->fpu.mxcsr |= MXCSR_MASKS;
    cpu->fpu.fsw = test_random() & ~(FSW_EXCEPTIONS | FSW_SF);
    cpu->fpu.ftw_abridged = test_random();
    fpu_set_fcw(&cpu->fpu, FCW_INIT);
}

/* The instruction's bytes, with [rsi] for memory. */
static unsigned encode(const struct insn *i, const struct vec_op *op, uint8_t *code)
{
    static const uint8_t prefix[] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0;
    unsigned rex = 0x40 | (i->prefix & PREFIX_REX_W ? 8 : 0) | (i->reg > 7 ? 4 : 0) |
                   (!i->mem && i->rm > 7 ? 1 : 0);

    if (op->prefix)
        code[n++] = prefix[op->prefix];
    if (rex != 0x40)
        code[n++] = rex;
    code[n++] = 0x0f;
    if (op->map > 1)
        code[n++] = op->map == 2 ? 0x38 : 0x3a;
    code[n++] = op->opcode;
    code[n++] = i->modrm;
    if (op->imm8)
        code[n++] = i->imm;
    return n;
}

static unsigned random_register(unsigned kind, bool memory)
{
    unsigned n = test_random() % 16;

    if (kind == VEC_OPERAND_MMX)
        return n & 7;
    if (kind == VEC_OPERAND_GPR && (n == RSP || (memory && n == RSI)))
        return RBX;
    return n;
}

static void make_insn(struct insn *i, const struct vec_op *op, unsigned index, bool memory)
{
    unsigned reg;

    *i = (struct insn){.op = OP_VEC, .vec = index, .mem = memory, .base = RSI, .index = REG_NONE};
    i->map = op->map;
    i->opcode = op->opcode;
    i->asize = 8;
    i->seg = SEG_DS;
    i->reg = op->group >= 0 ? (unsigned)op->group : random_register(op->reg, memory);
    i->rm = random_register(op->rm, memory);
    if (test_random() % 4 == 0)
        i->prefix |= PREFIX_REX_W;
    i->imm = op->imm8 ? (uint8_t)test_random() : 0;
    reg = i->reg & 7;
    i->modrm = memory ? reg << 3 | RSI : 0xc0 | reg << 3 | (i->rm & 7);
}

/* With an unmasked overflow or underflow PE may be set without need: see exec_vec.c. */
static void forgive_precision(struct jit_cpu *ours, const struct jit_cpu *host, int vector)
{
    uint32_t raised = ours->fpu.mxcsr & ~(ours->fpu.mxcsr >> MXCSR_MASK_SHIFT);

    if (vector == VECTOR_XM && (raised & (MXCSR_OE | MXCSR_UE)) && !(host->fpu.mxcsr & MXCSR_PE))
        ours->fpu.mxcsr &= ~MXCSR_PE;
}

/* CPUs differ in whether CVTPI2PS from memory goes to MMX (SDM vol 2 says so, AMD's do not). */
static void forgive_transition(struct jit_cpu *ours, const struct jit_cpu *host,
                               const struct insn *i, const struct vec_op *op)
{
    if (!i->mem || op->rm != VEC_OPERAND_MMX || op->reg != VEC_OPERAND_XMM)
        return;
    ours->fpu.fsw = host->fpu.fsw;
    ours->fpu.ftw_abridged = host->fpu.ftw_abridged;
    memcpy(ours->fpu.st, host->fpu.st, sizeof(ours->fpu.st));
}

static void compare(const struct insn *i, const struct vec_op *op, const struct jit_cpu *ours,
                    const struct jit_cpu *host, int vector, int host_vector)
{
    bool same = vector == host_vector && !memcmp(ours->gpr, host->gpr, sizeof(ours->gpr)) &&
                ours->rflags == host->rflags && !memcmp(&ours->fpu, &host->fpu, sizeof(ours->fpu));

    if (same)
        return;
    print_error("%s map %u opcode %02x modrm %02x imm %02x w %d: exception %d, host %d; mxcsr "
                "%04x, host %04x; flags %x, host %x; fsw %x, host %x\n",
                op->name, op->map, op->opcode, i->modrm, (unsigned)i->imm,
                !!(i->prefix & PREFIX_REX_W), vector, host_vector, ours->fpu.mxcsr, host->fpu.mxcsr,
                (unsigned)ours->rflags, (unsigned)host->rflags, ours->fpu.fsw, host->fpu.fsw);
    for (unsigned n = 0; n < 16; n++)
        if (memcmp(ours->fpu.xmm[n], host->fpu.xmm[n], 16))
            print_error("xmm%u differs\n", n);
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(ours->fpu.st[n], host->fpu.st[n], 16))
            print_error("st%u differs\n", n);
    for (unsigned n = 0; n < 16; n++)
        if (ours->gpr[n] != host->gpr[n])
            print_error("gpr%u differs: %lx, host %lx\n", n, ours->gpr[n], host->gpr[n]);
    fail();
}

static void run_both(const struct insn *i, const struct vec_op *op, struct jit_cpu *ours,
                     struct jit_cpu *host)
{
    uint8_t code[16], memory[512], mine[512];
    unsigned len = encode(i, op, code);
    int vector, host_vector;

    random_state(ours);
    if (i->mem || (op->implicit & VEC_IMPLICIT_RDI)) {
        uint64_t address = (uint64_t)(uintptr_t)fake_memory + OPERAND_AT;

        /* SHA: SDM vol 2 has exception type 4 (#GP), there are hosts that do not look */
        if (!op->aligned || (op->feature != CPU_SHA && test_random() % 8 == 0))
            address += test_random() % 32;
        ours->gpr[i->mem ? RSI : RDI] = address;
    }
    for (unsigned n = 0; n < sizeof(memory); n += 16)
        test_random_operand(memory + n, 16);
    *host = *ours;
    fake_map_tlb(ours, test_random() % 2);

    memcpy(fake_memory, memory, sizeof(memory));
    vector = fake_exec(ours, fake_handler(OP_VEC), i);
    memcpy(mine, fake_memory, sizeof(mine));
    memcpy(fake_memory, memory, sizeof(memory));
    host_vector = native_exec(host, code, len);
    forgive_precision(ours, host, vector);
    forgive_transition(ours, host, i, op);
    compare(i, op, ours, host, vector, host_vector);
    if (memcmp(mine, fake_memory, sizeof(mine)))
        fail_msg("%s: memory differs", op->name);
}

static void every_instruction_as_the_host_does(void **state)
{
    struct jit_cpu *ours = fake_cpu_new(), *host = fake_cpu_new();
    unsigned forms = 0, absent = 0;

    for (unsigned n = 1; n < vec_ops_count; n++) {
        const struct vec_op *op = &vec_ops[n];

        if (!host_has(op->feature)) {
            absent++;
            continue;
        }
        for (unsigned memory = 0; memory < 2; memory++) {
            if (memory ? !op->mem_size : op->no_reg_form)
                continue;
            forms++;
            for (unsigned round = 0; round < ROUNDS; round++) {
                struct insn i;

                make_insn(&i, op, n, memory);
                run_both(&i, op, ours, host);
            }
        }
    }
    print_message("%u instructions, %u forms compared, %u instructions not on this host\n",
                  vec_ops_count - 1, forms, absent);
    free(ours);
    free(host);
}

static struct insn insn_of(unsigned map, unsigned prefix, uint8_t opcode, uint8_t modrm)
{
    struct insn i = {.op = OP_VEC, .map = map, .opcode = opcode, .modrm = modrm, .asize = 8};

    i.vec = vec_find(map, prefix, opcode, modrm);
    i.mem = modrm >> 6 != 3;
    i.reg = modrm >> 3 & 7;
    i.rm = i.base = modrm & 7;
    i.index = REG_NONE;
    i.seg = SEG_DS;
    return i;
}

static void control_registers_decide(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn sse = insn_of(1, VEC_PREFIX_NONE, 0x58, 0xc1); /* addps */
    struct insn mmx = insn_of(1, VEC_PREFIX_NONE, 0xfc, 0xc1); /* paddb */
    jit_handler *vec = fake_handler(OP_VEC);

    cpu->cr4 &= ~(uint64_t)CR4_OSFXSR;
    assert_int_equal(fake_exec(cpu, vec, &sse), VECTOR_UD);
    assert_int_equal(fake_exec(cpu, vec, &mmx), NO_EXCEPTION);
    cpu->cr4 |= CR4_OSFXSR;
    cpu->cr0 |= CR0_TS;
    assert_int_equal(fake_exec(cpu, vec, &sse), VECTOR_NM);
    assert_int_equal(fake_exec(cpu, vec, &mmx), VECTOR_NM);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_EMMS), &mmx), VECTOR_NM);
    cpu->cr0 |= CR0_EM;
    assert_int_equal(fake_exec(cpu, vec, &sse), VECTOR_UD);
    assert_int_equal(fake_exec(cpu, vec, &mmx), VECTOR_UD);
    cpu->cr0 &= ~(uint64_t)(CR0_EM | CR0_TS);
    /* a pending x87 exception is raised by MMX, not by SSE */
    cpu->fpu.fsw |= 1;
    fpu_set_fcw(&cpu->fpu, FCW_INIT & ~1);
    assert_int_equal(fake_exec(cpu, vec, &sse), NO_EXCEPTION);
    assert_int_equal(fake_exec(cpu, vec, &mmx), VECTOR_MF);
    free(cpu);
}

static void unmasked_exception_without_oxmmexcpt_is_ud(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn div = insn_of(1, VEC_PREFIX_NONE, 0x5e, 0xc1); /* divps xmm0, xmm1 */
    static const float one[4] = {1, 1, 1, 1};

    memcpy(cpu->fpu.xmm[0], one, 16);
    cpu->fpu.mxcsr = MXCSR_INIT & ~(MXCSR_ZE << MXCSR_MASK_SHIFT);
    cpu->cr4 &= ~(uint64_t)CR4_OSXMMEXCPT;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_VEC), &div), VECTOR_UD);
    cpu->cr4 |= CR4_OSXMMEXCPT;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_VEC), &div), VECTOR_XM);
    assert_true(cpu->fpu.mxcsr & MXCSR_ZE);
    assert_memory_equal(cpu->fpu.xmm[0], one, 16);
    free(cpu);
}

static void a_fault_changes_nothing(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn load = insn_of(1, VEC_PREFIX_NONE, 0x10, 0x06);  /* movups xmm0, [rsi] */
    struct insn store = insn_of(1, VEC_PREFIX_NONE, 0x11, 0x06); /* movups [rsi], xmm0 */
    struct insn mmx = insn_of(1, VEC_PREFIX_NONE, 0x7f, 0x06);   /* movq [rsi], mm0 */
    struct jit_fpu before;

    random_state(cpu);
    before = cpu->fpu;
    cpu->gpr[RSI] = (uint64_t)(uintptr_t)fake_memory + FAKE_MEMORY - 4;
    fake_map_tlb(cpu, true);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_VEC), &load), VECTOR_PF);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_VEC), &store), VECTOR_PF);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_VEC), &mmx), VECTOR_PF);
    assert_memory_equal(&cpu->fpu, &before, sizeof(before));
    free(cpu);
}

static void mxcsr_reserved_bits_fault(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn i = {.mem = true, .base = RSI, .index = REG_NONE, .seg = SEG_DS};
    uint32_t value = 0x1f80 | 1 << 16;

    cpu->gpr[RSI] = (uint64_t)(uintptr_t)fake_memory;
    memcpy(fake_memory, &value, 4);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_LDMXCSR), &i), VECTOR_GP);
    value = 0xffff;
    memcpy(fake_memory, &value, 4);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_LDMXCSR), &i), NO_EXCEPTION);
    memset(fake_memory, 0, 8);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_STMXCSR), &i), NO_EXCEPTION);
    assert_memory_equal(fake_memory, "\xff\xff\0\0\0\0\0\0", 8);
    free(cpu);
}

static void find_knows_forms_and_groups(void **state)
{
    assert_string_equal(vec_ops[vec_find(1, VEC_PREFIX_66, 0x73, 0xf9)].name, "pslldq");
    assert_int_equal(vec_find(1, VEC_PREFIX_NONE, 0x73, 0xf9), 0); /* PSLLDQ is not in MMX */
    assert_int_equal(vec_find(1, VEC_PREFIX_66, 0x73, 0x39), 0);   /* and has no memory form */
    assert_int_equal(vec_find(1, VEC_PREFIX_66, 0x12, 0xc1), 0);   /* MOVLPD has no register form */
    assert_int_not_equal(vec_find(1, VEC_PREFIX_NONE, 0x12, 0xc1), 0); /* MOVHLPS */
    assert_int_equal(vec_find(1, VEC_PREFIX_F3, 0xfc, 0xc1), 0);
    for (unsigned n = 1; n < vec_ops_count; n++) {
        const struct vec_op *op = &vec_ops[n];
        uint8_t modrm = (op->mem_size ? 0 : 0xc0) | (op->group > 0 ? op->group << 3 : 0);

        assert_int_equal(vec_find(op->map, op->prefix, op->opcode, modrm), n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(find_knows_forms_and_groups),
        cmocka_unit_test(control_registers_decide),
        cmocka_unit_test(unmasked_exception_without_oxmmexcpt_is_ud),
        cmocka_unit_test(a_fault_changes_nothing),
        cmocka_unit_test(mxcsr_reserved_bits_fault),
        cmocka_unit_test(every_instruction_as_the_host_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * exec_x87_test.c - x87 instructions through exec_x87.c and on the host, in sequences with random
 * control words and operands; exceptions, environments and the images of FXSAVE and XSAVE.
 */
#include "cpu/jit/fpu_test_fake.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SEQUENCES = 20000, LENGTH = 8, OPERAND_AT = 256, OPERAND_MAX = 128 };

static struct insn memory_insn(enum insn_op op, uint8_t opcode, unsigned reg)
{
    return (struct insn){.op = op,
                         .opcode = opcode,
                         .modrm = reg << 3 | RSI,
                         .mem = true,
                         .base = RSI,
                         .index = REG_NONE,
                         .seg = SEG_DS,
                         .asize = 8,
                         .size = 4};
}

static struct insn register_insn(uint8_t opcode, uint8_t modrm)
{
    return (struct insn){.op = OP_X87, .opcode = opcode, .modrm = modrm, .asize = 8, .size = 4};
}

/* Interesting 80-bit values among random ones. */
static void random_extended(uint8_t st[10])
{
    static const uint16_t exponent[] = {0,      1,      0x3fff, 0x7fff, 0x7ffe, 0x4000,
                                        0x3fbf, 0x3c01, 0x43fe, 0x3f81, 0x407e};
    static const uint64_t significand[] = {0,          1ull << 63,     3ull << 62,
                                           ~0ull,      1ull,           0xa000000000000000,
                                           1ull << 62, 1ull << 63 | 1, 1 << 20};
    uint64_t s = test_random() % 2 ? test_random() | 1ull << 63 : significand[test_random() % 9];
    uint16_t e = exponent[test_random() % 11] | (test_random() & 0x8000);

    memcpy(st, &s, 8);
    memcpy(st + 8, &e, 2);
}

static void random_state(struct jit_cpu *cpu)
{
    struct jit_fpu *f = &cpu->fpu;

    fpu_init(f);
    for (unsigned n = 0; n < 8; n++) {
        memset(f->st[n], 0, 16);
        random_extended(f->st[n]);
    }
    f->fsw = test_random() & 0x7f00;
    f->ftw_abridged = test_random() % 2 ? 0xff : test_random();
    fpu_set_fcw(f, test_random() % 2 ? FCW_INIT : test_random());
    cpu->rflags = RFLAGS_FIXED | (test_random() & FLAGS_ARITH);
    for (unsigned n = 0; n < GPR_COUNT; n++)
        cpu->gpr[n] = test_random();
    cpu->gpr[RSI] = (uint64_t)(uintptr_t)fake_memory + OPERAND_AT;
}

static unsigned encode(const struct insn *i, uint8_t *code)
{
    unsigned n = 0;

    if (i->prefix & PREFIX_OPSIZE)
        code[n++] = 0x66;
    code[n++] = i->opcode;
    code[n++] = i->modrm;
    return n;
}

/* Pointers to the last instruction are the host's own in what it stores. */
static bool stores_environment(const struct insn *i)
{
    return i->mem && (i->opcode == 0xd9 || i->opcode == 0xdd) && (i->modrm >> 3 & 7) == 6;
}

static void forget_pointers(const struct insn *i, uint8_t *memory)
{
    if (!stores_environment(i))
        return;
    if (i->prefix & PREFIX_OPSIZE)
        memset(memory + 6, 0, 8);
    else
        memset(memory + 12, 0, 16);
}

static void print_state(const char *who, const struct jit_cpu *cpu, int vector)
{
    print_error("%s: exception %d fcw %04x fsw %04x tags %02x mxcsr %x flags %x ax %x\n", who,
                vector, cpu->fpu.fcw, cpu->fpu.fsw, cpu->fpu.ftw_abridged, cpu->fpu.mxcsr,
                (unsigned)cpu->rflags, (unsigned)(uint16_t)cpu->gpr[RAX]);
    for (unsigned n = 0; n < 8; n++) {
        uint64_t s;
        uint16_t e;

        memcpy(&s, cpu->fpu.st[n], 8);
        memcpy(&e, cpu->fpu.st[n] + 8, 2);
        print_error("  st%u %04x %016lx\n", n, e, s);
    }
}

static void run_both(struct jit_cpu *ours, struct jit_cpu *host, const struct insn *i)
{
    uint8_t code[4], memory[OPERAND_MAX], *operand = fake_memory + OPERAND_AT;
    uint8_t mine[OPERAND_MAX], theirs[OPERAND_MAX];
    unsigned len = encode(i, code);
    struct jit_fpu a, b;
    int vector, host_vector;

    test_random_operand(memory, sizeof(memory));
    if (test_random() % 2)
        random_extended(memory);
    *host = *ours;
    memcpy(operand, memory, sizeof(memory));
    vector = fake_exec(ours, fake_handler(OP_X87), i);
    memcpy(mine, operand, sizeof(memory));
    memcpy(operand, memory, sizeof(memory));
    host_vector = native_exec(host, code, len);
    memcpy(theirs, operand, sizeof(memory));

    forget_pointers(i, mine);
    forget_pointers(i, theirs);
    a = ours->fpu;
    b = host->fpu;
    a.fip = a.fdp = a.fop = b.fip = b.fdp = b.fop = 0;
    if (vector == host_vector && !memcmp(&a, &b, sizeof(a)) && ours->rflags == host->rflags &&
        !memcmp(ours->gpr, host->gpr, sizeof(ours->gpr)) && !memcmp(mine, theirs, sizeof(mine)))
        return;
    print_error("%02x %02x prefix %x\n", i->opcode, i->modrm, i->prefix);
    print_state("ours", ours, vector);
    print_state("host", host, host_vector);
    for (unsigned n = 0; n < sizeof(mine); n++)
        if (mine[n] != theirs[n])
            print_error("memory %u: %02x, host %02x\n", n, mine[n], theirs[n]);
    fail();
}

static struct insn random_insn(void)
{
    uint8_t opcode = 0xd8 | test_random() % 8;
    struct insn i = test_random() % 2 ? memory_insn(OP_X87, opcode, test_random() % 8)
                                      : register_insn(opcode, 0xc0 | test_random() % 64);

    if (stores_environment(&i) && test_random() % 2)
        i.prefix = PREFIX_OPSIZE;
    return i;
}

static void sequences_as_the_host_does(void **state)
{
    struct jit_cpu *ours = fake_cpu_new(), *host = fake_cpu_new();

    for (unsigned n = 0; n < SEQUENCES; n++) {
        random_state(ours);
        for (unsigned k = 0; k < LENGTH; k++) {
            struct insn i = random_insn();

            run_both(ours, host, &i);
        }
    }
    free(ours);
    free(host);
}

static void every_form_as_the_host_does(void **state)
{
    struct jit_cpu *ours = fake_cpu_new(), *host = fake_cpu_new();

    for (unsigned n = 0; n < 8 * 72; n++) {
        uint8_t opcode = 0xd8 | n / 72;
        struct insn i = n % 72 < 64 ? register_insn(opcode, 0xc0 | n % 72)
                                    : memory_insn(OP_X87, opcode, n % 72 - 64);

        for (unsigned round = 0; round < 100; round++) {
            random_state(ours);
            run_both(ours, host, &i);
        }
    }
    free(ours);
    free(host);
}

static void control_registers_decide(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn fld1 = register_insn(0xd9, 0xe8), fninit = register_insn(0xdb, 0xe3);
    struct insn bad = register_insn(0xd9, 0xd1);

    cpu->cr0 |= CR0_TS;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fld1), VECTOR_NM);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fninit), VECTOR_NM);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &bad), VECTOR_UD);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FWAIT), &fld1), VECTOR_NM);
    cpu->cr0 &= ~(uint64_t)CR0_MP;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FWAIT), &fld1), NO_EXCEPTION);
    cpu->cr0 = (cpu->cr0 & ~(uint64_t)CR0_TS) | CR0_EM;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fld1), VECTOR_NM);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXSAVE), &fld1), VECTOR_UD);
    free(cpu);
}

static void pending_exception_waits_for_the_next(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn fldz = register_insn(0xd9, 0xee), fld1 = register_insn(0xd9, 0xe8);
    struct insn fdiv = register_insn(0xd8, 0xf1), fnstsw = register_insn(0xdf, 0xe0);
    struct insn fnclex = register_insn(0xdb, 0xe2);

    fpu_set_fcw(&cpu->fpu, FCW_INIT & ~4); /* divide by zero not masked */
    cpu->rip = 0x123456789000;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fldz), NO_EXCEPTION);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fld1), NO_EXCEPTION);
    cpu->rip += 2;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fdiv), NO_EXCEPTION);
    assert_int_equal(cpu->fpu.fip, 0x123456789002);
    assert_int_equal(cpu->fpu.fop, 0x0f1);
    cpu->rip += 2;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FWAIT), &fldz), VECTOR_MF);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fldz), VECTOR_MF);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fnstsw), NO_EXCEPTION);
    assert_int_equal(cpu->gpr[RAX] & 0x80bf, 0x8084);
    assert_int_equal(cpu->fpu.fip, 0x123456789002); /* control instructions leave it */
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fnclex), NO_EXCEPTION);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FWAIT), &fldz), NO_EXCEPTION);
    free(cpu);
}

static void a_faulting_store_changes_nothing(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn fistp = memory_insn(OP_X87, 0xdf, 7);
    struct jit_fpu before;

    random_state(cpu);
    fpu_set_fcw(&cpu->fpu, FCW_INIT);
    cpu->gpr[RSI] = 0x1000;
    before = cpu->fpu;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fistp), VECTOR_PF);
    assert_memory_equal(&cpu->fpu, &before, sizeof(before));
    free(cpu);
}

static void environment_layouts(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn fnstenv = memory_insn(OP_X87, 0xd9, 6), fldenv = memory_insn(OP_X87, 0xd9, 4);
    uint8_t *m = fake_memory + OPERAND_AT;
    static const uint8_t real16[14] = {0x7f, 3,    0,    0,    0xff, 0xff, 0x78,
                                       0x56, 0x23, 0x41, 0xbc, 0x9a, 0x00, 0xf0};

    cpu->gpr[RSI] = (uint64_t)(uintptr_t)m;
    cpu->fpu.fip = 0x45678;
    cpu->fpu.fdp = 0xf9abc;
    cpu->fpu.fop = 0x123;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fnstenv), NO_EXCEPTION);
    assert_memory_equal(m + 12, "\x78\x56\x04\x00\x00\x00\x23\x01\xbc\x9a\x0f\x00\x00\x00\xff\xff",
                        16);
    cpu->code_width = CODE_16;
    cpu->cr0 = 0;
    cpu->gpr[RSI] = (uint64_t)(uintptr_t)m;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fnstenv), NO_EXCEPTION);
    assert_memory_equal(m, real16, sizeof(real16));
    cpu->fpu.fip = cpu->fpu.fdp = cpu->fpu.fop = 0;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_X87), &fldenv), NO_EXCEPTION);
    assert_int_equal(cpu->fpu.fip, 0x45678);
    assert_int_equal(cpu->fpu.fdp, 0xf9abc);
    assert_int_equal(cpu->fpu.fop, 0x123);
    free(cpu);
}

static void fxsave_and_back(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn save = memory_insn(OP_FXSAVE, 0xae, 0), restore = memory_insn(OP_FXRSTOR, 0xae, 1);
    uint8_t *m = fake_memory + 512;
    struct jit_fpu before;
    uint32_t bad = 0x10000;

    random_state(cpu);
    cpu->fpu.fip = 0x123456789abc;
    cpu->fpu.fdp = 0x43210;
    for (unsigned n = 0; n < 16; n++)
        test_random_operand(cpu->fpu.xmm[n], 16);
    before = cpu->fpu;
    memset(m, 0xaa, 512);
    save.prefix = restore.prefix = PREFIX_REX_W;
    cpu->gpr[RSI] = (uint64_t)(uintptr_t)m;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXSAVE), &save), NO_EXCEPTION);
    assert_int_equal(m[28], 0xff); /* MXCSR_MASK */
    for (unsigned n = FPU_IMAGE_BYTES_64; n < 512; n++)
        assert_int_equal(m[n], 0xaa);
    fpu_init(&cpu->fpu);
    memset(cpu->fpu.xmm, 0, sizeof(cpu->fpu.xmm));
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXRSTOR), &restore), NO_EXCEPTION);
    assert_memory_equal(&cpu->fpu, &before, sizeof(before));

    memcpy(m + 24, &bad, 4);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXRSTOR), &restore), VECTOR_GP);
    cpu->gpr[RSI] += 8;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXSAVE), &save), VECTOR_GP);

    /* outside 64-bit mode XMM8 to XMM15 stay where they are */
    cpu->gpr[RSI] -= 8;
    cpu->code_width = CODE_32;
    save.prefix = restore.prefix = 0;
    memset(m, 0xaa, 512);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXSAVE), &save), NO_EXCEPTION);
    assert_int_equal(m[FPU_IMAGE_BYTES_32], 0xaa);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_FXRSTOR), &restore), NO_EXCEPTION);
    assert_memory_equal(cpu->fpu.xmm, before.xmm, sizeof(before.xmm));
    assert_int_equal(cpu->fpu.fip, 0x56789abc);
    free(cpu);
}

static void hostile_images_become_valid(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new(), *host = fake_cpu_new();

    for (unsigned n = 0; n < 2000; n++) {
        uint8_t image[FPU_IMAGE_SIZE];

        for (unsigned k = 0; k < sizeof(image); k += 8)
            test_random_operand(image + k, 8);
        fpu_set_image(&cpu->fpu, image, FPU_PART_ALL);
        *host = *cpu;
        /* as the host would hold it: one that loads and stores it finds nothing to change */
        assert_int_equal(native_exec(host, (const uint8_t *)"\x90", 1), NO_EXCEPTION);
        assert_memory_equal(&host->fpu, &cpu->fpu, sizeof(cpu->fpu));
    }
    free(cpu);
    free(host);
}

static void xsave_and_xrstor(void **state)
{
    struct jit_cpu *cpu = fake_cpu_new();
    struct insn save = memory_insn(OP_XSAVE, 0xae, 4), restore = memory_insn(OP_XRSTOR, 0xae, 5);
    uint8_t *m = fake_memory + 1024;
    struct jit_fpu before;

    random_state(cpu);
    before = cpu->fpu;
    save.prefix = restore.prefix = PREFIX_REX_W;
    memset(m, 0, 576);
    cpu->gpr[RSI] = (uint64_t)(uintptr_t)m;
    cpu->gpr[RAX] = 0xffffffff;
    cpu->gpr[RDX] = 0xffffffff;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XSAVE), &save), NO_EXCEPTION);
    assert_int_equal(m[512], 3);
    memset(cpu->fpu.xmm, 1, sizeof(cpu->fpu.xmm));
    cpu->gpr[RAX] = 1; /* x87 only */
    fpu_init(&cpu->fpu);
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XRSTOR), &restore), NO_EXCEPTION);
    assert_memory_equal(&cpu->fpu, &before, offsetof(struct jit_fpu, xmm));
    assert_int_equal(cpu->fpu.xmm[0][0], 1);
    m[512] = 0; /* nothing there: initial configuration */
    cpu->gpr[RAX] = 3;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XRSTOR), &restore), NO_EXCEPTION);
    assert_int_equal(cpu->fpu.fcw, FCW_INIT);
    assert_int_equal(cpu->fpu.xmm[15][0], 0);
    m[512] = 4; /* AVX is not in XCR0 */
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XRSTOR), &restore), VECTOR_GP);
    m[512] = 3;
    m[520] = 1;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XRSTOR), &restore), VECTOR_GP);
    m[520] = 0;
    cpu->gpr[RSI] += 16;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XSAVE), &save), VECTOR_GP);
    cpu->cr4 &= ~(uint64_t)CR4_OSXSAVE;
    assert_int_equal(fake_exec(cpu, fake_handler(OP_XSAVE), &save), VECTOR_UD);
    free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_registers_decide),
        cmocka_unit_test(pending_exception_waits_for_the_next),
        cmocka_unit_test(a_faulting_store_changes_nothing),
        cmocka_unit_test(environment_layouts),
        cmocka_unit_test(fxsave_and_back),
        cmocka_unit_test(hostile_images_become_valid),
        cmocka_unit_test(xsave_and_xrstor),
        cmocka_unit_test(every_form_as_the_host_does),
        cmocka_unit_test(sequences_as_the_host_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

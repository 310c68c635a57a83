/*
 * exec_flow_test.c - what cannot be compared with the host in a process: branches, and the stack
 * and segments of 16- and 32-bit code.
 */
#include <stdarg.h>

#include "cpu/jit/test_flat.h"

#include <cmocka.h>

static void execute(const struct insn *i)
{
    flat_execute(jit_handler_for(i), i);
}

/* --- Branches -------------------------------------------------------------------------------- */

static void conditional_branches(void **state)
{
    flat_reset_64();
    for (unsigned flags = 0; flags < 64; flags++) {
        uint64_t rflags = (flags & 1 ? FLAG_CF : 0) | (flags & 2 ? FLAG_PF : 0) |
                          (flags & 4 ? FLAG_ZF : 0) | (flags & 8 ? FLAG_SF : 0) |
                          (flags & 16 ? FLAG_OF : 0) | (flags & 32 ? FLAG_AF : 0);

        for (unsigned cond = 0; cond < 16; cond++) {
            struct insn set = {.op = OP_SETCC, .form = FORM_RM, .size = 1, .cond = (uint8_t)cond};
            struct insn jump = {.op = OP_JCC,
                                .form = FORM_REL,
                                .size = 8,
                                .len = 2,
                                .imm = 0x10,
                                .cond = (uint8_t)cond};

            flat.cpu->rflags = rflags | RFLAGS_FIXED;
            execute(&set);
            flat.cpu->rip = 0x1000;
            flat_execute(jit_handlers[OP_JCC], &jump);
            assert_int_equal(flat.cpu->rip, flat.cpu->gpr[RAX] ? 0x1012 : 0x1002);
            flat.cpu->rip = 0x1000;
            execute(&jump);
            assert_int_equal(flat.cpu->rip, flat.cpu->gpr[RAX] ? 0x1012 : 0x1002);
        }
    }
}

static void branches_check_their_target(void **state)
{
    struct insn jump = {.op = OP_JMP, .form = FORM_RM, .size = 8, .len = 2, .rm = RBX};

    flat_reset_64();
    flat.cpu->gpr[RBX] = 0x0000800000000000;
    execute(&jump);
    assert_int_equal(flat.vector, VECTOR_GP);
    assert_int_equal(flat.cpu->rip, 0);
    flat.cpu->gpr[RBX] = 0xffff800000000000;
    execute(&jump);
    assert_int_equal(flat.cpu->rip, 0xffff800000000000);

    flat_reset_legacy(16);
    flat.cpu->seg[SEG_CS].limit = 0xfff;
    jump = (struct insn){.op = OP_JMP, .form = FORM_REL, .size = 2, .len = 3, .imm = 0xffc};
    execute(&jump);
    assert_int_equal(flat.cpu->rip, 0xfff);
    flat.cpu->rip = 1;
    execute(&jump);
    assert_int_equal(flat.vector, VECTOR_GP);
    flat.cpu->rip = 0x10; /* wraps at 64 KiB */
    jump.imm = (uint64_t)-0x13;
    execute(&jump);
    assert_int_equal(flat.cpu->rip, 0);
}

static void calls_and_returns(void **state)
{
    const struct insn call = {.op = OP_CALL, .form = FORM_REL, .size = 8, .len = 5, .imm = 0x100};
    const struct insn ret = {.op = OP_RET, .form = FORM_IMM, .size = 8, .len = 3, .imm = 0x20};

    flat_reset_64();
    flat.cpu->rip = 0x4000;
    flat.cpu->gpr[RSP] = flat_linear(256);
    execute(&call);
    assert_int_equal(flat.cpu->rip, 0x4105);
    assert_int_equal(flat.cpu->gpr[RSP], flat_linear(248));
    assert_int_equal(flat_peek(248, 8), 0x4005);
    execute(&ret);
    assert_int_equal(flat.cpu->rip, 0x4005);
    assert_int_equal(flat.cpu->gpr[RSP], flat_linear(256 + 0x20));

    /* A stack that is not there: nothing moves. */
    flat.cpu->gpr[RSP] = flat_linear(0);
    execute(&call);
    assert_int_equal(flat.vector, VECTOR_PF);
    assert_int_equal(flat.code & PF_WRITE, PF_WRITE);
    assert_int_equal(flat.cpu->gpr[RSP], flat_linear(0));
    assert_int_equal(flat.cpu->rip, 0x4005);

    flat_poke(512, 1ull << 50, 8);
    flat.cpu->gpr[RSP] = flat_linear(512);
    execute(&ret);
    assert_int_equal(flat.vector, VECTOR_GP);
    assert_int_equal(flat.cpu->gpr[RSP], flat_linear(512));
}

static void loops_count_in_the_address_size(void **state)
{
    struct insn loop = {
        .op = OP_LOOP, .form = FORM_REL, .size = 8, .asize = 4, .len = 3, .imm = (uint64_t)-3};
    struct insn jcxz = {.op = OP_JCXZ, .form = FORM_REL, .size = 8, .asize = 8, .len = 2, .imm = 8};

    flat_reset_64();
    flat.cpu->rip = 0x100;
    flat.cpu->gpr[RCX] = 0xabcd00000002;
    execute(&loop);
    assert_int_equal(flat.cpu->rip, 0x100);
    assert_int_equal(flat.cpu->gpr[RCX], 1);
    execute(&loop);
    assert_int_equal(flat.cpu->rip, 0x103);
    assert_int_equal(flat.cpu->gpr[RCX], 0);
    flat.cpu->gpr[RCX] = 1ull << 32;
    execute(&jcxz);
    assert_int_equal(flat.cpu->rip, 0x105);
    jcxz.asize = 4;
    execute(&jcxz);
    assert_int_equal(flat.cpu->rip, 0x10f);

    loop.op = OP_LOOPNE;
    flat.cpu->gpr[RCX] = 5;
    flat.cpu->rflags |= FLAG_ZF;
    flat.cpu->rip = 0x100;
    execute(&loop);
    assert_int_equal(flat.cpu->rip, 0x103);
    assert_int_equal(flat.cpu->gpr[RCX], 4);
}

/* --- Stack and segments ---------------------------------------------------------------------- */

static void a_16_bit_stack_moves_sp_only(void **state)
{
    const struct insn push = {.op = OP_PUSH, .form = FORM_IMM, .size = 4, .imm = 0x11223344};
    const struct insn pop = {.op = OP_POP, .form = FORM_RM, .size = 2, .rm = RSP};

    flat_reset_legacy(16);
    flat.cpu->seg[SEG_SS].base = flat_linear(0);
    flat.cpu->seg[SEG_SS].limit = 0x3fff;
    flat.cpu->gpr[RSP] = 0xaaaa0004;
    execute(&push);
    assert_int_equal(flat.vector, FLAT_NONE);
    assert_int_equal(flat.cpu->gpr[RSP], 0xaaaa0000);
    assert_int_equal(flat_peek(0, 4), 0x11223344);
    execute(&push); /* at fffc: beyond the limit */
    assert_int_equal(flat.vector, VECTOR_SS);
    assert_int_equal(flat.cpu->gpr[RSP], 0xaaaa0000);
    execute(&pop);
    assert_int_equal(flat.cpu->gpr[RSP], 0xaaaa3344);
}

static void all_registers_on_the_stack(void **state)
{
    const struct insn pusha = {.op = OP_PUSHA, .size = 4}, popa = {.op = OP_POPA, .size = 4};

    flat_reset_legacy(32);
    for (unsigned reg = RAX; reg <= RDI; reg++)
        flat.cpu->gpr[reg] = 0x1000 + reg;
    flat.cpu->gpr[RSP] = flat_linear(64);
    execute(&pusha);
    assert_int_equal(flat.cpu->gpr[RSP], flat_linear(32));
    assert_int_equal(flat_peek(60, 4), 0x1000 + RAX);
    assert_int_equal(flat_peek(32 + 12, 4), flat_linear(64));
    assert_int_equal(flat_peek(32, 4), 0x1000 + RDI);
    for (unsigned reg = RAX; reg <= RDI; reg++)
        flat.cpu->gpr[reg] = reg == RSP ? flat_linear(32) : 0;
    execute(&popa);
    for (unsigned reg = RAX; reg <= RDI; reg++)
        assert_int_equal(flat.cpu->gpr[reg], reg == RSP ? flat_linear(64) : 0x1000 + reg);
}

/* A load or store of four bytes at an offset of a segment: the vector it raises. */
static int access_vector(unsigned seg, uint32_t offset, bool write)
{
    const struct insn i = {.op = OP_MOV,
                           .form = write ? FORM_RM_REG : FORM_REG_RM,
                           .size = 4,
                           .asize = 4,
                           .mem = true,
                           .seg = (uint8_t)seg,
                           .base = RBX,
                           .index = REG_NONE};

    flat.cpu->gpr[RBX] = offset;
    execute(&i);
    return flat.vector;
}

static void segments_are_checked(void **state)
{
    struct segment *ds, *ss, *cs;

    flat_reset_legacy(32);
    ds = &flat.cpu->seg[SEG_DS];
    ss = &flat.cpu->seg[SEG_SS];
    cs = &flat.cpu->seg[SEG_CS];
    ds->base = ss->base = cs->base = flat_linear(0);
    ds->limit = ss->limit = 0xfff;

    assert_int_equal(access_vector(SEG_DS, 0xffc, false), FLAT_NONE);
    assert_int_equal(access_vector(SEG_DS, 0xffd, false), VECTOR_GP);
    assert_int_equal(access_vector(SEG_SS, 0xffd, true), VECTOR_SS);
    assert_int_equal(access_vector(SEG_DS, 0xfffffffe, false), VECTOR_GP);

    assert_int_equal(access_vector(SEG_CS, 0, false), FLAT_NONE);
    assert_int_equal(access_vector(SEG_CS, 0, true), VECTOR_GP);
    cs->attr &= ~2; /* execute only */
    assert_int_equal(access_vector(SEG_CS, 0, false), VECTOR_GP);
    flat.cpu->cr0 &= ~(uint64_t)CR0_PE; /* real mode */
    assert_int_equal(access_vector(SEG_CS, 0, true), FLAT_NONE);
    flat.cpu->cr0 |= CR0_PE;

    ds->attr &= ~2; /* read only */
    assert_int_equal(access_vector(SEG_DS, 0, false), FLAT_NONE);
    assert_int_equal(access_vector(SEG_DS, 0, true), VECTOR_GP);
    ds->attr |= 6; /* expand-down, writable: above the limit */
    assert_int_equal(access_vector(SEG_DS, 0xffc, false), VECTOR_GP);
    assert_int_equal(access_vector(SEG_DS, 0x1000, true), FLAT_NONE);
    ds->attr |= SEG_UNUSABLE;
    assert_int_equal(access_vector(SEG_DS, 0x1000, false), VECTOR_GP);
}

static void addresses_are_canonical(void **state)
{
    struct insn i = {.op = OP_MOV,
                     .form = FORM_REG_RM,
                     .size = 8,
                     .asize = 8,
                     .mem = true,
                     .seg = SEG_DS,
                     .base = RBX,
                     .index = REG_NONE};

    flat_reset_64();
    flat.cpu->gpr[RBX] = 0x00007ffffffffff9; /* the last byte is beyond */
    execute(&i);
    assert_int_equal(flat.vector, VECTOR_GP);
    flat.cpu->gpr[RBX] = 0x8000000000000000; /* what an empty TLB entry holds */
    execute(&i);
    assert_int_equal(flat.vector, VECTOR_GP);
    i.seg = SEG_SS;
    execute(&i);
    assert_int_equal(flat.vector, VECTOR_SS);
    flat.cpu->seg[SEG_FS].base = flat_linear(0);
    flat.cpu->gpr[RBX] = 64;
    flat_poke(64, 0x123456789, 8);
    i.seg = SEG_FS;
    execute(&i);
    assert_int_equal(flat.vector, FLAT_NONE);
    assert_int_equal(flat.cpu->gpr[RAX], 0x123456789);

    flat.cpu->gpr[RBX] = flat_linear(8);
    i = (struct insn){.op = OP_CMPXCHG16B,
                      .form = FORM_RM,
                      .size = 8,
                      .asize = 8,
                      .mem = true,
                      .seg = SEG_DS,
                      .base = RBX,
                      .index = REG_NONE};
    execute(&i);
    assert_int_equal(flat.vector, VECTOR_GP);
}

/* MOV with a 64-bit offset in the instruction: the address is the immediate. */
static void whole_addresses_in_the_instruction(void **state)
{
    const struct insn i = {.op = OP_MOV,
                           .form = FORM_RM_REG,
                           .size = 4,
                           .asize = 8,
                           .mem = true,
                           .seg = SEG_DS,
                           .base = REG_NONE,
                           .index = REG_NONE,
                           .opcode = 0xa3,
                           .imm = flat_linear(128)};

    flat_reset_64();
    flat.cpu->gpr[RAX] = 0xcafe;
    execute(&i);
    assert_int_equal(flat.vector, FLAT_NONE);
    assert_int_equal(flat_peek(128, 4), 0xcafe);
}

/* --- Software interrupts
 * ----------------------------------------------------------------------------- */

static void software_interrupts(void **state)
{
    const struct insn n = {.op = OP_INT, .form = FORM_IMM, .imm = 0x80}, into = {.op = OP_INTO};
    const struct insn bound = {.op = OP_BOUND,
                               .form = FORM_REG_RM,
                               .size = 2,
                               .asize = 4,
                               .mem = true,
                               .seg = SEG_DS,
                               .base = RBX,
                               .index = REG_NONE};

    flat_reset_legacy(32);
    execute(&n);
    assert_int_equal(flat.interrupt, 0x80);
    flat.cpu->rflags |= RFLAGS_VM;
    execute(&n);
    assert_int_equal(flat.vector, VECTOR_GP);
    execute(&into);
    assert_int_equal(flat.interrupt, FLAT_NONE);
    flat.cpu->rflags = RFLAGS_FIXED | FLAG_OF;
    execute(&into);
    assert_int_equal(flat.interrupt, VECTOR_OF);

    flat.cpu->gpr[RBX] = flat_linear(0);
    flat_poke(0, (uint16_t)-5 | 7u << 16, 4);
    for (int index = -7; index < 10; index++) {
        flat.cpu->gpr[RAX] = (uint16_t)index;
        execute(&bound);
        assert_int_equal(flat.vector, index < -5 || index > 7 ? VECTOR_BR : FLAT_NONE);
    }
}

static int setup(void **state)
{
    flat_open();
    return 0;
}

static int teardown(void **state)
{
    flat_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conditional_branches),
        cmocka_unit_test(branches_check_their_target),
        cmocka_unit_test(calls_and_returns),
        cmocka_unit_test(loops_count_in_the_address_size),
        cmocka_unit_test(a_16_bit_stack_moves_sp_only),
        cmocka_unit_test(all_registers_on_the_stack),
        cmocka_unit_test(segments_are_checked),
        cmocka_unit_test(addresses_are_canonical),
        cmocka_unit_test(whole_addresses_in_the_instruction),
        cmocka_unit_test(software_interrupts),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

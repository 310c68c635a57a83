/*
 * exec_flags_test.c - privileges of flags and ports, and repetitions that are interrupted.
 */
#include <stdarg.h>

#include "cpu/jit/test_flat.h"

#include <cmocka.h>

static void execute(const struct insn *i)
{
    flat_execute(jit_handler_for(i), i);
}

/* --- Flags ----------------------------------------------------------------------------------- */

static uint64_t popped(uint64_t value, uint64_t rflags, unsigned cpl, unsigned size)
{
    const struct insn popf = {.op = OP_POPF, .size = (uint8_t)size};

    flat_poke(64, value, 8);
    flat.cpu->gpr[RSP] = flat_linear(64) - flat.cpu->seg[SEG_SS].base;
    flat.cpu->rflags = rflags | RFLAGS_FIXED;
    flat.cpu->cpl = (uint8_t)cpl;
    execute(&popf);
    return flat.cpu->rflags;
}

static void popf_respects_privilege(void **state)
{
    const uint64_t user =
        FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | RFLAGS_ID | RFLAGS_FIXED;

    flat_reset_64();
    assert_int_equal(popped(~0ull, RFLAGS_RF, 0, 8), user | RFLAGS_IF | RFLAGS_IOPL);
    assert_int_equal(popped(~0ull, 0, 3, 8), user);
    assert_int_equal(popped(0, RFLAGS_IF, 3, 8), RFLAGS_IF | RFLAGS_FIXED);
    assert_int_equal(popped(0, RFLAGS_IF | RFLAGS_IOPL, 3, 8), RFLAGS_IOPL | RFLAGS_FIXED);
    assert_int_equal(popped(0xffff0000, RFLAGS_AC, 0, 2), RFLAGS_AC | RFLAGS_FIXED);

    flat_reset_legacy(16); /* virtual-8086 mode: #GP unless IOPL is 3 or CR4.VME is set */
    flat.cpu->seg[SEG_SS].base = flat_linear(0);
    popped(0, RFLAGS_VM, 3, 2);
    assert_int_equal(flat.vector, VECTOR_GP);
    flat.cpu->cr4 = CR4_VME;
    assert_int_equal(popped(RFLAGS_IF, RFLAGS_VM, 3, 2), RFLAGS_VM | RFLAGS_VIF | RFLAGS_FIXED);
    popped(RFLAGS_IF, RFLAGS_VM | RFLAGS_VIP, 3, 2);
    assert_int_equal(flat.vector, VECTOR_GP);
}

static void interrupt_flag_respects_privilege(void **state)
{
    const struct insn cli = {.op = OP_CLI}, sti = {.op = OP_STI};

    flat_reset_64();
    execute(&sti);
    assert_int_equal(flat.cpu->rflags & RFLAGS_IF, RFLAGS_IF);
    assert_int_equal(flat.cpu->shadow, 2);
    assert_int_equal(flat.cpu->attention & ATTENTION_TRACE, ATTENTION_TRACE);
    flat.cpu->shadow = 0;
    execute(&sti); /* already on: no shadow */
    assert_int_equal(flat.cpu->shadow, 0);
    flat.cpu->cpl = 3;
    execute(&cli);
    assert_int_equal(flat.vector, VECTOR_GP);
    assert_int_equal(flat.cpu->rflags & RFLAGS_IF, RFLAGS_IF);
    flat.cpu->cr4 = CR4_PVI;
    flat.cpu->rflags |= RFLAGS_VIF;
    execute(&cli);
    assert_int_equal(flat.cpu->rflags & (RFLAGS_IF | RFLAGS_VIF), RFLAGS_IF);
    flat.cpu->rflags |= RFLAGS_VIP;
    execute(&sti);
    assert_int_equal(flat.vector, VECTOR_GP);
    flat.cpu->rflags |= RFLAGS_IOPL;
    execute(&cli);
    assert_int_equal(flat.vector, FLAT_NONE);
    assert_int_equal(flat.cpu->rflags & RFLAGS_IF, 0);
}

static void access_to_user_pages(void **state)
{
    const struct insn stac = {.op = OP_STAC}, clac = {.op = OP_CLAC};

    flat_reset_64();
    execute(&stac);
    assert_int_equal(flat.cpu->rflags, RFLAGS_AC | RFLAGS_FIXED);
    execute(&clac);
    assert_int_equal(flat.cpu->rflags, RFLAGS_FIXED);
    flat.cpu->cpl = 3;
    execute(&stac);
    assert_int_equal(flat.vector, VECTOR_UD);
    assert_int_equal(flat.cpu->rflags, RFLAGS_FIXED);
}

/* --- Ports ----------------------------------------------------------------------------------- */

static void ports(void **state)
{
    const struct insn in = {.op = OP_IN, .form = FORM_RM, .size = 4};
    const struct insn out = {.op = OP_OUT, .form = FORM_RM_IMM, .size = 1, .imm = 0x70};

    flat_reset_64();
    flat.cpu->gpr[RDX] = 0x10cf8;
    flat.cpu->gpr[RAX] = ~0ull;
    memcpy(flat.port_data, "\x11\x22\x33\x84", 4);
    execute(&in);
    assert_int_equal(flat.served.pio.port, 0xcf8);
    assert_int_equal(flat.cpu->gpr[RAX], 0x84332211);
    execute(&out);
    assert_int_equal(flat.served.pio.port, 0x70);
    assert_int_equal(flat.served.pio.size, 1);
    assert_int_equal(flat.port_data[0], 0x11);
    flat.io_denied = true;
    flat.serves = 0;
    execute(&in);
    assert_int_equal(flat.vector, VECTOR_GP);
    assert_int_equal(flat.serves, 0);
}

static void string_ports(void **state)
{
    const struct insn ins = {.op = OP_INS, .size = 2, .asize = 8, .prefix = PREFIX_REP, .len = 3};
    const struct insn outs = {
        .op = OP_OUTS, .size = 1, .asize = 8, .prefix = PREFIX_REP, .len = 2, .seg = SEG_DS};

    flat_reset_64();
    for (unsigned n = 0; n < sizeof(flat.port_data); n++)
        flat.port_data[n] = (uint8_t)n;
    flat.cpu->gpr[RDI] = flat_linear(4096 - 6);
    flat.cpu->gpr[RCX] = 200;
    execute(&ins);
    assert_int_equal(flat.cpu->gpr[RCX], 0);
    assert_int_equal(flat.cpu->gpr[RDI], flat_linear(4096 - 6 + 400));
    assert_memory_equal(flat.memory + 4096 - 6, flat.port_data, 6);
    assert_memory_equal(flat.memory + 4096, flat.port_data, 256);

    /* Memory is checked before the port is read. */
    flat.cpu->gpr[RDI] = flat_linear(FLAT_SIZE);
    flat.cpu->gpr[RCX] = 1;
    flat.serves = 0;
    execute(&ins);
    assert_int_equal(flat.vector, VECTOR_PF);
    assert_int_equal(flat.serves, 0);

    /* Somebody wants attention after the second request. */
    flat.cpu->gpr[RSI] = flat_linear(0);
    flat.cpu->gpr[RCX] = 1000;
    flat.cpu->rip = 0x500;
    flat.attention_after = 2;
    execute(&outs);
    assert_int_equal(flat.cpu->gpr[RCX], 1000 - 512);
    assert_int_equal(flat.cpu->gpr[RSI], flat_linear(512));
    assert_int_equal(flat.cpu->rip, 0x500);
    flat.cpu->attention = 0;
    execute(&outs);
    assert_int_equal(flat.cpu->gpr[RCX], 0);
    assert_int_equal(flat.cpu->rip, 0x502);
}

/* --- Repetition ------------------------------------------------------------------------------ */

static void repetitions_are_interrupted(void **state)
{
    const struct insn movs = {
        .op = OP_MOVS, .size = 4, .asize = 8, .prefix = PREFIX_REP, .len = 2, .seg = SEG_DS};

    flat_reset_64();
    flat.cpu->rip = 0x100;
    flat.cpu->gpr[RSI] = flat_linear(FLAT_SIZE / 2);
    flat.cpu->gpr[RDI] = flat_linear(16);
    flat.cpu->gpr[RCX] = 100;
    flat.attention_after = 10;
    execute(&movs);
    assert_int_equal(flat.cpu->gpr[RCX], 90);
    assert_int_equal(flat.cpu->gpr[RSI], flat_linear(FLAT_SIZE / 2 + 40));
    assert_int_equal(flat.cpu->gpr[RDI], flat_linear(16 + 40));
    assert_int_equal(flat.cpu->rip, 0x100);
    flat.cpu->attention = ATTENTION_TRACE; /* one element at a time */
    execute(&movs);
    assert_int_equal(flat.cpu->gpr[RCX], 89);
    assert_int_equal(flat.cpu->rip, 0x100);
    flat.cpu->gpr[RCX] = 1;
    execute(&movs);
    assert_int_equal(flat.cpu->rip, 0x102);
}

/* With 16-bit addresses the index wraps inside the segment. */
static void indexes_wrap(void **state)
{
    const struct insn stos = {.op = OP_STOS, .size = 1, .asize = 2, .prefix = PREFIX_REP, .len = 2};

    flat_reset_legacy(16);
    flat.cpu->seg[SEG_ES].base = flat_linear(0) - 0xff80; /* ES:ff80 is the first byte of memory */
    flat.cpu->gpr[RDI] = 0xfff0;
    flat.cpu->gpr[RCX] = 17;
    flat.cpu->gpr[RAX] = 0x77;
    flat_poke(0x70, 0, 8);
    flat_poke(0x80, 0, 8);
    execute(&stos); /* the seventeenth goes to ES:0000, which is not there */
    assert_int_equal(flat.vector, VECTOR_PF);
    assert_int_equal(flat.cpu->gpr[RCX], 1);
    assert_int_equal(flat.cpu->gpr[RDI], 0);
    assert_int_equal(flat_peek(0x7f, 2), 0x77);
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
        cmocka_unit_test(popf_respects_privilege),
        cmocka_unit_test(interrupt_flag_respects_privilege),
        cmocka_unit_test(access_to_user_pages),
        cmocka_unit_test(ports),
        cmocka_unit_test(string_ports),
        cmocka_unit_test(repetitions_are_interrupted),
        cmocka_unit_test(indexes_wrap),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}

/*
 * debug.c - single steps, breakpoints, the debug registers (SDM vol 3 chapter 17; APM vol 2 §13.1).
 *
 * A handler notes where each #DB came and what DR6 said, and goes on.
 */
#include "cpu.h"
#include "tests64.h"

enum { DR6_B0 = 1, DR6_BD = 1 << 13, DR6_BS = 1 << 14, DR6_TOLD = 0xe00f, NOTES = 16 };
enum { EXECUTE = 0, WRITE = 1, PORT = 2, ACCESS = 3 };
enum { DR7_GD = 1 << 13, DR7_FIXED = 1 << 10 };

static struct note {
    uint64_t rip, dr6, rflags;
} notes[NOTES];
static unsigned noted;

static bool on_debug(struct trap *t)
{
    if (noted < NOTES)
        notes[noted] = (struct note){t->rip, t->dr6 & DR6_TOLD, t->rflags};
    noted++;
    write_dr6(0);
    return true;
}

/* Breakpoints of instructions come as faults whose RF is not set (SDM vol 3 §17.3.1.1): the handler
 * sets it, so that the instruction runs. */
static bool on_breakpoint(struct trap *t)
{
    on_debug(t);
    t->rflags |= RFLAGS_RF;
    return true;
}

static void watch_start(void)
{
    noted = 0;
    memset(notes, 0, sizeof(notes));
    write_dr6(0);
    trap_handle(VECTOR_DB, on_debug);
}

/* Breakpoint n, local and exact. */
static void breakpoint(unsigned n, uint64_t at, unsigned kind, unsigned length)
{
    const unsigned len = length == 8 ? 2 : length - 1;

    if (n == 0)
        write_dr0(at);
    else if (n == 1)
        write_dr1(at);
    else if (n == 2)
        write_dr2(at);
    else
        write_dr3(at);
    write_dr7((read_dr7() & ~(0xfull << (16 + 4 * n))) | 1u << 2 * n |
              (uint64_t)(kind | len << 2) << (16 + 4 * n));
}

static void check_note(unsigned n, const char *code, unsigned offset, uint64_t dr6)
{
    check("rip, from the start of the code", offset, notes[n].rip - (uint64_t)code);
    check("dr6", dr6, notes[n].dr6);
}

/* ---- single step
 * --------------------------------------------------------------------------------- */

/* Sets TF by POPF, which is not stepped itself. */
#define TF_ON  "pushfq; orl $0x100, (%rsp); popfq;"   /* 9 bytes */
#define TF_OFF "pushfq; andl $~0x100, (%rsp); popfq;" /* 1, 7 and 1 bytes */
enum { TF_ON_SIZE = 9 };

static void single_step(void)
{
    struct trap t;

    CODE(step_nops, TF_ON "nop; nop; mov $7, %eax;" TF_OFF "ret");
    watch_start();
    t = probe(step_nops, 0, 0);
    check_no_trap(&t);
    check_note(0, step_nops, TF_ON_SIZE + 1, DR6_BS);
    check_note(1, step_nops, TF_ON_SIZE + 2, DR6_BS);
    check_note(2, step_nops, TF_ON_SIZE + 7, DR6_BS);
    check_note(5, step_nops, TF_ON_SIZE + 16, DR6_BS); /* behind the POPF that cleared it */
    check("steps", 6, noted);
    check("TF as pushed", RFLAGS_TF, notes[0].rflags & RFLAGS_TF);
    check("RF as pushed", 0, notes[0].rflags & RFLAGS_RF);
}

static void step_over_exception(void)
{
    CODE(step_int3, TF_ON "int3; nop;" TF_OFF "ret");
    struct trap t;

    watch_start();
    trap_handle(VECTOR_BP, on_debug); /* notes and returns, too */
    t = probe(step_int3, 0, 0);
    check_no_trap(&t);
    check("INT3 itself", TF_ON_SIZE + 1, notes[0].rip - (uint64_t)step_int3);
    check("its DR6", 0, notes[0].dr6);
    check_note(1, step_int3, TF_ON_SIZE + 2,
               DR6_BS); /* no step of INT3, one of the NOP behind IRET */
}

static void step_mov_ss(void)
{
    struct trap t;

    CODE(step_ss, "mov %ss, %eax;" TF_ON "mov %eax, %ss; nop; nop;" TF_OFF "ret");
    watch_start();
    t = probe(step_ss, 0, 0);
    check_no_trap(&t);
    check_note(0, step_ss, 2 + TF_ON_SIZE + 3, DR6_BS); /* MOV SS and the NOP behind it are one */
    check_note(1, step_ss, 2 + TF_ON_SIZE + 4, DR6_BS);
}

static void step_string(void)
{
    static uint8_t from[4], to[4];
    struct trap t;

    CODE(step_rep, "mov $3, %ecx;" TF_ON "rep movsb;" TF_OFF "ret");
    watch_start();
    t = probe(step_rep, (uint64_t)to, (uint64_t)from);
    check_no_trap(&t);
    check_note(0, step_rep, 5 + TF_ON_SIZE, DR6_BS); /* still at REP: one element at a time */
    check_note(1, step_rep, 5 + TF_ON_SIZE, DR6_BS);
    if (option("tcg")) /* QEMU 10's TCG goes to REP once more and finds RCX 0 */
        return;
    check_note(2, step_rep, 5 + TF_ON_SIZE + 2, DR6_BS);
}

static void step_branch(void)
{
    struct trap t;

    CODE(step_jump, TF_ON "jmp 1f; ud2; 1: nop;" TF_OFF "ret");
    watch_start();
    t = probe(step_jump, 0, 0);
    check_no_trap(&t);
    check_note(0, step_jump, TF_ON_SIZE + 4, DR6_BS);
    check_note(1, step_jump, TF_ON_SIZE + 5, DR6_BS);
}

static void step_fault(void)
{
    struct trap t;

    CODE(step_ud, TF_ON "ud2");
    watch_start();
    t = probe(step_ud, 0, 0); /* the fault, and no step after it */
    check("vector", VECTOR_UD, t.vector);
    check("rip", (uint64_t)step_ud + TF_ON_SIZE, t.rip);
    check("steps", 0, noted);
    check("TF as pushed", RFLAGS_TF, t.rflags & RFLAGS_TF);
}

static void step_ring_3(void)
{
    struct probe p;
    struct trap t;

    CODE(step_user, "nop; nop; int $0x80");
    watch_start();
    p = probe_user_setup(step_user, 0, 0);
    p.rflags |= RFLAGS_TF;
    t = probe_run(&p);
    check_left(&t);
    check("steps", 2, noted);
    check("rip", user_address(step_user) + 1, notes[0].rip);
    check("dr6", DR6_BS, notes[0].dr6);
}

static void icebp(void)
{
    struct trap t;

    CODE(icebp_code, "nop; .byte 0xf1; ret");
    if (skip_on_tcg("QEMU's TCG has no INT1 under a hypervisor"))
        return;
    watch_start();
    t = probe(icebp_code, 0, 0);
    check_no_trap(&t);
    check("traps", 1, noted);
    check_note(0, icebp_code, 2, 0);
}

/* ---- breakpoints of instructions
 * ------------------------------------------------------------------ */

CODE(three_nops, "nop; nop; nop; ret");

static void break_execute(void)
{
    struct trap t;

    watch_start();
    trap_handle(VECTOR_DB, on_breakpoint);
    breakpoint(2, (uint64_t)three_nops + 1, EXECUTE, 1);
    for (unsigned i = 0; i < 3; i++) {
        noted = 0;
        t = probe(three_nops, 0, 0);
        check_no_trap(&t);
        check("times", 1, noted);
        check_note(0, three_nops, 1, DR6_B0 << 2);
        check("RF as pushed", 0, notes[0].rflags & RFLAGS_RF);
    }
    write_dr7(0);
    noted = 0;
    t = probe(three_nops, 0, 0);
    check("after it was disabled", 0, noted);
}

static bool on_debug_without_rf(struct trap *t)
{
    return noted < 2 ? on_debug(t) : on_breakpoint(t);
}

static void break_without_rf(void)
{
    watch_start();
    trap_handle(VECTOR_DB, on_debug_without_rf);
    breakpoint(0, (uint64_t)three_nops, EXECUTE, 1);
    probe(three_nops, 0, 0);
    check("times", 3, noted);
}

static void break_and_rf_of_iret(void)
{
    struct probe p;
    struct trap t;

    watch_start();
    p = probe_user_setup(three_nops, 0, 0);
    breakpoint(0, p.code, EXECUTE, 1);
    breakpoint(1, p.code + 1, EXECUTE, 1);
    p.rflags |= RFLAGS_RF; /* good for the first instruction only */
    breakpoint(2, p.code + 3, EXECUTE, 1);
    trap_handle(VECTOR_DB, NULL);
    t = probe_run(&p);
    check("vector", VECTOR_DB, t.vector);
    check("rip", p.code + 1, t.rip);
    check("dr6", DR6_B0 << 1, t.dr6 & DR6_TOLD);
}

static void break_in_loop(void)
{
    struct trap t;

    CODE(loop_code, "mov $10, %ecx; 1: nop; dec %ecx; jnz 1b; ret");
    watch_start();
    trap_handle(VECTOR_DB, on_breakpoint);
    breakpoint(3, (uint64_t)loop_code + 5, EXECUTE, 1);
    t = probe(loop_code, 0, 0);
    check_no_trap(&t);
    check("times", 10, noted);
    check("dr6", DR6_B0 << 3, notes[9].dr6);
}

/* The address compared is linear: an alias is another one. */
static void break_alias(void)
{
    struct trap t;

    CODE(alias_code, "nop; nop; int $0x80");
    watch_start();
    trap_handle(VECTOR_DB, on_breakpoint);
    breakpoint(0, (uint64_t)alias_code + 1, EXECUTE, 1);
    t = probe_user(alias_code, 0, 0);
    check_left(&t);
    check("times", 0, noted);
    breakpoint(0, user_address(alias_code) + 1, EXECUTE, 1);
    t = probe_user(alias_code, 0, 0);
    check("times", 1, noted);
}

/* ---- breakpoints of data
 * -------------------------------------------------------------------------- */

static uint8_t data[64] __attribute__((aligned(64)));

CODE(data_store_1, "movb $1, (%rdi); nop; ret");
CODE(data_store_8, "movq $1, (%rdi); nop; ret");
CODE(data_load_1, "mov (%rdi), %al; nop; ret");
CODE(data_load_8, "mov (%rdi), %rax; nop; ret");
CODE(data_add, "addb $1, (%rdi); nop; ret");

static unsigned hits(const char *code, uint64_t at)
{
    struct trap t;

    noted = 0;
    t = probe(code, at, 0);
    check_no_trap(&t);
    return noted;
}

static void watch_write(void)
{
    const uint64_t at = (uint64_t)data + 8;

    watch_start();
    breakpoint(1, at, WRITE, 1);
    check("a store", 1, hits(data_store_1, at));
    check_note(0, data_store_1, 3, DR6_B0 << 1); /* behind the store */
    check("RF as pushed", 0, notes[0].rflags & RFLAGS_RF);
    check("stored", 1, data[8]);
    check("a load", 0, hits(data_load_1, at));
    check("a store before it", 0, hits(data_store_1, at - 1));
    check("a store behind it", 0, hits(data_store_1, at + 1));
    check("a long store over it", 1, hits(data_store_8, at - 7));
    check("a long store short of it", 0, hits(data_store_8, at - 8));
    check("a read and write", 1, hits(data_add, at));
}

static void watch_access(void)
{
    const uint64_t at = (uint64_t)data + 16;

    watch_start();
    breakpoint(0, at, ACCESS, 4);
    check("a store", 1, hits(data_store_1, at + 3));
    check("a load", 1, hits(data_load_1, at + 2));
    check_note(0, data_load_1, 2, DR6_B0);
    check("a load behind it", 0, hits(data_load_1, at + 4));
    check("a long load into it", 1, hits(data_load_8, at - 7));
    write_dr7(0);
    check("disabled", 0, hits(data_load_1, at));
}

static void watch_lengths(void)
{
    static const unsigned lengths[] = {1, 2, 4, 8};

    watch_start();
    for (unsigned i = 0; i < 4; i++) {
        const uint64_t at = (uint64_t)data + 32;

        breakpoint(0, at, WRITE, lengths[i]);
        check("the last byte", 1, hits(data_store_1, at + lengths[i] - 1));
        check("the byte behind", 0, hits(data_store_1, at + lengths[i]));
        check("the byte before", 0, hits(data_store_1, at - 1));
    }
}

static void watch_two(void)
{
    if (skip_on_tcg("QEMU's TCG tells of one breakpoint"))
        return;
    watch_start();
    breakpoint(0, (uint64_t)data, WRITE, 1);
    breakpoint(3, (uint64_t)data + 4, WRITE, 4);
    check("both by one store", 1, hits(data_store_8, (uint64_t)data));
    check_note(0, data_store_8, 7, DR6_B0 | DR6_B0 << 3);
}

static void watch_and_step(void)
{
    struct trap t;

    CODE(step_store, TF_ON "movb $1, (%rdi);" TF_OFF "ret");
    watch_start();
    breakpoint(0, (uint64_t)data, WRITE, 1);
    t = probe(step_store, (uint64_t)data, 0);
    check_no_trap(&t);
    check_note(0, step_store, TF_ON_SIZE + 3, DR6_BS | DR6_B0);
}

/* The store of PUSH and of an exception's frame count, too; here PUSH. */
static void watch_push(void)
{
    struct trap t;

    CODE(push_code, "lea -8(%rsp), %rax; push %rcx; pop %rcx; ret");
    watch_start();
    t = probe(push_code, 0, 0);
    breakpoint(0, t.rax, WRITE, 8);
    t = probe(push_code, 0, 0);
    check_true("PUSH was met", noted >= 1);
    check("behind PUSH", (uint64_t)push_code + 6, notes[0].rip);
}

static void watch_string(void)
{
    static uint8_t from[64];
    struct trap t;

    CODE(rep_movsb, "mov $32, %ecx; rep movsb; ret");
    if (skip_on_tcg("QEMU 7.2 itself dies of it"))
        return;
    watch_start();
    breakpoint(0, (uint64_t)data + 16, WRITE, 1);
    t = probe(rep_movsb, (uint64_t)data, (uint64_t)from);
    check_no_trap(&t);
    check("times", 1, noted); /* between elements or behind (§17.2.5) */
    check("dr6", DR6_B0, notes[0].dr6);
}

static void watch_port(void)
{
    struct trap t;

    CODE(out_port, "mov $0x80, %edx; out %al, %dx; nop; ret");
    if (skip_on_tcg("QEMU's TCG under a hypervisor meets no breakpoints of ports"))
        return;
    watch_start();
    write_cr4(read_cr4() | CR4_DE);
    breakpoint(0, 0x80, PORT, 1);
    t = probe(out_port, 0, 0);
    check_no_trap(&t);
    check("times", 1, noted);
    check_note(0, out_port, 6, DR6_B0);
}

/* ---- the registers
 * -------------------------------------------------------------------------------- */

static void fixed_bits(void)
{
    write_dr6(0);
    check("DR6, all clear", 0xffff0ff0, read_dr6());
    write_dr6(0xe00f);
    check("DR6, all set", 0xffffeff0 | 0xe00f, read_dr6());
    write_dr6(0);
    write_dr7(0);
    check("DR7", DR7_FIXED, read_dr7());
    write_dr0(0x8000123456789abc); /* any value */
    check("DR0", 0x8000123456789abc, read_dr0());
    write_dr0(0);
}

static void general_detect(void)
{
    struct trap t;

    CODE(read_a_dr, "mov %dr0, %rax; ret");
    CODE(write_a_dr, "mov %rax, %dr3; ret");
    if (skip_on_tcg("QEMU's TCG lets reads pass"))
        return;
    write_dr6(0);
    write_dr7(DR7_GD);
    t = probe(read_a_dr, 0, 0);
    check_trap_at(&t, VECTOR_DB, 0, read_a_dr);
    check("dr6", DR6_BD, t.dr6 & DR6_TOLD);
    check("GD was cleared", DR7_FIXED, read_dr7());
    write_dr6(0);
    write_dr7(DR7_GD);
    t = probe(write_a_dr, 0, 0);
    check_trap_at(&t, VECTOR_DB, 0, write_a_dr);
}

static void old_names(void)
{
    struct trap t;

    CODE(read_dr4, "mov %dr4, %rax; ret");
    CODE(read_dr5, "mov %dr5, %rax; ret");
    write_dr6(0);
    t = probe(read_dr4, 0, 0);
    check_no_trap(&t);
    check("DR4 is DR6", 0xffff0ff0, t.rax);
    t = probe(read_dr5, 0, 0);
    check("DR5 is DR7", DR7_FIXED, t.rax);
    write_cr4(read_cr4() | CR4_DE);
    t = probe(read_dr4, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, read_dr4);
    t = probe(read_dr5, 0, 0);
    check_trap_at(&t, VECTOR_UD, 0, read_dr5);
}

static void refusals(void)
{
    struct trap t;

    CODE(set_dr6, "mov %rdi, %dr6; ret");
    CODE(set_dr7, "mov %rdi, %dr7; ret");
    CODE(user_get_dr, "mov %dr0, %rax; int $0x80");
    CODE(user_set_dr, "mov %rax, %dr7; int $0x80");
    t = probe(set_dr6, 1ull << 32, 0);
    check_trap_at(&t, VECTOR_GP, 0, set_dr6);
    t = probe(set_dr7, 1ull << 40, 0);
    check_trap_at(&t, VECTOR_GP, 0, set_dr7);
    t = probe_user(user_get_dr, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_get_dr);
    t = probe_user(user_set_dr, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_set_dr);
}

static const struct test tests[] = {
    {"debug: single step", single_step},
    {"debug: step over INT3", step_over_exception},
    {"debug: step over MOV SS", step_mov_ss},
    {"debug: step through REP MOVSB", step_string},
    {"debug: step over a jump", step_branch},
    {"debug: no step of a fault", step_fault},
    {"debug: step in ring 3", step_ring_3},
    {"debug: INT1", icebp},
    {"debug: instruction breakpoint", break_execute},
    {"debug: instruction breakpoint, RF clear", break_without_rf},
    {"debug: IRET sets RF", break_and_rf_of_iret},
    {"debug: instruction breakpoint in a loop", break_in_loop},
    {"debug: breakpoints are linear addresses", break_alias},
    {"debug: data breakpoint, writes", watch_write},
    {"debug: data breakpoint, accesses", watch_access},
    {"debug: data breakpoint, lengths", watch_lengths},
    {"debug: two data breakpoints", watch_two},
    {"debug: data breakpoint and step", watch_and_step},
    {"debug: data breakpoint, PUSH", watch_push},
    {"debug: data breakpoint, REP MOVSB", watch_string},
    {"debug: port breakpoint", watch_port},
    {"debug: fixed bits of DR6 and DR7", fixed_bits},
    {"debug: general detect", general_detect},
    {"debug: DR4 and DR5", old_names},
    {"debug: what MOV DR refuses", refusals},
};

void debug_tests(void)
{
    TESTS(tests);
}

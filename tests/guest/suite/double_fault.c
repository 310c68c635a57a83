/* double_fault.c - exceptions while an exception is delivered (SDM vol 3 §6.15, table 6-5; APM vol
 * 2 §8.2.9). */
#include "cpu.h"
#include "tests64.h"

enum { CODE_IDT = 2, CODE_EXT = 1 }; /* bits of the error code (§6.13) */

CODE(raise_ud, "ud2");
CODE(raise_gp, "mov $0x1000, %eax; mov %eax, %ss");
CODE(raise_de, "xor %ecx, %ecx; xor %edx, %edx; mov $1, %eax; div %ecx");
CODE(raise_pf, "mov (%rdi), %al");

static void gate_absent(unsigned vector)
{
    struct gate g = gate_usual(vector);

    g.absent = true;
    gate_set(vector, g);
}

/* A gate whose stack is not mapped. */
static void gate_without_stack(unsigned vector)
{
    struct gate g = gate_usual(vector);

    cpu_tss()->ist[5] = TEST_BASE + 0x1000;
    g.ist = 6;
    gate_set(vector, g);
}

static void benign_then_contributory(void)
{
    struct trap t;

    if (skip_on_tcg("QEMU's TCG tells 16 times the vector, without EXT"))
        return;
    gate_absent(VECTOR_UD);
    t = probe(raise_ud, 0, 0);
    check_trap_at(&t, VECTOR_NP, VECTOR_UD * 8 + CODE_IDT + CODE_EXT, raise_ud);
}

static void contributory_twice(void)
{
    struct trap t;

    gate_absent(VECTOR_GP);
    t = probe(raise_gp, 0, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("the frame's end: stack 3", ist_top(3), t.frame + 48);
    gate_absent(VECTOR_DE);
    t = probe(raise_de, 0, 0);
    check_trap(&t, VECTOR_DF, 0);
}

static void page_fault_twice(void)
{
    struct trap t;

    gate_without_stack(VECTOR_PF);
    t = probe(raise_pf, TEST_BASE + 0x5000, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("cr2: of the second", TEST_BASE + 0xff8, t.cr2);
}

static void page_fault_then_contributory(void)
{
    struct trap t;

    gate_absent(VECTOR_PF);
    t = probe(raise_pf, TEST_BASE + 0x5000, 0);
    check_trap(&t, VECTOR_DF, 0);
    check("cr2", TEST_BASE + 0x5000, t.cr2);
}

static void contributory_then_page_fault(void)
{
    struct trap t;

    gate_without_stack(VECTOR_DE);
    t = probe(raise_de, 0, 0);
    check_page_fault(&t, PF_WRITE, TEST_BASE + 0xff8);
    check("rip", (uint64_t)raise_de + 9, t.rip);
}

static void stack_not_canonical(void)
{
    struct gate g = gate_usual(VECTOR_UD);
    struct trap t;

    if (skip_on_tcg("QEMU's TCG leaves EXT out"))
        return;
    cpu_tss()->ist[5] = 1ull << 62;
    g.ist = 6;
    gate_set(VECTOR_UD, g);
    t = probe(raise_ud, 0, 0);
    check_trap_at(&t, VECTOR_SS, CODE_EXT, raise_ud);
}

static const struct test tests[] = {
    {"double fault: benign, then #NP", benign_then_contributory},
    {"double fault: contributory twice", contributory_twice},
    {"double fault: page fault twice", page_fault_twice},
    {"double fault: page fault, then #NP", page_fault_then_contributory},
    {"double fault: #DE, then page fault", contributory_then_page_fault},
    {"double fault: stack not canonical", stack_not_canonical},
};

void double_fault_tests(void)
{
    TESTS(tests);
}

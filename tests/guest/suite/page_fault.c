/* page_fault.c - page faults: what is forbidden, the error code, CR2 (SDM vol 3 §4.6, §4.7; APM vol
 * 2 §5.6, §8.2.15). */
#include "cpu.h"
#include "tests64.h"

CODE(load, "mov (%rdi), %al; ret");
CODE(store, "movb $1, (%rdi); ret");
CODE(update, "incb (%rdi); ret");
CODE(jump, "call *%rdi; ret");
CODE(user_load, "mov (%rdi), %al; int $0x80");
CODE(user_store, "movb $1, (%rdi); int $0x80");
CODE(user_jump, "jmp *%rdi");
CODE(load_pair, "mov (%rdi), %rax; ret");
CODE(store_pair, "mov %rsi, (%rdi); ret");

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x12345678000;

static void not_present(void)
{
    struct trap t = probe(load, va + 0x123, 0);

    check_trap_at(&t, VECTOR_PF, 0, load);
    check("cr2", va + 0x123, t.cr2);
    t = probe(store, va + 1, 0);
    check_page_fault(&t, PF_WRITE, va + 1);
    t = probe(update, va + 2, 0);
    check_page_fault(&t, PF_WRITE, va + 2);
    t = probe_user(user_load, va + 3, 0);
    check_page_fault(&t, PF_USER, va + 3);
    t = probe_user(user_store, va + 4, 0);
    check_page_fault(&t, PF_USER | PF_WRITE, va + 4);
}

static void not_present_fetch(void)
{
    struct trap t = probe(jump, va, 0);

    check_page_fault(&t, PF_FETCH, va);
    check("rip", va, t.rip);
    t = probe_user(user_jump, va, 0);
    check_page_fault(&t, PF_FETCH | PF_USER, va);
}

static const struct test tests[] = {
    {"page fault: not present", not_present},
    {"page fault: not present, fetch", not_present_fetch},
};

void page_fault_tests(void)
{
    TESTS(tests);
}

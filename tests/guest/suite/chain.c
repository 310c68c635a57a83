/*
 * chain.c - code that was run often meets a change of the tables: jumps, calls and returns from
 * page to page must go where the tables lead now (SDM vol 3 §4.10.4). An engine that ties blocks of
 * code together, or remembers where a return goes, has to unlearn it. Every case runs warm first.
 */
#include "cpu.h"
#include "tests64.h"

enum { OPEN = PTE_P | PTE_W | PTE_U, WARM = 3000 };
static const uint64_t first = TEST_BASE + 0x700000000, second = first + 0x1000;

/* Page 1 leads to `second` in some way; page 2 returns a value. */
CODE(way_jump, "jmp way_jump + 0x1000");
CODE(way_branch, "cmp %eax, %eax; je way_branch + 0x1000; ud2");
CODE(way_call, "call way_call + 0x1000; ret");
CODE(way_indirect, "lea way_indirect + 0x1000(%rip), %rax; jmp *%rax");
CODE(way_call_indirect, "lea way_call_indirect + 0x1000(%rip), %rax; call *%rax; ret");
CODE(way_return, "lea way_return + 0x1000(%rip), %rax; push %rax; ret");
enum { WAY_SIZE = 24 };
static const char *const ways[] = {way_jump,     way_branch,        way_call,
                                   way_indirect, way_call_indirect, way_return};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static void put_return(uint64_t at, uint32_t value)
{
    uint8_t text[6] = {0xb8, (uint8_t)value, (uint8_t)(value >> 8), 0, 0, 0xc3};

    memcpy((void *)at, text, sizeof(text));
}

static uint64_t run(uint64_t at)
{
    return ((uint64_t(*)(void))at)();
}

/* Runs the way until it is warm. */
static void warm(uint64_t expected)
{
    for (unsigned i = 0; i < WARM; i++)
        if (run(first) != expected) {
            check("warm", expected, run(first));
            return;
        }
}

static uint64_t way_page(unsigned n)
{
    const uint64_t page = page_new();

    memcpy((void *)page, ways[n], WAY_SIZE);
    return page;
}

static uint64_t value_page(uint32_t value)
{
    const uint64_t page = page_new();

    put_return(page, value);
    return page;
}

/* ---- the target moves
 * ----------------------------------------------------------------------------------- */

static void remap_by_invlpg(void)
{
    for (unsigned n = 0; n < WAYS; n++) {
        const uint64_t pages[2] = {value_page(0x1001), value_page(0x2002)};

        page_map(first, way_page(n), OPEN);
        page_map(second, pages[0], OPEN);
        warm(0x1001);
        for (unsigned i = 1; i < 20; i++) {
            page_map(second, pages[i % 2], OPEN);
            check("the page that is mapped", i % 2 ? 0x2002 : 0x1001, run(first));
        }
    }
}

static void remap_by_cr3(void)
{
    for (unsigned n = 0; n < WAYS; n++) {
        const uint64_t other = value_page(0x2002);

        page_map(first, way_page(n), OPEN);
        page_map(second, value_page(0x1001), OPEN);
        warm(0x1001);
        *page_entry(second, 1) = other | OPEN;
        write_cr3(read_cr3());
        check("after CR3", 0x2002, run(first));
    }
}

/* Two address spaces that differ in the second page only, and take turns. */
static void two_spaces(uint64_t pcid_1, uint64_t pcid_2, uint64_t keep)
{
    const uint64_t root_1 = read_cr3() & PTE_ADDRESS, root_2 = page_new_root();

    ((uint64_t *)root_2)[TEST_BASE >> 39] = 0;
    for (unsigned n = 0; n < WAYS; n++) {
        const uint64_t way = way_page(n);

        *page_entry_in(root_1, first, 1) = *page_entry_in(root_2, first, 1) = way | OPEN;
        *page_entry_in(root_1, second, 1) = value_page(0x1001) | OPEN;
        *page_entry_in(root_2, second, 1) = value_page(0x2002) | OPEN;
        write_cr3(root_1 | pcid_1);
        warm(0x1001);
        write_cr3(root_2 | pcid_2);
        warm(0x2002);
        for (unsigned i = 0; i < 50; i++) {
            write_cr3(i % 2 ? root_2 | pcid_2 | keep : root_1 | pcid_1 | keep);
            check("the space that is current", i % 2 ? 0x2002 : 0x1001, run(first));
        }
    }
    write_cr3(root_1);
}

static void spaces(void)
{
    two_spaces(0, 0, 0);
}

static void spaces_with_pcid(void)
{
    if (!has_feature(1, 2, 17)) {
        skip("PCID is not offered");
        return;
    }
    write_cr4(read_cr4() | CR4_PCIDE);
    two_spaces(1, 2, 1ull << 63);
}

/* ---- the target may no longer be run
 * --------------------------------------------------------------------- */

static void target_forbidden(void)
{
    const uint64_t page = value_page(0x1001);
    static const struct {
        const char *name;
        uint64_t flags, error;
    } cases[] = {
        {"NX", OPEN | PTE_NX, PF_PRESENT | PF_FETCH},
        {"not present", 0, PF_FETCH},
    };

    for (unsigned n = 0; n < WAYS; n++) {
        page_map(first, way_page(n), OPEN);
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            struct trap t;

            page_map(second, page, OPEN);
            warm(0x1001);
            page_map(second, page, cases[i].flags);
            t = probe((const void *)first, 0, 0);
            check(cases[i].name, VECTOR_PF, t.vector);
            check(cases[i].name, cases[i].error, t.error);
            check(cases[i].name, second, t.cr2);
            check(cases[i].name, second, t.rip);
        }
        page_map(second, page, OPEN);
        check("allowed again", 0x1001, run(first));
    }
}

/* The page that runs itself. */
static void own_page_forbidden(void)
{
    const uint64_t page = value_page(0x3003);
    struct trap t;

    page_map(first, page, OPEN);
    warm(0x3003);
    page_map(first, page, OPEN | PTE_NX);
    t = probe((const void *)first, 0, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, first);
    page_map(first, page, OPEN);
    warm(0x3003);
    wrmsr(MSR_EFER,
          rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE); /* with NX clear everywhere nothing changes */
    check("without NXE", 0x3003, run(first));
}

static void ring_3_forbidden(void)
{
    static const uint8_t text[] = {0xb8, 7, 0, 0, 0, 0xcd, 0x80};
    const uint64_t page = page_new();
    struct probe p = probe_user_setup(NULL, 0, 0);
    struct trap t;

    memcpy((void *)page, text, sizeof(text));
    page_map(first, page, OPEN);
    p.code = first;
    for (unsigned i = 0; i < 200; i++)
        t = probe_run(&p);
    check_left(&t);
    page_map(first, page, PTE_P | PTE_W);
    t = probe_run(&p);
    check_page_fault(&t, PF_PRESENT | PF_USER | PF_FETCH, first);
    t = probe((const void *)first, 0, 0); /* ring 0 still may: it comes to the INT */
    check_left(&t);
}

static void smep_counts(void)
{
    struct trap t;

    if (!has_feature(7, 1, 7)) {
        skip("SMEP is not offered");
        return;
    }
    page_map(first, value_page(0x4004), OPEN);
    warm(0x4004);
    write_cr4(read_cr4() | CR4_SMEP);
    t = probe((const void *)first, 0, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, first);
    write_cr4(read_cr4() & ~(uint64_t)CR4_SMEP);
    warm(0x4004);
}

/* ---- returns
 * -----------------------------------------------------------------------------------------------
 */

static uint64_t replacement;

/* Puts another page below its caller. */
static void replace_caller(void)
{
    if (replacement)
        page_map(first, replacement, OPEN);
}

static void return_to_replaced_page(void)
{
    /* call *%rdi; mov $value, %eax; ret, with the stack aligned */
    static const uint8_t text[] = {0x48, 0x83, 0xec, 0x08, 0xff, 0xd7, 0x48, 0x83,
                                   0xc4, 0x08, 0xb8, 1,    0,    0,    0,    0xc3};
    const uint64_t pages[2] = {page_new(), page_new()};

    for (unsigned i = 0; i < 2; i++) {
        memcpy((void *)pages[i], text, sizeof(text));
        *(uint8_t *)(pages[i] + 11) = (uint8_t)(i + 1);
    }
    page_map(first, pages[0], OPEN);
    replacement = 0;
    for (unsigned i = 0; i < WARM; i++)
        check("warm", 1, ((uint32_t(*)(void (*)(void)))first)(replace_caller));
    for (unsigned i = 0; i < 20; i++) {
        replacement = pages[(i + 1) % 2];
        check("returns into the page that is mapped", (i + 1) % 2 + 1,
              ((uint32_t(*)(void (*)(void)))first)(replace_caller));
    }
}

/* Returns that were not called, calls that never return, returns deeper than any memory of them. */
static void unpaired_returns(void)
{
    struct trap t;

    CODE(ret_changed,
         "lea 1f(%rip), %rcx; call 2f; ud2; 1: mov $9, %eax; ret; 2: mov %rcx, (%rsp); ret");
    CODE(ret_dropped,
         "mov $3000, %ecx; 1: call 2f; 2: add $8, %rsp; dec %ecx; jnz 1b; mov $8, %eax; ret");
    CODE(ret_deep, "mov $300, %ecx; xor %eax, %eax; call 1f; ret; 1: inc %eax; dec %ecx; jz 2f; "
                   "call 1b; 2: inc %eax; ret");
    for (unsigned i = 0; i < 500; i++) {
        t = probe(ret_changed, 0, 0);
        check("another address", 9, t.rax);
        t = probe(ret_dropped, 0, 0);
        check("no return", 8, t.rax);
        t = probe(ret_deep, 0, 0);
        check("300 deep", 600, t.rax);
    }
}

/* ---- what is running is interrupted
 * -------------------------------------------------------------------------- */

enum { TIMER_VECTOR = 0x61, TIMER_MASKED = 1 << 16, DIVIDE_BY_1 = 11 };

static void endless_loops(void)
{
    CODE(loop_self, "sti; 1: jmp 1b");
    CODE(loop_count, "sti; 1: inc %rax; jmp 1b");
    CODE(loop_call, "sti; 1: call 2f; jmp 1b; 2: ret");
    CODE(loop_indirect, "sti; lea 1f(%rip), %rax; 1: jmp *%rax");
    CODE(loop_memory, "sti; 1: lock incq -64(%rsp); jnz 1b; jmp 1b");
    CODE(loop_string, "sti; 1: mov $1000, %ecx; lea -2000(%rsp), %rdi; rep stosb; jmp 1b");
    static const char *const all[] = {loop_self,     loop_count,  loop_call,
                                      loop_indirect, loop_memory, loop_string};

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct trap t;

        apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
        apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
        apic_write(APIC_TIMER_COUNT, 300000);
        t = probe(all[i], 0, 0);
        check("ended by the timer", TIMER_VECTOR, t.vector);
        check_true("inside the loop", t.rip > (uint64_t)all[i] && t.rip < (uint64_t)all[i] + 32);
        apic_eoi();
    }
    apic_write(APIC_LVT_TIMER, TIMER_MASKED);
}

static const struct test tests[] = {
    {"chain: the next page is remapped, INVLPG", remap_by_invlpg},
    {"chain: the next page is remapped, CR3", remap_by_cr3},
    {"chain: two address spaces", spaces},
    {"chain: two address spaces with PCID", spaces_with_pcid},
    {"chain: the next page is forbidden", target_forbidden},
    {"chain: the page itself is forbidden", own_page_forbidden},
    {"chain: ring 3 loses a page", ring_3_forbidden},
    {"chain: SMEP counts for warm code", smep_counts},
    {"chain: the caller's page is replaced", return_to_replaced_page},
    {"chain: returns without calls", unpaired_returns},
    {"chain: endless loops are interrupted", endless_loops},
};

void chain_tests(void)
{
    TESTS(tests);
}

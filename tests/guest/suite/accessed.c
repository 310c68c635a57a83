/* accessed.c - accessed and dirty flags of page-table entries (SDM vol 3 §4.8; APM vol 2 §5.4.2).
 */
#include "cpu.h"
#include "tests64.h"

CODE(ad_store, "mov %rsi, (%rdi); ret");
CODE(ad_call, "call *%rdi; ret");
CODE(ad_locked, "lock xadd %rsi, (%rdi); mov %rsi, %rax; ret");
CODE(ad_failing_cmpxchg, "mov $-1, %rax; lock cmpxchg %rsi, (%rdi); ret");
CODE(ad_user_store, "mov %rsi, (%rdi); int $0x80");

enum { OPEN = PTE_P | PTE_W | PTE_U, AD = PTE_A | PTE_D };
static const uint64_t va = TEST_BASE + 0x1345678000;

static uint64_t entry_flags(uint64_t at, unsigned level)
{
    return *(volatile uint64_t *)page_entry(at, level) & AD;
}

static uint64_t load(uint64_t at)
{
    return *(volatile uint64_t *)at;
}

static void store(uint64_t at, uint64_t v)
{
    *(volatile uint64_t *)at = v;
}

static void accessed_by_load(void)
{
    page_map(va, page_new(), OPEN);
    load(va);
    check("level 1", PTE_A, entry_flags(va, 1));
    for (unsigned level = 2; level <= 4; level++)
        check("level 2 to 4", PTE_A, entry_flags(va, level));
}

static void dirty_by_store(void)
{
    page_map(va, page_new(), OPEN);
    store(va, 1);
    check("level 1", AD, entry_flags(va, 1));
    check("level 2", PTE_A, entry_flags(va, 2));
    check("level 3", PTE_A, entry_flags(va, 3));
}

/* First the TLB learns the page by a load; the store must still set D. */
static void dirty_after_load(void)
{
    page_map(va, page_new(), OPEN);
    load(va);
    check("after the load", PTE_A, entry_flags(va, 1));
    store(va, 1);
    check("after the store", AD, entry_flags(va, 1));
}

static void accessed_again(void)
{
    page_map(va, page_new(), OPEN);
    store(va, 1);
    *page_entry(va, 1) &= ~(uint64_t)AD;
    invlpg(va);
    load(va);
    check("after a load", PTE_A, entry_flags(va, 1));
    store(va, 1);
    *page_entry(va, 1) &= ~(uint64_t)PTE_D;
    invlpg(va);
    store(va + 8, 1);
    check("after a store", AD, entry_flags(va, 1));
}

static void accessed_by_fetch(void)
{
    const uint64_t page = page_new();
    struct trap t;

    *(uint8_t *)page = 0xc3;
    page_map(va, page, OPEN);
    t = probe(ad_call, va, 0);
    check_no_trap(&t);
    check("a fetch", PTE_A, entry_flags(va, 1));
}

/* A fault sets nothing in the last entry that refused. */
static void not_dirty_by_fault(void)
{
    struct trap t;

    page_map(va, page_new(), PTE_P);
    t = probe(ad_store, va, 1);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
    check("dirty", 0, entry_flags(va, 1) & PTE_D);
    t = probe_user(ad_user_store, va, 1);
    check_page_fault(&t, PF_PRESENT | PF_WRITE | PF_USER, va);
    check("dirty after ring 3", 0, entry_flags(va, 1) & PTE_D);
}

static void dirty_by_atomics(void)
{
    struct trap t;

    page_map(va, page_new(), OPEN);
    t = probe(ad_locked, va, 1);
    check_no_trap(&t);
    check("LOCK XADD", AD, entry_flags(va, 1));
    page_map(va, page_new(), OPEN);
    t = probe(ad_failing_cmpxchg, va, 1); /* writes the old value back (SDM vol 2A CMPXCHG) */
    check_no_trap(&t);
    check("CMPXCHG that fails", AD, entry_flags(va, 1));
}

static void dirty_large(void)
{
    const uint64_t page = page_new_aligned(0x200000), start = va & ~0x1fffffull;

    page_map_level(start, 2, page | OPEN | PTE_PS);
    load(start + 0x123000);
    check("after a load", PTE_A, entry_flags(start, 2));
    store(start + 0x1ff000, 1);
    check("after a store", AD, entry_flags(start, 2));
    if (!has_feature(0x80000001, 3, 26))
        return;
    page_map_level(TEST_BASE, 3, OPEN | PTE_PS);
    load(TEST_BASE + page);
    check("1 GiB after a load", PTE_A, entry_flags(TEST_BASE, 3));
    store(TEST_BASE + page + 4096, 1);
    check("1 GiB after a store", AD, entry_flags(TEST_BASE, 3));
}

static void dirty_over_border(void)
{
    page_map(va, page_new(), OPEN);
    page_map(va + 4096, page_new(), OPEN);
    store(va + 4092, ~0ull);
    check("the first page", AD, entry_flags(va, 1));
    check("the second page", AD, entry_flags(va + 4096, 1));
}

/* ---- two CPUs -----------------------------------------------------------------------------------
 */

struct setter {
    uint64_t at;
    unsigned lost;
};

/* Both CPUs count up in pages whose A and D flags the other clears: no store and no flag may be
 * lost. */
static void flag_setter(void *argument)
{
    struct setter *s = argument;

    for (unsigned i = 0; i < 2000; i++) {
        asm volatile("lock andq %1, %0"
                     : "+m"(*page_entry(s->at, 1))
                     : "r"(~(uint64_t)AD)
                     : "memory");
        invlpg(s->at);
        store(s->at, i);
        if ((*(volatile uint64_t *)page_entry(s->at, 1) & AD) != AD)
            s->lost++;
    }
}

static void flags_by_two_cpus(void)
{
    struct setter mine = {.at = va}, other = {.at = va + 4096};

    if (cpus_started() < 2) {
        skip("needs two CPUs");
        return;
    }
    page_map(mine.at, page_new(), OPEN);
    page_map(other.at, page_new(), OPEN); /* neighbours in one cache line of the table */
    cpu_call(1, flag_setter, &other);
    flag_setter(&mine);
    cpu_wait(1);
    check("flags lost here", 0, mine.lost);
    check("flags lost there", 0, other.lost);
}

static const struct test tests[] = {
    {"A/D: a load sets A at every level", accessed_by_load},
    {"A/D: a store sets D", dirty_by_store},
    {"A/D: a store after a load sets D", dirty_after_load},
    {"A/D: set again after they were cleared", accessed_again},
    {"A/D: a fetch sets A", accessed_by_fetch},
    {"A/D: a fault sets no D", not_dirty_by_fault},
    {"A/D: atomics set D", dirty_by_atomics},
    {"A/D: large pages", dirty_large},
    {"A/D: a store over a border", dirty_over_border},
    {"A/D: two CPUs, one table", flags_by_two_cpus},
};

void accessed_tests(void)
{
    TESTS(tests);
}

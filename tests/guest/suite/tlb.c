/*
 * tlb.c - what the TLB may keep and must drop (SDM vol 3 §4.10; APM vol 2 §5.5).
 *
 * A processor may forget a translation at any time, so a test never expects a stale one: it changes
 * an entry, does what must drop it and expects the new one.
 */
#include "cpu.h"
#include "tests64.h"

CODE(tlb_store, "mov %rsi, (%rdi); ret");

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x2345678000;

static uint64_t load(uint64_t at)
{
    return *(volatile uint64_t *)at;
}

static void store(uint64_t at, uint64_t v)
{
    *(volatile uint64_t *)at = v;
}

/* ---- flushes ------------------------------------------------------------------------------------
 */

/* Two pages with 1 and 2 in them, the first mapped and known to the TLB. */
static void two_pages(uint64_t at, uint64_t pages[2], uint64_t flags)
{
    for (unsigned i = 0; i < 2; i++) {
        pages[i] = page_new();
        store(pages[i], i + 1);
    }
    page_map(at, pages[0], flags);
    check("the first page", 1, load(at));
}

static void remap(uint64_t at, uint64_t pa, uint64_t flags)
{
    *(volatile uint64_t *)page_entry(at, 1) = pa | flags;
}

static void invlpg_drops(void)
{
    uint64_t pages[2];

    two_pages(va, pages, OPEN);
    remap(va, pages[1], OPEN);
    invlpg(va + 0x777); /* any address of the page */
    check("the second page", 2, load(va));
    remap(va, pages[0], OPEN | PTE_G);
    invlpg(va);
    check("the first again", 1, load(va));
    remap(va, pages[1], OPEN);
    invlpg(va); /* drops global ones, too */
    check("the second again", 2, load(va));
}

/* INVLPG drops the paging-structure caches for the PCID, too (§4.10.4.1). */
static void invlpg_drops_upper_levels(void)
{
    for (unsigned level = 2; level <= 4; level++) {
        uint64_t pages[2], other, copy;

        two_pages(va, pages, OPEN);
        *page_entry(va, 1) = pages[1] | OPEN;
        copy = page_new();
        memcpy((void *)copy, (void *)((uint64_t)page_entry(va, 1) & PTE_ADDRESS), 4096);
        *page_entry(va, 1) = pages[0] | OPEN;
        invlpg(va);
        check("before", 1, load(va));
        /* A chain of tables of its own below the entry that changes. */
        for (unsigned l = 2; l < level; l++) {
            other = page_new();
            ((uint64_t *)other)[va >> (12 + 9 * (l - 1)) & 511] = copy | OPEN;
            copy = other;
        }
        *(volatile uint64_t *)page_entry(va, level) = copy | OPEN;
        invlpg(va);
        check("after", 2, load(va));
    }
}

static void large_to_small(void)
{
    const uint64_t page = page_new_aligned(0x200000), start = va & ~0x1fffffull, small = page_new();
    const uint64_t table = page_new();

    store(page + 0x5000, 1);
    store(small, 2);
    page_map_level(start, 2, page | OPEN | PTE_PS);
    check("large", 1, load(start + 0x5000));
    check("large, elsewhere", 0, load(start + 0x9000));
    for (unsigned i = 0; i < 512; i++)
        ((uint64_t *)table)[i] = small | OPEN;
    *(volatile uint64_t *)page_entry(start, 2) = table | OPEN;
    invlpg(start); /* one address drops the large page as a whole (§4.10.4.1) */
    check("small", 2, load(start + 0x5000));
    check("small, elsewhere", 2, load(start + 0x9000));
}

static void cr3_drops(void)
{
    uint64_t pages[2];

    two_pages(va, pages, OPEN);
    remap(va, pages[1], OPEN);
    write_cr3(read_cr3());
    check("the second page", 2, load(va));
}

static void cr4_pge_drops_global(void)
{
    uint64_t pages[2];

    write_cr4(read_cr4() | CR4_PGE);
    two_pages(va, pages, OPEN | PTE_G);
    remap(va, pages[1], OPEN | PTE_G);
    write_cr4(read_cr4() & ~(uint64_t)CR4_PGE);
    check("PGE off", 2, load(va));
    remap(va, pages[0], OPEN | PTE_G);
    write_cr4(read_cr4() | CR4_PGE);
    check("PGE on", 1, load(va));
}

/* Without PGE, G means nothing: CR3 drops all. */
static void global_without_pge(void)
{
    uint64_t pages[2];

    two_pages(va, pages, OPEN | PTE_G);
    remap(va, pages[1], OPEN | PTE_G);
    write_cr3(read_cr3());
    check("the second page", 2, load(va));
}

/* Changes of CR0.WP and EFER.NXE and CR4.SMEP count at once, also for pages that the TLB knows. */
static void control_bits_count_at_once(void)
{
    struct trap t;

    page_map(va, page_new(), PTE_P | PTE_U);
    write_cr0(read_cr0() & ~(uint64_t)CR0_WP);
    t = probe(tlb_store, va, 1);
    check_no_trap(&t);
    write_cr0(read_cr0() | CR0_WP);
    t = probe(tlb_store, va, 1);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
}

/* More rights need no flush: the fault walks again (§4.10.4.3). */
static void more_rights_need_no_flush(void)
{
    const uint64_t page = page_new();

    page_map(va, page, PTE_P);
    load(va);
    remap(va, page, PTE_P | PTE_W);
    store(va, 1); /* no fault comes: nobody would expect it */
    check("stored", 1, load(page));
    remap(va + 4096, page, PTE_P); /* not present was never cached */
    check("a new page", 1, load(va + 4096));
}

/* A fault for lacking rights drops what the TLB knew of the page. */
static void fault_drops(void)
{
    uint64_t pages[2];
    struct trap t;

    two_pages(va, pages, PTE_P);
    t = probe(tlb_store, va, 5);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
    remap(va, pages[1], OPEN);
    store(va, 5);
    check("stored in the new page", 5, load(pages[1]));
    check("and not in the old", 1, load(pages[0]));
    check("read from the new page", 5, load(va));
}

/* ---- process contexts (§4.10.1)
 * ------------------------------------------------------------------ */

#define CR3_KEEP (1ull << 63)

static bool pcid_on(void)
{
    if (!has_feature(1, 2, 17)) {
        skip("PCID is not offered");
        return false;
    }
    write_cr4(read_cr4() | CR4_PCIDE);
    return true;
}

static void pcid_separates(void)
{
    const uint64_t first = read_cr3();
    uint64_t pages[2], second;

    if (!pcid_on())
        return;
    second = page_new_root();
    ((uint64_t *)second)[TEST_BASE >> 39] = 0;
    two_pages(va, pages, OPEN);
    *page_entry_in(second, va, 1) = pages[1] | OPEN;
    for (unsigned i = 0; i < 3; i++) {
        write_cr3(second | 2 | CR3_KEEP);
        check("context 2", 2, load(va));
        write_cr3(first | 1 | CR3_KEEP);
        check("context 1", 1, load(va));
    }
    check("bit 63 of CR3 is not kept", first | 1, read_cr3());
    write_cr3(first);
}

static void pcid_flush_by_cr3(void)
{
    const uint64_t first = read_cr3();
    uint64_t pages[2];

    if (!pcid_on())
        return;
    write_cr3(first | 1);
    two_pages(va, pages, OPEN);
    write_cr3(first | 2);
    remap(va, pages[1], OPEN);
    write_cr3(first | 1); /* without bit 63: what context 1 knew is dropped */
    check("the second page", 2, load(va));
    write_cr3(first);
}

static void pcid_off_needs_0(void)
{
    const uint64_t first = read_cr3();
    struct trap t;

    CODE(set_cr4, "mov %rdi, %cr4; ret");
    if (!pcid_on())
        return;
    write_cr3(first | 5);
    write_cr4(read_cr4() & ~(uint64_t)CR4_PCIDE); /* may be cleared with any PCID */
    check("CR4", 0, read_cr4() & CR4_PCIDE);
    t = probe(set_cr4, read_cr4() | CR4_PCIDE, 0); /* but set only with 0 in CR3[11:0] */
    check_trap_at(&t, VECTOR_GP, 0, set_cr4);
    write_cr3(first);
}

static void invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
    const struct {
        uint64_t pcid, address;
    } d = {pcid, address};

    asm volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

static bool invpcid_offered(void)
{
    if (has_feature(7, 1, 10) && has_feature(1, 2, 17))
        return true;
    skip("INVPCID or PCID is not offered");
    return false;
}

static void invpcid_types(void)
{
    const uint64_t first = read_cr3();
    uint64_t pages[2];

    if (!invpcid_offered() || !pcid_on())
        return;
    write_cr4(read_cr4() | CR4_PGE);
    write_cr3(first | 1);
    two_pages(va, pages, OPEN);
    remap(va, pages[1], OPEN);
    invpcid(0, 1, va);
    check("an address", 2, load(va));
    remap(va, pages[0], OPEN);
    invpcid(1, 1, 0);
    check("a context", 1, load(va));
    write_cr3(first | 2);
    remap(va, pages[1], OPEN);
    invpcid(1, 1, 0); /* of another context */
    write_cr3(first | 1 | CR3_KEEP);
    check("another context", 2, load(va));
    remap(va, pages[0], OPEN);
    invpcid(3, 0, 0);
    check("all but global", 1, load(va));
    remap(va, pages[1], OPEN | PTE_G);
    invpcid(3, 0, 0);
    check("now global", 2, load(va));
    remap(va, pages[0], OPEN);
    invpcid(2, 0, 0);
    check("all", 1, load(va));
    write_cr3(first);
}

static void invpcid_refusals(void)
{
    static const struct {
        uint64_t pcid, address;
    } good = {0, 0}, bad_pcid = {0x1000, 0}, bad_address = {0, 1ull << 62}, not_zero = {1, 0};
    struct trap t;

    CODE(do_invpcid, "invpcid (%rdi), %rsi; ret");
    CODE(user_invpcid, "invpcid (%rdi), %rsi; int $0x80");
    if (!invpcid_offered())
        return;
    t = probe(do_invpcid, (uint64_t)&good, 4);
    check_trap_at(&t, VECTOR_GP, 0, do_invpcid);
    t = probe(do_invpcid, (uint64_t)&bad_pcid, 2);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(do_invpcid, (uint64_t)&bad_address, 0);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(do_invpcid, (uint64_t)&not_zero, 1); /* CR4.PCIDE is 0 */
    check_trap(&t, VECTOR_GP, 0);
    t = probe(do_invpcid, va, 2);
    check_page_fault(&t, 0, va);
    t = probe_user(user_invpcid, user_address(&good), 2);
    check_trap(&t, VECTOR_GP, 0);
}

/* ---- from another CPU
 * ----------------------------------------------------------------------------- */

struct shared {
    uint64_t at, seen[2];
    volatile uint32_t step;
};

static void reader(void *argument)
{
    struct shared *s = argument;

    s->seen[0] = load(s->at);
    s->step = 1;
    wait_for(&s->step, 2);
    invlpg(s->at);
    s->seen[1] = load(s->at);
}

static void shoot_down(void)
{
    struct shared s = {.at = va};
    uint64_t pages[2];

    if (cpus_started() < 2) {
        skip("needs two CPUs");
        return;
    }
    two_pages(va, pages, OPEN);
    cpu_call(1, reader, &s);
    check_true("the reader has seen the first page", wait_for(&s.step, 1));
    remap(va, pages[1], OPEN);
    s.step = 2;
    cpu_wait(1);
    check("before", 1, s.seen[0]);
    check("after its INVLPG", 2, s.seen[1]);
}

static const struct test tests[] = {
    {"TLB: INVLPG", invlpg_drops},
    {"TLB: INVLPG after a change of an upper level", invlpg_drops_upper_levels},
    {"TLB: a large page becomes small ones", large_to_small},
    {"TLB: CR3", cr3_drops},
    {"TLB: CR4.PGE drops global pages", cr4_pge_drops_global},
    {"TLB: global without PGE", global_without_pge},
    {"TLB: CR0.WP counts at once", control_bits_count_at_once},
    {"TLB: more rights need no flush", more_rights_need_no_flush},
    {"TLB: a fault drops the page", fault_drops},
    {"PCID: contexts are separate", pcid_separates},
    {"PCID: CR3 flushes its context", pcid_flush_by_cr3},
    {"PCID: CR4.PCIDE", pcid_off_needs_0},
    {"INVPCID: all types", invpcid_types},
    {"INVPCID: what it refuses", invpcid_refusals},
    {"TLB: shoot-down", shoot_down},
};

void tlb_tests(void)
{
    TESTS(tests);
}

/* page_fault.c - page faults: what is forbidden, the error code, CR2 (SDM vol 3 §4.6, §4.7; APM vol
 * 2 §5.6, §8.2.15). */
#include "cpu.h"
#include "tests64.h"

CODE(load, "mov (%rdi), %al; ret");
CODE(store, "movb $1, (%rdi); ret");
CODE(update, "incb (%rdi); ret");
CODE(jump, "call *%rdi; ret");
CODE(load_8, "mov (%rdi), %rax; ret");
CODE(store_8, "mov %rsi, (%rdi); ret");
CODE(push_at, "xchg %rdi, %rsp; push %rax; xchg %rdi, %rsp; ret");
CODE(user_load, "mov (%rdi), %al; int $0x80");
CODE(user_store, "movb $1, (%rdi); int $0x80");
CODE(user_jump, "jmp *%rdi");
CODE(load_open, "stac; mov (%rdi), %al; clac; ret");
CODE(copy_byte, "movsb; ret");
CODE(leave_user, "int $0x80");

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x1234567000;

/* ---- not present -------------------------------------------------------------------------------
 */

static void not_present(void)
{
    struct trap t = probe(load, va + 0x123, 0);

    check_trap_at(&t, VECTOR_PF, 0, load);
    check("cr2", va + 0x123, t.cr2);
    t = probe(store, va + 1, 0);
    check_page_fault(&t, PF_WRITE, va + 1);
    t = probe_user(user_load, va + 3, 0);
    check_page_fault(&t, PF_USER, va + 3);
    t = probe_user(user_store, va + 4, 0);
    check_page_fault(&t, PF_USER | PF_WRITE, va + 4);
}

static void not_present_update(void)
{
    struct trap t;

    if (skip_on_tcg("QEMU's TCG reads before it writes and tells of the read"))
        return;
    t = probe(update, va + 2, 0);
    check_page_fault(&t, PF_WRITE, va + 2);
}

static void not_present_fetch(void)
{
    struct trap t = probe(jump, va, 0);

    check_page_fault(&t, PF_FETCH, va);
    check("rip", va, t.rip);
    t = probe_user(user_jump, va, 0);
    check_page_fault(&t, PF_FETCH | PF_USER, va);
}

/* At every level: the error code is the same. */
static void not_present_levels(void)
{
    page_map(va, page_new(), OPEN);
    for (unsigned level = 1; level <= 4; level++) {
        uint64_t *e = page_entry(va, level);
        const uint64_t was = *e;
        struct trap t = probe(load, va, 0);

        check_no_trap(&t);
        *e = was & ~1ull;
        invlpg(va);
        t = probe(load, va, 0);
        check_page_fault(&t, 0, va);
        *e = was;
        invlpg(va);
    }
}

/* The fetch bit is told only where fetches can be forbidden: EFER.NXE or CR4.SMEP (SDM vol 3 §4.7).
 */
static void fetch_bit_without_nx(void)
{
    struct trap t;

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    t = probe(jump, va, 0);
    check_page_fault(&t, 0, va);
}

/* ---- rights ------------------------------------------------------------------------------------
 */

static void write_protect(void)
{
    struct trap t;

    page_map(va, page_new(), PTE_P | PTE_U);
    t = probe(store, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
    t = probe_user(user_store, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE | PF_USER, va);
    t = probe(load, va, 0);
    check_no_trap(&t);
    write_cr0(read_cr0() & ~(uint64_t)CR0_WP);
    t = probe(store, va, 0); /* ring 0 may, without WP */
    check_no_trap(&t);
    t = probe_user(user_store, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE | PF_USER, va);
    write_cr0(read_cr0() | CR0_WP);
    t = probe(store, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
}

static void supervisor_page(void)
{
    struct trap t;

    page_map(va, page_new(), PTE_P | PTE_W);
    t = probe_user(user_load, va + 8, 0);
    check_page_fault(&t, PF_PRESENT | PF_USER, va + 8);
    t = probe_user(user_store, va + 8, 0);
    check_page_fault(&t, PF_PRESENT | PF_USER | PF_WRITE, va + 8);
    t = probe_user(user_jump, va + 8, 0);
    check_page_fault(&t, PF_PRESENT | PF_USER | PF_FETCH, va + 8);
    t = probe(load, va, 0);
    check_no_trap(&t);
}

/* The rights of all levels are and-ed (NX: or-ed). */
static void rights_of_levels(void)
{
    page_map(va, page_new(), OPEN);
    for (unsigned level = 1; level <= 4; level++) {
        uint64_t *e = page_entry(va, level);
        const uint64_t was = *e;
        struct trap t;

        *e = was & ~(uint64_t)PTE_W;
        invlpg(va);
        t = probe(store, va, 0);
        check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
        *e = was & ~(uint64_t)PTE_U;
        invlpg(va);
        t = probe_user(user_load, va, 0);
        check_page_fault(&t, PF_PRESENT | PF_USER, va);
        *e = was | PTE_NX;
        invlpg(va);
        t = probe(jump, va, 0);
        check_page_fault(&t, PF_PRESENT | PF_FETCH, va);
        *e = was;
        invlpg(va);
    }
}

static void no_execute(void)
{
    const uint64_t page = page_new();
    struct trap t;

    memcpy((void *)page, leave_user, 2);
    page_map(va, page, OPEN | PTE_NX);
    t = probe(jump, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, va);
    t = probe_user(user_jump, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH | PF_USER, va);
    t = probe(store, va + 64, 0);
    check_no_trap(&t);
    page_map(va, page, OPEN);
    t = probe_user(user_jump, va, 0);
    check_left(&t);
}

/* ---- reserved bits (§4.5, tables 4-15 to 4-20) --------------------------------------------------
 */

/* QEMU's TCG (7.2) leaves the present bit out. */
static uint64_t reserved(void)
{
    return option("tcg") ? PF_RESERVED : PF_PRESENT | PF_RESERVED;
}

static void reserved_bits(void)
{
    const unsigned physical = cpuid(0x80000008, 0).eax & 0xff;

    page_map(va, page_new(), OPEN);
    if (physical >= 52) {
        skip("all address bits are in use");
        return;
    }
    for (unsigned level = 1; level <= 4; level++) {
        uint64_t *e = page_entry(va, level);
        const uint64_t was = *e;
        struct trap t;

        *e = was | 1ull << 51;
        invlpg(va);
        t = probe(load, va, 0);
        check_page_fault(&t, reserved(), va);
        t = probe_user(user_store, va, 0);
        check_page_fault(&t, reserved() | PF_WRITE | PF_USER, va);
        *e = was | 1ull << physical;
        invlpg(va);
        t = probe(load, va, 0);
        check_page_fault(&t, reserved(), va);
        *e = (was | 1ull << 51) & ~1ull; /* not present: nothing else counts */
        invlpg(va);
        t = probe(load, va, 0);
        check_page_fault(&t, 0, va);
        *e = was;
        invlpg(va);
    }
}

static void reserved_nx(void)
{
    struct trap t;

    page_map(va, page_new(), OPEN | PTE_NX);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    tlb_flush_all();
    t = probe(load, va, 0);
    check_page_fault(&t, reserved(), va);
}

static void reserved_in_large(void)
{
    const uint64_t page = page_new_aligned(0x200000);
    struct trap t;

    page_map_level(va, 2, page | OPEN | PTE_PS | 1 << 13);
    t = probe(load, va, 0);
    check_page_fault(&t, reserved(), va);
    page_map_level(va, 2, page | OPEN | PTE_PS | 1 << 20);
    t = probe(store, va, 0);
    check_page_fault(&t, reserved() | PF_WRITE, va);
    page_map_level(va, 2, page | OPEN | PTE_PS | 1 << 12); /* PAT is not reserved */
    t = probe(load, va, 0);
    check_no_trap(&t);
    *page_entry(va, 4) |= PTE_PS; /* a PML4 entry maps no page */
    invlpg(va);
    t = probe(load, va, 0);
    check_page_fault(&t, reserved(), va);
}

/* ---- sizes -------------------------------------------------------------------------------------
 */

static void page_2m(void)
{
    const uint64_t page = page_new_aligned(0x200000), start = va & ~0x1fffffull;
    struct trap t;

    *(uint64_t *)(page + 0x1ffff8) = 0x1122334455667788;
    page_map_level(start, 2, page | OPEN | PTE_PS);
    t = probe(load_8, start + 0x1ffff8, 0);
    check_no_trap(&t);
    check("the last word", 0x1122334455667788, t.rax);
    t = probe(store_8, start + 0x100008, 77);
    check("a store", 77, *(volatile uint64_t *)(page + 0x100008));
    page_map_level(start, 2, page | PTE_P | PTE_PS | PTE_NX);
    t = probe(store_8, start + 0x100008, 77);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, start + 0x100008);
    t = probe_user(user_load, start + 0x180000, 0);
    check_page_fault(&t, PF_PRESENT | PF_USER, start + 0x180000);
    t = probe(jump, start + 0x180000, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, start + 0x180000);
}

static void page_1g(void)
{
    const uint64_t page = page_new(), start = va & ~0x3fffffffull;
    struct trap t;

    if (!has_feature(0x80000001, 3, 26)) {
        if (!option("software")) {
            skip("not offered, and with nested paging the processor below decides");
            return;
        }
        page_map_level(start, 3, OPEN | PTE_PS);
        t = probe(load, start + page, 0);
        check_page_fault(&t, reserved(), start + page);
        return;
    }
    *(volatile uint64_t *)(page + 0x100) = 0xabcdef;
    page_map_level(start, 3, OPEN | PTE_PS);
    t = probe(load_8, start + page + 0x100, 0);
    check_no_trap(&t);
    check("the word", 0xabcdef, t.rax);
    page_map_level(start, 3, PTE_P | PTE_PS);
    t = probe(store_8, start + page, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, start + page);
    page_map_level(start, 3, OPEN | PTE_PS | 1 << 14);
    t = probe(load_8, start + page, 0);
    check_page_fault(&t, reserved(), start + page);
}

/* ---- accesses over the border of two pages
 * ------------------------------------------------------- */

static void across_border(void)
{
    const uint64_t first = page_new(), border = va + 4096;
    struct trap t;

    page_map(va, first, OPEN);
    memset((void *)(first + 4088), 0x55, 8);
    t = probe(load_8, border - 3, 0);
    check_page_fault(&t, 0, border);
    t = probe(store_8, border - 3, 0);
    check_page_fault(&t, PF_WRITE, border);
    check("nothing was written", 0x55, *(volatile uint8_t *)(first + 4095));
    t = probe(push_at, border + 4, 0);
    check_page_fault(&t, PF_WRITE, border);
    *page_entry(va, 1) = 0; /* both miss: the lower is told */
    invlpg(va);
    t = probe(load_8, border - 3, 0);
    check_page_fault(&t, 0, border - 3);
}

static void fetch_across_border(void)
{
    const uint64_t first = page_new(), border = va + 4096;
    static const uint8_t mov_eax[] = {0xb8, 1, 2, 3, 4, 0xc3};
    struct trap t;

    page_map(va, first, OPEN);
    memcpy((void *)(first + 4093), mov_eax, 3);
    t = probe(jump, border - 3, 0);
    check_page_fault(&t, PF_FETCH, border);
    check("rip", border - 3, t.rip);
    page_map(border, page_new(), OPEN);
    memcpy((void *)(*page_entry(border, 1) & PTE_ADDRESS), mov_eax + 3, 3);
    t = probe(jump, border - 3, 0);
    check_no_trap(&t);
    check("eax", 0x04030201, t.rax);
}

static void string_two_operands(void)
{
    struct trap t;

    page_map(va, page_new(), OPEN);
    t = probe(copy_byte, va, va + 4096); /* source misses */
    check_page_fault(&t, 0, va + 4096);
    t = probe(copy_byte, va + 4096, va);
    check_page_fault(&t, PF_WRITE, va + 4096);
}

/* ---- SMEP, SMAP (§4.6.1) ------------------------------------------------------------------------
 */

static void smep(void)
{
    const uint64_t page = page_new();
    struct trap t;

    if (!has_feature(7, 1, 7)) {
        skip("not offered");
        return;
    }
    *(uint8_t *)page = 0xc3;
    page_map(va, page, OPEN);
    t = probe(jump, va, 0);
    check_no_trap(&t);
    write_cr4(read_cr4() | CR4_SMEP);
    t = probe(jump, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, va);
    t = probe(load, va, 0);
    check_no_trap(&t);
    memcpy((void *)page, leave_user, 2);
    t = probe_user(user_jump, va, 0);
    check_left(&t);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE);
    t = probe(jump, va + 4096, 0); /* the fetch bit is told because of SMEP alone */
    check_page_fault(&t, PF_FETCH, va + 4096);
}

static void smap(void)
{
    struct trap t;

    if (!has_feature(7, 1, 20)) {
        skip("not offered");
        return;
    }
    page_map(va, page_new(), OPEN);
    write_cr4(read_cr4() | CR4_SMAP);
    t = probe(load, va, 0);
    check_page_fault(&t, PF_PRESENT, va);
    t = probe(store, va, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, va);
    t = probe(load_open, va, 0);
    check_no_trap(&t);
    t = probe(load, va, 0); /* CLAC closed it again */
    check_page_fault(&t, PF_PRESENT, va);
    t = probe_user(user_load, va, 0);
    check_left(&t);
    *(uint8_t *)(*page_entry(va, 1) & PTE_ADDRESS) = 0xc3;
    t = probe(jump, va, 0); /* fetches are SMEP's */
    check_no_trap(&t);
}

static const struct test tests[] = {
    {"page fault: not present", not_present},
    {"page fault: not present, read and write", not_present_update},
    {"page fault: not present, fetch", not_present_fetch},
    {"page fault: not present at every level", not_present_levels},
    {"page fault: no fetch bit without NXE", fetch_bit_without_nx},
    {"page fault: write and WP", write_protect},
    {"page fault: supervisor page", supervisor_page},
    {"page fault: rights of all levels", rights_of_levels},
    {"page fault: NX", no_execute},
    {"page fault: reserved address bits", reserved_bits},
    {"page fault: NX is reserved without NXE", reserved_nx},
    {"page fault: reserved bits of large pages", reserved_in_large},
    {"page fault: 2 MiB page", page_2m},
    {"page fault: 1 GiB page", page_1g},
    {"page fault: access over a border", across_border},
    {"page fault: fetch over a border", fetch_across_border},
    {"page fault: MOVSB's two operands", string_two_operands},
    {"page fault: SMEP", smep},
    {"page fault: SMAP", smap},
};

void page_fault_tests(void)
{
    TESTS(tests);
}

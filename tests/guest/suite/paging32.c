/* paging32.c - 32-bit and PAE paging (SDM vol 3 §4.3, §4.4, §4.7): page faults, large pages, A/D
 * flags, PDPTEs. */
#include "cpu32.h"
#include "tests32.h"

enum { P = 1, W = 2, U = 4, A = 32, D = 64, PS = 128, OPEN = P | W | U };
enum { VA = 0x40000000 };
#define MSR_EFER 0xc0000080u

static uint32_t directory[1024] __attribute__((aligned(4096))),
    table[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(32))),
    directories[4][512] __attribute__((aligned(4096)));
static uint64_t wide_table[512] __attribute__((aligned(4096)));
static uint8_t page[4096] __attribute__((aligned(4096)));

CODE(pg_load, "movb (%edi), %al; ret");
CODE(pg_store, "movb $1, (%edi); ret");
CODE(pg_jump, "call *%edi; ret");
CODE(user_pg_load, "movb (%edi), %al; int $0x80");
CODE(user_pg_store, "movb $1, (%edi); int $0x80");
CODE(set_cr3, "mov %edi, %cr3; ret");
CODE(set_cr0, "mov %edi, %cr0; ret");

static void check_page_fault(const struct trap *t, uint32_t error, uint32_t address)
{
    check_trap(t, VECTOR_PF, error);
    check("cr2", address, t->cr2);
}

/* QEMU's TCG (7.2) leaves the present bit out. */
static uint32_t reserved(void)
{
    return option("tcg") ? PF_RESERVED : PF_PRESENT | PF_RESERVED;
}

static void flush(uint32_t va)
{
    asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* ---- 32-bit paging
 * ----------------------------------------------------------------------------------- */

/* The first GiB at its own addresses by 4 MiB pages, `table` at VA. */
static void paging_on(void)
{
    memset(directory, 0, sizeof(directory));
    memset(table, 0, sizeof(table));
    for (unsigned i = 0; i < 256; i++)
        directory[i] = i << 22 | OPEN | PS;
    directory[VA >> 22] = (uint32_t)table | OPEN;
    write_cr4(CR4_PSE);
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | CR0_PG);
}

static void map(uint32_t flags)
{
    *(volatile uint32_t *)&table[0] = (uint32_t)page | flags;
    flush(VA);
}

static void faults_32(void)
{
    struct trap t;

    paging_on();
    t = probe(pg_load, VA + 5, 0);
    check_page_fault(&t, 0, VA + 5);
    t = probe_user(user_pg_store, VA, 0);
    check_page_fault(&t, PF_WRITE | PF_USER, VA);
    t = probe(pg_jump, VA, 0);
    check_page_fault(&t, 0, VA); /* no fetch bit: nothing can forbid fetches */
    map(P | U);
    t = probe(pg_store, VA, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE, VA);
    write_cr0(read_cr0() & ~CR0_WP);
    t = probe(pg_store, VA, 0);
    check_no_trap(&t);
    t = probe_user(user_pg_store, VA, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE | PF_USER, VA);
    map(P | W);
    t = probe_user(user_pg_load, VA, 0);
    check_page_fault(&t, PF_PRESENT | PF_USER, VA);
}

static void flags_32(void)
{
    struct trap t;

    paging_on();
    map(OPEN);
    t = probe(pg_load, VA, 0);
    check_no_trap(&t);
    check("A", A, *(volatile uint32_t *)&table[0] & (A | D));
    t = probe(pg_store, VA, 0);
    check("A and D", A | D, *(volatile uint32_t *)&table[0] & (A | D));
    check("A of the directory", A, *(volatile uint32_t *)&directory[VA >> 22] & A);
}

static void large_32(void)
{
    struct trap t;

    paging_on();
    *(volatile uint32_t *)&directory[VA >> 22] = ((uint32_t)page & 0xffc00000) | OPEN | PS;
    flush(VA);
    page[9] = 0x99;
    t = probe(pg_load, VA + ((uint32_t)page & 0x3fffff) + 9, 0);
    check_no_trap(&t);
    check("4 MiB", 0x99, t.eax & 0xff);
    check("A", A, *(volatile uint32_t *)&directory[VA >> 22] & (A | D));
    *(volatile uint32_t *)&directory[VA >> 22] =
        1 << 21 | OPEN | PS; /* bit 21 is reserved (table 4-4) */
    flush(VA);
    t = probe(pg_load, VA, 0);
    check_page_fault(&t, reserved(), VA);
}

/* Without PSE, the bit means nothing and the entry names a table. */
static void no_pse(void)
{
    struct trap t;

    paging_on();
    for (unsigned i = 0; i < 1024; i++) /* the first 4 MiB by a table, before PSE goes */
        table[i] = i << 12 | OPEN;
    directory[0] = (uint32_t)table | OPEN;
    directory[VA >> 22] = (uint32_t)table | OPEN | PS;
    write_cr3((uint32_t)directory);
    write_cr4(0);
    page[3] = 0x33;
    t = probe(pg_load, VA + (uint32_t)page + 3, 0);
    check_no_trap(&t);
    check("through the table", 0x33, t.eax & 0xff);
    write_cr0(read_cr0() & ~CR0_PG);
}

/* ---- PAE
 * ---------------------------------------------------------------------------------------------- */

static void pae_on(void)
{
    memset(pdpt, 0, sizeof(pdpt));
    memset(directories, 0, sizeof(directories));
    memset(wide_table, 0, sizeof(wide_table));
    for (unsigned i = 0; i < 4; i++)
        pdpt[i] = (uint32_t)directories[i] | P;
    for (unsigned i = 0; i < 512; i++)
        directories[0][i] = (uint64_t)i << 21 | OPEN | PS;
    directories[VA >> 30][0] = (uint32_t)wide_table | OPEN;
    write_cr4(CR4_PAE);
    write_cr3((uint32_t)pdpt);
    write_cr0(read_cr0() | CR0_PG);
}

static void map_pae(uint64_t flags)
{
    *(volatile uint64_t *)&wide_table[0] = (uint32_t)page | flags;
    flush(VA);
}

static void faults_pae(void)
{
    struct trap t;

    pae_on();
    t = probe(pg_store, VA + 5, 0);
    check_page_fault(&t, PF_WRITE, VA + 5);
    map_pae(P | U);
    t = probe_user(user_pg_store, VA, 0);
    check_page_fault(&t, PF_PRESENT | PF_WRITE | PF_USER, VA);
    map_pae(OPEN);
    t = probe(pg_store, VA, 0);
    check_no_trap(&t);
    check("A and D", A | D, *(volatile uint64_t *)&wide_table[0] & (A | D));
    map_pae(OPEN | 1ull << 63); /* NX without NXE */
    t = probe(pg_load, VA, 0);
    check_page_fault(&t, reserved(), VA);
    map_pae(OPEN | 1ull << 62); /* reserved without long mode */
    t = probe(pg_load, VA, 0);
    if (!option("tcg")) /* QEMU's TCG and nested paging do not look at bits 62 to 52 */
        check_page_fault(&t, reserved(), VA);
}

static void nx_pae(void)
{
    struct trap t;

    wrmsr(MSR_EFER, EFER_NXE);
    pae_on();
    page[0] = 0xc3;
    map_pae(OPEN | 1ull << 63);
    t = probe(pg_load, VA, 0);
    check_no_trap(&t);
    t = probe(pg_jump, VA, 0);
    check_page_fault(&t, PF_PRESENT | PF_FETCH, VA);
    map_pae(OPEN);
    t = probe(pg_jump, VA, 0);
    check_no_trap(&t);
    write_cr0(read_cr0() & ~CR0_PG);
    wrmsr(MSR_EFER, 0);
}

static void large_pae(void)
{
    struct trap t;

    pae_on();
    *(volatile uint64_t *)&directories[VA >> 30][1] = ((uint32_t)page & 0xffe00000) | OPEN | PS;
    flush(VA + 0x200000);
    page[7] = 0x77;
    t = probe(pg_load, VA + 0x200000 + ((uint32_t)page & 0x1fffff) + 7, 0);
    check_no_trap(&t);
    check("2 MiB", 0x77, t.eax & 0xff);
    *(volatile uint64_t *)&directories[VA >> 30][1] = 1 << 13 | OPEN | PS;
    flush(VA + 0x200000);
    t = probe(pg_load, VA + 0x200000, 0);
    check_page_fault(&t, reserved(), VA + 0x200000);
}

/* The four PDPTEs are registers, loaded by MOV CR3 (§4.4.1): a change of memory counts then, and
 * reserved bits are #GP. AMD's processors may walk them in memory (APM vol 2 §5.3.2), so what is
 * checked holds for both. */
static void pdptes(void)
{
    struct trap t;

    pae_on();
    map_pae(OPEN);
    t = probe(pg_load, VA, 0);
    check_no_trap(&t);
    pdpt[VA >> 30] = 0;
    write_cr3((uint32_t)pdpt);
    t = probe(pg_load, VA, 0);
    check_page_fault(&t, 0, VA);
    pdpt[VA >> 30] = (uint32_t)directories[VA >> 30] | P;
    write_cr3((uint32_t)pdpt);
    t = probe(pg_load, VA, 0);
    check_no_trap(&t);
    if (!option("software"))
        return;
    pdpt[2] |= W; /* reserved there */
    t = probe(set_cr3, (uint32_t)pdpt, 0);
    check_trap_at(&t, VECTOR_GP, 0, set_cr3);
    write_cr0(read_cr0() & ~CR0_PG);
    t = probe(set_cr0, read_cr0() | CR0_PG, 0);
    check_trap_at(&t, VECTOR_GP, 0, set_cr0);
}

static const struct test tests[] = {
    {"32-bit paging: page faults", faults_32}, {"32-bit paging: A/D flags", flags_32},
    {"32-bit paging: 4 MiB pages", large_32},  {"32-bit paging: without PSE", no_pse},
    {"PAE paging: page faults", faults_pae},   {"PAE paging: NX", nx_pae},
    {"PAE paging: 2 MiB pages", large_pae},    {"PAE paging: PDPTEs", pdptes},
};

void paging32_tests(void)
{
    TESTS(tests);
}

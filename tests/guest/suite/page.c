/* page.c - page tables of tests (cpu.h). */
#include "cpu.h"

extern uint64_t boot_pml4[512], boot_pd[2048];

/* Physical memory that tests take pages from, above the payload and below 512 MiB. */
#define POOL_START 0x4000000ull
#define POOL_END   0x1c000000ull
enum { ROOT_LEVEL = 4, OPEN = PTE_P | PTE_W | PTE_U };

static uint64_t pool = POOL_START;

uint64_t page_new_aligned(uint64_t size)
{
    const uint64_t page = (pool + size - 1) & ~(size - 1);

    pool = page + size;
    if (pool > POOL_END) {
        put_text("suite: a test takes more memory than there is\n");
        power_off();
    }
    memset((void *)page, 0, size);
    return page;
}

uint64_t page_new(void)
{
    return page_new_aligned(4096);
}

uint64_t *page_entry_in(uint64_t root, uint64_t va, unsigned level)
{
    uint64_t *table = (uint64_t *)(root & PTE_ADDRESS);

    for (unsigned l = ROOT_LEVEL;; l--) {
        uint64_t *e = &table[va >> (12 + 9 * (l - 1)) & 511];

        if (l == level)
            return e;
        if (!(*e & PTE_P))
            *e = page_new() | OPEN;
        table = (uint64_t *)(*e & PTE_ADDRESS);
    }
}

uint64_t *page_entry(uint64_t va, unsigned level)
{
    return page_entry_in(read_cr3(), va, level);
}

void page_map_level(uint64_t va, unsigned level, uint64_t entry)
{
    *(volatile uint64_t *)page_entry(va, level) = entry;
    invlpg(va);
}

void page_map(uint64_t va, uint64_t pa, uint64_t flags)
{
    page_map_level(va, 1, pa | flags);
}

uint64_t page_new_root(void)
{
    const uint64_t root = page_new();

    memcpy((void *)root, boot_pml4, 4096);
    return root;
}

void tlb_flush_all(void)
{
    const uint64_t cr4 = read_cr4();

    write_cr4(cr4 ^ CR4_PGE);
    write_cr4(cr4);
}

/* The alias of the first GiB for ring 3. */
void page_start(void)
{
    static uint64_t pdpt[512] __attribute__((aligned(4096))),
        pd[512] __attribute__((aligned(4096)));

    for (unsigned i = 0; i < 512; i++)
        pd[i] = (uint64_t)i << 21 | OPEN | PTE_PS;
    pdpt[0] = (uint64_t)pd | OPEN;
    boot_pml4[USER_BASE >> 39] = (uint64_t)pdpt | OPEN;
}

void page_reset(void)
{
    write_cr4(read_cr4() & ~(uint64_t)CR4_PCIDE);
    boot_pml4[TEST_BASE >> 39] = 0;
    write_cr3((uint64_t)boot_pml4);
    tlb_flush_all();
    pool = POOL_START;
}

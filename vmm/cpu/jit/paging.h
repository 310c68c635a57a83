/*
 * paging.h - linear to guest-physical addresses by the guest's page tables (SDM vol 3 chapter 4).
 */
#ifndef VMM_JIT_PAGING_H
#define VMM_JIT_PAGING_H

#include "cpu/jit/mmu.h"

/* What the paging structures say of a page, whoever asks. */
enum {
    PAGE_USER = 1 << 0,
    PAGE_WRITABLE = 1 << 1,
    PAGE_NX = 1 << 2,
    PAGE_DIRTY = 1 << 3, /* or it need not be marked: paging is off */
    PAGE_GLOBAL = 1 << 4,
    PAGE_LARGE = 1 << 5, /* part of a larger page */
    PAGE_HUGE = 1 << 6,  /* of one of 1 GiB (then PAGE_LARGE too) */
};

struct paging_page {
    uint64_t gpa; /* of the 4 KiB around the address */
    unsigned flags;
};

/* Why memory is accessed: PF_WRITE, PF_FETCH, PF_USER; and whether SMAP is suspended. */
enum { PAGING_SMAP_OFF = 1 << 16 };

/*
 * Walks, checks the access, and marks what was used as accessed and dirty. False: a page fault with
 * *error as its code; nothing was marked.
 */
bool paging_walk(struct jit_cpu *cpu, uint64_t linear, unsigned access, struct paging_page *page,
                 uint32_t *error);
/* Whether a page with these flags allows the access. */
bool paging_allows(const struct jit_cpu *cpu, unsigned flags, unsigned access);
/* The page fault's code for an access, the page being present or not. */
uint32_t paging_error(const struct jit_cpu *cpu, unsigned access, uint32_t bits);

/* Reads the four PDPTEs of PAE paging; false: a reserved bit is set, nothing was changed. */
bool paging_load_pdptes(struct jit_cpu *cpu, uint64_t cr3);

static inline bool paging_is_pae(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(efer & EFER_LMA);
}

#endif

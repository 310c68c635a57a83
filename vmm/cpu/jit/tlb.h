/*
 * tlb.h - the inline translation cache that interpreter and generated code look into.
 *
 * An entry maps a linear page to host memory: what linear ^ tag leaves is the offset in both pages.
 * Reads and writes have tables of their own, so that a page that may be read but needs a look
 * before a write (not dirty yet, write-protected, holds code, is watched) has a read entry only.
 * The set is chosen by privilege, so that a change of ring flushes nothing.
 *
 * The check accepts exactly the accesses that lie inside one page: (linear ^ tag) + size - 1 <
 * 4096. A tag is a page address; that of an empty entry is one that is looked up elsewhere. No
 * address matches it, canonical or not: generated code does not look whether one is canonical. MMIO
 * is never in the tables.
 */
#ifndef VMM_JIT_TLB_H
#define VMM_JIT_TLB_H

#include <queztl/base.h>

enum { TLB_BITS = 9, TLB_ENTRIES = 1 << TLB_BITS };
enum {
    TLB_KERNEL,
    TLB_USER,
    TLB_KERNEL_AC,   /* SMAP with EFLAGS.AC set */
    TLB_USER_STRICT, /* alignment is checked (#AC): always empty, the slow path looks */
    TLB_SETS
};
enum { TLB_READ, TLB_WRITE, TLB_KINDS };

struct tlb_entry {
    uint64_t tag;
    uint8_t *host; /* of the page */
};

struct jit_tlb {
    struct tlb_entry entry[TLB_SETS][TLB_KINDS][TLB_ENTRIES];
    unsigned data_set; /* the set for ordinary data accesses now: from CPL, CR4.SMAP and AC */
    struct jit_tlb_level2
        *level2; /* mmu.c: keyed by address space, survives CR3 writes that keep a PCID */
};

static inline unsigned tlb_index(uint64_t linear)
{
    return linear >> 12 & (TLB_ENTRIES - 1);
}

/* The tag of an empty entry: of the neighbour's pages. */
static inline uint64_t tlb_empty_tag(unsigned index)
{
    return (uint64_t)(index ^ 1) << 12;
}

#endif

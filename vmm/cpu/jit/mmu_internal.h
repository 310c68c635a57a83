/*
 * mmu_internal.h - between mmu.c (accesses), mmu_bytes.c (larger ones) and tlb.c (caches of
 * translations).
 */
#ifndef VMM_JIT_MMU_INTERNAL_H
#define VMM_JIT_MMU_INTERNAL_H

#include "cpu/jit/mmu.h"
#include "cpu/jit/paging.h"

/* One page as an access meets it. */
struct mmu_page {
    uint64_t gpa;     /* of the page */
    uint8_t *host;    /* of the page, NULL: not memory */
    bool readonly;    /* ROM: a write goes to the machine */
    bool writes_slow; /* holds code: whoever writes there says so */
    unsigned flags;   /* PAGE_* */
};

/*
 * Translates for an access (PF_WRITE, PF_USER, PF_FETCH, PAGING_SMAP_OFF), through the second level.
 * False: a page fault with *error.
 */
bool tlb_translate(struct jit_cpu *cpu, uint64_t linear, unsigned access, struct mmu_page *page,
                   uint32_t *error);

/* Lets the accessors find the page themselves. Not for TLB_USER_STRICT, MMIO, watched pages. */
void tlb_fill(struct jit_cpu *cpu, unsigned set, unsigned kind, uint64_t linear,
              const struct mmu_page *page);

/* Code pages, user or not: the translation that a fetch found, or NULL. */
struct tlb_code {
    uint64_t tag;
    uint64_t gpa;
    const uint8_t *host;
};
const struct tlb_code *tlb_code_find(const struct jit_cpu *cpu, uint64_t linear);
void tlb_code_fill(struct jit_cpu *cpu, uint64_t linear, const struct mmu_page *page);

/* No write entry of this vCPU leads to that host page any more. */
void tlb_drop_writes(struct jit_cpu *cpu, const uint8_t *host);
/* Empties the first level only, for what depends on more than the tables (watched addresses). */
void tlb_flush_level1(struct jit_cpu *cpu);

/* Access bits of a TLB_* set. */
unsigned mmu_set_access(unsigned set);
/* As long as no debug register watches it (SDM vol 3 §17.2.4). */
bool mmu_watched(const struct jit_cpu *cpu, uint64_t linear, unsigned len);

/* Linear addresses are 32 bits wide outside IA-32e mode. */
static inline uint64_t mmu_wrap(const struct jit_cpu *cpu, uint64_t linear)
{
    return cpu->efer & EFER_LMA ? linear : (uint32_t)linear;
}

/* Translates or raises the page fault. */
struct mmu_page mmu_page(struct jit_cpu *cpu, uint64_t linear, unsigned access);

/* The pieces of an access in one page. host + offset, or through the machine; writes tell of code. */
void mmu_read_page(struct jit_cpu *cpu, const struct mmu_page *page, uint64_t linear, void *buf,
                   unsigned len);
void mmu_write_page(struct jit_cpu *cpu, const struct mmu_page *page, uint64_t linear,
                    const void *buf, unsigned len);

#endif

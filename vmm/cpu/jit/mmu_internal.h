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
 * Translates for an access (PF_WRITE, PF_USER, PF_FETCH, PAGING_SMAP_OFF), through the second
 * level. False: a page fault with *error.
 */
bool tlb_translate(struct jit_cpu *cpu, uint64_t linear, unsigned access, struct mmu_page *page,
                   uint32_t *error);

/* Lets the accessors find the page themselves. Not for TLB_USER_STRICT, MMIO, watched pages. */
void tlb_fill(struct jit_cpu *cpu, unsigned set, unsigned kind, uint64_t linear,
              const struct mmu_page *page);

enum { TLB_CODE_ENTRIES = 256 };

/* The translation that a fetch found. */
struct tlb_code {
    uint64_t tag;
    uint64_t gpa;
    const uint8_t *host;
    bool global;
};

enum {
    LEVEL2_BITS = 13,
    LEVEL2_ENTRIES = 1 << LEVEL2_BITS,
    PCIDS = 4096,
    REGION_BITS = 12,
};

#define KEY_LINEAR 0x0000fffffffff000ull
#define KEY_GLOBAL (1ull << 63)
#define KEY_EMPTY  (1ull << 62)

enum { ENTRY_READONLY = 1 << 16 };

struct level2_entry {
    uint64_t key; /* linear page, PCID below it, KEY_GLOBAL */
    uint64_t gpa;
    uint8_t *host;
    uint32_t generation;
    uint32_t flags; /* PAGE_*, ENTRY_READONLY */
};

struct jit_tlb_level2 {
    struct tlb_code code[2][TLB_CODE_ENTRIES];              /* supervisor, user */
    uint64_t code_filled[2][TLB_CODE_ENTRIES / 64];         /* entries that are not global */
    uint64_t filled[TLB_SETS][TLB_KINDS][TLB_ENTRIES / 64]; /* entries that are not global */
    uint32_t generation[PCIDS], global_generation, changes;
    uint64_t large[2][(1 << REGION_BITS) / 64]; /* 2 MiB and 1 GiB regions seen large, hashed */
    struct level2_entry entry[LEVEL2_ENTRIES];
};

static inline const struct tlb_code *tlb_code_find(const struct jit_cpu *cpu, uint64_t linear)
{
    const struct tlb_code *c =
        &cpu->tlb.level2->code[cpu->cpl == 3][linear >> 12 & (TLB_CODE_ENTRIES - 1)];

    return c->tag == (linear & ~0xfffull) ? c : NULL;
}
void tlb_code_fill(struct jit_cpu *cpu, uint64_t linear, const struct mmu_page *page);

/* No write entry of this vCPU leads to that host page any more. */
void tlb_drop_writes(struct jit_cpu *cpu, const uint8_t *host);
void tlb_drop_all_writes(struct jit_cpu *cpu);
/* Empties the first level only, for what depends on more than the tables (watched addresses). */
void tlb_flush_level1(struct jit_cpu *cpu);

/* Access bits of a TLB_* set. */
unsigned mmu_set_access(unsigned set);
/* A debug register (SDM vol 3 §17.2.4) or the debugger watches it. */
bool mmu_watched(const struct jit_cpu *cpu, uint64_t linear, unsigned len);

/* Linear addresses are 32 bits wide outside IA-32e mode. */
static inline uint64_t mmu_wrap(const struct jit_cpu *cpu, uint64_t linear)
{
    return cpu->efer & EFER_LMA ? linear : (uint32_t)linear;
}

static inline bool mmu_is_canonical(const struct jit_cpu *cpu, uint64_t linear)
{
    return !(cpu->efer & EFER_LMA) || (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* Translates or raises the page fault. */
struct mmu_page mmu_page(struct jit_cpu *cpu, uint64_t linear, unsigned access);

/* An access in as many pieces as it touches pages: at most 4096 bytes. */
enum { MMU_PIECES = 2 };
struct mmu_piece {
    struct mmu_page page;
    uint64_t linear;
    unsigned at, len; /* in the operand */
};
/* Translates all of it, or raises. */
unsigned mmu_pieces(struct jit_cpu *cpu, uint64_t linear, unsigned len, unsigned access,
                    struct mmu_piece piece[MMU_PIECES]);
void mmu_read_pieces(struct jit_cpu *cpu, const struct mmu_piece piece[], unsigned n, void *buf);
void mmu_write_pieces(struct jit_cpu *cpu, const struct mmu_piece piece[], unsigned n,
                      const void *buf);

#endif

/*
 * mmu.h - memory as the guest's instructions see it: linear addresses, paging, caches of
 * translations.
 *
 * Every host address that interpreter or generated code touches comes from tlb_fill in mmu.c, which
 * takes it from a checked look-up of the guest-physical map: this is what keeps a guest inside its
 * memory.
 */
#ifndef VMM_JIT_MMU_H
#define VMM_JIT_MMU_H

#include "cpu/jit/cpu.h"
#include "cpu/jit/host_memory.h"

/*
 * Slow ends of the accessors below: miss, page crossing, MMIO, code pages, alignment checks (#AC).
 * size 1, 2, 4, 8. A value that crosses pages is accessed only when both pages allow it. `set`: a
 * TLB_* set.
 */
uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set);
void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set);

static inline void *mmu_hit(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set,
                            unsigned kind)
{
    const struct tlb_entry *e = &cpu->tlb.entry[set][kind][tlb_index(linear)];

    const uint64_t offset = linear ^ e->tag;

    return offset <= 4096 - size ? e->host + offset : NULL;
}

static inline uint64_t mmu_load_in(struct jit_cpu *cpu, uint64_t linear, unsigned size,
                                   unsigned set)
{
    const void *p = mmu_hit(cpu, linear, size, set, TLB_READ);

    if (__builtin_expect(!p, 0))
        return mmu_load_slow(cpu, linear, size, set);
    return host_load(p, size);
}

static inline void mmu_store_in(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                                unsigned set)
{
    void *p = mmu_hit(cpu, linear, size, set, TLB_WRITE);

    if (__builtin_expect(!p, 0))
        return mmu_store_slow(cpu, linear, size, value, set);
    host_store(p, size, value);
}

/* Data accesses of instructions, by linear address, with the current privilege. */
static inline uint64_t mmu_load(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    return mmu_load_in(cpu, linear, size, cpu->tlb.data_set);
}
static inline void mmu_store(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    mmu_store_in(cpu, linear, size, value, cpu->tlb.data_set);
}

/* Implicit supervisor accesses, whatever the CPL: descriptor tables, task-state segments, interrupt
 * frames to ring 0. */
uint64_t mmu_load_system(struct jit_cpu *cpu, uint64_t linear, unsigned size);
void mmu_store_system(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value);
/* As a given ring's code would (user: CPL 3), for stacks of another ring. */
uint64_t mmu_load_as(struct jit_cpu *cpu, uint64_t linear, unsigned size, bool user);
void mmu_store_as(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value, bool user);

/* For operands that are no single value, before they are accessed (SDM vol 3 table 6-7). */
static inline void mmu_check_alignment(struct jit_cpu *cpu, uint64_t linear, unsigned alignment)
{
    if (__builtin_expect(cpu->tlb.data_set == TLB_USER_STRICT && (linear & (alignment - 1)), 0))
        jit_raise_code(cpu, VECTOR_AC, 0);
}

/* Larger operands, 1 to 4096 bytes. All pages are checked before the first byte is written. */
void mmu_load_bytes(struct jit_cpu *cpu, uint64_t linear, void *buf, unsigned len);
void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len);
/* Raises what a write (or read) of the range would raise, and does nothing else but A/D bits. */
void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write);

/*
 * For LOCK and implicit-lock read-modify-write, size 1 to 16: the host address, good until the next
 * call into this header, when the operand is plain memory within one page (misaligned ones
 * included). NULL: it crosses a page, is MMIO, or its page holds code or is watched; the
 * permissions for reading and writing were then checked already, and the caller does the operation
 * between jit_exclusive_begin() and jit_exclusive_end() with mmu_load and mmu_store.
 */
void *mmu_atomic(struct jit_cpu *cpu, uint64_t linear, unsigned size);
void jit_exclusive_begin(struct jit_cpu *cpu); /* no other vCPU executes guest code until the end */
void jit_exclusive_end(struct jit_cpu *cpu);

/*
 * Runs of bytes for string instructions: the longest prefix of [linear, linear + len), at most to
 * the end of the page, that is plain memory, as host memory. NULL: go one element at a time through
 * mmu_load and mmu_store.
 */
const void *mmu_run_read(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got);
void *mmu_run_write(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got);

/*
 * Instruction fetch: the guest-physical address of `linear` and the host bytes up to the end of its
 * page. Raises #PF with PF_FETCH. host NULL: not memory (MMIO): instructions there are read one
 * byte at a time by mmu_load.
 */
struct mmu_code {
    uint64_t gpa;
    const uint8_t *host;
};
struct mmu_code mmu_code(struct jit_cpu *cpu, uint64_t linear);

/* --- Control
 * ------------------------------------------------------------------------------------------------
 */

void mmu_set_changed(
    struct jit_cpu *cpu); /* CPL, AC, CR0.WP?, CR4.SMAP changed: chooses tlb.data_set */
void mmu_flush_all(struct jit_cpu *cpu);   /* everything, global pages included */
void mmu_flush_local(struct jit_cpu *cpu); /* all but global pages, current PCID */
void mmu_cr3_write(struct jit_cpu *cpu,
                   uint64_t cr3); /* sets CR3, PDPTEs (raises #GP for bad ones), flushes as told */
/* The four PDPTEs of PAE paging from the table at cr3, for what else loads them (SDM vol 3 §4.4.1).
 * False: a reserved bit is set, #GP(0); nothing was changed. */
bool paging_load_pdptes(struct jit_cpu *cpu, uint64_t cr3);
void mmu_invlpg(struct jit_cpu *cpu, uint64_t linear);
void mmu_invpcid(struct jit_cpu *cpu, unsigned type, uint64_t pcid,
                 uint64_t linear); /* operands checked by the caller */
/* CR0, CR4 or EFER changed from the given values: flushes what paging requires (SDM vol 3
 * §4.10.4.1). */
void mmu_paging_changed(struct jit_cpu *cpu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer);

/* CR0, CR3, CR4 and EFER were set as a state's. -EINVAL: its PDPTEs have reserved bits set. */
int mmu_restore(struct jit_cpu *cpu);

int mmu_new(struct jit_cpu *cpu); /* -ENOMEM */
void mmu_free(struct jit_cpu *cpu);

/* A page with this guest-physical address now holds translated code (or no longer): its write
   entries go. Any thread for its own cpu; others get ATTENTION_FLUSH. */
void mmu_code_page_changed(struct jit_vm *vm, uint64_t gpa);

#endif

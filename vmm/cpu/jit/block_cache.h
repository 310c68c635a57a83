/*
 * block_cache.h - a vCPU's view of the blocks (block.h), and the way to one that is at hand.
 */
#ifndef VMM_JIT_BLOCK_CACHE_H
#define VMM_JIT_BLOCK_CACHE_H

#include "cpu/jit/block.h"
#include "cpu/jit/mmu_internal.h"

enum { JUMP_BITS = 12, JUMPS = 1 << JUMP_BITS, CROSSINGS = 64, INSN_BYTES_MAX = 15 };

/*
 * One instruction as a block of its own, of this vCPU alone: it crosses into another page, or lies
 * in no memory. It is good as long as the bytes are the same, which is looked up each time.
 */
struct lone_block {
    struct jit_block block;
    struct insn insn;
    jit_handler *handler;
    uint8_t bytes[INSN_BYTES_MAX];
};

/* The debug registers that the first level of translations was filled under. */
struct watch {
    uint64_t dr[4], dr7;
};

/* Not canonical, so no instruction's address. */
#define NOT_ENTERED 0x8000000000000000ull

struct jit_blocks {
    /* Where a linear address led last time. Believed only when the page is still where it was. */
    struct jit_block *jump[JUMPS];
    struct jit_block *current; /* interpreted now or last, or NULL: its memory is not reused */
    uint64_t entered_at;       /* rip at its begin while 64-bit code executes, or NOT_ENTERED */
    struct lone_block crossing[CROSSINGS];
    struct watch watch;
};

/* What decoding and translating depend on besides the bytes. */
static inline uint32_t block_mode(const struct jit_cpu *cpu)
{
    return cpu->code_width | cpu->tlb.data_set << 2;
}

static inline uint64_t block_linear(const struct jit_cpu *cpu)
{
    return cpu->long_mode ? cpu->rip : (uint32_t)(cpu->seg[SEG_CS].base + cpu->rip);
}

static inline struct jit_block **block_jump(struct jit_cpu *cpu, uint64_t linear)
{
    return &cpu->blocks->jump[(linear ^ linear >> JUMP_BITS) & (JUMPS - 1)];
}

/* block_lookup() for the common case: instructions or code. */
static inline struct jit_block *block_at_hand(struct jit_cpu *cpu)
{
    const uint64_t linear = block_linear(cpu);
    struct jit_block *b = *block_jump(cpu, linear);
    const struct tlb_code *page = tlb_code_find(cpu, linear);

    if (!b || !page || page->gpa + (linear & 4095) != b->gpa || b->mode != block_mode(cpu) ||
        !__atomic_load_n(&b->valid, __ATOMIC_ACQUIRE))
        return block_lookup(cpu, false);
    return b;
}

/* The same with its instructions. */
static inline struct jit_block *block_to_interpret(struct jit_cpu *cpu)
{
    struct jit_block *b = block_at_hand(cpu);

    return __atomic_load_n(&b->insn, __ATOMIC_ACQUIRE) ? b : block_lookup(cpu, true);
}

int blocks_cpu_new(struct jit_cpu *cpu); /* -ENOMEM */
void blocks_cpu_free(struct jit_cpu *cpu);

#endif

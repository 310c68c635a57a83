/*
 * block_build.h - from bytes to the instructions of a block.
 */
#ifndef VMM_JIT_BLOCK_BUILD_H
#define VMM_JIT_BLOCK_BUILD_H

#include "cpu/jit/block_cache.h"

/*
 * Instructions from code.gpa to where the block ends; *bytes is how long they are. 0: not even one,
 * since it does not end in this page.
 */
unsigned block_decode(const struct jit_cpu *cpu, struct mmu_code code,
                      struct insn insn[JIT_BLOCK_MAX], unsigned *bytes);

/* The instruction at `linear`, which is code, where it was met before and crosses into the next
 * page; else NULL. May raise as a fetch of that page does. */
struct jit_block *block_lone_known(struct jit_cpu *cpu, uint64_t linear, struct mmu_code code);
/* The one instruction at `linear`, fetched as far as it goes, page by page. */
struct jit_block *block_lone(struct jit_cpu *cpu, uint64_t linear);

/* Raises #GP(0) when nothing can be fetched from cpu->rip: not canonical, or behind CS's limit. */
void block_check_fetch(struct jit_cpu *cpu);

#endif

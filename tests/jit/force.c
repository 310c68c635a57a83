/*
 * force.c - blocks are translated at their first execution.
 *
 * The linker puts this in the place of block_translate() (--wrap), which waits until a block has
 * proved worth it.
 */
#include "cpu/jit/block.h"

bool __real_block_translate(struct jit_cpu *cpu, struct jit_block *b);
bool __wrap_block_translate(struct jit_cpu *cpu, struct jit_block *b);

bool __wrap_block_translate(struct jit_cpu *cpu, struct jit_block *b)
{
    b->executions = UINT8_MAX;
    return __real_block_translate(cpu, b);
}

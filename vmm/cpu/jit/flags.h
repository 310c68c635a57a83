/*
 * flags.h - which arithmetic flags an instruction reads and writes, seen exactly (insn_ops.h says
 * it by operation only).
 */
#ifndef VMM_JIT_FLAGS_H
#define VMM_JIT_FLAGS_H

#include "cpu/jit/insn.h"

struct insn_flags {
    uint16_t reads;
    uint16_t writes; /* after it these have nothing of their old values: defined or undefined */
};

struct insn_flags insn_flags(const struct insn *i);

/* live[k]: the flags that are still wanted after instruction k, with `at_end` wanted after the last
 * one. */
void insn_flags_live(const struct insn *i, unsigned count, uint16_t at_end, uint16_t *live);

#endif

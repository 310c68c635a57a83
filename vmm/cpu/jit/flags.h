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

/*
 * The flags that the code at this offset of a page may read before it writes them. The answer holds
 * as long as nobody writes to the lines (64 bytes each, a bit for each of the page's) that were
 * looked at.
 */
uint16_t insn_flags_ahead(const uint8_t *page, unsigned offset, enum code_width width,
                          uint64_t features, uint64_t *lines);

/* live[k]: the flags that are still wanted after instruction k, with `at_end` wanted after the last
 * one; and all of them where a conditional branch leaves in the middle. */
void insn_flags_live(const struct insn *i, unsigned count, uint16_t at_end, uint16_t *live);

#endif

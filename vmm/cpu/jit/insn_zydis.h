/* insn_zydis.h - one instruction as this decoder and as Zydis see it, and how they are compared. */
#ifndef VMM_JIT_INSN_ZYDIS_H
#define VMM_JIT_INSN_ZYDIS_H

#include <Zydis/Zydis.h>

#include "cpu/jit/insn.h"
#include "cpu/jit/vec.h"

struct pair {
    const uint8_t *bytes;
    enum code_width width;
    struct insn ours;
    bool valid; /* to Zydis; then: */
    ZydisDecodedInstruction theirs;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

/* NULL, or what differs between the two, both valid. */
const char *zydis_difference(const struct pair *p);

/* Whether the reason is known why only one takes it for an instruction (insn_zydis_known.c). */
bool zydis_alone_is_valid(const struct pair *p);
bool ours_alone_is_valid(const struct pair *p);

/* What is known to look different where both mean the same. `what`: as zydis_difference() says. */
bool name_differs(const struct pair *p);
bool operands_are_not_compared(const struct pair *p);
bool operand_differs(const struct pair *p, const char *what);

#endif

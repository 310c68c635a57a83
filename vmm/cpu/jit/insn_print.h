/*
 * insn_print.h - a decoded instruction as text, for tests and traces: what struct insn says, in the
 * order destination, source, and not an assembler's syntax.
 *
 *     add.8 [ss:rbp+0x10], rax     movzx.4 ecx, bl     jcc4.8 -0x12     vec addps xmm1, [ds:rax]
 */
#ifndef VMM_JIT_INSN_PRINT_H
#define VMM_JIT_INSN_PRINT_H

#include "cpu/jit/insn.h"

/* Cut to `len` bytes, terminated. Returns text. */
const char *insn_print(const struct insn *i, char *text, size_t len);

#endif

/*
 * insn_layout.c - tells the script `interpreted` where the fields of struct insn are, and what its
 * operations are called.
 *
 * Lines `field NAME OFFSET TYPE` in perf's words for types, then `op NUMBER NAME`.
 */
#include <stddef.h>
#include <stdio.h>

#include "cpu/jit/insn.h"

#define FIELD(name, type)                             printf("field %s %zu %s\n", #name, offsetof(struct insn, name), type)
#define NAME(name, feature, reads, writes, undefined) #name,

static const char *const names[] = {INSN_OPS(NAME)};

int main(void)
{
    FIELD(op, "u16");
    FIELD(size, "u8");
    FIELD(prefix, "u8");
    FIELD(mem, "u8");
    FIELD(map, "u8");
    FIELD(opcode, "x8");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        printf("op %zu %s\n", i, names[i]);
    return 0;
}

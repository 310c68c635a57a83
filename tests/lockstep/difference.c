/* difference.c - two states beside each other (difference.h). */
#include "difference.h"

#define FIELD(name, member)                                                                        \
    {                                                                                              \
        name, offsetof(struct state_record, member)                                                \
    }
static const struct {
    const char *name;
    size_t offset;
} fields[] = {
    FIELD("time", time),        FIELD("rax", gpr[RAX]),  FIELD("rcx", gpr[RCX]),
    FIELD("rdx", gpr[RDX]),     FIELD("rbx", gpr[RBX]),  FIELD("rsp", gpr[RSP]),
    FIELD("rbp", gpr[RBP]),     FIELD("rsi", gpr[RSI]),  FIELD("rdi", gpr[RDI]),
    FIELD("r8", gpr[R8]),       FIELD("r9", gpr[R9]),    FIELD("r10", gpr[R10]),
    FIELD("r11", gpr[R11]),     FIELD("r12", gpr[R12]),  FIELD("r13", gpr[R13]),
    FIELD("r14", gpr[R14]),     FIELD("r15", gpr[R15]),  FIELD("rip", rip),
    FIELD("rflags", rflags),    FIELD("cr0", cr0),       FIELD("cr2", cr2),
    FIELD("cr3", cr3),          FIELD("cr4", cr4),       FIELD("fs.base", fs_base),
    FIELD("gs.base", gs_base),  FIELD("x87, SSE", xmm),  FIELD("the rest", rest),
    FIELD("all vCPUs", states), FIELD("memory", memory),
};

static unsigned long long value(const struct state_record *r, size_t offset)
{
    uint64_t v;

    memcpy(&v, (const char *)r + offset, sizeof(v));
    return v;
}

void difference_print(const struct state_record *translated, const struct state_record *interpreted,
                      const struct state_record *before)
{
    printf("vCPU %u    %18s %18s %18s\n", interpreted->cpu, "before", "interpreted", "translated");
    for (unsigned i = 0; i < QZ_ARRAY_LEN(fields); i++) {
        const unsigned long long old = value(before, fields[i].offset),
                                 a = value(interpreted, fields[i].offset),
                                 b = value(translated, fields[i].offset);

        printf("%-9s  %18llx %18llx %18llx%s\n", fields[i].name, old, a, b,
               a == b ? "" : "  <-- differs");
    }
}

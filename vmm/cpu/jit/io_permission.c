/*
 * io_permission.c - who may use a port (SDM vol 1 §19.5).
 */
#include "cpu/jit/event.h"
#include "cpu/jit/segment.h"

enum { TSS_IO_BASE = 0x66, TSS_MIN_LIMIT = 0x67 };

/* The bitmap is read as two bytes, whatever the port, so its last byte must be followed by another.
 */
static bool bitmap_allows(struct jit_cpu *cpu, uint16_t port, unsigned size)
{
    const unsigned mask = (1u << size) - 1;
    uint64_t base;

    if (!(cpu->tr.attr & 8) || cpu->tr.limit < TSS_MIN_LIMIT) /* 16-bit TSSs have no bitmap */
        return false;
    base = mmu_load_system(cpu, cpu->tr.base + TSS_IO_BASE, 2) + port / 8;
    if (base + 1 > cpu->tr.limit)
        return false;
    return !(mmu_load_system(cpu, cpu->tr.base + base, 2) >> port % 8 & mask);
}

bool io_allowed(struct jit_cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->cr0 & CR0_PE))
        return true;
    if (!(cpu->rflags & RFLAGS_VM) && cpu->cpl <= (cpu->rflags & RFLAGS_IOPL) >> 12)
        return true;
    return bitmap_allows(cpu, port, size);
}

/*
 * exec_control.c - control registers, descriptor-table registers, invalidation of translations.
 *
 * Which combinations CR0, CR3, CR4 refuse: SDM vol 2 MOV to control registers; vol 3 §2.5, §4.1.2,
 * §4.10.1, §10.8.5.
 */
#include "cpu/jit/system_internal.h"

enum { CR3_PCID = 0xfff };

static bool has(const struct jit_cpu *cpu, enum cpu_feature feature)
{
    return cpu->features & CPU_FEATURE(feature);
}

static _Noreturn void refuse(struct jit_cpu *cpu)
{
    jit_raise_code(cpu, VECTOR_GP, 0);
}

/* --- CR0 -------------------------------------------------------------------------------------- */

/* With PAE paging outside IA-32e mode the PDPTEs are registers: these changes load them (§4.4.1).
 */
static void reload_pdptes(struct jit_cpu *cpu, uint64_t cr0, uint64_t cr4, bool changed)
{
    if (changed && (cr0 & CR0_PG) && (cr4 & CR4_PAE) && !(cpu->efer & EFER_LME) &&
        !paging_load_pdptes(cpu, cpu->cr3))
        refuse(cpu);
}

static void enter_ia32e(struct jit_cpu *cpu)
{
    if (!(cpu->cr4 & CR4_PAE) || (cpu->seg[SEG_CS].attr & SEG_L) || !(cpu->tr.attr & 8))
        refuse(cpu); /* no 16-bit TSS, no 64-bit code before */
}

static void write_cr0(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t defined =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    const uint64_t old = cpu->cr0, old_efer = cpu->efer;
    const uint64_t cr0 = (value & defined) | CR0_ET;
    const uint64_t changed = old ^ cr0;

    if (value >> 32 || ((cr0 & CR0_PG) && !(cr0 & CR0_PE)) || ((cr0 & CR0_NW) && !(cr0 & CR0_CD)))
        refuse(cpu);
    if ((changed & CR0_PG) && (cr0 & CR0_PG) && (cpu->efer & EFER_LME))
        enter_ia32e(cpu);
    if ((changed & CR0_PG) && (old & CR0_PG) && (cpu->long_mode || (cpu->cr4 & CR4_PCIDE)))
        refuse(cpu);
    reload_pdptes(cpu, cr0, cpu->cr4, changed & (CR0_PG | CR0_CD | CR0_NW));

    cpu->cr0 = cr0;
    if (changed & CR0_PG)
        cpu->efer = (cr0 & CR0_PG) && (cpu->efer & EFER_LME) ? cpu->efer | EFER_LMA
                                                             : cpu->efer & ~(uint64_t)EFER_LMA;
    if (changed & ~(uint64_t)(CR0_TS | CR0_MP | CR0_EM | CR0_NE)) {
        mmu_paging_changed(cpu, old, cpu->cr4, old_efer);
        jit_mode_changed(cpu);
    }
}

void exec_clts(struct jit_cpu *cpu, const struct insn *i)
{
    require_ring0(cpu);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
}

/* PE can be set, not cleared. */
void exec_lmsw(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t low = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    uint64_t value;

    require_ring0(cpu);
    value = jit_read_rm(cpu, i, 2) & low;
    write_cr0(cpu, (cpu->cr0 & ~(low & ~(uint64_t)CR0_PE)) | value);
}

void exec_smsw(struct jit_cpu *cpu, const struct insn *i)
{
    require_umip(cpu);
    if (i->mem)
        jit_write_rm(cpu, i, 2, cpu->cr0);
    else
        jit_set_reg(cpu, i->rm, i->size, cpu->cr0);
}

/* --- CR3, CR4, CR8 ---------------------------------------------------------------------------- */

static void write_cr3(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t no_flush = cpu->cr4 & CR4_PCIDE ? QZ_BIT(63) : 0;

    if (is_ia32e(cpu) && ((value & ~no_flush) >> cpu->physical_bits))
        refuse(cpu);
    mmu_cr3_write(cpu, value);
}

static uint64_t cr4_defined(const struct jit_cpu *cpu)
{
    return CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
           CR4_OSXMMEXCPT | (has(cpu, CPU_UMIP) ? CR4_UMIP : 0) |
           (has(cpu, CPU_FSGSBASE) ? CR4_FSGSBASE : 0) | (has(cpu, CPU_PCID) ? CR4_PCIDE : 0) |
           (has(cpu, CPU_XSAVE) ? CR4_OSXSAVE : 0) | (has(cpu, CPU_SMEP) ? CR4_SMEP : 0) |
           (has(cpu, CPU_SMAP) ? CR4_SMAP : 0);
}

static void write_cr4(struct jit_cpu *cpu, uint64_t cr4)
{
    const uint64_t old = cpu->cr4, changed = old ^ cr4;

    if (cr4 & ~cr4_defined(cpu))
        refuse(cpu);
    if (is_ia32e(cpu) && !(cr4 & CR4_PAE))
        refuse(cpu);
    if ((changed & cr4 & CR4_PCIDE) && (!is_ia32e(cpu) || (cpu->cr3 & CR3_PCID)))
        refuse(cpu);
    reload_pdptes(cpu, cpu->cr0, cr4, changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP));
    cpu->cr4 = cr4;
    mmu_paging_changed(cpu, cpu->cr0, old, cpu->efer);
}

/* The machine looks at the priority between two runs. */
static void write_cr8(struct jit_cpu *cpu, uint64_t value)
{
    if (value > 15)
        refuse(cpu);
    if (cpu->cr8 != value)
        jit_attention_set(cpu, ATTENTION_KICK);
    cpu->cr8 = value;
}

void exec_mov_to_cr(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t value = jit_get_reg(cpu, i->rm, i->size);

    if (i->reg != 0 && i->reg != 2 && i->reg != 3 && i->reg != 4 && i->reg != 8)
        jit_raise(cpu, VECTOR_UD);
    require_ring0(cpu);
    switch (i->reg) {
    case 0:
        write_cr0(cpu, value);
        break;
    case 2:
        cpu->cr2 = value;
        break;
    case 3:
        write_cr3(cpu, value);
        break;
    case 4:
        write_cr4(cpu, value);
        break;
    default:
        write_cr8(cpu, value);
    }
}

void exec_mov_from_cr(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value;

    switch (i->reg) {
    case 0:
        value = cpu->cr0;
        break;
    case 2:
        value = cpu->cr2;
        break;
    case 3:
        value = cpu->cr3;
        break;
    case 4:
        value = cpu->cr4;
        break;
    case 8:
        value = cpu->cr8;
        break;
    default:
        jit_raise(cpu, VECTOR_UD);
    }
    require_ring0(cpu);
    jit_set_reg(cpu, i->rm, i->size, value);
}

/* --- Descriptor-table registers --------------------------------------------------------------- */

/* Operands of 16 bits carry a base of 24 (SDM vol 2, LGDT/LIDT). */
static void load_table(struct jit_cpu *cpu, const struct insn *i, struct descriptor_table *table)
{
    const unsigned bytes = cpu->long_mode ? 8 : 4;
    uint64_t linear, base;
    uint16_t limit;

    require_ring0(cpu);
    linear = jit_operand_linear(cpu, i, 2 + bytes, false);
    limit = (uint16_t)mmu_load(cpu, linear, 2);
    base = mmu_load(cpu, linear + 2, bytes);
    if (!cpu->long_mode && i->size == 2)
        base &= 0xffffff;
    if (!is_canonical(base))
        refuse(cpu);
    *table = (struct descriptor_table){.base = base, .limit = limit};
}

static void store_table(struct jit_cpu *cpu, const struct insn *i,
                        const struct descriptor_table *table)
{
    const unsigned bytes = cpu->long_mode ? 8 : 4;
    uint8_t image[10];

    require_umip(cpu);
    qz_store_le16(image, table->limit);
    qz_store_le64(image + 2, table->base);
    mmu_store_bytes(cpu, jit_operand_linear(cpu, i, 2 + bytes, true), image, 2 + bytes);
}

void exec_lgdt(struct jit_cpu *cpu, const struct insn *i)
{
    load_table(cpu, i, &cpu->gdt);
}

void exec_lidt(struct jit_cpu *cpu, const struct insn *i)
{
    load_table(cpu, i, &cpu->idt);
}

void exec_sgdt(struct jit_cpu *cpu, const struct insn *i)
{
    store_table(cpu, i, &cpu->gdt);
}

void exec_sidt(struct jit_cpu *cpu, const struct insn *i)
{
    store_table(cpu, i, &cpu->idt);
}

/* --- Invalidation ----------------------------------------------------------------------------- */

/* The operand is an address, nothing is accessed: no limit is checked, and one that is not
 * canonical invalidates nothing. */
void exec_invlpg(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = jit_effective_address(cpu, i);

    require_ring0(cpu);
    if (!cpu->long_mode)
        linear = (uint32_t)(linear + cpu->seg[i->seg].base);
    else if (i->seg >= SEG_FS)
        linear += cpu->seg[i->seg].base;
    if (is_canonical(linear))
        mmu_invlpg(cpu, linear);
}

enum { INVPCID_ADDRESS, INVPCID_SINGLE, INVPCID_ALL, INVPCID_ALL_LOCAL };

void exec_invpcid(struct jit_cpu *cpu, const struct insn *i)
{
    const uint64_t type = jit_get_reg(cpu, i->reg, cpu->long_mode ? 8 : 4);
    uint64_t linear, pcid, address;

    if (!is_protected(cpu) && (cpu->cr0 & CR0_PE)) /* virtual-8086 mode */
        refuse(cpu);
    require_ring0(cpu);
    linear = jit_operand_linear(cpu, i, 16, false);
    pcid = mmu_load(cpu, linear, 8);
    address = mmu_load(cpu, linear + 8, 8);
    if (type > INVPCID_ALL_LOCAL || pcid >> 12)
        refuse(cpu);
    if (type == INVPCID_ADDRESS && !is_canonical(address))
        refuse(cpu);
    if (type <= INVPCID_SINGLE && !(cpu->cr4 & CR4_PCIDE) && pcid)
        refuse(cpu);
    mmu_invpcid(cpu, (unsigned)type, pcid, address);
}

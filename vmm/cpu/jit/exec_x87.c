/*
 * exec_x87.c - x87 instructions, executed by the host's.
 *
 * Arithmetic runs as a snippet (vec_snippets.h) between FXRSTOR and FXSAVE of the guest's state,
 * with the guest's own control word: an unmasked exception then leaves exactly what it leaves on
 * hardware (operands, biased results, TOP), and is only noted. It is raised by the next waiting
 * instruction of the guest, as #MF. Control instructions work on the state and never reach the
 * host.
 *
 * The pointers to the last instruction and operand are kept as before FOPCODE compatibility mode
 * and "FDP on exceptions only": every instruction that is not control writes them. The selectors
 * are deprecated, as CPUID.(7,0):EBX[13] says: they read as zero. In real and virtual-8086 mode the
 * pointers are linear addresses, the form that FNSTENV stores there (SDM vol 1 §8.1.8 to §8.1.10).
 */
#include "cpu/jit/fpu.h"
#include "cpu/jit/vec_snippets.h"

/* Bytes of memory operands by opcode and ModRM.reg: loads positive, stores negative, others 0. */
static const int8_t memory_operand[8][8] = {
    {4, 4, 4, 4, 4, 4, 4, 4},        /* D8: arithmetic, m32fp */
    {4, 0, -4, -4, 0, 0, 0, 0},      /* D9: FLD FST FSTP m32fp */
    {4, 4, 4, 4, 4, 4, 4, 4},        /* DA: arithmetic, m32int */
    {4, -4, -4, -4, 0, 10, 0, -10},  /* DB: FILD FISTTP FIST FISTP m32int, FLD FSTP m80fp */
    {8, 8, 8, 8, 8, 8, 8, 8},        /* DC: arithmetic, m64fp */
    {8, -8, -8, -8, 0, 0, 0, 0},     /* DD: FLD FISTTP FST FSTP m64 */
    {2, 2, 2, 2, 2, 2, 2, 2},        /* DE: arithmetic, m16int */
    {2, -2, -2, -2, 10, 8, -10, -8}, /* DF: m16int, FBLD, FILD m64int, FBSTP, FISTP m64int */
};

/*
 * Register forms that exist, bit ModRM & 63. With the old aliases FSTP (D9 D8), FCOM (DC D0), FCOMP
 * (DC D8, DE D0), FXCH (DD C8, DF C8), FFREEP (DF C0) and FSTP (DF D0, DF D8), which all CPUs have,
 * and the 8087's FENI, FDISI and FSETPM, which do nothing.
 */
static const uint64_t register_form[8] = {
    0xffffffffffffffff, /* D8 */
    0xffff7f33ff01ffff, /* D9: not D1-D7, E2, E3, E6, E7, EF */
    0x00000200ffffffff, /* DA: FCMOVcc, FUCOMPP */
    0x00ffff1fffffffff, /* DB: FCMOVNcc, E0-E4, FUCOMI, FCOMI */
    0xffffffffffffffff, /* DC */
    0x0000ffffffffffff, /* DD */
    0xffffffff02ffffff, /* DE: FCOMPP is the only one of D8-DF */
    0x00ffff01ffffffff, /* DF: FNSTSW AX, FUCOMIP, FCOMIP */
};

/* Opcode (low 3 bits) and ModRM in one number, as FOP has them. */
#define X87(opcode, modrm) (((opcode)&7) << 8 | (modrm))

static unsigned fop_of(const struct insn *i)
{
    return X87(i->opcode, i->modrm);
}

static bool real_or_v86(const struct jit_cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || (cpu->rflags & RFLAGS_VM);
}

static void note_instruction(struct jit_cpu *cpu, const struct insn *i)
{
    cpu->fpu.fop = fop_of(i);
    cpu->fpu.fip = cpu->rip + (real_or_v86(cpu) ? cpu->seg[SEG_CS].base : 0);
}

static void note_operand(struct jit_cpu *cpu, const struct insn *i, uint64_t offset)
{
    cpu->fpu.fdp = offset + (real_or_v86(cpu) ? cpu->seg[i->seg].base : 0);
}

/* Runs a snippet on the guest's state in place; the pointers stay, the host's MXCSR_MASK is not
 * ours.
 */
static void run_in_place(struct jit_cpu *cpu, const void *snippet, void *mem, uint64_t *flags)
{
    struct jit_fpu *f = &cpu->fpu;
    uint64_t fip = f->fip, fdp = f->fdp;
    uint16_t fop = f->fop;

    if (flags)
        x87_run_flags(snippet, f, f, flags);
    else
        x87_run(snippet, f, f, mem);
    f->fip = fip;
    f->fdp = fdp;
    f->fop = fop;
    f->mxcsr_mask = MXCSR_VALID;
}

/* FCMOVcc read the flags, FCOMI, FUCOMI and their popping forms write them. */
static bool uses_flags(unsigned fop)
{
    switch (fop & 0x7f8) {
    case X87(0xda, 0xc0):
    case X87(0xda, 0xc8):
    case X87(0xda, 0xd0):
    case X87(0xda, 0xd8):
    case X87(0xdb, 0xc0):
    case X87(0xdb, 0xc8):
    case X87(0xdb, 0xd0):
    case X87(0xdb, 0xd8):
    case X87(0xdb, 0xe8):
    case X87(0xdb, 0xf0):
    case X87(0xdf, 0xe8):
    case X87(0xdf, 0xf0):
        return true;
    default:
        return false;
    }
}

/* Alignment that #AC asks for: of 80 bits, 8 bytes (SDM vol 3 table 6-7). */
static uint64_t aligned(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    mmu_check_alignment(cpu, linear, size == 10 ? 8 : size);
    return linear;
}

/* The arithmetic of register forms. */
static void exec_register(struct jit_cpu *cpu, const struct insn *i)
{
    unsigned number = (i->opcode & 7) * 64 + (i->modrm & 63);
    const uint8_t *snippet = x87_snippet_reg + (size_t)X87_SNIPPET_SIZE * number;
    uint64_t flags = (cpu->rflags & FLAGS_ARITH) | RFLAGS_FIXED;

    fpu_check_x87(cpu, true);
    if (uses_flags(fop_of(i))) {
        run_in_place(cpu, snippet, NULL, &flags);
        cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (flags & FLAGS_ARITH);
    } else {
        run_in_place(cpu, snippet, NULL, NULL);
    }
    note_instruction(cpu, i);
}

static void exec_load(struct jit_cpu *cpu, const struct insn *i, const void *snippet, unsigned size)
{
    uint64_t offset = jit_effective_address(cpu, i);
    uint8_t bytes[16] __attribute__((aligned(16)));

    mmu_load_bytes(cpu, aligned(cpu, jit_linear(cpu, i->seg, offset, size, false), size), bytes,
                   size);
    run_in_place(cpu, snippet, bytes, NULL);
    note_instruction(cpu, i);
    note_operand(cpu, i, offset);
}

/*
 * Stores run on a copy, since the store may fault after the arithmetic. An unmasked exception other
 * than precision leaves memory alone (SDM vol 1 §8.5); none was pending before, so any that FSW has
 * now is new.
 */
static void exec_store(struct jit_cpu *cpu, const struct insn *i, const void *snippet,
                       unsigned size)
{
    uint64_t offset = jit_effective_address(cpu, i);
    uint64_t linear = aligned(cpu, jit_linear(cpu, i->seg, offset, size, true), size);
    uint8_t bytes[16] __attribute__((aligned(16)));
    struct jit_fpu after;

    x87_run(snippet, &cpu->fpu, &after, bytes);
    if (after.fsw & ~after.fcw & (FSW_EXCEPTIONS & ~FSW_PE))
        mmu_probe(cpu, linear, size, true);
    else
        mmu_store_bytes(cpu, linear, bytes, size);
    cpu->fpu.fsw = after.fsw;
    cpu->fpu.ftw_abridged = after.ftw_abridged;
    memcpy(cpu->fpu.st, after.st, sizeof(after.st));
    note_instruction(cpu, i);
    note_operand(cpu, i, offset);
}

/* Control instructions: no arithmetic, and FIP, FDP and FOP stay. True when it was one. */
static bool exec_control_register(struct jit_cpu *cpu, const struct insn *i)
{
    struct jit_fpu *f = &cpu->fpu;

    switch (fop_of(i)) {
    case X87(0xdb, 0xe0): /* FNENI, FNDISI, FNSETPM */
    case X87(0xdb, 0xe1):
    case X87(0xdb, 0xe4):
        fpu_check_x87(cpu, false);
        return true;
    case X87(0xdb, 0xe2): /* FNCLEX */
        fpu_check_x87(cpu, false);
        f->fsw &= ~(FSW_EXCEPTIONS | FSW_SF | FSW_ES | FSW_B);
        return true;
    case X87(0xdb, 0xe3): /* FNINIT */
        fpu_check_x87(cpu, false);
        fpu_init(f);
        return true;
    case X87(0xdf, 0xe0): /* FNSTSW AX */
        fpu_check_x87(cpu, false);
        jit_set_reg(cpu, RAX, 2, f->fsw);
        return true;
    default:
        return false;
    }
}

static void exec_control_memory(struct jit_cpu *cpu, const struct insn *i)
{
    switch ((i->opcode & 7) << 3 | (i->modrm >> 3 & 7)) {
    case 1 << 3 | 4: /* FLDENV */
        fpu_check_x87(cpu, true);
        x87_load_env(cpu, i, false);
        break;
    case 1 << 3 | 5: /* FLDCW */
        fpu_check_x87(cpu, true);
        fpu_set_fcw(&cpu->fpu, mmu_load(cpu, jit_operand_linear(cpu, i, 2, false), 2));
        break;
    case 1 << 3 | 6: /* FNSTENV */
        fpu_check_x87(cpu, false);
        x87_store_env(cpu, i, false);
        break;
    case 1 << 3 | 7: /* FNSTCW */
        fpu_check_x87(cpu, false);
        mmu_store(cpu, jit_operand_linear(cpu, i, 2, true), 2, cpu->fpu.fcw);
        break;
    case 5 << 3 | 4: /* FRSTOR */
        fpu_check_x87(cpu, true);
        x87_load_env(cpu, i, true);
        break;
    case 5 << 3 | 6: /* FNSAVE */
        fpu_check_x87(cpu, false);
        x87_store_env(cpu, i, true);
        break;
    case 5 << 3 | 7: /* FNSTSW */
        fpu_check_x87(cpu, false);
        mmu_store(cpu, jit_operand_linear(cpu, i, 2, true), 2, cpu->fpu.fsw);
        break;
    default:
        jit_raise(cpu, VECTOR_UD);
    }
}

static void exec_x87(struct jit_cpu *cpu, const struct insn *i)
{
    unsigned opcode = i->opcode & 7, reg = i->modrm >> 3 & 7;
    const uint8_t *snippet = x87_snippet_mem + (size_t)X87_SNIPPET_SIZE * (opcode * 8 + reg);
    int size = memory_operand[opcode][reg];

    if (!i->mem) {
        if (!(register_form[opcode] >> (i->modrm & 63) & 1))
            jit_raise(cpu, VECTOR_UD);
        if (!exec_control_register(cpu, i))
            exec_register(cpu, i);
        return;
    }
    if (!size) {
        exec_control_memory(cpu, i);
        return;
    }
    fpu_check_x87(cpu, true);
    if (size > 0)
        exec_load(cpu, i, snippet, size);
    else
        exec_store(cpu, i, snippet, -size);
}

/* FWAIT is the one that CR0.MP makes wait for the task's own state (SDM vol 3 §2.5). */
static void exec_fwait(struct jit_cpu *cpu, const struct insn *i)
{
    if ((cpu->cr0 & CR0_MP) && (cpu->cr0 & CR0_TS))
        jit_raise(cpu, VECTOR_NM);
    fpu_check_pending(cpu);
}

const struct jit_handler_entry jit_exec_x87[] = {
    {OP_X87, exec_x87},      {OP_FWAIT, exec_fwait},    {OP_EMMS, fpu_emms},
    {OP_FXSAVE, fpu_fxsave}, {OP_FXRSTOR, fpu_fxrstor}, {OP_XSAVE, fpu_xsave},
    {OP_XRSTOR, fpu_xrstor}, {OP_XSAVEOPT, fpu_xsave},  {OP_UD, NULL},
};

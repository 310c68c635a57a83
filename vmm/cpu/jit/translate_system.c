/*
 * translate_system.c - instructions about interrupts, flags, segments and time that kernels execute
 * all the time: the few loads and stores they are.
 */
#include "cpu/jit/msr.h"
#include "cpu/jit/translate_internal.h"

enum { STORED_FLAGS = RFLAGS_VM | RFLAGS_RF | FLAGS_ARITH };

/* Where the privilege that counts is not there, the interpreter raises what is due. */
static void need_ring0(struct translation *x)
{
    flags_lose(x, flags_live_before(x));
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0x80), 7, 0xff, 0xff, 0, ENV(cpl)); /* cmp byte, 0 */
    emit8(&x->e, 0);
    emit_execute_unless(x, CC_E);
}

/* Nobody looks for interrupts before the next block, so that STI's shadow needs no keeping: the
 * instruction behind it is in this block. */
static bool interrupt_flag(struct translation *x, const struct insn *i)
{
    if (x->k + 1 == x->block->count)
        return false;
    need_ring0(x);
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0x81), i->op == OP_STI ? 1 : 4, 0xff, 0xff, 0,
             ENV(rflags)); /* or, and */
    emit32(&x->e, i->op == OP_STI ? RFLAGS_IF : ~(uint32_t)RFLAGS_IF);
    return true;
}

static bool pushf(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    if (i->size != 8)
        return false;
    flags_save(x);
    flags_lose(x, 0);
    emit_env(e, op2(4, 0xb6), H_R10, ENV(host_flags)); /* movzx: OF */
    emit_rr(e, op1(4, 0xc1), 4, H_R10);                /* shl r10d, 11 */
    emit8(e, 11);
    emit_env(e, op2(4, 0xb6), H_R11, ENV(host_flags) + 1); /* the others */
    emit_alu_imm(e, 4, 4, H_R11, FLAGS_ARITH & 0xff);
    emit_rr(e, op1(4, 0x09), H_R11, H_R10);
    emit_env(e, op1(4, 0x8b), H_R11, ENV(rflags));
    emit_alu_imm(e, 4, 4, H_R11, ~(int32_t)STORED_FLAGS);
    emit_rr(e, op1(4, 0x09), H_R11, H_R10); /* or r10d, r11d */
    emit_store(e, H_R10, ENV(scratch));
    emit_rmx(e, op1(8, 0x8d), H_R11, H_R15, HOST_NONE, 0, -8);
    emit_access(x, TLB_WRITE, 8);
    emit_load(e, H_R10, ENV(scratch));
    emit_rm(e, op1(8, 0x89), H_R10, H_R11);
    emit_rmx(e, op1(8, 0x8d), H_R15, H_R15, HOST_NONE, 0, -8);
    return true;
}

/* The selector, zero-extended; 16 bits keep the rest of the register. */
static bool from_segment(struct translation *x, const struct insn *i)
{
    const uint32_t selector =
        ENV(seg) + i->reg * sizeof(struct segment) + offsetof(struct segment, selector);
    unsigned host;

    if (i->mem || i->reg >= SEG_COUNT || i->size == 2)
        return false;
    host = in_memory(i->rm) ? H_R10 : jit_host_register[i->rm];
    emit_env(&x->e, op2(4, 0xb7), host, selector); /* movzx */
    put_register(x, i->rm, host);
    return true;
}

static bool time_stamp(struct translation *x, const struct insn *i)
{
    struct emitter *e = &x->e;

    if (x->t->counted)
        return false;
    flags_lose(x, flags_live_before(x));
    emit8(e, 0x65);
    emit_rmx(e, op1(4, 0xf6), 0, 0xff, 0xff, 0, ENV(cr4)); /* test byte, TSD */
    emit8(e, CR4_TSD);
    emit_execute_unless(x, CC_E);
    emit_bytes(e, (const uint8_t[]){0x0f, 0x31}, 2); /* rdtsc */
    emit_rr(e, op1(8, 0xc1), 4, H_RDX);              /* shl rdx, 32 */
    emit8(e, 32);
    emit_rr(e, op1(8, 0x09), H_RDX, H_RAX); /* or rax, rdx */
    emit_env(e, op1(8, 0x03), H_RAX, ENV(tsc_offset));
    emit_mov(e, H_RDX, H_RAX);
    emit_rr(e, op1(8, 0xc1), 5, H_RDX); /* shr rdx, 32 */
    emit8(e, 32);
    emit_rr(e, op1(4, 0x8b), H_RAX, H_RAX);
    if (i->op == OP_RDTSCP) {
        emit_load(e, H_RCX, ENV(msrs));
        emit_rmx(e, op1(4, 0x8b), H_RCX, H_RCX, HOST_NONE, 0, offsetof(struct jit_msrs, tsc_aux));
    }
    return true;
}

static bool swapgs(struct translation *x)
{
    const uint32_t base =
        ENV(seg) + SEG_GS * sizeof(struct segment) + offsetof(struct segment, base);
    const int kernel = offsetof(struct jit_msrs, kernel_gs_base);
    struct emitter *e = &x->e;

    need_ring0(x);
    emit_load(e, H_R11, ENV(msrs));
    emit_load(e, H_R10, base);
    emit_store(e, H_R10, ENV(scratch));
    emit_rmx(e, op1(8, 0x8b), H_R10, H_R11, HOST_NONE, 0, kernel);
    emit_store(e, H_R10, base);
    emit_load(e, H_R10, ENV(scratch));
    emit_rmx(e, op1(8, 0x89), H_R10, H_R11, HOST_NONE, 0, kernel);
    return true;
}

static bool direction(struct translation *x, const struct insn *i)
{
    flags_lose(x, flags_live_before(x));
    emit8(&x->e, 0x65);
    emit_rmx(&x->e, op1(4, 0x81), i->op == OP_STD ? 1 : 4, 0xff, 0xff, 0,
             ENV(rflags)); /* or, and */
    emit32(&x->e, i->op == OP_STD ? RFLAGS_DF : ~(uint32_t)RFLAGS_DF);
    return true;
}

static bool from_control(struct translation *x, const struct insn *i)
{
    const uint32_t field = i->reg == 0   ? ENV(cr0)
                           : i->reg == 2 ? ENV(cr2)
                           : i->reg == 3 ? ENV(cr3)
                                         : ENV(cr4);
    unsigned host;

    if (i->reg > 4 || i->reg == 1)
        return false;
    need_ring0(x);
    host = in_memory(i->rm) ? H_R10 : jit_host_register[i->rm];
    emit_load(&x->e, host, field);
    put_register(x, i->rm, host);
    return true;
}

bool translate_system(struct translation *x, const struct insn *i)
{
    switch (i->op) {
    case OP_CLI:
    case OP_STI:
        return interrupt_flag(x, i);
    case OP_CLD:
    case OP_STD:
        return direction(x, i);
    case OP_SWAPGS:
        return swapgs(x);
    case OP_MOV_FROM_CR:
        return from_control(x, i);
    case OP_PUSHF:
        return pushf(x, i);
    case OP_MOV_FROM_SEG:
        return from_segment(x, i);
    case OP_RDTSC:
    case OP_RDTSCP:
        return time_stamp(x, i);
    default:
        return false;
    }
}

/*
 * routines.c - entering and leaving translated code, and its ways into C (routines.h).
 *
 * Stack: enter() leaves rsp 16-byte aligned in translated code. A called routine finds it off by 8
 * and puts it right before it calls C. C may unwind (jit_raise): whatever it may need is in memory
 * before it is called.
 */
#include "cpu/jit/routines.h"

#include "cpu/jit/exec.h"
#include "cpu/jit/translate.h"

const uint8_t jit_host_register[16] = {
    H_RAX, H_RCX, H_RDX,     H_RBX,     H_R15, H_RBP, H_RSI, H_RDI,
    H_R8,  H_R9,  HOST_NONE, HOST_NONE, H_R12, H_R13, H_R14, HOST_NONE,
};

static const uint8_t callee_saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

static bool survives_call(unsigned host)
{
    return memchr(callee_saved, (int)host, sizeof(callee_saved)) != NULL;
}

static void store_guest(struct emitter *e)
{
    for (unsigned g = 0; g < 16; g++)
        if (jit_host_register[g] != HOST_NONE)
            emit_store(e, jit_host_register[g], ENV_GPR(g));
}

static void load_guest(struct emitter *e, bool all)
{
    for (unsigned g = 0; g < 16; g++)
        if (jit_host_register[g] != HOST_NONE && (all || !survives_call(jit_host_register[g])))
            emit_load(e, jit_host_register[g], ENV_GPR(g));
}

static void xmm(struct emitter *e, unsigned n, bool store)
{
    emit_env(e, op2(4, store ? 0x29 : 0x28), n, ENV(fpu.xmm) + n * 16); /* MOVAPS */
}

static void mxcsr(struct emitter *e, bool store, uint32_t offset)
{
    emit_env(e, op2(4, 0xae), store ? 3 : 2, offset);
}

/* cmp byte gs:[flag], 0 */
static void test_flag(struct emitter *e, uint32_t flag)
{
    emit8(e, 0x65);
    emit_rmx(e, op1(4, 0x80), 7, 0xff, 0xff, 0, flag);
    emit8(e, 0);
}

static void set_flag(struct emitter *e, uint32_t flag, bool set)
{
    emit8(e, 0x65);
    emit_rmx(e, op1(4, 0xc6), 0, 0xff, 0xff, 0, flag);
    emit8(e, set);
}

static void test_loaded(struct emitter *e)
{
    test_flag(e, ENV(fpu_loaded));
}

static void set_loaded(struct emitter *e, bool loaded)
{
    set_flag(e, ENV(fpu_loaded), loaded);
}

static void save_xmm(struct emitter *e)
{
    for (unsigned i = 0; i < 16; i++)
        xmm(e, i, true);
    mxcsr(e, true, ENV(fpu.mxcsr));
}

static void clear(struct emitter *e, unsigned size, uint32_t field)
{
    emit8(e, 0x65);
    emit_rmx(e, op1(size, 0xc7), 0, 0xff, 0xff, 0, field); /* mov, 0 */
    emit_bytes(e, &(uint32_t){0}, size == 2 ? 2 : 4);
}

/* All of it, as FXSAVE64 has it, but not the host's addresses. C finds the x87 registers empty. */
static void save_x87(struct emitter *e)
{
    emit_env(e, op2(8, 0xae), 0, ENV(fpu));
    clear(e, 8, ENV(fpu.fip));
    clear(e, 8, ENV(fpu.fdp));
    clear(e, 2, ENV(fpu.fop));
    emit_bytes(e, (const uint8_t[]){0xdb, 0xe3}, 2); /* fninit */
    set_flag(e, ENV(x87_loaded), false);
}

/* C code uses the vector registers as it likes: they go to memory first. */
static void save_fpu(struct emitter *e)
{
    uint8_t *none, *no_x87, *saved;

    test_loaded(e);
    none = emit_jcc_hole(e, CC_E);
    test_flag(e, ENV(x87_loaded));
    no_x87 = emit_jcc_hole(e, CC_E);
    save_x87(e);
    saved = emit_jmp_hole(e);
    emit_fill(e, no_x87);
    save_xmm(e);
    emit_fill(e, saved);
    mxcsr(e, false, ENV(host_mxcsr));
    set_loaded(e, false);
    emit_fill(e, none);
}

static void emit_x87_need(struct emitter *e)
{
    uint8_t *loaded, *in_memory;

    test_flag(e, ENV(x87_loaded));
    loaded = emit_jcc_hole(e, CC_NE);
    test_loaded(e);
    in_memory = emit_jcc_hole(e, CC_E);
    save_xmm(e);
    emit_fill(e, in_memory);
    emit_env(e, op2(8, 0xae), 1, ENV(fpu)); /* fxrstor64 */
    set_flag(e, ENV(x87_loaded), true);
    set_loaded(e, true);
    emit_fill(e, loaded);
    emit8(e, 0xc3);
}

static void emit_fpu_need(struct emitter *e)
{
    uint8_t *hole;

    test_loaded(e);
    hole = emit_jcc_hole(e, CC_NE);
    for (unsigned i = 0; i < 16; i++)
        xmm(e, i, false);
    mxcsr(e, false, ENV(fpu.mxcsr));
    set_loaded(e, true);
    emit_fill(e, hole);
    emit8(e, 0xc3);
}

static void call_c(struct emitter *e, const void *function)
{
    emit_imm(e, H_RAX, (uintptr_t)function);
    emit_rr(e, op1(4, 0xff), 2, H_RAX);
}

static void emit_enter(struct emitter *e)
{
    for (unsigned i = 0; i < sizeof(callee_saved); i++)
        emit_opcode(e, op1(4, 0x50 | (callee_saved[i] & 7)), 0, 0, callee_saved[i], false);
    emit_alu_imm(e, 8, 5, H_RSP, 8); /* sub: six pushes and the return address make 56 */
    emit_mov(e, H_R11, H_RSI);
    load_guest(e, true);
    emit_rr(e, op1(4, 0xff), 4, H_R11); /* jmp r11 */
}

static void emit_leave_stored(struct emitter *e)
{
    save_fpu(e);
    emit_alu_imm(e, 8, 0, H_RSP, 8);
    for (unsigned i = sizeof(callee_saved); i-- > 0;)
        emit_opcode(e, op1(4, 0x58 | (callee_saved[i] & 7)), 0, 0, callee_saved[i], false);
    emit8(e, 0xc3);
}

/* r11 still has the key mixed in. */
static void emit_lookup_missed(struct emitter *e, const uint8_t *leave)
{
    emit_env(e, op1(8, 0x33), H_R11, ENV(jump_key));
    emit_store(e, H_R11, ENV(rip));
    emit_jmp(e, leave);
}

/* void *(cpu, linear, size, offset) */
static void emit_fill_routine(struct emitter *e, unsigned kind, unsigned size)
{
    store_guest(e);
    save_fpu(e);
    emit_alu_imm(e, 8, 5, H_RSP, 8);
    emit_load(e, H_RDI, ENV(self));
    emit_mov(e, H_RSI, H_R11);
    emit_imm(e, H_RDX, size);
    emit_mov(e, H_RCX, H_R10);
    call_c(e, kind == TLB_READ ? (void *)translate_fill_read : (void *)translate_fill_write);
    emit_alu_imm(e, 8, 0, H_RSP, 8);
    emit_mov(e, H_R11, H_RAX);
    load_guest(e, false);
    emit8(e, 0xc3);
}

/* unsigned (cpu, r10) */
static void emit_execute(struct emitter *e, const void *function)
{
    store_guest(e);
    save_fpu(e);
    emit_alu_imm(e, 8, 5, H_RSP, 8);
    emit_load(e, H_RDI, ENV(self));
    emit_mov(e, H_RSI, H_R10);
    call_c(e, function);
    emit_alu_imm(e, 8, 0, H_RSP, 8);
    emit_mov(e, H_R11, H_RAX);
    load_guest(e, true);
    emit8(e, 0xc3);
}

static void emit_execute_end(struct emitter *e, const void *function, const uint8_t *leave_stored)
{
    store_guest(e);
    save_fpu(e);
    emit_load(e, H_RDI, ENV(self));
    emit_mov(e, H_RSI, H_R10);
    call_c(e, function);
    emit_rr(e, op1(8, 0x85), H_RAX, H_RAX);
    emit_jcc(e, CC_E, leave_stored);
    emit_mov(e, H_R11, H_RAX);
    load_guest(e, true);
    emit_rr(e, op1(4, 0xff), 4, H_R11); /* jmp r11 */
}

static const uint8_t *align(struct emitter *e)
{
    while ((uintptr_t)e->p & 15)
        emit8(e, 0x90);
    return emit_here(e);
}

void jit_routines_emit(struct jit_routines *s, struct emitter *e)
{
    s->enter = (void (*)(struct jit_cpu *, const uint8_t *))align(e);
    emit_enter(e);
    s->leave = align(e);
    store_guest(e);
    s->leave_stored = emit_here(e);
    emit_leave_stored(e);
    s->lookup_missed = align(e);
    emit_lookup_missed(e, s->leave);
    s->execute_end = align(e);
    emit_execute_end(e, (void *)translate_execute_end, s->leave_stored);
    s->execute_at_end = align(e);
    emit_execute_end(e, (void *)translate_execute_at_end, s->leave_stored);
    s->execute = align(e);
    emit_execute(e, (void *)translate_execute);
    s->execute_at = align(e);
    emit_execute(e, (void *)translate_execute_at);
    s->fpu_need = align(e);
    emit_fpu_need(e);
    s->x87_need = align(e);
    emit_x87_need(e);
    for (unsigned kind = 0; kind < TLB_KINDS; kind++)
        for (unsigned size = 0; size < ROUTINE_SIZES; size++) {
            s->fill[kind][size] = align(e);
            emit_fill_routine(e, kind, 1u << size);
        }
}

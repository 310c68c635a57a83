/*
 * translate_state.c - where flags, registers and memory operands are while a block is translated.
 */
#include "cpu/jit/translate_internal.h"

/* ---- flags
 * -------------------------------------------------------------------------------------------------
 */

void flags_save(struct translation *x)
{
    if (!x->flags_in_host || x->flags_in_memory)
        return;
    emit_mov(&x->e, H_R10, H_RAX);
    emit_bytes(&x->e, (const uint8_t[]){0x9f, 0x0f, 0x90, 0xc0}, 4); /* lahf; seto al */
    emit_env(&x->e, op1(2, 0x89), H_RAX, ENV(host_flags));
    emit_mov(&x->e, H_RAX, H_R10);
    x->flags_in_memory = true;
}

/* Several times as fast as POPFQ. */
void flags_load(struct emitter *e)
{
    emit_mov(e, H_R10, H_RAX);
    emit_env(e, op2(4, 0xb7), H_RAX, ENV(host_flags));     /* movzx */
    emit_bytes(e, (const uint8_t[]){0x04, 0x7f, 0x9e}, 3); /* add al, 0x7f: OF; sahf */
    emit_mov(e, H_RAX, H_R10);
}

void flags_need(struct translation *x)
{
    if (x->flags_in_host)
        return;
    flags_load(&x->e);
    x->flags_in_host = true;
}

void flags_lose(struct translation *x, uint16_t wanted)
{
    if (wanted)
        flags_save(x);
    x->flags_in_host = false;
}

void flags_written(struct translation *x)
{
    x->flags_in_host = true;
    x->flags_in_memory = false;
}

uint16_t flags_live_before(const struct translation *x)
{
    const struct insn_flags f = insn_flags(current(x));

    if (x->t->counted) /* a fault shows them all */
        return FLAGS_ARITH;
    return (x->live[x->k] & ~f.writes) | f.reads;
}

static bool is_multiplication(const struct insn *i)
{
    return i->op == OP_MUL || i->op == OP_IMUL || i->op == OP_IMUL1;
}

void flags_for(struct translation *x, const struct insn *i)
{
    const struct insn_flags f = insn_flags(i);

    /* Flags that it leaves alone have to be there when the others are written beside them. Some
     * hosts' multiplications leave alone what is undefined, and the interpreter knows it (alu.h).
     */
    if ((x->t->counted && is_multiplication(i)) || f.reads ||
        (f.writes && (x->live[x->k] & ~f.writes)))
        flags_need(x);
}

void flags_after(struct translation *x, const struct insn *i)
{
    if (insn_flags(i).writes)
        flags_written(x);
}

/* ---- registers
 * --------------------------------------------------------------------------------------------- */

unsigned use_register(struct translation *x, unsigned guest, unsigned scratch)
{
    if (!in_memory(guest))
        return jit_host_register[guest];
    emit_load(&x->e, scratch, ENV_GPR(guest));
    return scratch;
}

void put_register(struct translation *x, unsigned guest, unsigned host)
{
    if (in_memory(guest))
        emit_store(&x->e, host, ENV_GPR(guest));
}

/* ---- memory operands
 * --------------------------------------------------------------------------------------- */

static bool is_far_moffs(const struct insn *i)
{
    return i->map == 0 && i->opcode >= 0xa0 && i->opcode <= 0xa3 && i->asize == 8;
}

bool address_emittable(const struct insn *i)
{
    if (i->asize == 2 || (i->asize == 4 && i->base == REG_RIP))
        return false;
    return i->base != REG_RIP || (int64_t)i->disp + 4096 + 15 <= INT32_MAX;
}

bool emit_address(struct translation *x, const struct insn *i, bool with_segment)
{
    struct emitter *e = &x->e;
    const unsigned width = i->asize; /* 4: the 32-bit result is what counts, zero-extended */
    unsigned base = HOST_NONE, index = HOST_NONE;
    int32_t disp = i->disp;

    if (!address_emittable(i))
        return false;
    if (is_far_moffs(i)) {
        emit_imm(e, H_R11, i->imm);
    } else {
        if (i->base == REG_RIP) {
            emit_load(e, H_R11, ENV(code_base));
            base = H_R11;
            disp += i->page_offset + i->len;
        } else if (i->base != REG_NONE) {
            base = use_register(x, i->base, H_R11);
        }
        if (i->index != REG_NONE)
            index = use_register(x, i->index, H_R10);
        if (base == HOST_NONE && index == HOST_NONE)
            emit_imm(e, H_R11, width == 8 ? (uint64_t)(int64_t)disp : (uint32_t)disp);
        else if (index == HOST_NONE && disp == 0)
            emit_rr(e, op1(width, 0x8b), H_R11, base);
        else
            emit_rmx(e, op1(width, 0x8d), H_R11, base, index, i->scale, disp);
    }
    if (with_segment && (i->seg == SEG_FS || i->seg == SEG_GS)) {
        flags_lose(x, flags_live_before(x));
        emit_env(e, op1(8, 0x03), H_R11,
                 ENV(seg) + i->seg * sizeof(struct segment) + offsetof(struct segment, base));
    }
    return true;
}

void add_slow(struct translation *x, struct slow_path s)
{
    if (x->slows == SLOW_MAX) {
        x->e.full = true;
        return;
    }
    s.insn = x->k;
    x->slow[x->slows++] = s;
}

/* The look into the table: r10 is the entry's offset afterwards, r11 the offset in the page; the
 * jump is taken when the page is not there, or the bytes do not lie in it. */
static uint8_t *emit_tlb_check(struct translation *x, uint32_t table, unsigned bytes)
{
    struct emitter *e = &x->e;

    flags_lose(x, flags_live_before(x));
    /* (linear >> 12) % TLB_ENTRIES * 16 */
    if (x->t->bmi2) {
        emit_bytes(e, (const uint8_t[]){0xc4, 0x43, 0xfb, 0xf0, 0xd3, 0x08},
                   6); /* rorx r10, r11, 8 */
    } else {
        emit_mov(e, H_R10, H_R11);
        emit_rr(e, op1(8, 0xc1), 5, H_R10); /* shr r10, 8 */
        emit8(e, 8);
    }
    emit_alu_imm(e, 4, 4, H_R10, (TLB_ENTRIES - 1) << 4);
    emit_env_at(e, op1(8, 0x33), H_R11, H_R10, table + offsetof(struct tlb_entry, tag));
    emit_rr(e, op1(8, 0x81), 7, H_R11); /* cmp r11, 4096 - bytes */
    emit32(e, 4096 - bytes);
    return emit_jcc_hole(e, CC_A);
}

static uint32_t table_of(const struct translation *x, unsigned access)
{
    return ENV(tlb.entry) + (x->set * TLB_KINDS + access) * sizeof(struct tlb_entry[TLB_ENTRIES]);
}

/* How r10 and r11 come to be the address: added to r11, or left apart with the page in r10. */
static void access_at(struct translation *x, unsigned access, unsigned size, bool apart)
{
    const uint32_t table = table_of(x, access);
    uint8_t *hole = emit_tlb_check(x, table, size);

    emit_env_at(&x->e, op1(8, apart ? 0x8b : 0x03), apart ? H_R10 : H_R11, H_R10,
                table + offsetof(struct tlb_entry, host));
    add_slow(x, (struct slow_path){.kind = SLOW_FILL,
                                   .hole = hole,
                                   .access = access,
                                   .size = size,
                                   .apart = apart,
                                   .resume = emit_here(&x->e)});
}

void emit_access(struct translation *x, unsigned access, unsigned size)
{
    access_at(x, access, size, false);
}

void emit_access_apart(struct translation *x, unsigned access, unsigned size)
{
    access_at(x, access, size, true);
}

void emit_access_first(struct translation *x, unsigned access, unsigned size)
{
    const uint32_t table = table_of(x, access);
    uint8_t *hole = emit_tlb_check(x, table, size);

    add_slow(x, (struct slow_path){.kind = SLOW_EXECUTE, .hole = hole});
    emit_env_at(&x->e, op1(8, 0x8b), H_R10, H_R10, table + offsetof(struct tlb_entry, host));
    emit_rr(&x->e, op1(8, 0x03), H_R10, H_R11);
}

void emit_access_row(struct translation *x, unsigned access, unsigned bytes, unsigned row)
{
    const uint32_t table = table_of(x, access);
    uint8_t *hole = emit_tlb_check(x, table, bytes);

    emit_env_at(&x->e, op1(8, 0x03), H_R11, H_R10, table + offsetof(struct tlb_entry, host));
    add_slow(x, (struct slow_path){.kind = SLOW_EXECUTE, .hole = hole, .row = row});
}

void emit_access_read_row(struct translation *x, unsigned bytes, unsigned size, unsigned lead,
                          unsigned row)
{
    const uint32_t table = table_of(x, TLB_READ);
    uint8_t *hole = emit_tlb_check(x, table, bytes);

    emit_env_at(&x->e, op1(8, 0x03), H_R11, H_R10, table + offsetof(struct tlb_entry, host));
    add_slow(x, (struct slow_path){.kind = SLOW_FILL,
                                   .hole = hole,
                                   .access = TLB_READ,
                                   .size = size,
                                   .row = row,
                                   .span = bytes,
                                   .lead = lead,
                                   .resume = emit_here(&x->e)});
}

void emit_execute_unless(struct translation *x, unsigned cc)
{
    add_slow(x, (struct slow_path){.kind = SLOW_EXECUTE, .hole = emit_jcc_hole(&x->e, cc ^ 1)});
}

void emit_alignment_check(struct translation *x)
{
    struct emitter *e = &x->e;

    flags_lose(x, flags_live_before(x));
    emit_rr(e, (struct opcode){.size = 4, .byte = 0xf6}, 0, H_R11); /* test r11b, 15 */
    emit8(e, 15);
    emit_execute_unless(x, CC_E);
}

void emit_row_alignment_check(struct translation *x, unsigned offset, unsigned row)
{
    struct emitter *e = &x->e;

    flags_lose(x, flags_live_before(x));
    emit_rmx(e, op1(4, 0x8d), H_R10, H_R11, HOST_NONE, 0, (int32_t)offset);
    emit_rr(e, (struct opcode){.size = 4, .byte = 0xf6}, 0, H_R10); /* test r10b, 15 */
    emit8(e, 15);
    add_slow(x,
             (struct slow_path){.kind = SLOW_EXECUTE, .hole = emit_jcc_hole(e, CC_NE), .row = row});
}

/* sar r10, 47 leaves 0 or -1 of a canonical address. */
void emit_canonical_check(struct translation *x)
{
    struct emitter *e = &x->e;

    emit_mov(e, H_R10, H_R11);
    emit_rr(e, op1(8, 0xc1), 7, H_R10);
    emit8(e, 47);
    emit_alu_imm(e, 4, 0, H_R10, 1); /* 1 or 0 */
    emit_alu_imm(e, 4, 7, H_R10, 1);
    emit_execute_unless(x, CC_BE);
}

/*
 * block_build.c - from bytes to the instructions of a block (block_build.h).
 */
#include "cpu/jit/block_build.h"

enum { BRANCHES_MAX = 3 };

/* After these the next instruction is elsewhere, or is decoded, checked or traced differently. */
bool block_ends_with(const struct insn *i)
{
    switch (i->op) {
    case OP_MOVS:
    case OP_STOS:
    case OP_LODS:
    case OP_CMPS:
    case OP_SCAS:
    case OP_INS:
    case OP_OUTS:
        return i->prefix & (PREFIX_REP | PREFIX_REPNE); /* may be its own successor */
    case OP_UD:
    case OP_JMP:
    case OP_JCXZ:
    case OP_LOOP:
    case OP_LOOPE:
    case OP_LOOPNE:
    case OP_CALL:
    case OP_RET:
    case OP_JMP_FAR:
    case OP_CALL_FAR:
    case OP_RET_FAR:
    case OP_INT:
    case OP_INT3:
    case OP_INT1:
    case OP_INTO:
    case OP_IRET:
    case OP_SYSCALL:
    case OP_SYSRET:
    case OP_SYSENTER:
    case OP_SYSEXIT:
    case OP_VMCALL:
    case OP_HLT:
    case OP_POPF: /* TF, AC, IF */
    case OP_CLAC:
    case OP_STAC:
    case OP_MOV_TO_SEG: /* shadow, stack size */
    case OP_POP_SEG:
    case OP_LSS:
    case OP_MOV_TO_CR:
    case OP_MOV_TO_DR:
    case OP_LMSW:
    case OP_CLTS:
    case OP_INVLPG:
    case OP_INVPCID:
    case OP_INVD:
    case OP_WBINVD:
    case OP_CPUID:
    case OP_WRMSR:
    case OP_XSETBV:
        return true;
    default:
        return false;
    }
}

unsigned block_decode(const struct jit_cpu *cpu, struct mmu_code code,
                      struct insn insn[JIT_BLOCK_MAX], unsigned *bytes)
{
    const unsigned page = 4096 - (unsigned)(code.gpa & 4095);
    unsigned count = 0, at = 0, branches = 0;

    while (count < JIT_BLOCK_MAX && at < page) {
        const unsigned available = QZ_MIN(page - at, (unsigned)INSN_BYTES_MAX);
        uint8_t copy[INSN_BYTES_MAX]; /* the guest may write while the decoder looks twice */

        memcpy(copy, code.host + at, available);
        if (insn_decode(&insn[count], copy, available, cpu->code_width, cpu->features) != DECODE_OK)
            break; /* met again as the first instruction of a block */
        at += insn[count].len;
        branches += insn[count].op == OP_JCC;
        if (block_ends_with(&insn[count++]) || branches == BRANCHES_MAX)
            break;
    }
    *bytes = at;
    return count;
}

void block_check_fetch(struct jit_cpu *cpu)
{
    if (cpu->long_mode ? !mmu_is_canonical(cpu, cpu->rip) : cpu->rip > cpu->seg[SEG_CS].limit)
        jit_raise_code(cpu, VECTOR_GP, 0);
}

static struct jit_block *describe(struct jit_cpu *cpu, struct lone_block *l, uint64_t gpa)
{
    l->handler = jit_handler_for(&l->insn);
    l->block = (struct jit_block){
        .gpa = gpa,
        .mode = block_mode(cpu),
        .bytes = l->insn.len,
        .count = 1,
        .valid = true,
        .insn = &l->insn,
        .handler = &l->handler,
    };
    return &l->block;
}

/* Whether the bytes are still there; the second page is looked up, and may fault, as a fetch does.
 */
static bool is_still(struct jit_cpu *cpu, const struct lone_block *l, struct mmu_code code,
                     uint64_t linear)
{
    const unsigned first = 4096 - (unsigned)(code.gpa & 4095);
    struct mmu_code second;

    if (l->block.gpa != code.gpa || l->block.mode != block_mode(cpu) || l->insn.len <= first ||
        memcmp(code.host, l->bytes, first) != 0)
        return false;
    second = mmu_code(cpu, linear + first);
    return second.host && memcmp(second.host, l->bytes + first, l->insn.len - first) == 0;
}

static uint8_t fetch_byte(struct jit_cpu *cpu, uint64_t linear)
{
    const struct mmu_code code = mmu_code(cpu, linear);
    const struct mmu_piece device = {
        .page = {.gpa = code.gpa & ~0xfffull}, .linear = linear, .len = 1};
    uint8_t byte;

    if (code.host)
        return *(const volatile uint8_t *)code.host;
    mmu_read_pieces(cpu, &device, 1, &byte);
    return byte;
}

static struct lone_block *lone_of(struct jit_cpu *cpu, uint64_t gpa)
{
    return &cpu->blocks->crossing[(gpa >> 12) % CROSSINGS];
}

struct jit_block *block_lone_known(struct jit_cpu *cpu, uint64_t linear, struct mmu_code code)
{
    struct lone_block *l = lone_of(cpu, code.gpa);

    return l->block.valid && is_still(cpu, l, code, linear) ? &l->block : NULL;
}

struct jit_block *block_lone(struct jit_cpu *cpu, uint64_t linear)
{
    const struct mmu_code code = mmu_code(cpu, linear);
    struct lone_block *l = lone_of(cpu, code.gpa);
    enum decode_result r = DECODE_SHORT;

    l->block.valid = false;
    for (unsigned n = 0; r == DECODE_SHORT && n < INSN_BYTES_MAX;) {
        l->bytes[n] = fetch_byte(cpu, linear + n);
        n++;
        r = insn_decode(&l->insn, l->bytes, n, cpu->code_width, cpu->features);
    }
    if (r != DECODE_OK)
        jit_raise_code(cpu, VECTOR_GP, 0); /* longer than 15 bytes */
    return describe(cpu, l, code.gpa);
}

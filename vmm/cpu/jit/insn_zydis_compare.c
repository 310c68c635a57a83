/*
 * insn_zydis_compare.c - names and operands of one instruction, by this decoder and by Zydis.
 *
 * What the decoder says is turned into the list of operands that Zydis should have shown: registers
 * by name, memory with segment, base, index, scale, displacement and size, immediates by value.
 */
#include "cpu/jit/insn_zydis.h"

enum { OPERANDS = 4, RAX_NUMBER = 0 };

struct expected {
    enum { EXPECT_REGISTER, EXPECT_MEMORY, EXPECT_IMMEDIATE } kind;
    ZydisRegister reg;
    unsigned bytes; /* of memory, 0: not compared; of an immediate: what counts of it */
    uint64_t imm;
};

/* --- Names ----------------------------------------------------------------------------------- */

static const struct {
    uint16_t op;
    const char *names; /* all that Zydis has for it, "|" around each */
} names[] = {
    {OP_IMUL1, "|imul|"},
    {OP_MOVSX, "|movsx|movsxd|"},
    {OP_CBW, "|cbw|cwde|cdqe|"},
    {OP_CWD, "|cwd|cdq|cqo|"},
    {OP_NOP, "|nop|prefetch|prefetchw|prefetchwt1|prefetcht0|prefetcht1|prefetcht2|prefetchnta|"},
    {OP_PUSHA, "|pusha|pushad|"},
    {OP_POPA, "|popa|popad|"},
    {OP_PUSHF, "|pushf|pushfd|pushfq|"},
    {OP_POPF, "|popf|popfd|popfq|"},
    {OP_PUSH_SEG, "|push|"},
    {OP_POP_SEG, "|pop|"},
    {OP_JCXZ, "|jcxz|jecxz|jrcxz|"},
    {OP_JMP_FAR, "|jmp|"},
    {OP_CALL_FAR, "|call|"},
    {OP_RET_FAR, "|ret|"},
    {OP_IRET, "|iret|iretd|iretq|"},
    {OP_MOVS, "|movsb|movsw|movsd|movsq|"},
    {OP_STOS, "|stosb|stosw|stosd|stosq|"},
    {OP_LODS, "|lodsb|lodsw|lodsd|lodsq|"},
    {OP_CMPS, "|cmpsb|cmpsw|cmpsd|cmpsq|"},
    {OP_SCAS, "|scasb|scasw|scasd|scasq|"},
    {OP_INS, "|insb|insw|insd|"},
    {OP_OUTS, "|outsb|outsw|outsd|"},
    {OP_MOV_FROM_SEG, "|mov|"},
    {OP_MOV_TO_SEG, "|mov|"},
    {OP_MOV_FROM_CR, "|mov|"},
    {OP_MOV_TO_CR, "|mov|"},
    {OP_MOV_FROM_DR, "|mov|"},
    {OP_MOV_TO_DR, "|mov|"},
    {OP_VMCALL, "|vmcall|vmmcall|"},
    {OP_CLFLUSH, "|clflush|clflushopt|clwb|"},
    {OP_FXSAVE, "|fxsave|fxsave64|"},
    {OP_FXRSTOR, "|fxrstor|fxrstor64|"},
    {OP_XSAVE, "|xsave|xsave64|"},
    {OP_XRSTOR, "|xrstor|xrstor64|"},
    {OP_XSAVEOPT, "|xsaveopt|xsaveopt64|"},
    {OP_XLAT, "|xlat|"},
};

static bool is_among(const char *list, const char *name)
{
    const size_t len = strlen(name);

    for (const char *at = list; (at = strstr(at, name)); at++) {
        if (at[-1] == '|' && at[len] == '|')
            return true;
    }
    return false;
}

static bool names_agree(const struct pair *p)
{
    static const char *const conditions[16] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                               "s", "ns", "p", "np", "l", "nl", "le", "nle"};
    const struct insn *i = &p->ours;
    const char *theirs = ZydisMnemonicGetString(p->theirs.mnemonic);

    switch (i->op) {
    case OP_JCC:
        return theirs[0] == 'j' && strcmp(theirs + 1, conditions[i->cond]) == 0;
    case OP_SETCC:
        return strncmp(theirs, "set", 3) == 0 && strcmp(theirs + 3, conditions[i->cond]) == 0;
    case OP_CMOV:
        return strncmp(theirs, "cmov", 4) == 0 && strcmp(theirs + 4, conditions[i->cond]) == 0;
    case OP_X87:
        return p->theirs.meta.isa_ext == ZYDIS_ISA_EXT_X87 || theirs[0] == 'f';
    case OP_VEC:
        return strcmp(vec_ops[i->vec].name, theirs) == 0;
    }
    for (unsigned n = 0; n < QZ_ARRAY_LEN(names); n++) {
        if (names[n].op == i->op)
            return is_among(names[n].names, theirs);
    }
    return strcasecmp(insn_op_name(i->op), theirs) == 0;
}

/* --- Operands -------------------------------------------------------------------------------- */

static ZydisRegister general_register(unsigned reg, unsigned size)
{
    switch (size) {
    case 1: /* al to bl, ah to bh, spl to dil, r8b to r15b */
        if (reg >= REG_AH)
            reg = reg - REG_AH + 4;
        else if (reg >= 4)
            reg += 4;
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR8, (ZyanU8)reg);
    case 2:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR16, (ZyanU8)reg);
    case 4:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR32, (ZyanU8)reg);
    default:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_GPR64, (ZyanU8)reg);
    }
}

static ZydisRegister vector_register(const struct insn *i, enum vec_operand kind, unsigned reg)
{
    switch (kind) {
    case VEC_OPERAND_XMM:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_XMM, (ZyanU8)reg);
    case VEC_OPERAND_MMX:
        return ZydisRegisterEncode(ZYDIS_REGCLASS_MMX, (ZyanU8)reg);
    default:
        return general_register(reg, i->size);
    }
}

static struct expected expect_register(ZydisRegister reg)
{
    return (struct expected){.kind = EXPECT_REGISTER, .reg = reg};
}

static struct expected expect_immediate(uint64_t imm, unsigned bytes)
{
    return (struct expected){.kind = EXPECT_IMMEDIATE, .imm = imm, .bytes = bytes};
}

/* Memory whose size is the instruction's own and not in struct insn. */
static bool has_own_memory_size(unsigned op)
{
    switch (op) {
    case OP_LEA:
    case OP_BOUND:
    case OP_CMPXCHG8B:
    case OP_CMPXCHG16B:
    case OP_CALL_FAR:
    case OP_JMP_FAR:
    case OP_LDS ... OP_LSS:
    case OP_LGDT ... OP_SIDT:
    case OP_INVLPG:
    case OP_INVPCID:
    case OP_CLFLUSH:
    case OP_X87:
    case OP_FXSAVE:
    case OP_FXRSTOR:
    case OP_XSAVE ... OP_XSAVEOPT:
        return true;
    default:
        return false;
    }
}

static struct expected rm_operand(const struct insn *i)
{
    const struct vec_op *v = &vec_ops[i->vec];

    if (i->mem)
        return (struct expected){.kind = EXPECT_MEMORY,
                                 .bytes = has_own_memory_size(i->op)      ? 0
                                          : i->op != OP_VEC               ? i->src_size
                                          : v->mem_size_w && i->size == 8 ? v->mem_size_w
                                                                          : v->mem_size};
    if (i->op == OP_VEC)
        return expect_register(vector_register(i, v->rm, i->rm));
    return expect_register(general_register(i->rm, i->src_size));
}

static struct expected reg_operand(const struct insn *i)
{
    switch (i->op) {
    case OP_VEC:
        return expect_register(vector_register(i, vec_ops[i->vec].reg, i->reg));
    case OP_MOV_FROM_SEG:
    case OP_MOV_TO_SEG:
        return expect_register(ZydisRegisterEncode(ZYDIS_REGCLASS_SEGMENT, i->reg));
    case OP_MOV_FROM_CR:
    case OP_MOV_TO_CR:
        return expect_register(ZydisRegisterEncode(ZYDIS_REGCLASS_CONTROL, i->reg));
    case OP_MOV_FROM_DR:
    case OP_MOV_TO_DR:
        return expect_register(ZydisRegisterEncode(ZYDIS_REGCLASS_DEBUG, i->reg));
    default:
        return expect_register(general_register(i->reg, i->size));
    }
}

/* Operands that `form` does not name but the mnemonic shows. Returns their number, -1: not such an
 * operation. */
static int special_operands(const struct insn *i, struct expected e[OPERANDS])
{
    switch (i->op) {
    case OP_IN:
        e[0] = expect_register(general_register(RAX_NUMBER, i->size));
        e[1] =
            i->form == FORM_RM ? expect_register(ZYDIS_REGISTER_DX) : expect_immediate(i->imm, 1);
        return 2;
    case OP_OUT:
        e[0] =
            i->form == FORM_RM ? expect_register(ZYDIS_REGISTER_DX) : expect_immediate(i->imm, 1);
        e[1] = expect_register(general_register(RAX_NUMBER, i->size));
        return 2;
    case OP_PUSH_SEG:
    case OP_POP_SEG:
        e[0] = expect_register(ZydisRegisterEncode(ZYDIS_REGCLASS_SEGMENT, i->reg));
        return 1;
    case OP_ENTER:
        e[0] = expect_immediate(i->imm, 2);
        e[1] = expect_immediate(i->imm2, 1);
        return 2;
    default:
        return -1;
    }
}

static unsigned form_operands(const struct insn *i, struct expected e[OPERANDS])
{
    const struct expected rm = rm_operand(i), reg = reg_operand(i),
                          vvvv = expect_register(general_register(i->vvvv, i->size)),
                          imm = expect_immediate(i->imm, i->op == OP_VEC ? 1 : i->size),
                          cl = expect_register(ZYDIS_REGISTER_CL);

#define LIST(...) memcpy(e, ((struct expected[OPERANDS]){__VA_ARGS__}), OPERANDS * sizeof(*e))
    switch ((enum insn_form)i->form) {
    case FORM_NONE:
        return 0;
    case FORM_RM:
        return LIST(rm), 1;
    case FORM_RM_REG:
        return LIST(rm, reg), 2;
    case FORM_REG_RM:
        return LIST(reg, rm), 2;
    case FORM_RM_IMM:
        return LIST(rm, imm), 2;
    case FORM_REG_RM_IMM:
        return LIST(reg, rm, imm), 3;
    case FORM_RM_REG_IMM:
        return LIST(rm, reg, imm), 3;
    case FORM_RM_REG_CL:
        return LIST(rm, reg, cl), 3;
    case FORM_RM_CL:
        return LIST(rm, cl), 2;
    case FORM_REG_VVVV_RM:
        return LIST(reg, vvvv, rm), 3;
    case FORM_REG_RM_VVVV:
        return LIST(reg, rm, vvvv), 3;
    case FORM_VVVV_RM:
        return LIST(vvvv, rm), 2;
    case FORM_IMM:
        return LIST(imm), 1;
    case FORM_REL:
        return LIST(imm), 1;
    case FORM_FAR:
        return 0; /* compared apart */
    }
#undef LIST
    return 0;
}

static ZydisRegister address_register(const struct insn *i, uint8_t reg)
{
    if (reg == REG_NONE)
        return ZYDIS_REGISTER_NONE;
    if (reg == REG_RIP)
        return i->asize == 8 ? ZYDIS_REGISTER_RIP : ZYDIS_REGISTER_EIP;
    return general_register(reg, i->asize);
}

static const char *memory_difference(const struct insn *i, const struct expected *e,
                                     const ZydisDecodedOperand *z)
{
    const uint64_t disp =
        i->form != FORM_RM && i->map == 0 && (i->opcode & 0xfc) == 0xa0 && i->asize == 8
            ? i->imm
            : (uint64_t)(int64_t)i->disp;
    const unsigned scale = i->index == REG_NONE ? 0 : 1u << i->scale;
    const uint64_t mask = i->asize == 8 ? ~0ull : (1ull << i->asize * 8) - 1;

    if (z->type != ZYDIS_OPERAND_TYPE_MEMORY)
        return "no memory there";
    if (z->mem.segment != ZydisRegisterEncode(ZYDIS_REGCLASS_SEGMENT, i->seg))
        return "segment";
    if (z->mem.base != address_register(i, i->base) ||
        z->mem.index != address_register(i, i->index) || (z->mem.index && z->mem.scale != scale))
        return "address";
    if ((z->mem.disp.has_displacement ? (uint64_t)z->mem.disp.value & mask : 0) != (disp & mask))
        return "displacement";
    if (e->bytes && z->size != e->bytes * 8)
        return "memory size";
    return NULL;
}

static const char *operand_difference(const struct insn *i, const struct expected *e,
                                      const ZydisDecodedOperand *z)
{
    uint64_t mask;

    switch (e->kind) {
    case EXPECT_REGISTER:
        if (z->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return "no register there";
        return z->reg.value == e->reg ? NULL : "register";
    case EXPECT_MEMORY:
        return memory_difference(i, e, z);
    default:
        if (z->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return "no immediate there";
        mask = e->bytes == 8 ? ~0ull : (1ull << e->bytes * 8) - 1;
        return ((z->imm.value.u ^ e->imm) & mask) == 0 ? NULL : "immediate";
    }
}

const char *zydis_difference(const struct pair *p)
{
    const struct insn *i = &p->ours;
    struct expected e[OPERANDS];
    int count;

    if (i->len != p->theirs.length)
        return "length";
    if (!names_agree(p) && !name_differs(p))
        return "name";
    if (i->asize * 8 != p->theirs.address_width)
        return "address size";
    if (operands_are_not_compared(p))
        return NULL;
    if (i->form == FORM_FAR) {
        const ZydisDecodedOperandPtr *far = &p->operands[0].ptr;

        return p->operands[0].type == ZYDIS_OPERAND_TYPE_POINTER && far->segment == i->imm2 &&
                       far->offset == i->imm
                   ? NULL
                   : "far pointer";
    }
    count = special_operands(i, e);
    if (count < 0)
        count = (int)form_operands(i, e);
    if (count != p->theirs.operand_count_visible && !(count == 0))
        return "number of operands";
    for (int n = 0; n < count; n++) {
        const char *what = operand_difference(i, &e[n], &p->operands[n]);

        if (what && !operand_differs(p, what))
            return what;
    }
    return NULL;
}

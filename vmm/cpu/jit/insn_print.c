/* insn_print.c - a decoded instruction as text (insn_print.h). */
#include "cpu/jit/insn_print.h"

#include <ctype.h>

#include "cpu/jit/vec.h"

struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    if (n > 0) {
        size_t step = QZ_MIN((size_t)n, t->left - 1);

        t->at += step;
        t->left -= step;
    }
}

static void put_register(struct text *t, unsigned reg, unsigned size)
{
    static const char *const legacy[8] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    static const char *const suffix[9] = {[1] = "b", [2] = "w", [4] = "d", [8] = ""};

    if (reg >= REG_AH && reg < REG_AH + 4)
        put(t, "%ch", "acdb"[reg - REG_AH]);
    else if (reg >= 8)
        put(t, "r%u%s", reg, suffix[size]);
    else if (size == 1)
        put(t, reg < 4 ? "%.1sl" : "%sl", legacy[reg]);
    else
        put(t, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", legacy[reg]);
}

static void put_signed(struct text *t, int64_t v)
{
    put(t, "%s0x%llx", v < 0 ? "-" : "+", (unsigned long long)(v < 0 ? -(uint64_t)v : (uint64_t)v));
}

static const char *const segments[8] = {"es", "cs", "ss", "ds", "fs", "gs", "?", "?"};

static void put_memory(struct text *t, const struct insn *i)
{
    put(t, "[%s:", segments[i->seg & 7]);
    if (i->base == REG_RIP)
        put(t, i->asize == 8 ? "rip" : "eip");
    else if (i->base != REG_NONE)
        put_register(t, i->base, i->asize);
    if (i->index != REG_NONE) {
        put(t, "%s", i->base == REG_NONE ? "" : "+");
        put_register(t, i->index, i->asize);
        put(t, "*%u", 1u << i->scale);
    }
    if (i->base == REG_NONE && i->index == REG_NONE && i->map == 0 && (i->opcode & 0xfc) == 0xa0 &&
        i->asize == 8)
        put_signed(t, (int64_t)i->imm);
    else if (i->disp || (i->base == REG_NONE && i->index == REG_NONE))
        put_signed(t, i->disp);
    put(t, "]");
}

static void put_vector(struct text *t, enum vec_operand kind, unsigned reg, unsigned size)
{
    if (kind == VEC_OPERAND_GPR)
        put_register(t, reg, size);
    else
        put(t, "%s%u", kind == VEC_OPERAND_MMX ? "mm" : "xmm", reg);
}

static void put_rm(struct text *t, const struct insn *i)
{
    if (i->mem)
        put_memory(t, i);
    else if (i->op == OP_VEC)
        put_vector(t, vec_ops[i->vec].rm, i->rm, i->size);
    else
        put_register(t, i->rm, i->src_size);
}

static void put_reg(struct text *t, const struct insn *i)
{
    switch (i->op) {
    case OP_VEC:
        put_vector(t, vec_ops[i->vec].reg, i->reg, i->size);
        break;
    case OP_MOV_FROM_SEG:
    case OP_MOV_TO_SEG:
        put(t, "%s", segments[i->reg & 7]);
        break;
    case OP_MOV_FROM_CR:
    case OP_MOV_TO_CR:
    case OP_MOV_FROM_DR:
    case OP_MOV_TO_DR:
        put(t, "%u", i->reg);
        break;
    default:
        put_register(t, i->reg, i->size);
    }
}

/* The operands of each form: m rm, r reg, v vvvv, i immediate, c CL, j relative, f far. */
static void put_operands(struct text *t, const struct insn *i)
{
    static const char *const forms[] = {
        [FORM_NONE] = "",           [FORM_RM] = "m",
        [FORM_RM_REG] = "mr",       [FORM_REG_RM] = "rm",
        [FORM_RM_IMM] = "mi",       [FORM_REG_RM_IMM] = "rmi",
        [FORM_RM_REG_IMM] = "mri",  [FORM_RM_REG_CL] = "mrc",
        [FORM_RM_CL] = "mc",        [FORM_REG_VVVV_RM] = "rvm",
        [FORM_REG_RM_VVVV] = "rmv", [FORM_VVVV_RM] = "vm",
        [FORM_IMM] = "i",           [FORM_REL] = "j",
        [FORM_FAR] = "f",
    };
    const char *form = i->form < QZ_ARRAY_LEN(forms) ? forms[i->form] : "";

    for (unsigned n = 0; form[n]; n++) {
        put(t, n ? ", " : " ");
        switch (form[n]) {
        case 'm':
            put_rm(t, i);
            break;
        case 'r':
            put_reg(t, i);
            break;
        case 'v':
            put_register(t, i->vvvv, i->size);
            break;
        case 'c':
            put(t, "cl");
            break;
        case 'f':
            put(t, "0x%x:", i->imm2);
            /* fallthrough */
        default:
            put_signed(t, (int64_t)i->imm);
        }
    }
}

const char *insn_print(const struct insn *i, char *text, size_t len)
{
    static const char *const prefixes[] = {"lock ", "rep ", "repne "};
    struct text t = {text, len};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(prefixes); n++) {
        if (i->prefix >> n & 1)
            put(&t, "%s", prefixes[n]);
    }
    if (i->op == OP_VEC) {
        put(&t, "vec %s", vec_ops[i->vec].name);
    } else {
        for (const char *c = insn_op_name(i->op); *c; c++)
            put(&t, "%c", tolower((unsigned char)*c));
        if (i->op == OP_JCC || i->op == OP_SETCC || i->op == OP_CMOV)
            put(&t, "%u", i->cond);
        if (i->op != OP_UD)
            put(&t, ".%u", i->size);
    }
    put_operands(&t, i);
    return text;
}

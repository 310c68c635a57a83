/* forms.c - see forms.h. */
#include "forms.h"

#include <assert.h>

#include "cpu/jit/insn_tables.h"
#include "cpu/jit/vec.h"

static const uint8_t mandatory[4] = {0, 0x66, 0xf3, 0xf2};
static const struct opcode *const maps[4] = {opcode_map0, opcode_map1, opcode_map2, opcode_map3};

/*
 * Not compared with the host: what tells it apart from the guest's model (CPUID, XGETBV, XSAVE by
 * XCR0), time and chance, what the host's kernel takes for a call (SYSCALL, SYSENTER; SYSEXIT is
 * AMD's #UD), emulates under UMIP, or hands to a hypervisor; INT1, whose trap hosts that are guests
 * themselves tell as a fault; LAR, whose result is undefined in four bits, and
 * LSL, to which Linux tells the number of the CPU.
 */
static bool is_comparable(enum insn_op op)
{
    switch (op) {
    case OP_SYSCALL:
    case OP_SYSENTER:
    case OP_SYSEXIT:
    case OP_SYSRET:
    case OP_CPUID:
    case OP_RDTSC:
    case OP_RDTSCP:
    case OP_RDPMC:
    case OP_RDPID:
    case OP_RDRAND:
    case OP_RDSEED:
    case OP_XGETBV:
    case OP_XSAVE:
    case OP_XRSTOR:
    case OP_XSAVEOPT:
    case OP_SGDT:
    case OP_SIDT:
    case OP_SLDT:
    case OP_STR:
    case OP_SMSW:
    case OP_VMCALL:
    case OP_INT1:
    case OP_LAR:
    case OP_LSL:
        return false;
    default:
        return true;
    }
}

static enum form_class class_of(enum insn_op op)
{
    if (op == OP_VEC || (op >= OP_FXSAVE && op <= OP_STMXCSR))
        return CLASS_VECTOR;
    if (op >= OP_X87 && op <= OP_EMMS)
        return CLASS_X87;
    if (op >= OP_PUSH && op <= OP_LEAVE)
        return CLASS_STACK;
    if (op >= OP_JMP && op <= OP_RET)
        return CLASS_FLOW;
    if (op >= OP_MOVS && op <= OP_SCAS)
        return CLASS_STRING;
    if (op == OP_UD || (op >= OP_PUSH_SEG && op <= OP_BOUND) || (op >= OP_CLI && op <= OP_STAC) ||
        (op >= OP_INS && op < OP_LFENCE))
        return CLASS_SYSTEM;
    return CLASS_INTEGER;
}

/* What the bytes of a form decode to. False: nothing that is compared. */
static bool decode(const struct forms *all, struct form *f)
{
    uint8_t bytes[16] = {0}, *p = bytes;
    struct insn i;

    if (f->prefix)
        *p++ = f->prefix;
    if (f->map)
        *p++ = 0x0f;
    if (f->map > 1)
        *p++ = f->map == 2 ? 0x38 : 0x3a;
    *p++ = f->opcode;
    if (f->modrm)
        *p = (uint8_t)((f->mem ? 0 : 0xc0) | QZ_MAX(f->reg, 0) << 3 | QZ_MAX(f->rm, 0));
    if (insn_decode(&i, bytes, sizeof(bytes) - 1, all->width, all->features) != DECODE_OK)
        return false;
    f->op = i.op;
    f->vec = i.vec;
    f->class = class_of(i.op);
    if (f->map == 1 && f->opcode == 0x0d && !f->mem)
        return false; /* prefetching a register: #UD on AMD's, nothing on Intel's */
    return i.op != OP_UD && is_comparable(i.op);
}

static void add(struct forms *all, const struct form *f)
{
    assert(all->count < FORMS_MAX);
    all->member[f->class][all->of_class[f->class]++] = (uint16_t)all->count;
    all->form[all->count++] = *f;
}

static bool same(const struct form *a, const struct form *b)
{
    return a->op == b->op && a->vec == b->vec;
}

/* The form without its mandatory prefix is the same instruction: the prefix is only a size. */
static bool is_without_prefix(const struct forms *all, const struct form *f)
{
    struct form plain = *f;

    plain.prefix = 0;
    return decode(all, &plain) && same(&plain, f);
}

/* Whether all eight values of a field make the same instruction; x87 is one operation for all. */
static bool field_selects(const struct forms *all, const struct form *f, bool rm)
{
    struct form first = *f;
    bool is;

    *(rm ? &first.rm : &first.reg) = 0;
    is = decode(all, &first);
    if (first.op == OP_X87 && (!rm || !f->mem))
        return true;
    for (int8_t n = 1; n < 8; n++) {
        struct form other = *f;

        *(rm ? &other.rm : &other.reg) = n;
        if (decode(all, &other) != is || !same(&first, &other))
            return true;
    }
    return false;
}

static void find_rm(struct forms *all, struct form f)
{
    if (f.mem || !field_selects(all, &f, true)) {
        f.rm = -1;
        if (decode(all, &f) && (!f.prefix || !is_without_prefix(all, &f)))
            add(all, &f);
        return;
    }
    for (f.rm = 0; f.rm < 8; f.rm++)
        if (decode(all, &f) && (!f.prefix || !is_without_prefix(all, &f)))
            add(all, &f);
}

static void find_modrm(struct forms *all, struct form f)
{
    for (unsigned mem = 0; mem < 2; mem++) {
        f.mem = mem;
        f.reg = -1;
        if (field_selects(all, &f, false)) {
            for (f.reg = 0; f.reg < 8; f.reg++)
                find_rm(all, f);
        } else {
            find_rm(all, f);
        }
    }
}

static bool is_prefix_or_escape(const struct forms *all, unsigned map, unsigned opcode)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                       0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x0f};

    if (map == 1)
        return opcode == 0x38 || opcode == 0x3a;
    if (map)
        return false;
    return memchr(prefixes, (int)opcode, sizeof(prefixes)) ||
           (all->width == CODE_64 && (opcode & 0xf0) == 0x40);
}

static void find_opcode(struct forms *all, unsigned map, unsigned opcode)
{
    struct form f = {.map = (uint8_t)map, .opcode = (uint8_t)opcode, .reg = -1, .rm = -1};

    f.modrm = maps[map][opcode].flags & MODRM;
    for (unsigned n = 0; n < 4; n++) {
        f.prefix = mandatory[n];
        if (f.modrm)
            find_modrm(all, f);
        else if (decode(all, &f) && (!f.prefix || !is_without_prefix(all, &f)))
            add(all, &f);
    }
}

static void find_vex(struct forms *all)
{
    for (unsigned n = 0; n < opcode_vex_count; n++)
        for (unsigned mem = 0; mem < 2; mem++) {
            const struct opcode_vex *v = &opcode_vex[n];
            struct form f = {.op = v->op,
                             .map = v->map,
                             .opcode = v->opcode,
                             .prefix = v->prefix,
                             .reg = v->group,
                             .rm = -1,
                             .modrm = true,
                             .vex = true,
                             .mem = mem};

            if (all->features >> opcode_feature[v->op] & 1)
                add(all, &f);
        }
}

/* What is no instruction in any of them: UD0, UD1, UD2, and one-byte opcodes that 64-bit code lost.
 */
static void find_undefined(struct forms *all)
{
    static const struct form defined_so[] = {{.map = 1, .opcode = 0x0b},
                                             {.map = 1, .opcode = 0xb9, .modrm = true},
                                             {.map = 1, .opcode = 0xff, .modrm = true}};

    for (unsigned n = 0; n < QZ_ARRAY_LEN(defined_so); n++) {
        struct form f = defined_so[n];

        f.op = OP_UD;
        f.class = CLASS_SYSTEM;
        f.reg = f.rm = -1;
        add(all, &f);
    }
    for (unsigned opcode = 0; opcode < 256 && all->width == CODE_64; opcode++) {
        struct form f = {.opcode = (uint8_t)opcode, .class = CLASS_SYSTEM, .reg = -1, .rm = -1};

        if (!(opcode_map0[opcode].flags & NOT64) || opcode == 0x62 || opcode == 0xc4 ||
            opcode == 0xc5)
            continue;
        f.op = OP_UD;
        add(all, &f);
    }
}

void forms_find(struct forms *f, enum code_width width, uint64_t features)
{
    *f = (struct forms){.width = width, .features = features};
    for (unsigned map = 0; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            if (!is_prefix_or_escape(f, map, opcode))
                find_opcode(f, map, opcode);
    find_vex(f);
    find_undefined(f);
}

const char *form_name(const struct form *f, char *text, size_t len)
{
    static const char *const map_names[] = {"", "0f ", "0f38 ", "0f3a "};
    const char *name = f->op == OP_VEC ? vec_ops[f->vec].name : insn_op_name(f->op);
    int n = snprintf(text, len, "%-12s %s%s", name, f->vex ? "vex " : "", map_names[f->map]);

    if (f->prefix && !f->vex)
        n += snprintf(text + n, len - (size_t)n, "%02x.", f->prefix);
    n += snprintf(text + n, len - (size_t)n, "%02x", f->opcode);
    if (f->modrm && f->reg >= 0)
        n += snprintf(text + n, len - (size_t)n, " /%d", f->reg);
    if (f->modrm && f->rm >= 0)
        n += snprintf(text + n, len - (size_t)n, " rm%d", f->rm);
    if (f->modrm)
        snprintf(text + n, len - (size_t)n, f->mem ? " mem" : " reg");
    return text;
}

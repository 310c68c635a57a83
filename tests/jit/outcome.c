/* outcome.c - how two CPUs came out of the same sequence, compared and printed (rig.h). */
#include "rig.h"

#include "cpu/jit/cpu.h"

static const char *const names[GPR_COUNT] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                             "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                             "r12", "r13", "r14", "r15"};

struct text {
    char *at;
    size_t left;
    bool any;
};

static __attribute__((format(printf, 2, 3))) void say(struct text *t, const char *format, ...)
{
    va_list args;
    int n;

    t->any = true;
    va_start(args, format);
    n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    n = QZ_MIN(n, (int)t->left - 1);
    t->at += n;
    t->left -= (size_t)n;
}

static void compare(struct text *t, const char *name, uint64_t native, uint64_t other)
{
    if (native != other)
        say(t, " %s %llx not %llx", name, (unsigned long long)other, (unsigned long long)native);
}

static bool has_code(unsigned vector)
{
    return vector == VECTOR_DF || (vector >= VECTOR_TS && vector <= VECTOR_PF);
}

/* The kernel says of all addresses above user memory that they are present (arch/x86/mm/fault.c).
 */
static uint64_t code_of(const struct outcome *o)
{
    return o->vector == VECTOR_PF && o->address >= 0x7ffffffff000 ? o->code | 1 : o->code;
}

/* The kernel keeps null selectors without their lowest bits. */
static uint16_t selector(uint16_t s)
{
    return s > 3 ? s : 0;
}

/*
 * Instructions that can fault for several reasons at once, in an order that SDM vol 3 §6.9 leaves
 * open or AMD's processors do not follow: the target of a call and its stack, two operands of CMPS
 * and MOVS, the parts of 80 bits, selectors and descriptors of far transfers, the frames of ENTER,
 * place and alignment of vectors.
 */
static bool any_fault_will_do(const struct insn *i)
{
    return i->op == OP_CALL || i->op == OP_CMPS || i->op == OP_MOVS || i->op == OP_X87 ||
           i->op == OP_ENTER || (i->op >= OP_JMP_FAR && i->op <= OP_RET_FAR) || i->op == OP_IRET ||
           (i->op == OP_VEC && i->asize < 8);
}

/* Both #SS or #GP: of an address that is not canonical, in the stack's segment and unaligned. */
static bool is_place_and_alignment(const struct outcome *a, const struct outcome *b,
                                   const struct insn *i)
{
    return i->op == OP_VEC && (a->vector == VECTOR_SS || a->vector == VECTOR_GP) &&
           (b->vector == VECTOR_SS || b->vector == VECTOR_GP);
}

/* Across the end of 4 GiB a flat segment has its limit or goes on at 0 (SDM vol 3 §5.3). */
static bool wraps(const struct outcome *o, const struct insn *i)
{
    return i->asize < 8 && o->vector == VECTOR_PF &&
           (o->address + 512 > 1ull << 32 || o->address < 512);
}

static bool is_fault(unsigned vector)
{
    return (vector >= VECTOR_TS && vector <= VECTOR_PF) || vector == VECTOR_AC;
}

/* With a base that is not 0, AMD's want a canonical offset, too, and Intel's only the sum. */
static bool is_offset(const struct outcome *a, const struct outcome *b, const struct insn *i)
{
    return i->seg >= SEG_FS && a->vector == VECTOR_GP && is_fault(b->vector);
}

static void compare_events(struct text *t, const struct outcome *a, const struct outcome *b,
                           const struct insn *last)
{
    if (is_fault(a->vector) && is_fault(b->vector) &&
        (any_fault_will_do(last) || is_place_and_alignment(a, b, last) || is_offset(a, b, last) ||
         wraps(a, last) || wraps(b, last)))
        return;
    compare(t, "vector", a->vector, b->vector);
    if (a->vector != b->vector)
        return;
    if (has_code(a->vector))
        compare(t, "code", code_of(a), code_of(b));
    if (a->vector == VECTOR_PF)
        compare(t, "address", a->address, b->address);
}

/* 32-bit code has half of eight registers, and half of rsp when 64-bit code ended there. */
static void compare_general(struct text *t, const struct registers *a, const struct registers *b,
                            enum code_width width)
{
    const unsigned count = width == CODE_64 ? 16 : 8;
    const uint64_t mask = width == CODE_64 ? ~0ull : 0xffffffff;

    for (unsigned n = 0; n < count; n++)
        if (n == RSP && a->cs == SELECTOR_32)
            compare(t, names[n], (uint32_t)a->gpr[n], (uint32_t)b->gpr[n]);
        else
            compare(t, names[n], a->gpr[n] & mask, b->gpr[n] & mask);
    compare(t, "rip", a->rip, b->rip);
    compare(t, "cs", a->cs, b->cs);
    compare(t, "ss", a->ss, b->ss);
    compare(t, "ds", selector(a->ds), selector(b->ds));
    compare(t, "es", selector(a->es), selector(b->es));
    compare(t, "fs", selector(a->fs), selector(b->fs));
    compare(t, "gs", selector(a->gs), selector(b->gs));
    compare(t, "fs base", a->fs_base, b->fs_base);
    compare(t, "gs base", a->gs_base, b->gs_base);
}

/* Not the pointers of the last x87 instruction, which processors keep differently. */
static void compare_fx(struct text *t, const uint8_t *a, const uint8_t *b, unsigned vector)
{
    const uint32_t inexact = vector == VECTOR_XM ? 1 << 5 : 0; /* vec_fp.c tells why */
    char name[8];

    compare(t, "fcw", qz_load_le16(a), qz_load_le16(b));
    compare(t, "fsw", qz_load_le16(a + 2), qz_load_le16(b + 2));
    compare(t, "tags", a[4], b[4]);
    compare(t, "mxcsr", qz_load_le32(a + 24) & ~inexact, qz_load_le32(b + 24) & ~inexact);
    for (unsigned n = 0; n < 8; n++) {
        snprintf(name, sizeof(name), "st%u", n);
        compare(t, name, qz_load_le64(a + 32 + 16 * n), qz_load_le64(b + 32 + 16 * n));
        compare(t, name, qz_load_le16(a + 40 + 16 * n), qz_load_le16(b + 40 + 16 * n));
    }
    for (unsigned n = 0; n < 16; n++) {
        snprintf(name, sizeof(name), "xmm%u", n);
        compare(t, name, qz_load_le64(a + 160 + 16 * n), qz_load_le64(b + 160 + 16 * n));
        compare(t, name, qz_load_le64(a + 168 + 16 * n), qz_load_le64(b + 168 + 16 * n));
    }
}

const char *outcome_difference(const struct outcome *a, const struct outcome *b,
                               const struct insn *last, enum code_width width, uint16_t undefined,
                               char *text, size_t len)
{
    struct text t = {text, len, false};

    compare_events(&t, a, b, last);
    compare(&t, "flags", a->regs.rflags & ~(uint64_t)undefined,
            b->regs.rflags & ~(uint64_t)undefined);
    compare_general(&t, &a->regs, &b->regs, width);
    compare_fx(&t, a->regs.fx, b->regs.fx, a->vector);
    return t.any ? text : NULL;
}

void registers_print(const struct registers *r)
{
    for (unsigned n = 0; n < 16; n++)
        printf("  %s %016llx%s", names[n], (unsigned long long)r->gpr[n], n % 4 == 3 ? "\n" : "");
    printf("  rip %llx flags %llx cs %x ss %x ds %x es %x fs %x %llx gs %x %llx\n",
           (unsigned long long)r->rip, (unsigned long long)r->rflags, r->cs, r->ss, r->ds, r->es,
           r->fs, (unsigned long long)r->fs_base, r->gs, (unsigned long long)r->gs_base);
    printf("  fcw %x fsw %x tags %x mxcsr %x\n", qz_load_le16(r->fx), qz_load_le16(r->fx + 2),
           r->fx[4], qz_load_le32(r->fx + 24));
    for (unsigned n = 0; n < 8; n++)
        printf("  st%u %04x.%016llx%s", n, qz_load_le16(r->fx + 40 + 16 * n),
               (unsigned long long)qz_load_le64(r->fx + 32 + 16 * n), n % 4 == 3 ? "\n" : "");
    for (unsigned n = 0; n < 16; n++)
        printf("  xmm%u %016llx.%016llx%s", n,
               (unsigned long long)qz_load_le64(r->fx + 168 + 16 * n),
               (unsigned long long)qz_load_le64(r->fx + 160 + 16 * n), n % 2 ? "\n" : "");
}

void outcome_print(const char *who, const struct outcome *o)
{
    printf("%s: vector %u code %llx address %llx\n", who, o->vector, (unsigned long long)o->code,
           (unsigned long long)o->address);
    registers_print(&o->regs);
}

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

static void compare_events(struct text *t, const struct outcome *a, const struct outcome *b)
{
    compare(t, "vector", a->vector, b->vector);
    if (a->vector != b->vector)
        return;
    if (has_code(a->vector))
        compare(t, "code", code_of(a), code_of(b));
    if (a->vector == VECTOR_PF)
        compare(t, "address", a->address, b->address);
}

/* 32-bit code has half of eight registers. */
static void compare_general(struct text *t, const struct registers *a, const struct registers *b,
                            enum code_width width)
{
    const unsigned count = width == CODE_64 ? 16 : 8;
    const uint64_t mask = width == CODE_64 ? ~0ull : 0xffffffff;

    for (unsigned n = 0; n < count; n++)
        compare(t, names[n], a->gpr[n] & mask, b->gpr[n] & mask);
    compare(t, "rip", a->rip, b->rip);
    compare(t, "cs", a->cs, b->cs);
    compare(t, "ss", a->ss, b->ss);
    compare(t, "ds", a->ds, b->ds);
    compare(t, "es", a->es, b->es);
    compare(t, "fs", a->fs, b->fs);
    compare(t, "gs", a->gs, b->gs);
    compare(t, "fs base", a->fs_base, b->fs_base);
    compare(t, "gs base", a->gs_base, b->gs_base);
}

/* Not the pointers of the last x87 instruction, which processors keep differently. */
static void compare_fx(struct text *t, const uint8_t *a, const uint8_t *b)
{
    char name[8];

    compare(t, "fcw", qz_load_le16(a), qz_load_le16(b));
    compare(t, "fsw", qz_load_le16(a + 2), qz_load_le16(b + 2));
    compare(t, "tags", a[4], b[4]);
    compare(t, "mxcsr", qz_load_le32(a + 24), qz_load_le32(b + 24));
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
                               enum code_width width, uint16_t undefined, char *text, size_t len)
{
    struct text t = {text, len, false};

    compare_events(&t, a, b);
    compare(&t, "flags", a->regs.rflags & ~(uint64_t)undefined,
            b->regs.rflags & ~(uint64_t)undefined);
    compare_general(&t, &a->regs, &b->regs, width);
    compare_fx(&t, a->regs.fx, b->regs.fx);
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

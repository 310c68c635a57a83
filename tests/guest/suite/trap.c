/* trap.c - descriptor tables, traps, probes (cpu.h). */
#include "cpu.h"

extern const char trap_entries[];
enum { ENTRY_SIZE = 16 };

struct probe_result {
    uint64_t returned, value;
};
struct probe_result probe_enter(uint64_t *back, const struct probe *p);
_Noreturn void probe_leave(uint64_t rsp);
void trap_dispatch(struct trap *frame);

struct pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

enum { GDT_ENTRIES = SEL_TSS / 8 + 2 * CPUS_MAX, IST_STACK = 4096, IST_USED = 3 };
enum { TYPE_TSS = 9 };

static struct cpu {
    struct tss tss;
    uint64_t back; /* RSP of probe_enter */
    struct trap *armed;
    uint8_t ist[IST_USED][IST_STACK] __attribute__((aligned(16)));
    uint8_t entry_stack[IST_STACK] __attribute__((aligned(16)));
    uint8_t user_stack[IST_STACK] __attribute__((aligned(16)));
} cpus[CPUS_MAX] __attribute__((aligned(4096)));

static uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
static uint64_t idt[256][2] __attribute__((aligned(16)));
static trap_handler *handlers[256];

/* ---- descriptor tables -------------------------------------------------------------------------
 */

void gate_set(unsigned vector, struct gate g)
{
    idt[vector][0] = (g.target & 0xffff) | (uint64_t)g.selector << 16 | (uint64_t)g.ist << 32 |
                     (uint64_t)g.type << 40 | (uint64_t)g.dpl << 45 | (uint64_t)!g.absent << 47 |
                     (g.target >> 16 & 0xffff) << 48;
    idt[vector][1] = g.target >> 32;
}

/* Exceptions on stack 1, NMI on 2, double faults and machine checks on 3. */
struct gate gate_usual(unsigned vector)
{
    const bool ring3 = vector == VECTOR_LEAVE || vector == VECTOR_BP || vector == VECTOR_OF;

    return (struct gate){
        .target = (uint64_t)trap_entries + vector * ENTRY_SIZE,
        .selector = SEL_CODE,
        .ist = vector == VECTOR_NMI                         ? 2
               : vector == VECTOR_DF || vector == VECTOR_MC ? 3
               : vector < 32                                ? 1
                                                            : 0,
        .type = GATE_INTERRUPT,
        .dpl = ring3 ? 3 : 0,
    };
}

void gdt_set(unsigned selector, uint64_t low)
{
    gdt[selector / 8] = low;
}

uint64_t gdt_get(unsigned selector)
{
    return gdt[selector / 8];
}

static void tss_describe(unsigned n, unsigned bytes)
{
    const uint64_t base = (uint64_t)&cpus[n].tss;
    const unsigned selector = SEL_TSS + n * 16;

    gdt_set(selector, ((bytes - 1) & 0xffff) | (base & 0xffffff) << 16 |
                          (uint64_t)(TYPE_TSS | 0x80) << 40 | (base >> 24 & 0xff) << 56);
    gdt_set(selector + 8, base >> 32);
}

static void tss_load(unsigned n)
{
    asm volatile("ltr %0" : : "r"((uint16_t)(SEL_TSS + n * 16)) : "memory");
}

unsigned cpu_number(void)
{
    uint64_t tr;

    asm volatile("str %0" : "=r"(tr));
    return (unsigned)((tr & 0xffff) - SEL_TSS) / 16;
}

struct tss *cpu_tss(void)
{
    return &cpus[cpu_number()].tss;
}

void tss_set_size(unsigned bytes)
{
    const unsigned n = cpu_number();

    tss_describe(n, bytes);
    tss_load(n);
}

uint64_t ist_top(unsigned ist)
{
    return (uint64_t)cpus[cpu_number()].ist[ist - 1] + IST_STACK;
}

static void tables_fill(void)
{
    memset(gdt, 0, SEL_TSS);
    gdt_set(SEL_CODE, 0x00af9b000000ffff);
    gdt_set(SEL_DATA, 0x00cf93000000ffff);
    gdt_set(SEL_CODE32, 0x00cf9b000000ffff);
    gdt_set(SEL_USER32 & ~7u, 0x00cffb000000ffff);
    gdt_set(SEL_USER_DATA & ~7u, 0x00cff3000000ffff);
    gdt_set(SEL_USER & ~7u, 0x00affb000000ffff);
    for (unsigned v = 0; v < 256; v++)
        gate_set(v, gate_usual(v));
    memset(handlers, 0, sizeof(handlers));
}

static void tss_fill(unsigned n)
{
    struct tss *t = &cpus[n].tss;

    t->rsp[0] = (uint64_t)cpus[n].entry_stack + IST_STACK;
    for (unsigned i = 0; i < IST_USED; i++)
        t->ist[i] = (uint64_t)cpus[n].ist[i] + IST_STACK;
    t->io_map = sizeof(*t);
    tss_describe(n, TSS_IO_MAP);
}

static void tables_load(void)
{
    const struct pointer g = {sizeof(gdt) - 1, (uint64_t)gdt}, i = {sizeof(idt) - 1, (uint64_t)idt};

    asm volatile("lgdt %0; lidt %1" : : "m"(g), "m"(i));
    asm volatile("pushq %0; lea 1f(%%rip), %%rax; pushq %%rax; lretq; 1:"
                 :
                 : "i"(SEL_CODE)
                 : "rax", "memory");
    asm volatile("mov %0, %%ss; mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs; lldt %w1"
                 :
                 : "r"(SEL_DATA), "r"(0));
}

static void registers_fill(void)
{
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    write_cr0(0x80000000 | CR0_WP | CR0_NE | 1 << 4 | CR0_MP | CR0_PE);
    write_cr4(CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT);
    wrmsr(MSR_EFER, EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
    asm volatile("fninit");
}

void cpu_start(unsigned n)
{
    if (n == 0)
        tables_fill();
    tss_fill(n);
    tables_load();
    tss_load(n);
    registers_fill();
}

void cpu_reset(void)
{
    const unsigned n = cpu_number();

    interrupts_off();
    write_dr7(0x400);
    page_reset();
    tables_fill();
    tss_fill(n);
    tables_load();
    tss_load(n);
    registers_fill();
    cpus[n].armed = NULL;
}

/* ---- traps -------------------------------------------------------------------------------------
 */

void trap_handle(unsigned vector, trap_handler *handler)
{
    handlers[vector] = handler;
}

static _Noreturn void unexpected(const struct trap *t)
{
    put_text("suite: ended in ");
    put_text(test_name());
    put_text(": nobody expected vector ");
    put_hex(t->vector);
    put_text(" error ");
    put_hex(t->error);
    put_text(" rip ");
    put_hex(t->rip);
    put_text(" cr2 ");
    put_hex(t->cr2);
    put_text(" cpu ");
    put_number(cpu_number());
    put_text("\n");
    power_off();
}

/* `frame` is only as long as the CPU and the entry made it. */
void trap_dispatch(struct trap *frame)
{
    struct cpu *c = &cpus[cpu_number()];
    struct trap t;

    memcpy(&t, frame, offsetof(struct trap, cr2));
    t.cr2 = read_cr2();
    t.dr6 = read_dr6();
    t.frame = (uint64_t)&frame->error;
    if (handlers[t.vector] && handlers[t.vector](&t)) {
        memcpy(frame, &t, offsetof(struct trap, cr2));
        return;
    }
    if (!c->armed)
        unexpected(&t);
    *c->armed = t;
    c->armed = NULL;
    probe_leave(c->back);
}

/* ---- probes ------------------------------------------------------------------------------------
 */

struct trap probe_run(const struct probe *p)
{
    struct cpu *c = &cpus[cpu_number()];
    struct trap t = {.vector = NO_TRAP};
    struct probe_result r;

    c->armed = &t;
    r = probe_enter(&c->back, p);
    c->armed = NULL;
    if (r.returned)
        t.rax = r.value;
    return t;
}

struct trap probe(const void *code, uint64_t a, uint64_t b)
{
    const struct probe p = {.code = (uint64_t)code, .a = a, .b = b};

    return probe_run(&p);
}

struct probe probe_user_setup(const void *code, uint64_t a, uint64_t b)
{
    return (struct probe){
        .code = user_address(code),
        .cs = SEL_USER,
        .ss = SEL_USER_DATA,
        .a = a,
        .b = b,
        .rsp = user_address(cpus[cpu_number()].user_stack) + IST_STACK - 64,
        .rflags = RFLAGS_FIXED,
    };
}

struct trap probe_user(const void *code, uint64_t a, uint64_t b)
{
    const struct probe p = probe_user_setup(code, a, b);

    return probe_run(&p);
}

void check_trap(const struct trap *t, unsigned vector, uint64_t error)
{
    check("vector", vector, t->vector);
    check("error code", error, t->error);
}

void check_trap_at(const struct trap *t, unsigned vector, uint64_t error, const void *code)
{
    check_trap(t, vector, error);
    check("rip", (t->cs & 3) == 3 ? user_address(code) : (uint64_t)code, t->rip);
}

void check_page_fault(const struct trap *t, uint64_t error, uint64_t address)
{
    check_trap(t, VECTOR_PF, error);
    check("cr2", address, t->cr2);
}

void check_no_trap(const struct trap *t)
{
    check("vector", NO_TRAP, t->vector);
}

void check_left(const struct trap *t)
{
    check("vector", VECTOR_LEAVE, t->vector);
}

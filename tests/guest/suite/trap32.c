/* trap32.c - descriptor tables, traps, probes (cpu32.h). */
#include "cpu32.h"

extern const char trap_entries[];
uint64_t probe_enter(uint32_t *back, const struct probe *p);
_Noreturn void probe_leave(uint32_t esp);
void trap_dispatch(struct trap *frame);

enum { ENTRY_SIZE = 16, STACK = 4096 };

struct pointer {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

struct tss main_tss __attribute__((aligned(4096)));
static uint64_t gdt[GDT_SIZE / 8] __attribute__((aligned(16)));
static uint64_t idt[256] __attribute__((aligned(16)));
static trap_handler *handlers[256];
static uint8_t entry_stack[STACK] __attribute__((aligned(16))),
    user_stack[STACK] __attribute__((aligned(16)));
static uint32_t back;
static struct trap *armed;

/* ---- descriptor tables -------------------------------------------------------------------------
 */

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attributes)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attributes << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

uint64_t call_gate(uint16_t selector, uint32_t offset, unsigned parameters, unsigned attributes)
{
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)parameters << 32 |
           (uint64_t)attributes << 40 | (uint64_t)(offset >> 16) << 48;
}

void gdt_set(unsigned selector, uint64_t d)
{
    gdt[selector / 8] = d;
}

uint64_t gdt_get(unsigned selector)
{
    return gdt[selector / 8];
}

void gate_set(unsigned vector, uint32_t target, uint16_t selector, unsigned type, unsigned dpl)
{
    idt[vector] = (target & 0xffff) | (uint64_t)selector << 16 |
                  (uint64_t)(0x80 | type | dpl << 5) << 40 | (uint64_t)(target >> 16) << 48;
}

void gate_absent(unsigned vector)
{
    idt[vector] &= ~(1ull << 47);
}

void trap_handle(unsigned vector, trap_handler *handler)
{
    handlers[vector] = handler;
}

uint16_t read_tr(void)
{
    uint16_t tr;

    asm volatile("str %0" : "=r"(tr));
    return tr;
}

static void tables_fill(void)
{
    const unsigned flat = DESC_P | DESC_32 | DESC_4K;

    memset(gdt, 0, sizeof(gdt));
    gdt_set(SEL_CODE, descriptor(0, 0xfffff, flat | DESC_CODE));
    gdt_set(SEL_DATA, descriptor(0, 0xfffff, flat | DESC_DATA));
    gdt_set(SEL_USER, descriptor(0, 0xfffff, flat | DESC_CODE | DESC_DPL3));
    gdt_set(SEL_USER_DATA, descriptor(0, 0xfffff, flat | DESC_DATA | DESC_DPL3));
    gdt_set(SEL_TSS, descriptor((uint32_t)&main_tss, TSS_SIZE - 1, DESC_P | DESC_TSS));
    memset(&main_tss, 0, sizeof(main_tss));
    main_tss.ss0 = SEL_DATA;
    main_tss.esp0 = (uint32_t)entry_stack + STACK;
    main_tss.io_map = sizeof(main_tss);
    for (unsigned v = 0; v < 256; v++)
        gate_set(v, (uint32_t)trap_entries + v * ENTRY_SIZE, SEL_CODE, GATE_INTERRUPT,
                 v == VECTOR_LEAVE || v == VECTOR_BP || v == VECTOR_OF || v == VECTOR_BR ? 3 : 0);
    memset(handlers, 0, sizeof(handlers));
}

static void tables_load(void)
{
    const struct pointer g = {sizeof(gdt) - 1, (uint32_t)gdt}, i = {sizeof(idt) - 1, (uint32_t)idt};

    asm volatile("lgdt %0; lidt %1" : : "m"(g), "m"(i));
    asm volatile("ljmp %0, $1f; 1:" : : "i"(SEL_CODE) : "memory");
    asm volatile("mov %0, %%ss; mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs; lldt %w1"
                 :
                 : "r"(SEL_DATA), "r"(0));
    asm volatile("ltr %0" : : "r"((uint16_t)SEL_TSS));
}

void cpu_reset(void)
{
    asm volatile("cli");
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    write_cr0(CR0_PE | CR0_NE | 1 << 4 | CR0_WP);
    write_cr4(0);
    write_cr3(0);
    tables_fill();
    tables_load();
    asm volatile("pushl $2; popfl" : : : "cc");
    armed = NULL;
}

/* ---- traps -------------------------------------------------------------------------------------
 */

static _Noreturn void unexpected(const struct trap *t)
{
    put_text("suite: ended in ");
    put_text(test_name());
    put_text(": nobody expected vector ");
    put_hex(t->vector);
    put_text(" error ");
    put_hex(t->error);
    put_text(" cs:eip ");
    put_hex(t->cs);
    put_text(":");
    put_hex(t->eip);
    put_text(" cr2 ");
    put_hex(t->cr2);
    put_text("\n");
    power_off();
}

/* How much of a trap the CPU pushed. */
static unsigned frame_size(const struct trap *frame)
{
    if (frame->eflags & RFLAGS_VM)
        return offsetof(struct trap, cr2);
    return frame->cs & 3 ? offsetof(struct trap, v86_es) : offsetof(struct trap, esp);
}

void trap_dispatch(struct trap *frame)
{
    const unsigned size = frame_size(frame);
    struct trap t = {0};

    memcpy(&t, frame, size);
    t.cr2 = read_cr2();
    t.dr6 = read_dr6();
    t.tr = read_tr();
    t.frame = (uint32_t)&frame->error;
    if (handlers[t.vector] && handlers[t.vector](&t)) {
        memcpy(frame, &t, size);
        return;
    }
    if (!armed)
        unexpected(&t);
    *armed = t;
    armed = NULL;
    probe_leave(back);
}

/* ---- probes ------------------------------------------------------------------------------------
 */

struct trap probe_run(const struct probe *p)
{
    struct trap t = {.vector = NO_TRAP};
    uint64_t r;

    armed = &t;
    r = probe_enter(&back, p);
    armed = NULL;
    if ((uint32_t)r)
        t.eax = (uint32_t)(r >> 32);
    return t;
}

struct trap probe(const void *code, uint32_t a, uint32_t b)
{
    const struct probe p = {.code = (uint32_t)code, .a = a, .b = b};

    return probe_run(&p);
}

struct probe probe_user_setup(const void *code, uint32_t a, uint32_t b)
{
    return (struct probe){
        .code = (uint32_t)code,
        .cs = SEL_USER,
        .a = a,
        .b = b,
        .esp = (uint32_t)user_stack + STACK - 64,
        .eflags = RFLAGS_FIXED,
        .ss = SEL_USER_DATA,
    };
}

struct trap probe_user(const void *code, uint32_t a, uint32_t b)
{
    const struct probe p = probe_user_setup(code, a, b);

    return probe_run(&p);
}

void check_trap(const struct trap *t, unsigned vector, uint32_t error)
{
    check("vector", vector, t->vector);
    check("error code", error, t->error);
}

void check_trap_at(const struct trap *t, unsigned vector, uint32_t error, const void *code)
{
    check_trap(t, vector, error);
    check("eip", (uint32_t)code, t->eip);
}

void check_no_trap(const struct trap *t)
{
    check("vector", NO_TRAP, t->vector);
}

void check_left(const struct trap *t)
{
    check("vector", VECTOR_LEAVE, t->vector);
}

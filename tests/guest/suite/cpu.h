/*
 * cpu.h - what a 64-bit test drives the CPU with: descriptor tables, traps, probes, page tables,
 * other CPUs.
 *
 * A probe is a piece of code that may trap. It runs in ring 0 by a call, or elsewhere by IRET, and
 * comes back with the trap that ended it; one that returns has no trap and the value of RAX. Code
 * in ring 3 runs at an alias of its address (user_address) and ends itself with INT 0x80.
 * Exceptions come on stack 1 of the interrupt stack table, so that a probe may break RSP. Before
 * each test everything here is put back (cpu_reset).
 */
#ifndef SUITE_CPU_H
#define SUITE_CPU_H

#include "cpu/x86.h"
#include "suite.h"

/* Vectors of the suite's own. */
enum {
    VECTOR_LEAVE = 0x80, /* INT from ring 3: the end of a probe */
    VECTOR_WAKE = 0xf0,  /* IPI that a waiting CPU waits for */
    VECTOR_SPURIOUS = 0xff,
    NO_TRAP = 0x100,
};
#define MSR_EFER 0xc0000080u

/* Selectors. SYSCALL and SYSRET want this order of user segments (SDM vol 3 §5.8.8). */
enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE32 = 0x18,
    SEL_USER32 = 0x23,
    SEL_USER_DATA = 0x2b,
    SEL_USER = 0x33,
    SEL_FREE = 0x38 /* eight descriptors for tests */,
    SEL_TSS = 0x80,
};

enum { CPUS_MAX = 64, CPU_STACK = 16384 };

/* ---- trap.c: descriptor tables, traps and probes ---- */

struct trap {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss; /* as pushed */
    uint64_t cr2, dr6, frame;                         /* frame: RSP after the CPU's pushes */
};

struct probe {
    uint64_t code;
    uint32_t cs, ss; /* cs 0: call in ring 0 */
    uint64_t a, b;   /* RDI, RSI */
    uint64_t rsp, rflags;
};

struct trap probe(const void *code, uint64_t a, uint64_t b);
struct trap probe_user(const void *code, uint64_t a, uint64_t b);
struct trap probe_run(const struct probe *p);
/* A ring-3 probe, for those who want to change it before it runs. */
struct probe probe_user_setup(const void *code, uint64_t a, uint64_t b);

void check_trap(const struct trap *t, unsigned vector, uint64_t error);
/* Also that the instruction at `code` is the one that faulted. */
void check_trap_at(const struct trap *t, unsigned vector, uint64_t error, const void *code);
void check_page_fault(const struct trap *t, uint64_t error, uint64_t address);
void check_no_trap(const struct trap *t);
/* That a ring-3 probe came to its INT 0x80. */
void check_left(const struct trap *t);

/* Sees traps of its vector first; true: the interrupted code goes on with what *t says now. */
typedef bool trap_handler(struct trap *t);
void trap_handle(unsigned vector, trap_handler *handler);

struct gate {
    uint64_t target;
    uint16_t selector;
    uint8_t ist, type, dpl;
    bool absent;
};
enum { GATE_INTERRUPT = 14, GATE_TRAP = 15 };
void gate_set(unsigned vector, struct gate gate);
/* The usual gate of a vector, to be varied. */
struct gate gate_usual(unsigned vector);

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3], reserved1, ist[7], reserved2;
    uint16_t reserved3, io_map;
    uint8_t io[8193]; /* 65536 ports and the byte behind */
} __attribute__((packed));
enum { TSS_IO_MAP = 104 };
struct tss *cpu_tss(void);
/* The bytes that the TSS may have (its descriptor's limit + 1). */
void tss_set_size(unsigned bytes);
void gdt_set(unsigned selector, uint64_t low);
uint64_t gdt_get(unsigned selector);
uint64_t ist_top(unsigned ist);

unsigned cpu_number(void);
void cpu_reset(void);
void cpu_start(unsigned number); /* descriptor tables of this CPU */

#define USER_BASE 0x10000000000ull
static inline uint64_t user_address(const volatile void *p)
{
    return USER_BASE + (uint64_t)p;
}

/* Code as text, a symbol at its first instruction. */
#define CODE(name, text)                                                                           \
    extern const char name[];                                                                      \
    asm(".pushsection .text.probe, \"ax\"\n" #name ":\n" text "\n.popsection")

/* ---- registers ---- */

#define REGISTER(name, type)                                                                       \
    static inline type read_##name(void)                                                           \
    {                                                                                              \
        type v;                                                                                    \
        asm volatile("mov %%" #name ", %0" : "=r"(v) : : "memory");                                \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_##name(type v)                                                        \
    {                                                                                              \
        asm volatile("mov %0, %%" #name : : "r"(v) : "memory");                                    \
    }
REGISTER(cr0, uint64_t)
REGISTER(cr2, uint64_t)
REGISTER(cr3, uint64_t)
REGISTER(cr4, uint64_t)
REGISTER(cr8, uint64_t)
REGISTER(dr0, uint64_t)
REGISTER(dr1, uint64_t)
REGISTER(dr2, uint64_t)
REGISTER(dr3, uint64_t)
REGISTER(dr6, uint64_t)
REGISTER(dr7, uint64_t)
#undef REGISTER

static inline uint64_t read_flags(void)
{
    uint64_t v;

    asm volatile("pushfq; pop %0" : "=r"(v));
    return v;
}
static inline void interrupts_on(void)
{
    asm volatile("sti" : : : "memory");
}
static inline void interrupts_off(void)
{
    asm volatile("cli" : : : "memory");
}
static inline void invlpg(uint64_t va)
{
    asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

/* ---- page.c: page tables ---- */

#define TEST_BASE 0x8000000000ull /* linear addresses for tests: 512 GiB, empty at first */

void page_start(void);
void page_reset(void);
/* A physical page of zeros, where ring 0 sees it at its own address. They live until the test's
 * end. */
uint64_t page_new(void);
uint64_t page_new_aligned(uint64_t size);
/* The entry of a linear address in the table of a level (1: of 4 KiB pages); tables above it are
 * made, open to all. */
uint64_t *page_entry(uint64_t va, unsigned level);
/* Writes it and flushes the address. */
void page_map(uint64_t va, uint64_t pa, uint64_t flags);
void page_map_level(uint64_t va, unsigned level, uint64_t entry);
/* Another set of tables that begins as a copy of the present one's top. */
uint64_t page_new_root(void);
uint64_t *page_entry_in(uint64_t root, uint64_t va, unsigned level);
void tlb_flush_all(void); /* global ones, too */

/* ---- smp.c: other CPUs, local APIC ---- */

unsigned cpus_started(void);
void smp_start(unsigned limit);
/* Has CPU n call fn(argument); returns at once. */
void cpu_call(unsigned n, void (*fn)(void *), void *argument);
void cpu_wait(unsigned n);
uint32_t apic_id(unsigned n);
void apic_enable(void);
void apic_write(unsigned reg, uint64_t v);
uint64_t apic_read(unsigned reg);
void apic_ipi(uint32_t id, uint32_t command);
void apic_eoi(void);
bool apic_is_pending(unsigned vector);
/* An interrupt from this CPU to itself that waits for IF. */
void apic_make_pending(unsigned vector);
/* That an interrupt ended the probe, and where; acknowledges it. */
void check_interrupt_at(const struct trap *t, unsigned vector, const char *code, uint64_t offset);
enum {
    APIC_ID = 0x802,
    APIC_TPR = 0x808,
    APIC_PPR = 0x80a,
    APIC_EOI = 0x80b,
    APIC_SVR = 0x80f,
    APIC_ISR = 0x810,
    APIC_IRR = 0x820,
    APIC_ICR = 0x830,
    APIC_LVT_TIMER = 0x832,
    APIC_TIMER_COUNT = 0x838,
    APIC_TIMER_NOW = 0x839,
    APIC_TIMER_DIVIDE = 0x83e,
    APIC_SELF_IPI = 0x83f,
};
enum {
    IPI_FIXED = 0,
    IPI_NMI = 4 << 8,
    IPI_INIT = 5 << 8,
    IPI_STARTUP = 6 << 8,
    IPI_ASSERT = 1 << 14
};

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}
/* Waits until *flag is `value`; false when that takes more than `seconds` of the TSC. */
bool wait_for(const volatile uint32_t *flag, uint32_t value);

#endif

/*
 * cpu32.h - what a 32-bit test drives the CPU with (cpu.h, for protected mode without paging):
 * descriptor tables, traps, probes in ring 0, ring 3 and virtual-8086 mode.
 */
#ifndef SUITE_CPU32_H
#define SUITE_CPU32_H

#include "cpu/x86.h"
#include "suite.h"

/* Vectors of the suite's own. */
enum {
    VECTOR_LEAVE = 0x80, /* INT from ring 3: the end of a probe */
    NO_TRAP = 0x100,
};

enum {
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_USER = 0x1b,
    SEL_USER_DATA = 0x23,
    SEL_TSS = 0x28,
    SEL_FREE = 0x30, /* sixteen descriptors for tests */
    GDT_SIZE = SEL_FREE + 16 * 8,
};

/* Bits of a descriptor's access byte and flags, as they lie from bit 40 on. */
enum {
    DESC_P = 0x80,
    DESC_DPL3 = 0x60,
    DESC_CODE = 0x1a,
    DESC_CONFORMING = 0x1e,
    DESC_DATA = 0x12,
    DESC_READ_ONLY = 0x10,
    DESC_EXPAND_DOWN = 0x16,
    DESC_TSS = 0x09,
    DESC_BUSY = 0x02,
    DESC_LDT = 0x02,
    DESC_CALL_GATE = 0x0c,
    DESC_TASK_GATE = 0x05,
    DESC_32 = 0x4000,
    DESC_4K = 0x8000,
};
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attributes);
uint64_t call_gate(uint16_t selector, uint32_t offset, unsigned parameters, unsigned attributes);
void gdt_set(unsigned selector, uint64_t d);
uint64_t gdt_get(unsigned selector);

/* ---- traps and probes ---- */

struct trap {
    uint32_t edi, esi, ebp, esp_of_pusha, ebx, edx, ecx, eax, gs, fs, es, ds;
    uint32_t vector, error, eip, cs, eflags;
    uint32_t esp, ss;                        /* only when the ring changed */
    uint32_t v86_es, v86_ds, v86_fs, v86_gs; /* only from virtual-8086 mode */
    uint32_t cr2, dr6, tr, frame;            /* frame: ESP after the CPU's pushes */
};

struct probe {
    uint32_t code, cs; /* cs 0: call in ring 0 */
    uint32_t a, b;     /* EDI, ESI */
    uint32_t esp, eflags, ss, es, ds, fs, gs;
};

struct trap probe(const void *code, uint32_t a, uint32_t b);
struct trap probe_user(const void *code, uint32_t a, uint32_t b);
struct trap probe_run(const struct probe *p);
struct probe probe_user_setup(const void *code, uint32_t a, uint32_t b);

void check_trap(const struct trap *t, unsigned vector, uint32_t error);
void check_trap_at(const struct trap *t, unsigned vector, uint32_t error, const void *code);
void check_no_trap(const struct trap *t);
void check_left(const struct trap *t);

typedef bool trap_handler(struct trap *t);
void trap_handle(unsigned vector, trap_handler *handler);
enum { GATE_INTERRUPT = 14, GATE_TRAP = 15, GATE_TASK = 5 };
void gate_set(unsigned vector, uint32_t target, uint16_t selector, unsigned type, unsigned dpl);
void gate_absent(unsigned vector);

struct tss {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map;
    uint8_t io[128];
};
enum { TSS_SIZE = 104 };
extern struct tss main_tss;

void cpu_reset(void);
uint16_t read_tr(void);

/* Memory below 1 MiB that 16-bit code may use; a linear address below 64 KiB. */
enum { LOW_CODE = 0xb000, LOW_STACK = 0xd000, LOW_DATA = 0xe000 };

#define CODE(name, text)                                                                           \
    extern const char name[];                                                                      \
    asm(".pushsection .text.probe, \"ax\"\n" #name ":\n" text "\n.popsection")

#define REGISTER(name)                                                                             \
    static inline uint32_t read_##name(void)                                                       \
    {                                                                                              \
        uint32_t v;                                                                                \
        asm volatile("mov %%" #name ", %0" : "=r"(v) : : "memory");                                \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_##name(uint32_t v)                                                    \
    {                                                                                              \
        asm volatile("mov %0, %%" #name : : "r"(v) : "memory");                                    \
    }
REGISTER(cr0)
REGISTER(cr2)
REGISTER(cr3)
REGISTER(cr4)
REGISTER(dr6)
REGISTER(dr7)
#undef REGISTER

#endif

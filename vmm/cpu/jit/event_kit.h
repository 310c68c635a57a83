/* event_kit.h - what tests of events, transfers, tasks and segments share: a machine with
 * descriptor tables, handlers and stacks at known places. */
#ifndef JIT_EVENT_KIT_H
#define JIT_EVENT_KIT_H

#include "cpu/jit/segment.h"
#include "cpu/jit/system_fake.h"

enum { GDT = 0x1000, IDT = 0x2000, LDT = 0x3000, TSS = 0x4000, TSS_B = 0x5000, TSS_16 = 0x6000 };
enum { CODE = 0x10000, HANDLER = 0x11000, STACK0 = 0x20000, STACK_IST = 0x22000, STACK3 = 0x30000 };

/* Selectors. */
enum {
    K_CODE = 0x08,
    K_DATA = 0x10,
    U_CODE = 0x18 | 3,
    U_DATA = 0x20 | 3,
    U_CODE64 = 0x28 | 3,
    CONFORMING = 0x30,
    NOT_PRESENT = 0x38,
    EXECUTE_ONLY = 0x40,
    K_CODE16 = 0x48,
    K_DATA16 = 0x50,
    TSS_SEL = 0x58, /* sixteen bytes in IA-32e mode */
    GATE = 0x68,    /* likewise */
    TSS_B_SEL = 0x78,
    TSS_16_SEL = 0x80,
    TASK_GATE_SEL = 0x88,
    U_CODE16 = 0x90 | 3,
    U_DATA16 = 0x98 | 3,
    GDT_LIMIT = 0x9f,
};

/* Descriptors: of 4 GiB from 0, and of any base and limit in bytes. */
uint64_t flat(unsigned type, unsigned dpl, uint64_t flags);
uint64_t small(uint64_t base, uint64_t limit, unsigned type, unsigned dpl);
/* A descriptor into the GDT. */
void put(struct fake *f, unsigned selector, uint64_t raw);

/* `wide`: 64-bit code in ring 0 and 64-bit gates; else 32-bit. */
struct fake *machine(bool wide);
/* Ring 3, with code of that selector. */
void to_user(struct fake *f, uint16_t cs);
void gate64(struct fake *f, unsigned vector, unsigned type, unsigned dpl, unsigned ist);
void gate32(struct fake *f, unsigned vector, unsigned type, unsigned dpl, uint16_t selector);

/* These give the vector that was raised, as fake_try() does. */
int interrupt(struct fake *f, uint8_t vector, enum event_source source);
int execute(struct fake *f, struct insn i);
int far_to(struct fake *f, unsigned op, uint16_t selector, uint64_t offset);
/* An exception that waits for its delivery. */
void raise_pending(struct fake *f, uint8_t vector, bool has_code, uint32_t code);

#define assert_raised(f, got, want_vector, want_code)                                              \
    do {                                                                                           \
        assert_int_equal(got, want_vector);                                                        \
        assert_true((f)->cpu.exception.has_code);                                                  \
        assert_int_equal((f)->cpu.exception.code, want_code);                                      \
    } while (0)

#endif

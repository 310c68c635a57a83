/*
 * segment.h - descriptors: reading them from the tables, checking them, and the stacks that a
 * change of privilege switches to. What event.c, iret.c, far.c and task.c are built of.
 *
 * SDM vol 3 §3.4.5 (layout of descriptors), §5.5 to §5.8 (privilege).
 */
#ifndef VMM_JIT_SEGMENT_H
#define VMM_JIT_SEGMENT_H

#include "cpu/jit/mmu.h"

/* Types of system descriptors (SDM vol 3 table 3-2). */
enum {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_TSS16_BUSY = 3,
    TYPE_CALL16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT16 = 6,
    TYPE_TRAP16 = 7,
    TYPE_TSS = 9, /* 32-bit, or 64-bit in IA-32e mode; so are those below */
    TYPE_TSS_BUSY = 11,
    TYPE_CALL = 12,
    TYPE_INTERRUPT = 14,
    TYPE_TRAP = 15,
    TYPE_BUSY = 2, /* the bit that tells a busy TSS */
};

/* Bits of the type of code and data segments (SDM vol 3 table 3-1). */
enum { TYPE_ACCESSED = 1, TYPE_READ_WRITE = 2, TYPE_CONFORMING = 4, TYPE_CODE = 8 };

struct descriptor {
    uint64_t raw;     /* the first eight bytes */
    uint64_t address; /* linear, where it lies */
    uint16_t selector;
};

static inline bool is_null(uint16_t selector)
{
    return !(selector & 0xfffc);
}
static inline bool is_protected(const struct jit_cpu *cpu)
{
    return (cpu->cr0 & CR0_PE) && !(cpu->rflags & RFLAGS_VM);
}
static inline bool is_ia32e(const struct jit_cpu *cpu)
{
    return cpu->efer & EFER_LMA;
}
static inline bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

static inline unsigned descriptor_type(const struct descriptor *d)
{
    return d->raw >> 40 & SEG_TYPE_MASK;
}
static inline unsigned descriptor_dpl(const struct descriptor *d)
{
    return d->raw >> 45 & 3;
}
static inline bool descriptor_is_present(const struct descriptor *d)
{
    return d->raw >> 47 & 1;
}
static inline bool descriptor_is_system(const struct descriptor *d)
{
    return !(d->raw >> 44 & 1);
}
static inline bool descriptor_is_code(const struct descriptor *d)
{
    return (d->raw >> 43 & 3) == 3; /* S and the type's code bit */
}
static inline bool descriptor_is_conforming(const struct descriptor *d)
{
    return d->raw >> 42 & 1;
}
static inline bool descriptor_is_writable_data(const struct descriptor *d)
{
    return (d->raw >> 41 & 0xd) == 0x9; /* S, not code, writable */
}
static inline bool descriptor_is_long(const struct descriptor *d)
{
    return d->raw >> 53 & 1;
}
static inline bool descriptor_is_big(const struct descriptor *d)
{
    return d->raw >> 54 & 1;
}

/* Raises `vector` with the selector's index and table as its code; ext: 1 where the fault happened
 * while an event from outside was delivered. */
_Noreturn void segment_fault(struct jit_cpu *cpu, uint8_t vector, uint16_t selector, unsigned ext);

/* False: the selector, which is not null, is beyond the limit of its table. */
bool descriptor_find(struct jit_cpu *cpu, uint16_t selector, struct descriptor *d);
/* The same, raising `vector` instead. */
struct descriptor descriptor_get(struct jit_cpu *cpu, uint16_t selector, uint8_t vector,
                                 unsigned ext);
/* Second half of a 16-byte descriptor in IA-32e mode; false: beyond the limit. */
bool descriptor_upper(struct jit_cpu *cpu, const struct descriptor *d, uint64_t *upper);

/* The hidden part as this descriptor fills it. */
struct segment descriptor_segment(const struct descriptor *d);
/* Sets the accessed bit in the table where it is not yet. */
void descriptor_set_accessed(struct jit_cpu *cpu, const struct descriptor *d);

/* A null selector's segment. `cpl` stays in the attributes, where SS keeps the CPL. */
struct segment segment_null(uint16_t selector, unsigned cpl);
/* Real and virtual-8086 mode. */
struct segment segment_real(const struct jit_cpu *cpu, const struct segment *old,
                            uint16_t selector);
struct segment segment_v86(uint16_t selector);

/*
 * A stack for ring `cpl`, checked as a control transfer between rings does: `vector` for most
 * faults (#TS entering an inner ring, #GP returning to an outer one), #SS where it is not present.
 */
struct segment segment_for_stack(struct jit_cpu *cpu, uint16_t selector, unsigned cpl,
                                 uint8_t vector, unsigned ext);

/* The code segment that IRET and RET go back to, its ring being the selector's RPL; #GP or #NP. */
struct descriptor segment_for_return(struct jit_cpu *cpu, uint16_t selector);
/* The stack that they find there; `to_long`: for 64-bit code. */
struct segment stack_for_return(struct jit_cpu *cpu, uint16_t selector, unsigned rpl, bool to_long);

/* After a return to an outer ring: segments that ring may not use become null (SDM vol 3 §5.8.6).
 */
void segments_leave_ring(struct jit_cpu *cpu);

/* --- A stack that is not, or not yet, the current one ---------------------------------------- */

struct stack {
    struct segment ss;
    uint64_t sp;
    uint8_t size; /* of the pointer: 2, 4 or 8 */
    uint8_t cpl;
    unsigned set;   /* TLB_*: with whose rights it is accessed */
    uint32_t fault; /* code of #SS where it is too small */
};

/* The current stack. */
struct stack stack_current(const struct jit_cpu *cpu);
/* Of a ring that is entered, with this segment. */
struct stack stack_of(const struct jit_cpu *cpu, struct segment ss, uint64_t sp, unsigned size,
                      unsigned cpl);
void stack_write(struct jit_cpu *cpu, struct stack *s, unsigned size, uint64_t value);
uint64_t stack_read(struct jit_cpu *cpu, struct stack *s, unsigned size);
/* Makes it the current one; jit_mode_changed() is the caller's. */
void stack_commit(struct jit_cpu *cpu, const struct stack *s);

/* The stack pointer, and the selector of its segment, that the TSS has for a ring; #TS(TSS) where
 * they are beyond its limit. In IA-32e mode the selector is null. `ist`: 1 to 7, or 0. */
struct tss_stack {
    uint64_t sp;
    uint16_t ss;
};
struct tss_stack tss_stack(struct jit_cpu *cpu, unsigned cpl, unsigned ist, unsigned ext);

/* --- Far transfers (far.c), for the instructions and for task switches ----------------------- */

/* Raises #GP(0) where an instruction pointer is beyond CS, or not canonical. */
void check_target(struct jit_cpu *cpu, const struct segment *cs, uint64_t rip, unsigned ext);

void far_jump(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size);
void far_call(struct jit_cpu *cpu, uint16_t selector, uint64_t offset, unsigned size);
void far_return(struct jit_cpu *cpu, unsigned size, unsigned drop);
void interrupt_return(struct jit_cpu *cpu, unsigned size); /* iret.c */

#endif

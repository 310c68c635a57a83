/*
 * cpu.h - one virtual CPU of the software CPU, and the machine it belongs to.
 *
 * Theory of operation. jit_run() alternates between delivering events and executing blocks.
 * Anything that goes wrong inside an instruction ends in jit_raise(), which never returns: it
 * abandons the instruction and the run loop delivers the exception. For that to be exact, an
 * instruction writes architectural state only after its last access that may fault; cpu->rip stays
 * at its first byte until it is complete.
 *
 * All of it belongs to the vCPU's thread, except `attention`, which anybody may set.
 */
#ifndef VMM_JIT_CPU_H
#define VMM_JIT_CPU_H

#include "cpu/accel.h"
#include "cpu/jit/insn.h"
#include "cpu/jit/tlb.h"
#include "cpu/x86.h"

/* Why a running vCPU has to look up between blocks. */
enum {
    ATTENTION_KICK = 1 << 0,      /* return EXIT_KICKED */
    ATTENTION_FLUSH = 1 << 1,     /* the physical map changed: drop every cached translation */
    ATTENTION_INTERRUPT = 1 << 2, /* .interrupt_vector is to be delivered (set by inject) */
    ATTENTION_WINDOW = 1 << 3,    /* return EXIT_IRQ_WINDOW as soon as can_inject */
    ATTENTION_NMI = 1 << 4,
    ATTENTION_TRACE =
        1 << 5, /* TF, a shadow, or armed debug registers: one instruction at a time */
    ATTENTION_EXCLUSIVE = 1 << 6, /* another vCPU wants to be alone (jit_exclusive_begin) */
    ATTENTION_BLOCKS = 1 << 7,    /* blocks were invalidated: forget pointers to them */
    ATTENTION_DEBUG = 1 << 8,     /* a watchpoint of the debugger was met */
};

/* The state of x87, MMX, SSE in the layout of FXSAVE64 (SDM vol 1 table 10-2), which the host loads
 * and stores. */
struct jit_fpu {
    uint16_t fcw, fsw;
    uint8_t ftw_abridged, reserved0;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; /* st[0] is ST(0), the top */
    uint8_t xmm[16][16];
    uint8_t reserved1[96];
} __attribute__((aligned(64)));

struct jit_link;
struct translator;

/* Linear address to translated code: generated code looks here before it leaves. */
enum { JIT_JUMP_BITS = 13, JIT_JUMPS = 1 << JIT_JUMP_BITS, JIT_JUMP_PAGES = 4096 };
struct jit_jump {
    uint64_t tag; /* address ^ jump_key */
    const uint8_t *code;
};

/* What a debugger outside the guest asked for (guest_debug.h). */
struct jit_guest_debug {
    const struct accel_point *point;
    unsigned points;
    bool step;
    bool executes;                 /* step, or some of them are breakpoints */
    bool watches;                  /* some of them are watchpoints */
    uint64_t pages;                /* that have breakpoints, hashed */
    bool stepped;                  /* the step is done */
    const struct accel_point *met; /* a watchpoint, by the instruction that is just complete */
};

/* An instruction and the 15 bytes it was decoded from: the first eight (0: nothing here) and the
 * last eight. */
enum { JIT_DECODED_BITS = 6, JIT_DECODED = 1 << JIT_DECODED_BITS };
struct jit_decoded {
    uint64_t first, last, features;
    unsigned width;
    struct insn insn;
};

struct jit_vm;
struct jit_msrs; /* msr.h */

struct jit_cpu {
    /* Hot, addressed by generated code; the order is the translator's. */
    uint64_t gpr[GPR_COUNT];
    uint64_t rip;       /* of the instruction being executed */
    uint64_t next_rip;  /* of the one after it: branches write it */
    uint64_t rflags;    /* all of RFLAGS, bit 1 set */
    unsigned attention; /* atomic, ATTENTION_* */
    uint8_t cpl;
    uint8_t code_width; /* enum code_width: from CS and EFER.LMA */
    uint8_t stack_size; /* bytes of the stack pointer: 2, 4 or 8 */
    bool long_mode;     /* EFER.LMA and CS.L: 64-bit code */
    struct segment seg[SEG_COUNT];
    struct jit_tlb tlb;

    /* Translated code (translate.h). */
    struct jit_cpu *self;
    uint16_t host_flags; /* the arithmetic flags where they are not in the host's own: what LAHF
                            gives, with OF in bit 0 below it */
    uint64_t code_base;  /* linear address of the page that is executed */
    uint64_t scratch;
    int32_t budget;  /* counted.h: instructions until the slice ends */
    int32_t ahead;   /* of those taken from the budget, the ones that are not complete */
    bool fpu_loaded; /* xmm and MXCSR are in the host's registers, not in .fpu */
    bool x87_loaded; /* and the x87 registers; never without the others */
    bool gs_set;     /* this thread's gs: is this structure */
    uint32_t host_mxcsr;
    struct jit_link *exit_link;
    uint8_t jump_generation[2]; /* of user and supervisor mode */
    bool jump_local; /* the jump cache has supervisor code that a change of address space takes away
                      */
    bool interpret;  /* translated code could not run this block */
    bool vectors_native; /* xmm registers may be the host's now */
    bool x87_native;     /* x87 registers may be */
    uint64_t jump_key;   /* mixed into the tags, so that a new key empties the jump cache */
    uint64_t jump_pages[JIT_JUMP_PAGES / 64]; /* pages that the cache may know, hashed */
    struct jit_jump jump[JIT_JUMPS];

    /* Registers that only instructions of their own touch. */
    struct segment ldt, tr;
    struct descriptor_table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t apic_base;
    uint64_t pdpte[4]; /* PAE paging: loaded with CR3 (SDM vol 3 §4.4.1) */
    struct jit_fpu fpu;
    struct jit_msrs *msrs;
    uint64_t features;     /* CPU_FEATURE bits of the guest's CPUID */
    uint8_t physical_bits; /* of the guest's CPUID */
    bool huge_pages;       /* 1 GiB pages are there */

    /* Events (event.c). */
    struct {
        bool pending; /* an exception raised and not yet delivered */
        uint8_t vector;
        bool has_code;
        uint32_t code;
        uint64_t address; /* CR2 for #PF */
        uint64_t dr6;     /* bits to set for #DB */
    } exception;
    uint8_t interrupt_vector;
    uint8_t shadow;     /* bit 0: MOV SS, bit 1: STI: no interrupt before the next instruction is
                           complete */
    uint8_t watch_hits; /* data breakpoints that the instruction met: bits of DR6 */
    bool nmi_masked;
    bool halted;
    bool shutdown;
    bool a_fault_interrupts; /* delivering an event now: a fault is a contributory one (double fault
                                logic) */
    uint8_t delivering;      /* the vector of that event, while a_fault_interrupts */

    struct jit_guest_debug debug;

    void *unwind[5];        /* __builtin_setjmp buffer of the run loop */
    struct vcpu_exit *exit; /* of the run() in progress */
    bool running;           /* executes guest code; world.c's lock */
    bool alone;             /* between jit_exclusive_begin and _end */
    bool leaving;           /* jit_leave() unwinds, not an exception */
    struct cpuid_table cpuid;
    uint64_t tsc_offset;
    uint64_t instructions;     /* executed; counted.h: before this slice */
    bool unfinished;           /* a repeated instruction left in its middle: it does not count */
    int32_t slice;             /* counted.h: instructions that this slice may have */
    uint64_t slice_tsc;        /* the machine's counter when it began */
    struct jit_blocks *blocks; /* block.h: this vCPU's view of the block cache */
    struct jit_decoded decoded[JIT_DECODED];
    struct jit_vm *vm;
    struct accel_vcpu accel;
};

enum { JIT_SLOTS_MAX = 64 };

struct jit_slot { /* guest-physical memory */
    uint64_t gpa, size;
    uint8_t *host;
    bool readonly;
    uint64_t *code;              /* atomic, a bit for each page: blocks were made from its bytes */
    struct jit_written *written; /* memory_hash.h; NULL: nobody asks */
};

struct jit_vm {
    struct accel_vm accel;
    struct accel_config config;
    uint32_t tsc_khz;
    bool clocks_stand;
    uint64_t stopped_tsc;         /* the host's, between clock_stop and clock_start */
    uint64_t pv_clock_ahead;      /* ns that the paravirtual clock is ahead of the counters */
    struct cpuid_table supported; /* what this CPU can do at most */
    struct cpuid_table cpuid;     /* of vCPU 0 */

    pthread_rwlock_t slots_lock;         /* written by memory_map and memory_unmap only */
    struct jit_slot slot[JIT_SLOTS_MAX]; /* by gpa */
    unsigned slots;

    struct translator *translator; /* NULL: everything is interpreted */
    bool counted;                  /* deterministic: time is instructions (counted.h) */
    uint64_t random;               /* counted: state of what RDRAND and RDSEED give */

    struct jit_smc *smc;     /* block_cache.h: the blocks, and which physical lines hold code */
    struct jit_world *world; /* world.h: who executes guest code */
    struct jit_cpu **cpus;   /* config.vcpus of them, NULL where not created; changes while the
                                world stands */
};

/* --- Exceptions: none of these returns
 * ------------------------------------------------------------------- */

_Noreturn void jit_raise(struct jit_cpu *cpu, uint8_t vector);
_Noreturn void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code);
_Noreturn void jit_raise_page_fault(struct jit_cpu *cpu, uint64_t linear, uint32_t code);
_Noreturn void jit_raise_debug(struct jit_cpu *cpu, uint64_t dr6_bits);
/* Leaves the instruction unfinished and the run loop with it: cpu->exit is filled, cpu->rip as it
 * is. */
_Noreturn void jit_leave(struct jit_cpu *cpu);
/* Back to the run loop from a complete instruction: cpu->rip is where to go on. */
_Noreturn void jit_resume(struct jit_cpu *cpu);

/* --- Derived state: call after changing what it is derived from
 * ------------------------------------------ */

/* code_width, stack_size, long_mode and cpl from CS, SS, EFER and RFLAGS.VM. */
void jit_mode_changed(struct jit_cpu *cpu);

static inline void jit_attention_set(struct jit_cpu *cpu, unsigned bits)
{
    __atomic_or_fetch(&cpu->attention, bits, __ATOMIC_SEQ_CST);
}
static inline void jit_attention_clear(struct jit_cpu *cpu, unsigned bits)
{
    __atomic_and_fetch(&cpu->attention, ~bits, __ATOMIC_SEQ_CST);
}

/* The machine answers: port, memory-mapped and MSR accesses go to accel_config.serve in the middle
 * of an instruction. */
void jit_serve(struct jit_cpu *cpu, struct vcpu_exit *exit);

static inline struct jit_cpu *jit_cpu_of(struct accel_vcpu *v)
{
    return (struct jit_cpu *)((char *)v - offsetof(struct jit_cpu, accel));
}

#endif

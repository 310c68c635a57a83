/*
 * accel.h - the seam between the machine and what executes guest code.
 *
 * An accelerator is a const struct accel_ops. Everything above it (devices, interrupt routing,
 * boot, snapshots) is written once and does not know which one runs. Optional operations are NULL
 * where an accelerator has nothing of the kind; the caller then does the work itself and says so
 * beside the call.
 *
 * Thread rules: vcpu_new, run, inject*, request_window, get_state, set_state, set_registers and
 * set_debug belong to the vCPU's own thread; kick, signal_msi, ioapic_route, memory_*
 * (memory_written included) and doorbell_* may be called from any thread.
 */
#ifndef VMM_ACCEL_H
#define VMM_ACCEL_H

#include "cpu/cpu_model.h"
#include "cpu/vcpu_state.h"

struct accel_vm;
struct accel_vcpu;

enum vcpu_exit_kind {
    EXIT_PIO,    /* .pio */
    EXIT_MMIO,   /* .mmio */
    EXIT_HALT,   /* HLT, only where the local APIC is ours: sleep until an interrupt is pending */
    EXIT_KICKED, /* kick() or a signal: look at requests, run again */
    EXIT_IRQ_WINDOW, /* the guest can take an external interrupt now (asked for by request_window)
                      */
    EXIT_RDMSR, /* .msr: an MSR the accelerator leaves to the machine; answer value or set fault */
    EXIT_WRMSR,
    EXIT_IOAPIC_EOI, /* .eoi: a level-triggered vector was acknowledged in the accelerator's local
                        APIC */
    EXIT_SHUTDOWN,   /* triple fault */
    EXIT_DEBUG,      /* .debug: what set_debug() asked for happened */
    EXIT_FAIL,       /* .fail: the accelerator cannot go on with this vCPU */
};

/* What a debugger wants to stop at. Addresses are linear, those of code CS.base + rip. */
enum accel_point_kind { POINT_EXECUTE, POINT_WRITE, POINT_READ, POINT_ACCESS };

enum { ACCEL_POINTS_MAX = 256, ACCEL_POINT_BYTES_MAX = 4096 };

struct accel_point {
    enum accel_point_kind kind;
    bool hardware;    /* POINT_EXECUTE: asked for as a hardware breakpoint */
    uint64_t address; /* address + len does not wrap */
    uint64_t len;     /* of data, 1 to ACCEL_POINT_BYTES_MAX */
};

/* What a vCPU is debugged by. The points stay the caller's and unchanged until the next set_debug.
 */
struct accel_debug {
    const struct accel_point *point;
    unsigned points; /* up to ACCEL_POINTS_MAX */
    bool step;       /* stop after one instruction, taking no interrupt unless halted */
};

struct vcpu_exit {
    enum vcpu_exit_kind kind;
    union {
        struct {
            uint16_t port;
            uint8_t size; /* 1, 2 or 4 */
            bool write;
            uint32_t count; /* string instructions: elements, in data one after the other */
            void *data;     /* read from (write) or filled in (read) before the next run */
        } pio;
        struct {
            uint64_t gpa;
            uint8_t len; /* 1 to 8 */
            bool write;
            void *data;
        } mmio;
        struct {
            uint32_t index;
            uint64_t value;
            bool fault; /* set to true: #GP in the guest */
        } msr;
        struct {
            uint8_t vector;
        } eoi;
        struct {
            const struct accel_point *point; /* that was met; NULL: the step is done */
            uint64_t rip; /* POINT_EXECUTE: the instruction's; otherwise the next one's */
        } debug;
        struct {
            char text[200]; /* for a person */
        } fail;
    };
};

struct accel_config {
    unsigned vcpus;
    bool own_lapic;     /* the machine emulates the local APICs itself (irqchip=user) */
    bool interpret;     /* the software CPU: translates nothing */
    bool deterministic; /* the software CPU: instructions are the only time there is; see slice */
    uint64_t seed;      /* deterministic: of random numbers */
    int64_t epoch;      /* deterministic: the time of day at 0 ns, seconds since 1970 */
    enum cpu_model model;
    struct cpu_topology topology;
    /*
     * For accelerators that meet the machine in the middle of an instruction (the software CPU):
     * answers EXIT_PIO, EXIT_MMIO, EXIT_RDMSR and EXIT_WRMSR at once, on the vCPU's thread; run()
     * does not return them.
     */
    void (*serve)(void *context, unsigned vcpu, struct vcpu_exit *exit);
    void *serve_context;
};

/* What an accelerator is worth on this host, found by measuring (queztl-hv doctor, --accel auto).
 */
struct accel_probe {
    bool usable;          /* runs a 64-bit kernel at speed */
    bool present;         /* there at all, if only for API tests */
    double ring0_loop_ns; /* one round of a two-instruction loop in ring 0, 0 when not measured */
    char reason[240];     /* one line: what was found, and the cure when not usable */
};

struct accel_ops {
    const char *name;
    bool no_lapic; /* it has no local APICs: accel_config.own_lapic must be true */
    /* set_debug: an execution breakpoint that is not `hardware` is an INT3 which the caller wrote
     * to guest memory. */
    bool patches;

    int (*probe)(struct accel_probe *out,
                 bool measure); /* measure false: only whether it is there */

    int (*vm_new)(const struct accel_config *config, struct accel_vm **vm, struct qz_error *err);
    void (*vm_free)(struct accel_vm *vm); /* after every vCPU was freed */

    /* Guest-physical memory; page aligned. Mapping over a mapping is -EEXIST. readonly: writes exit
     * as MMIO. */
    int (*memory_map)(struct accel_vm *vm, uint64_t gpa, uint64_t size, void *hva, bool readonly);
    int (*memory_unmap)(struct accel_vm *vm, uint64_t gpa, uint64_t size);

    int (*vcpu_new)(struct accel_vm *vm, unsigned id, struct accel_vcpu **vcpu,
                    struct qz_error *err);
    void (*vcpu_free)(struct accel_vcpu *vcpu);

    /*
     * Runs the guest until something needs the machine; the answer to the previous exit (data in
     * place) is taken first. 0 and *exit filled, or a negative errno (-EINTR never: that is
     * EXIT_KICKED).
     */
    int (*run)(struct accel_vcpu *vcpu, struct vcpu_exit *exit);
    /* Makes a run in progress, or the next one, return EXIT_KICKED soon. Async-signal-safe not
     * needed. */
    void (*kick)(struct accel_vcpu *vcpu);

    int (*get_state)(struct accel_vcpu *vcpu, struct vcpu_state *state);
    int (*set_state)(struct accel_vcpu *vcpu, const struct vcpu_state *state);

    /*
     * For a debugger, between run()s: takes of *state what program code changes by itself (gpr,
     * rip, rflags, bases of fs and gs, xsave) and leaves events, clocks and interrupt controllers
     * alone. A vCPU that halted runs on when rip is another.
     */
    int (*set_registers)(struct accel_vcpu *vcpu, const struct vcpu_state *state);
    /*
     * EXIT_DEBUG from now on; debug NULL: never. -ENOSPC: more points than the processor has.
     * A breakpoint is met before its instruction, a watched access after it. Stepping overrides the
     * breakpoint at the instruction that is stepped.
     */
    int (*set_debug)(struct accel_vcpu *vcpu, const struct accel_debug *debug);

    /* External interrupts from a controller of ours (PIC, own local APIC). */
    bool (*can_inject)(
        struct accel_vcpu *vcpu); /* interrupt flag set, no shadow, nothing in flight */
    int (*inject)(struct accel_vcpu *vcpu, uint8_t vector);
    void (*request_window)(struct accel_vcpu *vcpu, bool on);
    int (*inject_nmi)(struct accel_vcpu *vcpu);
    uint64_t (*get_cr8)(
        struct accel_vcpu *vcpu); /* own local APIC: the task priority after an exit */
    void (*set_cr8)(struct accel_vcpu *vcpu, uint64_t cr8);
    uint64_t (*get_apic_base)(
        struct accel_vcpu *vcpu); /* own local APIC: IA32_APIC_BASE after an exit */

    int (*get_tsc)(struct accel_vcpu *vcpu,
                   uint64_t *tsc); /* own local APIC: what RDTSC says in the guest now */

    /*
     * The guest's clocks (TSC, paravirtual) stand still from clock_stop to clock_start; no vCPU
     * runs in between. IA32_TSC that get_state and set_state name meanwhile is that of the moment
     * of clock_stop. -errno: this host cannot, and they ran on.
     */
    int (*clock_stop)(struct accel_vm *vm);
    int (*clock_start)(struct accel_vm *vm);
    /*
     * While they stand: what the paravirtual clock (kvmclock) says, in ns. Setting it comes after
     * set_state of all vCPUs.
     */
    int (*pv_clock_get)(struct accel_vm *vm, uint64_t *ns);
    int (*pv_clock_set)(struct accel_vm *vm, uint64_t ns);

    /* Optional, with the accelerator's own local APICs (accel_config.own_lapic false): */
    int (*signal_msi)(struct accel_vm *vm, uint64_t address, uint32_t data);
    int (*ioapic_route)(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                        bool masked);

    /* Optional: a guest write of `len` bytes at gpa wakes `eventfd` instead of exiting. */
    int (*doorbell_add)(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd);
    int (*doorbell_del)(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd);

    /* Optional: a device wrote to guest memory; what was made from the old bytes (translated code)
     * is dropped. */
    void (*memory_written)(struct accel_vm *vm, uint64_t gpa, uint64_t len);

    /* Optional: a number made of all bytes of guest memory, where they are not zero. No vCPU runs.
     */
    int (*memory_hash)(struct accel_vm *vm, uint64_t *hash);

    /*
     * accel_config.deterministic: the next run() returns EXIT_KICKED at the latest after `count`
     * instructions, and the guest's counters say now_ns plus a nanosecond for each of them. Until
     * then executed() says how many of them are complete, also while the machine answers an
     * access; an exception delivered counts as one. Both on the vCPU's thread; only one vCPU of
     * the machine may be in run() at a time.
     */
    void (*slice)(struct accel_vcpu *vcpu, uint64_t now_ns, uint32_t count);
    uint32_t (*executed)(struct accel_vcpu *vcpu);

    /* TSC frequency that the guest sees, kHz. */
    uint32_t (*tsc_khz)(struct accel_vm *vm);
    /* CPUID of vCPU 0 as given to the guest (physical address bits, features). */
    const struct cpuid_table *(*cpuid)(struct accel_vm *vm);
};

/* An accelerator embeds these first in its own structures. */
struct accel_vm {
    const struct accel_ops *ops;
    bool own_lapic;
};
struct accel_vcpu {
    struct accel_vm *vm;
    unsigned id;
};

extern const struct accel_ops accel_kvm, accel_jit;

/* The accelerators of this build, best first, NULL-terminated. */
extern const struct accel_ops *const accel_all[];

/*
 * Picks by name ("kvm", or "auto": the first usable one). *probe tells what was found and why, also
 * on failure (-ENODEV) for a doctor to print.
 */
int accel_choose(const char *name, const struct accel_ops **ops, struct accel_probe *probe,
                 struct qz_error *err);

#endif

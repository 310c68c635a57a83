/*
 * kvm_kit.h - what tests of the KVM back end share: a machine with a page of code, in 64-bit ring
 * 0.
 */
#ifndef KVM_KIT_H
#define KVM_KIT_H

#include "cpu/accel.h"

/* Guest-physical layout; pages map onto themselves. */
enum {
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    CODE = 0x4000,
    AP_CODE = 0x5000,
    IDT = 0x6000,
    GDT = 0x7000,
    DATA = 0x8000,
    STACK = 0xa000,
    READONLY = 0x10000, /* one page, a slot of its own */
    MEMORY_SIZE = 0x11000,
    DEVICE = 0x100000, /* nothing there: every access exits */
    PORT = 0x40,
    DONE_PORT = 0x41,
    VECTOR = 0x55,
};
enum { HANDLER = 0x80 }; /* of VECTOR, behind CODE */

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *cpu[2];
    uint8_t *memory;
    struct vcpu_state state; /* of the BSP, before the first run */
    struct vcpu_exit exit;
};

/* 64-bit code in ring 0, at CODE. */
void enter_64bit(struct vcpu_state *s);
struct machine *machine_new(bool own_lapic, unsigned cpus);
void machine_free(struct machine *m);

/* Code that the guest runs (kvm_kit.c). */
#define PAYLOAD(name) extern const uint8_t payload_##name[], payload_##name##_end[]
PAYLOAD(ports);
PAYLOAD(string);
PAYLOAD(mmio);
PAYLOAD(readonly);
PAYLOAD(rdmsr);
PAYLOAD(wrmsr);
PAYLOAD(halt);
PAYLOAD(spin);
PAYLOAD(fault);
PAYLOAD(take_interrupt);
PAYLOAD(take_message);
PAYLOAD(start_ap);
PAYLOAD(ap_entry);
#undef PAYLOAD

/* CPU 0 has m->state, and begins there. */
void start_code(struct machine *m, const uint8_t *code, const uint8_t *end);
#define START(m, name) start_code(m, payload_##name, payload_##name##_end)

/* Runs to the next exit that is not a kick left over; fails on another kind than `kind`. */
struct vcpu_exit *run_cpu(struct machine *m, unsigned cpu, enum vcpu_exit_kind kind);
/* To the payload's write to DONE_PORT. */
void run_to_done(struct machine *m);
/* Into m->state. */
struct vcpu_state *get_state(struct machine *m);

struct CMUnitTest;
/* A test program's main(): argv may name one test, with wildcards. 77 where there is no KVM. */
int kvm_run_tests(const char *group, const struct CMUnitTest *tests, size_t count, int argc,
                  char **argv);

#endif

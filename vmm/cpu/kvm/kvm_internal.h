/*
 * kvm_internal.h - what the files of the KVM back end share. Nobody outside this folder includes
 * it.
 *
 *   kvm_vm.c     the VM: /dev/kvm, capabilities, memory slots
 *   kvm_cpuid.c  what KVM offers, as a cpuid_table, and the guest's table back to KVM
 *   kvm_irq.c    messages, IOAPIC routes, doorbells, injection
 *   kvm_vcpu.c   the vCPU: creation, running, kicking, exits
 *   kvm_state.c  architectural state to and from KVM's structures
 *   kvm_debug.c  a debugger's breakpoints, watchpoints and steps
 *   kvm_probe.c  what KVM is worth on this host
 *
 * Interface: Linux Documentation/virt/kvm/api.rst.
 */
#ifndef VMM_KVM_INTERNAL_H
#define VMM_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "cpu/accel.h"

/* The signal that makes KVM_RUN return; its handler does nothing. */
#define KVM_KICK_SIGNAL SIGUSR1

enum { KVM_IOAPIC_PINS = 24, KVM_DEBUG_REGISTERS = 4 };

struct kvm_slot {
    uint64_t gpa, size; /* size 0: free */
};

struct kvm_route {
    bool active;
    uint32_t address_lo, address_hi, data; /* as KVM wants them */
};

struct kvm_vm {
    struct accel_vm base;
    int kvm_fd, fd;
    struct accel_config config;
    size_t run_size;   /* bytes of the shared kvm_run area */
    size_t xsave_size; /* bytes of KVM_GET_XSAVE2 */
    uint32_t tsc_khz;
    struct cpuid_table supported; /* what this VM's vCPUs may be given */
    struct cpuid_table cpuid;     /* what vCPU 0 is given */

    bool msr_missing[VCPU_MSR_MAX]; /* by place in vcpu_msr_list: not in this KVM; atomic */

    bool clocks_stand;                   /* kvm_clock.c */
    struct kvm_clock_data stopped_clock; /* the paravirtual clock at clock_stop */

    pthread_mutex_t lock;   /* the fields below */
    struct kvm_vcpu *vcpus; /* those that exist, by .next */
    struct kvm_slot *slots;
    unsigned slot_count, slot_max;
    struct kvm_route route[KVM_IOAPIC_PINS];
};

struct kvm_vcpu {
    struct accel_vcpu base;
    uint64_t stopped_tsc; /* kvm_clock.c: the counter while the clocks stand */
    struct kvm_vm *vm;
    struct kvm_vcpu *next;
    int fd;
    struct kvm_run *run;
    bool xsave;                 /* the guest has XSAVE, so XCR0 means something */
    int tid, pid;               /* of the thread in run(), atomic; 0 before the first */
    int in_run;                 /* atomic: KVM_RUN is being called */
    bool unfinished;            /* the last exit's instruction completes in the next KVM_RUN */
    bool stashed;               /* kvm_run holds an exit that run() has not reported yet */
    bool injected;              /* inject() since the last KVM_RUN */
    struct vcpu_exit *msr_exit; /* where the caller puts the answer to an MSR exit */
    uint64_t apic_base;         /* own local APIC: as the machine accepted it */
    enum mp_state mp_state;     /* own local APIC: KVM only knows RUNNABLE there */

    /* kvm_debug.c: what a debugger asked for, and what of it is in which debug register. */
    struct accel_debug debug;
    uint32_t debug_control;
    struct kvm_guest_debug_arch debug_arch;
    const struct accel_point *debug_point[KVM_DEBUG_REGISTERS];
};

static inline struct kvm_vm *kvm_vm_of(struct accel_vm *vm)
{
    return QZ_CONTAINER_OF(vm, struct kvm_vm, base);
}
static inline struct kvm_vcpu *kvm_vcpu_of(struct accel_vcpu *vcpu)
{
    return QZ_CONTAINER_OF(vcpu, struct kvm_vcpu, base);
}

/* kvm_vm.c */
int kvm_open(int *fd, struct qz_error *err); /* /dev/kvm, its version checked */
void kvm_install_kick_handler(void);         /* idempotent, any thread */
int kvm_vm_new(const struct accel_config *config, struct accel_vm **vm, struct qz_error *err);
void kvm_vm_free(struct accel_vm *vm);
int kvm_memory_map(struct accel_vm *vm, uint64_t gpa, uint64_t size, void *hva, bool readonly);
int kvm_memory_unmap(struct accel_vm *vm, uint64_t gpa, uint64_t size);

/* kvm_cpuid.c */
int kvm_read_supported_cpuid(int kvm_fd, const struct accel_config *config, struct cpuid_table *out,
                             struct qz_error *err);
int kvm_write_cpuid(int vcpu_fd, const struct cpuid_table *table);

/* kvm_irq.c */
int kvm_signal_msi(struct accel_vm *vm, uint64_t address, uint32_t data);
int kvm_ioapic_route(struct accel_vm *vm, unsigned pin, uint64_t address, uint32_t data,
                     bool masked);
int kvm_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd);
int kvm_doorbell_del(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd);
bool kvm_can_inject(struct accel_vcpu *vcpu);
int kvm_inject(struct accel_vcpu *vcpu, uint8_t vector);
void kvm_request_window(struct accel_vcpu *vcpu, bool on);
int kvm_inject_nmi(struct accel_vcpu *vcpu);
uint64_t kvm_get_cr8(struct accel_vcpu *vcpu);
void kvm_set_cr8(struct accel_vcpu *vcpu, uint64_t cr8);
uint64_t kvm_get_apic_base(struct accel_vcpu *vcpu);

/* kvm_vcpu.c */
int kvm_vcpu_new(struct accel_vm *vm, unsigned id, struct accel_vcpu **vcpu, struct qz_error *err);
void kvm_vcpu_free(struct accel_vcpu *vcpu);
int kvm_vcpu_run(struct accel_vcpu *vcpu, struct vcpu_exit *exit);
void kvm_vcpu_kick(struct accel_vcpu *vcpu);
/*
 * Completes the instruction of the last exit without running the guest further. -EAGAIN: that led
 * to another exit, which the next run() reports (or which is dropped when `discard`).
 */
int kvm_vcpu_settle(struct kvm_vcpu *v, bool discard);

/* kvm_state.c */
int kvm_get_state(struct accel_vcpu *vcpu, struct vcpu_state *state);
int kvm_set_state(struct accel_vcpu *vcpu, const struct vcpu_state *state);
int kvm_set_registers(struct accel_vcpu *vcpu, const struct vcpu_state *state);

int kvm_get_tsc(struct accel_vcpu *vcpu, uint64_t *tsc);
int kvm_read_msr(struct kvm_vcpu *v, uint32_t index, uint64_t *value); /* -ENOTSUP: not there */
int kvm_write_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value); /* -ENOTSUP: refused */

/* kvm_clock.c */
int kvm_clock_stop(struct accel_vm *vm);
int kvm_clock_start(struct accel_vm *vm);
int kvm_pv_clock_get(struct accel_vm *vm, uint64_t *ns);
int kvm_pv_clock_set(struct accel_vm *vm, uint64_t ns);

/* kvm_debug.c */
int kvm_set_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug);
/* KVM_EXIT_DEBUG. False: it was the guest's own exception, which it gets at the next KVM_RUN. */
bool kvm_debug_exit(struct kvm_vcpu *v, struct vcpu_exit *exit);

/* kvm_probe.c */
int kvm_probe(struct accel_probe *out, bool measure);

#endif

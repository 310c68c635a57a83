/*
 * kvm_clock.c - the guest's time stands while the machine is paused.
 *
 * When the clocks stop, each vCPU's time-stamp counter is noted; a counter that is read or set
 * while they stand is that note. When they start, all counters are set to go on from their notes at
 * one moment of the host's counter, so those with the same note stay the same (KVM_VCPU_TSC_OFFSET;
 * writing IA32_TSC instead would meet KVM's own guess at what the writer meant). Offsets are not
 * looked at in between: where KVM finds the host's counter unstable, it moves them whenever a vCPU
 * is touched on another processor. KVM's paravirtual clock is read and written back.
 */
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "cpu/kvm/kvm_internal.h"

QZ_SYSCALLS(main, "ioctl");

static int tsc_offset(struct kvm_vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };

    return ioctl(v->fd, request, &attr) < 0 ? -errno : 0;
}

/* Linux 5.16 and later. */
static bool has_tsc_offset(struct kvm_vm *vm)
{
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};

    return vm->vcpus && ioctl(vm->vcpus->fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
}

int kvm_clock_stop(struct accel_vm *base)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    const uint64_t now = __rdtsc();
    int r = 0;
    QZ_LOCKED(&vm->lock);

    if (!has_tsc_offset(vm))
        return -ENOTSUP;
    for (struct kvm_vcpu *v = vm->vcpus; v && r == 0; v = v->next) {
        uint64_t offset;

        r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset);
        v->stopped_tsc = now + offset; /* at the host's frequency: we never ask KVM to scale it */
    }
    if (r == 0 && ioctl(vm->fd, KVM_GET_CLOCK, &vm->stopped_clock) < 0)
        r = -errno;
    vm->clocks_stand = r == 0;
    return r;
}

int kvm_clock_start(struct accel_vm *base)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    struct kvm_clock_data clock = {.clock = vm->stopped_clock.clock};
    const uint64_t now = __rdtsc();
    int r = 0;
    QZ_LOCKED(&vm->lock);

    vm->clocks_stand = false;
    for (struct kvm_vcpu *v = vm->vcpus; v; v = v->next) {
        uint64_t offset = v->stopped_tsc - now;
        const int e = tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset);

        r = r ? r : e;
        ioctl(v->fd, KVM_KVMCLOCK_CTRL); /* no soft-lockup alarm; refused where the guest uses no
                                            such clock */
    }
    if (r == 0 && ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
        r = -errno;
    return r;
}

int kvm_pv_clock_get(struct accel_vm *base, uint64_t *ns)
{
    const struct kvm_vm *vm = kvm_vm_of(base);

    if (!vm->clocks_stand)
        return -EBUSY;
    *ns = vm->stopped_clock.clock;
    return 0;
}

/* KVM is told when the clocks start again. */
int kvm_pv_clock_set(struct accel_vm *base, uint64_t ns)
{
    struct kvm_vm *vm = kvm_vm_of(base);

    if (!vm->clocks_stand)
        return -EBUSY;
    vm->stopped_clock.clock = ns;
    return 0;
}

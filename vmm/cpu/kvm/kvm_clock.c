/*
 * kvm_clock.c - the guest's time stands while the machine is paused.
 *
 * The time-stamp counters of all vCPUs are set back by what the host's counter advanced in between:
 * one number for all, so they stay synchronous (KVM_VCPU_TSC_OFFSET; writing IA32_TSC instead would
 * meet KVM's own guess at what the writer meant). KVM's paravirtual clock is read and written back.
 * A counter that is read or set in between is that of the moment at which the clocks were stopped:
 * all vCPUs that are given the same number start with exactly that.
 */
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "cpu/kvm/kvm_internal.h"

QZ_SYSCALLS(main, "ioctl");
QZ_SYSCALLS(vcpu, "ioctl");

static int tsc_offset(struct kvm_vcpu *v, unsigned long request, uint64_t *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uintptr_t)offset,
    };

    return ioctl(v->fd, request, &attr) < 0 ? -errno : 0;
}

/* The guest's counter has the host's frequency: we never ask KVM to scale it. */
static int turn_back(struct kvm_vm *vm, uint64_t ticks)
{
    int r = 0;

    for (struct kvm_vcpu *v = vm->vcpus; v && r == 0; v = v->next) {
        uint64_t offset;

        r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset);
        if (r == 0) {
            offset -= ticks;
            r = tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset);
        }
    }
    return r;
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
    QZ_LOCKED(&vm->lock);

    if (!has_tsc_offset(vm))
        return -ENOTSUP;
    if (ioctl(vm->fd, KVM_GET_CLOCK, &vm->stopped_clock) < 0)
        return -errno;
    vm->stopped_tsc = __rdtsc();
    vm->clocks_stand = true;
    return 0;
}

int kvm_clock_start(struct accel_vm *base)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    struct kvm_clock_data clock = {.clock = vm->stopped_clock.clock};
    int r;
    QZ_LOCKED(&vm->lock);

    vm->clocks_stand = false;
    r = turn_back(vm, __rdtsc() - vm->stopped_tsc);
    for (struct kvm_vcpu *v = vm->vcpus; v; v = v->next)
        ioctl(v->fd, KVM_KVMCLOCK_CTRL); /* no soft-lockup alarm; refused where the guest uses no
                                            such clock */
    if (r == 0 && ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
        r = -errno;
    return r;
}

int kvm_stopped_tsc(struct kvm_vcpu *v, uint64_t *tsc)
{
    uint64_t offset;
    int r;

    if (!v->vm->clocks_stand)
        return 0;
    r = tsc_offset(v, KVM_GET_DEVICE_ATTR, &offset);
    if (r == 0)
        *tsc = v->vm->stopped_tsc + offset;
    return r;
}

int kvm_set_stopped_tsc(struct kvm_vcpu *v, uint64_t tsc)
{
    uint64_t offset = tsc - v->vm->stopped_tsc;

    return tsc_offset(v, KVM_SET_DEVICE_ATTR, &offset);
}

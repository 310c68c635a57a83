/*
 * kvm_irq.c - interrupts and doorbells on KVM.
 *
 * Messages are delivered by KVM_SIGNAL_MSI. The IOAPIC is the machine's; KVM only has to know which
 * vectors are level-triggered, so that their end-of-interrupt comes out as KVM_EXIT_IOAPIC_EOI. It
 * learns that from MSI routes at the GSI numbers of the pins, of which only the level-triggered
 * ones are ever told: each KVM_SET_GSI_ROUTING waits for a grace period, and edge-triggered pins
 * would gain nothing by it.
 */
#include "cpu/kvm/kvm_internal.h"

enum {
    MSI_DATA_LEVEL = 1 << 15,
    MSI_DATA_SEEN_BY_KVM = MSI_DATA_LEVEL | 0x7ff, /* trigger, delivery mode, vector */
};

/*
 * The message as KVM wants it: destination bits 14:8, which the guest puts into address bits 11:5
 * (KVM_FEATURE_MSI_EXT_DEST_ID), go to bits 14:8 of the upper address word
 * (KVM_X2APIC_API_USE_32BIT_IDS).
 */
static int split_address(uint64_t address, uint32_t *lo, uint32_t *hi)
{
    if (address >> 20 != 0xfee)
        return -EINVAL;
    *lo = (uint32_t)address & ~0xfe0u;
    *hi = ((uint32_t)address >> 5 & 0x7f) << 8;
    return 0;
}

int kvm_signal_msi(struct accel_vm *vm, uint64_t address, uint32_t data)
{
    struct kvm_msi msi = {.data = data};
    int r = split_address(address, &msi.address_lo, &msi.address_hi);

    if (r < 0)
        return r;
    /* EPERM: no vCPU has that destination. The message is lost, as it is on a real bus. */
    if (ioctl(kvm_vm_of(vm)->fd, KVM_SIGNAL_MSI, &msi) >= 0 || errno == EPERM)
        return 0;
    return -errno;
}

static int write_routes(struct kvm_vm *vm)
{
    union {
        struct kvm_irq_routing head;
        uint8_t bytes[sizeof(struct kvm_irq_routing) +
                      KVM_IOAPIC_PINS * sizeof(struct kvm_irq_routing_entry)];
    } table = {.head = {.nr = 0}};

    for (unsigned pin = 0; pin < KVM_IOAPIC_PINS; pin++) {
        struct kvm_irq_routing_entry *e = &table.head.entries[table.head.nr];

        if (!vm->route[pin].active)
            continue;
        *e = (struct kvm_irq_routing_entry){.gsi = pin, .type = KVM_IRQ_ROUTING_MSI};
        e->u.msi.address_lo = vm->route[pin].address_lo;
        e->u.msi.address_hi = vm->route[pin].address_hi;
        e->u.msi.data = vm->route[pin].data;
        table.head.nr++;
    }
    return ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table.head) == 0 ? 0 : -errno;
}

int kvm_ioapic_route(struct accel_vm *base, unsigned pin, uint64_t address, uint32_t data,
                     bool masked)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    struct kvm_route new = {.active = data & MSI_DATA_LEVEL, .data = data & MSI_DATA_SEEN_BY_KVM};
    struct kvm_route old;
    int r;

    if (pin >= KVM_IOAPIC_PINS || split_address(address, &new.address_lo, &new.address_hi) < 0)
        return -EINVAL;
    QZ_LOCKED(&vm->lock);
    old = vm->route[pin];
    /*
     * A pin that is masked keeps its route: the guest masks a pin while its interrupt is in
     * service, and the end of that interrupt still has to be seen.
     */
    if (masked || (!old.active && !new.active))
        return 0;
    if (old.active == new.active &&
        old.address_lo == new.address_lo &&old.address_hi == new.address_hi &&old.data == new.data)
        return 0;
    vm->route[pin] = new;
    r = write_routes(vm);
    if (r < 0)
        vm->route[pin] = old;
    return r;
}

static int doorbell(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd, uint32_t flags)
{
    struct kvm_ioeventfd request = {.addr = gpa, .len = len, .fd = eventfd, .flags = flags};

    return ioctl(kvm_vm_of(vm)->fd, KVM_IOEVENTFD, &request) == 0 ? 0 : -errno;
}

int kvm_doorbell_add(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd)
{
    return doorbell(vm, gpa, len, eventfd, 0);
}

int kvm_doorbell_del(struct accel_vm *vm, uint64_t gpa, unsigned len, int eventfd)
{
    return doorbell(vm, gpa, len, eventfd, KVM_IOEVENTFD_FLAG_DEASSIGN);
}

/* ---- one vCPU -------------------------------------------------------------------------------- */

bool kvm_can_inject(struct accel_vcpu *vcpu)
{
    const struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    /* KVM's two flags are as of the last exit; an injection since then fills the only place there
     * is. A step takes no interrupt. */
    return !v->injected && !v->debug.step && v->run->ready_for_interrupt_injection &&
           v->run->if_flag;
}

int kvm_inject(struct accel_vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_interrupt interrupt = {.irq = vector};

    if (ioctl(v->fd, KVM_INTERRUPT, &interrupt) != 0)
        return -errno;
    v->injected = true;
    v->mp_state = MP_RUNNABLE;
    return 0;
}

void kvm_request_window(struct accel_vcpu *vcpu, bool on)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    v->run->request_interrupt_window = on && !v->debug.step;
}

int kvm_inject_nmi(struct accel_vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    if (ioctl(v->fd, KVM_NMI, 0) != 0)
        return -errno;
    v->mp_state = MP_RUNNABLE;
    return 0;
}

uint64_t kvm_get_cr8(struct accel_vcpu *vcpu)
{
    return kvm_vcpu_of(vcpu)->run->cr8;
}

void kvm_set_cr8(struct accel_vcpu *vcpu, uint64_t cr8)
{
    kvm_vcpu_of(vcpu)->run->cr8 = cr8 & 0xf;
}

uint64_t kvm_get_apic_base(struct accel_vcpu *vcpu)
{
    const struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    return v->vm->config.own_lapic ? v->apic_base : v->run->apic_base;
}

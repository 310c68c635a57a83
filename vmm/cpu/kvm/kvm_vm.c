/*
 * kvm_vm.c - a virtual machine on KVM: the device, its capabilities, memory slots, and the
 * operations table.
 *
 * With the accelerator's local APICs the interrupt chip is split (KVM_CAP_SPLIT_IRQCHIP): local
 * APICs in the kernel, IOAPIC and PIC in the machine. MSRs that KVM does not know come out as exits
 * in either mode, so that the machine, and not the host kernel's settings, decides what they are.
 */
#include <fcntl.h>
#include <signal.h>

#include "cpu/kvm/kvm_internal.h"
#include "cpu/vcpu_msrs.h"

QZ_SYSCALLS(all, "ioctl");

/*
 * Pages that KVM keeps for itself on Intel processors without unrestricted guest: identity map and
 * TSS. Above the HPET and local APIC pages and below the flash (0xffc00000), where no RAM ever
 * lies.
 */
#define IDENTITY_MAP_GPA 0xfeffc000ull
#define TSS_GPA          0xfeffd000ull

static const struct capability {
    int number;
    const char *name;
    const char *since; /* Linux version, the cure for its absence */
    bool split_only, own_lapic_only;
} capabilities[] = {
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "4.13", false, false},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS", "2.6.33", false, false},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS", "2.6.35", false, false},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE", "2.6.36", false, false},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM", "3.7", false, false},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD", "2.6.32", false, false},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR", "5.10", false, false},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER", "5.10", false, true},
    {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP", "4.4", true, false},
    {KVM_CAP_X2APIC_API, "KVM_CAP_X2APIC_API", "4.8", true, false},
    {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI", "3.5", true, false},
};

/* ---- the device ------------------------------------------------------------------------------ */

int kvm_open(int *fd, struct qz_error *err)
{
    QZ_AUTO_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version;

    if (kvm < 0 && errno == ENOENT)
        return qz_fail(err, -ENOENT,
                       "/dev/kvm does not exist: load kvm_amd or kvm_intel, or enable "
                       "virtualization in the firmware");
    if (kvm < 0 && (errno == EACCES || errno == EPERM))
        return qz_fail(err, -EACCES,
                       "/dev/kvm: permission denied: add yourself to group kvm (and log in again)");
    if (kvm < 0 && (errno == ENODEV || errno == ENXIO))
        return qz_fail(err, -ENODEV,
                       "/dev/kvm is there but has no driver: load kvm_amd or kvm_intel");
    if (kvm < 0) {
        const int code = -errno;

        return qz_fail(err, code, "/dev/kvm: %s", strerror(-code));
    }
    version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION)
        return qz_fail(err, -ENODEV, "/dev/kvm: API version %d, this program speaks %d", version,
                       KVM_API_VERSION);
    *fd = QZ_TAKE_FD(kvm);
    return 0;
}

static void kick_handler(int signal_number)
{
    (void)signal_number; /* arriving is all it has to do: see kvm_vcpu.c */
}

static void install_kick_handler_once(void)
{
    struct sigaction action = {.sa_handler = kick_handler}; /* no SA_RESTART: KVM_RUN must return */

    sigemptyset(&action.sa_mask);
    sigaction(KVM_KICK_SIGNAL, &action, NULL);
}

void kvm_install_kick_handler(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, install_kick_handler_once);
}

/* ---- building the VM ------------------------------------------------------------------------- */

static int check_capabilities(int kvm, const struct accel_config *config, struct qz_error *err)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(capabilities); i++) {
        const struct capability *c = &capabilities[i];

        if ((c->split_only && config->own_lapic) || (c->own_lapic_only && !config->own_lapic))
            continue;
        if (ioctl(kvm, KVM_CHECK_EXTENSION, (long)c->number) <= 0)
            return qz_fail(err, -ENOTSUP, "this kernel's KVM lacks %s: Linux %s or newer has it",
                           c->name, c->since);
    }
    return 0;
}

static int check_vcpu_count(int kvm, const struct accel_config *config, struct qz_error *err)
{
    const int most = ioctl(kvm, KVM_CHECK_EXTENSION, (long)KVM_CAP_MAX_VCPUS);
    const int ids = ioctl(kvm, KVM_CHECK_EXTENSION, (long)KVM_CAP_MAX_VCPU_ID);
    const uint32_t last_id = cpu_topology_apic_id(&config->topology, config->vcpus - 1);

    if (most > 0 && config->vcpus > (unsigned)most)
        return qz_fail(err, -EINVAL, "%u vCPUs: KVM runs at most %d here", config->vcpus, most);
    if (ids > 0 && last_id >= (unsigned)ids)
        return qz_fail(
            err, -EINVAL,
            "%u vCPUs: the topology gives the last one APIC id %u, KVM takes ids below %d",
            config->vcpus, last_id, ids);
    return 0;
}

static int enable(int fd, unsigned capability, uint64_t argument, const char *name,
                  struct qz_error *err)
{
    struct kvm_enable_cap cap = {.cap = capability, .args = {argument}};

    if (ioctl(fd, KVM_ENABLE_CAP, &cap) == 0)
        return 0;
    return qz_fail(err, -errno, "KVM does not enable %s: %s", name, strerror(errno));
}

static int enable_split_irqchip(struct kvm_vm *vm, struct qz_error *err)
{
    int r = enable(vm->fd, KVM_CAP_SPLIT_IRQCHIP, KVM_IOAPIC_PINS, "KVM_CAP_SPLIT_IRQCHIP", err);

    if (r == 0)
        r = enable(vm->fd, KVM_CAP_X2APIC_API,
                   KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
                   "KVM_CAP_X2APIC_API", err);
    return r;
}

/*
 * The local APIC is the machine's: its MSRs must come out. Without a local APIC in the kernel KVM
 * refuses the x2APIC range as invalid (a filter cannot hold those); the other two it would answer
 * itself.
 */
static int filter_lapic_msrs(struct kvm_vm *vm, struct qz_error *err)
{
    uint8_t deny = 0;
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    static const uint32_t denied[] = {MSR_APIC_BASE, MSR_TSC_DEADLINE};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(denied); i++)
        filter.ranges[i] = (struct kvm_msr_filter_range){
            .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
            .nmsrs = 1,
            .base = denied[i],
            .bitmap = &deny,
        };
    if (ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter) == 0)
        return 0;
    return qz_fail(err, -errno, "KVM does not take a filter for the local APIC's MSRs: %s",
                   strerror(errno));
}

static int set_up_interrupts(struct kvm_vm *vm, struct qz_error *err)
{
    uint64_t reasons = KVM_MSR_EXIT_REASON_UNKNOWN;
    int r;

    if (vm->config.own_lapic)
        reasons |= KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_FILTER;
    r = vm->config.own_lapic ? filter_lapic_msrs(vm, err) : enable_split_irqchip(vm, err);
    if (r == 0)
        r = enable(vm->fd, KVM_CAP_X86_USER_SPACE_MSR, reasons, "KVM_CAP_X86_USER_SPACE_MSR", err);
    return r;
}

static int set_up_intel_pages(struct kvm_vm *vm, struct qz_error *err)
{
    uint64_t identity_map = IDENTITY_MAP_GPA;

    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) != 0)
        return qz_fail(err, -errno, "KVM_SET_IDENTITY_MAP_ADDR: %s", strerror(errno));
    if (ioctl(vm->fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_GPA) != 0)
        return qz_fail(err, -errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    return 0;
}

static int create_vm(int kvm)
{
    int fd;

    /* A signal can interrupt the creation; a handful of them in a row is not one any more. */
    for (int tries = 0; tries < 16; tries++) {
        fd = ioctl(kvm, KVM_CREATE_VM, 0ul);
        if (fd >= 0 || errno != EINTR)
            return fd;
    }
    return fd;
}

static int build(struct kvm_vm *vm, struct qz_error *err)
{
    int r, value;

    r = kvm_open(&vm->kvm_fd, err);
    if (r == 0)
        r = check_capabilities(vm->kvm_fd, &vm->config, err);
    if (r == 0)
        r = check_vcpu_count(vm->kvm_fd, &vm->config, err);
    if (r < 0)
        return r;

    value = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (value < (int)sizeof(struct kvm_run))
        return qz_fail(err, -ENODEV, "KVM_GET_VCPU_MMAP_SIZE: %d bytes are too few", value);
    vm->run_size = (size_t)value;

    vm->fd = create_vm(vm->kvm_fd);
    if (vm->fd < 0)
        return qz_fail(err, -errno, "KVM_CREATE_VM: %s%s", strerror(errno),
                       errno == EBUSY ? ": another hypervisor uses the processor's virtualization"
                                      : "");
    value = ioctl(vm->fd, KVM_CHECK_EXTENSION, (long)KVM_CAP_XSAVE2);
    vm->xsave_size = QZ_MAX((size_t)QZ_MAX(value, 0), sizeof(struct kvm_xsave));
    if (vm->xsave_size > VCPU_XSAVE_MAX)
        return qz_fail(err, -ENOTSUP, "KVM saves %zu bytes of extended state, at most %d fit",
                       vm->xsave_size, VCPU_XSAVE_MAX);
    value = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, (long)KVM_CAP_NR_MEMSLOTS);
    vm->slot_max = value > 0 ? (unsigned)value : 32;

    r = set_up_interrupts(vm, err);
    if (r == 0)
        r = set_up_intel_pages(vm, err);
    if (r < 0)
        return r;

    /* Linux 5.18 answers for the VM; an older one only for a vCPU, asked in vcpu_new. */
    value = ioctl(vm->fd, KVM_GET_TSC_KHZ, 0);
    vm->tsc_khz = value > 0 ? (uint32_t)value : 0;
    r = kvm_read_supported_cpuid(vm->kvm_fd, &vm->config, &vm->supported, err);
    if (r == 0)
        r = cpu_model_cpuid(vm->config.model, &vm->supported, &vm->config.topology, 0, vm->tsc_khz,
                            &vm->cpuid, err);
    return r;
}

int kvm_vm_new(const struct accel_config *config, struct accel_vm **out, struct qz_error *err)
{
    const struct cpu_topology *t = &config->topology;
    struct kvm_vm *vm;
    int r;

    if (config->vcpus == 0 || (uint64_t)t->sockets * t->cores * t->threads != config->vcpus)
        return qz_fail(err, -EINVAL, "%u sockets of %u cores of %u threads are not %u vCPUs",
                       t->sockets, t->cores, t->threads, config->vcpus);
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return qz_fail(err, -ENOMEM, "out of memory");
    vm->base.ops = &accel_kvm;
    vm->base.own_lapic = config->own_lapic;
    vm->config = *config;
    vm->kvm_fd = vm->fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    kvm_install_kick_handler();

    r = build(vm, err);
    if (r < 0) {
        kvm_vm_free(&vm->base);
        return r;
    }
    *out = &vm->base;
    return 0;
}

void kvm_vm_free(struct accel_vm *base)
{
    struct kvm_vm *vm = kvm_vm_of(base);

    if (vm->fd >= 0)
        close(vm->fd);
    if (vm->kvm_fd >= 0)
        close(vm->kvm_fd);
    pthread_mutex_destroy(&vm->lock);
    free(vm->slots);
    free(vm);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int free_slot(struct kvm_vm *vm, unsigned *index)
{
    struct kvm_slot *more;
    unsigned count;

    for (unsigned i = 0; i < vm->slot_count; i++) {
        if (vm->slots[i].size == 0) {
            *index = i;
            return 0;
        }
    }
    if (vm->slot_count >= vm->slot_max)
        return -ENOSPC;
    count = QZ_MIN(vm->slot_max, vm->slot_count ? vm->slot_count * 2 : 16u);
    more = realloc(vm->slots, count * sizeof(*more));
    if (!more)
        return -ENOMEM;
    memset(more + vm->slot_count, 0, (count - vm->slot_count) * sizeof(*more));
    *index = vm->slot_count;
    vm->slots = more;
    vm->slot_count = count;
    return 0;
}

static int set_region(struct kvm_vm *vm, unsigned index, uint64_t gpa, uint64_t size, void *hva,
                      bool readonly)
{
    struct kvm_userspace_memory_region region = {
        .slot = index,
        .flags = readonly ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)hva,
    };

    return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) == 0 ? 0 : -errno;
}

int kvm_memory_map(struct accel_vm *base, uint64_t gpa, uint64_t size, void *hva, bool readonly)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    unsigned index;
    int r;

    if (size == 0 || ((gpa | size | (uintptr_t)hva) & 4095) || gpa + size < gpa)
        return -EINVAL;
    QZ_LOCKED(&vm->lock);
    for (unsigned i = 0; i < vm->slot_count; i++) {
        const struct kvm_slot *s = &vm->slots[i];

        if (s->size && gpa < s->gpa + s->size && s->gpa < gpa + size)
            return -EEXIST;
    }
    r = free_slot(vm, &index);
    if (r == 0)
        r = set_region(vm, index, gpa, size, hva, readonly);
    if (r == 0)
        vm->slots[index] = (struct kvm_slot){gpa, size};
    return r;
}

int kvm_memory_unmap(struct accel_vm *base, uint64_t gpa, uint64_t size)
{
    struct kvm_vm *vm = kvm_vm_of(base);

    QZ_LOCKED(&vm->lock);
    for (unsigned i = 0; i < vm->slot_count; i++) {
        int r;

        if (vm->slots[i].size == 0 || vm->slots[i].gpa != gpa || vm->slots[i].size != size)
            continue;
        r = set_region(vm, i, gpa, 0, NULL, false);
        if (r == 0)
            vm->slots[i].size = 0;
        return r;
    }
    return -ENOENT;
}

/* ---- the table ------------------------------------------------------------------------------- */

static uint32_t kvm_tsc_khz(struct accel_vm *vm)
{
    return kvm_vm_of(vm)->tsc_khz;
}

static const struct cpuid_table *kvm_cpuid(struct accel_vm *vm)
{
    return &kvm_vm_of(vm)->cpuid;
}

const struct accel_ops accel_kvm = {
    .name = "kvm",
    .patches = true,
    .probe = kvm_probe,
    .vm_new = kvm_vm_new,
    .vm_free = kvm_vm_free,
    .memory_map = kvm_memory_map,
    .memory_unmap = kvm_memory_unmap,
    .vcpu_new = kvm_vcpu_new,
    .vcpu_free = kvm_vcpu_free,
    .run = kvm_vcpu_run,
    .kick = kvm_vcpu_kick,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .set_registers = kvm_set_registers,
    .set_debug = kvm_set_debug,
    .can_inject = kvm_can_inject,
    .inject = kvm_inject,
    .request_window = kvm_request_window,
    .inject_nmi = kvm_inject_nmi,
    .get_cr8 = kvm_get_cr8,
    .set_cr8 = kvm_set_cr8,
    .get_apic_base = kvm_get_apic_base,
    .get_tsc = kvm_get_tsc,
    .clock_stop = kvm_clock_stop,
    .clock_start = kvm_clock_start,
    .pv_clock_get = kvm_pv_clock_get,
    .pv_clock_set = kvm_pv_clock_set,
    .signal_msi = kvm_signal_msi,
    .ioapic_route = kvm_ioapic_route,
    .doorbell_add = kvm_doorbell_add,
    .doorbell_del = kvm_doorbell_del,
    .tsc_khz = kvm_tsc_khz,
    .cpuid = kvm_cpuid,
};

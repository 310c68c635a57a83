/*
 * kvm_vcpu.c - one virtual CPU on KVM: creation, running, kicking, and the translation of exits.
 *
 * How a kick cannot get lost
 * --------------------------
 * kvm_run.immediate_exit tells KVM to leave KVM_RUN before it enters the guest; a signal gets a
 * guest out that runs already. kick() writes the flag first and then, when the vCPU says that it is
 * in KVM_RUN, sends the signal to its thread. The vCPU says so before it calls KVM_RUN. Both sides
 * are a store followed by a load of what the other stored, sequentially consistent, so at least one
 * sees the other:
 *   - KVM sees the flag: KVM_RUN returns at once.
 *   - kick() sees in_run and sends the signal. It arrives in KVM_RUN, which returns; or before the
 * system call, and then the flag, written earlier, stops KVM_RUN; or after it, and then it does
 * nothing. run() clears the flag only after KVM_RUN returned EINTR and just before it reports
 * EXIT_KICKED. Whatever a kicker wrote before kick() is visible to the caller then, and a kick
 * after the clearing sets the flag anew. When KVM_RUN returns a true exit instead, the flag stays
 * and stops the next KVM_RUN (which still completes the pending instruction first, so EXIT_KICKED
 * is always between instructions). The worst that can happen is one EXIT_KICKED too many. The
 * handler needs to do nothing and no thread needs the signal blocked; a thread id that is out of
 * date makes tgkill fail, which is harmless.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "cpu/kvm/kvm_internal.h"
#include "cpu/vcpu_msrs.h"

QZ_SYSCALLS(all, "tgkill"); /* anybody may kick */
QZ_SYSCALLS(vcpu, "gettid getpid rt_sigprocmask rt_sigreturn");
QZ_SYSCALLS(main, "munmap close");

/* ---- creation -------------------------------------------------------------------------------- */

static int give_cpuid(struct kvm_vcpu *v, struct qz_error *err)
{
    struct kvm_vm *vm = v->vm;
    const struct cpuid_table *table = &vm->cpuid;
    QZ_AUTO_FREE struct cpuid_table *own = NULL;
    const struct cpuid_entry *features;
    int r;

    if (v->base.id != 0) {
        own = malloc(sizeof(*own));
        if (!own)
            return qz_fail(err, -ENOMEM, "out of memory");
        r = cpu_model_cpuid(vm->config.model, &vm->supported, &vm->config.topology,
                            cpu_topology_apic_id(&vm->config.topology, v->base.id), vm->tsc_khz,
                            own, err);
        if (r < 0)
            return r;
        table = own;
    }
    r = kvm_write_cpuid(v->fd, table);
    if (r < 0)
        return qz_fail(err, r, "vCPU %u: KVM_SET_CPUID2: %s", v->base.id, strerror(-r));
    features = cpuid_find(table, 1, 0);
    v->xsave = features && features->ecx >> 26 & 1;
    return 0;
}

/* Before Linux 5.18 only a vCPU knows its TSC frequency, so vCPU 0 tells it late. */
static int learn_tsc_frequency(struct kvm_vcpu *v, struct qz_error *err)
{
    struct kvm_vm *vm = v->vm;
    const int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

    if (khz <= 0)
        return 0; /* the frequency leaves stay out: the guest calibrates */
    vm->tsc_khz = (uint32_t)khz;
    return cpu_model_cpuid(vm->config.model, &vm->supported, &vm->config.topology, 0, vm->tsc_khz,
                           &vm->cpuid, err);
}

static int build(struct kvm_vcpu *v, struct qz_error *err)
{
    struct kvm_vm *vm = v->vm;
    const uint32_t apic_id = cpu_topology_apic_id(&vm->config.topology, v->base.id);
    void *area;
    int r = 0;

    v->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)apic_id);
    if (v->fd < 0)
        return qz_fail(err, -errno, "KVM_CREATE_VCPU %u: %s", v->base.id, strerror(errno));
    area = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
    if (area == MAP_FAILED)
        return qz_fail(err, -errno, "vCPU %u: mapping its run area: %s", v->base.id,
                       strerror(errno));
    v->run = area;
    if (v->base.id == 0 && vm->tsc_khz == 0)
        r = learn_tsc_frequency(v, err);
    if (r == 0)
        r = give_cpuid(v, err);
    return r;
}

int kvm_vcpu_new(struct accel_vm *base, unsigned id, struct accel_vcpu **out, struct qz_error *err)
{
    struct kvm_vm *vm = kvm_vm_of(base);
    struct kvm_vcpu *v;
    int r;

    if (id >= vm->config.vcpus)
        return qz_fail(err, -EINVAL, "vCPU %u: this machine has %u", id, vm->config.vcpus);
    v = calloc(1, sizeof(*v));
    if (!v)
        return qz_fail(err, -ENOMEM, "out of memory");
    v->base.vm = base;
    v->base.id = id;
    v->vm = vm;
    v->fd = -1;
    v->apic_base = 0xfee00000 | QZ_BIT(11) | (id == 0 ? QZ_BIT(8) : 0);
    r = build(v, err);
    if (r < 0) {
        kvm_vcpu_free(&v->base);
        return r;
    }
    pthread_mutex_lock(&vm->lock);
    v->next = vm->vcpus;
    vm->vcpus = v;
    pthread_mutex_unlock(&vm->lock);
    *out = &v->base;
    return 0;
}

static void forget(struct kvm_vcpu *v)
{
    struct kvm_vcpu **p = &v->vm->vcpus;

    pthread_mutex_lock(&v->vm->lock);
    while (*p && *p != v)
        p = &(*p)->next;
    if (*p)
        *p = v->next;
    pthread_mutex_unlock(&v->vm->lock);
}

void kvm_vcpu_free(struct accel_vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    forget(v);
    if (v->run)
        munmap(v->run, v->vm->run_size);
    if (v->fd >= 0)
        close(v->fd);
    free(v);
}

/* ---- kicking --------------------------------------------------------------------------------- */

void kvm_vcpu_kick(struct accel_vcpu *vcpu)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    /* Pairs with enter(): see the head of this file. */
    if (__atomic_load_n(&v->in_run, __ATOMIC_SEQ_CST))
        syscall(SYS_tgkill, __atomic_load_n(&v->pid, __ATOMIC_RELAXED),
                __atomic_load_n(&v->tid, __ATOMIC_RELAXED), KVM_KICK_SIGNAL);
}

/* Makes the calling thread the one that kicks go to. */
static void adopt_thread(struct kvm_vcpu *v)
{
    static _Thread_local int own_tid, own_pid;
    sigset_t kick;

    if (own_tid == 0) {
        sigemptyset(&kick);
        sigaddset(&kick, KVM_KICK_SIGNAL);
        pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
        own_tid = (int)syscall(SYS_gettid);
        own_pid = getpid();
    }
    if (v->tid != own_tid) {
        __atomic_store_n(&v->pid, own_pid, __ATOMIC_RELAXED);
        __atomic_store_n(&v->tid, own_tid, __ATOMIC_RELAXED);
    }
}

static bool take_kick(struct kvm_vcpu *v)
{
    return __atomic_exchange_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST) != 0;
}

/* ---- entering the guest ---------------------------------------------------------------------- */

/* Hands the machine's answer to an MSR exit to KVM. */
static void answer_msr(struct kvm_vcpu *v)
{
    const struct vcpu_exit *exit = v->msr_exit;
    struct kvm_run *run = v->run;

    v->msr_exit = NULL;
    run->msr.error = exit->msr.fault;
    if (exit->kind == EXIT_RDMSR) {
        run->msr.data = exit->msr.value;
    } else if (exit->msr.index == MSR_APIC_BASE && !exit->msr.fault) {
        /* The machine's local APIC accepted it. KVM has its own copy, for CPUID's APIC bit. */
        v->apic_base = exit->msr.value;
        if (kvm_write_msr(v, MSR_APIC_BASE, exit->msr.value) < 0)
            qz_guest_warn("vCPU %u: KVM does not take IA32_APIC_BASE 0x%llx", v->base.id,
                          (unsigned long long)exit->msr.value);
    }
}

/* KVM_RUN: 0, or a negative errno. */
static int enter(struct kvm_vcpu *v)
{
    int r;

    if (v->msr_exit)
        answer_msr(v);
    v->unfinished = false;
    v->injected = false;
    v->mp_state = MP_RUNNABLE;
    __atomic_store_n(&v->in_run, 1, __ATOMIC_SEQ_CST); /* pairs with kvm_vcpu_kick() */
    r = ioctl(v->fd, KVM_RUN, 0) == 0 ? 0 : -errno;
    __atomic_store_n(&v->in_run, 0, __ATOMIC_RELEASE);
    return r;
}

/* ---- exits ----------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) fail(struct vcpu_exit *exit, const char *fmt, ...)
{
    va_list args;

    exit->kind = EXIT_FAIL;
    va_start(args, fmt);
    vsnprintf(exit->fail.text, sizeof(exit->fail.text), fmt, args);
    va_end(args);
}

/* Bytes of the instruction that KVM could not emulate, as hexadecimal text. */
static void instruction_text(const struct kvm_run *run, char *text, size_t size)
{
    const unsigned n = QZ_MIN(run->emulation_failure.insn_size, 15);
    size_t used = 0;

    text[0] = '\0';
    if (run->emulation_failure.ndata < 3 ||
        !(run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
        return;
    used = (size_t)snprintf(text, size, ", bytes");
    for (unsigned i = 0; i < n && used + 4 < size; i++)
        used += (size_t)snprintf(text + used, size - used, " %02x",
                                 run->emulation_failure.insn_bytes[i]);
}

static void internal_error(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
    const struct kvm_run *run = v->run;
    struct kvm_regs regs = {0};
    char bytes[64];

    ioctl(v->fd, KVM_GET_REGS, &regs);
    switch (run->internal.suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        instruction_text(run, bytes, sizeof(bytes));
        fail(exit, "vCPU %u: KVM cannot emulate the instruction at rip 0x%llx%s", v->base.id,
             (unsigned long long)regs.rip, bytes);
        break;
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        fail(exit, "vCPU %u: KVM met two exceptions at once at rip 0x%llx", v->base.id,
             (unsigned long long)regs.rip);
        break;
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        fail(exit, "vCPU %u: KVM could not deliver an event at rip 0x%llx", v->base.id,
             (unsigned long long)regs.rip);
        break;
    default:
        fail(exit, "vCPU %u: KVM internal error %u at rip 0x%llx", v->base.id,
             run->internal.suberror, (unsigned long long)regs.rip);
        break;
    }
}

static void port_exit(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
    struct kvm_run *run = v->run;

    exit->kind = EXIT_PIO;
    exit->pio.port = run->io.port;
    exit->pio.size = run->io.size;
    exit->pio.write = run->io.direction == KVM_EXIT_IO_OUT;
    exit->pio.count = run->io.count;
    exit->pio.data = (uint8_t *)run + run->io.data_offset;
    v->unfinished = true;
}

static void memory_exit(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
    struct kvm_run *run = v->run;

    exit->kind = EXIT_MMIO;
    exit->mmio.gpa = run->mmio.phys_addr;
    exit->mmio.len = (uint8_t)QZ_MIN(run->mmio.len, 8u);
    exit->mmio.write = run->mmio.is_write;
    exit->mmio.data = run->mmio.data;
    v->unfinished = true;
}

/* False: the machine need not see it, the guest gets its #GP at the next KVM_RUN. */
static bool msr_exit(struct kvm_vcpu *v, struct vcpu_exit *exit, bool write)
{
    struct kvm_run *run = v->run;

    v->unfinished = true;
    /*
     * With our own local APIC the x2APIC registers come out as "invalid", and with them every value
     * that KVM refuses for an MSR of its own. Those are true faults.
     */
    if (run->msr.reason == KVM_MSR_EXIT_REASON_INVAL &&
        (run->msr.index < MSR_X2APIC_FIRST || run->msr.index > MSR_X2APIC_LAST)) {
        run->msr.error = 1;
        return false;
    }
    exit->kind = write ? EXIT_WRMSR : EXIT_RDMSR;
    exit->msr.index = run->msr.index;
    exit->msr.value = write ? run->msr.data : 0;
    exit->msr.fault = false;
    v->msr_exit = exit;
    return true;
}

/* Fills *exit from kvm_run. False: nothing for the machine, run on. */
static bool decode(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
    struct kvm_run *run = v->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        port_exit(v, exit);
        return true;
    case KVM_EXIT_MMIO:
        memory_exit(v, exit);
        return true;
    case KVM_EXIT_X86_RDMSR:
        return msr_exit(v, exit, false);
    case KVM_EXIT_X86_WRMSR:
        return msr_exit(v, exit, true);
    case KVM_EXIT_IOAPIC_EOI:
        exit->kind = EXIT_IOAPIC_EOI;
        exit->eoi.vector = run->eoi.vector;
        return true;
    case KVM_EXIT_HLT:
        exit->kind = EXIT_HALT;
        v->mp_state = MP_HALTED;
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        exit->kind = EXIT_IRQ_WINDOW;
        run->request_interrupt_window = 0; /* asked for once, told once */
        return true;
    case KVM_EXIT_SET_TPR: /* own local APIC: the guest lowered CR8, something may be deliverable */
    case KVM_EXIT_INTR:
        exit->kind = EXIT_KICKED;
        return true;
    case KVM_EXIT_DEBUG:
        return kvm_debug_exit(v, exit);
    case KVM_EXIT_SHUTDOWN:
        exit->kind = EXIT_SHUTDOWN;
        return true;
    case KVM_EXIT_SYSTEM_EVENT:
        if (run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN ||
            run->system_event.type == KVM_SYSTEM_EVENT_RESET)
            exit->kind = EXIT_SHUTDOWN;
        else
            fail(exit, "vCPU %u: KVM system event %u", v->base.id, run->system_event.type);
        return true;
    case KVM_EXIT_FAIL_ENTRY:
        fail(exit, "vCPU %u: the processor refused to enter the guest, reason 0x%llx", v->base.id,
             (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        return true;
    case KVM_EXIT_INTERNAL_ERROR:
        internal_error(v, exit);
        return true;
    default:
        fail(exit, "vCPU %u: KVM exit reason %u, which this program never asked for", v->base.id,
             run->exit_reason);
        return true;
    }
}

int kvm_vcpu_run(struct accel_vcpu *vcpu, struct vcpu_exit *exit)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);

    adopt_thread(v);
    if (v->stashed) {
        v->stashed = false;
        if (decode(v, exit))
            return 0;
    }
    for (;;) {
        const int r = enter(v);

        if (r == -EINTR || r == -EAGAIN) { /* EAGAIN: a waiting vCPU saw an INIT or start-up IPI */
            take_kick(v);
            exit->kind = EXIT_KICKED;
            return 0;
        }
        if (r < 0) {
            fail(exit, "vCPU %u: KVM_RUN: %s", v->base.id, strerror(-r));
            return 0;
        }
        if (decode(v, exit))
            return 0;
    }
}

int kvm_vcpu_settle(struct kvm_vcpu *v, bool discard)
{
    /* One instruction makes at most a page of string elements or a few pieces of memory before it
     * yields. */
    for (unsigned rounds = 0; v->unfinished && rounds < 4096; rounds++) {
        struct vcpu_exit unused;
        int r;

        /* The flag stays set: clearing it could undo a kick. The next run() reports one EXIT_KICKED
         * more. */
        __atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        r = enter(v);
        if (r == -EINTR)
            return 0;
        if (r < 0)
            return r;
        if (!discard) {
            v->stashed = true;
            return -EAGAIN;
        }
        decode(v, &unused);
        v->msr_exit = NULL;
    }
    return v->unfinished ? -EIO : 0;
}

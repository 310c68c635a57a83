/*
 * jit_accel.c - the software CPU as an accelerator (accel.h).
 */
#include "cpu/jit/block_cache.h"
#include "cpu/jit/counted.h"
#include "cpu/jit/event.h"
#include "cpu/jit/guest_debug.h"
#include "cpu/jit/jit_run.h"
#include "cpu/jit/jit_state.h"
#include "cpu/jit/memory_hash.h"
#include "cpu/jit/mmu.h"
#include "cpu/jit/msr.h"
#include "cpu/jit/slots.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/world.h"

#include <x86intrin.h>

QZ_SYSCALLS(vcpu, "futex clock_gettime getrandom");

static struct jit_vm *vm_of(struct accel_vm *vm)
{
    return QZ_CONTAINER_OF(vm, struct jit_vm, accel);
}

/* ---- probing
 * -----------------------------------------------------------------------------------------------
 */

static int jit_probe(struct accel_probe *out, bool measure)
{
    memset(out, 0, sizeof(*out));
    /* Vector instructions of the guest are executed by the host's. */
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("popcnt") ||
        !__builtin_cpu_supports("ssse3")) {
        snprintf(out->reason, sizeof(out->reason),
                 "the software CPU needs an x86-64-v2 processor (SSE4.2, POPCNT), this is none");
        return 0;
    }
    out->present = out->usable = true;
    snprintf(out->reason, sizeof(out->reason),
             "the software CPU runs on any x86-64-v2 processor, without virtualization hardware");
    return 0;
}

/* ---- the machine
 * ------------------------------------------------------------------------------------------- */

/* The counter and the clock at one time, which lay within `width` ticks. */
struct tsc_pair {
    uint64_t tsc, width;
    int64_t ns;
};

/* Who is interrupted between the three readings learns nothing: the tightest of some is taken. */
static struct tsc_pair read_tsc_pair(void)
{
    struct tsc_pair best = {.width = UINT64_MAX};

    for (unsigned i = 0; i < 8; i++) {
        const uint64_t before = __rdtsc();
        const int64_t ns = qz_now_ns();
        const uint64_t width = __rdtsc() - before;

        if (width < best.width)
            best = (struct tsc_pair){.tsc = before + width / 2, .width = width, .ns = ns};
    }
    return best;
}

/*
 * The guest's counter runs as the host's. Measured once, by the monotonic clock, to some
 * millionths: until the readings' own width is no more than 1/40000 of the time between them, and
 * the middle of it is much better known; 5 ms where the clock is slow to read. A machine's start
 * waits for this.
 */
static uint32_t host_tsc_khz(void)
{
    static uint32_t khz;
    struct tsc_pair from, to;

    if (khz)
        return khz;
    from = read_tsc_pair();
    do
        to = read_tsc_pair();
    while (to.ns - from.ns < 5000000 && to.tsc - from.tsc < 40000 * (from.width + to.width));
    khz = (uint32_t)((to.tsc - from.tsc) * 1000000 / (uint64_t)(to.ns - from.ns));
    return khz;
}

static void jit_vm_free(struct accel_vm *base)
{
    struct jit_vm *vm = vm_of(base);

    slots_free(vm);
    blocks_free(vm);
    translator_free(vm->translator);
    world_free(vm);
    pthread_rwlock_destroy(&vm->slots_lock);
    free(vm->cpus);
    free(vm);
}

static int check_config(const struct accel_config *config, struct qz_error *err)
{
    if (!config->own_lapic)
        return qz_fail(err, -EINVAL,
                       "the software CPU has no local APICs: use the machine's (--irqchip user)");
    if (!config->serve)
        return qz_fail(err, -EINVAL, "the software CPU needs the machine's answers (serve)");
    if (config->vcpus == 0)
        return qz_fail(err, -EINVAL, "a machine has at least one vCPU");
    return 0;
}

static int jit_vm_new(const struct accel_config *config, struct accel_vm **out,
                      struct qz_error *err)
{
    struct jit_vm *vm;
    int r = check_config(config, err);

    if (r < 0)
        return r;
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return qz_fail(err, -ENOMEM, "out of memory");
    vm->accel.ops = &accel_jit;
    vm->accel.own_lapic = true;
    vm->config = *config;
    vm->counted = config->deterministic;
    vm->random = config->seed;
    vm->tsc_khz = config->deterministic ? 1000000 : host_tsc_khz(); /* accel_ops.slice */
    pthread_rwlock_init(&vm->slots_lock, NULL);
    vm->cpus = calloc(config->vcpus, sizeof(vm->cpus[0]));
    if (!vm->cpus || world_new(vm) < 0 || blocks_new(vm) < 0) {
        jit_vm_free(&vm->accel);
        return qz_fail(err, -ENOMEM, "out of memory");
    }
    r = config->interpret ? 0 : translator_new(&vm->translator, vm->counted);
    if (r < 0)
        qz_log(
            QZ_LOG_WARN,
            "the software CPU interprets, which is slow: this host gives no executable memory (%s)",
            strerror(-r));
    jit_cpuid_supported(&vm->supported);
    r = cpu_model_cpuid(config->model, &vm->supported, &config->topology, 0, vm->tsc_khz,
                        &vm->cpuid, err);
    if (r < 0) {
        jit_vm_free(&vm->accel);
        return r;
    }
    *out = &vm->accel;
    return 0;
}

static int jit_memory_map(struct accel_vm *vm, uint64_t gpa, uint64_t size, void *hva,
                          bool readonly)
{
    return slots_map(vm_of(vm), gpa, size, hva, readonly);
}

static int jit_memory_unmap(struct accel_vm *vm, uint64_t gpa, uint64_t size)
{
    return slots_unmap(vm_of(vm), gpa, size);
}

static void jit_memory_written(struct accel_vm *vm, uint64_t gpa, uint64_t len)
{
    blocks_written(vm_of(vm), gpa, len);
}

/* The guest's counter is the host's and an offset. */
static int jit_clock_stop(struct accel_vm *base)
{
    if (vm_of(base)->counted) /* stands by itself */
        return 0;
    vm_of(base)->stopped_tsc = __rdtsc();
    vm_of(base)->clocks_stand = true;
    return 0;
}

static int jit_clock_start(struct accel_vm *base)
{
    struct jit_vm *vm = vm_of(base);
    const uint64_t stood = vm->counted ? 0 : __rdtsc() - vm->stopped_tsc;

    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            vm->cpus[i]->tsc_offset -= stood;
    vm->clocks_stand = false;
    return 0;
}

static int jit_pv_clock_get(struct accel_vm *base, uint64_t *ns)
{
    *ns = pv_clock(vm_of(base)->cpus[0]);
    return 0;
}

/* The structures in guest memory say it from now on: the guest may find it before it runs on. */
static int jit_pv_clock_set(struct accel_vm *base, uint64_t ns)
{
    struct jit_vm *vm = vm_of(base);

    vm->pv_clock_ahead += ns - pv_clock(vm->cpus[0]);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            pv_clock_moved(vm->cpus[i]);
    return 0;
}

/* ---- deterministic mode
 * ------------------------------------------------------------------------------------ */

static void jit_slice(struct accel_vcpu *vcpu, uint64_t now_ns, uint32_t count)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    cpu->instructions += counted_executed(cpu);
    cpu->slice = cpu->budget = (int32_t)QZ_MIN(count, (uint32_t)INT32_MAX);
    cpu->slice_tsc = now_ns;
}

static uint32_t jit_executed(struct accel_vcpu *vcpu)
{
    return counted_executed(jit_cpu_of(vcpu));
}

static uint32_t jit_tsc_khz(struct accel_vm *vm)
{
    return vm_of(vm)->tsc_khz;
}

static const struct cpuid_table *jit_vm_cpuid(struct accel_vm *vm)
{
    return &vm_of(vm)->cpuid;
}

/* ---- vCPUs
 * -------------------------------------------------------------------------------------------------
 */

static void jit_vcpu_free(struct accel_vcpu *vcpu)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    qz_info("vCPU %u executed %llu instructions", vcpu->id,
            (unsigned long long)(cpu->instructions + counted_executed(cpu)));
    world_set_cpu(cpu->vm, cpu->accel.id, NULL);
    mmu_free(cpu);
    blocks_cpu_free(cpu);
    free(cpu->msrs);
    free(cpu);
}

static int give_cpuid(struct jit_cpu *cpu, struct qz_error *err)
{
    struct jit_vm *vm = cpu->vm;
    const struct cpuid_entry *e;
    const int r = cpu_model_cpuid(vm->config.model, &vm->supported, &vm->config.topology,
                                  cpu_topology_apic_id(&vm->config.topology, cpu->accel.id),
                                  vm->tsc_khz, &cpu->cpuid, err);

    if (r < 0)
        return r;
    e = cpuid_find(&cpu->cpuid, 0x80000001, 0);
    cpu->huge_pages = e && e->edx >> 26 & 1;
    cpu->physical_bits = (uint8_t)cpuid_physical_bits(&cpu->cpuid);
    cpu->features = jit_features(&cpu->cpuid);
    return 0;
}

static int reset(struct jit_cpu *cpu)
{
    struct vcpu_state *s;
    int r;

    if (posix_memalign((void **)&s, 64, sizeof(*s)))
        return -ENOMEM;
    vcpu_state_reset(s, cpu->accel.id == 0, cpu->accel.id);
    r = jit_set_state(&cpu->accel, s);
    free(s);
    return r;
}

static int jit_vcpu_new(struct accel_vm *base, unsigned id, struct accel_vcpu **out,
                        struct qz_error *err)
{
    struct jit_vm *vm = vm_of(base);
    struct jit_cpu *cpu;
    int r;

    if (id >= vm->config.vcpus)
        return qz_fail(err, -EINVAL, "vCPU %u: this machine has %u", id, vm->config.vcpus);
    if (posix_memalign((void **)&cpu, 64, sizeof(*cpu)))
        return qz_fail(err, -ENOMEM, "vCPU %u: out of memory", id);
    memset(cpu, 0, sizeof(*cpu));
    cpu->accel.vm = base;
    cpu->accel.id = id;
    cpu->vm = vm;
    cpu->msrs = calloc(1, sizeof(*cpu->msrs));
    if (!cpu->msrs || mmu_new(cpu) < 0 || blocks_cpu_new(cpu) < 0) {
        jit_vcpu_free(&cpu->accel);
        return qz_fail(err, -ENOMEM, "vCPU %u: out of memory", id);
    }
    r = give_cpuid(cpu, err);
    if (r == 0 && (r = reset(cpu)) < 0)
        qz_fail(err, r, "vCPU %u: reset: %s", id, strerror(-r));
    if (r < 0) {
        jit_vcpu_free(&cpu->accel);
        return r;
    }
    world_set_cpu(vm, id, cpu);
    *out = &cpu->accel;
    return 0;
}

/* ---- interrupts
 * -------------------------------------------------------------------------------------------- */

static unsigned attention(const struct jit_cpu *cpu)
{
    return __atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST);
}

static bool jit_can_inject(struct accel_vcpu *vcpu)
{
    const struct jit_cpu *cpu = jit_cpu_of(vcpu);

    return event_can_interrupt(cpu) && !(attention(cpu) & ATTENTION_INTERRUPT) &&
           guest_debug_lets_interrupt(cpu);
}

static int jit_inject(struct accel_vcpu *vcpu, uint8_t vector)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    if (!jit_can_inject(vcpu))
        return -EBUSY;
    cpu->interrupt_vector = vector;
    jit_attention_set(cpu, ATTENTION_INTERRUPT);
    return 0;
}

static void jit_request_window(struct accel_vcpu *vcpu, bool on)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);

    if (on)
        jit_attention_set(cpu, ATTENTION_WINDOW);
    else if (attention(cpu) & ATTENTION_WINDOW)
        jit_attention_clear(cpu, ATTENTION_WINDOW);
}

static int jit_inject_nmi(struct accel_vcpu *vcpu)
{
    jit_attention_set(jit_cpu_of(vcpu), ATTENTION_NMI);
    return 0;
}

static uint64_t jit_get_cr8(struct accel_vcpu *vcpu)
{
    return jit_cpu_of(vcpu)->cr8;
}

static void jit_set_cr8(struct accel_vcpu *vcpu, uint64_t cr8)
{
    jit_cpu_of(vcpu)->cr8 = cr8 & 15;
}

static uint64_t jit_get_apic_base(struct accel_vcpu *vcpu)
{
    return jit_cpu_of(vcpu)->apic_base;
}

static int jit_get_tsc(struct accel_vcpu *vcpu, uint64_t *tsc)
{
    *tsc = jit_guest_tsc(jit_cpu_of(vcpu));
    return 0;
}

/*
 * No local APICs, so no messages and routes; no doorbells: a store to a device is a call already,
 * and the device's own signal costs no more than ours would.
 */
const struct accel_ops accel_jit = {
    .name = "jit",
    .no_lapic = true,
    .probe = jit_probe,
    .vm_new = jit_vm_new,
    .vm_free = jit_vm_free,
    .memory_map = jit_memory_map,
    .memory_unmap = jit_memory_unmap,
    .vcpu_new = jit_vcpu_new,
    .vcpu_free = jit_vcpu_free,
    .run = jit_vcpu_run,
    .kick = jit_vcpu_kick,
    .get_state = jit_get_state,
    .set_state = jit_set_state,
    .set_registers = jit_set_registers,
    .set_debug = jit_set_debug,
    .can_inject = jit_can_inject,
    .inject = jit_inject,
    .request_window = jit_request_window,
    .inject_nmi = jit_inject_nmi,
    .get_cr8 = jit_get_cr8,
    .set_cr8 = jit_set_cr8,
    .get_apic_base = jit_get_apic_base,
    .get_tsc = jit_get_tsc,
    .clock_stop = jit_clock_stop,
    .clock_start = jit_clock_start,
    .pv_clock_get = jit_pv_clock_get,
    .pv_clock_set = jit_pv_clock_set,
    .memory_written = jit_memory_written,
    .memory_hash = memory_hash,
    .slice = jit_slice,
    .executed = jit_executed,
    .tsc_khz = jit_tsc_khz,
    .cpuid = jit_vm_cpuid,
};

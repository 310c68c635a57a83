/*
 * kvm_test.c - the KVM back end against this host's /dev/kvm, with small payloads in 64-bit ring 0.
 *
 * Speed does not matter here, so a KVM that interprets ring 0 serves as well. Without /dev/kvm the
 * program says so and ends with 77, which the test runner counts as skipped; a single test that
 * this KVM cannot do prints "skipped" and the reason.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "cpu/accel.h"
#include "cpu/vcpu_msrs.h"

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

/* Code between two labels, copied into the guest. */
#define PAYLOAD(name, text)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".globl payload_" #name ", payload_" #name "_end\n"                                    \
            "payload_" #name ":\n" text "\n"                                                       \
            "payload_" #name "_end:\n"                                                             \
            ".code64\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const uint8_t payload_##name[], payload_##name##_end[]

PAYLOAD(ports, "mov $0x40, %edx\n"
               "mov $0x5a, %al\n"
               "out %al, %dx\n"
               "in %dx, %eax\n"
               "mov $0x8000, %ebx\n"
               "mov %eax, (%rbx)\n"
               "mov $0x41, %edx\n"
               "out %al, %dx\n"
               "1: jmp 1b");

PAYLOAD(string, "mov $0x40, %edx\n"
                "mov $0x8000, %esi\n"
                "mov $5, %ecx\n"
                "cld\n"
                "rep outsb\n"
                "mov $0x41, %edx\n"
                "out %al, %dx\n"
                "1: jmp 1b");

PAYLOAD(mmio, "mov $0x100000, %ebx\n"
              "mov $0x1122334455667788, %rax\n"
              "mov %rax, (%rbx)\n"
              "movzwl 6(%rbx), %ecx\n"
              "mov $0x41, %edx\n"
              "out %al, %dx\n"
              "1: jmp 1b");

PAYLOAD(readonly, "mov $0x10000, %ebx\n"
                  "mov (%rbx), %ecx\n"
                  "movl $0x12345678, 8(%rbx)\n"
                  "mov 8(%rbx), %esi\n"
                  "mov $0x41, %edx\n"
                  "out %al, %dx\n"
                  "1: jmp 1b");

PAYLOAD(rdmsr, "rdmsr\n" /* ecx by the test */
               "mov $0x41, %edx\n"
               "out %al, %dx\n"
               "1: jmp 1b");

PAYLOAD(wrmsr, "wrmsr\n" /* ecx, edx:eax by the test */
               "mov $0x41, %edx\n"
               "out %al, %dx\n"
               "1: jmp 1b");

PAYLOAD(halt, "hlt\n"
              "mov $0x41, %edx\n"
              "out %al, %dx\n"
              "1: jmp 1b");

PAYLOAD(spin, "1: inc %rax\n"
              "jmp 1b");

PAYLOAD(fault, "ud2");

/* Interrupts on, wait; the handler at the label says so at the port. */
PAYLOAD(take_interrupt, "sti\n"
                        "1: inc %rbx\n"
                        "jmp 1b\n"
                        ".org 0x80 + payload_take_interrupt\n"
                        "mov $0x40, %edx\n"
                        "out %al, %dx\n"
                        "iretq");
enum { HANDLER = 0x80 };

/* x2APIC on (MSRs 1b, 80f), interrupts on, "ready" at the port; the handler acknowledges (80b). */
PAYLOAD(take_message, "mov $0x1b, %ecx\n"
                      "mov $0xfee00d00, %eax\n"
                      "xor %edx, %edx\n"
                      "wrmsr\n"
                      "mov $0x80f, %ecx\n"
                      "mov $0x1ff, %eax\n"
                      "wrmsr\n"
                      "sti\n"
                      "mov $0x41, %edx\n"
                      "out %al, %dx\n"
                      "1: jmp 1b\n"
                      ".org 0x80 + payload_take_message\n"
                      "mov $0x40, %edx\n"
                      "out %al, %dx\n"
                      "xor %edx, %edx\n"
                      "xor %eax, %eax\n"
                      "mov $0x80b, %ecx\n"
                      "wrmsr\n"
                      "mov $0x41, %edx\n"
                      "out %al, %dx\n"
                      "iretq");

/* INIT and start-up IPI to APIC id 1 by the x2APIC's ICR. */
PAYLOAD(start_ap, "mov $0x1b, %ecx\n"
                  "mov $0xfee00d00, %eax\n"
                  "xor %edx, %edx\n"
                  "wrmsr\n"
                  "mov $0x80f, %ecx\n"
                  "mov $0x1ff, %eax\n"
                  "wrmsr\n"
                  "mov $0x830, %ecx\n"
                  "mov $1, %edx\n"
                  "mov $0x4500, %eax\n"
                  "wrmsr\n"
                  "mov $0x4605, %eax\n"
                  "wrmsr\n"
                  "mov $0x41, %edx\n"
                  "out %al, %dx\n"
                  "1: jmp 1b");

PAYLOAD(ap_entry, ".code16\n"
                  "mov $0x77, %al\n"
                  "out %al, $0x40\n"
                  "1: jmp 1b");

/* ---- the machine ----------------------------------------------------------------------------- */

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *cpu[2];
    uint8_t *memory;
    struct vcpu_state state; /* of the BSP, before the first run */
    struct vcpu_exit exit;
};

static void fill_memory(uint8_t *memory)
{
    qz_store_le64(memory + PML4, PDPT | 3);
    qz_store_le64(memory + PDPT, PD | 3);
    qz_store_le64(memory + PD, 1 << 7 | 3); /* the first 2 MiB */
    qz_store_le64(memory + GDT + 0x10, 0x00af9b000000ffffull);
    qz_store_le64(memory + GDT + 0x18, 0x00cf93000000ffffull);
    /* Vector VECTOR: interrupt gate to CODE + HANDLER */
    qz_store_le64(memory + IDT + VECTOR * 16,
                  (uint64_t)(CODE + HANDLER) | 0x10ull << 16 | 0x8e00ull << 32);
}

static void enter_64bit(struct vcpu_state *s)
{
    vcpu_state_reset(s, true, 0);
    vcpu_state_flat(s, 64);
    s->gdt = (struct descriptor_table){GDT, 0x27};
    s->idt = (struct descriptor_table){IDT, 0xfff};
    s->cr0 = 0x80000031;
    s->cr3 = PML4;
    s->cr4 = 1 << 5 | 1 << 9; /* PAE, OSFXSR */
    s->efer = 1 << 8 | 1 << 10;
    s->rip = CODE;
    s->gpr[RDX] = 0;
    s->gpr[RSP] = STACK;
}

static struct machine *machine_new(bool own_lapic, unsigned cpus)
{
    const struct accel_config config = {
        .vcpus = cpus, .own_lapic = own_lapic, .model = CPU_MODEL_HOST, .topology = {1, cpus, 1}};
    struct machine *m = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*m), (size_t)64));
    struct qz_error err = {0};

    assert_non_null(m);
    memset(m, 0, sizeof(*m));
    m->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(m->memory != MAP_FAILED);
    fill_memory(m->memory);
    if (accel_kvm.vm_new(&config, &m->vm, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(accel_kvm.memory_map(m->vm, 0, READONLY, m->memory, false), 0);
    assert_int_equal(
        accel_kvm.memory_map(m->vm, READONLY, MEMORY_SIZE - READONLY, m->memory + READONLY, true),
        0);
    for (unsigned i = 0; i < cpus; i++)
        if (accel_kvm.vcpu_new(m->vm, i, &m->cpu[i], &err) < 0)
            fail_msg("%s", err.text);
    enter_64bit(&m->state);
    return m;
}

static void machine_free(struct machine *m)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(m->cpu); i++)
        if (m->cpu[i])
            accel_kvm.vcpu_free(m->cpu[i]);
    accel_kvm.vm_free(m->vm);
    munmap(m->memory, MEMORY_SIZE);
    free(m);
}

static void start_code(struct machine *m, const uint8_t *code, const uint8_t *end)
{
    memcpy(m->memory + CODE, code, (size_t)(end - code));
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), 0);
}
#define START(m, name) start_code(m, payload_##name, payload_##name##_end)

/* Runs to the next exit that is not a kick left over; fails on another kind than `kind`. */
static struct vcpu_exit *run_cpu(struct machine *m, unsigned cpu, enum vcpu_exit_kind kind)
{
    for (unsigned tries = 0; tries < 100; tries++) {
        assert_int_equal(accel_kvm.run(m->cpu[cpu], &m->exit), 0);
        if (m->exit.kind == kind)
            return &m->exit;
        if (m->exit.kind == EXIT_FAIL)
            fail_msg("%s", m->exit.fail.text);
        if (m->exit.kind != EXIT_KICKED)
            fail_msg("exit %d instead of %d", m->exit.kind, kind);
    }
    fail_msg("nothing but kicks");
    return NULL;
}

static void run_to_done(struct machine *m)
{
    const struct vcpu_exit *e = run_cpu(m, 0, EXIT_PIO);

    assert_true(e->pio.write);
    assert_int_equal(e->pio.port, DONE_PORT);
}

static struct vcpu_state *get_state(struct machine *m)
{
    assert_int_equal(accel_kvm.get_state(m->cpu[0], &m->state), 0);
    return &m->state;
}

/* ---- exits ----------------------------------------------------------------------------------- */

static void test_ports(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, ports);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_true(e->pio.write);
    assert_int_equal(e->pio.port, PORT);
    assert_int_equal(e->pio.size, 1);
    assert_int_equal(e->pio.count, 1);
    assert_int_equal(*(uint8_t *)e->pio.data, 0x5a);

    e = run_cpu(m, 0, EXIT_PIO);
    assert_false(e->pio.write);
    assert_int_equal(e->pio.size, 4);
    qz_store_le32(e->pio.data, 0xcafe1234);
    run_to_done(m);
    assert_int_equal(qz_load_le32(m->memory + DATA), 0xcafe1234);
    machine_free(m);
}

static void test_string_ports(void **unused)
{
    struct machine *m = machine_new(false, 1);
    char got[8] = "";
    size_t n = 0;

    memcpy(m->memory + DATA, "hello", 5);
    START(m, string);
    while (n < 5) { /* KVM may hand out the elements one by one */
        const struct vcpu_exit *e = run_cpu(m, 0, EXIT_PIO);

        assert_int_equal(e->pio.port, PORT);
        assert_true(e->pio.count >= 1 && e->pio.count <= 5 - n);
        memcpy(got + n, e->pio.data, e->pio.count);
        n += e->pio.count;
    }
    assert_string_equal(got, "hello");
    run_to_done(m);
    machine_free(m);
}

static void test_mmio(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, mmio);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_true(e->mmio.write);
    assert_int_equal(e->mmio.gpa, DEVICE);
    assert_int_equal(e->mmio.len, 8);
    assert_int_equal(qz_load_le64(e->mmio.data), 0x1122334455667788);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_false(e->mmio.write);
    assert_int_equal(e->mmio.gpa, DEVICE + 6);
    assert_int_equal(e->mmio.len, 2);
    qz_store_le16(e->mmio.data, 0xbeef);
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RCX], 0xbeef);
    machine_free(m);
}

static void test_readonly_memory(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    qz_store_le32(m->memory + READONLY, 0x600df00d);
    START(m, readonly);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_true(e->mmio.write);
    assert_int_equal(e->mmio.gpa, READONLY + 8);
    assert_int_equal(qz_load_le32(e->mmio.data), 0x12345678);
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RCX], 0x600df00d);
    assert_int_equal(m->state.gpr[RSI], 0);
    machine_free(m);
}

static void test_triple_fault(void **unused)
{
    struct machine *m = machine_new(false, 1);

    m->state.idt.limit = 0; /* no vector to deliver to */
    START(m, fault);
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

static void test_unknown_msr(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    m->state.gpr[RCX] = 0x12345;
    START(m, rdmsr);
    e = run_cpu(m, 0, EXIT_RDMSR);
    assert_int_equal(e->msr.index, 0x12345);
    e->msr.value = 0x1122334455667788;
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RAX], 0x55667788);

    enter_64bit(&m->state);
    m->state.gpr[RCX] = 0x12345;
    m->state.gpr[RAX] = 0xaabbccdd;
    m->state.gpr[RDX] = 0x11;
    m->state.idt.limit = 0; /* so that the fault is seen as a shutdown */
    START(m, wrmsr);
    e = run_cpu(m, 0, EXIT_WRMSR);
    assert_int_equal(e->msr.value, 0x11aabbccdd);
    e->msr.fault = true;
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

/* ---- kicks ----------------------------------------------------------------------------------- */

static void *kicker(void *cpu)
{
    accel_kvm.kick(cpu);
    return NULL;
}

static void test_kick(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, spin);
    /* Before the run, and during it: whichever way the race goes, every kick is seen. */
    accel_kvm.kick(m->cpu[0]);
    run_cpu(m, 0, EXIT_KICKED);
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, kicker, m->cpu[0]), 0);
        run_cpu(m, 0, EXIT_KICKED);
        pthread_join(thread, NULL);
    }
    machine_free(m);
}

static void test_kick_after_exit_is_kept(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    accel_kvm.kick(m->cpu[0]);
    assert_int_equal(accel_kvm.run(m->cpu[0], &m->exit), 0);
    assert_int_equal(m->exit.kind, EXIT_KICKED);
    assert_int_equal(accel_kvm.run(m->cpu[0], &m->exit), 0);
    assert_int_equal(m->exit.kind, EXIT_PIO);
    assert_false(m->exit.pio.write);
    machine_free(m);
}

/* ---- our own local APIC ---------------------------------------------------------------------- */

static void test_halt(void **unused)
{
    struct machine *m = machine_new(true, 1);

    START(m, halt);
    run_cpu(m, 0, EXIT_HALT);
    assert_int_equal(get_state(m)->mp_state, MP_HALTED);
    run_to_done(m);
    assert_int_equal(get_state(m)->mp_state, MP_RUNNABLE);
    machine_free(m);
}

static void test_lapic_msrs(void **unused)
{
    static const uint32_t indices[] = {0x1b, 0x6e0, 0x802, 0x80f, 0x83f};
    struct machine *m = machine_new(true, 1);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(indices); i++) {
        struct vcpu_exit *e;

        enter_64bit(&m->state);
        m->state.gpr[RCX] = indices[i];
        START(m, rdmsr);
        e = run_cpu(m, 0, EXIT_RDMSR);
        assert_int_equal(e->msr.index, indices[i]);
        e->msr.value = 0xfee00900 + i;
        run_to_done(m);
        assert_int_equal(get_state(m)->gpr[RAX], 0xfee00900 + i);
    }
    machine_free(m);
}

static void test_apic_base(void **unused)
{
    struct machine *m = machine_new(true, 1);
    struct vcpu_exit *e;

    assert_int_equal(accel_kvm.get_apic_base(m->cpu[0]), 0xfee00900);
    m->state.gpr[RCX] = 0x1b;
    m->state.gpr[RAX] = 0xfee00d00;
    START(m, wrmsr);
    e = run_cpu(m, 0, EXIT_WRMSR);
    assert_int_equal(e->msr.index, 0x1b);
    assert_int_equal(e->msr.value, 0xfee00d00);
    run_to_done(m);
    assert_int_equal(accel_kvm.get_apic_base(m->cpu[0]), 0xfee00d00);
    assert_int_equal(get_state(m)->apic_base, 0xfee00d00);
    machine_free(m);
}

static void test_bad_msr_value_is_a_fault(void **unused)
{
    struct machine *m = machine_new(true, 1);

    /* KVM knows EFER and refuses its reserved bits: the guest's fault, and not the machine's to
     * answer. */
    m->state.gpr[RCX] = 0xc0000080;
    m->state.gpr[RAX] = 0x502;
    m->state.idt.limit = 0;
    START(m, wrmsr);
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

static void test_injection(void **unused)
{
    struct machine *m = machine_new(true, 1);
    struct vcpu_exit *e;

    START(m, take_interrupt);
    assert_false(accel_kvm.can_inject(m->cpu[0]));
    accel_kvm.request_window(m->cpu[0], true);
    run_cpu(m, 0, EXIT_IRQ_WINDOW);
    assert_true(accel_kvm.can_inject(m->cpu[0]));
    assert_int_equal(accel_kvm.inject(m->cpu[0], VECTOR), 0);
    assert_false(accel_kvm.can_inject(m->cpu[0]));
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    machine_free(m);
}

static void test_cr8(void **unused)
{
    struct machine *m = machine_new(true, 1);

    m->state.cr8 = 3;
    START(m, halt);
    assert_int_equal(accel_kvm.get_cr8(m->cpu[0]), 3);
    accel_kvm.set_cr8(m->cpu[0], 5);
    run_cpu(m, 0, EXIT_HALT);
    assert_int_equal(accel_kvm.get_cr8(m->cpu[0]), 5);
    assert_int_equal(get_state(m)->cr8, 5);
    machine_free(m);
}

/* ---- KVM's local APICs ----------------------------------------------------------------------- */

static void test_message(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, take_message);
    run_to_done(m);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee00000, VECTOR), 0);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    run_to_done(m); /* edge-triggered: no end of interrupt comes out */
    machine_free(m);
}

static void test_message_to_nobody(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, spin);
    /* Destination 77, and destination 0x4d00 by the extended bits. */
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee4d000, VECTOR), 0);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee009a0, VECTOR), 0);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0x12345000, VECTOR), -EINVAL);
    machine_free(m);
}

static void test_level_interrupt(void **unused)
{
    enum { LEVEL = 1 << 15, PIN = 9 };
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    assert_int_equal(accel_kvm.ioapic_route(m->vm, 24, 0xfee00000, VECTOR | LEVEL, false), -EINVAL);
    assert_int_equal(accel_kvm.ioapic_route(m->vm, PIN, 0xfee00000, VECTOR | LEVEL, false), 0);
    START(m, take_message);
    run_to_done(m);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee00000, VECTOR | LEVEL | 1 << 14), 0);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    /* Masked while in service: the end must be seen all the same. */
    assert_int_equal(accel_kvm.ioapic_route(m->vm, PIN, 0xfee00000, VECTOR | LEVEL, true), 0);
    e = run_cpu(m, 0, EXIT_IOAPIC_EOI);
    assert_int_equal(e->eoi.vector, VECTOR);
    run_to_done(m);
    machine_free(m);
}

static void test_second_cpu(void **unused)
{
    struct machine *m = machine_new(false, 2);
    struct vcpu_state *ap = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*ap), (size_t)64));
    struct vcpu_exit *e;

    assert_non_null(ap);
    vcpu_state_reset(ap, false, 1);
    assert_int_equal(accel_kvm.set_state(m->cpu[1], ap), 0);
    memcpy(m->memory + AP_CODE, payload_ap_entry,
           (size_t)(payload_ap_entry_end - payload_ap_entry));
    START(m, start_ap);
    run_to_done(m);
    e = run_cpu(m, 1, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    assert_int_equal(*(uint8_t *)e->pio.data, 0x77);
    assert_int_equal(accel_kvm.get_state(m->cpu[1], ap), 0);
    assert_int_equal(ap->cs.selector, AP_CODE >> 4);
    assert_int_equal(ap->cs.base, AP_CODE);
    free(ap);
    machine_free(m);
}

/* ---- memory and doorbells -------------------------------------------------------------------- */

/* A KVM that is itself emulated may take an offset and forget it. */
static bool keeps_tsc_offsets(void)
{
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    const int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    uint64_t offset = 12345;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    ioctl(cpu, KVM_SET_DEVICE_ATTR, &attr);
    offset = 0;
    ioctl(cpu, KVM_GET_DEVICE_ATTR, &attr);
    close(cpu);
    close(vm);
    close(kvm);
    return offset == 12345;
}

/* Counters that are set while the clocks stand go on from there, all together. */
static void test_counters_start_together(void **unused)
{
    struct machine *m = machine_new(false, 2);
    struct vcpu_state *s = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*s), (size_t)64));
    uint64_t tsc[2];

    if (!keeps_tsc_offsets()) {
        printf("skipped: this KVM forgets the offset of a counter\n");
        free(s);
        return machine_free(m);
    }
    assert_non_null(s);
    assert_int_equal(accel_kvm.clock_stop(m->vm), 0);
    for (unsigned i = 0; i < 2; i++) {
        vcpu_state_reset(s, i == 0, i);
        assert_int_equal(vcpu_state_set_msr(s, MSR_TSC, 1000000), 0);
        assert_int_equal(accel_kvm.set_state(m->cpu[i], s), 0);
        usleep(2000); /* what lies between the vCPUs' resets is not to be seen */
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(accel_kvm.get_state(m->cpu[i], s), 0);
        assert_int_equal(s->msr[0].index, MSR_TSC);
        assert_int_equal(s->msr[0].value, 1000000);
    }
    assert_int_equal(accel_kvm.clock_start(m->vm), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_kvm.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[0], 1000000, 1ull << 40);
    assert_in_range(tsc[1], tsc[0], 1ull << 40); /* it was read later */
    vcpu_state_init(s, 1);
    assert_int_equal(accel_kvm.set_state(m->cpu[1], s), 0); /* INIT leaves the counter alone */
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_kvm.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[1], tsc[0], 1ull << 40);
    free(s);
    machine_free(m);
}

static void test_memory_slots(void **unused)
{
    struct machine *m = machine_new(false, 1);
    const struct accel_ops *k = &accel_kvm;

    assert_int_equal(k->memory_map(m->vm, 0x1000, 0x1000, m->memory, false), -EEXIST);
    assert_int_equal(k->memory_map(m->vm, 0xf000, 0x200000, m->memory, false), -EEXIST);
    assert_int_equal(k->memory_map(m->vm, 0x200100, 0x1000, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_map(m->vm, 0x200000, 0, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_map(m->vm, UINT64_MAX - 0xfff, 0x2000, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_unmap(m->vm, 0x200000, 0x1000), -ENOENT);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(k->memory_map(m->vm, 0x200000 + i * 0x2000, 0x1000, m->memory, false), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(k->memory_unmap(m->vm, 0x200000 + i * 0x2000, 0x1000), 0);
    assert_int_equal(k->memory_map(m->vm, 0x200000, 0x10000, m->memory, false), 0);
    machine_free(m);
}

static void test_doorbell(void **unused)
{
    struct machine *m = machine_new(false, 1);
    const int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t count = 0;

    assert_true(bell >= 0);
    assert_int_equal(accel_kvm.doorbell_add(m->vm, DEVICE, 8, bell), 0);
    START(m, mmio);
    run_cpu(m, 0, EXIT_MMIO);
    assert_false(m->exit.mmio.write); /* the write rang the bell and never came here */
    assert_int_equal(read(bell, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);

    assert_int_equal(accel_kvm.doorbell_del(m->vm, DEVICE, 8, bell), 0);
    enter_64bit(&m->state);
    START(m, mmio);
    run_cpu(m, 0, EXIT_MMIO);
    assert_true(m->exit.mmio.write);
    close(bell);
    machine_free(m);
}

/* ---- state ----------------------------------------------------------------------------------- */

static void test_state_between_exit_and_completion(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    e = run_cpu(m, 0, EXIT_PIO);
    qz_store_le32(e->pio.data, 0x87654321);
    /* The IN has not been completed in KVM yet; the state must be as if it had. */
    assert_int_equal(get_state(m)->gpr[RAX], 0x87654321);
    assert_int_equal(m->state.rip, CODE + 9);
    run_to_done(m);
    assert_int_equal(qz_load_le32(m->memory + DATA), 0x87654321);
    machine_free(m);
}

static void test_state_replaces_unfinished_instruction(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    run_cpu(m, 0, EXIT_PIO); /* an IN that nobody answers */
    enter_64bit(&m->state);
    m->state.gpr[RAX] = 0x1234;
    m->state.gpr[RBX] = 0x99;
    START(m, spin);
    assert_int_equal(get_state(m)->gpr[RAX], 0x1234);
    assert_int_equal(m->state.gpr[RBX], 0x99);
    assert_int_equal(m->state.rip, CODE);
    machine_free(m);
}

static void same_segment(const struct segment *a, const struct segment *b)
{
    assert_int_equal(a->base, b->base);
    assert_int_equal(a->selector, b->selector);
    assert_int_equal(a->attr & SEG_UNUSABLE, b->attr & SEG_UNUSABLE);
    if (!(a->attr & SEG_UNUSABLE)) {
        assert_int_equal(a->limit, b->limit);
        assert_int_equal(a->attr, b->attr);
    }
}

static bool own; /* its address as a test's state: with our own local APIC */

static void test_state_round_trip(void **state)
{
    const bool own_lapic = *state == &own;
    struct machine *m = machine_new(own_lapic, 1);
    struct vcpu_state *in = &m->state;
    struct vcpu_state *out = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*out), (size_t)64));

    assert_non_null(out);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        in->gpr[i] = 0x0101010101010101ull * (i + 1);
    in->rflags = 0x202;
    in->fs.base = 0x1000;
    in->gs.base = 0xffff888000000000ull;
    in->cr2 = 0xdead000;
    in->dr[0] = 0x4321;
    in->event.nmi_masked = true;
    in->event.interrupt_shadow = 2;
    in->apic_base = 0xfee00d00;
    in->lapic.reg[2] = 0;        /* x2APIC form of the id */
    in->lapic.reg[0x0f] = 0x1ff; /* SVR: enabled */
    in->lapic.reg[0x32] = 0x10033;
    in->lapic.reg[0x3e] = 0xb;
    qz_store_le16(in->xsave, 0x37f);
    qz_store_le32(in->xsave + 24, 0x1fa0);
    for (unsigned i = 0; i < 16 * 16; i++)
        in->xsave[160 + i] = (uint8_t)(i * 7 + 1); /* XMM0 to XMM15 */
    assert_int_equal(vcpu_state_set_msr(in, 0xc0000102, 0xffff888012340000ull), 0);
    assert_int_equal(vcpu_state_set_msr(in, 0xc0000082, 0xffffffff81000000ull), 0);
    assert_int_equal(vcpu_state_set_msr(in, 0x277, 0x0407050600070106ull), 0);

    assert_int_equal(accel_kvm.set_state(m->cpu[0], in), 0);
    assert_int_equal(accel_kvm.get_state(m->cpu[0], out), 0);

    assert_memory_equal(in->gpr, out->gpr, sizeof(in->gpr));
    assert_int_equal(in->rip, out->rip);
    assert_int_equal(in->rflags, out->rflags);
    same_segment(&in->cs, &out->cs);
    same_segment(&in->ds, &out->ds);
    same_segment(&in->fs, &out->fs);
    same_segment(&in->gs, &out->gs);
    same_segment(&in->ss, &out->ss);
    same_segment(&in->tr, &out->tr);
    assert_int_equal(in->gdt.base, out->gdt.base);
    assert_int_equal(in->gdt.limit, out->gdt.limit);
    assert_int_equal(in->idt.base, out->idt.base);
    assert_int_equal(in->cr0, out->cr0);
    assert_int_equal(in->cr2, out->cr2);
    assert_int_equal(in->cr3, out->cr3);
    assert_int_equal(in->cr4, out->cr4);
    assert_int_equal(in->efer, out->efer);
    assert_int_equal(in->xcr0, out->xcr0);
    assert_int_equal(in->apic_base, out->apic_base);
    assert_int_equal(in->dr[0], out->dr[0]);
    assert_int_equal(in->dr6, out->dr6);
    assert_int_equal(in->dr7, out->dr7);
    assert_int_equal(in->mp_state, out->mp_state);
    assert_int_equal(out->event.nmi_masked, true);
    assert_true(out->event.interrupt_shadow == 1 || out->event.interrupt_shadow == 2);
    assert_false(out->event.exception_injected);
    assert_memory_equal(in->xsave, out->xsave, 2);
    assert_memory_equal(in->xsave + 24, out->xsave + 24, 4);
    assert_memory_equal(in->xsave + 160, out->xsave + 160, 256);
    assert_true(out->xsave_size >= 576);
    for (unsigned i = 0; i < out->msr_count; i++) {
        if (out->msr[i].index == 0xc0000102)
            assert_int_equal(out->msr[i].value, 0xffff888012340000ull);
        if (out->msr[i].index == 0xc0000082)
            assert_int_equal(out->msr[i].value, 0xffffffff81000000ull);
        if (out->msr[i].index == 0x277)
            assert_int_equal(out->msr[i].value, 0x0407050600070106ull);
    }
    assert_true(out->msr_count > 8);
    if (!own_lapic) {
        assert_int_equal(out->lapic.reg[0x0f], 0x1ff);
        assert_int_equal(out->lapic.reg[0x32], 0x10033);
        assert_int_equal(out->lapic.reg[0x3e], 0xb);
    }

    /* What came out goes in again, and comes out the same. */
    assert_int_equal(accel_kvm.set_state(m->cpu[0], out), 0);
    assert_int_equal(accel_kvm.get_state(m->cpu[0], in), 0);
    assert_memory_equal(in->gpr, out->gpr, sizeof(in->gpr));
    assert_memory_equal(in->xsave, out->xsave, out->xsave_size);
    assert_int_equal(in->msr_count, out->msr_count);
    free(out);
    machine_free(m);
}

static void test_bad_state_is_refused(void **unused)
{
    struct machine *m = machine_new(false, 1);

    m->state.msr_count = VCPU_MSR_MAX + 1;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    m->state.xsave_size = VCPU_XSAVE_MAX + 1;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    m->state.mp_state = 99;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    assert_int_equal(vcpu_state_set_msr(&m->state, 0x12345, 1), 0);
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -ENOTSUP);
    machine_free(m);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static void test_bad_configurations(void **unused)
{
    struct accel_config config = {.vcpus = 4, .model = CPU_MODEL_HOST, .topology = {1, 3, 1}};
    struct accel_vm *vm = NULL;
    struct qz_error err = {0};

    assert_int_equal(accel_kvm.vm_new(&config, &vm, &err), -EINVAL);
    assert_non_null(strstr(err.text, "are not 4 vCPUs"));
    config =
        (struct accel_config){.vcpus = 100000, .model = CPU_MODEL_HOST, .topology = {1, 100000, 1}};
    assert_int_equal(accel_kvm.vm_new(&config, &vm, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most"));
    assert_null(vm);
}

static void test_probe(void **unused)
{
    struct accel_probe probe;
    const struct accel_ops *ops = NULL;
    struct qz_error err = {0};

    assert_int_equal(accel_kvm.probe(&probe, true), 0);
    print_message("%s\n", probe.reason);
    assert_true(probe.present);
    assert_true(probe.ring0_loop_ns > 0);
    assert_int_equal(probe.usable, probe.ring0_loop_ns <= 200);

    assert_int_equal(accel_choose("kvm", &ops, &probe, &err), 0); /* by name: present is enough */
    assert_ptr_equal(ops, &accel_kvm);
    assert_int_equal(accel_choose("nonsense", &ops, &probe, &err), -EINVAL);
    assert_non_null(strstr(err.text, "auto, kvm"));
}

/*
 * One machine stays for the whole run. Linux patches its own code when the first VM, or the first
 * vCPU without a local APIC in the kernel, comes or the last one goes (static keys); on an emulated
 * host (QEMU 7.2 with several threads) such patching can leave every CPU in its breakpoint handler
 * for good, and each test here would do it twice.
 */
static int hold_machine(void **state)
{
    *state = machine_new(true, 1);
    return 0;
}

static int release_machine(void **state)
{
    machine_free(*state);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_string_ports),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_readonly_memory),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_unknown_msr),
        cmocka_unit_test(test_kick),
        cmocka_unit_test(test_kick_after_exit_is_kept),
        cmocka_unit_test(test_halt),
        cmocka_unit_test(test_lapic_msrs),
        cmocka_unit_test(test_apic_base),
        cmocka_unit_test(test_bad_msr_value_is_a_fault),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_cr8),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_message_to_nobody),
        cmocka_unit_test(test_level_interrupt),
        cmocka_unit_test(test_second_cpu),
        cmocka_unit_test(test_counters_start_together),
        cmocka_unit_test(test_memory_slots),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_state_between_exit_and_completion),
        cmocka_unit_test(test_state_replaces_unfinished_instruction),
        cmocka_unit_test(test_state_round_trip),
        {"test_state_round_trip (own local APIC)", test_state_round_trip, NULL, NULL, &own},
        cmocka_unit_test(test_bad_state_is_refused),
        cmocka_unit_test(test_bad_configurations),
        cmocka_unit_test(test_probe),
    };
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    close(kvm);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]); /* one test by name, wildcards allowed */
    alarm(100);                          /* a vCPU that never comes back must not hang the run */
    return cmocka_run_group_tests(tests, hold_machine, release_machine);
}

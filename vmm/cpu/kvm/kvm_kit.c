/*
 * kvm_kit.c - the machine of the KVM back end's tests, against this host's /dev/kvm (kvm_kit.h).
 *
 * Speed does not matter here, so a KVM that interprets ring 0 serves as well. Without /dev/kvm a
 * program says so and ends with 77, which the test runner counts as skipped; a single test that
 * this KVM cannot do prints "skipped" and the reason.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/kvm/kvm_kit.h"

/* ---- what guests run ------------------------------------------------------------------------- */

/* Code between two labels, copied into the guest. */
#define PAYLOAD(name, text)                                                                        \
    __asm__(".pushsection .rodata\n"                                                               \
            ".globl payload_" #name ", payload_" #name "_end\n"                                    \
            "payload_" #name ":\n" text "\n"                                                       \
            "payload_" #name "_end:\n"                                                             \
            ".code64\n"                                                                            \
            ".popsection\n")

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

void enter_64bit(struct vcpu_state *s)
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

struct machine *machine_new(bool own_lapic, unsigned cpus)
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

void machine_free(struct machine *m)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(m->cpu); i++)
        if (m->cpu[i])
            accel_kvm.vcpu_free(m->cpu[i]);
    accel_kvm.vm_free(m->vm);
    munmap(m->memory, MEMORY_SIZE);
    free(m);
}

void start_code(struct machine *m, const uint8_t *code, const uint8_t *end)
{
    memcpy(m->memory + CODE, code, (size_t)(end - code));
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), 0);
}

struct vcpu_exit *run_cpu(struct machine *m, unsigned cpu, enum vcpu_exit_kind kind)
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

void run_to_done(struct machine *m)
{
    const struct vcpu_exit *e = run_cpu(m, 0, EXIT_PIO);

    assert_true(e->pio.write);
    assert_int_equal(e->pio.port, DONE_PORT);
}

struct vcpu_state *get_state(struct machine *m)
{
    assert_int_equal(accel_kvm.get_state(m->cpu[0], &m->state), 0);
    return &m->state;
}

/* ---- a program ------------------------------------------------------------------------------- */

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

int kvm_run_tests(const char *group, const struct CMUnitTest *tests, size_t count, int argc,
                  char **argv)
{
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0) {
        printf("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    close(kvm);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    alarm(100); /* a vCPU that never comes back must not hang the run */
    return _cmocka_run_group_tests(group, tests, count, hold_machine, release_machine);
}

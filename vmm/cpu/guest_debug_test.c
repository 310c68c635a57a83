/*
 * guest_debug_test.c - breakpoints, watchpoints and steps from outside the guest, the same tests on
 * every accelerator: interpreter, translator, KVM.
 *
 * The guest is 64-bit code in ring 0 on identity-mapped memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <cpuid.h>

#include "cpu/accel.h"

enum {
    MEMORY = 2 << 20,
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    IDT = 0x5000,
    GDT = 0x6000,
    STACK = 0xf000,
    CODE = 0x10000,
    FAR_CODE = 0x11000, /* another page */
    DATA = 0x20000,
    HANDLER = 0x30000,
    DONE_PORT = 0x41,
    INT3 = 0xcc,
};

#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection\n.code64");   \
    extern const uint8_t name[], name##_end[]

struct machine {
    const struct accel_ops *ops;
    struct accel_vm *vm;
    struct accel_vcpu *cpu;
    uint8_t *memory;
    bool done; /* the guest wrote to DONE_PORT */
};

struct backend {
    const struct accel_ops *ops;
    bool interpret;
};

static void serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct machine *m = context;

    if (exit->kind == EXIT_PIO && exit->pio.port == DONE_PORT) {
        m->done = true;
        m->ops->kick(m->cpu);
    }
    exit->msr.fault = exit->kind == EXIT_RDMSR || exit->kind == EXIT_WRMSR;
}

static void build_tables(struct machine *m)
{
    static const uint64_t code = 0x00209b0000000000, data = 0x00cf93000000ffff;

    *(uint64_t *)(m->memory + PML4) = PDPT | 3;
    *(uint64_t *)(m->memory + PDPT) = PD | 3;
    *(uint64_t *)(m->memory + PD) = 0x83;
    memcpy(m->memory + GDT + 0x10, &code, 8);
    memcpy(m->memory + GDT + 0x18, &data, 8);
    for (unsigned i = 0; i < 32; i++) {
        *(uint64_t *)(m->memory + IDT + 16 * i) =
            0x00008e0000100000 | (HANDLER & 0xffff) | (uint64_t)(HANDLER >> 16) << 48;
        *(uint64_t *)(m->memory + IDT + 16 * i + 8) = 0;
    }
}

static void start(struct machine *m, const uint8_t *code, const uint8_t *end)
{
    struct vcpu_state *s = NULL;

    assert_int_equal(posix_memalign((void **)&s, 64, sizeof(*s)), 0);
    build_tables(m);
    memcpy(m->memory + CODE, code, (size_t)(end - code));
    vcpu_state_reset(s, true, 0);
    vcpu_state_flat(s, 64);
    s->cr0 = 0x80000031;
    s->cr3 = PML4;
    s->cr4 = 0x620;
    s->efer = 0x500;
    s->gdt = (struct descriptor_table){GDT, 0x1f};
    s->idt = (struct descriptor_table){IDT, 16 * 32 - 1};
    s->rip = CODE;
    s->gpr[RSP] = STACK;
    s->rflags = 2;
    assert_int_equal(m->ops->set_state(m->cpu, s), 0);
    free(s);
}

static struct machine *machine_new(const struct backend *b, const uint8_t *code, const uint8_t *end)
{
    struct machine *m = calloc(1, sizeof(*m));
    const struct accel_config config = {
        .vcpus = 1,
        .own_lapic = true,
        .interpret = b->interpret,
        .model = b->ops == &accel_kvm ? CPU_MODEL_HOST : CPU_MODEL_PORTABLE,
        .topology = {1, 1, 1},
        .serve = serve,
        .serve_context = m,
    };
    struct qz_error err = {0};

    m->ops = b->ops;
    m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->ops->vm_new(&config, &m->vm, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(m->ops->memory_map(m->vm, 0, MEMORY, m->memory, false), 0);
    if (m->ops->vcpu_new(m->vm, 0, &m->cpu, &err) < 0)
        fail_msg("%s", err.text);
    start(m, code, end);
    return m;
}

static void machine_free(struct machine *m)
{
    m->ops->vcpu_free(m->cpu);
    m->ops->vm_free(m->vm);
    munmap(m->memory, MEMORY);
    free(m);
}

/* Runs on over kicks, and over the end that the guest reports. */
static struct vcpu_exit run(struct machine *m)
{
    struct vcpu_exit e;

    do {
        assert_int_equal(m->ops->run(m->cpu, &e), 0);
        if (e.kind == EXIT_FAIL)
            fail_msg("%s", e.fail.text);
        m->done |= e.kind == EXIT_PIO && e.pio.port == DONE_PORT;
        if (m->done)
            e.kind = EXIT_PIO;
    } while (!m->done && (e.kind == EXIT_KICKED || e.kind == EXIT_IRQ_WINDOW));
    return e;
}

static void debug(struct machine *m, const struct accel_point *point, unsigned points, bool step)
{
    const struct accel_debug d = {point, points, step};

    assert_int_equal(m->ops->set_debug(m->cpu, &d), 0);
}

static void expect_stop(struct machine *m, const struct accel_point *point, uint64_t rip)
{
    const struct vcpu_exit e = run(m);

    assert_int_equal(e.kind, EXIT_DEBUG);
    assert_ptr_equal(e.debug.point, point);
    assert_int_equal(e.debug.rip, rip);
}

static struct vcpu_state *state(struct machine *m)
{
    static struct vcpu_state s;

    assert_int_equal(m->ops->get_state(m->cpu, &s), 0);
    return &s;
}

/* ---- steps -------------------------------------------------------------------------------------
 */

GUEST(guest_steps, "mov $5, %eax; add %eax, %eax; push %rax; pop %rbx;"
                   "mov $3, %ecx; mov $0x20000, %edi; rep stosb; ud2");

static void test_steps(void **test)
{
    struct machine *m = machine_new(*test, guest_steps, guest_steps_end);
    static const uint8_t lengths[] = {5, 2, 1, 1, 5, 5};
    uint64_t rip = CODE;

    debug(m, NULL, 0, true);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(lengths); i++)
        expect_stop(m, NULL, rip += lengths[i]);
    assert_int_equal(state(m)->gpr[RBX], 10);
    for (unsigned left = 2; left > 0; left--) { /* one element a step */
        expect_stop(m, NULL, rip);
        assert_int_equal(state(m)->gpr[RCX], left);
    }
    expect_stop(m, NULL, rip += 2);
    assert_int_equal(m->memory[DATA + 2], 10);
    assert_false(state(m)->rflags & 0x100); /* no trap flag of ours */
    machine_free(m);
}

GUEST(guest_faults, "mov $1, %eax; ud2");

static void test_step_into_handler(void **test)
{
    struct machine *m = machine_new(*test, guest_faults, guest_faults_end);

    if (m->ops == &accel_kvm) {
        machine_free(m);
        print_message("skipped: the processor clears TF on its way to the handler, and KVM goes on "
                      "until it returned\n");
        skip();
        return;
    }
    debug(m, NULL, 0, true);
    expect_stop(m, NULL, CODE + 5);
    expect_stop(m, NULL, HANDLER);
    machine_free(m);
}

GUEST(guest_interrupts, "sti; nop; nop; nop; nop; cli; ud2");

static void test_step_takes_no_interrupt(void **test)
{
    struct machine *m = machine_new(*test, guest_interrupts, guest_interrupts_end);

    if (m->ops == &accel_kvm) {
        machine_free(m);
        print_message("skipped: with KVM the machine injects only when KVM says that it may\n");
        skip();
        return;
    }
    debug(m, NULL, 0, true);
    expect_stop(m, NULL, CODE + 1);
    expect_stop(m, NULL, CODE + 2);
    assert_false(m->ops->can_inject(m->cpu));
    m->ops->request_window(m->cpu, true);
    expect_stop(m, NULL, CODE + 3);
    assert_int_equal(m->ops->set_debug(m->cpu, NULL), 0);
    assert_true(m->ops->can_inject(m->cpu));
    machine_free(m);
}

/* ---- breakpoints -------------------------------------------------------------------------------
 */

/* Two pages that call each other; hot, so that it is translated. */
GUEST(guest_calls, "xor %eax, %eax; mov $100, %ecx;"           /* 2 + 5 */
                   "1: call . + 0x1000 - 7; dec %ecx; jnz 1b;" /* 7, 12, 14 */
                   "out %al, $0x41; ud2;"                      /* 16 */
                   ".org 0x1000 + guest_calls; inc %eax; inc %eax; ret");

enum { BREAK = FAR_CODE + 2, LOOP = CODE + 12 };

/*
 * QEMU 7.2's emulated SVM loads no debug registers at VMRUN and gives #BP to the guest even where
 * it is intercepted: only steps can be had there.
 */
static void need_breakpoints(const struct backend *b)
{
    uint32_t eax, name[3];

    __cpuid(0x40000000, eax, name[0], name[1], name[2]);
    if (b->ops != &accel_kvm || memcmp(name, "TCGTCGTCGTCG", 12) != 0)
        return;
    print_message("skipped: this host's processor is QEMU's, which has no breakpoints in guests\n");
    skip();
    return;
}

/* A breakpoint as a debugger keeps it: in memory where the accelerator wants that. */
static void place(struct machine *m, const struct accel_point *p, uint8_t *saved, bool in)
{
    if (!m->ops->patches || p->hardware)
        return;
    if (in)
        *saved = m->memory[p->address];
    m->memory[p->address] = in ? INT3 : *saved;
}

static void meet_breakpoint(struct machine *m, const struct accel_point *p, unsigned times)
{
    uint8_t saved = 0;

    for (unsigned i = 1; i <= times; i++) {
        place(m, p, &saved, true);
        debug(m, p, 1, false);
        expect_stop(m, p, p->address);
        assert_int_equal(state(m)->gpr[RCX], 101 - i);
        place(m, p, &saved, false);
        debug(m, NULL, 0, true);
        assert_int_equal(run(m).kind, EXIT_DEBUG);
    }
}

static void test_breakpoint(void **test)
{
    need_breakpoints(*test);
    for (unsigned hardware = 0; hardware < 2; hardware++) {
        struct machine *m = machine_new(*test, guest_calls, guest_calls_end);
        const struct accel_point p = {POINT_EXECUTE, hardware, BREAK, 1};

        meet_breakpoint(m, &p, 20);
        assert_int_equal(m->ops->set_debug(m->cpu, NULL), 0);
        assert_int_equal(run(m).kind, EXIT_PIO);
        assert_int_equal(state(m)->gpr[RAX], 200);
        machine_free(m);
    }
}

GUEST(guest_forever, "1: call . + 0x1000; inc %rbx; jmp 1b;"
                     ".org 0x1000 + guest_forever; inc %rax; ret");

/* Set while the code has long been translated and linked. */
static void test_breakpoint_in_hot_code(void **test)
{
    need_breakpoints(*test);
    struct machine *m = machine_new(*test, guest_forever, guest_forever_end);
    const struct accel_point p[2] = {{POINT_EXECUTE, true, CODE + 5, 1},
                                     {POINT_EXECUTE, true, FAR_CODE + 3, 1}};
    uint64_t rbx;

    debug(m, &p[1], 1, false);
    for (unsigned i = 0; i < 100; i++) { /* the callee's page is watched, the caller's gets hot */
        expect_stop(m, &p[1], FAR_CODE + 3);
        debug(m, NULL, 0, true);
        assert_int_equal(run(m).kind, EXIT_DEBUG);
        debug(m, &p[1], 1, false);
    }
    rbx = state(m)->gpr[RBX];
    debug(m, p, 2, false);
    expect_stop(m, &p[0], CODE + 5);
    assert_int_equal(state(m)->gpr[RBX], rbx);
    machine_free(m);
}

GUEST(guest_int3, "mov $7, %eax; int3; ud2");

/* The guest's own INT3 is its own affair while there are breakpoints elsewhere. */
static void test_guest_breakpoint(void **test)
{
    struct machine *m = machine_new(*test, guest_int3, guest_int3_end);
    const struct accel_point p = {POINT_EXECUTE, false, CODE + 6, 1};
    static const uint8_t handler[] = {0xb0, 0x2a, 0xe6, DONE_PORT}; /* mov $42, %al; out */

    memcpy(m->memory + HANDLER, handler, sizeof(handler));
    debug(m, &p, 1, false);
    assert_int_equal(run(m).kind, EXIT_PIO);
    assert_int_equal(state(m)->gpr[RAX], 42);
    machine_free(m);
}

/* ---- watchpoints -------------------------------------------------------------------------------
 */

GUEST(guest_touches, "mov $0x20000, %ebx; mov $50, %ecx;"        /* 5 + 5 */
                     "1: mov %rcx, 64(%rbx); dec %ecx; jnz 1b;"  /* hot stores beside: 4 + 2 + 2 */
                     "mov 8(%rbx), %eax;"                        /* 18: read, 3 */
                     "movb $9, 11(%rbx);"                        /* 21: write, 4 */
                     "mov $16, %ecx; mov %rbx, %rdi; rep stosb;" /* 25: 5 + 3 + 2 */
                     "out %al, $0x41; ud2");

static void test_watch_write(void **test)
{
    need_breakpoints(*test);
    struct machine *m = machine_new(*test, guest_touches, guest_touches_end);
    const struct accel_point p = {POINT_WRITE, false, DATA + 8, 4};
    struct vcpu_exit e;

    debug(m, &p, 1, false);
    expect_stop(m, &p, CODE + 25);
    assert_int_equal(m->memory[DATA + 11], 9); /* after the access */
    e = run(m);
    assert_int_equal(e.kind, EXIT_DEBUG);
    assert_ptr_equal(e.debug.point, &p);
    assert_in_range(e.debug.rip, CODE + 33, CODE + 35); /* in REP STOSB or behind it */
    assert_int_equal(m->ops->set_debug(m->cpu, NULL), 0);
    assert_int_equal(run(m).kind, EXIT_PIO);
    machine_free(m);
}

static void test_watch_access(void **test)
{
    need_breakpoints(*test);
    struct machine *m = machine_new(*test, guest_touches, guest_touches_end);
    const struct accel_point p = {POINT_ACCESS, false, DATA + 8, 8};

    debug(m, &p, 1, false);
    expect_stop(m, &p, CODE + 21);
    expect_stop(m, &p, CODE + 25);
    machine_free(m);
}

static void test_watch_read(void **test)
{
    struct machine *m = machine_new(*test, guest_touches, guest_touches_end);
    const struct accel_point p = {POINT_READ, false, DATA + 8, 1};
    const struct accel_debug d = {&p, 1, false};

    if (m->ops == &accel_kvm) {
        assert_int_equal(m->ops->set_debug(m->cpu, &d), -EOPNOTSUPP);
    } else {
        debug(m, &p, 1, false);
        expect_stop(m, &p, CODE + 21);
        assert_int_equal(run(m).kind, EXIT_PIO); /* nobody else reads it */
    }
    machine_free(m);
}

static void test_too_many(void **test)
{
    struct machine *m = machine_new(*test, guest_touches, guest_touches_end);
    struct accel_point p[5];
    const struct accel_debug d = {p, 5, false};

    for (unsigned i = 0; i < 5; i++)
        p[i] = (struct accel_point){POINT_WRITE, false, DATA + 0x100 + 8 * i, 8};
    assert_int_equal(m->ops->set_debug(m->cpu, &d), m->ops == &accel_kvm ? -ENOSPC : 0);
    machine_free(m);
}

/* ---- registers ---------------------------------------------------------------------------------
 */

GUEST(guest_spins,
      "1: nop; jmp 1b; .org 0x20 + guest_spins; mov %rbx, %rax; movq %xmm3, %rdx; hlt");

static void test_set_registers(void **test)
{
    struct machine *m = machine_new(*test, guest_spins, guest_spins_end);
    struct vcpu_state *s;

    m->ops->kick(m->cpu);
    s = state(m);
    s->rip = CODE + 0x20;
    s->gpr[RBX] = 0x123456789abcdef0;
    s->xsave[512] |= 3;
    memset(s->xsave + 160 + 3 * 16, 0x77, 16);
    s->gs.base = 0xffff888000000000;
    s->cr3 = 0; /* not taken */
    assert_int_equal(m->ops->set_registers(m->cpu, s), 0);
    assert_int_equal(run(m).kind, EXIT_HALT);
    s = state(m);
    assert_int_equal(s->gpr[RAX], 0x123456789abcdef0);
    assert_int_equal(s->gpr[RDX], 0x7777777777777777);
    assert_int_equal(s->gs.base, 0xffff888000000000);
    assert_int_equal(s->cr3, PML4);
    assert_int_equal(s->mp_state, MP_HALTED);
    s->rip = CODE + 0x20; /* runs on from another place */
    assert_int_equal(m->ops->set_registers(m->cpu, s), 0);
    assert_int_equal(state(m)->mp_state, MP_RUNNABLE);
    assert_int_equal(run(m).kind, EXIT_HALT);
    machine_free(m);
}

static int run_all(const char *name, const struct backend *b)
{
    struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_step_into_handler),
        cmocka_unit_test(test_step_takes_no_interrupt),
        cmocka_unit_test(test_breakpoint),
        cmocka_unit_test(test_breakpoint_in_hot_code),
        cmocka_unit_test(test_guest_breakpoint),
        cmocka_unit_test(test_watch_write),
        cmocka_unit_test(test_watch_access),
        cmocka_unit_test(test_watch_read),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_set_registers),
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(tests); i++)
        tests[i].initial_state = (void *)b;
    return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int main(void)
{
    struct accel_probe kvm;
    int failed = run_all("interpreter", &(const struct backend){&accel_jit, true}) +
                 run_all("translator", &(const struct backend){&accel_jit, false});

    if (accel_kvm.probe(&kvm, true) == 0 && kvm.usable)
        failed += run_all("KVM", &(const struct backend){&accel_kvm, false});
    else
        printf("skipped on KVM: %s\n", kvm.reason);
    return failed;
}

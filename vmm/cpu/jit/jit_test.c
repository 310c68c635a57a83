/*
 * jit_test.c - the software CPU runs small guests, from the outside: through struct accel_ops.
 *
 * Guests are assembled by the compiler into this file's read-only data and copied to guest memory
 * at CODE. Their memory is identity mapped with 4 KiB pages, supervisor and writable, unless a
 * test changes an entry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/accel.h"
#include "cpu/vcpu_msrs.h"

enum {
    MEMORY = 4 << 20,
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    PT = 0x4000, /* two of them: 4 MiB */
    IDT = 0x8000,
    GDT = 0x9000,
    STACK = 0xf000,
    CODE = 0x10000,
    DATA = 0x20000,
    HANDLER = 0x30000,
};
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40 };

#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection\n.code64");   \
    extern const uint8_t name[], name##_end[];

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *cpu[4];
    unsigned cpus;
    uint8_t *memory;
    struct vcpu_exit last; /* that serve answered */
    uint64_t written;
    unsigned served;
};

static void serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct machine *m = context;

    m->last = *exit;
    m->served++;
    switch (exit->kind) {
    case EXIT_PIO:
        if (exit->pio.write)
            memcpy(&m->written, exit->pio.data, exit->pio.size);
        else
            memset(exit->pio.data, 0x5a, (size_t)exit->pio.size * exit->pio.count);
        break;
    case EXIT_MMIO:
        if (exit->mmio.write)
            memcpy(&m->written, exit->mmio.data, exit->mmio.len);
        else
            memset(exit->mmio.data, 0xa5, exit->mmio.len);
        break;
    default:
        exit->msr.fault = true;
        break;
    }
}

static struct machine *machine_new(unsigned cpus)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct accel_config config = {
        .vcpus = cpus,
        .own_lapic = true,
        .model = CPU_MODEL_PORTABLE,
        .topology = {1, cpus, 1},
        .serve = serve,
        .serve_context = m,
    };
    struct qz_error err = {0};

    m->cpus = cpus;
    m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (accel_jit.vm_new(&config, &m->vm, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(accel_jit.memory_map(m->vm, 0, MEMORY, m->memory, false), 0);
    for (unsigned i = 0; i < cpus; i++)
        if (accel_jit.vcpu_new(m->vm, i, &m->cpu[i], &err) < 0)
            fail_msg("%s", err.text);
    return m;
}

static void machine_free(struct machine *m)
{
    for (unsigned i = 0; i < m->cpus; i++)
        accel_jit.vcpu_free(m->cpu[i]);
    accel_jit.vm_free(m->vm);
    munmap(m->memory, MEMORY);
    free(m);
}

static uint64_t *pte(struct machine *m, uint64_t linear)
{
    return (uint64_t *)(m->memory + PT) + (linear >> 12);
}

static void build_tables(struct machine *m)
{
    *(uint64_t *)(m->memory + PML4) = PDPT | P | W | U;
    *(uint64_t *)(m->memory + PDPT) = PD | P | W | U;
    for (unsigned i = 0; i < 2; i++)
        ((uint64_t *)(m->memory + PD))[i] = (PT + i * 4096ull) | P | W | U;
    for (uint64_t at = 0; at < MEMORY; at += 4096)
        *pte(m, at) = at | P | W;
}

static void set_gate(struct machine *m, unsigned vector, uint64_t handler)
{
    uint64_t *gate = (uint64_t *)(m->memory + IDT) + 2 * vector;

    gate[0] = (handler & 0xffff) | 0x10 << 16 | 0x8e00ull << 32 | (handler >> 16 & 0xffff) << 48;
    gate[1] = handler >> 32;
}

static struct vcpu_state *new_state(void)
{
    struct vcpu_state *s = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*s), 64ul));

    assert_non_null(s);
    vcpu_state_reset(s, true, 0);
    return s;
}

/* As a device does. */
static void put(struct machine *m, uint64_t at, const void *bytes, size_t len)
{
    memcpy(m->memory + at, bytes, len);
    accel_jit.memory_written(m->vm, at, len);
}

static void put_halt(struct machine *m, uint64_t at)
{
    put(m, at, "\xf4", 1);
}

/* 64-bit code at CODE, with a stack, an IDT of 256 gates to HANDLER and a GDT. */
static void start_64(struct machine *m, unsigned cpu, const uint8_t *code, const uint8_t *end)
{
    struct vcpu_state *s = new_state();

    put(m, CODE, code, (size_t)(end - code));
    build_tables(m);
    for (unsigned v = 0; v < 256; v++)
        set_gate(m, v, HANDLER);
    ((uint64_t *)(m->memory + GDT))[2] = 0x00af9b000000ffffull; /* 0x10: code */
    ((uint64_t *)(m->memory + GDT))[3] = 0x00cf93000000ffffull; /* 0x18: data */
    put_halt(m, HANDLER);
    vcpu_state_flat(s, 64);
    s->idt = (struct descriptor_table){IDT, 4095};
    s->gdt = (struct descriptor_table){GDT, 0x1f};
    s->cr0 = 0x80010033;
    s->cr3 = PML4;
    s->cr4 = 0x6a0;  /* PAE, PGE, OSFXSR, OSXMMEXCPT */
    s->efer = 0xd00; /* LME, LMA, NXE */
    s->rip = CODE;
    s->gpr[RSP] = STACK - 256 * cpu;
    s->gpr[RDI] = cpu;
    s->mp_state = MP_RUNNABLE;
    assert_int_equal(accel_jit.set_state(m->cpu[cpu], s), 0);
    free(s);
}

static struct vcpu_state *state_of(struct machine *m)
{
    static struct vcpu_state s;

    assert_int_equal(accel_jit.get_state(m->cpu[0], &s), 0);
    return &s;
}

static struct vcpu_exit run(struct machine *m)
{
    struct vcpu_exit exit = {.kind = EXIT_FAIL};

    assert_int_equal(accel_jit.run(m->cpu[0], &exit), 0);
    return exit;
}

static struct vcpu_state *run_to_halt(struct machine *m)
{
    assert_int_equal(run(m).kind, EXIT_HALT);
    return state_of(m);
}

/* Where the handler stopped: a frame with or without an error code on the stack. */
static uint64_t pushed(struct machine *m, unsigned word)
{
    return *(uint64_t *)(m->memory + state_of(m)->gpr[RSP] + 8 * word);
}

/* ---- plain execution
 * ----------------------------------------------------------------------------------------- */

GUEST(guest_loop, "mov $1000000, %ecx; xor %eax, %eax; 1: add %rcx, %rax; dec %ecx; jnz 1b; hlt")

static void test_a_loop(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s;

    start_64(m, 0, guest_loop, guest_loop_end);
    s = run_to_halt(m);
    assert_int_equal(s->gpr[RAX], 500000500000);
    assert_int_equal(s->rip, CODE + guest_loop_end - guest_loop);
    assert_int_equal(s->mp_state, MP_HALTED);
    assert_int_equal(run(m).kind, EXIT_HALT); /* it sleeps on */
    machine_free(m);
}

GUEST(guest_calls, "mov $20, %edi; call 1f; hlt;"
                   "1: cmp $2, %edi; jae 2f; mov %rdi, %rax; ret;"
                   "2: push %rbx; push %rdi; dec %edi; call 1b; mov %rax, %rbx; mov (%rsp), %rdi;"
                   "sub $2, %edi; call 1b; add %rbx, %rax; pop %rdi; pop %rbx; ret")

static void test_calls(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_calls, guest_calls_end);
    assert_int_equal(run_to_halt(m)->gpr[RAX], 6765); /* fib(20) */
    assert_int_equal(state_of(m)->gpr[RSP], STACK);
    machine_free(m);
}

GUEST(guest_ports, "mov $0x1234, %edx; mov $0x77, %eax; out %al, %dx; in $0x60, %eax; hlt")
GUEST(guest_mmio, "mov $0x200000, %ebx; mov $0x3ff000, %edi; movl $0x11223344, 4(%rbx);"
                  "mov 0x10(%rbx), %rax; addw $1, 2(%rbx); hlt")

static void test_devices(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_ports, guest_ports_end);
    assert_int_equal(run_to_halt(m)->gpr[RAX], 0x5a5a5a5a);
    assert_int_equal(m->written, 0x77);
    assert_int_equal(m->served, 2);
    start_64(m, 0, guest_mmio, guest_mmio_end);
    *pte(m, 0x200000) = 0xfec00000 | P | W;
    assert_int_equal(run_to_halt(m)->gpr[RAX], 0xa5a5a5a5a5a5a5a5);
    assert_int_equal(m->last.mmio.gpa, 0xfec00002);
    assert_int_equal(m->last.mmio.len, 2);
    assert_int_equal((uint16_t)m->written, 0xa5a6);
    machine_free(m);
}

/* ---- exceptions
 * ---------------------------------------------------------------------------------------------- */

GUEST(guest_faults, "mov $0x20000, %ebx; push $7; incl (%rbx); nop; hlt")

static void test_a_page_fault(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s;

    start_64(m, 0, guest_faults, guest_faults_end);
    *pte(m, DATA) = DATA | P;
    s = run_to_halt(m);
    assert_int_equal(s->rip, HANDLER + 1);
    assert_int_equal(s->cr2, DATA);
    assert_int_equal(pushed(m, 0), 3);        /* present, write */
    assert_int_equal(pushed(m, 1), CODE + 7); /* the instruction that faulted */
    assert_int_equal(pushed(m, 2), 0x10);
    assert_true(pushed(m, 3) & 1 << 16); /* RF */
    assert_int_equal(pushed(m, 4), STACK - 8);
    assert_int_equal(*(uint32_t *)(m->memory + DATA), 0);

    /* The handler repairs and returns: the instruction is executed again. */
    start_64(m, 0, guest_faults, guest_faults_end);
    *pte(m, DATA) = DATA | P;
    put(m, HANDLER,
        (const uint8_t[]){0x48, 0x83, 0x0c, 0x25, 0x00, 0x41, 0x00, 0x00, 0x02, /* or $2, PTE */
                          0x48, 0x83, 0xc4, 0x08, 0x48, 0xcf}, /* add $8, %rsp; iretq */
        15);
    s = run_to_halt(m);
    assert_int_equal(s->rip, CODE + (guest_faults_end - guest_faults));
    assert_int_equal(*(uint32_t *)(m->memory + DATA), 1);
    assert_int_equal(*pte(m, DATA) & (A | D), A | D);
    machine_free(m);
}

GUEST(guest_ud, "nop; ud2")
GUEST(guest_divide, "xor %ecx, %ecx; div %ecx")
GUEST(guest_not_canonical, "movabs $0x800000000000, %rax; mov (%rax), %ecx")

static void test_other_exceptions(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_ud, guest_ud_end);
    set_gate(m, 6, HANDLER + 16);
    put_halt(m, HANDLER + 16);
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 0), CODE + 1);
    start_64(m, 0, guest_divide, guest_divide_end);
    set_gate(m, 0, HANDLER + 16);
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 0), CODE + 2);
    start_64(m, 0, guest_not_canonical, guest_not_canonical_end);
    set_gate(m, 13, HANDLER + 16);
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 0), 0);
    assert_int_equal(pushed(m, 1), CODE + 10);
    machine_free(m);
}

static void test_triple_fault(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_ud, guest_ud_end);
    memset(m->memory + IDT, 0, 4096);
    assert_int_equal(run(m).kind, EXIT_SHUTDOWN);
    machine_free(m);
}

GUEST(guest_steps, "pushfq; orl $0x100, (%rsp); popfq; nop; mov $1, %eax; hlt")

static void test_single_step(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_steps, guest_steps_end);
    set_gate(m, 1, HANDLER + 16);
    put_halt(m, HANDLER + 16);
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 0), CODE + 10); /* after the nop */
    assert_true(state_of(m)->dr6 & 1 << 14);
    machine_free(m);
}

GUEST(guest_watched, "mov $0x20000, %ebx; mov %rbx, %dr0; mov $0xd0002, %eax; mov %rax, %dr7;"
                     "mov 8(%rbx), %eax; mov %eax, 3(%rbx); nop; nop; hlt")

static void test_a_data_breakpoint(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_watched, guest_watched_end);
    set_gate(m, 1, HANDLER + 16);
    put_halt(m, HANDLER + 16);
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 0), CODE + 5 + 3 + 5 + 3 + 3 + 3); /* after the store */
    assert_int_equal(state_of(m)->dr6 & 0xf, 1);
    machine_free(m);
}

/* ---- translations
 * ------------------------------------------------------------------------------------------- */

/* The guest changes its own PTE of DATA (at 0x4100) to DATA + 0x1000. */
GUEST(guest_invlpg, "mov $0x20000, %ebx; mov (%rbx), %eax; movq $0x21003, 0x4100; mov (%rbx), %ecx;"
                    "invlpg (%rbx); mov (%rbx), %edx; hlt")

static void test_invlpg(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s;

    start_64(m, 0, guest_invlpg, guest_invlpg_end);
    *(uint32_t *)(m->memory + DATA) = 1;
    *(uint32_t *)(m->memory + DATA + 4096) = 2;
    s = run_to_halt(m);
    assert_int_equal(s->gpr[RAX], 1);
    assert_int_equal(s->gpr[RCX], 1);
    assert_int_equal(s->gpr[RDX], 2);
    machine_free(m);
}

/* ---- self-modifying code
 * ------------------------------------------------------------------------------------ */

/* The store changes the immediate of the very next instruction. */
GUEST(guest_modifies, "movb $42, 1f + 1 - guest_modifies + 0x10000; 1: mov $1, %eax; hlt")
/* Three rounds; each changes what the loop's body does through the alias at 0x40000. */
GUEST(guest_alias, "mov $3, %ecx; mov $0x40000, %ebx; xor %eax, %eax;"
                   "1: addl $1, %eax; incb (1b - guest_alias + 2)(%rbx); dec %ecx; jnz 1b; hlt")

static void test_self_modification(void **state)
{
    struct machine *m = machine_new(1);

    start_64(m, 0, guest_modifies, guest_modifies_end);
    assert_int_equal(run_to_halt(m)->gpr[RAX], 42);
    start_64(m, 0, guest_alias, guest_alias_end);
    *pte(m, 0x40000) = CODE | P | W;
    assert_int_equal(run_to_halt(m)->gpr[RAX], 1 + 2 + 3);
    machine_free(m);
}

/* mov $1, %eax lies across the page's end; the second page is exchanged under it. */
GUEST(guest_crossing, "mov $1, %eax; hlt")
GUEST(guest_crossing_caller, "mov $0x12ffd, %ebx; mov $2, %ecx; movb $5, 0x13000; jmp *%rbx")

static void test_code_across_pages(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s;

    start_64(m, 0, guest_crossing_caller, guest_crossing_caller_end);
    memcpy(m->memory + 0x12ffd, guest_crossing, (size_t)(guest_crossing_end - guest_crossing));
    assert_int_equal(run_to_halt(m)->gpr[RAX], 0x50001);
    s = state_of(m);
    memcpy(m->memory + 0x22000, m->memory + 0x13000, 16);
    m->memory[0x22000] = 7;
    *pte(m, 0x13000) = 0x22000 | P | W;
    s->rip = 0x12ffd;
    s->mp_state = MP_RUNNABLE;
    assert_int_equal(accel_jit.set_state(m->cpu[0], s), 0);
    assert_int_equal(run_to_halt(m)->gpr[RAX], 0x70001);
    *pte(m, 0x13000) = 0;
    s = state_of(m);
    s->rip = 0x12ffd;
    s->mp_state = MP_RUNNABLE;
    assert_int_equal(accel_jit.set_state(m->cpu[0], s), 0);
    assert_int_equal(run_to_halt(m)->cr2, 0x13000);
    assert_int_equal(pushed(m, 1), 0x12ffd);
    machine_free(m);
}

/* ---- interrupts
 * ---------------------------------------------------------------------------------------------- */

GUEST(guest_window,
      "mov $1000, %ecx; 1: dec %ecx; jnz 1b; sti; mov $7, %eax; mov $8, %eax; 2: jmp 2b")

static void test_interrupt_window(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s;

    start_64(m, 0, guest_window, guest_window_end);
    assert_false(accel_jit.can_inject(m->cpu[0]));
    accel_jit.request_window(m->cpu[0], true);
    assert_int_equal(run(m).kind, EXIT_IRQ_WINDOW);
    s = state_of(m);
    assert_int_equal(s->gpr[RCX], 0);
    assert_int_equal(s->gpr[RAX], 7); /* the instruction after STI was executed */
    assert_true(accel_jit.can_inject(m->cpu[0]));
    set_gate(m, 0x40, HANDLER + 16);
    put_halt(m, HANDLER + 16);
    assert_int_equal(accel_jit.inject(m->cpu[0], 0x40), 0);
    assert_false(accel_jit.can_inject(m->cpu[0]));
    assert_int_equal(run_to_halt(m)->rip, HANDLER + 17);
    assert_int_equal(pushed(m, 2) & 0x200, 0x200);
    assert_int_equal(state_of(m)->rflags & 0x200, 0);
    machine_free(m);
}

static void *kick_later(void *arg)
{
    struct machine *m = arg;

    while (!__atomic_load_n((uint32_t *)(m->memory + DATA), __ATOMIC_SEQ_CST))
        sched_yield();
    accel_jit.kick(m->cpu[0]);
    return NULL;
}

GUEST(guest_spins, "1: movl $1, 0x20000; jmp 1b")

static void test_kick(void **state)
{
    struct machine *m = machine_new(1);
    pthread_t thread;

    start_64(m, 0, guest_spins, guest_spins_end);
    assert_int_equal(pthread_create(&thread, NULL, kick_later, m), 0);
    assert_int_equal(run(m).kind, EXIT_KICKED);
    pthread_join(thread, NULL);
    accel_jit.kick(m->cpu[0]); /* before it runs */
    assert_int_equal(run(m).kind, EXIT_KICKED);
    machine_free(m);
}

/* ---- several vCPUs
 * ------------------------------------------------------------------------------------------- */

enum { ROUNDS = 20000 };

/* Counts in an aligned place, in one across a page boundary, and once in a while in its own code.
 */
GUEST(guest_counts, "mov $20000, %ecx; 1: lock incl 0x20000; lock incq 0x20ffc;"
                    "test $0xff, %cl; jnz 2f; lock incl 3f - guest_counts + 0x10001;"
                    "2: dec %ecx; jnz 1b; 3: mov $0, %eax; hlt")

static void *run_vcpu(void *arg)
{
    struct vcpu_exit exit;

    do
        accel_jit.run(arg, &exit);
    while (exit.kind == EXIT_KICKED);
    return (void *)(uintptr_t)exit.kind;
}

static void test_atomics_of_four(void **state)
{
    struct machine *m = machine_new(4);
    pthread_t thread[4];

    for (unsigned i = 0; i < 4; i++)
        start_64(m, i, guest_counts, guest_counts_end);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, run_vcpu, m->cpu[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *kind;

        pthread_join(thread[i], &kind);
        assert_int_equal((uintptr_t)kind, EXIT_HALT);
    }
    assert_int_equal(*(uint32_t *)(m->memory + DATA), 4 * ROUNDS);
    assert_int_equal(*(uint32_t *)(m->memory + DATA + 0xffc), 4 * ROUNDS);
    assert_int_equal(*(uint32_t *)(m->memory + CODE + (guest_counts_end - guest_counts) - 5),
                     4 * (ROUNDS / 256));
    machine_free(m);
}

/* ---- state
 * ---------------------------------------------------------------------------------------------------
 */

static void test_state_round_trip(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s = new_state(), *t;

    start_64(m, 0, guest_loop, guest_loop_end);
    memcpy(s, state_of(m), sizeof(*s));
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s->gpr[i] = 0x1111111111111111ull * i;
    s->rip = 0x1234;
    s->rflags = 0xad7;
    s->fs.base = 0xffff800000000000;
    s->cr2 = 0x5555;
    s->cr8 = 9;
    s->dr[2] = 0x777;
    s->event.interrupt_injected = true;
    s->event.interrupt_vector = 0x99;
    s->event.nmi_masked = true;
    s->event.interrupt_shadow = 2;
    qz_store_le16(s->xsave, 0x27f);
    for (unsigned i = 0; i < 128 + 256; i++)
        s->xsave[32 + i] = (uint8_t)((i & 15) < 10 || i >= 128 ? i * 7 + 1 : 0);
    assert_int_equal(vcpu_state_set_msr(s, 0xc0000082, 0xffffffff81234560), 0); /* LSTAR */
    assert_int_equal(accel_jit.set_state(m->cpu[0], s), 0);
    t = state_of(m);
    for (unsigned i = 0; i < s->msr_count; i++) /* the TSC runs on */
        if (s->msr[i].index == 0x10)
            s->msr[i].value = t->msr[i].value;
    assert_int_equal(t->msr_count, s->msr_count);
    assert_memory_equal(t->msr, s->msr, s->msr_count * sizeof(s->msr[0]));
    assert_memory_equal(t->xsave, s->xsave, 576);
    assert_memory_equal(&t->event, &s->event, sizeof(s->event));
    assert_memory_equal(t, s, offsetof(struct vcpu_state, mp_state));
    s->cr4 |= 1 << 12; /* LA57: not this processor's */
    assert_int_equal(accel_jit.set_state(m->cpu[0], s), -EINVAL);
    free(s);
    machine_free(m);
}

__asm__(".pushsection .rodata\n.code16\nguest_real:\n"
        "mov $0x1234, %ax; mov %ax, %ds; movw $0x55aa, 0x10; mov %cs, %bx; hlt\n"
        "guest_real_end:\n.code64\n.popsection");
extern const uint8_t guest_real[], guest_real_end[];

/* Counters that are set while the clocks stand go on from there, all together. */
static void test_counters_start_together(void **state)
{
    struct machine *m = machine_new(2);
    struct vcpu_state *s = new_state();
    uint64_t tsc[2];

    assert_non_null(s);
    assert_int_equal(accel_jit.clock_stop(m->vm), 0);
    for (unsigned i = 0; i < 2; i++) {
        vcpu_state_reset(s, i == 0, i);
        assert_int_equal(vcpu_state_set_msr(s, MSR_TSC, 1000000), 0);
        assert_int_equal(accel_jit.set_state(m->cpu[i], s), 0);
        usleep(2000); /* what lies between the vCPUs' resets is not to be seen */
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(accel_jit.get_state(m->cpu[i], s), 0);
        assert_int_equal(s->msr[0].index, MSR_TSC);
        assert_int_equal(s->msr[0].value, 1000000);
    }
    assert_int_equal(accel_jit.clock_start(m->vm), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_jit.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[0], 1000000, 1ull << 40);
    assert_in_range(tsc[1], tsc[0], 1ull << 40); /* it was read later */
    vcpu_state_init(s, 1);
    assert_int_equal(accel_jit.set_state(m->cpu[1], s), 0); /* INIT leaves the counter alone */
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_jit.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[1], tsc[0], 1ull << 40);
    free(s);
    machine_free(m);
}

static void test_real_mode(void **state)
{
    struct machine *m = machine_new(1);
    struct vcpu_state *s = new_state();

    memcpy(m->memory + 0x12000, guest_real, (size_t)(guest_real_end - guest_real));
    vcpu_state_reset(s, false, 0);
    vcpu_state_sipi(s, 0x12);
    assert_int_equal(accel_jit.set_state(m->cpu[0], s), 0);
    free(s);
    s = run_to_halt(m);
    assert_int_equal(s->gpr[RBX], 0x1200);
    assert_int_equal(s->rip, guest_real_end - guest_real);
    assert_int_equal(*(uint16_t *)(m->memory + 0x12350), 0x55aa);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_a_page_fault),
        cmocka_unit_test(test_other_exceptions),
        cmocka_unit_test(test_triple_fault),
        cmocka_unit_test(test_single_step),
        cmocka_unit_test(test_a_data_breakpoint),
        cmocka_unit_test(test_invlpg),
        cmocka_unit_test(test_self_modification),
        cmocka_unit_test(test_code_across_pages),
        cmocka_unit_test(test_interrupt_window),
        cmocka_unit_test(test_kick),
        cmocka_unit_test(test_atomics_of_four),
        cmocka_unit_test(test_state_round_trip),
        cmocka_unit_test(test_counters_start_together),
        cmocka_unit_test(test_real_mode),
    };

    return cmocka_run_group_tests_name("jit", tests, NULL, NULL);
}

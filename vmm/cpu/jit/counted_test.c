/*
 * counted_test.c - slices of instructions (counted.h): the interpreter and the translator stop at
 * the same ones, in the same state, with the same time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/accel.h"

enum {
    MEMORY = 4 << 20,
    PML4 = 0x1000,
    PDPT = 0x2000,
    PD = 0x3000,
    IDT = 0x8000,
    GDT = 0x9000,
    STACK = 0xf000,
    CODE = 0x10000,
    HANDLER = 0x30000,
    DATA = 0x40000,
    SEEN_MAX = 4096,
};

#define GUEST(name, text)                                                                          \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection\n.code64");   \
    extern const uint8_t name[], name##_end[];

/* Everything that counts in its own way: branches that leave a block in its middle, calls, repeated
 * instructions, the counter, ports, faults whose handler skips the instruction, and a division. */
GUEST(work, "mov $0x40000, %ebx\n"
            "mov $3000, %r12d\n"
            "1: mov %r12, %rax; imul $77, %rax, %rcx; adc %rcx, (%rbx); test $3, %r12b; jz 2f\n"
            "add $5, %r13; xor %r13, 8(%rbx); sub $9, %r14; jc 2f; push %rcx; pop %r15\n"
            "2: call 3f; test $31, %r12b; jnz 4f; mov $200, %ecx; lea 0x100(%rbx), %rsi\n"
            "lea 0xf00(%rbx), %rdi; rep movsb; rdtsc; mov %rax, 16(%rbx); out %al, $0x80\n"
            "ud2\n"
            "4: mov %r12d, %eax; xor %edx, %edx; mov $7, %ecx; div %ecx; add %edx, 24(%rbx)\n"
            "dec %r12d; jnz 1b; hlt\n"
            "3: lea (%rax,%rcx), %r8; mov %r8, 0x100(%rbx,%r12,4); ret")
GUEST(handler, "addq $2, (%rsp); incq 32(%rbx); iretq")

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *cpu;
    uint8_t *memory;
    uint32_t seen[SEEN_MAX]; /* executed() at each access to the port */
    unsigned served;
};

static void serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct machine *m = context;

    assert_int_equal(exit->kind, EXIT_PIO);
    assert_in_range(m->served, 0, SEEN_MAX - 1);
    m->seen[m->served++] = accel_jit.executed(m->cpu);
}

static void build(struct machine *m)
{
    uint64_t *pd = (uint64_t *)(m->memory + PD);

    *(uint64_t *)(m->memory + PML4) = PDPT | 3;
    *(uint64_t *)(m->memory + PDPT) = PD | 3;
    pd[0] = 0x83;
    pd[1] = 0x200083;
    for (unsigned v = 0; v < 256; v++) {
        uint64_t *gate = (uint64_t *)(m->memory + IDT) + 2 * v;

        gate[0] =
            (HANDLER & 0xffff) | 0x10 << 16 | 0x8e00ull << 32 | (uint64_t)(HANDLER >> 16) << 48;
    }
    ((uint64_t *)(m->memory + GDT))[2] = 0x00af9b000000ffffull;
    ((uint64_t *)(m->memory + GDT))[3] = 0x00cf93000000ffffull;
    memcpy(m->memory + CODE, work, (size_t)(work_end - work));
    memcpy(m->memory + HANDLER, handler, (size_t)(handler_end - handler));
}

static struct vcpu_state *new_state(void)
{
    struct vcpu_state *s = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*s), 64ul));

    assert_non_null(s);
    vcpu_state_reset(s, true, 0);
    return s;
}

static void start(struct machine *m)
{
    struct vcpu_state *s = new_state();

    vcpu_state_flat(s, 64);
    s->idt = (struct descriptor_table){IDT, 4095};
    s->gdt = (struct descriptor_table){GDT, 0x1f};
    s->cr0 = 0x80010033;
    s->cr3 = PML4;
    s->cr4 = 0x6a0;
    s->efer = 0xd00;
    s->rip = CODE;
    s->gpr[RSP] = STACK;
    s->mp_state = MP_RUNNABLE;
    assert_int_equal(accel_jit.set_state(m->cpu, s), 0);
    free(s);
}

static struct machine *machine_new(bool interpret)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct accel_config config = {
        .vcpus = 1,
        .own_lapic = true,
        .interpret = interpret,
        .deterministic = true,
        .model = CPU_MODEL_PORTABLE,
        .topology = {1, 1, 1},
        .serve = serve,
        .serve_context = m,
    };
    struct qz_error err = {0};

    m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (accel_jit.vm_new(&config, &m->vm, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(accel_jit.memory_map(m->vm, 0, MEMORY, m->memory, false), 0);
    assert_int_equal(accel_jit.vcpu_new(m->vm, 0, &m->cpu, &err), 0);
    build(m);
    start(m);
    return m;
}

static void machine_free(struct machine *m)
{
    accel_jit.vcpu_free(m->cpu);
    accel_jit.vm_free(m->vm);
    munmap(m->memory, MEMORY);
    free(m);
}

/* One slice; false: the guest halted. */
static bool slice(struct machine *m, uint64_t *now, uint32_t count)
{
    struct vcpu_exit exit;

    accel_jit.slice(m->cpu, *now, count);
    assert_int_equal(accel_jit.run(m->cpu, &exit), 0);
    *now += accel_jit.executed(m->cpu);
    if (exit.kind == EXIT_HALT)
        return false;
    assert_int_equal(exit.kind, EXIT_KICKED);
    assert_int_equal(accel_jit.executed(m->cpu), count);
    return true;
}

static void assert_same(struct machine *a, struct machine *b)
{
    struct vcpu_state *s = new_state(), *t = new_state();
    uint64_t hash_a, hash_b;

    assert_int_equal(accel_jit.get_state(a->cpu, s), 0);
    assert_int_equal(accel_jit.get_state(b->cpu, t), 0);
    assert_int_equal(s->rip, t->rip);
    assert_memory_equal(s->gpr, t->gpr, sizeof(s->gpr));
    assert_int_equal(s->rflags, t->rflags);
    assert_memory_equal(a->memory, b->memory, MEMORY);
    assert_int_equal(accel_jit.memory_hash(a->vm, &hash_a), 0);
    assert_int_equal(accel_jit.memory_hash(b->vm, &hash_b), 0);
    assert_int_equal(hash_a, hash_b);
    assert_int_equal(a->served, b->served);
    assert_memory_equal(a->seen, b->seen, a->served * sizeof(a->seen[0]));
    free(s);
    free(t);
}

static uint64_t in_slices(uint32_t count)
{
    struct machine *a = machine_new(true), *b = machine_new(false);
    uint64_t now_a = 0, now_b = 0;
    bool on = true, other;

    for (unsigned n = 0; on; n++) {
        on = slice(a, &now_a, count);
        other = slice(b, &now_b, count);
        assert_int_equal(on, other);
        assert_int_equal(now_a, now_b);
        if (n % 64 == 0 || !on)
            assert_same(a, b);
    }
    assert_int_equal(a->served, 93); /* every 32nd of 3000 */
    assert_int_equal(*(uint64_t *)(a->memory + DATA + 32), 93);
    machine_free(a);
    machine_free(b);
    return now_a;
}

static void test_slices_agree(void **state)
{
    const uint64_t whole = in_slices(1000000);
    static const uint32_t counts[] = {7, 33, 100, 1001, 20000};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(counts); i++)
        assert_int_equal(in_slices(counts[i]), whole);
}

/* A handler that faults at its first instruction takes time, too. */
static void test_faults_without_end(void **state)
{
    struct machine *m = machine_new(false);
    uint64_t now = 0;

    memcpy(m->memory + CODE, "\x0f\x0b", 2);
    memcpy(m->memory + HANDLER, "\x0f\x0b", 2);
    for (unsigned i = 0; i < 20; i++)
        assert_true(slice(m, &now, 10));
    assert_int_equal(now, 200);
    machine_free(m);
}

static uint64_t number(struct machine *m)
{
    uint64_t n;

    assert_int_equal(accel_jit.memory_hash(m->vm, &n), 0);
    return n;
}

static void test_memory_hash(void **state)
{
    struct machine *m = machine_new(false);
    const uint64_t before = number(m);
    uint64_t changed;

    assert_int_equal(number(m), before);
    m->memory[DATA + 5] = 1;
    accel_jit.memory_written(m->vm, DATA + 5, 1);
    changed = number(m);
    assert_int_not_equal(changed, before);
    m->memory[DATA + 5] = 0;
    m->memory[DATA + 4096 + 5] = 1; /* the same byte on another page */
    accel_jit.memory_written(m->vm, DATA, 8192);
    assert_int_not_equal(number(m), before);
    assert_int_not_equal(number(m), changed);
    m->memory[DATA + 4096 + 5] = 0;
    accel_jit.memory_written(m->vm, DATA + 4096, 4096);
    assert_int_equal(number(m), before);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices_agree),
        cmocka_unit_test(test_faults_without_end),
        cmocka_unit_test(test_memory_hash),
    };

    return cmocka_run_group_tests_name("jit-counted", tests, NULL, NULL);
}

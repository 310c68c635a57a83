/* smp.c - starting other CPUs and giving them work; the local APIC as x2APIC (cpu.h; SDM vol 3
 * §11.12). */
#include "cpu.h"

extern const char ap_code[], ap_code_end[];
extern volatile uint32_t ap_next, ap_limit;
void ap_main(unsigned n);

enum { AP_PAGE = AP_ENTRY >> 12, MSR_APIC_BASE = 0x1b, APIC_ENABLE = 3 << 10, SVR_ENABLE = 1 << 8 };
enum { ALL_BUT_SELF = 3 << 18 };

uint8_t cpu_stacks[CPUS_MAX][CPU_STACK] __attribute__((aligned(4096)));

static struct worker {
    void (*volatile fn)(void *);
    void *volatile argument;
    volatile uint32_t running, id;
} workers[CPUS_MAX];

static volatile uint32_t started = 1;

/* ---- the local APIC ----------------------------------------------------------------------------
 */

void apic_write(unsigned reg, uint64_t v)
{
    wrmsr(reg, v);
}

uint64_t apic_read(unsigned reg)
{
    return rdmsr(reg);
}

void apic_ipi(uint32_t id, uint32_t command)
{
    apic_write(APIC_ICR, (uint64_t)id << 32 | command);
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

void apic_enable(void)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_ENABLE);
    apic_write(APIC_SVR, SVR_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_TPR, 0);
    workers[cpu_number()].id = (uint32_t)apic_read(APIC_ID);
}

uint32_t apic_id(unsigned n)
{
    return workers[n].id;
}

bool apic_is_pending(unsigned vector)
{
    return apic_read(APIC_IRR + vector / 32) >> vector % 32 & 1;
}

void apic_make_pending(unsigned vector)
{
    interrupts_off();
    apic_write(APIC_SELF_IPI, vector);
    for (unsigned i = 0; i < 1000 && !apic_is_pending(vector); i++)
        ;
    check_true("the interrupt is pending", apic_is_pending(vector));
}

void check_interrupt_at(const struct trap *t, unsigned vector, const char *code, uint64_t offset)
{
    check("vector", vector, t->vector);
    check("rip, from the start of the code", offset, t->rip - (uint64_t)code);
    if (t->vector == vector)
        apic_eoi();
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

/* Long enough for a busy host, short enough for a person. */
#define PATIENCE 60000000000ull

/* QEMU 7.2's emulation of SVM loses an IPI now and then: who has work is called again. Elsewhere
 * nothing may be lost. */
static void call_again(void)
{
    for (unsigned n = 0; n < started; n++)
        if (n != cpu_number() && workers[n].running)
            apic_ipi(workers[n].id, IPI_FIXED | IPI_ASSERT | VECTOR_WAKE);
}

bool wait_for(const volatile uint32_t *flag, uint32_t value)
{
    const bool lossy = option("tcg");
    const uint64_t patience = lossy ? 4 * PATIENCE : PATIENCE; /* an emulated host is slow, too */
    const uint64_t start = rdtsc();
    uint64_t called = start;

    while (*flag != value) {
        const uint64_t now = rdtsc();

        if (now - start > patience)
            return false;
        if (lossy && now - called > PATIENCE / 64) {
            called = now;
            call_again();
        }
        asm volatile("pause");
    }
    return true;
}

/* ---- other CPUs --------------------------------------------------------------------------------
 */

unsigned cpus_started(void)
{
    return started;
}

static void wake_up(void)
{
    asm volatile("lock incl %0" : "+m"(started) : : "memory");
}

static bool on_wake(struct trap *t)
{
    apic_eoi();
    return true;
}

/* Sleeps by HLT; STI's shadow keeps the IPI that brings work from being lost before it. */
_Noreturn void ap_main(unsigned n)
{
    struct worker *w = &workers[n];

    cpu_start(n);
    apic_enable();
    wake_up();
    for (;;) {
        interrupts_off();
        if (!w->running) {
            asm volatile("sti; hlt" : : : "memory");
            continue;
        }
        w->fn(w->argument);
        asm volatile("" : : : "memory");
        w->running = 0;
    }
}

void cpu_call(unsigned n, void (*fn)(void *), void *argument)
{
    struct worker *w = &workers[n];

    trap_handle(VECTOR_WAKE, on_wake);
    w->fn = fn;
    w->argument = argument;
    w->running = 1;
    apic_ipi(w->id, IPI_FIXED | IPI_ASSERT | VECTOR_WAKE);
}

void cpu_wait(unsigned n)
{
    check_true("the other CPU ended its work", wait_for(&workers[n].running, 0));
}

void smp_start(unsigned limit)
{
    memcpy((void *)AP_ENTRY, ap_code, (size_t)(ap_code_end - ap_code));
    ap_limit = limit < CPUS_MAX ? limit : CPUS_MAX;
    apic_write(APIC_ICR, ALL_BUT_SELF | IPI_INIT | IPI_ASSERT);
    apic_write(APIC_ICR, ALL_BUT_SELF | IPI_STARTUP | IPI_ASSERT | AP_PAGE);
    wait_for(&started, ap_limit);
}

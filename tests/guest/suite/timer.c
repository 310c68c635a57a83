/* timer.c - the local APIC's timer, sleeping by HLT, IPIs between CPUs, how many CPUs there are
 * (SDM vol 3 §10.5.4, §10.6). */
#include "cpu.h"
#include "tests64.h"

enum { TIMER = 0x60, MASKED = 1 << 16, PERIODIC = 1 << 17, DEADLINE = 2 << 17, DIVIDE_BY_1 = 11 };
enum { MSR_TSC_DEADLINE = 0x6e0 };
#define PATIENCE 20000000000ull

static volatile uint32_t ticks;

static bool on_tick(struct trap *t)
{
    ticks++;
    apic_eoi();
    return true;
}

static void timer_start(uint32_t lvt)
{
    interrupts_off();
    ticks = 0;
    trap_handle(TIMER, on_tick);
    apic_write(APIC_LVT_TIMER, lvt | TIMER);
}

static void timer_stop(void)
{
    apic_write(APIC_TIMER_COUNT, 0);
    apic_write(APIC_LVT_TIMER, MASKED);
    interrupts_on();
    asm volatile("nop");
    interrupts_off();
}

/* Sleeps until the timer has come `count` times. */
static void sleep_until(uint32_t count)
{
    const uint64_t start = rdtsc();

    for (;;) {
        interrupts_off();
        if (ticks >= count || rdtsc() - start > PATIENCE)
            return;
        asm volatile("sti; hlt" : : : "memory");
    }
}

static bool deadline_offered(void)
{
    if (has_feature(1, 2, 24))
        return true;
    skip("the TSC deadline is not offered");
    return false;
}

static void deadline(void)
{
    uint64_t start;

    if (!deadline_offered())
        return;
    timer_start(DEADLINE);
    for (uint32_t i = 1; i <= 5; i++) {
        start = rdtsc();
        wrmsr(MSR_TSC_DEADLINE, start + 2000000);
        sleep_until(i);
        check("ticks", i, ticks);
        if (!option("tcg")) /* the emulated host's TSC is not stable */
            check_true("not before its time", rdtsc() - start >= 2000000);
        check("the MSR is 0 after it", 0, rdmsr(MSR_TSC_DEADLINE));
    }
    timer_stop();
}

static void deadline_in_the_past(void)
{
    if (!deadline_offered())
        return;
    timer_start(DEADLINE);
    wrmsr(MSR_TSC_DEADLINE, 1);
    sleep_until(1);
    check("ticks", 1, ticks);
    timer_stop();
}

static void deadline_disarmed(void)
{
    const uint64_t start = rdtsc();

    if (!deadline_offered())
        return;
    timer_start(DEADLINE);
    wrmsr(MSR_TSC_DEADLINE, start + 1000000000);
    check("armed", start + 1000000000, rdmsr(MSR_TSC_DEADLINE));
    wrmsr(MSR_TSC_DEADLINE, 0);
    check("disarmed", 0, rdmsr(MSR_TSC_DEADLINE));
    interrupts_on();
    while (rdtsc() - start < 1200000000)
        asm volatile("pause");
    interrupts_off();
    check("ticks", 0, ticks);
    timer_stop();
}

static void one_shot(void)
{
    timer_start(0);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_TIMER_COUNT, 1000000);
    sleep_until(1);
    check("ticks", 1, ticks);
    check("the count has run down", 0, apic_read(APIC_TIMER_NOW));
    timer_stop();
}

static void periodic(void)
{
    timer_start(PERIODIC);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_TIMER_COUNT, 2000000);
    sleep_until(5);
    check_true("5 ticks or more", ticks >= 5);
    check_true("the count goes on", apic_read(APIC_TIMER_NOW) <= 2000000);
    timer_stop();
}

static void masked(void)
{
    const uint64_t start = rdtsc();

    timer_start(MASKED);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_TIMER_COUNT, 1000);
    interrupts_on();
    while (apic_read(APIC_TIMER_NOW) != 0 && rdtsc() - start < PATIENCE)
        asm volatile("pause");
    interrupts_off();
    check("ticks", 0, ticks);
    timer_stop();
}

/* ---- between CPUs
 * ------------------------------------------------------------------------------------- */

static void answer(void *argument)
{
    volatile uint32_t *count = argument;

    asm volatile("lock incl %0" : "+m"(*count) : : "memory", "cc");
}

static void calls(void)
{
    static volatile uint32_t count;

    if (cpus_started() < 2) {
        skip("needs two CPUs");
        return;
    }
    count = 0;
    for (unsigned i = 0; i < 100; i++) {
        cpu_call(1, answer, (void *)&count);
        cpu_wait(1);
    }
    check("calls", 100, count);
}

static void cpus(void)
{
    static volatile uint32_t count;
    const unsigned wanted = (unsigned)option_number("cpus", 1);

    check("started", wanted, cpus_started());
    count = 0;
    for (unsigned i = 1; i < cpus_started(); i++)
        cpu_call(i, answer, (void *)&count);
    for (unsigned i = 1; i < cpus_started(); i++)
        cpu_wait(i);
    check("answered", wanted - 1, count);
    for (unsigned i = 0; i < cpus_started(); i++)
        for (unsigned k = 0; k < i; k++)
            check_true("each has an APIC ID of its own", apic_id(i) != apic_id(k));
}

static const struct test tests[] = {
    {"CPUs: all start", cpus},
    {"CPUs: IPI and HLT", calls},
    {"timer: TSC deadline", deadline},
    {"timer: TSC deadline in the past", deadline_in_the_past},
    {"timer: TSC deadline disarmed", deadline_disarmed},
    {"timer: one-shot", one_shot},
    {"timer: periodic", periodic},
    {"timer: masked", masked},
};

void timer_tests(void)
{
    TESTS(tests);
}

/* cpus.c - the local APIC as x2APIC: other CPUs, and a timer (cpus.h; SDM vol 3 §11.12). */
#include "cpus.h"

extern char ap_code[], ap_code_end[], ap_gdt[], ap_cr3[], timer_entry[];
void *memcpy(void *restrict to, const void *restrict from, unsigned long n);
void ap_main(unsigned n);

enum { APIC_BASE = 0x1b, APIC_SVR = 0x80f, APIC_ICR = 0x830, APIC_LVT_TIMER = 0x832 };
enum { APIC_INITIAL = 0x838, APIC_DIVIDE = 0x83e, DIVIDE_BY_1 = 11, PERIODIC = 1 << 17 };
enum { X2APIC = 3 << 10, ENABLED = 1 << 8, SPURIOUS = 0xff, TIMER = 0x40 };
enum { ALL_BUT_SELF = 3 << 18, ASSERT = 1 << 14, INIT = 5 << 8, STARTUP = 6 << 8 };
enum { CODE_SEGMENT = 8, INTERRUPT_GATE = 0x8e00, OSFXSR = 3 << 9 };

struct gate {
    uint16_t low, segment, type, middle;
    uint32_t high, zero;
};

static struct gate idt[TIMER + 1];
static void (*ap_work)(unsigned n);

static uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;

    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

static void wrmsr(uint32_t index, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(index), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static void cpu_prepare(void)
{
    uint64_t cr4;

    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | OSFXSR));
    wrmsr(APIC_BASE, rdmsr(APIC_BASE) | X2APIC);
    wrmsr(APIC_SVR, ENABLED | SPURIOUS);
}

void ap_main(unsigned n)
{
    cpu_prepare();
    ap_work(n);
}

void cpus_start(unsigned count, void (*work)(unsigned n))
{
    uint64_t cr3;

    cpu_prepare();
    if (count < 2)
        return;
    ap_work = work;
    __asm__ volatile("sgdt %0" : "=m"(*(char(*)[10])ap_gdt));
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    *(volatile uint32_t *)ap_cr3 = (uint32_t)cr3;
    memcpy((void *)(uintptr_t)AP_PAGE, ap_code, (unsigned long)(ap_code_end - ap_code));
    wrmsr(APIC_ICR, ALL_BUT_SELF | INIT | ASSERT);
    wrmsr(APIC_ICR, ALL_BUT_SELF | STARTUP | ASSERT | AP_PAGE >> 12);
}

void timer_start(unsigned ms)
{
    const struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } pointer = {sizeof(idt) - 1, (uintptr_t)idt};
    const uintptr_t entry = (uintptr_t)timer_entry;

    idt[TIMER] = (struct gate){.low = (uint16_t)entry,
                               .segment = CODE_SEGMENT,
                               .type = INTERRUPT_GATE,
                               .middle = (uint16_t)(entry >> 16)};
    __asm__ volatile("lidt %0" : : "m"(pointer));
    wrmsr(APIC_DIVIDE, DIVIDE_BY_1);
    wrmsr(APIC_LVT_TIMER, PERIODIC | TIMER);
    wrmsr(APIC_INITIAL, ms * 1000000u);
}

void timer_wait(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* main64.c - the 64-bit suite: start of the machine, then table after table. */
#include "cpu.h"
#include "tests64.h"

void suite_main(void);

extern uint64_t start_info;
enum { START_INFO_CMDLINE = 24 };

void suite_main(void)
{
    const uint64_t *cmdline = (const uint64_t *)(start_info + START_INFO_CMDLINE);

    if (*cmdline)
        options_read((const char *)*cmdline);
    page_start();
    cpu_start(0);
    apic_enable();
    smp_start((unsigned)option_number("cpus", 1));
    tests_before_each(cpu_reset);
    page_fault_tests();
    accessed_tests();
    tlb_tests();
    smc_tests();
    chain_tests();
    precise_tests();
    atomic_tests();
    interrupt_tests();
    double_fault_tests();
    apic_tests();
    timer_tests();
    debug_tests();
    privilege_tests();
    segment_tests();
    feature_tests();
    fpu_tests();
    tests_summary();
    power_off();
}

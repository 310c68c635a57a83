/* main32.c - the 32-bit suite: start of the machine, then table after table. */
#include "cpu32.h"
#include "tests32.h"

void suite_main(void);

extern uint32_t start_info;
enum { START_INFO_CMDLINE = 24 };

void suite_main(void)
{
    const uint32_t *cmdline = (const uint32_t *)(start_info + START_INFO_CMDLINE);

    if (*cmdline)
        options_read((const char *)*cmdline);
    tests_before_each(cpu_reset);
    segment32_tests();
    task32_tests();
    paging32_tests();
    mode32_tests();
    tests_summary();
    power_off();
}

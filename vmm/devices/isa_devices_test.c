/* isa_devices_test.c - RTC, ACPI PM block and the single-port devices, by their ports. */
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "devices/acpi_pm.h"
#include "devices/isa_ports.h"
#include "devices/rtc.h"
#include "devices/virtio/test_driver.h"
#include "test_state.h"

struct fixture {
    struct vtest_machine *tm;
    struct rtc *rtc;
    struct acpi_pm *pm;
    struct isa_ports *ports;
};

static uint32_t in(struct fixture *f, unsigned port, unsigned size)
{
    uint32_t v = 0;

    bus_read(f->tm->m.pio, port, &v, size);
    return v;
}

static void out(struct fixture *f, unsigned port, unsigned size, uint32_t v)
{
    bus_write(f->tm->m.pio, port, &v, size);
}

static uint8_t cmos(struct fixture *f, uint8_t index)
{
    out(f, 0x70, 1, index);
    return in(f, 0x71, 1);
}

static void set_cmos(struct fixture *f, uint8_t index, uint8_t v)
{
    out(f, 0x70, 1, index);
    out(f, 0x71, 1, v);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->tm = vtest_machine_new(0);
    assert_int_equal(rtc_new(&f->rtc, &f->tm->m, NULL), 0);
    assert_int_equal(acpi_pm_new(&f->pm, &f->tm->m, NULL), 0);
    assert_int_equal(isa_ports_new(&f->ports, &f->tm->m, -1, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    isa_ports_free(f->ports);
    acpi_pm_free(f->pm);
    rtc_free(f->rtc);
    vtest_machine_free(f->tm);
    free(f);
    return 0;
}

static int from_bcd(uint8_t v)
{
    return (v >> 4) * 10 + (v & 15);
}

static void rtc_tells_the_hosts_time(void **state)
{
    struct fixture *f = *state;
    time_t before = time(NULL), told;
    struct timespec after;
    struct tm tm = {0};

    /* The registers are read one by one; a read over a second's edge is told by reading again. */
    do {
        tm.tm_sec = from_bcd(cmos(f, 0));
        tm.tm_min = from_bcd(cmos(f, 2));
        tm.tm_hour = from_bcd(cmos(f, 4));
        tm.tm_mday = from_bcd(cmos(f, 7));
        tm.tm_mon = from_bcd(cmos(f, 8)) - 1;
        tm.tm_year = from_bcd(cmos(f, 9)) + (from_bcd(cmos(f, 0x32)) - 19) * 100;
    } while (from_bcd(cmos(f, 0)) != tm.tm_sec);
    told = timegm(&tm);
    clock_gettime(CLOCK_REALTIME, &after); /* time() may lag behind by a tick */
    assert_true(told >= before && told <= after.tv_sec);
    assert_int_equal(cmos(f, 0x0d), 0x80);
}

static void rtc_takes_a_new_time(void **state)
{
    struct fixture *f = *state;

    set_cmos(f, 0x0b, 0x82); /* SET */
    set_cmos(f, 0x32, 0x20);
    set_cmos(f, 9, 0x31);
    set_cmos(f, 8, 0x12);
    set_cmos(f, 7, 0x24);
    set_cmos(f, 4, 0x18);
    set_cmos(f, 2, 0x30);
    set_cmos(f, 0, 0x00);
    set_cmos(f, 0x0b, 0x02);
    assert_int_equal(cmos(f, 9), 0x31);
    assert_int_equal(cmos(f, 8), 0x12);
    assert_int_equal(cmos(f, 4), 0x18);
    assert_int_equal(cmos(f, 2), 0x30);
}

static void rtc_survives_any_register_value(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 256; i++)
        for (int v = 0; v < 256; v += 17) {
            set_cmos(f, i, v);
            cmos(f, i);
        }
}

static void cmos_holds_the_memory_size(void **state)
{
    struct fixture *f = *state;
    uint64_t size = (uint64_t)(cmos(f, 0x34) | cmos(f, 0x35) << 8) << 16;

    assert_int_equal(size + (16 << 20), f->tm->m.memory.low_size);
}

static void pm_timer_runs(void **state)
{
    struct fixture *f = *state;

    /* The clock of a machine that was not started stands still; its counter must be a 24-bit value.
     */
    assert_int_equal(in(f, ACPI_PM_BASE + 8, 4) & 0xff000000, 0);
}

static void power_button_reaches_a_listening_guest(void **state)
{
    struct fixture *f = *state;

    assert_false(acpi_pm_power_button(f->pm));
    out(f, ACPI_PM_BASE + 0, 2, 0x100); /* clear */
    out(f, ACPI_PM_BASE + 2, 2, 0x100); /* PWRBTN_EN */
    assert_true(acpi_pm_power_button(f->pm));
    assert_true(in(f, ACPI_PM_BASE + 0, 2) & 0x100);
    out(f, ACPI_PM_BASE + 0, 2, 0x100);
    assert_false(in(f, ACPI_PM_BASE + 0, 2) & 0x100);
}

static void s5_powers_off(void **state)
{
    struct fixture *f = *state;

    out(f, ACPI_PM_BASE + 4, 2, 1 << 13 | 3 << 10);
    assert_int_equal(f->tm->requests[MACHINE_POWEROFF], 0); /* no such sleep type */
    out(f, ACPI_PM_BASE + 4, 2, 1 << 13 | ACPI_SLEEP_S5 << 10);
    assert_int_equal(f->tm->requests[MACHINE_POWEROFF], 1);
    assert_false(in(f, ACPI_PM_BASE + 4, 2) & 1 << 13);
}

static void pm_block_moves(void **state)
{
    struct fixture *f = *state;

    acpi_pm_map(f->pm, 0xb000, true);
    assert_int_equal(in(f, ACPI_PM_BASE + 4, 2), 0xffff);
    assert_int_equal(in(f, 0xb004, 2) & 1, 1);
    acpi_pm_map(f->pm, 0xb000, false);
    assert_int_equal(in(f, 0xb004, 2), 0xffff);
}

static void keyboard_controller_answers_at_once_and_resets(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, 0x64, 1) & 1, 0);
    out(f, 0x64, 1, 0xaa);
    assert_int_equal(in(f, 0x64, 1) & 1, 1);
    assert_int_equal(in(f, 0x60, 1), 0x55);
    assert_int_equal(in(f, 0x64, 1) & 3, 0);
    out(f, 0x64, 1, 0xff); /* pulses nothing */
    assert_int_equal(f->tm->requests[MACHINE_RESET], 0);
    out(f, 0x64, 1, 0xfe);
    assert_int_equal(f->tm->requests[MACHINE_RESET], 1);
}

static void pvpanic_and_port92_ask_the_machine(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in(f, PVPANIC_PORT, 1) & 1, 1);
    out(f, PVPANIC_PORT, 1, 2);
    assert_int_equal(f->tm->requests[MACHINE_PANIC], 0);
    out(f, PVPANIC_PORT, 1, 1);
    assert_int_equal(f->tm->requests[MACHINE_PANIC], 1);
    out(f, 0x92, 1, 3);
    assert_int_equal(f->tm->requests[MACHINE_RESET], 1);
}

static void their_state_is_kept(void **state)
{
    struct fixture *f = *state;

    set_cmos(f, 0x0a, 0x26);
    set_cmos(f, 0x0b, 0x42); /* periodic interrupts */
    set_cmos(f, 0x40, 0x5a);
    out(f, ACPI_PM_BASE + 2, 2, 0x101); /* PM1_EN: timer and power button */
    acpi_pm_power_button(f->pm);
    out(f, 0x64, 1, 0x60);
    out(f, 0x60, 1, 0x45);
    out(f, 0x64, 1, 0x20); /* the answer waits */
    TEST_STATE_KEPT(f->rtc, rtc_state, rtc_reset);
    TEST_STATE_KEPT(f->pm, acpi_pm_state, acpi_pm_reset);
    TEST_STATE_KEPT(f->ports, isa_ports_state, isa_ports_reset);
    assert_int_equal(cmos(f, 0x40), 0x5a);
    assert_int_equal(in(f, ACPI_PM_BASE, 2) & 0x100, 0x100);
    assert_int_equal(in(f, 0x60, 1), 0x45);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rtc_tells_the_hosts_time, setup, teardown),
        cmocka_unit_test_setup_teardown(rtc_takes_a_new_time, setup, teardown),
        cmocka_unit_test_setup_teardown(rtc_survives_any_register_value, setup, teardown),
        cmocka_unit_test_setup_teardown(cmos_holds_the_memory_size, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_timer_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(power_button_reaches_a_listening_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(s5_powers_off, setup, teardown),
        cmocka_unit_test_setup_teardown(pm_block_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(keyboard_controller_answers_at_once_and_resets, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(pvpanic_and_port92_ask_the_machine, setup, teardown),
        cmocka_unit_test_setup_teardown(their_state_is_kept, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

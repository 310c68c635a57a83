/* serial_test.c - the UART as Linux's 8250 driver meets it, and a terminal that takes nothing. */
#include "devices/serial.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "devices/virtio/test_driver.h"
#include "test_state.h"

enum { PORT = 0x3f8, IRQ = 4 };
enum { THR = 0, RBR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

struct fixture {
    struct vtest_machine *tm;
    struct terminal *terminal;
    struct serial *serial;
    int in[2], out[2]; /* pipes: typed bytes, and what the guest wrote */
};

static uint8_t in8(struct fixture *f, unsigned reg)
{
    uint8_t v = 0;

    bus_read(f->tm->m.pio, PORT + reg, &v, 1);
    return v;
}

static void out8(struct fixture *f, unsigned reg, uint8_t v)
{
    bus_write(f->tm->m.pio, PORT + reg, &v, 1);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(pipe2(f->in, O_NONBLOCK), 0);
    assert_int_equal(pipe2(f->out, O_NONBLOCK), 0);
    f->tm = vtest_machine_new(0);
    assert_int_equal(terminal_new(&f->terminal, f->tm->m.main_loop, f->in[0], f->out[1], NULL), 0);
    assert_int_equal(serial_new(&f->serial, &f->tm->m, PORT, IRQ, f->terminal, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    serial_free(f->serial);
    terminal_free(f->terminal);
    vtest_machine_free(f->tm);
    for (int i = 0; i < 2; i++) {
        close(f->in[i]);
        close(f->out[i]);
    }
    free(f);
    return 0;
}

static void scratch_and_divisor_are_registers(void **state)
{
    struct fixture *f = *state;

    out8(f, SCR, 0x5a);
    assert_int_equal(in8(f, SCR), 0x5a);
    out8(f, LCR, 0x83);
    out8(f, THR, 0x34);
    out8(f, IER, 0x12);
    assert_int_equal(in8(f, RBR), 0x34);
    assert_int_equal(in8(f, IER), 0x12);
    out8(f, LCR, 0x03);
    assert_int_equal(in8(f, IER), 0);
}

static void bytes_go_out(void **state)
{
    struct fixture *f = *state;
    char buf[8] = "";

    assert_int_equal(in8(f, LSR) & 0x60, 0x60);
    out8(f, THR, 'h');
    out8(f, THR, 'i');
    assert_int_equal(read(f->out[0], buf, sizeof(buf)), 2);
    assert_string_equal(buf, "hi");
    assert_int_equal(in8(f, LSR) & 0x60, 0x60);
}

static bool has_data(void *context)
{
    return in8(context, LSR) & 1;
}

static void typed_bytes_come_in_and_none_is_lost(void **state)
{
    struct fixture *f = *state;
    char sent[100], got[100];

    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = 'a' + i % 26;
    out8(f, FCR, 1);
    assert_int_equal(write(f->in[1], sent, sizeof(sent)), sizeof(sent));
    for (size_t i = 0; i < sizeof(got); i++) {
        assert_int_equal(vtest_run_until(f->tm, has_data, f), 0);
        got[i] = in8(f, RBR);
    }
    assert_memory_equal(sent, got, sizeof(sent));
    assert_false(in8(f, LSR) & 2); /* no overrun */
}

static void interrupts_say_why(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(in8(f, IIR) & 0xf, 1);
    out8(f, MCR, 8);
    out8(f, IER, 2); /* transmitter empty: at once */
    assert_int_equal(in8(f, IIR) & 0xf, 2);
    assert_int_equal(in8(f, IIR) & 0xf, 1); /* reading it acknowledged it */
    out8(f, IER, 3);
    assert_int_equal(write(f->in[1], "x", 1), 1);
    assert_int_equal(vtest_run_until(f->tm, has_data, f), 0);
    assert_int_equal(in8(f, IIR) & 0xf, 4);
    assert_int_equal(in8(f, RBR), 'x');
    assert_int_equal(in8(f, IIR) & 0xf, 1);
}

static void loopback_works(void **state)
{
    struct fixture *f = *state;

    out8(f, MCR, 0x10 | 0x0a);
    assert_int_equal(in8(f, MSR) & 0xf0, 0x90); /* what Linux's autoconfig looks for */
    out8(f, THR, 0x77);
    assert_int_equal(in8(f, RBR), 0x77);
}

static bool transmitter_empty(void *context)
{
    return in8(context, LSR) & 0x20;
}

static void a_full_terminal_makes_the_line_slow(void **state)
{
    struct fixture *f = *state;
    static char sink[1 << 16];
    size_t written = 0, got = 0;
    ssize_t n;

    while (in8(f, LSR) & 0x20) { /* pipe, ring and FIFO fill up */
        out8(f, THR, (uint8_t)written++);
        assert_true(written < 1 << 20);
    }
    while (got < written) {
        n = read(f->out[0], sink, sizeof(sink));
        for (ssize_t i = 0; i < n; i++)
            assert_int_equal((uint8_t)sink[i], (uint8_t)(got + i));
        got += n > 0 ? n : 0;
        vtest_run(f->tm, 10);
    }
    assert_int_equal(vtest_run_until(f->tm, transmitter_empty, f), 0);
}

static void its_state_is_kept(void **state)
{
    struct fixture *f = *state;

    out8(f, FCR, 1);
    out8(f, MCR, 0x18); /* loopback, interrupts on */
    out8(f, THR, 'a');
    out8(f, THR, 'b');
    out8(f, IER, 3);
    out8(f, SCR, 0x77);
    TEST_STATE_KEPT(f->serial, serial_state, serial_reset);
    assert_int_equal(in8(f, RBR), 'a');
    assert_int_equal(in8(f, RBR), 'b');
    assert_int_equal(in8(f, SCR), 0x77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(scratch_and_divisor_are_registers, setup, teardown),
        cmocka_unit_test_setup_teardown(bytes_go_out, setup, teardown),
        cmocka_unit_test_setup_teardown(typed_bytes_come_in_and_none_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_say_why, setup, teardown),
        cmocka_unit_test_setup_teardown(loopback_works, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_terminal_makes_the_line_slow, setup, teardown),
        cmocka_unit_test_setup_teardown(its_state_is_kept, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * virtio_console_test.c - the multiport console between a guest's driver and a terminal on a socket
 * pair: handshake, data and backpressure both ways, size, and messages that make no sense.
 */
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"
#include "test_state.h"

enum { PORTS = 3, RX = 0, TX = 1, CONTROL_RX = 2, CONTROL_TX = 3, PORT1_RX = 4, PORT1_TX = 5 };
enum { RECEIVERS = 8, MESSAGE = 80 };

#define MULTIPORT QZ_BIT(VIRTIO_CONSOLE_F_MULTIPORT)
#define SIZE      QZ_BIT(VIRTIO_CONSOLE_F_SIZE)

struct fixture {
    struct vtest_machine *tm;
    struct terminal *terminal;
    struct virtio_device *d;
    struct virtio_pci *vp;
    struct vtest *t;
    int ends[2];     /* the terminal's: a loop watches a descriptor once */
    int host;        /* the person's end of the terminal */
    char heard[256]; /* by the callback of port 1 */
    size_t heard_len, heard_total;
    uint8_t message[RECEIVERS][MESSAGE]; /* control messages from the device */
    struct iovec in[RECEIVERS];
    int token[RECEIVERS];
};

static void on_output(void *context, const void *data, size_t len)
{
    struct fixture *f = context;
    size_t n = QZ_MIN(len, sizeof(f->heard) - f->heard_len);

    memcpy(f->heard + f->heard_len, data, n);
    f->heard_len += n;
    f->heard_total += len;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err;
    int pair[2];

    f->tm = vtest_machine_new(0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    f->host = pair[0];
    f->ends[0] = pair[1];
    f->ends[1] = fcntl(pair[1], F_DUPFD_CLOEXEC, 0);
    assert_true(f->ends[1] >= 0);
    assert_int_equal(terminal_new(&f->terminal, f->tm->m.main_loop, f->ends[0], f->ends[1], &err),
                     0);
    const struct console_port_config ports[PORTS] = {
        {.terminal = f->terminal},
        {.name = "org.queztl.agent", .output = on_output, .context = f},
        {.name = "sink"},
    };
    assert_int_equal(virtio_console_new(&f->d, &f->tm->m, f->tm->m.main_loop, ports, PORTS, &err),
                     0);
    assert_int_equal(virtio_pci_new(&f->vp, f->d, &err), 0);
    f->t = vtest_open(f->tm, VIRTIO_ID_CONSOLE);
    assert_non_null(f->t);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vtest_close(f->t);
    virtio_pci_free(f->vp);
    terminal_free(f->terminal);
    vtest_machine_free(f->tm);
    close(f->host);
    close(f->ends[0]);
    close(f->ends[1]);
    free(f);
    return 0;
}

/* ---- control messages -------------------------------------------------------------------------
 */

static void give_receiver(struct fixture *f, unsigned i)
{
    f->in[i] = (struct iovec){f->message[i], MESSAGE};
    f->token[i] = vtest_submit(f->t, CONTROL_RX, NULL, 0, &f->in[i], 1);
    assert_true(f->token[i] >= 0);
    vtest_kick(f->t, CONTROL_RX);
}

/* What the driver says to the device. */
static void say(struct fixture *f, uint32_t port, uint16_t event, uint16_t value)
{
    uint8_t m[8];

    qz_store_le32(m, port);
    qz_store_le16(m + 4, event);
    qz_store_le16(m + 6, value);
    assert_int_equal(
        vtest_request(f->t, CONTROL_TX, &(struct iovec){m, sizeof(m)}, 1, NULL, 0, NULL), 0);
}

/* The next message of the device; its text (a name, a size) behind the first 8 bytes. */
static void expect(struct fixture *f, uint32_t port, uint16_t event, uint16_t value,
                   const void *text, size_t len)
{
    uint32_t written;
    int token = vtest_wait_any(f->t, CONTROL_RX, &written);
    unsigned i;

    for (i = 0; i < RECEIVERS && f->token[i] != token; i++)
        ;
    assert_true(i < RECEIVERS);
    assert_int_equal(written, 8 + len);
    assert_int_equal(qz_load_le32(f->message[i]), port);
    assert_int_equal(qz_load_le16(f->message[i] + 4), event);
    assert_int_equal(qz_load_le16(f->message[i] + 6), value);
    assert_memory_equal(f->message[i] + 8, text, len);
    give_receiver(f, i);
}

static void assert_no_message(struct fixture *f)
{
    vtest_run(f->tm, 0);
    assert_int_equal(vtest_poll(f->t, CONTROL_RX), 0);
}

static void negotiate(struct fixture *f, uint64_t features, bool packed)
{
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(vtest_negotiate(f->t, features, packed), 0);
    if (features & MULTIPORT)
        for (unsigned i = 0; i < RECEIVERS; i++)
            give_receiver(f, i);
}

static void expect_size(struct fixture *f, uint16_t columns, uint16_t rows)
{
    uint8_t size[4];

    qz_store_le16(size, columns);
    qz_store_le16(size + 2, rows);
    expect(f, 0, VIRTIO_CONSOLE_RESIZE, 0, size, 4);
}

/* §5.3.6: ready, ports added, each made ready, named or made the console, opened. */
static void handshake(struct fixture *f)
{
    say(f, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1);
    for (unsigned i = 0; i < PORTS; i++)
        expect(f, i, VIRTIO_CONSOLE_PORT_ADD, 1, "", 0);
    assert_no_message(f);
    say(f, 0, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(f, 0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, "", 0);
    expect_size(f, 80, 25);
    expect(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1, "", 0);
    say(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(f, 1, VIRTIO_CONSOLE_PORT_NAME, 1, "org.queztl.agent", 16);
    expect(f, 1, VIRTIO_CONSOLE_PORT_OPEN, 1, "", 0);
    say(f, 2, VIRTIO_CONSOLE_PORT_READY, 1);
    expect(f, 2, VIRTIO_CONSOLE_PORT_NAME, 1, "sink", 4);
    expect(f, 2, VIRTIO_CONSOLE_PORT_OPEN, 1, "", 0);
    say(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_no_message(f);
}

/* ---- data -------------------------------------------------------------------------------------
 */

static void from_guest(struct fixture *f, unsigned q, const char *text)
{
    assert_int_equal(
        vtest_request(f->t, q, &(struct iovec){(void *)text, strlen(text)}, 1, NULL, 0, NULL), 0);
}

static void assert_host_reads(struct fixture *f, const char *want)
{
    char buf[256];
    ssize_t n = read(f->host, buf, sizeof(buf));

    assert_int_equal(n, (ssize_t)strlen(want));
    assert_memory_equal(buf, want, strlen(want));
}

static void type(struct fixture *f, const char *text)
{
    assert_int_equal(write(f->host, text, strlen(text)), (ssize_t)strlen(text));
}

static void assert_guest_reads(struct fixture *f, const char *want)
{
    char buf[64];
    uint32_t written;

    assert_int_equal(
        vtest_request(f->t, RX, NULL, 0, &(struct iovec){buf, sizeof(buf)}, 1, &written), 0);
    assert_int_equal(written, strlen(want));
    assert_memory_equal(buf, want, written);
}

static void both_ways(struct fixture *f)
{
    from_guest(f, TX, "hello, ");
    from_guest(f, TX, "host\n");
    assert_host_reads(f, "hello, host\n");
    type(f, "ls\n");
    assert_guest_reads(f, "ls\n");
}

static void test_handshake_and_data(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(f->t->queue_count, 2 + 2 * PORTS);
    for (unsigned packed = 0; packed < 2; packed++) {
        negotiate(f, MULTIPORT | SIZE, packed);
        handshake(f);
        both_ways(f);
        f->heard_len = 0;
        from_guest(f, PORT1_TX, "{\"ready\":true}\n");
        assert_int_equal(f->heard_len, 15);
        assert_memory_equal(f->heard, "{\"ready\":true}\n", 15);
        from_guest(f, PORT1_TX + 2, "nobody listens"); /* and it is taken all the same */
        assert_int_equal(f->heard_len, 15);
        say(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 0);
        say(f, 0, VIRTIO_CONSOLE_PORT_OPEN, 1);
        both_ways(f);
    }
}

static void test_single_port(void **state)
{
    struct fixture *f = *state;
    char byte;

    negotiate(f, SIZE, false);
    both_ways(f);
    /* There are no control queues and no further ports then (§5.3.2). */
    assert_true(vtest_submit(f->t, PORT1_TX, &(struct iovec){"x", 1}, 1, NULL, 0) >= 0);
    assert_true(vtest_submit(f->t, CONTROL_TX, &(struct iovec){"12345678", 8}, 1, NULL, 0) >= 0);
    assert_true(vtest_submit(f->t, CONTROL_RX, NULL, 0, &(struct iovec){&byte, 1}, 1) >= 0);
    for (unsigned q = CONTROL_RX; q <= PORT1_TX; q++)
        vtest_kick(f->t, q);
    vtest_run(f->tm, 0);
    for (unsigned q = CONTROL_RX; q <= PORT1_TX; q++)
        assert_int_equal(vtest_poll(f->t, q), 0);
    assert_int_equal(f->heard_total, 0);
}

static void test_resize(void **state)
{
    struct fixture *f = *state;
    uint16_t size[2];

    virtio_console_resize(f->d, 132, 43); /* before there is a driver */
    vtest_run(f->tm, 0);
    vtest_device_read(f->t, 0, size, 4);
    assert_int_equal(size[0], 132);
    assert_int_equal(size[1], 43);
    virtio_console_resize(f->d, 80, 25);
    vtest_run(f->tm, 0);
    negotiate(f, MULTIPORT | SIZE, true);
    handshake(f);
    virtio_console_resize(f->d, 200, 60);
    expect_size(f, 200, 60);
    /* Without multiport: a configuration change. */
    negotiate(f, SIZE, false);
    f->tm->msi_count = 0;
    virtio_console_resize(f->d, 100, 30);
    vtest_run(f->tm, 0);
    assert_int_equal(vtest_msi_count(f->tm, 0), 1);
    vtest_device_read(f->t, 0, size, 4);
    assert_int_equal(size[0], 100);
}

static void test_emergency_write(void **state)
{
    struct fixture *f = *state;

    vtest_device_write(f->t, 8, "!\0\0\0", 4); /* before anything was negotiated */
    assert_host_reads(f, "!");
    vtest_device_write(f->t, 9, "?", 1);
    vtest_device_write(f->t, 0, "\1\1\1\1", 4);
    assert_int_equal(read(f->host, (char[1]){0}, 1), -1);
}

/* ---- backpressure -----------------------------------------------------------------------------
 */

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 13 + (i >> 8));
}

struct drain {
    struct fixture *f;
    size_t got, want;
};

static bool drain_some(void *context)
{
    struct drain *d = context;
    uint8_t buf[4096];
    ssize_t n;

    while ((n = read(d->f->host, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != byte_at(d->got + i))
                fail_msg("byte %zu is wrong", d->got + i);
        d->got += n;
    }
    return d->got >= d->want;
}

/* A person who does not read: buffers stay with the device, and nothing is lost. */
static void write_more_than_fits(struct fixture *f, bool saved)
{
    enum { CHUNK = 64 << 10, CHUNKS = 32 };
    uint8_t *data = malloc(CHUNK);
    struct drain drain = {f, 0, (size_t)CHUNK * CHUNKS};
    int token[CHUNKS];
    unsigned done;

    negotiate(f, 0, false);
    for (unsigned c = 0; c < CHUNKS; c++) {
        for (size_t i = 0; i < CHUNK; i++)
            data[i] = byte_at((size_t)c * CHUNK + i);
        token[c] = vtest_submit(f->t, TX, &(struct iovec){data, CHUNK}, 1, NULL, 0);
        assert_true(token[c] >= 0);
    }
    vtest_kick(f->t, TX);
    for (unsigned i = 0; i < 20; i++)
        vtest_run(f->tm, 0);
    done = (unsigned)vtest_poll(f->t, TX);
    assert_true(done < CHUNKS); /* some wait, since nobody reads */
    if (saved)
        VTEST_STATE_KEPT(f->tm, f->vp);
    assert_int_equal(vtest_run_until(f->tm, drain_some, &drain), 0);
    assert_int_equal(drain.got, drain.want);
    for (unsigned c = 0; c < CHUNKS; c++)
        assert_int_equal(vtest_wait(f->t, TX, token[c], NULL), 0);
    free(data);
}

static void test_output_backpressure(void **state)
{
    write_more_than_fits(*state, false);
}

/* What was taken of the buffer at hand is not written twice. */
static void test_state_while_held(void **state)
{
    write_more_than_fits(*state, true);
}

/* A reset takes the half-written buffer away; the next driver starts afresh. */
static void test_reset_while_held(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[1 << 20];
    char buf[4096];

    for (unsigned packed = 0; packed < 2; packed++) {
        negotiate(f, 0, packed);
        assert_true(vtest_submit(f->t, TX, &(struct iovec){data, sizeof(data)}, 1, NULL, 0) >= 0);
        vtest_kick(f->t, TX);
        for (unsigned i = 0; i < 10; i++)
            vtest_run(f->tm, 0);
        assert_int_equal(vtest_poll(f->t, TX), 0);
        assert_int_equal(vtest_reset(f->t), 0);
        for (unsigned i = 0; i < 100; i++) { /* room again: what was taken comes out, no more */
            while (read(f->host, buf, sizeof(buf)) > 0)
                ;
            vtest_run(f->tm, 0);
        }
        negotiate(f, 0, packed);
        both_ways(f);
    }
}

/* One huge buffer is handed on in rounds, so that others on the loop get theirs in between. */
static void test_output_rounds(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[2 << 20];
    int token;

    negotiate(f, MULTIPORT, true);
    handshake(f);
    token = vtest_submit(f->t, PORT1_TX, &(struct iovec){data, sizeof(data)}, 1, NULL, 0);
    assert_true(token >= 0);
    vtest_kick(f->t, PORT1_TX);
    vtest_run(f->tm, 0);
    assert_in_range(f->heard_total, 1, sizeof(data) / 2);
    assert_int_equal(vtest_wait(f->t, PORT1_TX, token, NULL), 0);
    assert_int_equal(f->heard_total, sizeof(data));
}

/* A guest that does not read: typed bytes wait, at first in the device and then in the kernel. */
static void test_input_backpressure(void **state)
{
    enum { BYTES = 40000 };
    struct fixture *f = *state;
    uint8_t *data = malloc(BYTES);
    size_t sent = 0, got = 0;

    negotiate(f, 0, true);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = byte_at(i);
    sent = (size_t)write(f->host, data, BYTES);
    assert_in_range(sent, 10000, BYTES);
    for (unsigned i = 0; i < 20; i++)
        vtest_run(f->tm, 0);
    while (got < sent) {
        uint8_t buf[777];
        uint32_t written;

        assert_int_equal(
            vtest_request(f->t, RX, NULL, 0, &(struct iovec){buf, sizeof(buf)}, 1, &written), 0);
        assert_in_range(written, 1, sizeof(buf));
        assert_memory_equal(buf, data + got, written);
        got += written;
    }
    assert_int_equal(got, sent);
    free(data);
}

/* ---- messages that make no sense --------------------------------------------------------------
 */

static void test_malformed_control(void **state)
{
    static const uint16_t events[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 65535};
    struct fixture *f = *state;
    uint8_t junk[300];

    negotiate(f, MULTIPORT, false);
    memset(junk, 0xff, sizeof(junk));
    for (unsigned len = 1; len < 8; len++) /* too short: taken, and nothing comes of it */
        assert_int_equal(
            vtest_request(f->t, CONTROL_TX, &(struct iovec){junk, len}, 1, NULL, 0, NULL), 0);
    assert_int_equal(vtest_request(f->t, CONTROL_TX, NULL, 0, &(struct iovec){junk, 16}, 1, NULL),
                     0); /* nothing to read in it */
    for (unsigned i = 0; i < QZ_ARRAY_LEN(events); i++)
        if (events[i] != VIRTIO_CONSOLE_DEVICE_READY) { /* that one names no port */
            say(f, PORTS, events[i], 1);
            say(f, UINT32_MAX, events[i], 65535);
        }
    say(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 0);
    say(f, 1, VIRTIO_CONSOLE_PORT_READY, 0);
    assert_no_message(f);
    assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    handshake(f);
    both_ways(f);
}

/* A guest that asks on and on and takes no answer: the answers kept are bounded. */
static void test_answers_not_taken(void **state)
{
    struct fixture *f = *state;
    uint8_t message[MESSAGE];
    uint32_t written;
    unsigned kept = 0;

    assert_int_equal(vtest_negotiate(f->t, MULTIPORT, false), 0);
    for (unsigned i = 0; i < 500; i++)
        say(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    for (;; kept++) {
        int token = vtest_submit(f->t, CONTROL_RX, NULL, 0, &(struct iovec){message, MESSAGE}, 1);

        vtest_kick(f->t, CONTROL_RX);
        vtest_run(f->tm, 0);
        if (vtest_poll(f->t, CONTROL_RX) == 0)
            break;
        assert_int_equal(vtest_wait(f->t, CONTROL_RX, token, &written), 0);
    }
    assert_in_range(kept, 1, 100);
    /* A buffer too small for the message gets its beginning. */
    negotiate(f, 0, false);
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(vtest_negotiate(f->t, MULTIPORT, false), 0);
    say(f, 1, VIRTIO_CONSOLE_PORT_READY, 1);
    assert_int_equal(
        vtest_request(f->t, CONTROL_RX, NULL, 0, &(struct iovec){message, 5}, 1, &written), 0);
    assert_int_equal(written, 5);
}

/* Buffers of the wrong direction carry nothing, and keep nobody busy. */
static void test_wrong_direction(void **state)
{
    struct fixture *f = *state;
    uint8_t byte;

    negotiate(f, 0, false);
    type(f, "abc");
    assert_int_equal(vtest_request(f->t, RX, &(struct iovec){"x", 1}, 1, NULL, 0, NULL), 0);
    assert_int_equal(vtest_request(f->t, TX, NULL, 0, &(struct iovec){&byte, 1}, 1, NULL), 0);
    assert_guest_reads(f, "abc");
    from_guest(f, TX, "ok");
    assert_host_reads(f, "ok");
}

static void test_port_count(void **state)
{
    struct fixture *f = *state;
    struct console_port_config ports[9] = {{0}};
    struct virtio_device *d;
    struct qz_error err;

    assert_int_equal(virtio_console_new(&d, &f->tm->m, f->tm->m.main_loop, ports, 0, &err),
                     -EINVAL);
    assert_int_equal(virtio_console_new(&d, &f->tm->m, f->tm->m.main_loop, ports, 9, &err),
                     -EINVAL);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_handshake_and_data),
        CASE(test_single_port),
        CASE(test_resize),
        CASE(test_emergency_write),
        CASE(test_output_backpressure),
        CASE(test_reset_while_held),
        CASE(test_state_while_held),
        CASE(test_output_rounds),
        CASE(test_input_backpressure),
        CASE(test_malformed_control),
        CASE(test_answers_not_taken),
        CASE(test_wrong_direction),
        CASE(test_port_count),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("virtio-console", tests, NULL, NULL);
}

/*
 * vsock_flow_test.c - what flows through vsock connections: much data with little credit, in both
 * directions; and a guest that lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <sys/socket.h>

#include "devices/virtio/vsock_test_guest.h"

enum { RX, TX };
enum {
    REQUEST = VIRTIO_VSOCK_OP_REQUEST,
    RESPONSE = VIRTIO_VSOCK_OP_RESPONSE,
    RST = VIRTIO_VSOCK_OP_RST,
    SHUTDOWN = VIRTIO_VSOCK_OP_SHUTDOWN,
    RW = VIRTIO_VSOCK_OP_RW,
    CREDIT_UPDATE = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
    CREDIT_REQUEST = VIRTIO_VSOCK_OP_CREDIT_REQUEST,
    MUCH = 6 << 20,
    PACKET = 40000,
};

static int setup(void **state)
{
    *state = guest_new();
    return 0;
}

static int teardown(void **state)
{
    guest_free(*state);
    return 0;
}

static struct vsock *vsock_of(struct guest *g)
{
    return QZ_CONTAINER_OF(g->d, struct vsock, d);
}

/* Byte i of a long stream that does not repeat at powers of two. */
static uint8_t byte_of(uint64_t i)
{
    return (uint8_t)(i * 31 + i / 251 + i / 65521);
}

static void check_bytes(const uint8_t *data, uint64_t from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data[i] != byte_of(from + i))
            fail_msg("byte %llu of the stream is wrong", (unsigned long long)(from + i));
}

/* The guest sends as its credit allows, the host reads in small pieces whenever the guest is stuck.
 */
static void guest_to_host(struct guest *g, bool packed)
{
    static uint8_t data[PACKET], back[30000];
    uint32_t sent = 0, read = 0, fwd = 0;
    unsigned stuck = 0, updates = 0;
    int listener, fd;

    guest_start(g, packed);
    listener = host_listen(g, 1);
    fd = guest_connect(g, listener, 1, 1);
    while (read < MUCH) {
        uint32_t n = QZ_MIN(QZ_MIN((uint32_t)PACKET, MUCH - sent), VSOCK_BUFFER - (sent - fwd));
        struct virtio_vsock_hdr h = guest_header(RW, 1, 1);

        for (uint32_t i = 0; i < n; i++)
            data[i] = byte_of(sent + i);
        h.len = n;
        if (n)
            guest_send(g, h, data, n);
        sent += n;
        while (guest_has_packet(g)) {
            h = guest_expect(g, CREDIT_UPDATE, 1, 1);
            assert_true(h.fwd_cnt - fwd <= sent - fwd);
            fwd = h.fwd_cnt;
            updates++;
        }
        if (!n) { /* no credit: then the host must have something to read, or the update is missing
                   */
            size_t got = host_read(g, fd, back, QZ_MIN(sizeof(back), (size_t)(sent - read)));

            assert_true(got > 0);
            check_bytes(back, read, got);
            read += (uint32_t)got;
            stuck++;
        }
    }
    assert_true(stuck > 0 && updates > 0);
    assert_int_equal(read, MUCH);
    close(fd);
    host_unlisten(g, listener, 1);
}

static void test_guest_to_host(void **state)
{
    guest_to_host(*state, false);
    guest_to_host(*state, true);
}

/* The host sends; the guest gives little credit, and late. */
static void host_to_guest(struct guest *g, bool packed, uint32_t alloc)
{
    static uint8_t data[MUCH], got[GUEST_RX_DATA];
    uint32_t received = 0, taken = 0;
    struct virtio_vsock_hdr h;
    unsigned asked = 0;
    size_t offered = 0;
    int listener, fd;

    guest_start(g, packed);
    listener = host_listen(g, 1);
    h = guest_header(REQUEST, 1, 1);
    h.buf_alloc = alloc;
    guest_send(g, h, NULL, 0);
    guest_expect(g, RESPONSE, 1, 1);
    fd = host_accept(listener);
    for (uint32_t i = 0; i < MUCH; i++)
        data[i] = byte_of(i);
    while (received < MUCH) {
        ssize_t n = send(fd, data + offered, MUCH - offered, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0)
            offered += (size_t)n;
        if (guest_has_packet(g)) {
            h = guest_receive(g, got);
            if (h.op == CREDIT_REQUEST) {
                asked++;
                continue;
            }
            assert_int_equal(h.op, RW);
            check_bytes(got, received, h.len);
            received += h.len;
            assert_true(received - taken <= alloc);
            continue;
        }
        assert_true(received > taken); /* else it waits without a reason */
        taken = received;
        h = guest_header(CREDIT_UPDATE, 1, 1);
        h.buf_alloc = alloc;
        h.fwd_cnt = taken;
        guest_send(g, h, NULL, 0);
    }
    assert_true(asked > 0);
    close(fd);
    host_unlisten(g, listener, 1);
}

static void test_host_to_guest(void **state)
{
    host_to_guest(*state, false, 10000);
    host_to_guest(*state, true, 64 << 10);
    host_to_guest(*state, false, 1 << 20);
}

/* Many connections at once, all of them with data: each gets its share and its own bytes. */
static void test_many(void **state)
{
    enum { COUNT = 40, EACH = 20000 };
    static uint8_t data[EACH], got[GUEST_RX_DATA];
    struct guest *g = *state;
    uint32_t received[COUNT] = {0};
    unsigned order = 0, alternations = 0;
    int listener, fd[COUNT];

    guest_start(g, true);
    listener = host_listen(g, 1);
    for (unsigned i = 0; i < COUNT; i++)
        fd[i] = guest_connect(g, listener, 1, i);
    for (unsigned i = 0; i < COUNT; i++) {
        for (unsigned k = 0; k < EACH; k++)
            data[k] = byte_of(i * EACH + k);
        host_write(g, fd[i], data, EACH);
    }
    for (uint64_t total = 0; total < (uint64_t)COUNT * EACH;) {
        struct virtio_vsock_hdr h = guest_receive(g, got);

        assert_int_equal(h.op, RW);
        assert_true(h.dst_port < COUNT);
        check_bytes(got, h.dst_port * EACH + received[h.dst_port], h.len);
        received[h.dst_port] += h.len;
        total += h.len;
        alternations += h.dst_port != order;
        order = h.dst_port;
    }
    assert_true(alternations > COUNT); /* in turn, not one after the other */
    for (unsigned i = 0; i < COUNT; i++)
        close(fd[i]);
    host_unlisten(g, listener, 1);
}

/* The guest is gone before the host has read: nothing of what it sent is lost. */
static void test_close_with_much_kept(void **state)
{
    static uint8_t data[PACKET], back[VSOCK_BUFFER * 4];
    struct guest *g = *state;

    for (unsigned round = 0; round < 4; round++) {
        uint32_t sent = 0, fwd = 0;
        int listener, fd;

        guest_start(g, round & 1);
        listener = host_listen(g, 1);
        fd = guest_connect(g, listener, 1, 1);
        for (;;) { /* until nothing goes any more */
            struct virtio_vsock_hdr h = guest_header(RW, 1, 1);

            h.len = QZ_MIN((uint32_t)PACKET, VSOCK_BUFFER - (sent - fwd));
            for (uint32_t i = 0; i < h.len; i++)
                data[i] = byte_of(sent + i);
            if (h.len)
                guest_send(g, h, data, h.len);
            sent += h.len;
            if (guest_has_packet(g))
                fwd = guest_expect(g, CREDIT_UPDATE, 1, 1).fwd_cnt;
            else if (!h.len)
                break;
        }
        struct virtio_vsock_hdr h = guest_header(SHUTDOWN, 1, 1);

        h.flags = round & 2 ? VIRTIO_VSOCK_SHUTDOWN_SEND
                            : VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV;
        guest_send(g, h, NULL, 0);
        if (round & 2)
            guest_send(g, guest_header(RST, 1, 1), NULL, 0);
        else
            guest_expect(g, RST, 1, 1);
        assert_int_equal(vsock_of(g)->connections, 1);
        assert_true(sent <= sizeof(back));
        assert_int_equal(host_read(g, fd, back, sizeof(back)), sent);
        check_bytes(back, 0, sent);
        guest_idle(g);
        assert_int_equal(vsock_of(g)->connections, 0);
        close(fd);
        host_unlisten(g, listener, 1);
    }
}

/* More than the credit: the connection is reset, and the device's memory is bounded. */
static void test_overrun(void **state)
{
    static uint8_t data[PACKET];
    struct guest *g = *state;
    struct virtio_vsock_hdr h = guest_header(RW, 1, 1);
    uint32_t sent = 0;
    int listener, fd;

    guest_start(g, false);
    listener = host_listen(g, 1);
    fd = guest_connect(g, listener, 1, 1);
    h.len = PACKET;
    do {
        guest_send(g, h, data, h.len);
        sent += h.len;
        assert_true(sent < 4 * VSOCK_BUFFER);
        while (guest_has_packet(g) && vsock_of(g)->connections)
            if (guest_receive(g, NULL).op == RST)
                guest_idle(g);
    } while (vsock_of(g)->connections);
    assert_true(sent > VSOCK_BUFFER);
    close(fd);
    host_unlisten(g, listener, 1);
}

static void expect_reset_for(struct guest *g, struct virtio_vsock_hdr h, const void *data,
                             size_t len)
{
    guest_send(g, h, data, len);
    guest_expect(g, RST, h.dst_port, h.src_port);
    assert_false(guest_has_packet(g));
}

static void lies(struct guest *g, bool packed)
{
    struct virtio_vsock_hdr h;
    uint8_t data[100] = {0};
    int listener, fd;

    guest_start(g, packed);
    listener = host_listen(g, 1);
    /* Connections that are none. */
    for (unsigned op = 0; op < 12; op++)
        if (op != REQUEST && op != RST)
            expect_reset_for(g, guest_header((uint16_t)op, 1, 77), data, op == RW ? 0 : 20);
    guest_send(g, guest_header(RST, 1, 77), NULL, 0);
    /* Not stream sockets: reset in their own type. */
    h = guest_header(REQUEST, 1, 78);
    h.type = VIRTIO_VSOCK_TYPE_SEQPACKET;
    guest_send(g, h, NULL, 0);
    assert_int_equal(guest_receive(g, NULL).type, VIRTIO_VSOCK_TYPE_SEQPACKET);
    /* From or for somebody else; packets that are no packets. */
    h = guest_header(REQUEST, 1, 79);
    h.src_cid = GUEST_CID + 1;
    guest_send(g, h, NULL, 0);
    h = guest_header(REQUEST, 1, 79);
    h.dst_cid = 1;
    guest_send(g, h, NULL, 0);
    assert_int_equal(
        vtest_request(g->t, TX, (struct iovec[]){{&h, VSOCK_HEADER - 1}}, 1, NULL, 0, NULL), 0);
    assert_int_equal(vtest_request(g->t, TX, NULL, 0, (struct iovec[]){{data, 10}}, 1, NULL), 0);
    assert_false(guest_has_packet(g));
    /* More data announced than there is; the same for a request. */
    fd = guest_connect(g, listener, 1, 1);
    h = guest_header(RW, 1, 1);
    h.len = 101;
    expect_reset_for(g, h, data, 100);
    assert_int_equal(host_end(g, fd), 0);
    close(fd);
    h = guest_header(REQUEST, 1, 1);
    h.len = UINT32_MAX;
    expect_reset_for(g, h, NULL, 0);
    /* Fewer: the rest is ignored. */
    fd = guest_connect(g, listener, 1, 2);
    h = guest_header(RW, 1, 2);
    h.len = 3;
    guest_send(g, h, "abcdef", 6);
    assert_int_equal(host_read(g, fd, data, 3), 3);
    assert_true(recv(fd, data, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    /* Credit from nowhere gives none; with sense again the data comes. */
    h = guest_header(CREDIT_UPDATE, 1, 2);
    h.fwd_cnt = 1;
    guest_send(g, h, NULL, 0);
    host_write(g, fd, "patience", 8);
    guest_expect(g, CREDIT_REQUEST, 1, 2);
    assert_false(guest_has_packet(g));
    guest_send(g, guest_header(CREDIT_UPDATE, 1, 2), NULL, 0);
    assert_int_equal(guest_expect(g, RW, 1, 2).len, 8);
    /* Answered although nothing changed; an operation that there is not; a response to nothing. */
    guest_send(g, guest_header(CREDIT_REQUEST, 1, 2), NULL, 0);
    assert_int_equal(guest_expect(g, CREDIT_UPDATE, 1, 2).fwd_cnt, 3);
    expect_reset_for(g, guest_header(99, 1, 2), NULL, 0);
    close(fd);
    fd = guest_connect(g, listener, 1, 3);
    expect_reset_for(g, guest_header(RESPONSE, 1, 3), NULL, 0);
    close(fd);
    /* Data after the end. */
    fd = guest_connect(g, listener, 1, 4);
    h = guest_header(SHUTDOWN, 1, 4);
    h.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
    guest_send(g, h, NULL, 0);
    h = guest_header(RW, 1, 4);
    h.len = 1;
    expect_reset_for(g, h, "x", 1);
    close(fd);
    assert_int_equal(vsock_of(g)->connections, 0);
    host_unlisten(g, listener, 1);
}

static void test_lies(void **state)
{
    lies(*state, false);
    lies(*state, true);
}

/* A guest that asks and asks and takes no answer is not listened to any more, until it does. */
static void test_answers_not_taken(void **state)
{
    enum { PACKETS = 150 };
    struct guest *g = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        unsigned taken = 0;

        assert_int_equal(vtest_reset(g->t), 0);
        assert_int_equal(vtest_negotiate(g->t, 0, packed), 0);
        for (uint32_t i = 0; i < PACKETS; i++) {
            struct virtio_vsock_hdr h = guest_header(RW, 1, i);

            assert_true(vtest_submit(g->t, TX, (struct iovec[]){{&h, sizeof(h)}}, 1, NULL, 0) >= 0);
        }
        vtest_kick(g->t, TX);
        guest_idle(g);
        vtest_poll(g->t, TX);
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++)
            taken += g->t->q[TX].slot[i].done;
        assert_int_equal(taken, VSOCK_STRAYS_MAX);
        guest_post_buffers(g);
        for (uint32_t i = 0; i < PACKETS; i++)
            guest_expect(g, RST, 1, i);
        assert_false(guest_has_packet(g));
    }
}

/* A receive buffer without room for data fails the device. */
static void test_tiny_buffer(void **state)
{
    struct guest *g = *state;
    struct virtio_vsock_hdr h;

    assert_int_equal(vtest_reset(g->t), 0);
    assert_int_equal(vtest_negotiate(g->t, 0, false), 0);
    assert_true(vtest_submit(g->t, RX, NULL, 0, (struct iovec[]){{&h, sizeof(h)}}, 1) >= 0);
    guest_send(g, guest_header(RW, 1, 1), NULL, 0);
    guest_idle(g);
    assert_true(vtest_status(g->t) & VIRTIO_CONFIG_S_NEEDS_RESET);
    lies(g, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_to_host, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_to_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_with_much_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overrun, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_not_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tiny_buffer, setup, teardown),
    };

    return cmocka_run_group_tests_name("vsock-flow", tests, NULL, NULL);
}

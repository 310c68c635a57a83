/*
 * virtio_vsock_test.c - the vsock device against an in-process guest driver: packets by hand, unix
 * sockets for real.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <sys/socket.h>

#include "devices/virtio/test_driver.h"
#include "devices/virtio/vsock.h"

enum { CID = 5, GUEST_PORT = 700, RX = 0, TX = 1, RX_BUFFERS = 16, RX_SIZE = 4096 };

struct fixture {
    struct vtest_machine *tm;
    struct virtio_device *d;
    struct virtio_pci *transport;
    struct vtest *t;
    char dir[32], path[48];
    bool packed;
    uint8_t buffer[RX_BUFFERS][RX_SIZE];
    struct iovec in[RX_BUFFERS];
    int token[RX_BUFFERS];
    uint32_t told; /* our fwd_cnt: bytes of payload received */
    uint32_t room; /* our buf_alloc */
    uint8_t payload[RX_SIZE];
};

static void give_buffer(struct fixture *f, unsigned i)
{
    f->in[i] = (struct iovec){f->buffer[i], RX_SIZE};
    f->token[i] = vtest_submit(f->t, RX, NULL, 0, &f->in[i], 1);
    assert_true(f->token[i] >= 0);
    vtest_kick(f->t, RX);
}

static void begin(struct fixture *f, bool packed)
{
    assert_int_equal(vtest_negotiate(f->t, 0, packed), 0);
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        give_buffer(f, i);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err = {0};

    strcpy(f->dir, "/tmp/vsock-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/v", f->dir);
    f->room = 1 << 20;
    f->tm = vtest_machine_new(0);
    assert_int_equal(virtio_vsock_new(&f->d, &f->tm->m, f->tm->m.main_loop, CID, f->path, &err), 0);
    assert_int_equal(virtio_pci_new(&f->transport, f->d, &err), 0);
    f->t = vtest_open(f->tm, VIRTIO_ID_VSOCK);
    assert_non_null(f->t);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vtest_close(f->t);
    virtio_pci_free(f->transport);
    vtest_machine_free(f->tm);
    assert_int_equal(access(f->path, F_OK), -1); /* the device removed its socket */
    rmdir(f->dir);
    free(f);
    return 0;
}

/* ---- the guest's side
 * --------------------------------------------------------------------------------------- */

static void send_packet(struct fixture *f, uint32_t host_port, uint16_t op, uint32_t flags,
                        const void *data, size_t len)
{
    struct virtio_vsock_hdr h = {
        .src_cid = CID,
        .dst_cid = VSOCK_CID_HOST,
        .src_port = GUEST_PORT,
        .dst_port = host_port,
        .len = (uint32_t)len,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = op,
        .flags = flags,
        .buf_alloc = f->room,
        .fwd_cnt = f->told,
    };
    struct iovec out[] = {{&h, sizeof(h)}, {(void *)data, len}};

    assert_int_equal(vtest_request(f->t, TX, out, len ? 2 : 1, NULL, 0, NULL), 0);
}

/* The next packet from the device; its payload is in f->payload. */
static struct virtio_vsock_hdr receive_packet(struct fixture *f)
{
    struct virtio_vsock_hdr h;
    uint32_t written;
    int token = vtest_wait_any(f->t, RX, &written);

    assert_true(token >= 0);
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        if (f->token[i] == token) {
            assert_in_range(written, sizeof(h), RX_SIZE);
            memcpy(&h, f->buffer[i], sizeof(h));
            assert_int_equal(h.len, written - sizeof(h));
            memcpy(f->payload, f->buffer[i] + sizeof(h), h.len);
            give_buffer(f, i);
            assert_int_equal(h.src_cid, VSOCK_CID_HOST);
            assert_int_equal(h.dst_cid, CID);
            return h;
        }
    fail_msg("token %d belongs to no buffer", token);
    return h;
}

static struct virtio_vsock_hdr expect_op(struct fixture *f, uint16_t op)
{
    struct virtio_vsock_hdr h;

    do
        h = receive_packet(f);
    while (h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && op != VIRTIO_VSOCK_OP_CREDIT_UPDATE);
    assert_int_equal(h.op, op);
    return h;
}

/* ---- the host's side
 * ---------------------------------------------------------------------------------------- */

static struct sockaddr_un address_of_path(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    return a;
}

static int listen_on(const char *path)
{
    const struct sockaddr_un a = address_of_path(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int connect_to(const char *path)
{
    const struct sockaddr_un a = address_of_path(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* Reads exactly len bytes while the device's loop runs; fewer only at the end of the stream. */
static size_t read_all(struct fixture *f, int fd, void *buf, size_t len)
{
    const int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;
    size_t got = 0;

    while (got < len && qz_now_ns() < end) {
        ssize_t n = recv(fd, (uint8_t *)buf + got, len - got, MSG_DONTWAIT);

        if (n == 0)
            break;
        if (n > 0)
            got += (size_t)n;
        vtest_run(f->tm, 0);
    }
    return got;
}

/* A connection from the guest to port 9 of the host, accepted. Returns the host program's socket.
 */
static int guest_connects(struct fixture *f)
{
    char path[64];
    int listener, fd;

    snprintf(path, sizeof(path), "%s_9", f->path);
    listener = listen_on(path);
    send_packet(f, 9, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0);
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RESPONSE).dst_port, GUEST_PORT);
    fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    close(listener);
    unlink(path);
    return fd;
}

/* ---- tests
 * --------------------------------------------------------------------------------------------------
 */

static void both_ways(struct fixture *f, bool packed)
{
    char text[8] = {0};
    int fd;

    begin(f, packed);
    fd = guest_connects(f);
    send_packet(f, 9, VIRTIO_VSOCK_OP_RW, 0, "hello", 5);
    assert_int_equal(read_all(f, fd, text, 5), 5);
    assert_string_equal(text, "hello");
    assert_int_equal(send(fd, "world", 5, 0), 5);
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RW).len, 5);
    assert_memory_equal(f->payload, "world", 5);
    close(fd);
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_SHUTDOWN).flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
    send_packet(f, 9, VIRTIO_VSOCK_OP_SHUTDOWN,
                VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV, NULL, 0);
    expect_op(f, VIRTIO_VSOCK_OP_RST);
}

static void test_both_ways_split(void **state)
{
    both_ways(*state, false);
}
static void test_both_ways_packed(void **state)
{
    both_ways(*state, true);
}

static void test_host_connects(void **state)
{
    struct fixture *f = *state;
    char line[32] = {0};
    struct virtio_vsock_hdr h;
    int fd;

    begin(f, true);
    fd = connect_to(f->path);
    assert_int_equal(send(fd, "CONN", 4, 0), 4);
    vtest_run(f->tm, 10);
    assert_int_equal(send(fd, "ECT 700\nearly", 13, 0), 13);
    h = expect_op(f, VIRTIO_VSOCK_OP_REQUEST);
    assert_int_equal(h.dst_port, GUEST_PORT);
    send_packet(f, h.src_port, VIRTIO_VSOCK_OP_RESPONSE, 0, NULL, 0);
    assert_int_equal(read_all(f, fd, line, 3), 3);
    assert_string_equal(line, "OK ");
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RW).len,
                     5); /* what came behind the line is the guest's */
    assert_memory_equal(f->payload, "early", 5);
    close(fd);
}

static void test_handshake_nonsense(void **state)
{
    static const char *const lines[] = {"CONNECT\n",
                                        "CONNECT x\n",
                                        "CONNECT -1\n",
                                        "CONNECT 4294967296\n",
                                        "GET / HTTP/1.1\r\n",
                                        "CONNECT 1 2\n",
                                        "0123456789012345678901234567890123456789"};
    struct fixture *f = *state;
    char c;

    begin(f, false);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(lines); i++) {
        int fd = connect_to(f->path);

        assert_true(send(fd, lines[i], strlen(lines[i]), 0) > 0);
        assert_int_equal(read_all(f, fd, &c, 1), 0); /* closed without an answer */
        close(fd);
    }
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    begin(f, false);
    send_packet(f, 12345, VIRTIO_VSOCK_OP_REQUEST, 0, NULL, 0); /* nobody listens */
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RST).src_port, 12345);
    send_packet(f, 12346, VIRTIO_VSOCK_OP_RW, 0, "x", 1); /* no such connection */
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RST).src_port, 12346);
}

/* The host sends more than the guest takes at once: credit holds it back, and nothing is lost. */
static void test_credit_to_guest(void **state)
{
    enum { TOTAL = 40000, ROOM = 3000 };
    struct fixture *f = *state;
    static uint8_t sent[TOTAL], got[TOTAL];
    uint32_t have = 0;
    int fd;

    for (unsigned i = 0; i < TOTAL; i++)
        sent[i] = (uint8_t)(i * 7 + i / 251);
    f->room = ROOM;
    begin(f, true);
    fd = guest_connects(f);
    assert_int_equal(send(fd, sent, TOTAL, 0), TOTAL);
    while (have < TOTAL) {
        struct virtio_vsock_hdr h = expect_op(f, VIRTIO_VSOCK_OP_RW);

        assert_true(h.len <= f->told + ROOM - have); /* never beyond the credit */
        memcpy(got + have, f->payload, h.len);
        have += h.len;
        if (have - f->told == ROOM) { /* full: now make room */
            f->told = have;
            send_packet(f, 9, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
        }
        if (have == TOTAL)
            break;
    }
    assert_memory_equal(sent, got, TOTAL);
    close(fd);
}

/* A host that does not read: the guest has VSOCK_BUFFER of credit and what the socket holds, and a
 * liar is cut off. */
static void test_lie_about_credit(void **state)
{
    static uint8_t chunk[32 << 10];
    struct fixture *f = *state;
    struct virtio_vsock_hdr h = {0};
    int fd;

    begin(f, false);
    fd = guest_connects(f);
    for (unsigned i = 0; i < 4096 && h.op != VIRTIO_VSOCK_OP_RST; i++) {
        send_packet(f, 9, VIRTIO_VSOCK_OP_RW, 0, chunk, sizeof(chunk));
        if (f->t->in_flight < RX_BUFFERS || vtest_poll(f->t, RX) > 0)
            h = receive_packet(f);
    }
    assert_int_equal(h.op, VIRTIO_VSOCK_OP_RST);
    close(fd);
}

static void test_half_close(void **state)
{
    struct fixture *f = *state;
    char text[4] = {0};
    int fd;

    begin(f, false);
    fd = guest_connects(f);
    send_packet(f, 9, VIRTIO_VSOCK_OP_RW, 0, "end", 3);
    send_packet(f, 9, VIRTIO_VSOCK_OP_SHUTDOWN, VIRTIO_VSOCK_SHUTDOWN_SEND, NULL, 0);
    assert_int_equal(read_all(f, fd, text, 4), 3); /* and then the end of the stream */
    assert_int_equal(send(fd, "late", 4, 0), 4);   /* the other direction is open */
    assert_int_equal(expect_op(f, VIRTIO_VSOCK_OP_RW).len, 4);
    shutdown(fd, SHUT_WR);
    expect_op(f, VIRTIO_VSOCK_OP_SHUTDOWN);
    expect_op(f, VIRTIO_VSOCK_OP_RST);
    close(fd);
}

static void test_reset_with_open_connections(void **state)
{
    struct fixture *f = *state;
    char c;
    int fd;

    begin(f, true);
    fd = guest_connects(f);
    assert_int_equal(send(fd, "waiting", 7, 0), 7);
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(read_all(f, fd, &c, 1), 0);
    close(fd);
    vtest_set_status(f->t, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    begin(f, false);
    close(guest_connects(f));
}

static void test_malformed_packet(void **state)
{
    struct fixture *f = *state;
    struct virtio_vsock_hdr h = {
        .src_cid = CID, .dst_cid = VSOCK_CID_HOST, .type = VIRTIO_VSOCK_TYPE_STREAM, .len = 1};
    struct iovec out = {&h, sizeof(h)};

    begin(f, false);
    assert_true(vtest_submit(f->t, TX, &out, 1, NULL, 0) >= 0);
    vtest_kick(f->t, TX);
    vtest_run(f->tm, 100);
    assert_true(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_both_ways_split),    T(test_both_ways_packed), T(test_host_connects),
        T(test_handshake_nonsense), T(test_refused),          T(test_credit_to_guest),
        T(test_lie_about_credit),   T(test_half_close),       T(test_reset_with_open_connections),
        T(test_malformed_packet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

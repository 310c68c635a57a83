/*
 * virtio_vsock_test.c - connections of the vsock device: how they begin and how they end, from both
 * sides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "devices/virtio/vsock_test_guest.h"

enum { RX, TX, EVENT };
enum {
    REQUEST = VIRTIO_VSOCK_OP_REQUEST,
    RESPONSE = VIRTIO_VSOCK_OP_RESPONSE,
    RST = VIRTIO_VSOCK_OP_RST,
    SHUTDOWN = VIRTIO_VSOCK_OP_SHUTDOWN,
    RW = VIRTIO_VSOCK_OP_RW,
    RCV = VIRTIO_VSOCK_SHUTDOWN_RCV,
    SEND = VIRTIO_VSOCK_SHUTDOWN_SEND,
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

static void send_data(struct guest *g, uint32_t host_port, uint32_t guest_port, const char *text)
{
    struct virtio_vsock_hdr h = guest_header(RW, host_port, guest_port);

    h.len = (uint32_t)strlen(text);
    guest_send(g, h, text, h.len);
}

static void send_op(struct guest *g, uint16_t op, uint32_t flags, uint32_t host_port,
                    uint32_t guest_port)
{
    struct virtio_vsock_hdr h = guest_header(op, host_port, guest_port);

    h.flags = flags;
    guest_send(g, h, NULL, 0);
}

static void expect_data(struct guest *g, uint32_t host_port, uint32_t guest_port, const char *text)
{
    uint8_t data[GUEST_RX_DATA];
    struct virtio_vsock_hdr h = guest_receive(g, data);

    assert_int_equal(h.op, RW);
    assert_int_equal(h.src_port, host_port);
    assert_int_equal(h.dst_port, guest_port);
    assert_int_equal(h.len, strlen(text));
    assert_memory_equal(data, text, h.len);
}

static void expect_read(struct guest *g, int fd, const char *text)
{
    char buf[64] = {0};

    assert_int_equal(host_read(g, fd, buf, strlen(text)), strlen(text));
    assert_string_equal(buf, text);
}

/* Both know of the connection and use it; the guest ends it. */
static void talk_and_close(struct guest *g, int fd, uint32_t host_port, uint32_t guest_port)
{
    send_data(g, host_port, guest_port, "from the guest");
    expect_read(g, fd, "from the guest");
    host_write(g, fd, "from the host", 13);
    expect_data(g, host_port, guest_port, "from the host");
    send_data(g, host_port, guest_port, "bye");
    send_op(g, SHUTDOWN, RCV | SEND, host_port, guest_port);
    guest_expect(g, RST, host_port, guest_port);
    expect_read(g, fd, "bye");
    assert_int_equal(host_end(g, fd), 0);
    close(fd);
    assert_int_equal(vsock_of(g)->connections, 0);
}

static void guest_connects(struct guest *g, bool packed)
{
    int listener, fd;

    guest_start(g, packed);
    listener = host_listen(g, 52);
    fd = guest_connect(g, listener, 52, 1000);
    talk_and_close(g, fd, 52, 1000);
    host_unlisten(g, listener, 52);
    /* Nobody listens there: the socket has gone; it is there and nobody listens. */
    send_op(g, REQUEST, 0, 52, 1001);
    guest_expect(g, RST, 52, 1001);
    listener = host_listen(g, UINT32_MAX);
    close(listener);
    send_op(g, REQUEST, 0, UINT32_MAX, 1001);
    guest_expect(g, RST, UINT32_MAX, 1001);
    host_unlisten(g, -1, UINT32_MAX);
    assert_false(guest_has_packet(g));
}

static void test_guest_connects(void **state)
{
    guest_connects(*state, false);
    guest_connects(*state, true);
}

static void host_connects(struct guest *g, bool packed)
{
    struct virtio_vsock_hdr h;
    char text[64];
    uint32_t port;
    int fd;

    guest_start(g, packed);
    fd = host_connect(g);
    host_write(g, fd, "CONN", 4); /* in pieces, and with the stream behind it */
    guest_idle(g);
    host_write(g, fd, "ECT 1234\nearly", 14);
    h = guest_receive(g, NULL);
    assert_int_equal(h.op, REQUEST);
    assert_int_equal(h.dst_port, 1234);
    port = h.src_port;
    assert_true(port >= 0x40000000u);
    send_op(g, RESPONSE, 0, port, 1234);
    snprintf(text, sizeof(text), "OK %u\n", port);
    expect_read(g, fd, text);
    expect_data(g, port, 1234, "early");
    talk_and_close(g, fd, port, 1234);
    /* Nobody listens in the guest. */
    fd = host_connect(g);
    host_write(g, fd, "CONNECT 7\n", 10);
    h = guest_receive(g, NULL);
    assert_int_equal(h.dst_port, 7);
    assert_int_not_equal(h.src_port, port);
    send_op(g, RST, 0, h.src_port, 7);
    assert_int_equal(host_end(g, fd), 0);
    close(fd);
    assert_int_equal(vsock_of(g)->connections, 0);
}

static void test_host_connects(void **state)
{
    host_connects(*state, false);
    host_connects(*state, true);
}

static void test_bad_handshakes(void **state)
{
    static const char *const lines[] = {"\n",
                                        "CONNECT\n",
                                        "CONNECT \n",
                                        "CONNECT 1x\n",
                                        "CONNECT 4294967295\n",
                                        "CONNECT -1\n",
                                        "connect 1\n",
                                        "GET / HTTP/1.1\r\n",
                                        "CONNECT 1                                        \n"};
    struct guest *g = *state;
    int fd;

    fd = host_connect(g); /* no driver yet */
    assert_int_equal(host_end(g, fd), 0);
    close(fd);
    guest_start(g, false);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(lines); i++) {
        fd = host_connect(g);
        host_write(g, fd, lines[i], strlen(lines[i]));
        assert_true(host_end(g, fd) >= 0);
        close(fd);
    }
    fd = host_connect(g); /* gone before it said anything; gone before the guest answers */
    close(fd);
    fd = host_connect(g);
    host_write(g, fd, "CONNECT 5\n", 10);
    uint32_t port = guest_receive(g, NULL).src_port;
    close(fd);
    send_op(g, RESPONSE, 0, port, 5);
    guest_expect(g, RST, port, 5);
    assert_false(guest_has_packet(g));
    assert_int_equal(vsock_of(g)->connections, 0);
}

/* Each side ends its half; the other half goes on. */
static void half_close(struct guest *g, bool packed)
{
    int listener, fd;

    guest_start(g, packed);
    listener = host_listen(g, 1);
    fd = guest_connect(g, listener, 1, 2000);
    host_write(g, fd, "last words", 10);
    shutdown(fd, SHUT_WR);
    expect_data(g, 1, 2000, "last words");
    assert_int_equal(guest_expect(g, SHUTDOWN, 1, 2000).flags, SEND);
    send_data(g, 1, 2000, "still here");
    expect_read(g, fd, "still here");
    assert_false(guest_has_packet(g));
    send_op(g, SHUTDOWN, SEND, 1, 2000);
    assert_int_equal(host_end(g, fd), 0);
    /* Now nothing can flow any more, and the guest is told so. */
    assert_int_equal(guest_expect(g, SHUTDOWN, 1, 2000).flags, SEND | RCV);
    send_op(g, RST, 0, 1, 2000);
    close(fd);

    fd = guest_connect(g, listener, 1, 2001);
    send_data(g, 1, 2001, "no more");
    send_op(g, SHUTDOWN, SEND, 1, 2001);
    expect_read(g, fd, "no more");
    assert_int_equal(host_end(g, fd), 0);
    host_write(g, fd, "answer", 6);
    expect_data(g, 1, 2001, "answer");
    close(fd);
    assert_int_equal(guest_expect(g, SHUTDOWN, 1, 2001).flags, SEND | RCV);
    send_op(g, RST, 0, 1, 2001);

    /* The guest will not receive: the host's writes fail, the guest's still arrive. */
    fd = guest_connect(g, listener, 1, 2002);
    send_op(g, SHUTDOWN, RCV, 1, 2002);
    guest_idle(g);
    assert_true(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE);
    send_data(g, 1, 2002, "heard");
    expect_read(g, fd, "heard");
    close(fd);
    assert_int_equal(guest_expect(g, SHUTDOWN, 1, 2002).flags, SEND | RCV);
    send_op(g, RST, 0, 1, 2002);
    assert_int_equal(vsock_of(g)->connections, 0);
    host_unlisten(g, listener, 1);
}

static void test_half_close(void **state)
{
    half_close(*state, false);
    half_close(*state, true);
}

static void test_sudden_ends(void **state)
{
    struct guest *g = *state;
    int listener, fd;

    guest_start(g, false);
    listener = host_listen(g, 1);
    fd = guest_connect(g, listener, 1, 1);
    close(fd);
    assert_int_equal(guest_expect(g, SHUTDOWN, 1, 1).flags, SEND | RCV);
    send_data(g, 1, 1, "nobody hears this"); /* under way already: lost, as over a network */
    assert_false(guest_has_packet(g));
    send_op(g, RST, 0, 1, 1);

    fd = guest_connect(g, listener, 1,
                       2); /* closed with bytes that were never read: an error, as with TCP */
    send_data(g, 1, 2, "unread");
    guest_idle(g);
    close(fd);
    guest_expect(g, RST, 1, 2);

    fd = guest_connect(g, listener, 1, 3);
    send_op(g, RST, 0, 1, 3);
    assert_int_equal(host_end(g, fd), 0);
    close(fd);

    fd = guest_connect(g, listener, 1, 4); /* a second request is a mistake */
    send_op(g, REQUEST, 0, 1, 4);
    guest_expect(g, RST, 1, 4);
    assert_int_equal(host_end(g, fd), 0);
    close(fd);
    assert_false(guest_has_packet(g));
    assert_int_equal(vsock_of(g)->connections, 0);
    host_unlisten(g, listener, 1);
}

/* A reset of the device ends every connection, whatever its state; then it works again. */
static void test_device_reset(void **state)
{
    struct guest *g = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        int listener, fd, asking, silent;

        guest_start(g, packed);
        listener = host_listen(g, 9);
        fd = guest_connect(g, listener, 9, 9);
        asking = host_connect(g);
        host_write(g, asking, "CONNECT 5\n", 10);
        guest_receive(g, NULL);
        silent = host_connect(g);
        guest_idle(g);
        assert_int_equal(vsock_of(g)->connections, 3);
        send_op(g, RST, 0, 77, 77);
        guest_start(g, !packed);
        assert_int_equal(host_end(g, fd), 0);
        assert_int_equal(host_end(g, asking), 0);
        assert_int_equal(host_end(g, silent), 0);
        close(fd);
        close(asking);
        close(silent);
        assert_int_equal(vsock_of(g)->connections, 0);
        send_op(g, SHUTDOWN, SEND, 9, 9); /* of before: unknown */
        guest_expect(g, RST, 9, 9);
        host_unlisten(g, listener, 9);
        guest_connects(g, packed);
    }
}

/* Who says nothing for too long is ended. */
static void test_patience(void **state)
{
    struct guest *g = *state;
    int listener, asking, silent, closed;
    uint32_t port;

    guest_start(g, false);
    listener = host_listen(g, 9);
    closed = guest_connect(g, listener, 9, 9);
    close(closed);
    guest_expect(g, SHUTDOWN, 9, 9);
    silent = host_connect(g);
    host_write(g, silent, "CONNECT 5", 9);
    asking = host_connect(g);
    host_write(g, asking, "CONNECT 5\n", 10);
    port = guest_expect(g, REQUEST, 0x40000000u, 5).src_port;
    guest_idle(g);
    {
        QZ_LOCKED(&g->d->lock);
        vsock_sweep(vsock_of(g), qz_now_ns());
    }
    assert_int_equal(vsock_of(g)->connections, 3);
    {
        QZ_LOCKED(&g->d->lock);
        vsock_sweep(vsock_of(g), qz_now_ns() + VSOCK_PATIENCE_NS);
        vsock_flush(vsock_of(g));
    }
    guest_expect(g, RST, port, 5);
    guest_expect(g, RST, 9, 9);
    assert_true(host_end(g, silent) >= 0);
    assert_int_equal(host_end(g, asking), 0);
    close(silent);
    close(asking);
    assert_int_equal(vsock_of(g)->connections, 0);
    host_unlisten(g, listener, 9);
}

/* Connections are limited; who waits is served when one ends. */
static void test_limit(void **state)
{
    struct rlimit saved, few;
    struct guest *g;
    int fd[32], listener;

    getrlimit(RLIMIT_NOFILE, &saved);
    few = saved;
    few.rlim_cur = 64; /* of which the device takes half */
    setrlimit(RLIMIT_NOFILE, &few);
    g = guest_new();
    setrlimit(RLIMIT_NOFILE, &saved);
    guest_start(g, false);
    listener = host_listen(g, 1);
    for (unsigned i = 0; i < 32; i++)
        fd[i] = guest_connect(g, listener, 1, i);
    assert_int_equal(vsock_of(g)->connections, 32);
    send_op(g, REQUEST, 0, 1, 99);
    guest_expect(g, RST, 1, 99);
    for (unsigned i = 0; i < 32; i++) {
        close(fd[i]);
        assert_int_equal(guest_expect(g, SHUTDOWN, 1, i).flags, SEND | RCV);
    }
    for (unsigned i = 0; i < 8; i++) {
        fd[i] = host_connect(g);
        host_write(g, fd[i], "CONNECT 3\n", 10);
    }
    assert_false(guest_has_packet(g));
    for (unsigned i = 0; i < 32; i++)
        send_op(g, RST, 0, 1, i);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(guest_receive(g, NULL).op, REQUEST);
        close(fd[i]);
    }
    host_unlisten(g, listener, 1);
    guest_free(g);
    *state = NULL;
}

/* After a clone or a move the guest is told that its connections are gone (§5.10.6.7). */
static void test_disconnect(void **state)
{
    struct guest *g = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        uint32_t event = 99, written;
        struct iovec in = {&event, sizeof(event)};
        int listener, fd;

        guest_start(g, packed);
        listener = host_listen(g, 1);
        fd = guest_connect(g, listener, 1, 1);
        virtio_vsock_disconnect(g->d);
        assert_int_equal(host_end(g, fd), 0);
        close(fd);
        assert_int_equal(vtest_request(g->t, EVENT, NULL, 0, &in, 1, &written), 0);
        assert_int_equal(written, sizeof(event));
        assert_int_equal(event, VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
        host_unlisten(g, listener, 1);
        guest_connects(g, packed);
    }
}

/* In place of the device: another one on another socket, which goes on from its state. */
static void move_to(struct guest *g, uint64_t cid, const char *path)
{
    struct vtest_device device = {g->tm, g->vp};
    struct qz_state *saved = qz_state_save(), *loaded;
    struct qz_error err;
    const void *bytes;
    size_t len;

    vtest_device_state(&device, saved);
    assert_int_equal(qz_state_finish(saved, &err), 0);
    bytes = qz_state_bytes(saved, &len);
    virtio_pci_free(g->vp);
    assert_int_equal(virtio_vsock_new(&g->d, &g->tm->m, g->tm->m.main_loop, cid, path, &err), 0);
    assert_int_equal(virtio_pci_new(&g->vp, g->d, &err), 0);
    snprintf(g->path, sizeof(g->path), "%s", path);
    loaded = qz_state_load(bytes, len);
    device.vp = g->vp;
    vtest_device_state(&device, loaded);
    assert_int_equal(qz_state_finish(loaded, &err), 0);
    qz_state_free(loaded);
    qz_state_free(saved);
}

static void answer_as(struct guest *g, uint64_t cid, uint16_t op,
                      const struct virtio_vsock_hdr *request)
{
    struct virtio_vsock_hdr h = guest_header(op, request->src_port, request->dst_port);

    h.src_cid = cid;
    guest_send(g, h, NULL, 0);
}

/* A host program asks for the guest's port 7: its request, for this context id. */
static struct virtio_vsock_hdr asked_for(struct guest *g, uint64_t cid)
{
    struct virtio_vsock_hdr h;

    assert_int_equal(vtest_wait(g->t, 0, g->rx[0].token, NULL), 0);
    memcpy(&h, g->rx[0].bytes, sizeof(h));
    assert_int_equal(h.op, REQUEST);
    assert_int_equal(h.dst_port, 7);
    assert_int_equal(h.dst_cid, cid);
    return h;
}

static void check_identity(struct guest *g, int fd, uint64_t was, uint64_t cid)
{
    struct virtio_vsock_hdr h = asked_for(g, cid);
    char byte;

    /* It had not looked yet; now it has, and the old id is nobody's any more. */
    answer_as(g, was, RESPONSE, &h);
    do
        assert_int_equal(host_read(g, fd, &byte, 1), 1);
    while (byte != '\n');
    answer_as(g, cid, VIRTIO_VSOCK_OP_CREDIT_UPDATE, &h);
    answer_as(g, was, RST, &h);
    guest_idle(g);
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
    answer_as(g, cid, RST, &h);
    assert_int_equal(host_end(g, fd), 0);
}

/*
 * A clone has the context id and the socket that it was given: its driver is told to look
 * (§5.10.6.7), and speaks for the new id from then on. Nobody is let in before it has.
 */
static void another_identity(struct guest *g, bool packed, uint64_t was, uint64_t cid)
{
    uint32_t event[2] = {99, 99}, written;
    struct iovec in[2] = {{&event[0], sizeof(event[0])}, {&event[1], sizeof(event[1])}};
    uint64_t now = 0;
    char path[96];
    int fd, token[2];

    guest_start(g, packed);
    for (unsigned i = 0; i < 2; i++) {
        token[i] = vtest_submit(g->t, EVENT, NULL, 0, &in[i], 1);
        assert_true(token[i] >= 0);
    }
    vtest_kick(g->t, EVENT);
    guest_idle(g);
    snprintf(path, sizeof(path), "%s/other%u", g->dir, (unsigned)cid);
    move_to(g, cid, path);
    fd = host_connect(g);
    host_write(g, fd, "CONNECT 7\n", 10);
    assert_int_equal(vtest_wait(g->t, EVENT, token[0], &written), 0);
    assert_int_equal(written, sizeof(event[0]));
    assert_int_equal(event[0], VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
    vtest_device_read(g->t, 0, &now, 8);
    assert_int_equal(now, cid);
    assert_false(guest_has_packet(g));
    assert_true(vtest_submit(g->t, EVENT, NULL, 0, &in[0], 1) >= 0);
    assert_true(vtest_kick(g->t, EVENT));
    check_identity(g, fd, was, cid);
    close(fd);
}

static void test_another_identity(void **state)
{
    another_identity(*state, false, GUEST_CID, GUEST_CID + 1);
    another_identity(*state, true, GUEST_CID + 1, GUEST_CID + 2);
}

/* A driver that gives no buffer for events is not waited for longer than some seconds. */
static void test_silent_identity(void **state)
{
    struct guest *g = *state;
    char path[96];
    int fd;

    guest_start(g, false);
    snprintf(path, sizeof(path), "%s/other", g->dir);
    move_to(g, GUEST_CID + 1, path);
    fd = host_connect(g);
    host_write(g, fd, "CONNECT 7\n", 10);
    assert_false(guest_has_packet(g));
    asked_for(g, GUEST_CID + 1);
    close(fd);
}

static void test_construction(void **state)
{
    struct guest *g = *state;
    struct qz_error err;
    struct virtio_device *d;
    struct qz_loop *loop = g->tm->m.main_loop;
    char path[200], text[200];
    uint64_t cid = 0;
    int fd;

    vtest_device_read(g->t, 0, &cid, 8);
    assert_int_equal(cid, GUEST_CID);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 2, g->path, &err), -EINVAL);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, UINT32_MAX, g->path, &err), -EINVAL);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, g->path, &err), -EADDRINUSE);
    assert_int_equal(access(g->path, F_OK), 0);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, "", &err), -ENAMETOOLONG);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, "/nowhere/at/all", &err), -ENOENT);
    memset(path, 'x', sizeof(path));
    memcpy(path, g->dir, strlen(g->dir));
    path[strlen(g->dir)] = '/';
    path[97] = '\0';
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, path, &err), -ENAMETOOLONG);
    path[96] = '\0';
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, path, &err), 0);
    d->ops->free(d);
    assert_int_equal(access(path, F_OK), -1);
    snprintf(text, sizeof(text), "%s/file", g->dir);
    fd = open(text, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, text, &err), -EEXIST);
    close(fd);
    unlink(text);
    close(host_listen(g, 4)); /* left behind: a file that nobody listens on */
    snprintf(text, sizeof(text), "%s_4", g->path);
    assert_int_equal(virtio_vsock_new(&d, &g->tm->m, loop, 3, text, &err), 0);
    d->ops->free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_guest_connects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_connects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_handshakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_half_close, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sudden_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_device_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_patience, setup, teardown),
        cmocka_unit_test(test_limit),
        cmocka_unit_test_setup_teardown(test_disconnect, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_construction, setup, teardown),
    };

    return cmocka_run_group_tests_name("virtio-vsock", tests, NULL, NULL);
}

/*
 * vsock_test_guest.c - see vsock_test_guest.h.
 */
#include "devices/virtio/vsock_test_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>

enum { RX, TX };
#define RAM (512ull << 20) /* sparse; the driver takes new memory for every request */

struct guest *guest_new(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct qz_error err = {0};

    strcpy(g->dir, "/tmp/queztl-vsock-XXXXXX");
    assert_non_null(mkdtemp(g->dir));
    snprintf(g->path, sizeof(g->path), "%s/v", g->dir);
    g->tm = vtest_machine_new(RAM);
    assert_int_equal(
        virtio_vsock_new(&g->d, &g->tm->m, g->tm->m.main_loop, GUEST_CID, g->path, &err), 0);
    assert_int_equal(virtio_pci_new(&g->vp, g->d, &err), 0);
    g->t = vtest_open(g->tm, VIRTIO_ID_VSOCK);
    assert_non_null(g->t);
    qz_log_set_level(QZ_LOG_ERROR);
    return g;
}

void guest_free(struct guest *g)
{
    vtest_close(g->t);
    virtio_pci_free(g->vp);
    vtest_machine_free(g->tm);
    assert_int_equal(access(g->path, F_OK), -1);
    assert_int_equal(rmdir(g->dir), 0);
    free(g);
}

static void post(struct guest *g, struct guest_rx *rx)
{
    struct iovec in[2] = {{rx->bytes, VSOCK_HEADER}, {rx->bytes + VSOCK_HEADER, GUEST_RX_DATA}};

    rx->token = vtest_submit(g->t, RX, NULL, 0, in, 2);
    assert_true(rx->token >= 0);
    vtest_kick(g->t, RX);
}

void guest_post_buffers(struct guest *g)
{
    g->next_rx = 0;
    for (unsigned i = 0; i < GUEST_RX; i++)
        post(g, &g->rx[i]);
}

void guest_start(struct guest *g, bool packed)
{
    assert_int_equal(vtest_reset(g->t), 0);
    assert_int_equal(vtest_negotiate(g->t, 0, packed), 0);
    guest_post_buffers(g);
}

struct virtio_vsock_hdr guest_header(uint16_t op, uint32_t host_port, uint32_t guest_port)
{
    return (struct virtio_vsock_hdr){
        .src_cid = GUEST_CID,
        .dst_cid = VSOCK_HOST_CID,
        .src_port = guest_port,
        .dst_port = host_port,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = op,
        .buf_alloc = GUEST_ALLOC,
    };
}

void guest_send(struct guest *g, struct virtio_vsock_hdr h, const void *data, size_t len)
{
    struct iovec out[2] = {{&h, sizeof(h)}, {(void *)data, len}};

    assert_int_equal(vtest_request(g->t, TX, out, len ? 2 : 1, NULL, 0, NULL), 0);
}

struct virtio_vsock_hdr guest_receive(struct guest *g, void *data)
{
    struct virtio_vsock_hdr h;
    struct guest_rx *rx = &g->rx[g->next_rx]; /* the device uses buffers in the order it got them */
    uint32_t written = 0;
    int r = vtest_wait(g->t, RX, rx->token, &written);

    if (r < 0)
        fail_msg("no packet comes: %s", strerror(-r));
    g->next_rx = (g->next_rx + 1) % GUEST_RX;
    memcpy(&h, rx->bytes, sizeof(h));
    assert_int_equal(written, sizeof(h) + h.len);
    assert_int_equal(h.src_cid, VSOCK_HOST_CID);
    assert_int_equal(h.dst_cid, GUEST_CID);
    if (data)
        memcpy(data, rx->bytes + VSOCK_HEADER, h.len);
    post(g, rx);
    return h;
}

struct virtio_vsock_hdr guest_expect(struct guest *g, uint16_t op, uint32_t host_port,
                                     uint32_t guest_port)
{
    struct virtio_vsock_hdr h = guest_receive(g, NULL);

    assert_int_equal(h.op, op);
    assert_int_equal(h.src_port, host_port);
    assert_int_equal(h.dst_port, guest_port);
    assert_int_equal(h.type, VIRTIO_VSOCK_TYPE_STREAM);
    return h;
}

void guest_idle(struct guest *g)
{
    /* Posted work arrives as an event of its own, so a round without events is the end of it. */
    for (unsigned i = 0; qz_loop_once(g->tm->m.main_loop, 0) > 0; i++)
        if (i == 100000)
            fail_msg("the loop never rests");
}

bool guest_has_packet(struct guest *g)
{
    guest_idle(g);
    assert_true(vtest_poll(g->t, RX) >= 0);
    return g->t->q[RX].slot[g->rx[g->next_rx].token].done;
}

/* ---- host programs
 * --------------------------------------------------------------------------------- */

static int unix_socket(const char *path, struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    assert_true(strlen(path) < sizeof(a->sun_path));
    strcpy(a->sun_path, path);
    return fd;
}

int host_listen(struct guest *g, uint32_t port)
{
    char path[100];
    struct sockaddr_un a;
    int fd;

    snprintf(path, sizeof(path), "%s_%u", g->path, port);
    fd = unix_socket(path, &a);
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

void host_unlisten(struct guest *g, int fd, uint32_t port)
{
    char path[100];

    snprintf(path, sizeof(path), "%s_%u", g->path, port);
    close(fd);
    unlink(path);
}

int host_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

int host_connect(struct guest *g)
{
    struct sockaddr_un a;
    int fd = unix_socket(g->path, &a);

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void turn(struct guest *g, int64_t end, const char *what)
{
    if (qz_now_ns() > end)
        fail_msg("%s: nothing happens", what);
    vtest_run(g->tm, 1);
}

size_t host_read(struct guest *g, int fd, void *buf, size_t len)
{
    int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;
    size_t done = 0;

    while (done < len) {
        ssize_t n = recv(fd, (uint8_t *)buf + done, len - done, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN))
            return done;
        if (n < 0)
            turn(g, end, "host reads");
        else
            done += (size_t)n;
    }
    return done;
}

void host_write(struct guest *g, int fd, const void *buf, size_t len)
{
    int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;

    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const uint8_t *)buf + done, len - done, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            fail_msg("host writes: %s", strerror(errno));
        if (n < 0)
            turn(g, end, "host writes");
        else
            done += (size_t)n;
    }
}

int host_end(struct guest *g, int fd)
{
    int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;
    uint8_t byte;

    for (;;) {
        ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

        if (n >= 0)
            return n ? -1 : 0;
        if (errno != EAGAIN)
            return errno;
        turn(g, end, "host waits for the end");
    }
}

int guest_connect(struct guest *g, int listener, uint32_t host_port, uint32_t guest_port)
{
    struct virtio_vsock_hdr h;

    guest_send(g, guest_header(VIRTIO_VSOCK_OP_REQUEST, host_port, guest_port), NULL, 0);
    h = guest_expect(g, VIRTIO_VSOCK_OP_RESPONSE, host_port, guest_port);
    assert_int_equal(h.buf_alloc, VSOCK_BUFFER);
    assert_int_equal(h.fwd_cnt, 0);
    return host_accept(listener);
}

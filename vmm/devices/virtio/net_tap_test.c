/*
 * net_tap_test.c - the TAP backend on a real TAP device, in a network namespace of the test's own;
 * a packet socket is the host's end. Skipped where the kernel gives no such namespace.
 */
#include "devices/virtio/net_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "devices/virtio/net_features.h"

enum { WAIT_MS = 20000, PROTOCOL = 0x88b5 /* IEEE 802 local experimental */, FRAME = 300 };

static const char *missing; /* why there is no TAP device to test with */

struct guest {
    struct net_backend *b;
    struct net_client client;
    struct qz_loop *loop;
    int host; /* packet socket */
    unsigned readable, writable;
};

static void on_readable(struct net_client *c)
{
    QZ_CONTAINER_OF(c, struct guest, client)->readable++;
}

static void on_writable(struct net_client *c)
{
    QZ_CONTAINER_OF(c, struct guest, client)->writable++;
}

/* ---- the host's side --------------------------------------------------------------------------
 */

static int make_tap(const char *name, short flags)
{
    struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags)};
    QZ_AUTO_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    QZ_AUTO_FD int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strcpy(ifr.ifr_name, name);
    if (fd < 0 || s < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETPERSIST, 1) < 0)
        return -errno;
    ifr.ifr_flags = IFF_UP | IFF_NOARP;
    return ioctl(s, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

static void delete_tap(const char *name)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {
        {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST},
        {.ifi_index = (int)if_nametoindex(name)}};
    QZ_AUTO_FD int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    assert_true(s >= 0);
    assert_int_equal(send(s, &request, sizeof(request), 0), sizeof(request));
}

static int packet_socket(const char *name)
{
    struct sockaddr_ll a = {.sll_family = AF_PACKET,
                            .sll_protocol = htons(PROTOCOL),
                            .sll_ifindex = (int)if_nametoindex(name)};
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(PROTOCOL));

    assert_true(s >= 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof(a)), 0);
    return s;
}

static void make_frame(uint8_t *frame, uint8_t fill)
{
    memset(frame, fill, FRAME);
    memset(frame, 0xff, 6);
    frame[6] = 2;
    qz_store_be16(frame + 12, PROTOCOL);
}

/* ---- the guest's side -------------------------------------------------------------------------
 */

static int setup(void **state)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct qz_error err = {0};

    assert_non_null(g);
    *state = g;
    g->host = -1;
    if (missing)
        return 0;
    assert_int_equal(make_tap("qz0", 0), 0);
    assert_int_equal(qz_loop_new(&g->loop, &err), 0);
    if (net_tap_open(&g->b, "qz0", &err) < 0)
        fail_msg("%s", err.text);
    g->client = (struct net_client){on_readable, on_writable};
    assert_int_equal(g->b->ops->attach(g->b, g->loop, &g->client, &err), 0);
    g->host = packet_socket("qz0");
    return 0;
}

static int teardown(void **state)
{
    struct guest *g = *state;

    if (g->b) {
        g->b->ops->stop(g->b);
        g->b->ops->free(g->b);
        close(g->host);
        if (if_nametoindex("qz0"))
            delete_tap("qz0");
    }
    qz_loop_free(g->loop);
    free(g);
    return 0;
}

static void need_tap(void)
{
    if (!missing)
        return;
    print_message("skipped: %s\n", missing);
    skip();
}

static void settle(struct guest *g)
{
    for (unsigned i = 0; i < 4; i++)
        assert_true(qz_loop_once(g->loop, 0) >= 0);
}

/* The next frame of our protocol (the kernel sends some of its own); 0: none within the wait. */
static size_t receive(struct guest *g, uint8_t *frame, int wait_ms)
{
    static uint8_t rest[NET_BYTES_MAX];
    int64_t end = qz_now_ns() + wait_ms * 1000000ll;
    uint8_t header[NET_HEADER];
    struct iovec iov[] = {{header, NET_HEADER}, {frame, FRAME}, {rest, sizeof(rest)}};

    for (;;) {
        ssize_t n = g->b->ops->receive(g->b, iov, QZ_ARRAY_LEN(iov));

        assert_true(n >= 0);
        if (n >= NET_HEADER + 14 && qz_load_be16(frame + 12) == PROTOCOL)
            return (size_t)n - NET_HEADER;
        if (n > 0)
            continue;
        if (qz_now_ns() >= end)
            return 0;
        assert_true(qz_loop_once(g->loop, 50) >= 0);
    }
}

static void test_features(void **state)
{
    struct guest *g = *state;

    need_tap();
    assert_true(g->b->features & QZ_BIT(VIRTIO_NET_F_CSUM));
    assert_true(g->b->features & QZ_BIT(VIRTIO_NET_F_HOST_TSO4));
    assert_true(g->b->features & QZ_BIT(VIRTIO_NET_F_GUEST_TSO6));
    assert_int_equal(!(g->b->features & QZ_BIT(NET_F_HOST_USO)),
                     !(g->b->features & QZ_BIT(NET_F_GUEST_USO4)));
    assert_string_equal(g->b->label, "tap qz0");
}

static void test_frames(void **state)
{
    struct guest *g = *state;
    uint8_t frame[FRAME], got[FRAME] = {0}, header[NET_HEADER] = {0};
    struct iovec iov[] = {{header, NET_HEADER}, {frame, 20}, {frame + 20, FRAME - 20}};

    need_tap();
    g->b->ops->start(g->b, g->b->features);
    make_frame(frame, 0x11);
    assert_int_equal(g->b->ops->send(g->b, iov, QZ_ARRAY_LEN(iov), NET_HEADER + FRAME), 1);
    assert_int_equal(recv(g->host, got, sizeof(got), 0), FRAME);
    assert_memory_equal(got, frame, FRAME);

    make_frame(frame, 0x22);
    assert_int_equal(send(g->host, frame, FRAME, 0), FRAME);
    assert_int_equal(receive(g, got, WAIT_MS), FRAME);
    assert_memory_equal(got, frame, FRAME);
    /* A header that points outside of its frame is the kernel's to refuse. */
    header[0] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    qz_store_le16(header + 6, 2000);
    assert_true(g->b->ops->send(g->b, iov, QZ_ARRAY_LEN(iov), NET_HEADER + FRAME) < 0);
}

static void test_pause(void **state)
{
    struct guest *g = *state;
    uint8_t frame[FRAME], got[FRAME];

    need_tap();
    g->b->ops->start(g->b, 0);
    settle(g);
    while (receive(g, got, 0))
        continue;
    g->b->ops->pause(g->b, true);
    g->readable = 0;
    make_frame(frame, 0x33);
    assert_int_equal(send(g->host, frame, FRAME, 0), FRAME);
    settle(g);
    assert_int_equal(g->readable, 0);
    g->b->ops->pause(g->b, false);
    settle(g);
    assert_true(g->readable > 0);
    assert_int_equal(receive(g, got, WAIT_MS), FRAME);
}

/* Frames from before a driver came are not its own. */
static void test_stale_frames(void **state)
{
    struct guest *g = *state;
    uint8_t frame[FRAME], got[FRAME];

    need_tap();
    make_frame(frame, 0x44);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(send(g->host, frame, FRAME, 0), FRAME);
    g->b->ops->start(g->b, 0);
    assert_int_equal(receive(g, got, 0), 0);
    g->b->ops->stop(g->b);
    assert_int_equal(send(g->host, frame, FRAME, 0), FRAME);
    g->readable = 0;
    settle(g);
    assert_int_equal(g->readable, 0);
}

static void test_device_goes(void **state)
{
    struct guest *g = *state;
    uint8_t frame[NET_HEADER + FRAME] = {0}, got[FRAME];
    struct iovec iov = {frame, sizeof(frame)};

    need_tap();
    g->b->ops->start(g->b, 0);
    qz_log_set_level(QZ_LOG_ERROR);
    delete_tap("qz0");
    settle(g);
    g->readable = 0;
    assert_int_equal(qz_loop_once(g->loop, 0), 0); /* nothing is reported for ever */
    assert_int_equal(g->readable, 0);
    assert_int_equal(receive(g, got, 0), 0);
    assert_true(g->b->ops->send(g->b, &iov, 1, sizeof(frame)) < 0);
    g->b->ops->pause(g->b, true);
    g->b->ops->pause(g->b, false);
    qz_log_set_level(QZ_LOG_WARN);
}

static void test_multi_queue_device(void **state)
{
    struct net_backend *b;
    struct qz_error err = {0};

    need_tap();
    assert_int_equal(make_tap("qz1", IFF_MULTI_QUEUE), 0);
    assert_int_equal(net_tap_open(&b, "qz1", &err), 0);
    b->ops->free(b);
    delete_tap("qz1");
}

static void test_refused(void **state)
{
    struct net_backend *b;
    struct qz_error err = {0};

    need_tap();
    assert_int_equal(net_tap_open(&b, "nothere", &err), -ENODEV);
    assert_non_null(strstr(err.text, "ip tuntap add nothere"));
    assert_int_equal(net_tap_open(&b, "", &err), -EINVAL);
    assert_int_equal(net_tap_open(&b, "sixteen-letters.", &err), -EINVAL);
    assert_int_equal(net_tap_open(&b, "lo", &err), -EINVAL);
    assert_non_null(strstr(err.text, "not a TAP device"));
    assert_int_equal(net_tap_open(&b, "qz0", &err), -EBUSY);
}

static const char *enter_namespace(void)
{
    static char text[100];
    QZ_AUTO_FD int fd = -1;

    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        snprintf(text, sizeof(text), "no network namespace of our own: %s", strerror(errno));
        return text;
    }
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        return NULL;
    snprintf(text, sizeof(text), "/dev/net/tun: %s", strerror(errno));
    return text;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_features),     T(test_frames),      T(test_pause),
        T(test_stale_frames), T(test_device_goes), T(test_multi_queue_device),
        T(test_refused),
    };

    missing = enter_namespace();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

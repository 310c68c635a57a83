/*
 * net_user_test.c - the user network, with the test as its guest: it builds frames, and reads those
 * that come. The other ends are sockets on the loopback interface; no network is needed.
 */
#include "devices/virtio/net_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { WAIT_MS = 20000, FRAME = 2048, GOT_MAX = 512, ETHERNET = 14, IP = 20, UDP = 8, TCP = 20 };
enum { GUEST = 0x0a00020f, GATEWAY = 0x0a000202, DNS = 0x0a000203, LOCAL = 0x7f000001 };
enum { SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

struct frame {
    size_t len; /* without virtio header */
    uint8_t data[FRAME];
};

struct guest {
    struct net_backend *b;
    struct net_client client;
    struct qz_loop *loop;
    struct frame got[GOT_MAX]; /* what came and was not looked at yet */
    unsigned head, count, total;
    bool inside; /* a call into the backend */
    bool paused;
};

/* ---- the guest's wire -------------------------------------------------------------------------
 */

static void take_all(struct guest *g)
{
    uint8_t header[NET_HEADER];
    static uint8_t buf[NET_BYTES_MAX];
    ssize_t n;

    do {
        struct frame *f = &g->got[(g->head + g->count) % GOT_MAX];
        struct iovec iov[] = {{header, 5}, {header + 5, NET_HEADER - 5}, {buf, sizeof(buf)}};

        g->inside = true;
        n = g->b->ops->receive(g->b, iov, QZ_ARRAY_LEN(iov));
        g->inside = false;
        assert_true(n >= 0 && n <= NET_HEADER + FRAME);
        if (!n)
            break;
        for (unsigned i = 0; i < NET_HEADER; i++)
            assert_int_equal(header[i], 0);
        assert_true(g->count < GOT_MAX);
        f->len = (size_t)n - NET_HEADER;
        memcpy(f->data, buf, f->len);
        g->count++;
        g->total++;
    } while (n);
}

static void on_readable(struct net_client *c)
{
    struct guest *g = QZ_CONTAINER_OF(c, struct guest, client);

    assert_false(g->inside);
    assert_false(g->paused);
    take_all(g);
}

static void on_writable(struct net_client *c)
{
    fail_msg("a network that always takes frames has nothing to say here");
}

static int send_frame(struct guest *g, const void *frame, size_t len)
{
    uint8_t header[NET_HEADER] = {0};
    struct iovec iov[] = {{header, sizeof(header)},
                          {(void *)(uintptr_t)frame, len / 3},
                          {(uint8_t *)(uintptr_t)frame + len / 3, len - len / 3}};
    int r;

    g->inside = true;
    r = g->b->ops->send(g->b, iov, QZ_ARRAY_LEN(iov), NET_HEADER + len);
    g->b->ops->flush(g->b);
    g->inside = false;
    return r;
}

static void settle(struct guest *g)
{
    for (unsigned i = 0; i < 8; i++)
        assert_true(qz_loop_once(g->loop, 0) >= 0);
}

/* The next frame for which wanted() is true; others are thrown away. */
static struct frame *await(struct guest *g, bool (*wanted)(const struct frame *f))
{
    int64_t end = qz_now_ns() + WAIT_MS * 1000000ll;

    for (;;) {
        while (g->count) {
            struct frame *f = &g->got[g->head];

            g->head = (g->head + 1) % GOT_MAX;
            g->count--;
            if (wanted(f))
                return f;
        }
        assert_true(qz_now_ns() < end);
        assert_true(qz_loop_once(g->loop, 50) >= 0);
    }
}

static struct guest *guest_new(const struct net_user_options *options)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct qz_error err = {0};

    assert_non_null(g);
    qz_log_set_level(QZ_LOG_ERROR);
    assert_int_equal(qz_loop_new(&g->loop, &err), 0);
    if (net_user_open(&g->b, options, &err) < 0)
        fail_msg("%s", err.text);
    g->client = (struct net_client){on_readable, on_writable};
    assert_int_equal(g->b->ops->attach(g->b, g->loop, &g->client, &err), 0);
    g->b->ops->start(g->b, 0);
    return g;
}

static void guest_free(struct guest *g)
{
    g->b->ops->stop(g->b);
    g->b->ops->free(g->b);
    qz_loop_free(g->loop);
    free(g);
}

/* ---- packets ----------------------------------------------------------------------------------
 */

static uint32_t sum(uint32_t start, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        start += qz_load_be16(p + i);
    return len & 1 ? start + (uint32_t)p[len - 1] * 256 : start;
}

static uint16_t fold(uint32_t s)
{
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

/* Ethernet and IPv4 around what lies at frame + ETHERNET + IP; returns the frame's length. */
static size_t wrap(uint8_t *frame, uint8_t protocol, uint32_t to, size_t len)
{
    static const uint8_t gateway[6] = {0x52, 0x55, 10, 0, 2, 2};
    uint8_t *ip = frame + ETHERNET;

    memcpy(frame, gateway, 6);
    memcpy(frame + 6, mac, 6);
    qz_store_be16(frame + 12, 0x0800);
    memset(ip, 0, IP);
    ip[0] = 0x45;
    qz_store_be16(ip + 2, (uint16_t)(IP + len));
    ip[8] = 64;
    ip[9] = protocol;
    qz_store_be32(ip + 12, GUEST);
    qz_store_be32(ip + 16, to);
    qz_store_be16(ip + 10, fold(sum(0, ip, IP)));
    return ETHERNET + IP + len;
}

/* The checksum over pseudo header and payload (RFC 793 §3.1); 0 in place when it is made. */
static uint16_t transport_sum(uint8_t protocol, uint32_t to, const uint8_t *p, size_t len)
{
    uint32_t pseudo = (GUEST >> 16) + (GUEST & 0xffff) + (to >> 16) + (to & 0xffff);

    return fold(sum(pseudo + protocol + (uint32_t)len, p, len));
}

static int send_udp(struct guest *g, uint32_t to, uint16_t from_port, uint16_t port,
                    const void *data, size_t len)
{
    uint8_t frame[FRAME] = {0}, *udp = frame + ETHERNET + IP;

    qz_store_be16(udp, from_port);
    qz_store_be16(udp + 2, port);
    qz_store_be16(udp + 4, (uint16_t)(UDP + len));
    memcpy(udp + UDP, data, len);
    qz_store_be16(udp + 6, transport_sum(IPPROTO_UDP, to, udp, UDP + len));
    return send_frame(g, frame, wrap(frame, IPPROTO_UDP, to, UDP + len));
}

static int send_tcp(struct guest *g, uint32_t to, uint16_t from_port, uint16_t port, uint8_t flags,
                    uint32_t seq, uint32_t ack, const char *text)
{
    uint8_t frame[FRAME] = {0}, *tcp = frame + ETHERNET + IP;
    size_t len = strlen(text);

    qz_store_be16(tcp, from_port);
    qz_store_be16(tcp + 2, port);
    qz_store_be32(tcp + 4, seq);
    qz_store_be32(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    qz_store_be16(tcp + 14, 65535);
    memcpy(tcp + TCP, text, len);
    qz_store_be16(tcp + 16, transport_sum(IPPROTO_TCP, to, tcp, TCP + len));
    return send_frame(g, frame, wrap(frame, IPPROTO_TCP, to, TCP + len));
}

static bool is_ip(const struct frame *f, uint8_t protocol)
{
    return f->len > ETHERNET + IP && qz_load_be16(f->data + 12) == 0x0800 &&
           f->data[ETHERNET + 9] == protocol;
}

static bool is_tcp(const struct frame *f)
{
    return is_ip(f, IPPROTO_TCP);
}

static bool is_tcp_data(const struct frame *f)
{
    return is_tcp(f) && f->data[ETHERNET + IP + 13] & PSH;
}

static bool is_udp(const struct frame *f)
{
    return is_ip(f, IPPROTO_UDP);
}

static bool is_arp_reply(const struct frame *f)
{
    return f->len >= 42 && qz_load_be16(f->data + 12) == 0x0806 && f->data[21] == 2;
}

static void ask_arp(struct guest *g, uint32_t who)
{
    uint8_t frame[60] = {0};

    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    qz_store_be16(frame + 12, 0x0806);
    qz_store_be16(frame + 14, 1);
    qz_store_be16(frame + 16, 0x0800);
    frame[18] = 6;
    frame[19] = 4;
    frame[21] = 1;
    memcpy(frame + 22, mac, 6);
    qz_store_be32(frame + 28, GUEST);
    qz_store_be32(frame + 38, who);
    assert_int_equal(send_frame(g, frame, sizeof(frame)), 1);
}

/* ARP both ways: libslirp knows the guest's address afterwards. */
static void introduce(struct guest *g)
{
    struct frame *f;

    ask_arp(g, GATEWAY);
    f = await(g, is_arp_reply);
    assert_int_equal(qz_load_be32(f->data + 28), GATEWAY);
    assert_memory_equal(f->data, mac, 6);
}

/* ---- the host's end ---------------------------------------------------------------------------
 */

/* A socket on the loopback interface; *port 0: any, and told. */
static int host_socket(int type, uint16_t *port, bool wait)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(fd, 16), 0);
    return fd;
}

/* A port that was free a moment ago. */
static uint16_t free_port(int type)
{
    uint16_t port = 0;

    close(host_socket(type, &port, true));
    return port;
}

static int host_connect(int type, uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        assert_int_equal(errno, EINPROGRESS);
    return fd;
}

/* Reads from fd, while the loop runs, until `text` came. */
static void host_expects(struct guest *g, int fd, const char *text)
{
    int64_t end = qz_now_ns() + WAIT_MS * 1000000ll;
    char buf[64] = {0};
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf) - 1)) < 0) {
        assert_true(errno == EAGAIN && qz_now_ns() < end);
        assert_true(qz_loop_once(g->loop, 50) >= 0);
    }
    assert_string_equal(buf, text);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 2048; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void test_arp(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){0});

    introduce(g);
    ask_arp(g, DNS);
    assert_int_equal(qz_load_be32(await(g, is_arp_reply)->data + 28), DNS);
    guest_free(g);
}

static const uint8_t *dhcp_option(const struct frame *f, uint8_t code)
{
    const uint8_t *p = f->data + ETHERNET + IP + UDP + 240, *end = f->data + f->len;

    while (p + 2 <= end && *p != 255 && p + 2 + p[1] <= end) {
        if (*p == code)
            return p;
        p += *p ? 2 + p[1] : 1;
    }
    return NULL;
}

/* RFC 2131: DISCOVER is answered by an OFFER of the first address. */
static void test_dhcp(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){.hostname = "little"});
    uint8_t dhcp[300] = {1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe};
    const uint8_t *option;
    struct frame *f;

    memcpy(dhcp + 28, mac, 6);
    memcpy(dhcp + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
    assert_int_equal(send_udp(g, UINT32_MAX, 68, 67, dhcp, sizeof(dhcp)), 1);
    f = await(g, is_udp);
    assert_memory_equal(f->data + ETHERNET + IP + UDP + 4, dhcp + 4, 4);
    assert_int_equal(qz_load_be32(f->data + ETHERNET + IP + UDP + 16), GUEST);
    option = dhcp_option(f, 53);
    assert_true(option && option[2] == 2);
    option = dhcp_option(f, 3);
    assert_true(option && qz_load_be32(option + 2) == GATEWAY);
    option = dhcp_option(f, 6);
    assert_true(option && qz_load_be32(option + 2) == DNS);
    option = dhcp_option(f, 12);
    assert_true(option && option[1] == 6 && !memcmp(option + 2, "little", 6));
    guest_free(g);
}

/* A connection of the host to a forwarded port reaches the guest; words go both ways. */
static void test_tcp_forward(void **state)
{
    struct net_user_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    struct guest *g = guest_new(&(struct net_user_options){.forward = &forward, .forwards = 1});
    uint16_t port;
    uint32_t seq;
    uint8_t *tcp;
    int fd;

    introduce(g);
    fd = host_connect(SOCK_STREAM, forward.host_port);
    tcp = await(g, is_tcp)->data + ETHERNET + IP;
    assert_int_equal(tcp[13], SYN);
    assert_int_equal(qz_load_be16(tcp + 2), 22);
    port = qz_load_be16(tcp);
    seq = qz_load_be32(tcp + 4) + 1;
    assert_int_equal(send_tcp(g, GATEWAY, 22, port, SYN | ACK, 1000, seq, ""), 1);
    assert_int_equal(await(g, is_tcp)->data[ETHERNET + IP + 13], ACK);
    assert_int_equal(write(fd, "hello", 5), 5);
    tcp = await(g, is_tcp_data)->data + ETHERNET + IP;
    assert_memory_equal(tcp + (tcp[12] >> 4) * 4, "hello", 5);
    assert_int_equal(send_tcp(g, GATEWAY, 22, port, PSH | ACK, 1001, seq + 5, "world"), 1);
    host_expects(g, fd, "world");
    close(fd);
    guest_free(g);
}

static void test_udp_forward(void **state)
{
    struct net_user_forward forward = {
        .udp = true, .host_port = free_port(SOCK_DGRAM), .guest_port = 5353};
    struct guest *g = guest_new(&(struct net_user_options){.forward = &forward, .forwards = 1});
    int fd = host_connect(SOCK_DGRAM, forward.host_port);
    uint8_t *udp;

    introduce(g);
    assert_int_equal(write(fd, "ping", 4), 4);
    udp = await(g, is_udp)->data + ETHERNET + IP;
    assert_int_equal(qz_load_be16(udp + 2), 5353);
    assert_memory_equal(udp + UDP, "ping", 4);
    assert_int_equal(send_udp(g, GATEWAY, 5353, qz_load_be16(udp), "pong", 4), 1);
    host_expects(g, fd, "pong");
    close(fd);
    guest_free(g);
}

/* 10.0.2.2 is the host's loopback interface, unless it was told not to be. */
static void test_guest_connects(void **state)
{
    for (unsigned closed = 0; closed < 3; closed++) {
        struct net_user_options options = {.no_host_loopback = closed == 1,
                                           .restricted = closed == 2};
        struct guest *g = guest_new(&options);
        uint16_t port = 0;
        int listener = host_socket(SOCK_STREAM, &port, false), fd;
        uint8_t *tcp;

        introduce(g);
        assert_int_equal(send_tcp(g, GATEWAY, 40000, port, SYN, 5000, 0, ""), 1);
        if (closed == 0) {
            tcp = await(g, is_tcp)->data + ETHERNET + IP;
            assert_int_equal(tcp[13], SYN | ACK);
            assert_int_equal(qz_load_be32(tcp + 8), 5001);
        }
        settle(g);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_int_equal(fd >= 0, closed == 0);
        close(fd);
        close(listener);
        guest_free(g);
    }
}

static void test_foreign_frames(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){0});
    static uint8_t frame[70000];

    introduce(g);
    qz_store_be16(frame + 12, 0x86dd); /* IPv6 */
    assert_int_equal(send_frame(g, frame, 200), -EPERM);
    assert_int_equal(send_frame(g, frame, ETHERNET), -EPERM);
    qz_store_be16(frame + 12, 0x0800); /* IPv4, of version 0: libslirp's to drop */
    assert_int_equal(send_frame(g, frame, ETHERNET), 1);
    assert_int_equal(send_frame(g, frame, sizeof(frame)), -EMSGSIZE);
    introduce(g);
    guest_free(g);
}

/* Fragments that nobody completes are taken up to an allowance only. */
static void test_fragments(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){0});
    uint8_t frame[1514] = {0}, *ip = frame + ETHERNET;
    unsigned taken = 0;

    for (unsigned i = 0; i < 20000; i++) {
        size_t len = wrap(frame, IPPROTO_UDP, GATEWAY, 1400);

        qz_store_be16(ip + 4, (uint16_t)i);
        qz_store_be16(ip + 6, 0x2000); /* more to come */
        qz_store_be16(ip + 10, 0);
        qz_store_be16(ip + 10, fold(sum(0, ip, IP)));
        taken += send_frame(g, frame, len) == 1;
        if (i % 64 == 0) /* a batch: each could have opened a socket */
            settle(g);
    }
    assert_true(taken >= 5000 && taken <= 15000);
    introduce(g);
    guest_free(g);
}

/* A guest that takes no frames costs a bounded number of them, and the network goes on after. */
static void test_pause(void **state)
{
    struct net_user_forward forward = {
        .udp = true, .host_port = free_port(SOCK_DGRAM), .guest_port = 7};
    struct guest *g = guest_new(&(struct net_user_options){.forward = &forward, .forwards = 1});
    int fd = host_connect(SOCK_DGRAM, forward.host_port);

    introduce(g);
    g->b->ops->pause(g->b, g->paused = true);
    g->total = 0;
    for (unsigned i = 0; i < 400; i++) {
        ssize_t n = write(fd, &i, sizeof(i));

        assert_true(n == sizeof(i) || errno == ENOBUFS || errno == EAGAIN);
        settle(g);
    }
    assert_int_equal(g->total, 0);
    g->paused = false;
    g->b->ops->pause(g->b, false);
    take_all(g);
    assert_true(g->total >= 64 && g->total <= 128);
    for (unsigned i = 0; i < 1000; i++) { /* what the socket still holds, one in each round */
        g->count = 0;
        assert_true(qz_loop_once(g->loop, 0) >= 0);
    }
    introduce(g);
    assert_int_equal(write(fd, "again", 5), 5);
    while (memcmp(await(g, is_udp)->data + ETHERNET + IP + UDP, "again", 5))
        continue;
    close(fd);
    guest_free(g);
}

static void test_stop_and_start(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){0});

    introduce(g);
    ask_arp(g, GATEWAY); /* its answer is for nobody */
    g->b->ops->stop(g->b);
    settle(g);
    g->b->ops->start(g->b, 0);
    settle(g);
    assert_int_equal(g->count, 0);
    introduce(g);
    guest_free(g);
}

/* The port of the host's that the guest's next datagram comes from. */
static uint16_t source_port(struct guest *g, int fd, uint16_t port)
{
    struct sockaddr_in from = {0};
    socklen_t len = sizeof(from);
    char text[4];

    assert_int_equal(send_udp(g, GATEWAY, 1234, port, "word", 4), 1);
    settle(g);
    assert_int_equal(recvfrom(fd, text, 4, 0, (struct sockaddr *)&from, &len), 4);
    assert_memory_equal(text, "word", 4);
    return ntohs(from.sin_port);
}

/* What the guest says first, before libslirp has looked at the time, begins a flow like any other.
 */
static void test_first_words(void **state)
{
    struct guest *g = guest_new(&(struct net_user_options){0});
    uint16_t port = 0, from;
    int fd = host_socket(SOCK_DGRAM, &port, false);

    from = source_port(g, fd, port);
    introduce(g);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(source_port(g, fd, port), from);
    close(fd);
    guest_free(g);
}

/* Neither the guest nor those who connect to it can use up the process's descriptors. */
static void test_descriptors_bounded(void **state)
{
    enum { LIMIT = 128, FLOWS = 400 };
    struct net_user_forward forward = {.host_port = free_port(SOCK_STREAM), .guest_port = 22};
    struct rlimit before, low;
    unsigned at_start, refused = 0;
    struct guest *g;
    int fd[16];

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){.rlim_cur = LIMIT, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    g = guest_new(&(struct net_user_options){.forward = &forward, .forwards = 1});
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    introduce(g);
    at_start = open_descriptors();
    for (unsigned i = 0; i < FLOWS; i++) {
        refused += send_udp(g, GATEWAY, (uint16_t)(1000 + i), 9, "x", 1) == -EPERM;
        settle(g);
    }
    assert_true(open_descriptors() - at_start <= LIMIT / 2);
    assert_true(open_descriptors() - at_start >= LIMIT / 4);
    assert_true(refused >= FLOWS - LIMIT);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(fd); i++) {
        fd[i] = host_connect(SOCK_STREAM, forward.host_port);
        settle(g);
    }
    assert_true(open_descriptors() - at_start <= LIMIT / 2 + QZ_ARRAY_LEN(fd) + 2);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(fd); i++)
        close(fd[i]);
    introduce(g); /* what needs no socket still works */
    guest_free(g);
}

static void test_forward_errors(void **state)
{
    uint16_t port = 0;
    int taken = host_socket(SOCK_STREAM, &port, true);
    struct net_user_forward forward[] = {{.host_port = port, .guest_port = 22},
                                         {.host_port = port, .guest_port = 0},
                                         {.host_port = 0, .guest_port = 22}};
    struct net_backend *b = NULL;
    struct qz_error err = {0};

    assert_int_equal(
        net_user_open(&b, &(struct net_user_options){.forward = forward, .forwards = 1}, &err),
        -EADDRINUSE);
    assert_non_null(strstr(err.text, "127.0.0.1"));
    for (unsigned i = 1; i < 3; i++)
        assert_int_equal(
            net_user_open(&b, &(struct net_user_options){.forward = &forward[i], .forwards = 1},
                          &err),
            -EINVAL);
    assert_null(b);
    close(taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_words), /* libslirp has its time but once for a process */
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_dhcp),
        cmocka_unit_test(test_tcp_forward),
        cmocka_unit_test(test_udp_forward),
        cmocka_unit_test(test_guest_connects),
        cmocka_unit_test(test_foreign_frames),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_stop_and_start),
        cmocka_unit_test(test_descriptors_bounded),
        cmocka_unit_test(test_forward_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

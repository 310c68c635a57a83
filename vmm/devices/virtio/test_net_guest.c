/*
 * test_net_guest.c - see test_net_guest.h.
 */
#include "devices/virtio/test_net_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CSUM_AND_TSO                                                                               \
    (QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) |                                 \
     QZ_BIT(VIRTIO_NET_F_HOST_TSO4) | QZ_BIT(VIRTIO_NET_F_GUEST_TSO4))

struct net_guest *net_guest_new(const uint8_t mac[6], bool given)
{
    struct net_guest *g = calloc(1, sizeof(*g));
    struct virtio_net_options options = {.mac_given = given, .mtu = MTU};
    struct qz_error err;

    memcpy(options.mac, mac, sizeof(options.mac));
    assert_non_null(g);
    qz_log_set_level(QZ_LOG_ERROR);
    g->tm = vtest_machine_new(0);
    fake_net_init(&g->fake, CSUM_AND_TSO);
    options.backend = &g->fake.b;
    assert_int_equal(virtio_net_new(&g->d, &g->tm->m, g->tm->m.main_loop, &options, &err), 0);
    assert_int_equal(virtio_pci_new(&g->vp, g->d, &err), 0);
    g->t = vtest_open(g->tm, VIRTIO_ID_NET);
    assert_non_null(g->t);
    return g;
}

int net_guest_setup(void **state)
{
    *state = net_guest_new((const uint8_t[]){0x52, 0x54, 0, 1, 2, 3}, false);
    return 0;
}

static void forget_buffers(struct net_guest *g)
{
    for (; g->posted_count; g->posted_count--) {
        free(g->posted[g->posted_head].data);
        g->posted_head = (g->posted_head + 1) % POSTED_MAX;
    }
}

void net_guest_free(struct net_guest *g)
{
    forget_buffers(g);
    vtest_close(g->t);
    net_guest_settle(g);
    assert_false(g->fake.started);
    virtio_pci_free(g->vp);
    assert_int_equal(g->fake.freed, 1);
    vtest_machine_free(g->tm);
    free(g);
}

int net_guest_teardown(void **state)
{
    net_guest_free(*state);
    return 0;
}

static bool started_for_this_driver(void *context)
{
    struct net_guest *g = context;

    return g->fake.started && g->fake.negotiated == g->t->features;
}

void net_guest_negotiate(struct net_guest *g, uint64_t features, bool packed)
{
    forget_buffers(g);
    assert_int_equal(vtest_reset(g->t), 0);
    net_guest_settle(g);
    assert_false(g->fake.started);
    assert_int_equal(vtest_negotiate(g->t, features, packed), 0);
    assert_int_equal(vtest_run_until(g->tm, started_for_this_driver, g), 0);
    net_guest_settle(g);
    g->tm->msi_count = 0;
}

void net_guest_settle(struct net_guest *g)
{
    /* Each round may post work for the next; a batch's worth of rounds is more than any test needs.
     */
    for (unsigned i = 0; i < 32; i++)
        vtest_run(g->tm, 0);
}

void net_guest_post(struct net_guest *g, size_t size, unsigned pieces)
{
    struct posted *p = &g->posted[(g->posted_head + g->posted_count++) % POSTED_MAX];
    struct iovec iov[256];

    assert_true(g->posted_count <= POSTED_MAX && pieces <= QZ_ARRAY_LEN(iov));
    p->size = size;
    p->data = malloc(size);
    assert_non_null(p->data);
    for (unsigned i = 0; i < pieces; i++)
        iov[i] = (struct iovec){p->data + size * i / pieces,
                                size * (i + 1) / pieces - size * i / pieces};
    p->token = vtest_submit(g->t, RXQ, NULL, 0, iov, pieces);
    assert_true(p->token >= 0);
}

static size_t take_buffer(struct net_guest *g, uint8_t *buf, size_t room)
{
    struct posted *p = &g->posted[g->posted_head];
    uint32_t written;

    assert_true(g->posted_count > 0);
    assert_int_equal(vtest_wait(g->t, RXQ, p->token, &written), 0);
    assert_true(written <= p->size && written <= room);
    memcpy(buf, p->data, written);
    free(p->data);
    g->posted_head = (g->posted_head + 1) % POSTED_MAX;
    g->posted_count--;
    return written;
}

size_t net_guest_take(struct net_guest *g, uint8_t *buf, unsigned *buffers)
{
    size_t len = take_buffer(g, buf, NET_BYTES_MAX);
    unsigned n;

    assert_true(len >= NET_HEADER);
    n = qz_load_le16(buf + offsetof(struct virtio_net_hdr_v1, num_buffers));
    assert_true(n >= 1);
    if (buffers)
        *buffers = n;
    while (--n)
        len += take_buffer(g, buf + len, NET_BYTES_MAX - len);
    return len;
}

void net_guest_send(struct net_guest *g, const void *header, const void *frame, size_t len,
                    unsigned pieces)
{
    uint8_t *copy = malloc(NET_HEADER + len);
    struct iovec iov[256];
    size_t total = NET_HEADER + len;

    assert_true(copy && pieces <= QZ_ARRAY_LEN(iov));
    memcpy(copy, header, NET_HEADER);
    memcpy(copy + NET_HEADER, frame, len);
    for (unsigned i = 0; i < pieces; i++)
        iov[i] = (struct iovec){copy + total * i / pieces,
                                total * (i + 1) / pieces - total * i / pieces};
    assert_int_equal(vtest_request(g->t, TXQ, iov, pieces, NULL, 0, NULL), 0);
    free(copy);
}

uint8_t net_guest_command(struct net_guest *g, uint8_t class, uint8_t command, const void *data,
                          size_t len)
{
    struct virtio_net_ctrl_hdr header = {class, command};
    struct iovec out[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)data, len}};
    uint8_t ack = 0xee;
    uint32_t written;

    assert_int_equal(
        vtest_request(g->t, CTRLQ, out, len ? 2 : 1, &(struct iovec){&ack, 1}, 1, &written), 0);
    assert_int_equal(written, 1);
    return ack;
}

bool net_guest_failed(struct net_guest *g)
{
    return vtest_status(g->t) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

struct virtio_net_stats net_guest_stats(struct net_guest *g)
{
    struct virtio_net_stats stats;

    virtio_net_get_stats(g->d, &stats);
    return stats;
}

void net_guest_pattern(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(i * 31 + (i >> 8) + seed * 17);
}

/*
 * virtio_net_test.c - the network device seen by its driver and by its network: configuration,
 * negotiation, control queue, resets, and frames to send. Receiving: virtio_net_rx_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/virtio_pci.h>

#include "devices/virtio/test_net_guest.h"

#define CTRL                                                                                       \
    (QZ_BIT(VIRTIO_NET_F_CTRL_VQ) | QZ_BIT(VIRTIO_NET_F_CTRL_RX) |                                 \
     QZ_BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) | QZ_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR))

static const struct virtio_net_hdr_v1 plain;

/* ---- configuration and negotiation ------------------------------------------------------------
 */

static void test_configuration(void **state)
{
    struct net_guest *g = *state;
    static const uint8_t mac[] = {0x52, 0x54, 0, 1, 2, 3};
    uint8_t config[17];

    assert_int_equal(g->t->queue_count, 3);
    assert_true(g->t->offered & QZ_BIT(VIRTIO_NET_F_MAC));
    assert_true(g->t->offered & QZ_BIT(VIRTIO_NET_F_MRG_RXBUF));
    assert_true(g->t->offered & QZ_BIT(VIRTIO_NET_F_MTU));
    assert_true(g->t->offered & QZ_BIT(VIRTIO_NET_F_HOST_TSO4));
    /* Not what the backend cannot do, nor what there is no queue for. */
    assert_false(g->t->offered & QZ_BIT(VIRTIO_NET_F_HOST_TSO6));
    assert_false(g->t->offered & QZ_BIT(VIRTIO_NET_F_MQ));
    vtest_device_read(g->t, 0, config, sizeof(config));
    assert_memory_equal(config, mac, 6);
    assert_int_equal(qz_load_le16(config + offsetof(struct virtio_net_config, status)),
                     VIRTIO_NET_S_LINK_UP);
    assert_int_equal(qz_load_le16(config + offsetof(struct virtio_net_config, mtu)), MTU);
    assert_int_equal(config[offsetof(struct virtio_net_config, duplex)], 1);
}

static void test_refused_options(void **state)
{
    struct net_guest *g = *state;
    static const struct virtio_net_options bad[] = {
        {.mac = {0x53, 0x54, 0, 0, 0, 1}}, {.mac = {0}}, {.mac = {0x52}, .mtu = 67}};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        struct virtio_net_options options = bad[i];
        struct virtio_device *d = NULL;
        struct qz_error err = {0};
        struct fake_net fake;

        fake_net_init(&fake, 0);
        options.backend = &fake.b;
        assert_int_equal(virtio_net_new(&d, &g->tm->m, g->tm->m.main_loop, &options, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, "fake"));
        assert_int_equal(fake.freed, 1);
    }
}

static void test_backend_follows_driver(void **state)
{
    struct net_guest *g = *state;

    assert_int_equal(g->fake.starts, 0);
    net_guest_negotiate(g, QZ_BIT(VIRTIO_NET_F_CSUM), false);
    assert_int_equal(g->fake.starts, 1);
    assert_true(g->fake.negotiated & QZ_BIT(VIRTIO_NET_F_CSUM));
    assert_false(g->fake.negotiated & QZ_BIT(VIRTIO_NET_F_HOST_TSO4));
    net_guest_negotiate(g, 0, true);
    assert_int_equal(g->fake.starts, 2);
    assert_int_equal(g->fake.stops, 1);
    /* Two drivers between two rounds of the loop: the first one is never heard of. */
    vtest_set_status(g->t, 0);
    assert_int_equal(vtest_status(g->t), 0);
    assert_int_equal(vtest_negotiate(g->t, 0, false), 0);
    vtest_set_status(g->t, 0);
    assert_int_equal(vtest_negotiate(g->t, QZ_BIT(VIRTIO_NET_F_CSUM), false), 0);
    net_guest_settle(g);
    assert_int_equal(g->fake.starts, 3);
    assert_int_equal(g->fake.stops, 2);
    assert_true(g->fake.negotiated & QZ_BIT(VIRTIO_NET_F_CSUM));
}

/* ---- sending ----------------------------------------------------------------------------------
 */

static void send_everything(struct net_guest *g, bool packed)
{
    static uint8_t frame[NET_FRAME_MAX];
    static const size_t lengths[] = {14, 60, 1514, 9000, NET_FRAME_MAX};
    unsigned sent = 0;
    uint64_t bytes = 0;

    net_guest_negotiate(g, 0, packed);
    g->fake.sent = 0;
    for (unsigned indirect = 0; indirect < 2; indirect++)
        for (unsigned pieces = 1; pieces <= 26; pieces += 5)
            for (unsigned i = 0; i < QZ_ARRAY_LEN(lengths); i++) {
                struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_DATA_VALID,
                                                   .num_buffers = 99};

                g->t->indirect = indirect;
                net_guest_pattern(frame, lengths[i], sent);
                net_guest_send(g, &header, frame, lengths[i], pieces);
                assert_int_equal(g->fake.sent, ++sent);
                assert_int_equal(g->fake.last.len, NET_HEADER + lengths[i]);
                assert_memory_equal(g->fake.last.data + NET_HEADER, frame, lengths[i]);
                /* Nothing of the header that belongs to the other direction. */
                assert_memory_equal(g->fake.last.data, &plain, NET_HEADER);
                bytes += lengths[i];
            }
    assert_false(net_guest_failed(g));
    assert_true(g->fake.flushes > 0);
    assert_true(net_guest_stats(g).tx_bytes >= bytes);
}

static void test_send_split(void **state)
{
    send_everything(*state, false);
}

static void test_send_packed(void **state)
{
    send_everything(*state, true);
    assert_int_equal(net_guest_stats(*state).tx_dropped, 0);
}

static void test_offload_headers(void **state)
{
    struct net_guest *g = *state;
    struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                       .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                       .gso_size = 1448,
                                       .hdr_len = 54,
                                       .csum_start = 34,
                                       .csum_offset = 16};
    uint8_t frame[4000] = {0};

    net_guest_negotiate(g, QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_HOST_TSO4), false);
    net_guest_send(g, &header, frame, sizeof(frame), 3);
    assert_memory_equal(g->fake.last.data, &header, NET_HEADER);
}

static void test_bad_headers(void **state)
{
    struct net_guest *g = *state;
    static const struct {
        uint64_t features;
        uint8_t flags, type;
    } bad[] = {
        {0, VIRTIO_NET_HDR_F_NEEDS_CSUM, 0},
        {0, 0, VIRTIO_NET_HDR_GSO_TCPV4},
        {QZ_BIT(VIRTIO_NET_F_CSUM), VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4},
        {QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_HOST_TSO4), VIRTIO_NET_HDR_F_NEEDS_CSUM,
         VIRTIO_NET_HDR_GSO_TCPV6},
        {QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_HOST_TSO4), 0, VIRTIO_NET_HDR_GSO_TCPV4},
        {QZ_BIT(VIRTIO_NET_F_CSUM) | QZ_BIT(VIRTIO_NET_F_HOST_TSO4), VIRTIO_NET_HDR_F_NEEDS_CSUM,
         VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN},
        {QZ_BIT(VIRTIO_NET_F_CSUM), VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP},
        {QZ_BIT(VIRTIO_NET_F_CSUM), VIRTIO_NET_HDR_F_NEEDS_CSUM, NET_HDR_GSO_UDP_L4},
        {QZ_BIT(VIRTIO_NET_F_CSUM), VIRTIO_NET_HDR_F_NEEDS_CSUM, 0x77},
        {0, 0, VIRTIO_NET_HDR_GSO_ECN},
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++)
        for (unsigned packed = 0; packed < 2; packed++) {
            uint8_t frame[NET_HEADER + 60] = {bad[i].flags, bad[i].type};

            net_guest_negotiate(g, bad[i].features, packed);
            g->fake.sent = 0;
            assert_true(
                vtest_submit(g->t, TXQ, &(struct iovec){frame, sizeof(frame)}, 1, NULL, 0) >= 0);
            vtest_kick(g->t, TXQ);
            net_guest_settle(g);
            assert_true(net_guest_failed(g));
            assert_int_equal(vtest_msi_count(g->tm, 0), 1);
            assert_int_equal(vtest_poll(g->t, TXQ), 0);
            assert_int_equal(g->fake.sent, 0);
        }
    net_guest_negotiate(g, 0, false);
    net_guest_send(g, &plain, "sixty bytes or more, or less ", 20, 1);
    assert_int_equal(g->fake.sent, 1);
}

static void test_bad_frames(void **state)
{
    struct net_guest *g = *state;
    static uint8_t bytes[NET_BYTES_MAX + 1];
    struct iovec in = {bytes, 64};

    for (unsigned i = 0; i < 3; i++) {
        struct iovec out = {bytes, i == 0 ? NET_HEADER - 1 : i == 1 ? sizeof(bytes) : 64};

        net_guest_negotiate(g, 0, i & 1);
        g->fake.sent = 0;
        /* Shorter than a header, longer than any frame, with a part to be written. */
        assert_true(vtest_submit(g->t, TXQ, &out, 1, &in, i == 2) >= 0);
        vtest_kick(g->t, TXQ);
        net_guest_settle(g);
        assert_true(net_guest_failed(g));
        assert_int_equal(g->fake.sent, 0);
    }
    /* A header alone, and half an Ethernet header: dropped, and the queue goes on. */
    net_guest_negotiate(g, 0, false);
    net_guest_send(g, &plain, bytes, 0, 1);
    net_guest_send(g, &plain, bytes, 13, 2);
    assert_int_equal(g->fake.sent, 0);
    assert_int_equal(net_guest_stats(g).tx_dropped, 2);
    g->fake.refuses = -EPERM;
    net_guest_send(g, &plain, bytes, 60, 1);
    assert_int_equal(net_guest_stats(g).tx_dropped, 3);
    g->fake.refuses = 0;
    net_guest_send(g, &plain, bytes, 60, 1);
    assert_int_equal(g->fake.sent, 1);
    assert_false(net_guest_failed(g));
}

static void test_send_stall(void **state)
{
    struct net_guest *g = *state;
    uint8_t frame[NET_HEADER + 60] = {0};

    for (unsigned packed = 0; packed < 2; packed++) {
        uint64_t stalls = net_guest_stats(g).tx_stalls;

        net_guest_negotiate(g, 0, packed);
        g->fake.sent = 0;
        fake_net_takes(&g->fake, 3);
        net_guest_settle(g);
        for (unsigned i = 0; i < 10; i++) {
            frame[NET_HEADER] = (uint8_t)i;
            assert_true(
                vtest_submit(g->t, TXQ, &(struct iovec){frame, sizeof(frame)}, 1, NULL, 0) >= 0);
        }
        vtest_kick(g->t, TXQ);
        net_guest_settle(g);
        assert_int_equal(g->fake.sent, 3);
        assert_int_equal(vtest_poll(g->t, TXQ), 3);
        assert_int_equal(net_guest_stats(g).tx_stalls, stalls + 1);
        g->t->q[TXQ].always_kick = true; /* a driver that rings although nobody asked */
        vtest_kick(g->t, TXQ);
        g->t->q[TXQ].always_kick = false;
        net_guest_settle(g);
        assert_int_equal(g->fake.sent, 3);
        fake_net_takes(&g->fake, UINT32_MAX);
        net_guest_settle(g);
        assert_int_equal(g->fake.sent, 10);
        assert_int_equal(g->fake.last.data[NET_HEADER], 9); /* in order, none twice */
        assert_int_equal(vtest_poll(g->t, TXQ), 7);
        net_guest_send(g, &plain, frame, 60, 1); /* and kicks are wanted again */
        assert_int_equal(g->fake.sent, 11);
    }
}

/* A whole ring in one kick, and more when that is done: nothing is left lying. */
static void test_send_batches(void **state)
{
    struct net_guest *g = *state;
    uint8_t frame[NET_HEADER + 60] = {0};

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, 0, packed);
        g->fake.sent = 0;
        for (unsigned round = 1; round <= 3; round++) {
            for (unsigned i = 0; i < g->t->q[TXQ].size; i++)
                assert_true(vtest_submit(g->t, TXQ, &(struct iovec){frame, sizeof(frame)}, 1, NULL,
                                         0) >= 0);
            vtest_kick(g->t, TXQ);
            while (g->t->q[TXQ].in_flight)
                assert_true(vtest_wait_any(g->t, TXQ, NULL) >= 0);
            assert_int_equal(g->fake.sent, round * g->t->q[TXQ].size);
        }
    }
}

/* ---- control queue ----------------------------------------------------------------------------
 */

static void test_control(void **state)
{
    struct net_guest *g = *state;
    static const uint8_t mac[6] = {0x52, 0x54, 0, 9, 9, 9}, group[6] = {0x33, 0x33, 0, 0, 0, 1};
    uint8_t on = 1, tables[8 + 3 * 6] = {0}, now[6];

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, CTRL, packed);
        for (uint8_t mode = 0; mode <= VIRTIO_NET_CTRL_RX_NOBCAST; mode++)
            assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_RX, mode, &on, 1), VIRTIO_NET_OK);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_RX, 6, &on, 1), VIRTIO_NET_ERR);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_RX, 0, NULL, 0), VIRTIO_NET_ERR);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_RX, 0, mac, 2), VIRTIO_NET_ERR);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_MQ, 0, mac, 2), VIRTIO_NET_ERR);
        assert_int_equal(net_guest_command(g, 0xff, 0xff, NULL, 0), VIRTIO_NET_ERR);

        assert_int_equal(
            net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6),
            VIRTIO_NET_OK);
        vtest_device_read(g->t, 0, now, 6);
        assert_memory_equal(now, mac, 6);
        assert_int_equal(
            net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, group, 6),
            VIRTIO_NET_ERR);
        assert_int_equal(
            net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 5),
            VIRTIO_NET_ERR);
        vtest_device_read(g->t, 0, now, 6);
        assert_memory_equal(now, mac, 6);
        assert_int_equal(vtest_reset(g->t), 0); /* the address that the host gave is back */
        vtest_device_read(g->t, 0, now, 6);
        assert_int_equal(now[5], 3);

        net_guest_negotiate(g, CTRL, packed);
        qz_store_le32(tables, 1); /* one address, then two */
        qz_store_le32(tables + 10, 2);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
                                           tables, sizeof(tables)),
                         VIRTIO_NET_OK);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
                                           tables, sizeof(tables) - 1),
                         VIRTIO_NET_ERR);
        assert_int_equal(
            net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 3),
            VIRTIO_NET_ERR);
        qz_store_le32(tables, UINT32_MAX);
        assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET,
                                           tables, sizeof(tables)),
                         VIRTIO_NET_ERR);
        memset(tables, 0, sizeof(tables));
        assert_false(net_guest_failed(g));
    }
    /* Not negotiated: refused. */
    net_guest_negotiate(g, QZ_BIT(VIRTIO_NET_F_CTRL_VQ), false);
    assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_RX, 0, &on, 1), VIRTIO_NET_ERR);
    assert_int_equal(
        net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, mac, 6),
        VIRTIO_NET_ERR);
}

static void test_control_malformed(void **state)
{
    struct net_guest *g = *state;
    uint8_t bytes[8] = {0}, ack;
    struct iovec out = {bytes, 3}, in = {&ack, 1};

    for (unsigned i = 0; i < 3; i++) {
        net_guest_negotiate(g, CTRL, i & 1);
        out.iov_len = i == 1 ? 1 : 3;
        /* No room for the answer; half a header; nothing but an answer. */
        assert_true(vtest_submit(g->t, CTRLQ, &out, i<2, &in, i> 0) >= 0);
        vtest_kick(g->t, CTRLQ);
        net_guest_settle(g);
        assert_true(net_guest_failed(g));
        assert_int_equal(vtest_poll(g->t, CTRLQ), 0);
    }
}

/* More commands than one batch, in one kick. */
static void test_control_batch(void **state)
{
    struct net_guest *g = *state;
    static uint8_t ack[150];
    uint8_t bytes[3] = {VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1};

    net_guest_negotiate(g, CTRL, false);
    memset(ack, 0xee, sizeof(ack));
    for (unsigned i = 0; i < sizeof(ack); i++)
        assert_true(vtest_submit(g->t, CTRLQ, &(struct iovec){bytes, 3}, 1,
                                 &(struct iovec){&ack[i], 1}, 1) >= 0);
    vtest_kick(g->t, CTRLQ);
    for (unsigned i = 0; i < sizeof(ack); i++)
        assert_true(vtest_wait_any(g->t, CTRLQ, NULL) >= 0);
    for (unsigned i = 0; i < sizeof(ack); i++)
        assert_int_equal(ack[i], VIRTIO_NET_OK);
}

/* ---- resets ------------------------------------------------------------------------------------
 */

static void test_reset_of_stalled_device(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[4000], got[NET_BYTES_MAX];

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, QZ_BIT(VIRTIO_NET_F_MRG_RXBUF), packed);
        /* A frame in the device that finds no room, and one that the network does not take. */
        net_guest_post(g, 512, 1);
        vtest_kick(g->t, RXQ);
        net_guest_settle(g);
        fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
        fake_net_takes(&g->fake, 0);
        net_guest_settle(g);
        assert_true(g->fake.paused);
        assert_int_equal(g->fake.rx_count, 0);
        assert_true(vtest_submit(g->t, TXQ, &(struct iovec){frame, 100}, 1, NULL, 0) >= 0);
        vtest_kick(g->t, TXQ);
        net_guest_settle(g);
        assert_int_equal(vtest_poll(g->t, TXQ), 0);

        net_guest_negotiate(g, QZ_BIT(VIRTIO_NET_F_MRG_RXBUF), !packed);
        g->fake.takes = UINT32_MAX;
        assert_false(g->fake.paused);
        for (unsigned i = 0; i < 8; i++)
            net_guest_post(g, 1024, 1);
        vtest_kick(g->t, RXQ);
        net_guest_settle(g);
        assert_int_equal(vtest_poll(g->t, RXQ), 0); /* the old frame is gone */
        memset(frame, 0x5a, 100);
        fake_net_arrives(&g->fake, &plain, frame, 100);
        assert_int_equal(net_guest_take(g, got, NULL), NET_HEADER + 100);
        assert_int_equal(got[NET_HEADER], 0x5a);
        g->fake.sent = 0;
        net_guest_send(g, &plain, frame, 60, 1);
        assert_int_equal(g->fake.sent, 1);
    }
}

static void reset_queue(struct net_guest *g, unsigned q)
{
    enum { QUEUE_RESET = 58 };

    vtest_common_write(g->t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
    vtest_common_write(g->t, QUEUE_RESET, 2, 1);
    net_guest_settle(g);
    assert_int_equal(vtest_common_read(g->t, QUEUE_RESET, 2), 0);
    assert_int_equal(g->t->q[q].in_flight, 0);
    vtest_setup_queue(g->t, q);
    net_guest_settle(g);
}

static void test_queue_reset(void **state)
{
    struct net_guest *g = *state;
    static uint8_t got[NET_BYTES_MAX], frame[100];

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, QZ_BIT(VIRTIO_F_RING_RESET), packed);
        fake_net_arrives(&g->fake, &plain, frame, sizeof(frame)); /* there is no buffer */
        net_guest_settle(g);
        assert_true(g->fake.paused);
        for (unsigned q = RXQ; q <= TXQ; q++)
            reset_queue(g, q);
        net_guest_post(g, 1526, 2);
        vtest_kick(g->t, RXQ);
        assert_int_equal(net_guest_take(g, got, NULL), NET_HEADER + sizeof(frame));
        g->fake.sent = 0;
        net_guest_send(g, &plain, frame, sizeof(frame), 2);
        assert_int_equal(g->fake.sent, 1);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, net_guest_setup, net_guest_teardown)
    const struct CMUnitTest tests[] = {
        T(test_configuration),
        T(test_refused_options),
        T(test_backend_follows_driver),
        T(test_send_split),
        T(test_send_packed),
        T(test_offload_headers),
        T(test_bad_headers),
        T(test_bad_frames),
        T(test_send_stall),
        T(test_send_batches),
        T(test_control),
        T(test_control_malformed),
        T(test_control_batch),
        T(test_reset_of_stalled_device),
        T(test_queue_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * virtio_net_rx_test.c - the network device's receive queue: buffers of all shapes, merged or not,
 * too few of them, and such as no frame can be put into.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/virtio/test_net_guest.h"

#define MERGE QZ_BIT(VIRTIO_NET_F_MRG_RXBUF)

static const struct virtio_net_hdr_v1 plain;

/* What the network sends, and what the guest must get. */
static void expect_frame(struct net_guest *g, const uint8_t *frame, size_t len, unsigned buffers)
{
    static uint8_t got[NET_BYTES_MAX];
    unsigned n;

    assert_int_equal(net_guest_take(g, got, &n), NET_HEADER + len);
    assert_memory_equal(got + NET_HEADER, frame, len);
    assert_int_equal(n, buffers);
}

static void test_whole_buffers(void **state)
{
    struct net_guest *g = *state;
    static const size_t lengths[] = {14, 60, 1514, 9000, NET_FRAME_MAX};
    static uint8_t frame[NET_FRAME_MAX];

    for (unsigned packed = 0; packed < 2; packed++)
        for (unsigned indirect = 0; indirect < 2; indirect++) {
            uint64_t frames = net_guest_stats(g).rx_frames;

            net_guest_negotiate(g, 0, packed);
            g->t->indirect = indirect;
            for (unsigned i = 0; i < 40; i++) {
                size_t len = lengths[i % QZ_ARRAY_LEN(lengths)];

                net_guest_post(g, NET_BYTES_MAX, 1 + i % 18);
                vtest_kick(g->t, RXQ);
                net_guest_pattern(frame, len, i);
                fake_net_arrives(&g->fake, &plain, frame, len);
                expect_frame(g, frame, len, 1);
            }
            assert_int_equal(net_guest_stats(g).rx_frames, frames + 40);
            assert_true(vtest_msi_count(g->tm, RXQ + 1) > 0);
            assert_false(net_guest_failed(g));
        }
}

static void test_merged(void **state)
{
    struct net_guest *g = *state;
    static const size_t lengths[] = {14, 500, 1514, 3000, 20000, NET_FRAME_MAX, 60};
    static const size_t sizes[] = {1526, 64, 1000, 4096, 300};
    static uint8_t frame[NET_FRAME_MAX];

    for (unsigned packed = 0; packed < 2; packed++)
        for (unsigned s = 0; s < QZ_ARRAY_LEN(sizes); s++) {
            net_guest_negotiate(g, MERGE, packed);
            for (unsigned i = 0; i < 50; i++) {
                size_t len = lengths[i % QZ_ARRAY_LEN(lengths)], size = sizes[s];

                if (len + NET_HEADER > size * 200) /* not what fits into one ring */
                    continue;
                while (g->posted_count < 200)
                    net_guest_post(g, size, 1);
                vtest_kick(g->t, RXQ);
                net_guest_pattern(frame, len, i);
                fake_net_arrives(&g->fake, &plain, frame, len);
                expect_frame(g, frame, len, (unsigned)((NET_HEADER + len + size - 1) / size));
            }
            assert_false(net_guest_failed(g));
        }
    assert_int_equal(net_guest_stats(g).rx_dropped, 0);
}

/* More than a batch of frames told by one callback. */
static void test_batch(void **state)
{
    struct net_guest *g = *state;
    uint8_t frame[100];

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, MERGE, packed);
        for (unsigned i = 0; i < 200; i++)
            net_guest_post(g, 1526, 1);
        vtest_kick(g->t, RXQ);
        net_guest_settle(g);
        for (unsigned i = 0; i < 200; i++) {
            net_guest_pattern(frame, sizeof(frame), i);
            fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
        }
        for (unsigned i = 0; i < 200; i++) {
            net_guest_pattern(frame, sizeof(frame), i);
            expect_frame(g, frame, sizeof(frame), 1);
        }
    }
}

static void test_stall(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[5000];

    for (unsigned packed = 0; packed < 2; packed++) {
        unsigned pauses = g->fake.pauses;

        net_guest_negotiate(g, MERGE, packed);
        for (unsigned i = 0; i < 6; i++) {
            net_guest_pattern(frame, sizeof(frame), i);
            fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
        }
        net_guest_settle(g);
        assert_true(g->fake.paused);
        assert_int_equal(g->fake.rx_count, 6);
        assert_int_equal(g->fake.pauses, pauses + 1);
        /* Room for two and a half: two arrive, the third waits inside. */
        for (unsigned i = 0; i < 25; i++)
            net_guest_post(g, 512, 1);
        vtest_kick(g->t, RXQ);
        net_guest_settle(g);
        assert_int_equal(g->fake.rx_count, 3);
        for (unsigned i = 0; i < 2; i++) {
            net_guest_pattern(frame, sizeof(frame), i);
            expect_frame(g, frame, sizeof(frame), 10);
        }
        assert_int_equal(vtest_poll(g->t, RXQ), 0);
        assert_true(g->fake.paused);
        /* One buffer is not enough yet, and takes nothing from the third. */
        net_guest_post(g, 512, 1);
        vtest_kick(g->t, RXQ);
        net_guest_settle(g);
        assert_int_equal(vtest_poll(g->t, RXQ), 0);
        for (unsigned i = 0; i < 40; i++)
            net_guest_post(g, 512, 1);
        vtest_kick(g->t, RXQ);
        for (unsigned i = 2; i < 6; i++) {
            net_guest_pattern(frame, sizeof(frame), i);
            expect_frame(g, frame, sizeof(frame), 10);
        }
        assert_int_equal(g->fake.rx_count, 0);
    }
    assert_int_equal(net_guest_stats(g).rx_dropped, 0);
    assert_true(net_guest_stats(g).rx_stalls >= 4);
}

/* Frames that can never be put into the guest's buffers are lost, and only they. */
static void test_too_large(void **state)
{
    struct net_guest *g = *state;
    static uint8_t large[4000], small[100];

    net_guest_pattern(small, sizeof(small), 1);
    for (unsigned packed = 0; packed < 2; packed++) {
        uint64_t dropped = net_guest_stats(g).rx_dropped;

        net_guest_negotiate(g, 0, packed); /* one buffer for each frame */
        net_guest_post(g, 1526, 1);
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &plain, large, sizeof(large));
        fake_net_arrives(&g->fake, &plain, small, sizeof(small));
        expect_frame(g, small, sizeof(small), 1);
        assert_int_equal(net_guest_stats(g).rx_dropped, ++dropped);

        g->t->q[RXQ].size = 8; /* all of the ring does not hold it */
        net_guest_negotiate(g, MERGE, packed);
        for (unsigned i = 0; i < 8; i++)
            net_guest_post(g, 128, 1);
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &plain, large, sizeof(large));
        fake_net_arrives(&g->fake, &plain, small, sizeof(small));
        expect_frame(g, small, sizeof(small), 1);
        assert_int_equal(net_guest_stats(g).rx_dropped, ++dropped);
        g->t->q[RXQ].size = 256;
    }
}

static void test_mtu(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[4000];
    struct virtio_net_hdr_v1 segments = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1448};

    for (unsigned promised = 0; promised < 2; promised++) {
        uint64_t dropped = net_guest_stats(g).rx_dropped;

        net_guest_negotiate(g, MERGE | (promised ? QZ_BIT(VIRTIO_NET_F_MTU) : 0), promised);
        for (unsigned i = 0; i < 16; i++)
            net_guest_post(g, 1526, 1);
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &plain, frame, MTU + 19);
        fake_net_arrives(&g->fake, &plain, frame, MTU + 18);
        fake_net_arrives(&g->fake, &segments, frame, sizeof(frame));
        if (!promised)
            expect_frame(g, frame, MTU + 19, 2);
        expect_frame(g, frame, MTU + 18, 2);
        expect_frame(g, frame, sizeof(frame), 3);
        assert_int_equal(net_guest_stats(g).rx_dropped, dropped + promised);
    }
}

/* Checksum flags reach only a driver that knows them; num_buffers is the device's. */
static void test_headers(void **state)
{
    struct net_guest *g = *state;
    struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                       .csum_start = 34,
                                       .csum_offset = 16,
                                       .num_buffers = 77};
    static uint8_t frame[60], got[NET_BYTES_MAX];

    for (unsigned knows = 0; knows < 2; knows++) {
        net_guest_negotiate(g, knows ? QZ_BIT(VIRTIO_NET_F_GUEST_CSUM) : 0, knows);
        net_guest_post(g, 1526, 13); /* the header in several parts */
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &header, frame, sizeof(frame));
        assert_int_equal(net_guest_take(g, got, NULL), NET_HEADER + sizeof(frame));
        assert_int_equal(got[0], knows ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
        assert_int_equal(got[10], 1);
        assert_int_equal(got[11], 0);
    }
}

static void test_backend_errors(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[60];

    net_guest_negotiate(g, MERGE, false);
    net_guest_post(g, 1526, 1);
    vtest_kick(g->t, RXQ);
    g->fake.rx_error = -EIO;
    fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
    expect_frame(g, frame, sizeof(frame), 1);
    assert_int_equal(net_guest_stats(g).rx_dropped, 1);
    net_guest_post(g, 1526, 1);
    vtest_kick(g->t, RXQ);
    net_guest_settle(g);
    g->fake.rx_error = NET_HEADER - 1; /* not even a header */
    fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
    expect_frame(g, frame, sizeof(frame), 1);
    assert_int_equal(net_guest_stats(g).rx_dropped, 2);
}

static void test_bad_buffers(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[60], bytes[64];

    for (unsigned i = 0; i < 8; i++) {
        struct iovec out = {bytes, 64}, in = {bytes, i & 1 ? 64 : NET_HEADER - 1};

        net_guest_negotiate(g, i & 4 ? MERGE : 0, i & 2);
        /* Not the device's to write, or no room for a header. */
        assert_true(vtest_submit(g->t, RXQ, &out, i & 1, &in, 1) >= 0);
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
        net_guest_settle(g);
        assert_true(net_guest_failed(g));
        assert_int_equal(vtest_poll(g->t, RXQ), 0);
    }
    net_guest_negotiate(g, MERGE, false);
    net_guest_post(g, 1526, 1);
    vtest_kick(g->t, RXQ);
    fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
    expect_frame(g, frame, sizeof(frame), 1);
}

/* A bad buffer behind good ones, met while a frame is spread over them. */
static void test_bad_buffer_in_the_middle(void **state)
{
    struct net_guest *g = *state;
    static uint8_t frame[3000], bytes[64];

    for (unsigned packed = 0; packed < 2; packed++) {
        net_guest_negotiate(g, MERGE, packed);
        net_guest_post(g, 2500, 1);
        assert_true(vtest_submit(g->t, RXQ, &(struct iovec){bytes, 64}, 1, NULL, 0) >= 0);
        vtest_kick(g->t, RXQ);
        fake_net_arrives(&g->fake, &plain, frame, sizeof(frame));
        net_guest_settle(g);
        assert_true(net_guest_failed(g));
        assert_int_equal(vtest_poll(g->t, RXQ), 0);
        assert_true(g->fake.paused);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, net_guest_setup, net_guest_teardown)
    const struct CMUnitTest tests[] = {
        T(test_whole_buffers), T(test_merged),
        T(test_batch),         T(test_stall),
        T(test_too_large),     T(test_mtu),
        T(test_headers),       T(test_backend_errors),
        T(test_bad_buffers),   T(test_bad_buffer_in_the_middle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

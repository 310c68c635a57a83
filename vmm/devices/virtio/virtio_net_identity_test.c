/*
 * virtio_net_identity_test.c - whose address a network device has after a state was loaded, and
 * what its driver is told (VirtIO 1.3 §5.1.4, §5.1.6.5.4).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/virtio/test_net_guest.h"
#include "test_state.h"

#define ANNOUNCES                                                                                  \
    (QZ_BIT(VIRTIO_NET_F_STATUS) | QZ_BIT(VIRTIO_NET_F_CTRL_VQ) |                                  \
     QZ_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | QZ_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE))

enum { CONFIG_VECTOR = 0 };

static const uint8_t own[6] = {0x52, 0x54, 0, 1, 2, 3}, other[6] = {0x52, 0x54, 0, 7, 7, 7},
                     chosen[6] = {0x52, 0x54, 0, 9, 9, 9};

static void load_into(struct net_guest *from, struct net_guest *to)
{
    struct vtest_device source = {from->tm, from->vp}, target = {to->tm, to->vp};
    struct qz_state *saved = qz_state_save(), *loaded;
    struct qz_error err;
    size_t len;
    const void *bytes;

    vtest_device_state(&source, saved);
    assert_int_equal(qz_state_finish(saved, &err), 0);
    bytes = qz_state_bytes(saved, &len);
    loaded = qz_state_load(bytes, len);
    vtest_device_state(&target, loaded);
    assert_int_equal(qz_state_finish(loaded, &err), 0);
    qz_state_free(loaded);
    qz_state_free(saved);
}

static void expect_mac(struct net_guest *g, const uint8_t mac[6])
{
    uint8_t now[6];

    vtest_device_read(g->t, 0, now, sizeof(now));
    assert_memory_equal(now, mac, sizeof(now));
}

static unsigned status(struct net_guest *g)
{
    uint8_t bytes[2];

    vtest_device_read(g->t, offsetof(struct virtio_net_config, status), bytes, sizeof(bytes));
    return qz_load_le16(bytes);
}

static uint8_t announced(struct net_guest *g)
{
    return net_guest_command(g, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NULL, 0);
}

static void test_same_address_announces_itself(void **state)
{
    struct net_guest *g = *state;

    net_guest_negotiate(g, ANNOUNCES, false);
    load_into(g, g);
    assert_int_equal(vtest_msi_count(g->tm, CONFIG_VECTOR), 0); /* interrupts are loaded later */
    net_guest_settle(g);
    assert_int_equal(vtest_msi_count(g->tm, CONFIG_VECTOR), 1);
    assert_int_equal(status(g), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    expect_mac(g, own);
    assert_int_equal(announced(g), VIRTIO_NET_OK);
    assert_int_equal(status(g), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(net_guest_command(g, VIRTIO_NET_CTRL_ANNOUNCE, 1, NULL, 0), VIRTIO_NET_ERR);
    assert_int_equal(vtest_msi_count(g->tm, CONFIG_VECTOR), 1);
}

static void test_driver_that_cannot_announce(void **state)
{
    struct net_guest *g = *state;

    net_guest_negotiate(g, ANNOUNCES & ~QZ_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE), false);
    load_into(g, g);
    net_guest_settle(g);
    assert_int_equal(vtest_msi_count(g->tm, CONFIG_VECTOR), 0);
    assert_int_equal(status(g), VIRTIO_NET_S_LINK_UP);
    assert_int_equal(announced(g), VIRTIO_NET_ERR);
}

static void test_reset_takes_the_announcement_back(void **state)
{
    struct net_guest *g = *state;

    net_guest_negotiate(g, ANNOUNCES, true);
    load_into(g, g);
    vtest_set_status(g->t, 0);
    net_guest_settle(g);
    assert_int_equal(vtest_msi_count(g->tm, CONFIG_VECTOR), 0);
    assert_int_equal(status(g), VIRTIO_NET_S_LINK_UP);
}

/* A clone has the address that it was given, also after resets, and announces nothing. */
static void test_given_address_wins(void **state)
{
    struct net_guest *g = *state, *clone = net_guest_new(other, true);

    net_guest_negotiate(g, ANNOUNCES, false);
    load_into(g, clone);
    expect_mac(clone, other);
    assert_int_equal(status(clone), VIRTIO_NET_S_LINK_UP);
    net_guest_settle(clone);
    assert_int_equal(vtest_msi_count(clone->tm, CONFIG_VECTOR), 1);
    assert_int_equal(vtest_reset(clone->t), 0);
    expect_mac(clone, other);
    net_guest_free(clone);
}

/* Nobody asked for an address: the state's stays the machine's own, resets included. */
static void test_state_brings_its_address(void **state)
{
    struct net_guest *g = *state, *again = net_guest_new(other, false);

    net_guest_negotiate(g, ANNOUNCES, false);
    load_into(g, again);
    expect_mac(again, own);
    assert_int_equal(vtest_reset(again->t), 0);
    expect_mac(again, own);
    net_guest_free(again);
}

/* What the guest chose stays, if the host gives what it gave before. */
static void test_drivers_choice_stays(void **state)
{
    struct net_guest *g = *state, *again = net_guest_new(own, true);

    net_guest_negotiate(g, ANNOUNCES, false);
    assert_int_equal(
        net_guest_command(g, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, chosen, 6),
        VIRTIO_NET_OK);
    load_into(g, again);
    expect_mac(again, chosen);
    assert_int_equal(status(again), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    assert_int_equal(vtest_reset(again->t), 0);
    expect_mac(again, own);
    net_guest_free(again);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, net_guest_setup, net_guest_teardown)
    const struct CMUnitTest tests[] = {
        T(test_same_address_announces_itself),     T(test_driver_that_cannot_announce),
        T(test_reset_takes_the_announcement_back), T(test_given_address_wins),
        T(test_state_brings_its_address),          T(test_drivers_choice_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

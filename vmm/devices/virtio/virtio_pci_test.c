/*
 * virtio_pci_test.c - the transport, seen by a driver: negotiation, rings of both formats,
 * interrupts, resets, frozen registers, and the driver's mistakes.
 */
#include "devices/virtio/virtio_pci.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "devices/virtio/test_driver.h"
#include "devices/virtio/test_echo.h"
#include "test_state.h"

#define RING_PACKED QZ_BIT(VIRTIO_F_RING_PACKED)
#define EVENT_IDX   QZ_BIT(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT    QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define VERSION_1   QZ_BIT(VIRTIO_F_VERSION_1)

struct fixture {
    struct vtest_machine *tm;
    struct echo echo;
    struct virtio_pci *vp;
    struct vtest *t;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err;

    f->tm = vtest_machine_new(0);
    echo_init(&f->echo, &f->tm->m, f->tm->m.main_loop);
    assert_int_equal(virtio_pci_new(&f->vp, &f->echo.d, &err), 0);
    f->t = vtest_open(f->tm, ECHO_ID);
    assert_non_null(f->t);
    qz_log_set_level(QZ_LOG_ERROR);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    vtest_close(f->t);
    virtio_pci_free(f->vp);
    assert_int_equal(f->echo.freed, 1);
    vtest_machine_free(f->tm);
    free(f);
    return 0;
}

/* One echo of n bytes in the given numbers of pieces. */
static void echo_once(struct vtest *t, unsigned q, size_t n, unsigned out_pieces,
                      unsigned in_pieces)
{
    uint8_t out[4096], in[4096];
    struct iovec ov[16], iv[16];
    uint32_t written = 0;

    assert_true(n <= sizeof(out) && out_pieces <= 16 && in_pieces <= 16);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(i * 7 + n + out_pieces);
    memset(in, 0, sizeof(in));
    for (unsigned i = 0; i < out_pieces; i++)
        ov[i] =
            (struct iovec){out + n * i / out_pieces, n * (i + 1) / out_pieces - n * i / out_pieces};
    for (unsigned i = 0; i < in_pieces; i++)
        iv[i] = (struct iovec){in + n * i / in_pieces, n * (i + 1) / in_pieces - n * i / in_pieces};
    assert_int_equal(vtest_request(t, q, ov, out_pieces, iv, in_pieces, &written), 0);
    assert_int_equal(written, n);
    assert_memory_equal(in, out, n);
}

static void echo_everything(struct fixture *f, uint64_t features)
{
    for (unsigned indirect = 0; indirect < 2; indirect++)
        for (unsigned suppress = 0; suppress < 2; suppress++) {
            assert_int_equal(vtest_reset(f->t), 0);
            f->t->indirect = indirect;
            f->echo.suppress = suppress;
            for (unsigned q = 0; q < ECHO_QUEUES; q++)
                f->t->q[q].size =
                    features & RING_PACKED ? 37 : 64; /* packed rings need no power of two */
            assert_int_equal(vtest_negotiate_exact(f->t, features), 0);
            for (unsigned i = 0; i < 500; i++) /* several times round the ring, in all phases */
                echo_once(f->t, i & 1, 100 + i, 1 + i % 7, 1 + i % 5);
            assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        }
}

static void test_echo_split(void **state)
{
    echo_everything(*state, VERSION_1);
    echo_everything(*state, VERSION_1 | EVENT_IDX);
    echo_everything(*state, VERSION_1 | EVENT_IDX | INDIRECT);
}

static void test_echo_packed(void **state)
{
    echo_everything(*state, VERSION_1 | RING_PACKED);
    echo_everything(*state, VERSION_1 | RING_PACKED | EVENT_IDX);
    echo_everything(*state, VERSION_1 | RING_PACKED | EVENT_IDX | INDIRECT);
}

/* A full ring at once: answered in one batch, with one interrupt where the event index asks for
 * one. */
static void batch(struct fixture *f, bool packed)
{
    struct vtest *t = f->t;
    uint8_t data[64] = {1, 2, 3}, back[64][64];
    unsigned n = 0;
    int token[64];

    t->q[0].size = 64;
    assert_int_equal(vtest_negotiate(t, 0, packed), 0);
    vtest_interrupts(t, 0, true);
    f->tm->msi_count = 0;
    for (; n < 64; n++) {
        token[n] =
            vtest_submit(t, 0, &(struct iovec){data, 64}, 1, &(struct iovec){back[n], 64}, 1);
        assert_true(token[n] >= 0);
    }
    assert_int_equal(vtest_submit(t, 0, &(struct iovec){data, 64}, 1, NULL, 0), -ENOSPC);
    assert_true(vtest_kick(t, 0));
    for (unsigned i = 0; i < n; i++) {
        uint32_t written;

        assert_int_equal(vtest_wait(t, 0, token[i], &written), 0);
        assert_int_equal(written, 64);
        assert_memory_equal(back[i], data, 64);
    }
    assert_int_equal(vtest_msi_count(f->tm, 1), 1);
    /* Not asked for: none. */
    vtest_interrupts(t, 0, false);
    echo_once(t, 0, 64, 1, 1);
    assert_int_equal(vtest_msi_count(f->tm, 1), 1);
    /* Asked for again. */
    vtest_interrupts(t, 0, true);
    echo_once(t, 0, 64, 1, 1);
    assert_int_equal(vtest_msi_count(f->tm, 1), 2);
    assert_int_equal(vtest_msi_count(f->tm, 2), 0);
}

static void test_batch_split(void **state)
{
    batch(*state, false);
}

static void test_batch_packed(void **state)
{
    batch(*state, true);
}

/* Everything held, then answered in one go long after: out-of-order returns are the device's
 * business. */
static void test_late_answers(void **state)
{
    struct fixture *f = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        uint8_t data[16] = {9}, back[16];
        struct virtqueue_chain swap;
        int a, b;

        assert_int_equal(vtest_reset(f->t), 0);
        assert_int_equal(vtest_negotiate(f->t, 0, packed), 0);
        f->t->indirect = false;
        f->echo.hold = true;
        a = vtest_submit(f->t, 0, &(struct iovec){data, 16}, 1, &(struct iovec){back, 16}, 1);
        b = vtest_submit(f->t, 0, &(struct iovec){data, 8}, 1, &(struct iovec){back, 8}, 1);
        vtest_kick(f->t, 0);
        vtest_run(f->tm, 0);
        assert_int_equal(f->echo.held, 2);
        assert_int_equal(vtest_poll(f->t, 0), 0);
        swap = f->echo.chain[0];
        f->echo.chain[0] = f->echo.chain[1];
        f->echo.chain[1] = swap;
        echo_release(&f->echo);
        assert_int_equal(vtest_poll(f->t, 0), 2);
        assert_int_equal(vtest_wait(f->t, 0, b, NULL), 0);
        assert_int_equal(vtest_wait(f->t, 0, a, NULL), 0);
        f->echo.hold = false;
        echo_once(f->t, 0, 100, 3, 2);
    }
}

static void test_identity(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vtest_config_read(f->tm, f->t->devfn, PCI_VENDOR_ID, 4),
                     0x1af4 | (0x1040 + ECHO_ID) << 16);
    assert_int_equal(vtest_config_read(f->tm, f->t->devfn, PCI_REVISION_ID, 1), 1);
    assert_true(vtest_config_read(f->tm, f->t->devfn, PCI_SUBSYSTEM_ID, 2) >= 0x40);
    assert_int_equal(f->t->queue_count, ECHO_QUEUES);
    assert_int_equal(f->t->q[1].size, 256);
    assert_int_equal(f->t->offered, VERSION_1 | INDIRECT | EVENT_IDX | RING_PACKED |
                                        QZ_BIT(VIRTIO_F_RING_RESET) | QZ_BIT(ECHO_FEATURE));
    /* Feature words past the second read as nothing. */
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    assert_int_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_DF, 4), 0);
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_DFSELECT, 4, UINT32_MAX);
    assert_int_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_DF, 4), 0);
    /* No such queue: size 0, and writes do nothing. */
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_Q_SELECT, 2, ECHO_QUEUES);
    assert_int_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    assert_int_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
}

static void test_no_packed(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vtest_reset(f->t), 0);
    vtest_close(f->t);
    virtio_pci_free(f->vp);
    f->echo.freed = 0;
    f->echo.d.no_packed = true;
    assert_int_equal(virtio_pci_new(&f->vp, &f->echo.d, NULL), 0);
    f->t = vtest_open(f->tm, ECHO_ID);
    assert_int_equal(vtest_negotiate(f->t, 0, true), -ENOTSUP);
    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    echo_once(f->t, 0, 10, 1, 1);
}

static void test_features_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vtest_set_features(f->t, VERSION_1 | QZ_BIT(7)), -EINVAL); /* not offered */
    assert_int_equal(vtest_set_features(f->t, EVENT_IDX), -EINVAL);             /* legacy */
    assert_int_equal(vtest_status(f->t), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    /* DRIVER_OK without FEATURES_OK starts nothing. */
    vtest_driver_ok(f->t);
    assert_int_equal(f->echo.activated, 0);
    assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_DRIVER_OK, 0);
    assert_int_equal(vtest_set_features(f->t, VERSION_1 | QZ_BIT(ECHO_FEATURE)), 0);
    /* Too late to change. */
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_GF, 4, 0);
    vtest_driver_ok(f->t);
    assert_int_equal(f->echo.activated, 1);
    assert_true(virtio_has(&f->echo.d, ECHO_FEATURE));
}

static void assert_frozen(struct vtest *t)
{
    for (unsigned q = 0; q < ECHO_QUEUES; q++) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        for (unsigned reg = VIRTIO_PCI_COMMON_Q_DESCLO; reg < 56; reg += 4) {
            uint64_t before = vtest_common_read(t, reg, 4);

            vtest_common_write(t, reg, 4, before ^ 0x1000);
            vtest_common_write(t, reg & ~7u, 8, 0x1234000);
            assert_int_equal(vtest_common_read(t, reg, 4), before);
        }
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
        assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
        assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    }
}

static void test_registers_frozen(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->t;

    for (unsigned reset = 0; reset < 2; reset++) {
        assert_int_equal(vtest_reset(t), 0);
        assert_int_equal(
            vtest_set_features(t, VERSION_1 | (reset ? QZ_BIT(VIRTIO_F_RING_RESET) : 0)), 0);
        vtest_setup_msix(t);
        for (unsigned q = 0; q < ECHO_QUEUES; q++)
            vtest_setup_queue(t, q);
        assert_frozen(t); /* enabled */
        vtest_driver_ok(t);
        assert_frozen(t); /* running */
        echo_once(t, 1, 1000, 2, 2);
    }
    /* A queue that was left out stays out. */
    assert_int_equal(vtest_reset(t), 0);
    assert_int_equal(vtest_set_features(t, VERSION_1), 0);
    vtest_setup_msix(t);
    vtest_setup_queue(t, 0);
    vtest_driver_ok(t);
    vtest_setup_queue(t, 1);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    vtest_mmio_write(f->tm, t->q[1].notify, 2, 1);
    vtest_run(f->tm, 0);
    echo_once(t, 0, 1000, 2, 2);
}

/* Registers take exactly their own size. */
static void test_access_sizes(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->t;

    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 1, 0);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 4, 0);
    vtest_common_write(t, VIRTIO_PCI_COMMON_STATUS, 4, 0);
    vtest_common_write(t, VIRTIO_PCI_COMMON_STATUS, 2, 0);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SELECT, 2), 1);
    assert_int_equal(vtest_status(t), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_STATUS, 4) & 0xff, vtest_status(t));
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SELECT, 1), 1);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_DESCLO, 8, 0x1122334455667788);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_DESCHI, 4), 0x11223344);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_DESCLO + 2, 4, 0);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_DESCLO, 2, 0);
    assert_true(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_DESCLO, 8) == 0x1122334455667788);
    /* All sizes at all offsets, wherever they lead. */
    for (unsigned at = 0; at < 80; at++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            vtest_common_read(t, at, size);
            if (at != VIRTIO_PCI_COMMON_STATUS)
                vtest_common_write(t, at, size, 0x0101010101010101);
        }
}

static void test_device_config(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[ECHO_CONFIG], want[ECHO_CONFIG];

    vtest_device_read(f->t, 0, buf, sizeof(buf));
    assert_memory_equal(buf, f->echo.config, sizeof(buf));
    memset(want, 0xaa, sizeof(want));
    vtest_device_write(f->t, 0, want, sizeof(want));
    assert_memory_equal(f->echo.config, want, sizeof(want));
    /* Over the end: what there is, and zeros; a write that does not fit is none. */
    assert_int_equal(vtest_mmio_read(f->tm, f->t->device_config + 8, 4), 0xaaaa);
    assert_int_equal(vtest_mmio_read(f->tm, f->t->device_config + ECHO_CONFIG, 4), 0);
    vtest_mmio_write(f->tm, f->t->device_config + 8, 4, 0);
    vtest_mmio_write(f->tm, f->t->device_config + 0xffc, 4, 0);
    assert_memory_equal(f->echo.config, want, sizeof(want));
}

static void test_config_interrupt(void **state)
{
    struct fixture *f = *state;
    uint8_t generation;

    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    f->tm->msi_count = 0;
    generation = (uint8_t)vtest_common_read(f->t, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    pthread_mutex_lock(&f->echo.d.lock);
    virtio_config_changed(&f->echo.d);
    pthread_mutex_unlock(&f->echo.d.lock);
    assert_int_equal(vtest_msi_count(f->tm, 0), 1);
    assert_int_not_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
    /* A vector that does not exist is refused and heard of no more. */
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_MSIX, 2, 500);
    assert_int_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
    pthread_mutex_lock(&f->echo.d.lock);
    virtio_config_changed(&f->echo.d);
    pthread_mutex_unlock(&f->echo.d.lock);
    assert_int_equal(f->tm->msi_count, 1);
    assert_int_equal(vtest_isr(f->t), 0);
}

static uint32_t interrupt_status(struct fixture *f)
{
    return vtest_config_read(f->tm, f->t->devfn, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT;
}

static void test_intx(void **state)
{
    struct fixture *f = *state;

    f->t->msix = false;
    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    f->tm->msi_count = 0;
    assert_int_equal(interrupt_status(f), 0);
    echo_once(f->t, 0, 10, 1, 1);
    assert_int_not_equal(interrupt_status(f), 0);
    assert_int_equal(vtest_isr(f->t), 1);
    assert_int_equal(interrupt_status(f), 0);
    assert_int_equal(vtest_isr(f->t), 0);
    pthread_mutex_lock(&f->echo.d.lock);
    virtio_config_changed(&f->echo.d);
    pthread_mutex_unlock(&f->echo.d.lock);
    assert_int_equal(vtest_isr(f->t), 2);
    assert_int_equal(f->tm->msi_count, 0);
}

/* A reset is over when what was in flight is; until then status tells so and nothing can be set up.
 */
static void test_deferred_reset(void **state)
{
    struct fixture *f = *state;
    uint8_t data[8] = {0};
    int token;

    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    f->echo.hold = true;
    token = vtest_submit(f->t, 0, &(struct iovec){data, 8}, 1, &(struct iovec){data, 8}, 1);
    assert_true(token >= 0);
    vtest_kick(f->t, 0);
    vtest_run(f->tm, 0);
    assert_int_equal(f->echo.held, 1);
    vtest_set_status(f->t, 0);
    assert_int_not_equal(vtest_status(f->t), 0);
    assert_false(f->echo.d.active);
    assert_true(pci_bus_busy(f->tm->m.pci));
    vtest_common_write(f->t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 77);
    assert_int_not_equal(vtest_common_read(f->t, VIRTIO_PCI_COMMON_Q_SELECT, 2), 77);
    vtest_set_status(f->t, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    vtest_set_status(f->t, 0); /* impatient: still one reset */
    assert_int_equal(f->echo.resetting, true);
    echo_release(&f->echo);
    assert_int_equal(vtest_status(f->t), 0);
    assert_false(pci_bus_busy(f->tm->m.pci));
    f->echo.hold = false;
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    echo_once(f->t, 0, 10, 1, 1);
}

static void test_machine_reset(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    echo_once(f->t, 0, 10, 1, 1);
    pci_bus_reset(f->tm->m.pci);
    assert_int_equal(f->echo.d.status, 0);
    assert_int_equal(vtest_config_read(f->tm, f->t->devfn, PCI_BASE_ADDRESS_4, 4) & ~15u, 0);
    assert_true(vtest_mmio_read(f->tm, f->t->common, 4) == UINT32_MAX); /* nobody there */
    pci_assign_resources(f->tm->m.pci);
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(vtest_negotiate(f->t, 0, true), 0);
    echo_once(f->t, 0, 10, 1, 1);
}

static void test_queue_reset(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->t;
    uint8_t data[8] = {0};

    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(vtest_reset(t), 0);
        assert_int_equal(vtest_negotiate(t, QZ_BIT(VIRTIO_F_RING_RESET), packed), 0);
        echo_once(t, 0, 30, 1, 1);
        f->echo.hold = true;
        assert_true(vtest_submit(t, 0, &(struct iovec){data, 8}, 1, &(struct iovec){data, 8}, 1) >=
                    0);
        vtest_kick(t, 0);
        vtest_run(f->tm, 0);
        assert_int_equal(f->echo.held, 1);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
        vtest_common_write(t, 58, 2, 1);
        assert_int_equal(vtest_common_read(t, 58, 2), 1);
        echo_release(&f->echo);
        f->echo.hold = false;
        assert_int_equal(vtest_common_read(t, 58, 2), 0);
        assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        echo_once(t, 1, 30, 1, 1); /* the other queue never noticed */
        for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX;
             i++) { /* what was in flight is not coming back */
            if (t->q[0].slot[i].used) {
                free(t->q[0].slot[i].in);
                t->q[0].slot[i] = (struct vtest_slot){0};
                t->in_flight--;
            }
        }
        t->q[0].size = 32;
        vtest_setup_queue(t, 0);
        assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
        for (unsigned i = 0; i < 100; i++)
            echo_once(t, 0, 30, 2, 1);
        t->q[0].size = 256;
    }
}

static void test_rings_outside_memory(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->t;
    static const uint64_t where[] = {VTEST_RAM - 16, VTEST_RAM, 0xfee00000, UINT64_MAX - 15,
                                     0x1001};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(where); i++)
        for (unsigned reg = VIRTIO_PCI_COMMON_Q_DESCLO; reg <= VIRTIO_PCI_COMMON_Q_USEDLO;
             reg += 8) {
            unsigned activated;

            assert_int_equal(vtest_reset(t), 0);
            activated = f->echo.activated;
            assert_int_equal(vtest_set_features(t, VERSION_1), 0);
            vtest_setup_msix(t);
            vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
            for (unsigned r = VIRTIO_PCI_COMMON_Q_DESCLO; r <= VIRTIO_PCI_COMMON_Q_USEDLO; r += 8)
                vtest_common_write(t, r, 8, 0x100000);
            vtest_common_write(t, reg, 8, where[i]);
            vtest_common_write(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
            f->tm->msi_count = 0;
            vtest_driver_ok(t);
            assert_int_not_equal(vtest_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
            assert_int_equal(vtest_msi_count(f->tm, 0), 1);
            assert_int_equal(f->echo.activated, activated);
            vtest_mmio_write(f->tm, t->q[0].notify, 2, 0);
            vtest_run(f->tm, 0);
        }
    assert_int_equal(vtest_reset(t), 0);
    assert_int_equal(vtest_negotiate(t, 0, false), 0);
    echo_once(t, 0, 10, 1, 1);
}

static void test_bad_descriptor_needs_reset(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->t;

    for (unsigned packed = 0; packed < 2; packed++) {
        uint8_t *desc;
        uint8_t data[8];

        assert_int_equal(vtest_reset(t), 0);
        assert_int_equal(vtest_negotiate(t, 0, packed), 0);
        assert_int_equal(vtest_submit(t, 0, &(struct iovec){data, 8}, 1, NULL, 0), 0);
        desc = vtest_mem(f->tm, t->q[0].desc, 16);
        qz_store_le64(desc, VTEST_RAM - 4); /* four bytes too many */
        f->tm->msi_count = 0;
        vtest_kick(t, 0);
        vtest_run(f->tm, 0);
        assert_int_equal(vtest_poll(t, 0), 0);
        assert_int_not_equal(vtest_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
        assert_int_equal(vtest_msi_count(f->tm, 0), 1);
    }
    assert_int_equal(vtest_reset(t), 0);
    assert_int_equal(vtest_negotiate(t, 0, true), 0);
    echo_once(t, 0, 10, 1, 1);
}

static void test_doorbells(void **state)
{
    struct fixture *f = *state;

    f->tm->doorbells = true;
    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    assert_int_equal(f->tm->doorbell_count, ECHO_QUEUES);
    echo_once(f->t, 0, 10, 1, 1);
    echo_once(f->t, 1, 10, 1, 1);
    /* They follow the BAR, and go with the device. */
    vtest_config_write(f->tm, f->t->devfn, PCI_COMMAND, 2, 0);
    assert_int_equal(f->tm->doorbell_count, 0);
    vtest_config_write(f->tm, f->t->devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(f->tm->doorbell_count, ECHO_QUEUES);
    assert_int_equal(vtest_reset(f->t), 0);
    assert_int_equal(f->tm->doorbell_count, 0);
}

/* Firmware's way: everything through VIRTIO_PCI_CAP_PCI_CFG, memory decode off. */
static void test_window(void **state)
{
    struct fixture *f = *state;
    unsigned at = vtest_config_read(f->tm, f->t->devfn, PCI_CAPABILITY_LIST, 1),
             devfn = f->t->devfn;

    while (vtest_config_read(f->tm, devfn, at, 1) != PCI_CAP_ID_VNDR ||
           vtest_config_read(f->tm, devfn, at + VIRTIO_PCI_CAP_CFG_TYPE, 1) !=
               VIRTIO_PCI_CAP_PCI_CFG) {
        at = vtest_config_read(f->tm, devfn, at + 1, 1);
        assert_int_not_equal(at, 0);
    }
    vtest_config_write(f->tm, devfn, PCI_COMMAND, 2, 0);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_BAR, 1, 4);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_NUMQ);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_LENGTH, 4, 2);
    assert_int_equal(vtest_config_read(f->tm, devfn, at + 16, 2), ECHO_QUEUES);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_Q_SELECT);
    vtest_config_write(f->tm, devfn, at + 16, 2, 1);
    assert_int_equal(vtest_config_read(f->tm, devfn, at + 16, 4), 1);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_LENGTH, 4, 1);
    vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_OFFSET, 4, VIRTIO_PCI_COMMON_STATUS);
    assert_int_equal(vtest_config_read(f->tm, devfn, at + 16, 1),
                     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    /* Nonsense reaches nothing: no such BAR, far outside, odd lengths, misaligned. */
    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } bad[] = {{6, 0, 4},          {255, 0, 4},         {0, 0, 4},  {4, 0x4000, 4},
               {4, UINT32_MAX, 1}, {4, 0xfffffffc, 4},  {4, 20, 0}, {4, 20, 3},
               {4, 20, 8},         {4, 20, UINT32_MAX}, {4, 21, 2}, {1, 0xffffffff, 4},
               {5, 0, 4}};
    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_BAR, 1, bad[i].bar);
        vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_OFFSET, 4, bad[i].offset);
        vtest_config_write(f->tm, devfn, at + VIRTIO_PCI_CAP_LENGTH, 4, bad[i].length);
        vtest_config_write(f->tm, devfn, at + 16, 4, 0);
        vtest_config_read(f->tm, devfn, at + 16, 4);
    }
    vtest_config_write(f->tm, devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_int_equal(vtest_status(f->t), VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
}

/* A driver in the middle of its work does not notice. */
static void keeps_going(struct fixture *f, uint64_t features)
{
    assert_int_equal(vtest_reset(f->t), 0);
    for (unsigned q = 0; q < ECHO_QUEUES; q++)
        f->t->q[q].size = features & RING_PACKED ? 37 : 64;
    assert_int_equal(vtest_negotiate_exact(f->t, features), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 100 + round * 31; i++)
            echo_once(f->t, i & 1, 100 + i, 1 + i % 3, 1 + i % 5);
        VTEST_STATE_KEPT(f->tm, f->vp);
    }
    echo_once(f->t, 0, 50, 1, 1);
    assert_int_equal(vtest_status(f->t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
}

static void test_state(void **state)
{
    keeps_going(*state, VERSION_1);
    keeps_going(*state, VERSION_1 | EVENT_IDX | INDIRECT);
    keeps_going(*state, VERSION_1 | RING_PACKED | EVENT_IDX | INDIRECT);
}

/* What was kicked just before is served just after. */
static void test_state_with_a_kick_on_its_way(void **state)
{
    struct fixture *f = *state;
    struct vtest_device device = {f->tm, f->vp};
    struct qz_state *saved = qz_state_save(), *loaded;
    uint8_t data[16] = "abc", back[16] = "";
    uint32_t written;
    const void *bytes;
    size_t len;
    int token;

    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    vtest_run(f->tm, 0);
    token = vtest_submit(f->t, 0, &(struct iovec){data, 16}, 1, &(struct iovec){back, 16}, 1);
    assert_true(vtest_kick(f->t, 0)); /* nobody looks before the reset */
    vtest_device_state(&device, saved);
    pci_bus_reset(f->tm->m.pci);
    bytes = qz_state_bytes(saved, &len);
    loaded = qz_state_load(bytes, len);
    vtest_device_state(&device, loaded);
    assert_int_equal(qz_state_finish(loaded, NULL), 0);
    assert_int_equal(vtest_wait(f->t, 0, token, &written), 0);
    assert_memory_equal(back, data, 16);
    qz_state_free(loaded);
    qz_state_free(saved);
}

static void test_state_with_requests_in_flight_is_refused(void **state)
{
    struct fixture *f = *state;
    struct qz_state *s = qz_state_save();
    struct qz_error err = {0};
    uint8_t data[16] = "";
    uint32_t written;
    int token;

    assert_int_equal(vtest_negotiate(f->t, 0, false), 0);
    f->echo.hold = true;
    token = vtest_submit(f->t, 0, &(struct iovec){data, 16}, 1, NULL, 0);
    vtest_kick(f->t, 0);
    vtest_run(f->tm, 100);
    virtio_pci_state(f->vp, s);
    assert_int_equal(qz_state_finish(s, &err), -EINVAL);
    assert_non_null(strstr(err.text, "queue[0]: 1 requests in flight"));
    qz_state_free(s);
    echo_release(&f->echo);
    assert_int_equal(vtest_wait(f->t, 0, token, &written), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_identity),
        T(test_echo_split),
        T(test_echo_packed),
        T(test_batch_split),
        T(test_batch_packed),
        T(test_late_answers),
        T(test_no_packed),
        T(test_features_refused),
        T(test_registers_frozen),
        T(test_access_sizes),
        T(test_device_config),
        T(test_config_interrupt),
        T(test_intx),
        T(test_deferred_reset),
        T(test_machine_reset),
        T(test_queue_reset),
        T(test_rings_outside_memory),
        T(test_bad_descriptor_needs_reset),
        T(test_doorbells),
        T(test_window),
        T(test_state),
        T(test_state_with_a_kick_on_its_way),
        T(test_state_with_requests_in_flight_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

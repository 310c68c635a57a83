/*
 * virtio_blk_hostile_test.c - the block device under drivers and media that misbehave: requests out
 * of range or out of form, rings that promise too much, resets with I/O in flight, a disk that
 * vanishes. The device answers or asks for a reset; the monitor goes on.
 */
#include <fcntl.h>
#include <linux/virtio_pci.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/virtio/test_blk.h"

enum { SECTORS = 2048, CAPACITY = SECTORS * BLK_SECTOR, QUEUES = 2, RING = 8 };

#define WANTED                                                                                     \
    (QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_DISCARD) |                                   \
     QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES) | QZ_BIT(VIRTIO_F_RING_RESET))

struct fixture {
    struct blk_rig r;
    struct memory_disk m;
};

static int setup(void **state)
{
    struct virtio_blk_options o = {.queues = QUEUES, .queue_size = RING};
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err;

    memory_disk_init(&f->m, CAPACITY);
    assert_int_equal(blk_rig_open(&f->r, &f->m.b, &o, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    blk_rig_close(&f->r);
    assert_true(f->m.freed);
    memory_disk_destroy(&f->m);
    free(f);
    return 0;
}

static void negotiate(struct fixture *f, bool packed)
{
    assert_int_equal(vtest_reset(f->r.t), 0);
    assert_int_equal(vtest_negotiate(f->r.t, WANTED, packed), 0);
}

static bool needs_reset(struct fixture *f)
{
    return vtest_status(f->r.t) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void assert_works(struct fixture *f)
{
    uint8_t data[BLK_SECTOR], back[BLK_SECTOR];

    for (unsigned q = 0; q < QUEUES; q++) {
        memset(data, 0x5a + (int)q, sizeof(data));
        assert_int_equal(blk_request(&f->r, q, VIRTIO_BLK_T_OUT, 5 + q, data, sizeof(data)), 0);
        assert_int_equal(blk_request(&f->r, q, VIRTIO_BLK_T_IN, 5 + q, back, sizeof(back)), 0);
        assert_memory_equal(data, back, sizeof(data));
    }
    assert_false(needs_reset(f));
}

static uint64_t errors(struct fixture *f)
{
    struct virtio_blk_stats stats;

    virtio_blk_get_stats(f->r.d, &stats);
    return stats.errors;
}

/* ---- requests that cannot be served -----------------------------------------------------------
 */

static void test_out_of_range(void **state)
{
    static const struct {
        uint64_t sector;
        size_t bytes;
    } bad[] = {
        {SECTORS, 512},
        {SECTORS - 1, 1024},
        {SECTORS + 1, 512},
        {UINT64_MAX, 512},
        {UINT64_MAX - 1, 1024},
        {1ull << 55, 512},
        {(1ull << 55) - 1, 512},
        {UINT64_MAX / 512, 4096},
        {1ull << 63, 512},
        {0, 511},
        {0, 513},
        {0, 1},
        {SECTORS - 1, 100},
        {UINT64_MAX, 0},
        {SECTORS + 1, 0},
    };
    static uint8_t data[4096];
    struct fixture *f = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        uint64_t before = errors(f);

        negotiate(f, packed);
        for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++)
            for (unsigned write = 0; write < 2; write++)
                assert_int_equal(blk_request(&f->r, 0, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                                             bad[i].sector, data, bad[i].bytes),
                                 VIRTIO_BLK_S_IOERR);
        assert_int_equal(errors(f) - before, 2 * QZ_ARRAY_LEN(bad));
        /* Nothing at the very end is no mistake. */
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_IN, SECTORS, NULL, 0), 0);
        assert_works(f);
    }
    assert_int_equal(f->m.done[BLOCK_READ], 2 * QUEUES);
    assert_int_equal(f->m.done[BLOCK_WRITE], 2 * QUEUES);
}

static void test_bad_ranges(void **state)
{
    static const struct {
        uint64_t sector;
        uint32_t count, flags;
        int zeroes, discard; /* what each must answer */
    } bad[] = {
        {SECTORS, 1, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {SECTORS - 1, 2, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX, 1, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {UINT64_MAX - 8, 0xffffffff, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {0, 0xffffffff, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {0, 0, 0, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_IOERR},
        {0, 1, 2, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP},
        {0, 1, 0x80000000, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_S_UNSUPP},
        {0, 1, 1, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP}, /* unmap: only zeroes know it (§5.2.6.2) */
    };
    struct fixture *f = *state;
    uint8_t ranges[33 * 16];

    negotiate(f, false);
    memset(f->m.data, 0xee, CAPACITY);
    for (unsigned i = 0; i < 33; i++) {
        qz_store_le64(ranges + 16 * i, 100);
        qz_store_le32(ranges + 16 * i + 8, 1);
        qz_store_le32(ranges + 16 * i + 12, 0);
    }
    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad) - 1;
         i++) { /* after a good one, which is not begun */
        qz_store_le64(ranges + 16, bad[i].sector);
        qz_store_le32(ranges + 24, bad[i].count);
        qz_store_le32(ranges + 28, bad[i].flags);
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, 32),
                         bad[i].zeroes);
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_DISCARD, 0, ranges, 32),
                         bad[i].discard);
    }
    for (unsigned n = 0; n <= 40; n++) /* no whole ranges, or none */
        if (n != 16 && n != 32)
            assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_DISCARD, 0, ranges, n),
                             VIRTIO_BLK_S_IOERR);
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_DISCARD, 0, ranges, sizeof(ranges)),
                     VIRTIO_BLK_S_IOERR); /* more than max_discard_seg */
    assert_int_equal(f->m.done[BLOCK_DISCARD] + f->m.done[BLOCK_WRITE_ZEROES], 0);
    assert_int_equal(f->m.data[100 * BLK_SECTOR], 0xee);
    qz_store_le32(ranges + 12, 1);
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_DISCARD, 0, ranges, 16),
                     VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, 16), 0);
    assert_int_equal(f->m.data[100 * BLK_SECTOR], 0);
    assert_works(f);
}

static void test_unknown_types(void **state)
{
    static const uint32_t types[] = {2, 3, 5, 7, 9, 10, 12, 15, 16, 0x80000000, 0xffffffff};
    struct fixture *f = *state;
    uint8_t data[BLK_SECTOR];

    negotiate(f, true);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(types); i++)
        assert_int_equal(blk_request(&f->r, 0, types[i], 0, data, sizeof(data)),
                         VIRTIO_BLK_S_UNSUPP);
    /* What the medium cannot do is not offered, and refused when asked for all the same. */
    f->m.info.discard = f->m.info.write_zeroes = false;
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_DISCARD, 0, data, 16), VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, data, 16),
                     VIRTIO_BLK_S_UNSUPP);
    assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_SECURE_ERASE, 0, data, 16),
                     VIRTIO_BLK_S_UNSUPP);
    assert_works(f);
}

/* ---- requests out of form ---------------------------------------------------------------------
 */

static void test_malformed_chains(void **state)
{
    struct fixture *f = *state;
    static uint8_t bytes[BLK_HEADER + BLK_SECTOR], sink[BLK_SECTOR + 1];
    const struct {
        struct iovec out[2];
        unsigned outs;
        struct iovec in[2];
        unsigned ins;
    } bad[] = {
        {{{bytes, 15}}, 1, {{sink, 1}}, 1},              /* header too short */
        {{{bytes, 7}, {bytes, 8}}, 2, {{sink, 513}}, 1}, /* in two pieces too */
        {{{0}}, 0, {{sink, 513}}, 1},                    /* nothing to read at all */
        {{{0}}, 0, {{bytes, 16}, {sink, 1}}, 2},         /* the header is writable */
        {{{bytes, 16}}, 1, {{0}}, 0},                    /* no status byte */
        {{{bytes, 16}, {bytes, 512}}, 2, {{0}}, 0},      /* no status byte, with data */
        {{{bytes, 16}, {sink, 1}}, 2, {{0}}, 0},         /* the status byte is read-only */
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad) * 4; i++) {
        unsigned n = i / 4;
        struct iovec in[2] = {bad[n].in[0], bad[n].in[1]};

        f->r.t->indirect = i & 1;
        negotiate(f, i & 2);
        f->r.tm->msi_count = 0;
        assert_true(vtest_submit(f->r.t, 1, bad[n].out, bad[n].outs, in, bad[n].ins) >= 0);
        vtest_kick(f->r.t, 1);
        vtest_run(f->r.tm, 0);
        assert_true(needs_reset(f));
        assert_int_equal(vtest_msi_count(f->r.tm, 0), 1); /* the driver is told */
        assert_int_equal(vtest_poll(f->r.t, 1), 0);
        negotiate(f, i & 2);
        assert_works(f);
    }
}

/* More segments than seg_max: the queue breaks, whatever the ring holds. */
static void test_too_many_segments(void **state)
{
    struct fixture *f = *state;
    uint8_t header[BLK_HEADER] = {0}, status, data[4];
    struct iovec out[140] = {{header, BLK_HEADER}};

    for (unsigned i = 1; i < QZ_ARRAY_LEN(out); i++)
        out[i] = (struct iovec){data, 4};
    header[0] = VIRTIO_BLK_T_OUT;
    negotiate(f, false);
    assert_true(vtest_submit(f->r.t, 0, out, QZ_ARRAY_LEN(out), &(struct iovec){&status, 1}, 1) >=
                0);
    vtest_kick(f->r.t, 0);
    vtest_run(f->r.tm, 0);
    assert_true(needs_reset(f));
    negotiate(f, false);
    assert_works(f);
}

static void bump_available(struct vtest *t, struct vtest_queue *q, uint16_t head)
{
    uint8_t *ring = vtest_mem(t->tm, q->driver, 6 + 2 * q->size);
    uint16_t idx = qz_load_le16(ring + 2);

    qz_store_le16(ring + 4 + 2 * (idx & (q->size - 1)), head);
    __atomic_store_n((uint16_t *)(void *)(ring + 2), (uint16_t)(idx + 1), __ATOMIC_RELEASE);
}

/* Every entry is in flight, and the driver says that there is one more. */
static void test_ring_overfull(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->r.t;
    struct blk_io io[RING];
    uint8_t data[RING][BLK_SECTOR];

    t->indirect = true;
    negotiate(f, false);
    f->m.hold = true;
    for (unsigned i = 0; i < RING; i++)
        assert_int_equal(blk_submit(&f->r, &io[i], 0, VIRTIO_BLK_T_IN, i, data[i], BLK_SECTOR), 0);
    vtest_run(f->r.tm, 0);
    assert_int_equal(f->m.waiting, RING);
    bump_available(t, &t->q[0], 0);
    vtest_mmio_write(f->r.tm, t->q[0].notify, 2, 0);
    vtest_run(f->r.tm, 0); /* comes back */
    assert_true(needs_reset(f));
    f->m.hold = false;
    memory_disk_release(&f->m);
    negotiate(f, false);
    assert_works(f);
}

/* A driver that gives the next request while the last one is answered, without end. */
struct feeder {
    struct block_backend b;
    const struct block_backend_ops *inner;
    struct fixture *f;
    unsigned given;
};
static struct feeder feeder;

static void feed(struct block_backend *b, struct block_request *r)
{
    struct vtest *t = feeder.f->r.t;

    if (feeder.given < 100000)
        bump_available(t, &t->q[0], 0);
    feeder.given++;
    feeder.inner->queue(b, r);
}

static void test_endless_feeding(void **state)
{
    struct fixture *f = *state;
    struct block_backend_ops ops = *f->m.b.ops;
    uint8_t data[BLK_SECTOR];
    struct blk_io io;
    unsigned once;

    negotiate(f, false);
    assert_int_equal(blk_submit(&f->r, &io, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)), 0);
    feeder = (struct feeder){.inner = f->m.b.ops, .f = f};
    ops.queue = feed;
    f->m.b.ops = &ops;
    f->m.inside_queue = true; /* answered before the next one is looked for */
    vtest_run(f->r.tm, 0);
    once = feeder.given;
    assert_int_equal(once, RING); /* a ring's worth, then others have their turn */
    vtest_run(f->r.tm, 0);
    assert_true(feeder.given > once); /* and it goes on by itself */
    assert_false(needs_reset(f));
    f->m.b.ops = feeder.inner;
    f->m.inside_queue = false;
    assert_int_equal(vtest_reset(f->r.t), 0);
    negotiate(f, false);
    assert_works(f);
}

/* ---- resets with I/O in flight ----------------------------------------------------------------
 */

static void submit_some(struct fixture *f, struct blk_io *io, uint8_t (*data)[BLK_SECTOR],
                        unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(blk_submit(&f->r, &io[i], i % QUEUES,
                                    i & 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, i, data[i],
                                    BLK_SECTOR),
                         0);
    vtest_run(f->r.tm, 0);
}

static void test_reset_in_flight(void **state)
{
    struct fixture *f = *state;
    uint8_t data[RING][BLK_SECTOR] = {{0}};
    struct blk_io io[RING];

    for (unsigned packed = 0; packed < 2; packed++) {
        struct vtest *t = f->r.t;
        uint8_t *used[QUEUES], before[QUEUES][64];

        negotiate(f, packed);
        assert_works(f);
        f->m.hold = true;
        submit_some(f, io, data, RING);
        assert_int_equal(f->m.waiting, RING);
        for (unsigned q = 0; q < QUEUES; q++) {
            used[q] = vtest_mem(f->r.tm, packed ? t->q[q].desc : t->q[q].device_area, 64);
            memcpy(before[q], used[q], 64);
        }
        f->r.tm->msi_count = 0;
        vtest_set_status(t, 0);
        for (unsigned i = 0; i < RING; i++) { /* not over before the last one is */
            assert_int_not_equal(vtest_status(t), 0);
            vtest_set_status(t, VIRTIO_CONFIG_S_ACKNOWLEDGE);
            vtest_mmio_write(f->r.tm, t->q[0].notify, 2, 0);
            vtest_run(f->r.tm, 0);
            assert_int_equal(f->m.waiting, RING - i);
            assert_true(memory_disk_release_one(&f->m));
        }
        assert_int_equal(vtest_status(t), 0);
        for (unsigned q = 0; q < QUEUES; q++)
            assert_memory_equal(used[q], before[q], 64);
        assert_int_equal(f->r.tm->msi_count, 0);
        f->m.hold = false;
        negotiate(f, packed);
        assert_works(f);
    }
}

static void test_queue_reset_in_flight(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->r.t;
    uint8_t data[RING][BLK_SECTOR] = {{0}};
    struct blk_io io[RING];

    negotiate(f, false);
    assert_works(f);
    f->m.hold = true;
    submit_some(f, io, data, RING);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    vtest_common_write(t, 58, 2, 1); /* queue_reset (§4.1.4.3) */
    assert_int_equal(vtest_common_read(t, 58, 2), 1);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
    memory_disk_release(&f->m);
    assert_int_equal(vtest_common_read(t, 58, 2), 0);
    assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
    assert_int_equal(vtest_poll(t, 0), 0); /* nothing came back on it; the other one is whole */
    for (unsigned i = 1; i < RING; i += QUEUES)
        assert_int_equal(blk_wait(&f->r, &io[i]), VIRTIO_BLK_S_OK);
    f->m.hold = false;
    vtest_restart_queue(t, 0);
    assert_works(f);
}

/* Reset of the device while one of its queues is being reset: both end, once. */
static void test_both_resets(void **state)
{
    struct fixture *f = *state;
    uint8_t data[RING][BLK_SECTOR] = {{0}};
    struct blk_io io[RING];

    negotiate(f, true);
    f->m.hold = true;
    submit_some(f, io, data, RING);
    vtest_common_write(f->r.t, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    vtest_common_write(f->r.t, 58, 2, 1);
    vtest_set_status(f->r.t, 0);
    assert_int_not_equal(vtest_status(f->r.t), 0);
    f->m.hold = false;
    memory_disk_release(&f->m);
    assert_int_equal(vtest_status(f->r.t), 0);
    negotiate(f, true);
    assert_works(f);
}

static void test_registers_frozen(void **state)
{
    struct fixture *f = *state;
    struct vtest *t = f->r.t;

    negotiate(f, false);
    for (unsigned q = 0; q < QUEUES; q++) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SIZE, 2, 2);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x100000);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_AVAILLO, 8, UINT64_MAX);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_USEDLO, 4, 1);
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
        assert_int_equal(vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SIZE, 2), RING);
    }
    assert_works(f);
}

/* ---- media that misbehave ---------------------------------------------------------------------
 */

static void test_medium_fails(void **state)
{
    struct fixture *f = *state;
    uint8_t data[BLK_SECTOR] = {0}, ranges[48] = {0};
    struct blk_io io;

    for (unsigned i = 0; i < 3; i++)
        qz_store_le32(ranges + 16 * i + 8, 1);
    for (unsigned how = 0; how < 2; how++) {
        uint64_t before = errors(f);

        negotiate(f, true);
        f->m.inside_queue = how;
        f->m.result = how ? -ENOMEM : -EIO;
        assert_int_equal(blk_submit(&f->r, &io, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)), 0);
        assert_int_equal(blk_wait(&f->r, &io), VIRTIO_BLK_S_IOERR);
        assert_int_equal(io.written, 1);
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(blk_request(&f->r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, 48),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(errors(f) - before, 4);
        f->m.result = 0;
        f->m.inside_queue = false;
        assert_works(f);
    }
    /* The first range ends late, the second fails inside the call that queues it. */
    f->m.hold = true;
    assert_int_equal(
        blk_submit(&f->r, &io, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, sizeof(ranges)), 0);
    vtest_run(f->r.tm, 0);
    assert_int_equal(f->m.waiting, 1);
    f->m.inside_queue = true;
    assert_true(memory_disk_release_one(&f->m));
    assert_int_equal(blk_wait(&f->r, &io), VIRTIO_BLK_S_OK);
    f->m.inside_queue = f->m.hold = false;
    assert_works(f);
}

static void test_disk_vanishes(void **state)
{
    char path[] = "/tmp/queztl-blk-XXXXXX";
    int fd = mkstemp(path);
    static uint8_t data[CAPACITY / 2];
    struct block_backend *backend;
    struct qz_error err = {0};
    struct blk_rig r;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, CAPACITY), 0);
    if (block_raw_open(&backend, path, false, false, &err) < 0) {
        assert_true(err.code == -EPERM || err.code == -ENOSYS);
        print_message("skipped: %s\n", err.text);
        close(fd);
        unlink(path);
        skip();
    }
    assert_int_equal(blk_rig_open(&r, backend, NULL, &err), 0);
    assert_int_equal(vtest_negotiate(r.t, WANTED, false), 0);
    memset(data, 0x77, sizeof(data));
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)), 0);
    unlink(path); /* the name is not the file */
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)), 0);
    assert_int_equal(ftruncate(fd, 100 * BLK_SECTOR), 0);
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, 99, data, BLK_SECTOR), 0);
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, 99, data, 2 * BLK_SECTOR),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, SECTORS - 1, data, BLK_SECTOR),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(vtest_status(r.t) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    assert_int_equal(ftruncate(fd, CAPACITY), 0); /* it comes back, empty */
    assert_int_equal(blk_request(&r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)), 0);
    assert_int_equal(data[0], 0);
    blk_rig_close(&r);
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_out_of_range),
        CASE(test_bad_ranges),
        CASE(test_unknown_types),
        CASE(test_malformed_chains),
        CASE(test_too_many_segments),
        CASE(test_ring_overfull),
        CASE(test_endless_feeding),
        CASE(test_reset_in_flight),
        CASE(test_queue_reset_in_flight),
        CASE(test_both_resets),
        CASE(test_registers_frozen),
        CASE(test_medium_fails),
        cmocka_unit_test(test_disk_vanishes),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("virtio-blk hostile", tests, NULL, NULL);
}

/*
 * virtio_blk_test.c - the block device and the raw backend as a well-behaved driver sees them: what
 * is written is in the file, on every kind of ring. Drivers that misbehave are in
 * virtio_blk_hostile_test.c.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/virtio/test_blk.h"

enum { SECTORS = 4096, CAPACITY = SECTORS * BLK_SECTOR, QUEUES = 4, SEGMENTS_MAX = 126 };
/* Offsets in struct virtio_blk_config (VirtIO 1.3 §5.2.4). */
enum {
    SEG_MAX = 12,
    BLK_SIZE = 20,
    WCE = 32,
    NUM_QUEUES = 34,
    MAX_DISCARD = 36,
    MAX_ZEROES = 48,
    MAX_ERASE = 60
};

struct fixture {
    struct blk_rig r;
    struct memory_disk memory;
    bool in_memory;
    char path[40];
    int fd;
    uint8_t *model; /* what the file must hold */
};

static void pattern(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 31 + (i >> 9) * 7 + seed * 131 + 1);
}

static bool no_ring(const struct qz_error *err)
{
    return err->code == -EPERM || err->code == -ENOSYS;
}

/* A file of SECTORS sectors under the device; false (and a word) where this machine has no
 * io_uring. */
static bool open_file_disk(struct fixture *f, const struct virtio_blk_options *o, bool readonly,
                           bool direct)
{
    struct block_backend *backend;
    struct qz_error err = {0};

    strcpy(f->path, "/tmp/queztl-blk-XXXXXX");
    f->fd = mkstemp(f->path);
    assert_true(f->fd >= 0);
    f->model = malloc(CAPACITY);
    pattern(f->model, CAPACITY, 0);
    assert_int_equal(pwrite(f->fd, f->model, CAPACITY, 0), CAPACITY);
    if (block_raw_open(&backend, f->path, readonly, direct, &err) < 0) {
        print_message("skipped: %s\n", err.text);
        assert_true(no_ring(&err) || (direct && err.code == -EINVAL));
        unlink(f->path);
        close(f->fd);
        free(f->model);
        return false;
    }
    assert_int_equal(blk_rig_open(&f->r, backend, o, &err), 0);
    return true;
}

static void open_memory_disk(struct fixture *f, const struct virtio_blk_options *o)
{
    struct qz_error err;

    f->in_memory = true;
    memory_disk_init(&f->memory, CAPACITY);
    assert_int_equal(blk_rig_open(&f->r, &f->memory.b, o, &err), 0);
}

static void close_disk(struct fixture *f)
{
    blk_rig_close(&f->r);
    if (f->in_memory) {
        assert_true(f->memory.freed);
        memory_disk_destroy(&f->memory);
        return;
    }
    unlink(f->path);
    close(f->fd);
    free(f->model);
}

static void assert_file_is_model(const struct fixture *f)
{
    uint8_t *now = malloc(CAPACITY);

    assert_int_equal(pread(f->fd, now, CAPACITY, 0), CAPACITY);
    assert_memory_equal(now, f->model, CAPACITY);
    free(now);
}

static void write_sectors(struct fixture *f, unsigned q, uint64_t sector, unsigned count,
                          unsigned seed)
{
    uint8_t *data = malloc(count * BLK_SECTOR);

    pattern(data, count * BLK_SECTOR, seed);
    assert_int_equal(blk_request(&f->r, q, VIRTIO_BLK_T_OUT, sector, data, count * BLK_SECTOR), 0);
    memcpy(f->model + sector * BLK_SECTOR, data, count * BLK_SECTOR);
    free(data);
}

static void assert_reads(struct fixture *f, unsigned q, uint64_t sector, unsigned count)
{
    uint8_t *data = calloc(count, BLK_SECTOR);
    struct blk_io io;

    assert_int_equal(blk_submit(&f->r, &io, q, VIRTIO_BLK_T_IN, sector, data, count * BLK_SECTOR),
                     0);
    assert_int_equal(blk_wait(&f->r, &io), VIRTIO_BLK_S_OK);
    assert_int_equal(io.written, count * BLK_SECTOR + 1);
    assert_memory_equal(data, f->model + sector * BLK_SECTOR, count * BLK_SECTOR);
    free(data);
}

static uint32_t config(struct fixture *f, unsigned offset, unsigned size)
{
    uint32_t v = 0;

    vtest_device_read(f->r.t, offset, &v, size);
    return v;
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void test_config(void **state)
{
    struct virtio_blk_options o = {.queues = QUEUES, .queue_size = 128};
    struct fixture f = {0};

    open_memory_disk(&f, &o);
    assert_int_equal(config(&f, 0, 4), SECTORS);
    assert_int_equal(config(&f, 4, 4), 0);
    assert_int_equal(config(&f, SEG_MAX, 4), SEGMENTS_MAX);
    assert_int_equal(config(&f, BLK_SIZE, 4), 512);
    assert_int_equal(config(&f, BLK_SIZE + 4, 1), 3); /* physical blocks of 4096 */
    assert_int_equal(config(&f, NUM_QUEUES, 2), QUEUES);
    assert_true(config(&f, MAX_DISCARD, 4) >= 2048 && config(&f, MAX_DISCARD + 4, 4) >= 1);
    assert_true(config(&f, MAX_ZEROES, 4) >= 2048 && config(&f, MAX_ZEROES + 4, 4) >= 1);
    assert_int_equal(f.r.t->queue_count, QUEUES);
    assert_int_equal(f.r.t->q[3].size, 128);
    assert_int_equal(f.r.t->offered >> VIRTIO_BLK_F_RO & 1, 0);
    for (unsigned bit = VIRTIO_BLK_F_DISCARD; bit <= VIRTIO_BLK_F_WRITE_ZEROES; bit++)
        assert_int_equal(f.r.t->offered >> bit & 1, 1);
    /* Nothing but the cache mode can be written, and that only when negotiated. */
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH), false), 0);
    for (unsigned at = 0; at < 64; at++)
        vtest_device_write(f.r.t, at, "\0", 1);
    assert_int_equal(config(&f, 0, 4), SECTORS);
    assert_int_equal(config(&f, WCE, 1), 1);
    close_disk(&f);
}

static void data_both_ways(struct fixture *f)
{
    for (unsigned i = 0; i < 60; i++)
        write_sectors(f, i % QUEUES, (i * 977) % (SECTORS - 64), 1 + i % 64, i);
    write_sectors(f, 0, SECTORS - 1, 1, 99); /* the last one */
    assert_int_equal(blk_request(&f->r, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
    assert_file_is_model(f);
    for (unsigned i = 0; i < 60; i++)
        assert_reads(f, (i + 1) % QUEUES, (i * 1009) % (SECTORS - 64), 1 + i % 64);
    assert_reads(f, 0, SECTORS - 1, 1);
}

static void test_data(void **state)
{
    struct virtio_blk_options o = {.queues = QUEUES};
    struct virtio_blk_stats stats;
    struct fixture f = {0};

    if (!open_file_disk(&f, &o, false, false))
        skip();
    for (unsigned how = 0; how < 4; how++) {
        assert_int_equal(vtest_reset(f.r.t), 0);
        f.r.t->indirect = how & 1;
        assert_int_equal(
            vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_MQ), how & 2),
            0);
        data_both_ways(&f);
    }
    virtio_blk_get_stats(f.r.d, &stats);
    assert_int_equal(stats.reads, 4 * 61);
    assert_int_equal(stats.writes, 4 * 61);
    assert_int_equal(stats.flushes, 4);
    assert_int_equal(stats.errors, 0);
    assert_int_equal(stats.read_bytes, stats.written_bytes);
    close_disk(&f);
}

/*
 * Framing is the driver's choice (§2.7.4.1): the header in pieces, data in pieces of odd sizes,
 * status in the last one's tail.
 */
static void odd_frames(struct fixture *f, bool packed)
{
    uint8_t header[BLK_HEADER] = {0}, data[3 * BLK_SECTOR + 1], want[3 * BLK_SECTOR];
    struct iovec out[6] = {{header, 3},     {header + 3, 13},  {data, 1},
                           {data + 1, 600}, {data + 601, 934}, {data + 1535, 1}};
    struct iovec in[4] = {{data, 511}, {data + 511, 1}, {data + 512, 100}, {data + 612, 925}};
    uint8_t status = 0xff;
    uint32_t written;

    assert_int_equal(vtest_reset(f->r.t), 0);
    assert_int_equal(vtest_negotiate(f->r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH), packed), 0);
    pattern(data, sizeof(data), 50 + packed);
    memcpy(want, data, sizeof(want));
    qz_store_le32(header, VIRTIO_BLK_T_OUT);
    qz_store_le64(header + 8, 100);
    assert_int_equal(vtest_request(f->r.t, 0, out, 6, &(struct iovec){&status, 1}, 1, NULL), 0);
    assert_int_equal(status, VIRTIO_BLK_S_OK);
    memset(data, 0xff, sizeof(data));
    qz_store_le32(header, VIRTIO_BLK_T_IN);
    assert_int_equal(vtest_request(f->r.t, 0, out, 2, in, 4, &written), 0);
    assert_int_equal(written, sizeof(data));
    assert_int_equal(data[3 * BLK_SECTOR], VIRTIO_BLK_S_OK);
    assert_memory_equal(data, want, sizeof(want));
    memcpy(f->model + 100 * BLK_SECTOR, want, sizeof(want));
    assert_file_is_model(f);
}

static void test_frames(void **state)
{
    struct fixture f = {0};

    if (!open_file_disk(&f, NULL, false, false))
        skip();
    odd_frames(&f, false);
    odd_frames(&f, true);
    close_disk(&f);
}

/* As many segments as seg_max allows, and past the page cache with buffers aligned to nothing. */
static void test_direct(void **state)
{
    uint8_t header[BLK_HEADER] = {0}, status = 0xff, *data = malloc(CAPACITY / 2);
    struct iovec out[1 + SEGMENTS_MAX] = {{header, BLK_HEADER}};
    struct fixture f = {0};
    size_t at = 0;

    if (!open_file_disk(&f, NULL, false, true)) {
        free(data);
        skip();
    }
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH), false), 0);
    pattern(data, CAPACITY / 2, 3);
    for (unsigned i = 1; i <= SEGMENTS_MAX; i++) {
        size_t n = i < SEGMENTS_MAX ? 8191 + i % 3 : CAPACITY / 2 - at;

        out[i] = (struct iovec){data + at, n};
        at += n;
    }
    qz_store_le32(header, VIRTIO_BLK_T_OUT);
    qz_store_le64(header + 8, 8);
    assert_int_equal(
        vtest_request(f.r.t, 0, out, 1 + SEGMENTS_MAX, &(struct iovec){&status, 1}, 1, NULL), 0);
    assert_int_equal(status, VIRTIO_BLK_S_OK);
    memcpy(f.model + 8 * BLK_SECTOR, data, CAPACITY / 2);
    assert_file_is_model(&f);
    assert_reads(&f, 0, 8, SECTORS / 2); /* over many pieces of the bounce buffer */
    assert_reads(&f, 0, 0, 8);
    free(data);
    close_disk(&f);
}

static void test_several_queues_at_once(void **state)
{
    enum { EACH = 32, SPAN = 16 };
    struct virtio_blk_options o = {.queues = QUEUES, .queue_size = 128};
    struct blk_io io[QUEUES][EACH];
    struct fixture f = {0};
    uint8_t *data = malloc(QUEUES * EACH * SPAN * BLK_SECTOR);

    if (!open_file_disk(&f, &o, false, false)) {
        free(data);
        skip();
    }
    for (unsigned packed = 0; packed < 2; packed++) {
        assert_int_equal(vtest_reset(f.r.t), 0);
        assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH), packed), 0);
        for (unsigned write = 2; write-- > 0;) {
            for (unsigned n = 0; n < QUEUES * EACH; n++) {
                uint8_t *p = data + n * SPAN * BLK_SECTOR;
                uint64_t sector = (n * 37 % (QUEUES * EACH)) * SPAN;

                if (write)
                    pattern(p, SPAN * BLK_SECTOR, n + packed);
                assert_int_equal(blk_submit(&f.r, &io[n % QUEUES][n / QUEUES], n % QUEUES,
                                            write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector, p,
                                            SPAN * BLK_SECTOR),
                                 0);
                if (write)
                    memcpy(f.model + sector * BLK_SECTOR, p, SPAN * BLK_SECTOR);
            }
            for (unsigned n = 0; n < QUEUES * EACH; n++)
                assert_int_equal(blk_wait(&f.r, &io[n % QUEUES][n / QUEUES]), VIRTIO_BLK_S_OK);
            assert_file_is_model(&f);
        }
        for (unsigned n = 0; n < QUEUES * EACH; n++)
            assert_memory_equal(data + n * SPAN * BLK_SECTOR,
                                f.model + (n * 37 % (QUEUES * EACH)) * SPAN * BLK_SECTOR,
                                SPAN * BLK_SECTOR);
    }
    free(data);
    close_disk(&f);
}

static void put_range(uint8_t *p, uint64_t sector, uint32_t count, uint32_t flags)
{
    qz_store_le64(p, sector);
    qz_store_le32(p + 8, count);
    qz_store_le32(p + 12, flags);
}

static void test_discard_and_zeroes(void **state)
{
    struct fixture f = {0};
    uint8_t ranges[3 * 16];

    if (!open_file_disk(&f, NULL, false, false))
        skip();
    assert_int_equal(vtest_negotiate(f.r.t,
                                     QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_DISCARD) |
                                         QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES),
                                     true),
                     0);
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        put_range(ranges, 16 + unmap * 1000, 1, unmap);
        put_range(ranges + 16, 700 + unmap * 1000, 130, unmap);
        put_range(ranges + 32, 20 + unmap * 1000, 9, 1 - unmap);
        assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, sizeof(ranges)),
                         0);
        for (unsigned i = 0; i < 3; i++)
            memset(f.model + qz_load_le64(ranges + 16 * i) * BLK_SECTOR, 0,
                   qz_load_le32(ranges + 16 * i + 8) * BLK_SECTOR);
        assert_file_is_model(&f);
    }
    /* What a discarded sector reads is undefined; its neighbours are not touched. */
    put_range(ranges, 3000, 100, 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_DISCARD, 0, ranges, 16), 0);
    assert_int_equal(pread(f.fd, f.model + 3000 * BLK_SECTOR, 100 * BLK_SECTOR, 3000 * BLK_SECTOR),
                     100 * BLK_SECTOR);
    assert_file_is_model(&f);
    assert_reads(&f, 0, 2990, 120);
    close_disk(&f);
}

/* Written over, in the file itself, before it is given back; offered only where it was asked for.
 */
static void test_secure_erase(void **state)
{
    struct fixture f = {0};
    uint8_t range[16];
    struct block_backend *backend;
    struct qz_error err;
    char options[100];

    if (!open_file_disk(&f, NULL, false, false))
        skip();
    assert_false(f.r.t->offered & QZ_BIT(VIRTIO_BLK_F_SECURE_ERASE));
    blk_rig_close(&f.r);
    snprintf(options, sizeof(options), "%s,secure-erase=overwrite,discard=ignore", f.path);
    assert_int_equal(block_disk_open(&backend, options, &err), 0);
    assert_int_equal(blk_rig_open(&f.r, backend, NULL, &err), 0);
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_SECURE_ERASE), true), 0);
    assert_true(f.r.t->features & QZ_BIT(VIRTIO_BLK_F_SECURE_ERASE));
    assert_int_not_equal(config(&f, MAX_ERASE, 4), 0);
    assert_int_not_equal(config(&f, MAX_ERASE + 4, 4), 0);
    put_range(range, 100, 3000, 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_SECURE_ERASE, 0, range, 16),
                     VIRTIO_BLK_S_OK);
    memset(f.model + 100 * BLK_SECTOR, 0, 3000 * BLK_SECTOR);
    assert_file_is_model(&f);
    put_range(range, 100, 1, 1); /* §5.2.6.1: the unmap bit is no flag of this command */
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_SECURE_ERASE, 0, range, 16),
                     VIRTIO_BLK_S_UNSUPP);
    put_range(range, SECTORS - 1, 2, 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_SECURE_ERASE, 0, range, 16),
                     VIRTIO_BLK_S_IOERR);
    close_disk(&f);
}

static void test_lifetime(void **state)
{
    enum { F_LIFETIME = 15, T_GET_LIFETIME = 10 };
    static const uint8_t worn[6] = {1, 0, 3, 0, 5, 0};
    struct fixture f = {0};
    uint8_t bytes[6];
    struct qz_error err;

    f.in_memory = true;
    memory_disk_init(&f.memory, CAPACITY);
    f.memory.info.lifetime = true;
    assert_int_equal(blk_rig_open(&f.r, &f.memory.b, NULL, &err), 0);
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(F_LIFETIME), false), 0);
    assert_true(f.r.t->features & QZ_BIT(F_LIFETIME));
    assert_int_equal(blk_request(&f.r, 0, T_GET_LIFETIME, 0, bytes, sizeof(bytes)),
                     VIRTIO_BLK_S_OK);
    assert_memory_equal(bytes, worn, sizeof(worn));
    close_disk(&f);
}

static void test_id(void **state)
{
    struct virtio_blk_options o = {.queues = 1, .serial = "disk-0123456789abcde"};
    struct fixture f = {0};
    uint8_t id[32];
    struct blk_io io;

    open_memory_disk(&f, &o);
    assert_int_equal(vtest_negotiate(f.r.t, 0, false), 0);
    assert_int_equal(blk_submit(&f.r, &io, 0, VIRTIO_BLK_T_GET_ID, 0, id, 20), 0);
    assert_int_equal(blk_wait(&f.r, &io), VIRTIO_BLK_S_OK);
    assert_memory_equal(id, o.serial, 20);
    assert_int_equal(io.written, 21);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_GET_ID, 0, id, 5), 0);
    assert_memory_equal(id, "disk-", 5);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_GET_ID, 0, id, 32), 0);
    assert_int_equal(id[20], 0xdb); /* as the driver left it */
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_GET_ID, 0, NULL, 0), 0);
    close_disk(&f);
}

/* §5.2.5.2: a driver that cannot flush gets every write flushed; one that can chooses by WCE. */
static void test_cache_mode(void **state)
{
    uint8_t data[BLK_SECTOR] = {1}, range[16];
    const unsigned *done;
    struct fixture f = {0};

    open_memory_disk(&f, NULL);
    done = f.memory.done;
    put_range(range, 0, 8, 0);
    assert_int_equal(vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_WRITE_ZEROES), false), 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)), 0);
    assert_int_equal(done[BLOCK_FLUSH], 1);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, range, 16), 0);
    assert_int_equal(done[BLOCK_FLUSH], 2);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_IN, 0, data, sizeof(data)), 0);
    assert_int_equal(done[BLOCK_FLUSH], 2);

    assert_int_equal(vtest_reset(f.r.t), 0);
    assert_int_equal(
        vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_FLUSH) | QZ_BIT(VIRTIO_BLK_F_CONFIG_WCE), false),
        0);
    assert_int_equal(config(&f, WCE, 1), 1);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)), 0);
    assert_int_equal(done[BLOCK_FLUSH], 2);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(done[BLOCK_FLUSH], 3);
    vtest_device_write(f.r.t, WCE, "\0", 1);
    assert_int_equal(config(&f, WCE, 1), 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)), 0);
    assert_int_equal(done[BLOCK_FLUSH], 4);
    assert_int_equal(vtest_reset(f.r.t), 0);
    assert_int_equal(config(&f, WCE, 1), 1);
    close_disk(&f);
}

static void test_readonly(void **state)
{
    struct fixture f = {0};
    uint8_t data[BLK_SECTOR] = {7}, range[16];

    if (!open_file_disk(&f, NULL, true, false))
        skip();
    assert_int_equal(f.r.t->offered >> VIRTIO_BLK_F_RO & 1, 1);
    assert_int_equal(f.r.t->offered >> VIRTIO_BLK_F_DISCARD & 1, 0);
    assert_int_equal(f.r.t->offered >> VIRTIO_BLK_F_WRITE_ZEROES & 1, 0);
    assert_int_equal(
        vtest_negotiate(f.r.t, QZ_BIT(VIRTIO_BLK_F_RO) | QZ_BIT(VIRTIO_BLK_F_FLUSH), false), 0);
    put_range(range, 0, 8, 0);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)),
                     VIRTIO_BLK_S_IOERR);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_DISCARD, 0, range, 16), VIRTIO_BLK_S_IOERR);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, range, 16),
                     VIRTIO_BLK_S_IOERR);
    assert_file_is_model(&f);
    assert_reads(&f, 0, 17, 3);
    assert_int_equal(blk_request(&f.r, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), 0);
    close_disk(&f);
}

/* One writer, or any number of readers. */
static void test_lock(void **state)
{
    struct block_backend *second;
    struct qz_error err = {0};
    struct fixture f = {0};

    if (!open_file_disk(&f, NULL, false, false))
        skip();
    assert_int_equal(block_raw_open(&second, f.path, false, false, &err), -EBUSY);
    assert_non_null(strstr(err.text, f.path));
    assert_int_equal(block_raw_open(&second, f.path, true, false, &err), -EBUSY);
    close_disk(&f);
    f = (struct fixture){0};
    assert_true(open_file_disk(&f, NULL, true, false));
    assert_int_equal(block_raw_open(&second, f.path, true, false, &err), 0);
    second->ops->free(second);
    assert_int_equal(block_raw_open(&second, f.path, false, false, &err), -EBUSY);
    close_disk(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_direct),
        cmocka_unit_test(test_several_queues_at_once),
        cmocka_unit_test(test_discard_and_zeroes),
        cmocka_unit_test(test_secure_erase),
        cmocka_unit_test(test_lifetime),
        cmocka_unit_test(test_id),
        cmocka_unit_test(test_cache_mode),
        cmocka_unit_test(test_readonly),
        cmocka_unit_test(test_lock),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("virtio-blk", tests, NULL, NULL);
}

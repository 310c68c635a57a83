/*
 * test_io.c - see the header.
 */
#include "test_io.h"

#include <queztl/base.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

enum { IO_MAX = 256, SEGMENTS = 5, SEGMENT_SECTORS = 4, AREA = SEGMENTS * SEGMENT_SECTORS };
enum { IDLE_MAX = 10000 };

uint64_t rig_all_features(void)
{
    uint64_t f = 0;

    for (unsigned i = 0; i < 64; i++)
        if (qz_vblk_feature_name(i))
            f |= VBLK_BIT(i);
    return f & ~(VBLK_BIT(VBLK_F_RO) | VBLK_BIT(VBLK_F_GEOMETRY) | VBLK_BIT(VBLK_F_TOPOLOGY) |
                 VBLK_BIT(VBLK_F_RING_PACKED) | VBLK_BIT(VBLK_F_IN_ORDER));
}

struct sim_options rig_options(uint64_t features)
{
    return (struct sim_options){.features = features,
                                .queues = 4,
                                .depth = 64,
                                .sectors = 8192,
                                .seg_max = 16,
                                .size_max = 1 << 20,
                                .block_size = 512,
                                .reorder = true,
                                .seed = 7};
}

void rig_open(struct rig *r, const struct sim_options *o, const struct vblk_config *c, int start_rc)
{
    size_t size = qz_vblk_memory_size(c);

    *r = (struct rig){.sim = sim_new(o), .memory = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul))};
    assert_true(size > 0);
    assert_non_null(r->memory);
    assert_int_equal(qz_vblk_create(r->memory, size, &r->sim->t, c, &r->dev), 0);
    assert_int_equal(qz_vblk_start(r->dev), start_rc);
}

void rig_close(struct rig *r)
{
    qz_vblk_stop(r->dev);
    if (r->sim->violations)
        fail_msg("%u violations, the last: %s", r->sim->violations, r->sim->violation);
    assert_int_equal(r->sim->dma_blocks, 0);
    sim_free(r->sim);
    free(r->memory);
}

int rig_do(struct rig *r, struct vblk_request *q)
{
    struct vblk_queue *queue = qz_vblk_queue(r->dev, 0);
    struct vblk_request *done = NULL;

    if (qz_vblk_submit(queue, &q, 1) != 1)
        return q->status;
    for (int i = 0; i < 4; i++) {
        int n;

        sim_run(r->sim, 1);
        n = qz_vblk_poll(queue, &done, 1);
        if (n < 0)
            return n;
        if (n == 1) {
            assert_ptr_equal(done, q);
            return q->status;
        }
    }
    return VBLK_PENDING;
}

/* One request of the random run. Areas of the disk are divided among requests, so that the order in
 * which a reordering device serves them does not change the answer. */
struct io {
    struct vblk_request r;
    struct vblk_segment segments[SEGMENTS];
    uint8_t *buffer, *expected;
    bool busy;
};

static void io_prepare(struct rig *r, struct io *io, unsigned index)
{
    bool write = sim_random(r->sim) & 1;
    unsigned first = sim_random(r->sim) % AREA;
    unsigned sectors = 1 + sim_random(r->sim) % (AREA - first);
    unsigned count = 1 + sim_random(r->sim) % QZ_MIN(SEGMENTS, (int)sectors), at = 0;

    io->r = (struct vblk_request){.op = write ? VBLK_OP_WRITE : VBLK_OP_READ,
                                  .count = count,
                                  .sector = index * AREA + first,
                                  .priority = sim_random(r->sim) % VBLK_PRIO_COUNT};
    /* A segment need not begin or end at a sector. */
    for (unsigned i = 0; i < count; i++) {
        unsigned left = sectors * 512 - at;
        unsigned len = i + 1 == count ? left : 1 + sim_random(r->sim) % (left - (count - i - 1));

        io->segments[i] = (struct vblk_segment){io->buffer + at, len};
        at += len;
    }
    if (count == 1)
        io->r.segment = io->segments[0];
    else
        io->r.segments = io->segments;
    for (unsigned i = 0; i < at; i++)
        io->buffer[i] = write ? (uint8_t)sim_random(r->sim) : 0xee;
    if (write)
        memcpy(io->expected + first * 512, io->buffer, at);
}

static void io_check(struct io *io, unsigned index)
{
    unsigned at = (io->r.sector - index * AREA) * 512, len = 0;
    const struct vblk_segment *s = io->r.count == 1 ? &io->r.segment : io->segments;

    assert_int_equal(io->r.status, 0);
    for (unsigned i = 0; i < io->r.count; i++)
        len += s[i].len;
    assert_memory_equal(io->buffer, io->expected + at, len);
}

void rig_random_io(struct rig *r, unsigned requests, unsigned depth)
{
    struct io *ios = calloc(IO_MAX, sizeof(*ios));
    struct vblk_info info;
    unsigned submitted = 0, done = 0, idle = 0;

    qz_vblk_get_info(r->dev, &info);
    depth = QZ_MIN(depth * info.queues, (unsigned)IO_MAX);
    for (unsigned i = 0; i < depth; i++) {
        ios[i].buffer = sim_buffer(r->sim, AREA * 512);
        ios[i].expected = malloc(AREA * 512);
        memcpy(ios[i].expected, r->sim->disk + i * AREA * 512, AREA * 512);
    }
    while (done < requests) {
        struct vblk_request *batch[IO_MAX], *finished[IO_MAX];

        for (unsigned k = 0; k < info.queues; k++) {
            unsigned n = 0;

            for (unsigned i = k; i < depth && submitted < requests; i += info.queues) {
                if (ios[i].busy || sim_random(r->sim) % 4 == 0)
                    continue;
                io_prepare(r, &ios[i], i);
                ios[i].busy = true;
                batch[n++] = &ios[i].r;
                submitted++;
            }
            assert_int_equal(qz_vblk_submit(qz_vblk_queue(r->dev, k), batch, n), n);
        }
        /* A doorbell that the device was owed and did not get shows up as no progress. */
        if (sim_run(r->sim, 1 + sim_random(r->sim) % depth) == 0 && submitted == requests)
            sim_run(r->sim, depth);
        for (unsigned k = 0; k < info.queues; k++) {
            int n = qz_vblk_poll(qz_vblk_queue(r->dev, k), finished, IO_MAX);

            assert_true(n >= 0);
            for (int i = 0; i < n; i++) {
                struct io *io = QZ_CONTAINER_OF(finished[i], struct io, r);

                assert_true(io->busy);
                io->busy = false;
                idle = 0;
                io_check(io, io - ios);
                done++;
            }
        }
        if (r->sim->violations)
            fail_msg("the driver broke a rule: %s", r->sim->violation);
        assert_true(idle++ < IDLE_MAX);
    }
    for (unsigned k = 0; k < info.queues; k++)
        assert_int_equal(qz_vblk_pending(qz_vblk_queue(r->dev, k)), 0);
    for (unsigned i = 0; i < depth; i++)
        free(ios[i].expected);
    free(ios);
}

/*
 * resume_test.c - a device that is lost and comes back with its rings as they were.
 */
#include "test_io.h"

#include <queztl/base.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { N = 8, LIVES = 8 };

static int answer;      /* of resume */
static unsigned places; /* queues that were given back */

static int resume(struct vblk_transport *t)
{
    return answer;
}

static int queue_resume(struct vblk_transport *t, unsigned queue, uint16_t position)
{
    places++;
    return 0;
}

struct load {
    struct rig r;
    struct vblk_transport_ops ops;
    struct vblk_request q[N];
    unsigned ended;
};

/* Requests that the device has and does not answer. */
static void begin(struct load *l, uint64_t features)
{
    struct sim_options o = rig_options(features);
    struct vblk_request *batch[N];
    struct vblk_config c;
    uint8_t *data;

    qz_vblk_config_default(&c);
    c.queue_depth = 16;
    rig_open(&l->r, &o, &c, 0);
    l->ops = *l->r.sim->t.ops;
    l->ops.resume = resume;
    l->ops.queue_resume = queue_resume;
    l->r.sim->t.ops = &l->ops;
    l->ended = places = 0;
    answer = 0;
    data = sim_buffer(l->r.sim, N * 512);
    for (unsigned i = 0; i < N; i++) {
        l->q[i] = (struct vblk_request){
            .op = VBLK_OP_WRITE, .count = 1, .sector = i, .segment = {data + i * 512, 512}};
        batch[i] = &l->q[i];
    }
    assert_int_equal(qz_vblk_submit(qz_vblk_queue(l->r.dev, 0), batch, N), N);
}

static void end(struct load *l, int status)
{
    struct vblk_request *done[N];

    for (unsigned round = 0; round < 20 && l->ended < N; round++) {
        int n;

        sim_run(l->r.sim, N);
        n = qz_vblk_poll(qz_vblk_queue(l->r.dev, 0), done, N);
        assert_true(n >= 0);
        for (int i = 0; i < n; i++)
            assert_int_equal(done[i]->status, status);
        l->ended += (unsigned)n;
    }
    assert_int_equal(l->ended, N);
    rig_close(&l->r);
}

static struct vblk_info info_of(const struct load *l)
{
    struct vblk_info info;

    qz_vblk_get_info(l->r.dev, &info);
    return info;
}

static void goes_on(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        struct load l;

        begin(&l, rig_all_features() | (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0));
        assert_int_equal(qz_vblk_recover(l.r.dev), 0);
        assert_int_equal(info_of(&l).resumes, 1);
        assert_int_equal(info_of(&l).resets, 0);
        assert_int_equal(places, 1);
        assert_int_equal(l.q[0].attempts, 2);
        end(&l, 0);
    }
}

static void not_back_yet(void **state)
{
    struct load l;

    begin(&l, rig_all_features());
    answer = -VBLK_ENODEV;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(qz_vblk_recover(l.r.dev), -VBLK_ENODEV);
    assert_int_equal(places, 0);
    answer = 0;
    assert_int_equal(qz_vblk_recover(l.r.dev), 0);
    assert_int_equal(info_of(&l).resumes, 1);
    assert_int_equal(info_of(&l).resets, 0);
    end(&l, 0);
}

/* What cannot be resumed is reset, and the requests are given to the device again. */
static void other_device(void **state)
{
    struct load l;

    begin(&l, rig_all_features());
    answer = -VBLK_ENOTSUP;
    assert_int_equal(qz_vblk_recover(l.r.dev), 0);
    assert_int_equal(info_of(&l).resumes, 0);
    assert_int_equal(info_of(&l).resets, 1);
    assert_int_equal(l.q[0].attempts, 2);
    end(&l, 0);
}

/* A request that is there at every loss may be what kills the device. */
static void too_many_lives(void **state)
{
    struct load l;

    begin(&l, rig_all_features());
    for (unsigned i = 1; i < LIVES; i++)
        assert_int_equal(qz_vblk_recover(l.r.dev), 0);
    assert_int_equal(info_of(&l).resumes, LIVES - 1);
    assert_int_equal(qz_vblk_recover(l.r.dev), 0);
    assert_int_equal(info_of(&l).resumes, LIVES - 1);
    assert_int_equal(info_of(&l).resets, 1);
    end(&l, -VBLK_EIO);
}

/* Nonsense in a ring is not a loss: rings like that are not given to anyone. */
static void broken_ring(void **state)
{
    struct vblk_request *done[N];
    struct load l;
    int n = 0;

    begin(&l, rig_all_features());
    l.r.sim->fault = SIM_FAULT_ID_HIGH;
    for (unsigned i = 0; i < 10 && n >= 0; i++) {
        sim_run(l.r.sim, N);
        n = qz_vblk_poll(qz_vblk_queue(l.r.dev, 0), done, N);
        l.ended += n > 0 ? (unsigned)n : 0;
    }
    assert_true(n < 0);
    l.r.sim->fault = SIM_FAULT_NONE;
    assert_int_equal(qz_vblk_recover(l.r.dev), 0);
    assert_int_equal(info_of(&l).resumes, 0);
    assert_int_equal(info_of(&l).resets, 1);
    end(&l, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on),      cmocka_unit_test(not_back_yet),
        cmocka_unit_test(other_device), cmocka_unit_test(too_many_lives),
        cmocka_unit_test(broken_ring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * peers_test.c - servers are killed under load, a hundred times: qemu-storage-daemon, and our own
 * in both ring formats. Where the server keeps an in-flight buffer (ours; QEMU's daemon has none)
 * the rings outlive it, elsewhere each loss is a reset; said is which.
 *
 * VBLK_KILLS changes how often.
 */
#include "load.h"
#include "own_server.h"
#include "qsd.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { IMAGE = 16 << 20, QUEUES = 2, EVERY = 300 };

struct driver {
    struct vblk_user *user;
    struct vblk_device *dev;
    void *memory;
};

static void driver_open(struct driver *d, const char *socket, uint64_t off)
{
    struct vblk_user_options o = {.path = socket, .memory = 32 << 20};
    struct qz_error err = {0};
    struct vblk_config c;

    if (qz_vblk_user_open(&o, &d->user, &err) < 0)
        fail_msg("%s", err.text);
    qz_vblk_config_default(&c);
    c.queue_count = QUEUES;
    c.features_off = off;
    d->memory = aligned_alloc(64, QZ_ALIGN_UP(qz_vblk_memory_size(&c), 64ul));
    assert_int_equal(qz_vblk_create(d->memory, qz_vblk_memory_size(&c),
                                    qz_vblk_user_transport(d->user), &c, &d->dev),
                     0);
    assert_int_equal(qz_vblk_start(d->dev), 0);
}

/* Under load; replace(arg) is another server in the place of the first. */
static void killed(const char *socket, uint64_t off, bool tracked, void (*replace)(void *arg),
                   void *arg)
{
    const char *times = getenv("VBLK_KILLS");
    unsigned kills = times ? (unsigned)atoi(times) : 100;
    struct vblk_info info;
    struct driver d;
    struct load *l;

    driver_open(&d, socket, off);
    l = load_new(d.user, d.dev, 1);
    load_run(l, (uint64_t)EVERY * (kills + 1), EVERY, replace, arg);
    qz_vblk_get_info(d.dev, &info);
    print_message("%llu resumed, %llu reset\n", (unsigned long long)info.resumes,
                  (unsigned long long)info.resets);
    assert_int_equal(info.resumes + info.resets, kills);
    assert_true(info.resets == 0 || info.resumes == 0); /* one way or the other, not by chance */
    if (tracked)
        assert_int_equal(info.resets, 0);
    free(l);
    qz_vblk_stop(d.dev);
    qz_vblk_user_close(d.user);
    free(d.memory);
}

static void replace_qsd(void *arg)
{
    struct qz_error err = {0};

    qsd_kill(arg);
    if (qsd_restart(arg, &err) < 0)
        fail_msg("%s", err.text);
}

static void qemu(void **state)
{
    struct qz_error err = {0};
    struct qsd q;

    if (qsd_start(&q, IMAGE, QUEUES, &err) < 0) {
        print_message("skipped: %s\n", err.text);
        qsd_end(&q);
        skip();
    }
    killed(q.socket, 0, false, replace_qsd, &q);
    qsd_end(&q);
}

static void replace_own(void *arg)
{
    struct qz_error err = {0};

    own_server_kill(arg);
    if (own_server_restart(arg, &err) < 0)
        fail_msg("%s", err.text);
}

static void own(uint64_t off, bool tracked)
{
    struct qz_error err = {0};
    struct own_server o;

    if (own_server_start(&o, IMAGE, QUEUES, "", &err) < 0)
        fail_msg("%s", err.text);
    killed(o.socket, off, tracked, replace_own, &o);
    own_server_end(&o);
}

static void own_split(void **state)
{
    own(VBLK_BIT(VBLK_F_RING_PACKED), true);
}

static void own_packed(void **state)
{
    own(0, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_split),
        cmocka_unit_test(own_packed),
        cmocka_unit_test(qemu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

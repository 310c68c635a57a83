/* base_test.c - units, errors and the event loop. */
#include <queztl/loop.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void sizes_are_parsed(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        int code;
    } cases[] = {
        {"512M", 512ull << 20, 0},
        {"2GB", 2000000000ull, 0},
        {"2GiB", 2ull << 30, 0},
        {"4k", 4096, 0},
        {"7B", 7, 0},
        {"0", 0, 0},
        {"512", 0, -EINVAL},
        {"", 0, -EINVAL},
        {"-1G", 0, -EINVAL},
        {"1Q", 0, -EINVAL},
        {"9000000000G", 0, -ERANGE},
        {"99999999999999999999B", 0, -ERANGE},
    };

    (void)state;
    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct qz_error err = {0};
        uint64_t bytes = 0;

        assert_int_equal(qz_parse_size(cases[i].text, &bytes, &err), cases[i].code);
        assert_int_equal(bytes, cases[i].bytes);
        assert_int_equal(err.text[0] != 0, cases[i].code != 0);
    }
}

static void errors_keep_their_cause(void **state)
{
    struct qz_error err;

    (void)state;
    assert_int_equal(qz_fail(&err, -EIO, "sector %d", 7), -EIO);
    assert_int_equal(qz_error_prefix(&err, "disk %s", "a.img"), -EIO);
    assert_string_equal(err.text, "disk a.img: sector 7");
}

struct fixture {
    struct qz_loop *loop;
    struct qz_timer late, early;
    struct qz_work work;
    struct qz_watch reader;
    int order[4], n, pipe[2];
};
static struct fixture f;

static void note_early(struct qz_timer *t)
{
    (void)t;
    f.order[f.n++] = 1;
}
static void note_late(struct qz_timer *t)
{
    (void)t;
    f.order[f.n++] = 2;
    qz_loop_stop(f.loop, 42);
}
static void note_work(struct qz_work *w)
{
    (void)w;
    f.order[f.n++] = 0;
}

static void *post_from_thread(void *arg)
{
    (void)arg;
    qz_loop_post(f.loop, &f.work, note_work);
    return NULL;
}

static void loop_orders_timers_and_work(void **state)
{
    pthread_t thread;
    int64_t now = qz_now_ns();

    (void)state;
    memset(&f, 0, sizeof(f));
    assert_int_equal(qz_loop_new(&f.loop, NULL), 0);
    pthread_create(&thread, NULL, post_from_thread, NULL);
    pthread_join(thread, NULL);
    qz_timer_arm(f.loop, &f.late, now + 2000000, note_late);
    qz_timer_arm(f.loop, &f.early, now + 1000000, note_early);
    assert_int_equal(qz_loop_run(f.loop), 42);
    assert_int_equal(f.n, 3);
    assert_int_equal(f.order[0], 0);
    assert_int_equal(f.order[1], 1);
    assert_int_equal(f.order[2], 2);
    qz_loop_free(f.loop);
}

static void on_readable(struct qz_watch *w, uint32_t events)
{
    char c;

    assert_true(events & EPOLLIN);
    assert_int_equal(read(w->fd, &c, 1), 1);
    qz_loop_remove(w);
    qz_loop_stop(f.loop, c);
}

static void loop_watches_descriptors(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    assert_int_equal(qz_loop_new(&f.loop, NULL), 0);
    assert_int_equal(pipe(f.pipe), 0);
    assert_int_equal(qz_loop_add(f.loop, &f.reader, f.pipe[0], EPOLLIN, on_readable), 0);
    assert_int_equal(write(f.pipe[1], "x", 1), 1);
    assert_int_equal(qz_loop_run(f.loop), 'x');
    close(f.pipe[0]);
    close(f.pipe[1]);
    qz_loop_free(f.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_parsed),
        cmocka_unit_test(errors_keep_their_cause),
        cmocka_unit_test(loop_orders_timers_and_work),
        cmocka_unit_test(loop_watches_descriptors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

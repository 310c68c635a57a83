/*
 * settings_test.c - what a configuration file may say, and what it is told when it says something
 * else.
 */
#include "settings.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int parse(const char *text, struct vblk_settings *s, struct qz_error *err)
{
    return settings_parse("f", text, strlen(text), s, err);
}

static void everything(void **state)
{
    static const char text[] = "# a comment\n"
                               "[other]\nkey = \"[virtio_block]\"\n"
                               "[virtio_block] # ours\n"
                               "device_max_count = 4\ndevice_max_queues = 0x10\n"
                               "device_max_queue_depth = 512\ndevice_max_sectors = 1_000_000\r\n"
                               "queue_count=2\nqueue_depth = 256\n"
                               "queue_interrupt_coalescing = true\n"
                               "queue_interrupt_coalescing_time = 20\n"
                               "queue_interrupt_coalescing_threshold = 8\n"
                               "read_ahead_size = '256KiB'\nwrite_back_cache = true\n"
                               "write_back_cache_size = \"8MiB\"\nio_scheduler = \"deadline\"\n"
                               "direct_io = false\nshared_memory_size = 33554432\n"
                               "dma_enabled = true\nzero_copy_enabled = false\n"
                               "batch_processing = false";
    struct vblk_settings s;
    struct vblk_config c;
    struct qz_error err = {0};

    if (parse(text, &s, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(s.device_max_count, 4);
    assert_int_equal(s.device_max_queues, 16);
    assert_int_equal(s.read_ahead_size, 256 << 10);
    assert_int_equal(s.write_back_cache_size, 8 << 20);
    assert_int_equal(s.shared_memory_size, 32 << 20);
    assert_false(s.direct_io);
    settings_apply(&s, &c);
    assert_int_equal(c.sectors_max, 1000000);
    assert_int_equal(c.queue_count, 2);
    assert_int_equal(c.queue_depth, 256);
    assert_int_equal(c.coalesce_threshold, 8);
    assert_int_equal(c.coalesce_time_us, 20);
    assert_int_equal(c.scheduler, VBLK_SCHED_DEADLINE);
    assert_false(c.zero_copy);
    assert_false(c.batch);
    assert_true(qz_vblk_memory_size(&c) > 0);
    s.interrupt_coalescing = false;
    settings_apply(&s, &c);
    assert_int_equal(c.coalesce_threshold, 0);
    assert_int_equal(parse("", &s, &err), 0);
}

static void mistakes(void **state)
{
    static const struct {
        const char *text, *where;
    } cases[] = {
        {"[virtio_block]\nqueue_count = 0\n", "f:2:15: queue_count: 0 is not within 1 to 64"},
        {"[virtio_block]\nqueue_depth = 2000\n", "f:2:15:"},
        {"[virtio_block]\n  nonsense = 1\n", "f:2:14: unknown key 'nonsense'"},
        {"[virtio_block]\nio_scheduler = \"cfq\"\n", "f:2:16: io_scheduler: 'cfq'"},
        {"[virtio_block]\nio_scheduler = 3\n", "f:2:16:"},
        {"[virtio_block]\ndirect_io = 1\n", "f:2:13: direct_io: expected true or false"},
        {"[virtio_block]\nqueue_count = -1\n", "f:2:15: queue_count: -1 is negative"},
        {"[virtio_block]\nqueue_count = true\n", "f:2:15: queue_count: expected a number"},
        {"[virtio_block]\nread_ahead_size = \"128\"\n", "f:2:19: read_ahead_size:"},
        {"[virtio_block]\nqueue_count = 1\nqueue_count = 2\n", "f:3:1: this key is there twice"},
        {"[virtio_block]\n[virtio_block]\n", "f:2:1: this table is there twice"},
        {"[virtio_block\n", "f:1:14: expected ]"},
        {"[[virtio_block]]\n", "f:1:1: arrays of tables"},
        {"[virtio_block]\nqueue_count 4\n", "f:2:13: expected ="},
        {"[virtio_block]\nqueue_count = \n", "f:2:15: expected a number"},
        {"[virtio_block]\nqueue_count = 4 4\n", "f:2:17: unexpected text"},
        {"[virtio_block]\nqueue_count = 4.5\n", "f:2:15: only whole numbers"},
        {"[virtio_block]\nqueue_count = 04\n", "f:2:15:"},
        {"[virtio_block]\nqueue_count = 4_\n", "f:2:15:"},
        {"[virtio_block]\nqueue_count = 99999999999999999999\n", "f:2:15: the number is too large"},
        {"[virtio_block]\nqueue_count = [4]\n", "f:2:15: arrays"},
        {"[virtio_block]\nio_scheduler = \"none\n", "f:2:16: a string without end"},
        {"[virtio_block]\nio_scheduler = \"\\q\"\n", "f:2:18: unknown escape"},
        {"= 4\n", "f:1:1: expected a key"},
        {"[virtio_block]\ndevice_max_queues = 2\nqueue_count = 4\n",
         "f:3:15: queue_count is more than device_max_queues"},
        {"[virtio_block]\ndma_enabled = false\n", "f:2:15: zero_copy_enabled needs dma_enabled"},
        {"[virtio_block]\nwrite_back_cache = true\n", "f:2:20: direct_io goes past"},
        {"[virtio_block]\ndirect_io = false\nwrite_back_cache = true\nwrite_back_cache_size = "
         "\"60MiB\"\n",
         "f:4:25: write_back_cache_size is more"},
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct vblk_settings s;
        struct qz_error err = {0};

        assert_true(parse(cases[i].text, &s, &err) < 0);
        if (strncmp(err.text, cases[i].where, strlen(cases[i].where)))
            fail_msg("'%s': told '%s', wanted '%s'", cases[i].text, err.text, cases[i].where);
    }
}

/* Every prefix and every single changed byte of a good file is read or refused, never more. */
static void damage(void **state)
{
    char text[] = "[virtio_block]\nqueue_count = 0x2\nio_scheduler = \"none\\n\" # c\n"
                  "read_ahead_size = '1MiB'\ndirect_io = false\n";
    struct vblk_settings s;
    struct qz_error err;

    for (size_t n = 0; n < sizeof(text); n++)
        settings_parse("f", text, n, &s, &err);
    for (size_t i = 0; i + 1 < sizeof(text); i++)
        for (unsigned c = 0; c < 256; c++) {
            char old = text[i];

            text[i] = (char)c;
            settings_parse("f", text, sizeof(text) - 1, &s, &err);
            text[i] = old;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

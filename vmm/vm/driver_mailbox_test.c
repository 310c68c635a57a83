/*
 * driver_mailbox_test.c - questions to a driver in the guest, whose side of the mailbox is played
 * here, honestly and not.
 */
#include "vm/driver_mailbox.h"

#include <queztl/vblk_mailbox.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct rig {
    struct guest_memory m;
    struct vblk_mailbox b;
};

static void store(struct rig *r)
{
    assert_int_equal(mem_write(&r->m, gpa(VBLK_MAILBOX_ADDRESS), &r->b, sizeof(r->b)), 0);
}

static void load(struct rig *r)
{
    assert_int_equal(mem_read(&r->m, gpa(VBLK_MAILBOX_ADDRESS), &r->b, sizeof(r->b)), 0);
}

static void begin(struct rig *r)
{
    struct qz_error err = {0};

    memset(r, 0, sizeof(*r));
    assert_int_equal(guest_memory_new(&r->m, 128 << 20, &err), 0);
}

static int ask(struct rig *r, const char *line)
{
    struct qz_error err = {0};

    return driver_ask(&r->m, line, &err);
}

static void a_question(void **state)
{
    struct qz_error err = {0};
    json_t *data = NULL;
    struct rig r;

    begin(&r);
    assert_int_equal(ask(&r, "queue-info"), -ENOENT); /* nobody is there */
    assert_int_equal(driver_answer(&r.m, &data, &err), -ENOENT);
    r.b.magic = VBLK_MAILBOX_MAGIC;
    store(&r);
    assert_int_equal(ask(&r, "queue-info 1"), 0);
    load(&r);
    assert_string_equal(r.b.line, "queue-info 1");
    assert_int_equal(r.b.asked, 1);
    assert_int_equal(ask(&r, "queue-info"), -EBUSY);
    assert_int_equal(driver_answer(&r.m, &data, &err), 0);
    assert_true(json_is_true(json_object_get(data, "pending")));
    json_decref(data);
    memcpy(r.b.answer, "{}", 2);
    r.b.answer_len = 2;
    r.b.answered = 1;
    store(&r);
    assert_int_equal(driver_answer(&r.m, &data, &err), 0);
    assert_string_equal(json_string_value(json_object_get(data, "answer")), "{}");
    json_decref(data);
    assert_int_equal(ask(&r, "queue-info"), 0);
    guest_memory_free(&r.m);
}

static void nonsense(void **state)
{
    struct qz_error err = {0};
    json_t *data = NULL;
    char line[200];
    struct rig r;

    begin(&r);
    r.b.magic = VBLK_MAILBOX_MAGIC;
    r.b.asked = r.b.answered = UINT32_MAX;
    r.b.answer_len = UINT32_MAX; /* far beyond the mailbox */
    store(&r);
    assert_int_equal(driver_answer(&r.m, &data, &err), -EPROTO);
    r.b.answer_len = sizeof(r.b.answer);
    memset(r.b.answer, 0xff, sizeof(r.b.answer)); /* no text */
    store(&r);
    assert_int_equal(driver_answer(&r.m, &data, &err), -EPROTO);
    assert_null(data);
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 1] = 0;
    assert_int_equal(ask(&r, line), -EINVAL);
    assert_int_equal(ask(&r, "device-info"), 0); /* the count wraps */
    load(&r);
    assert_int_equal(r.b.asked, 0);
    guest_memory_free(&r.m);
}

/* A machine whose memory ends before the mailbox. */
static void small_machine(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    assert_int_equal(guest_memory_new(&m, 32 << 20, &err), 0);
    assert_int_equal(driver_ask(&m, "device-info", &err), -ENOENT);
    guest_memory_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question),
        cmocka_unit_test(nonsense),
        cmocka_unit_test(small_machine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

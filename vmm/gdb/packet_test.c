/* packet_test.c - framing, escapes, checksums, acknowledgements. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gdb/packet.h"

static struct gdb_link link_;

/* Takes all of text; the last event. */
static enum gdb_event_kind feed(const char *text)
{
    size_t len = strlen(text), at = 0, used;
    enum gdb_event_kind kind = GDB_NOTHING;

    while (at < len) {
        link_.out_sent = link_.out_len; /* the peer reads */
        kind = gdb_link_input(&link_, (const uint8_t *)text + at, len - at, &used);
        at += used;
    }
    return kind;
}

static void expect_output(const char *text)
{
    assert_int_equal(link_.out_len - link_.out_sent, strlen(text));
    assert_memory_equal(link_.out + link_.out_sent, text, strlen(text));
}

static int setup(void **state)
{
    gdb_link_init(&link_);
    return 0;
}

static void test_packet(void **state)
{
    assert_int_equal(feed("+$qC#b4"), GDB_PACKET);
    assert_string_equal((char *)link_.packet, "qC");
    expect_output("+");
    assert_int_equal(feed("$}]a#3b"), GDB_PACKET); /* '}' ^ 0x20 is ']' */
    assert_int_equal(link_.packet_len, 2);
    assert_memory_equal(link_.packet, "}a", 2);
}

static void test_bad_sum(void **state)
{
    assert_int_equal(feed("$qC#b5"), GDB_NOTHING);
    expect_output("-");
    assert_int_equal(feed("$qC#zz"), GDB_NOTHING);
    expect_output("-");
    link_.no_ack = true; /* then nobody looks at it */
    assert_int_equal(feed("$qC#00"), GDB_PACKET);
    expect_output("");
}

static void test_interrupt(void **state)
{
    assert_int_equal(feed("\x03"), GDB_INTERRUPT);
    assert_int_equal(feed("$a\x03#64"), GDB_PACKET); /* within a packet it is data */
}

static void test_restart(void **state)
{
    assert_int_equal(feed("$lost$qC#b4"), GDB_PACKET);
    assert_string_equal((char *)link_.packet, "qC");
}

static void test_too_long(void **state)
{
    static char text[GDB_PACKET_MAX + 16];
    unsigned sum = 0;

    text[0] = '$';
    memset(text + 1, 'x', GDB_PACKET_MAX + 1);
    for (unsigned i = 0; i < GDB_PACKET_MAX + 1; i++)
        sum += 'x';
    snprintf(text + GDB_PACKET_MAX + 2, 8, "#%02x", sum & 0xff);
    assert_int_equal(feed(text), GDB_PACKET);
    assert_int_equal(link_.packet_len, 0); /* no command is that long: not known */
}

static void test_send_and_again(void **state)
{
    struct gdb_reply r = {0};

    gdb_put_text(&r, "a$#}*");
    gdb_link_send(&link_, &r);
    expect_output("$a}\x04}\x03}]}\n#c3");
    assert_int_equal(feed("-"), GDB_NOTHING);
    expect_output("$a}\x04}\x03}]}\n#c3");
    assert_int_equal(feed("+"), GDB_NOTHING);
    expect_output("");
}

static void test_reply_is_bounded(void **state)
{
    static struct gdb_reply r;

    for (unsigned i = 0; i < GDB_PACKET_MAX; i++)
        gdb_put_text(&r, "}");
    assert_false(r.overflow);
    gdb_put_text(&r, "}");
    assert_true(r.overflow);
    gdb_link_send(&link_, &r); /* the longest packet there can be fits */
    assert_int_equal(link_.out_len, 2 * GDB_PACKET_MAX + 4);
}

static void test_scan(void **state)
{
    const char *text = "12ab,ff:00112zz";
    struct gdb_scan s = {(const uint8_t *)text, (const uint8_t *)text + strlen(text)};
    uint64_t v;
    uint8_t bytes[3];

    assert_true(gdb_get_number(&s, &v));
    assert_int_equal(v, 0x12ab);
    assert_false(gdb_get_number(&s, &v));
    assert_true(gdb_get_char(&s, ','));
    assert_true(gdb_get_word(&s, "ff:"));
    assert_false(gdb_get_hex(&s, bytes, 3));
    assert_true(gdb_get_hex(&s, bytes, 2));
    assert_int_equal(bytes[1], 0x11);
    text = "11112222333344445";
    s = (struct gdb_scan){(const uint8_t *)text, (const uint8_t *)text + 17};
    assert_false(gdb_get_number(&s, &v)); /* more than 64 bits */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_packet, setup),
        cmocka_unit_test_setup(test_bad_sum, setup),
        cmocka_unit_test_setup(test_interrupt, setup),
        cmocka_unit_test_setup(test_restart, setup),
        cmocka_unit_test_setup(test_too_long, setup),
        cmocka_unit_test_setup(test_send_and_again, setup),
        cmocka_unit_test_setup(test_reply_is_bounded, setup),
        cmocka_unit_test_setup(test_scan, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

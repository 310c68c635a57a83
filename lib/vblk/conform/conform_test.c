/*
 * conform_test.c - the checker itself: a device that keeps the rules fails nothing, and for each of
 * several devices that break one, the check that it is about fails.
 */
#include "../test_io.h"
#include "conform.h"

#include <queztl/base.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct sim *machine;
static uint64_t (*clock_of)(void *ctx);
static void (*disturb)(
    struct sim *s); /* what the device does wrong, each time it is given a moment */
static uint64_t notifications;

/* Whoever looks at the clock waits: the device works meanwhile. */
static uint64_t now_ns(void *ctx)
{
    sim_run(machine, 4);
    if (disturb)
        disturb(machine);
    machine->clock_ns += 100000; /* waiting is over soon */
    return clock_of(ctx);
}

static bool notified(struct conform *c)
{
    uint64_t before = notifications;

    sim_run(machine, 4);
    notifications = machine->q[0].interrupts_raised;
    return notifications != before;
}

struct rules {
    struct rig r;
    struct conform c;
};

static void begin(struct rules *t, uint64_t features)
{
    struct sim_options o = rig_options(features);
    struct vblk_config c;

    qz_vblk_config_default(&c);
    c.queue_depth = 16;
    c.segments_max = 8;
    c.interrupts = true;
    rig_open(&t->r, &o, &c, 0);
    machine = t->r.sim;
    clock_of = machine->p.now_ns;
    machine->p.now_ns = now_ns;
    notifications = 0;
    t->c = (struct conform){
        .dev = t->r.dev, .data = sim_buffer(machine, CONFORM_DATA), .notified = notified};
}

/* The checks do what no driver does: that is no fault of this one. */
static void end(struct rules *t)
{
    disturb = NULL;
    machine->violations = 0;
    rig_close(&t->r);
}

static enum conform_result run(struct rules *t, const char *text)
{
    for (unsigned i = 0; i < conform_demand_count; i++)
        if (!strcmp(conform_demands[i].text, text))
            return conform_run(&t->c, &conform_demands[i]);
    fail_msg("no demand \"%s\"", text);
    return CONFORM_FAILED;
}

static uint64_t ring_features(unsigned packed)
{
    return (rig_all_features() & ~VBLK_BIT(VBLK_F_NOTIFICATION_DATA)) |
           (packed ? VBLK_BIT(VBLK_F_RING_PACKED) : 0);
}

static void sound(void **state)
{
    for (unsigned packed = 0; packed < 2; packed++) {
        unsigned passed = 0, failed = 0;
        struct rules t;

        begin(&t, ring_features(packed));
        for (unsigned i = 0; i < conform_demand_count; i++) {
            enum conform_result r = conform_run(&t.c, &conform_demands[i]);

            if (r == CONFORM_FAILED)
                print_message("%s %s: %s\n", conform_demands[i].section, conform_demands[i].text,
                              t.c.why);
            failed += r == CONFORM_FAILED;
            passed += r == CONFORM_PASSED;
        }
        assert_int_equal(failed, 0);
        assert_true(passed > 25);
        end(&t);
    }
}

static void longer(struct sim *s)
{
    s->fault = SIM_FAULT_LENGTH;
    s->fault_after = 0;
}
static void failing(struct sim *s)
{
    s->fault = SIM_FAULT_IO;
    s->fault_after = 0;
}
static void silent(struct sim *s)
{
    s->fault = SIM_FAULT_STALL;
    s->fault_after = 0;
}
static void scribbling(struct sim *s)
{
    struct dev_ring *r = &s->q[0].ring;
    static uint8_t mark;

    mark++;
    if (s->q[0].enabled && !r->packed && r->in_device == 0)
        for (unsigned i = 0; i < r->size; i++)
            r->desc[16 * i + 15] = mark; /* a field that means nothing without NEXT */
}
static void writeback_on(struct sim *s)
{
    s->writeback = 1;
}

static void broken(void **state)
{
    static const struct {
        void (*how)(struct sim *s);
        const char *text;
    } cases[] = {
        {longer, "at least len bytes were written by then"},
        {failing, "what was written is read (prose)"},
        {failing, "discard refuses unmap"}, /* with another status than UNSUPP */
        {failing, "zone commands end with UNSUPP without ZONED"},
        {silent, "doorbells for nothing do no harm"},
        {silent, "a notification comes where flags is 0"},
        {scribbling, "the descriptor table is not written"},
        {writeback_on, "writeback is 0 with CONFIG_WCE and without FLUSH"},
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct rules t;

        begin(&t, ring_features(0) & ~VBLK_BIT(VBLK_F_ZONED));
        disturb = cases[i].how;
        if (run(&t, cases[i].text) != CONFORM_FAILED)
            fail_msg("\"%s\" is not seen to be broken", cases[i].text);
        machine->fault = SIM_FAULT_NONE;
        end(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sound), cmocka_unit_test(broken)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

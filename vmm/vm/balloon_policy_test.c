/*
 * balloon_policy_test.c - the policy of the balloon on simulated hosts with simulated guests: it
 * takes what is to spare, stops where the guest needs it, settles, gives back, and no claim of a
 * guest leads it out of its bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "vm/balloon_policy.h"

#define MIB    (1ull << 20)
#define SECOND 1000000000ll

enum { THRESHOLD = 500, MEMORY_MIB = 1024, GUESTS = 4 };

/* A guest with a page cache that grows into whatever is free, and a driver that takes its time. */
struct guest {
    struct balloon_policy policy;
    uint64_t needs, cache, balloon;
    bool tells;
    struct balloon_claim claim;
};

struct host {
    int64_t now;
    uint64_t capacity;
    struct guest guest[GUESTS];
    uint64_t steepness; /* of its pressure, once memory is missing */
    unsigned turns;     /* changes from taking to giving and back, by any guest */
    int direction[GUESTS];
};

static void host_begin(struct host *h, uint64_t capacity_mib, uint64_t needs_mib)
{
    *h = (struct host){.now = SECOND, .capacity = capacity_mib * MIB, .steepness = 40000};
    for (unsigned i = 0; i < GUESTS; i++) {
        balloon_policy_init(&h->guest[i].policy, MEMORY_MIB * MIB, 128 * MIB, THRESHOLD, 0);
        h->guest[i].needs = needs_mib * MIB;
        h->guest[i].tells = true;
    }
}

/* One second of it: the cache grows, the balloon follows its target, both by what a second allows.
 */
static void guest_live(struct guest *g, int64_t now)
{
    const uint64_t memory = g->policy.memory, target = g->policy.target;
    uint64_t room;

    if (g->balloon < target)
        g->balloon = QZ_MIN(target, g->balloon + 200 * MIB);
    else
        g->balloon = target;
    if (g->balloon + g->needs > memory) /* deflate-on-oom */
        g->balloon = memory - g->needs;
    room = memory - g->needs - g->balloon;
    g->cache = QZ_MIN(room, g->cache + 20 * MIB);
    if (g->tells)
        g->claim = (struct balloon_claim){
            .at_ns = now, .actual = g->balloon, .available = room, .swap_out = ~0ull};
}

static uint64_t host_used(const struct host *h)
{
    uint64_t used = 0;

    for (unsigned i = 0; i < GUESTS; i++)
        used += h->guest[i].needs + h->guest[i].cache;
    return used;
}

/* Tasks stand in proportion to what is missing. */
static uint32_t host_pressure(const struct host *h)
{
    const uint64_t used = host_used(h), over = used > h->capacity ? used - h->capacity : 0;

    return (uint32_t)QZ_MIN(over * h->steepness / h->capacity, (uint64_t)10000);
}

static void host_second(struct host *h)
{
    h->now += SECOND;
    for (unsigned i = 0; i < GUESTS; i++)
        guest_live(&h->guest[i], h->now);
    for (unsigned i = 0; i < GUESTS; i++) {
        struct guest *g = &h->guest[i];
        const uint64_t before = g->policy.target;
        const struct balloon_look look = {.now_ns = h->now,
                                          .pressure = host_pressure(h),
                                          .actual = g->balloon,
                                          .guest = g->claim};
        const uint64_t next = balloon_policy_next(&g->policy, &look);
        const int direction = next > before ? 1 : next < before ? -1 : h->direction[i];

        assert_true(next <= g->policy.memory - g->policy.min);
        h->turns += h->direction[i] && direction != h->direction[i];
        h->direction[i] = direction;
    }
}

static void run_seconds(struct host *h, unsigned seconds)
{
    while (seconds--)
        host_second(h);
}

static void a_host_with_enough_is_left_alone(void **state)
{
    struct host h;

    host_begin(&h, 5000, 300);
    run_seconds(&h, 600);
    for (unsigned i = 0; i < GUESTS; i++) {
        assert_int_equal(h.guest[i].policy.target, 0);
        assert_int_equal(h.guest[i].policy.mood, BALLOON_RESTS);
        assert_int_equal(balloon_policy_period(&h.guest[i].policy), 0);
    }
}

static void pressure_ends_within_a_minute(void **state)
{
    struct host h;

    host_begin(&h, 2500, 300);
    while (host_pressure(&h) < THRESHOLD) /* caches grow until it is too much */
        host_second(&h);
    run_seconds(&h, 60);
    assert_true(host_pressure(&h) < THRESHOLD);
    for (unsigned i = 0; i < GUESTS; i++)
        assert_true(h.guest[i].claim.available >= balloon_policy_reserve(&h.guest[i].policy) - MIB);
}

/* Memory that is always short: what is given back is used and comes to be missing again. Either it
 * stays where there is a little pressure, or it feels its way less and less often. */
static void settles(uint64_t steepness)
{
    struct host h;
    unsigned before, pressed = 0;

    host_begin(&h, 2500, 300);
    h.steepness = steepness;
    run_seconds(&h, 1800);
    before = h.turns;
    for (unsigned i = 0; i < 3600; i++) {
        host_second(&h);
        pressed += host_pressure(&h) >= THRESHOLD;
    }
    /* In an hour each guest's balloon turns a few times, and the host is seldom short. */
    assert_in_range(h.turns - before, 0, GUESTS * 16);
    assert_in_range(pressed, 0, 3600 / 20);
}

static void it_settles(void **state)
{
    settles(40000);
    settles(200000);
    settles(2000000);
}

static void memory_comes_back_slowly_at_first(void **state)
{
    struct host h;
    uint64_t peak, early;
    unsigned seconds = 0;

    host_begin(&h, 2500, 300);
    run_seconds(&h, 300);
    peak = h.guest[0].policy.target;
    assert_true(peak > 256 * MIB);
    h.capacity = 8000 * MIB;
    run_seconds(&h, 12);
    early = peak - h.guest[0].policy.target;
    assert_true(early > 0 || h.guest[0].policy.calm_wait > 10 * SECOND);
    assert_true(early <= MEMORY_MIB / 32 * MIB);
    while (h.guest[0].policy.target && seconds < 900) {
        host_second(&h);
        seconds++;
    }
    assert_int_equal(h.guest[0].policy.target, 0);
}

/* A guest that begins to need what the balloon has. */
static void a_short_guest_is_served_at_once(void **state)
{
    struct host h;
    struct guest *g = &h.guest[0];
    uint64_t before;

    host_begin(&h, 2000, 200);
    run_seconds(&h, 120);
    before = g->policy.target;
    assert_true(before > 400 * MIB);
    g->needs = MEMORY_MIB * MIB - before - 8 * MIB; /* almost all that was left */
    g->cache = 0;
    host_second(&h);
    assert_int_equal(g->policy.mood, BALLOON_RESCUES);
    host_second(&h);
    assert_true(g->claim.available >= balloon_policy_reserve(&g->policy));
    before = g->policy.target;
    run_seconds(&h, 20); /* and is not robbed again */
    assert_true(g->policy.target <= before);
}

/* It names no figures, but takes pages back by itself. */
static void deflate_on_oom_is_respected(void **state)
{
    struct balloon_policy p;
    struct balloon_look look = {.now_ns = SECOND, .pressure = 2000, .actual = 512 * MIB};

    balloon_policy_init(&p, 1024 * MIB, 0, THRESHOLD, 512 * MIB);
    assert_int_equal(balloon_policy_next(&p, &look), 512 * MIB);
    look.now_ns += SECOND;
    look.actual = 300 * MIB;
    assert_int_equal(balloon_policy_next(&p, &look), 300 * MIB);
    assert_int_equal(p.mood, BALLOON_RESCUES);
}

static void major_faults_count_only_with_little_left(void **state)
{
    struct balloon_policy p;
    struct balloon_look look = {
        .now_ns = SECOND,
        .actual = 512 * MIB,
        .guest = {SECOND, 512 * MIB, .available = 400 * MIB, .major_faults = 0, .swap_out = 0}};

    balloon_policy_init(&p, 1024 * MIB, 0, THRESHOLD, 512 * MIB);
    balloon_policy_next(&p, &look);
    look.now_ns = look.guest.at_ns = 2 * SECOND;
    look.guest.major_faults = 100000;
    assert_int_equal(balloon_policy_next(&p, &look), 512 * MIB); /* a large program began */
    look.now_ns = look.guest.at_ns = 3 * SECOND;
    look.guest.major_faults = 200000;
    look.guest.available = 100 * MIB;
    assert_true(balloon_policy_next(&p, &look) < 512 * MIB);
    assert_int_equal(p.mood, BALLOON_RESCUES);
}

static void nothing_is_taken_from_a_guest_that_tells_nothing(void **state)
{
    struct host h;

    host_begin(&h, 1000, 200);
    for (unsigned i = 0; i < GUESTS; i++)
        h.guest[i].tells = false;
    run_seconds(&h, 60);
    assert_int_equal(h.guest[0].policy.target, 0);
    assert_int_equal(h.guest[0].policy.mood, BALLOON_UNTOLD);

    h.guest[0].claim = (struct balloon_claim){.at_ns = h.now, .available = 900 * MIB};
    run_seconds(&h, 5);
    assert_true(h.guest[0].policy.target > 0);
    run_seconds(&h, 20); /* the report is old now */
    assert_int_equal(h.guest[0].policy.mood, BALLOON_UNTOLD);
}

static void min_is_left(void **state)
{
    struct host h;

    host_begin(&h, 100, 20);
    for (unsigned i = 0; i < GUESTS; i++)
        h.guest[i].policy.min = 600 * MIB;
    run_seconds(&h, 300);
    assert_int_equal(h.guest[0].policy.target, 424 * MIB);
}

/* Any figures at any time: within bounds, and no number wraps. */
static void claims_of_any_kind_stay_within_bounds(void **state)
{
    static const uint64_t odd[] = {0, 1, MIB, 100 * MIB, 1024 * MIB, 1ull << 40, ~0ull - 1, ~0ull};
    uint64_t seed = 1;

    for (unsigned machine = 0; machine < 200; machine++) {
        const uint64_t memory = (2 + qz_random64(&seed) % 2048) * MIB;
        const uint64_t min = qz_random64(&seed) % (memory + 1);
        struct balloon_policy p;
        int64_t now = SECOND;

        balloon_policy_init(&p, memory, min, (uint32_t)(1 + qz_random64(&seed) % 10000), 0);
        for (unsigned i = 0; i < 2000; i++) {
            struct balloon_look look = {.now_ns = now};

            look.pressure = (uint32_t)(qz_random64(&seed) % 10001);
            look.actual = odd[qz_random64(&seed) % 8];
            look.guest.at_ns = now - (int64_t)(qz_random64(&seed) % (15 * SECOND));
            look.guest.actual = odd[qz_random64(&seed) % 8];
            look.guest.available = odd[qz_random64(&seed) % 8];
            look.guest.major_faults = odd[qz_random64(&seed) % 8];
            look.guest.swap_out = odd[qz_random64(&seed) % 8];
            assert_true(balloon_policy_next(&p, &look) <= memory - min);
            assert_non_null(balloon_mood_name(p.mood));
            assert_in_range(balloon_policy_period(&p), 0, 2 * SECOND);
            now += (int64_t)(qz_random64(&seed) % (4 * SECOND));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_host_with_enough_is_left_alone),
        cmocka_unit_test(pressure_ends_within_a_minute),
        cmocka_unit_test(it_settles),
        cmocka_unit_test(memory_comes_back_slowly_at_first),
        cmocka_unit_test(a_short_guest_is_served_at_once),
        cmocka_unit_test(deflate_on_oom_is_respected),
        cmocka_unit_test(major_faults_count_only_with_little_left),
        cmocka_unit_test(nothing_is_taken_from_a_guest_that_tells_nothing),
        cmocka_unit_test(min_is_left),
        cmocka_unit_test(claims_of_any_kind_stay_within_bounds),
    };

    return cmocka_run_group_tests_name("balloon-policy", tests, NULL, NULL);
}

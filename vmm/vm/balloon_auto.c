/* balloon_auto.c - the balloon follows the host's memory pressure (balloon_auto.h). */
#include "vm/balloon_auto.h"

#include "vm/balloon_policy.h"
#include "vm/host_pressure.h"

#define LOOK_NS 2000000000ll /* at a host that does not tell by itself */
#define ASK_NS  1000000000ll /* the guest, while something goes on */

struct balloon_auto {
    struct qz_loop *loop;
    struct virtio_device *balloon;
    struct balloon_auto_options options;
    struct balloon_policy policy;
    struct host_pressure *pressure;
    struct qz_timer timer;
    uint32_t share; /* pressure at the last look */
    bool running;   /* the machine did, once */
    bool changed;   /* it went on; its balloon may be that of another moment */
};

static void set_target(struct balloon_auto *a, uint64_t target)
{
    char text[16];

    qz_info("balloon: %s at a pressure of %u.%02u %%: the guest shall give %s",
            balloon_mood_name(a->policy.mood), a->share / 100, a->share % 100,
            qz_format_size(target, text, sizeof(text)));
    virtio_balloon_set_target(a->balloon, target);
}

static struct balloon_look look_at(struct balloon_auto *a, uint64_t *target)
{
    struct balloon_look look = {.now_ns = qz_now_ns(), .pressure = a->share};
    struct balloon_stats s;
    uint64_t reported;

    virtio_balloon_info(a->balloon, target, &look.actual, &reported, &s);
    look.guest = (struct balloon_claim){.at_ns = s.at_ns,
                                        .actual = s.actual,
                                        .available = s.available_memory,
                                        .major_faults = s.major_faults,
                                        .swap_out = s.swap_out};
    return look;
}

static bool rests(const struct balloon_auto *a)
{
    return a->policy.mood == BALLOON_RESTS && a->share < a->policy.threshold && !a->changed;
}

static void on_time(struct qz_timer *t);

/* period 0: when there is pressure. */
static void look_later(struct balloon_auto *a, int64_t period)
{
    if (!period && !host_pressure_tells(a->pressure))
        period = LOOK_NS;
    if (period)
        qz_timer_arm(a->loop, &a->timer, qz_now_ns() + period, on_time);
}

static void on_time(struct qz_timer *t)
{
    struct balloon_auto *a = QZ_CONTAINER_OF(t, struct balloon_auto, timer);
    struct balloon_look look;
    uint64_t target, next;
    int64_t period;

    a->share = host_pressure_read(a->pressure);
    if (rests(a)) /* the guest is not disturbed for this */
        return look_later(a, 0);
    a->changed = false;
    look = look_at(a, &target);
    if (target != a->policy.target) {
        a->policy.target = target;
        a->policy.reached = false;
    }
    next = balloon_policy_next(&a->policy, &look);
    if (next != target)
        set_target(a, next);
    period = balloon_policy_period(&a->policy);
    virtio_balloon_ask_every(a->balloon, period ? ASK_NS : 0);
    look_later(a, period);
}

static void look_now(struct balloon_auto *a)
{
    if (a->running && !a->timer.loop)
        qz_timer_arm(a->loop, &a->timer, qz_now_ns(), on_time);
}

static void on_pressure(void *context)
{
    look_now(context);
}

int balloon_auto_new(struct balloon_auto **out, struct qz_loop *loop, struct virtio_device *balloon,
                     const struct balloon_auto_options *options, struct qz_error *err)
{
    struct balloon_auto *a = calloc(1, sizeof(*a));
    const uint32_t threshold = options->pressure * 100;
    int r;

    if (!a)
        return qz_fail(err, -ENOMEM, "balloon: no memory");
    *a = (struct balloon_auto){.loop = loop, .balloon = balloon, .options = *options};
    balloon_policy_init(&a->policy, options->memory, options->min, threshold, 0);
    r = host_pressure_new(&a->pressure, loop, threshold, on_pressure, a, err);
    if (r < 0) {
        free(a);
        return r;
    }
    *out = a;
    return 0;
}

void balloon_auto_free(struct balloon_auto *a)
{
    if (!a)
        return;
    qz_timer_cancel(&a->timer);
    host_pressure_free(a->pressure);
    free(a);
}

void balloon_auto_resumed(struct balloon_auto *a)
{
    if (!a)
        return;
    a->running = a->changed = true;
    look_now(a);
}

void balloon_auto_reset(struct balloon_auto *a)
{
    if (!a)
        return;
    balloon_policy_init(&a->policy, a->policy.memory, a->policy.min, a->policy.threshold, 0);
    virtio_balloon_set_target(a->balloon, 0);
}

void balloon_auto_report(const struct balloon_auto *a, json_t *figures)
{
    json_object_set_new(figures, "policy", json_string(a ? "auto" : "manual"));
    if (!a)
        return;
    json_object_set_new(figures, "doing", json_string(balloon_mood_name(a->policy.mood)));
    json_object_set_new(figures, "pressure_ppm", json_integer(a->share * 100));
    json_object_set_new(figures, "pressure_threshold_ppm",
                        json_integer(a->options.pressure * 10000));
    json_object_set_new(figures, "min_bytes", json_integer((json_int_t)a->policy.min));
    json_object_set_new(figures, "guest_reserve_bytes",
                        json_integer((json_int_t)balloon_policy_reserve(&a->policy)));
}

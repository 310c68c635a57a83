/* balloon_policy.c - what `--balloon auto` decides (balloon_policy.h). */
#include "vm/balloon_policy.h"

#define SECOND      1000000000ll
#define MIB         (1ull << 20)
#define FRESH       (10 * SECOND)  /* a report older than this says nothing */
#define RESCUE_HOLD (30 * SECOND)  /* a guest that was short is left alone */
#define CALM_WAIT   (10 * SECOND)  /* at first */
#define CALM_MAX    (600 * SECOND) /* after pressure that came back again and again */
#define GIVE_EVERY  (5 * SECOND)

enum {
    RESERVE_SHARE = 16,   /* of memory; at least RESERVE_MIN_MIB */
    RESERVE_MIN_MIB = 16, /* what a kernel alone wants to have */
    TAKE_SHARE = 8,       /* of what is to spare, at the threshold; at most so many times that: */
    TAKE_HARDEST = 4,
    TAKE_LEAST_MIB = 8,
    GIVE_FIRST = 128, /* shares of memory */
    GIVE_MOST = 8,
    SOON = 4,        /* pressure within so many waits after giving: it was too early */
    FAULTS_MANY = 64 /* major faults in a second */
};

/* What the balloon may have by the guest's last report; beside it, whether the guest is short. */
struct room {
    bool known, is_short;
    uint64_t needs, most;
};

const char *balloon_mood_name(enum balloon_mood mood)
{
    static const char *const names[] = {
        [BALLOON_RESTS] = "rests",        [BALLOON_TAKES] = "takes",
        [BALLOON_EMPTY] = "guest_full",   [BALLOON_UNTOLD] = "guest_tells_nothing",
        [BALLOON_WAITS] = "waits",        [BALLOON_GIVES] = "gives",
        [BALLOON_RESCUES] = "guest_short"};

    return names[mood];
}

uint64_t balloon_policy_reserve(const struct balloon_policy *p)
{
    return QZ_MAX(p->memory / RESERVE_SHARE, RESERVE_MIN_MIB * MIB);
}

void balloon_policy_init(struct balloon_policy *p, uint64_t memory, uint64_t min,
                         uint32_t threshold, uint64_t target)
{
    *p = (struct balloon_policy){.memory = memory,
                                 .min = QZ_MIN(min, memory),
                                 .threshold = QZ_MAX(threshold, 1u),
                                 .target = QZ_MIN(target, memory),
                                 .calm_wait = CALM_WAIT};
}

/* a - b, or nothing. */
static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* How often since the report before; a count that is not told, or goes back, is none. */
static uint64_t count_since(uint64_t before, uint64_t now)
{
    return before == ~0ull || now == ~0ull ? 0 : less(now, before);
}

/* Two reports make a rate. */
static void compare_reports(struct balloon_policy *p, const struct balloon_claim *g)
{
    if (!g->at_ns || g->at_ns <= p->before.at_ns)
        return;
    p->thrashes = false;
    if (p->before.at_ns) {
        const uint64_t seconds = (uint64_t)(g->at_ns - p->before.at_ns) / SECOND + 1;

        p->thrashes =
            count_since(p->before.major_faults, g->major_faults) / seconds >= FAULTS_MANY ||
            count_since(p->before.swap_out, g->swap_out) > 0;
    }
    p->before = *g;
}

/* Page faults alone are no want of memory (a program that begins has many): only with little left.
 */
static struct room find_room(const struct balloon_policy *p, const struct balloon_look *look)
{
    const struct balloon_claim *g = &look->guest;
    const uint64_t reserve = balloon_policy_reserve(p);
    const uint64_t has = less(p->memory, g->actual);
    const uint64_t available = QZ_MIN(g->available, has);
    struct room r = {.known =
                         g->at_ns && g->available != ~0ull && look->now_ns - g->at_ns <= FRESH};

    if (!r.known)
        return r;
    r.needs = has - available;
    r.most = less(p->memory, QZ_MAX(p->min, r.needs + reserve));
    r.is_short = available < reserve / 2 || (p->thrashes && available < 2 * reserve);
    return r;
}

static void note_pressure(struct balloon_policy *p, int64_t now)
{
    p->calm_since = 0;
    p->give = p->memory / GIVE_FIRST;
    if (!p->gave_at)
        return;
    p->calm_wait = now - p->gave_at < SOON * p->calm_wait
                       ? QZ_MIN(2 * p->calm_wait, (int64_t)CALM_MAX)
                       : CALM_WAIT;
    p->gave_at = 0;
}

static void take(struct balloon_policy *p, const struct balloon_look *look, const struct room *room)
{
    const uint64_t spare = less(room->most, look->actual);
    const uint64_t times = QZ_MIN(look->pressure / p->threshold, (uint32_t)TAKE_HARDEST);
    const uint64_t step = QZ_MAX(spare / TAKE_SHARE * times, QZ_MIN(spare, TAKE_LEAST_MIB * MIB));
    const uint64_t want = look->actual + step;

    note_pressure(p, look->now_ns);
    p->mood = BALLOON_WAITS;
    if (look->now_ns < p->hold_until)
        return;
    p->mood = !room->known ? BALLOON_UNTOLD : spare < MIB ? BALLOON_EMPTY : BALLOON_TAKES;
    if (room->known)
        p->target = QZ_MIN(QZ_MAX(room->most, look->actual), QZ_MAX(p->target, want));
}

static void give(struct balloon_policy *p, int64_t now)
{
    if (!p->calm_since)
        p->calm_since = now;
    p->mood = p->target ? BALLOON_WAITS : BALLOON_RESTS;
    if (!p->target || now - p->calm_since < p->calm_wait)
        return;
    p->mood = BALLOON_GIVES;
    if (p->gave_at && now - p->gave_at < GIVE_EVERY)
        return;
    p->give = QZ_MAX(p->give, QZ_MAX(p->memory / GIVE_FIRST, (uint64_t)MIB));
    p->target = less(p->target, p->give);
    p->give = QZ_MIN(2 * p->give, p->memory / GIVE_MOST);
    p->gave_at = now;
}

/* It took pages out of the balloon by itself (VIRTIO_BALLOON_F_DEFLATE_ON_OOM), or began anew. */
static bool took_back(struct balloon_policy *p, uint64_t actual)
{
    if (actual + MIB > p->target)
        p->reached = true;
    return p->reached && actual + QZ_MAX(p->memory / 256, (uint64_t)MIB) < p->target;
}

static void rescue(struct balloon_policy *p, int64_t now, uint64_t target)
{
    p->target = QZ_MIN(p->target, target);
    p->hold_until = now + RESCUE_HOLD;
    p->mood = BALLOON_RESCUES;
}

uint64_t balloon_policy_next(struct balloon_policy *p, const struct balloon_look *look)
{
    struct balloon_look l = *look;
    const uint64_t before = p->target;
    struct room room;

    l.actual = QZ_MIN(l.actual, p->memory);
    l.guest.actual = QZ_MIN(l.guest.actual, p->memory);
    compare_reports(p, &l.guest);
    room = find_room(p, &l);
    if (took_back(p, l.actual))
        rescue(p, l.now_ns, l.actual);
    else if (room.is_short && p->target)
        rescue(p, l.now_ns, less(p->memory, room.needs + 2 * balloon_policy_reserve(p)));
    else if (l.pressure >= p->threshold)
        take(p, &l, &room);
    else if (l.pressure <= p->threshold / 2)
        give(p, l.now_ns);
    else {
        p->calm_since = 0;
        p->mood = p->target ? BALLOON_WAITS : BALLOON_RESTS;
    }
    p->target = QZ_ALIGN_DOWN(QZ_MIN(p->target, p->memory - p->min), MIB);
    if (p->target != before)
        p->reached = false;
    return p->target;
}

int64_t balloon_policy_period(const struct balloon_policy *p)
{
    switch (p->mood) {
    case BALLOON_RESTS:
        return 0;
    case BALLOON_WAITS:
    case BALLOON_GIVES:
        return 2 * SECOND;
    default:
        return SECOND;
    }
}

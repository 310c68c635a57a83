/*
 * balloon_policy.h - how much memory `--balloon auto` takes from a guest: a decision without a
 * clock, a machine or a host of its own (balloon_auto.c has those).
 *
 * Theory of operation. While the host's tasks stand still for memory, the balloon takes a share of
 * what the guest says it has available, the more the harder the pressure, and leaves it what it
 * needs, a reserve and the least that its owner named. When pressure has been away for a while, it
 * gives back: little at first, then more. Pressure that returns soon after that makes the next wait
 * twice as long, so that a host with too little memory settles instead of swinging. A guest that
 * becomes short has memory back at once, whatever the host says.
 *
 * The guest's figures are its own claims. What a lie can do to it: it keeps memory that it could
 * have given, or is left with the least that its owner named.
 */
#ifndef VMM_BALLOON_POLICY_H
#define VMM_BALLOON_POLICY_H

#include <queztl/base.h>

enum balloon_mood {
    BALLOON_RESTS,   /* nothing is in it, and nothing is to be taken */
    BALLOON_TAKES,   /* the host is under pressure */
    BALLOON_EMPTY,   /* so it is, but the guest has nothing to spare */
    BALLOON_UNTOLD,  /* so it is, but the guest does not say what it has available */
    BALLOON_WAITS,   /* keeps what it has, until pressure has been away for long enough */
    BALLOON_GIVES,   /* pressure is gone */
    BALLOON_RESCUES, /* the guest is short */
};
const char *balloon_mood_name(enum balloon_mood mood);

/* What the guest said last; untrusted. ~0: it does not tell. */
struct balloon_claim {
    int64_t at_ns;   /* when; 0: never */
    uint64_t actual; /* bytes that the balloon had then */
    uint64_t available, major_faults, swap_out;
};

struct balloon_look {
    int64_t now_ns;
    uint32_t pressure; /* share of time that tasks of the host stood for memory, in 1/10000 */
    uint64_t actual;   /* bytes that the balloon has, by the guest's word */
    struct balloon_claim guest;
};

struct balloon_policy {
    uint64_t memory, min; /* the machine's; the least that is left to it */
    uint32_t threshold;   /* pressure from here on; 1/10000 */

    uint64_t target; /* bytes that the balloon shall have */
    enum balloon_mood mood;
    bool reached;       /* it had all of its target */
    int64_t hold_until; /* nothing more is taken before */
    int64_t calm_since; /* 0: it is not calm */
    int64_t calm_wait;  /* calm for so long before anything is given back */
    int64_t gave_at;    /* 0: not since the last pressure */
    uint64_t give;      /* next time */
    struct balloon_claim before;
    bool thrashes; /* by its two last reports */
};

/* min <= memory; target: what the balloon shall have at present. */
void balloon_policy_init(struct balloon_policy *p, uint64_t memory, uint64_t min,
                         uint32_t threshold, uint64_t target);
/* What it shall have from now on: whole MiB, at most memory - min. */
uint64_t balloon_policy_next(struct balloon_policy *p, const struct balloon_look *look);
/* How long until the next look; 0: none is needed until there is pressure. */
int64_t balloon_policy_period(const struct balloon_policy *p);
/* What the guest shall always have available. */
uint64_t balloon_policy_reserve(const struct balloon_policy *p);

#endif

/* chain_filters.c - the filters that options ask for (chain.h). */
#include "chain.h"

/* What a block cache can grow to later. */
#define CACHE_ROOM (1ull << 30)

static int throttle_keys(struct throttle_limits *t, struct options *o, struct qz_error *err)
{
    static const char *const names[THROTTLE_KINDS] = {"iops", "iops-read", "iops-write",
                                                      "bps",  "bps-read",  "bps-write"};

    for (unsigned k = 0; k < THROTTLE_KINDS; k++) {
        char burst[32];
        const char *dash = strchr(names[k], '-');
        int r;

        /* iops-burst, iops-burst-read */
        snprintf(burst, sizeof(burst), "%.*s-burst%s", dash ? (int)(dash - names[k]) : 4, names[k],
                 dash ? dash : "");
        if (k < THROTTLE_BYTES)
            r = options_number(o, names[k], 1, 1000000000, &t->rate[k], err) < 0
                    ? -EINVAL
                    : options_number(o, burst, 1, 1000000000, &t->burst[k], err);
        else
            r = options_size(o, names[k], &t->rate[k], err) < 0
                    ? -EINVAL
                    : options_size(o, burst, &t->burst[k], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_throttle(struct chain *c, struct options *o, struct qz_error *err)
{
    struct throttle_limits limits = {0};
    const char *group = options_text(o, "throttle-group");
    bool any = group;
    int r = throttle_keys(&limits, o, err);

    for (unsigned k = 0; k < THROTTLE_KINDS; k++)
        any |= limits.rate[k] != 0;
    if (r < 0 || !any)
        return r;
    r = throttle_open(&c->throttle, c->top, &limits, group, err);
    if (r == 0)
        c->top = c->throttle;
    return r;
}

int chain_add_inject(struct chain *c, struct options *o, const char *key, struct qz_error *err)
{
    const char *rules = options_text(o, key);
    struct layer *l;
    int r;

    if (!rules)
        return 0;
    r = inject_open(&l, c->top, rules, err);
    if (r == 0)
        c->top = l;
    return r;
}

static int add_cache(struct chain *c, struct options *o, struct qz_error *err)
{
    uint64_t bytes = 0;
    struct layer *l;
    int r = options_size(o, "block-cache", &bytes, err);

    if (r < 0 || !bytes)
        return r;
    r = cache_open(&l, c->top, bytes, QZ_MAX(bytes, CACHE_ROOM), err);
    if (r == 0)
        c->top = c->cache = l;
    return r;
}

static int add_erase(struct chain *c, struct options *o, struct qz_error *err)
{
    static const char *const ways[] = {"off", "overwrite", NULL};
    unsigned way = 0;
    struct layer *l;
    int r = options_word(o, "secure-erase", ways, &way, err);

    if (r < 0 || !way)
        return r;
    r = erase_open(&l, c->top, err);
    if (r == 0)
        c->top = l;
    return r;
}

int chain_add_filters(struct chain *c, struct options *o, struct qz_error *err)
{
    bool stats = false;
    int r;

    if ((r = add_cache(c, o, err)) < 0 || (r = add_erase(c, o, err)) < 0 ||
        (r = add_throttle(c, o, err)) < 0 || (r = chain_add_inject(c, o, "inject", err)) < 0 ||
        (r = options_switch(o, "stats", &stats, err)) < 0)
        return r;
    if (!stats)
        return 0;
    r = stats_open(&c->stats, c->top, err);
    if (r == 0)
        c->top = c->stats;
    return r;
}

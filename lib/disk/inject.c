/*
 * inject.c - errors and latency by rules, for tests (filter.h).
 *
 *     rule;rule...      rule: OP[:KEY=VALUE]...
 *     OP: read write flush discard zeroes any
 *     error=EIO ENOSPC EAGAIN ETIMEDOUT ...   how the request fails, without reaching the layer
 * below delay=5ms (ns us ms s)         how long it waits first after=N     the first N that match
 * are left alone every=N     of the others, only each Nth count=N     at most this often from=BYTES
 * to=BYTES   only requests that touch this range
 *
 * The first rule that fits a request decides.
 */
#include "filter.h"

enum { RULES_MAX = 16, ANY = DISK_OPS };

struct rule {
    unsigned op;
    int error;
    int64_t delay_ns;
    uint64_t after, every, count, from, to;
    uint64_t seen, used; /* atomic */
};

struct inject {
    struct layer l;
    struct rule rule[RULES_MAX];
    unsigned rules;
};

/* ---- reading rules */

static int parse_error(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } errors[] = {{"EIO", EIO},
                  {"ENOSPC", ENOSPC},
                  {"EAGAIN", EAGAIN},
                  {"ETIMEDOUT", ETIMEDOUT},
                  {"ENOMEM", ENOMEM},
                  {"EPERM", EPERM},
                  {"ENOTSUP", ENOTSUP},
                  {"EINVAL", EINVAL},
                  {"ECONNRESET", ECONNRESET}};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(errors); i++)
        if (!strcmp(errors[i].name, name))
            return -errors[i].code;
    return 0;
}

static int parse_delay(const char *text, int64_t *ns)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(units); i++) {
        if (end != text && !strcmp(end, units[i].name) && n <= 3600000000ul) {
            *ns = (int64_t)n * units[i].ns;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_key(struct rule *r, const char *key, const char *value, struct qz_error *err)
{
    const struct {
        const char *name;
        uint64_t *target;
        uint64_t min;
    } numbers[] = {{"after", &r->after, 0},
                   {"every", &r->every, 1},
                   {"count", &r->count, 1},
                   {"from", &r->from, 0},
                   {"to", &r->to, 1}};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(numbers); i++)
        if (!strcmp(key, numbers[i].name))
            return qz_parse_u64(value, key, numbers[i].min, UINT64_MAX, numbers[i].target, err);
    if (!strcmp(key, "error")) {
        r->error = parse_error(value);
        return r->error ? 0 : qz_fail(err, -EINVAL, "inject: no error has the name %s", value);
    }
    if (!strcmp(key, "delay"))
        return parse_delay(value, &r->delay_ns) < 0
                   ? qz_fail(err, -EINVAL, "inject: a delay is written 5ms or 100us, not %s", value)
                   : 0;
    return qz_fail(err, -EINVAL,
                   "inject: %s is none of error, delay, after, every, count, from, to", key);
}

static int parse_rule(struct rule *r, char *text, struct qz_error *err)
{
    static const char *const ops[] = {"read", "write", "flush", "discard", "zeroes", "any"};
    char *rest = NULL, *word = strtok_r(text, ":", &rest);

    *r = (struct rule){.every = 1, .count = UINT64_MAX, .to = UINT64_MAX};
    while (r->op < QZ_ARRAY_LEN(ops) && (!word || strcmp(ops[r->op], word)))
        r->op++;
    if (r->op == QZ_ARRAY_LEN(ops))
        return qz_fail(err, -EINVAL,
                       "inject: a rule begins with read, write, flush, discard, zeroes or any, not "
                       "\"%s\"",
                       word ? word : "");
    while ((word = strtok_r(NULL, ":", &rest))) {
        char *equals = strchr(word, '=');
        int e;

        if (!equals)
            return qz_fail(err, -EINVAL, "inject: %s needs a value", word);
        *equals = 0;
        if ((e = parse_key(r, word, equals + 1, err)) < 0)
            return e;
    }
    if (!r->error && !r->delay_ns)
        return qz_fail(err, -EINVAL, "inject: a rule needs error= or delay=");
    return 0;
}

static int parse_rules(struct inject *in, const char *text, struct qz_error *err)
{
    QZ_AUTO_FREE char *copy = strdup(text);
    char *rest = NULL;

    if (!copy)
        return qz_fail(err, -ENOMEM, "inject: no memory");
    for (char *word = strtok_r(copy, ";", &rest); word; word = strtok_r(NULL, ";", &rest)) {
        int r;

        if (in->rules == RULES_MAX)
            return qz_fail(err, -E2BIG, "inject: more than %d rules", RULES_MAX);
        if ((r = parse_rule(&in->rule[in->rules++], word, err)) < 0)
            return r;
    }
    return 0;
}

/* ---- requests */

static bool fits(struct rule *rule, const struct request *r)
{
    uint64_t n;

    if (rule->op != ANY && rule->op != r->op)
        return false;
    if (r->op != DISK_FLUSH && (r->offset >= rule->to || r->offset + r->length <= rule->from))
        return false;
    n = __atomic_fetch_add(&rule->seen, 1, __ATOMIC_RELAXED);
    if (n < rule->after || (n - rule->after) % rule->every)
        return false;
    return __atomic_fetch_add(&rule->used, 1, __ATOMIC_RELAXED) < rule->count;
}

static void on_done(struct request *r, int result)
{
    child_end(QZ_CONTAINER_OF(r, struct child, r), result);
}

static void on_delayed(struct queue_io *io, int result)
{
    struct child *c = QZ_CONTAINER_OF(io, struct child, timer.io);

    if (c->note)
        child_end(c, (int)c->note);
    else
        layer_submit(c->l->below, c->q, &c->r);
}

static void inject_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct inject *in = QZ_CONTAINER_OF(l, struct inject, l);
    struct rule *rule = NULL;
    struct child *c;

    for (unsigned i = 0; i < in->rules && !rule; i++)
        if (fits(&in->rule[i], r))
            rule = &in->rule[i];
    if (!rule) {
        layer_submit(l->below, q, r);
    } else if (!rule->delay_ns) {
        r->done(r, rule->error);
    } else if ((c = child_new(l, q, r, on_done))) {
        c->note = rule->error;
        queue_timer(q, &c->timer, qz_now_ns() + rule->delay_ns, on_delayed);
    }
}

static void inject_free(struct layer *l)
{
    free(QZ_CONTAINER_OF(l, struct inject, l));
}

static const struct layer_ops inject_ops = {
    .name = "inject",
    .submit = inject_submit,
    .map = filter_map,
    .resize = filter_resize,
    .free = inject_free,
};

int inject_check(const char *rules, struct qz_error *err)
{
    struct inject in = {.rules = 0};

    return parse_rules(&in, rules, err);
}

int inject_open(struct layer **l, struct layer *below, const char *rules, struct qz_error *err)
{
    struct inject *in = calloc(1, sizeof(*in));
    int r;

    if (!in)
        return qz_fail(err, -ENOMEM, "%s: no memory", below->label);
    r = parse_rules(in, rules, err);
    if (r < 0) {
        free(in);
        return r;
    }
    filter_init(&in->l, &inject_ops, below);
    *l = &in->l;
    return 0;
}

/* options.c - reading "key=value,..." (options.h). */
#include "options.h"

enum { OPTIONS_MAX = 128 };

int options_add(struct options *o, const char *key, const char *value)
{
    struct option *list = realloc(o->list, (o->count + 1) * sizeof(*list)), *n;

    if (!list)
        return -ENOMEM;
    o->list = list;
    n = &list[o->count];
    *n = (struct option){.key = strdup(key), .value = value ? strdup(value) : NULL};
    if (!n->key || (value && !n->value)) {
        free(n->key);
        free(n->value);
        return -ENOMEM;
    }
    o->count++;
    return 0;
}

void options_clear(struct options *o)
{
    for (unsigned i = 0; i < o->count; i++) {
        free(o->list[i].key);
        free(o->list[i].value);
    }
    free(o->list);
    *o = (struct options){0};
}

struct option *options_find(const struct options *o, const char *key)
{
    for (unsigned i = 0; i < o->count; i++)
        if (!strcmp(o->list[i].key, key))
            return &o->list[i];
    return NULL;
}

/* The next part of text into part, with ",," made one comma; where the text goes on. */
static const char *next_part(const char *text, char *part)
{
    while (*text) {
        if (text[0] == ',' && text[1] != ',')
            break;
        text += text[0] == ',';
        *part++ = *text++;
    }
    *part = 0;
    return *text ? text + 1 : NULL;
}

static int add_part(struct options *o, char *part, const char *first, struct qz_error *err)
{
    char *equals = strchr(part, '=');
    const char *key = part, *value = NULL;
    int r;

    /* No key has a slash or colon: a path or address with '=' in it stands alone. */
    if (first && equals && strcspn(part, "/:") < (size_t)(equals - part))
        equals = NULL;
    if (equals) {
        *equals = 0;
        value = equals + 1;
    } else if (first) {
        key = first;
        value = part;
    }
    if (!*key)
        return qz_fail(err, -EINVAL, "an option without a name (before \"=%s\")",
                       value ? value : "");
    if (options_find(o, key))
        return qz_fail(err, -EINVAL, "%s is given twice", key);
    if (o->count >= OPTIONS_MAX)
        return qz_fail(err, -E2BIG, "more than %d options", OPTIONS_MAX);
    r = options_add(o, key, value);
    return r < 0 ? qz_fail(err, r, "no memory") : 0;
}

int options_parse(struct options *o, const char *text, const char *first, struct qz_error *err)
{
    QZ_AUTO_FREE char *part = malloc(strlen(text) + 1);
    int r;

    *o = (struct options){0};
    if (!part)
        return qz_fail(err, -ENOMEM, "no memory");
    while (text && *text) {
        text = next_part(text, part);
        r = add_part(o, part, first, err);
        if (r < 0) {
            options_clear(o);
            return r;
        }
        first = NULL;
    }
    return 0;
}

int options_split(struct options *o, const char *prefix, struct options *out)
{
    size_t n = strlen(prefix);
    unsigned kept = 0;
    int r = 0;

    *out = (struct options){0};
    for (unsigned i = 0; i < o->count; i++) {
        struct option *p = &o->list[i];

        if (r == 0 && !strncmp(p->key, prefix, n) && p->key[n] == '.') {
            r = options_add(out, p->key + n + 1, p->value);
            free(p->key);
            free(p->value);
        } else {
            o->list[kept++] = *p;
        }
    }
    o->count = kept;
    if (r < 0)
        options_clear(out);
    return r;
}

bool options_has(const struct options *o, const char *key)
{
    const struct option *p = options_find(o, key);

    return p && (!p->value || (strcmp(p->value, "off") && strcmp(p->value, "no")));
}

/* ---- taking */

static struct option *take(struct options *o, const char *key)
{
    struct option *p = options_find(o, key);

    if (p)
        p->taken = true;
    return p;
}

const char *options_text(struct options *o, const char *key)
{
    const struct option *p = take(o, key);

    return !p ? NULL : p->value ? p->value : "";
}

int options_switch(struct options *o, const char *key, bool *value, struct qz_error *err)
{
    const struct option *p = take(o, key);

    if (!p)
        return 0;
    if (!p->value || !strcmp(p->value, "on") || !strcmp(p->value, "yes"))
        *value = true;
    else if (!strcmp(p->value, "off") || !strcmp(p->value, "no"))
        *value = false;
    else
        return qz_fail(err, -EINVAL, "%s is on or off, not %s", key, p->value);
    return 0;
}

static int need_value(const struct option *p, struct qz_error *err)
{
    return p->value && *p->value ? 0 : qz_fail(err, -EINVAL, "%s needs a value", p->key);
}

int options_size(struct options *o, const char *key, uint64_t *value, struct qz_error *err)
{
    const struct option *p = take(o, key);

    if (!p)
        return 0;
    if (need_value(p, err) < 0)
        return -EINVAL;
    return qz_parse_size(p->value, value, err) < 0 ? qz_error_prefix(err, "%s", key) : 0;
}

int options_number(struct options *o, const char *key, uint64_t min, uint64_t max, uint64_t *value,
                   struct qz_error *err)
{
    const struct option *p = take(o, key);

    if (!p)
        return 0;
    if (need_value(p, err) < 0)
        return -EINVAL;
    return qz_parse_u64(p->value, key, min, max, value, err);
}

int options_word(struct options *o, const char *key, const char *const *words, unsigned *value,
                 struct qz_error *err)
{
    const struct option *p = take(o, key);
    char list[200] = "";

    if (!p)
        return 0;
    for (unsigned i = 0; words[i]; i++) {
        size_t used = strlen(list);

        if (p->value && !strcmp(words[i], p->value)) {
            *value = i;
            return 0;
        }
        snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
    }
    return qz_fail(err, -EINVAL, "%s is one of %s, not %s", key, list, p->value ? p->value : "on");
}

int options_check(const struct options *o, const char *what, struct qz_error *err)
{
    for (unsigned i = 0; i < o->count; i++)
        if (!o->list[i].taken)
            return qz_fail(err, -EINVAL, "%s: no option has the name %s", what, o->list[i].key);
    return 0;
}

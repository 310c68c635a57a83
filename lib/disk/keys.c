/*
 * keys.c - the keys that a disk may be opened with (<queztl/disk.h>), and the check of them that
 * opens nothing.
 *
 * Every disk passes through here before anything is opened, so a key that is not in this table
 * cannot be used, and whoever reads options for later (a program's command line) finds the same
 * mistakes with the same words.
 */
#include <limits.h>

#include "disk_internal.h"
#include "filter.h"
#include "format.h"

enum kind { TEXT, NEEDED, SWITCH, SIZE, COUNT, NUMBER, WORD, FORMAT, RULES, SIZED_FILE };

struct key {
    const char *name;
    enum kind kind;
    const char *formats; /* NULL: whatever the format */
    const char *words[5];
};

static const struct key keys[] = {
    {"file", SIZED_FILE, NULL, {NULL}},
    {"fd", NUMBER, NULL, {NULL}},
    {"format", FORMAT, NULL, {NULL}},
    {"readonly", SWITCH, NULL, {NULL}},
    {"cache", WORD, NULL, {"writeback", "writethrough", "none", "unsafe"}},
    {"discard", WORD, NULL, {"unmap", "ignore"}},
    {"locking", SWITCH, NULL, {NULL}},
    {"secure-erase", WORD, "raw luks", {"off", "overwrite"}},
    {"reconnect", COUNT, NULL, {NULL}},
    {"connections", COUNT, NULL, {NULL}},
    {"backing", NEEDED, "qcow2 cow", {NULL}},
    {"data-file", NEEDED, "qcow2", {NULL}},
    {"block-cache", SIZE, NULL, {NULL}},
    {"memory", SIZE, NULL, {NULL}},
    {"key_secret", NEEDED, "qcow2 luks", {NULL}},
    {"key_file", NEEDED, "qcow2 luks", {NULL}},
    {"metadata_memory", SIZE, "qcow2", {NULL}},
    {"metadata_log", SWITCH, "qcow2", {NULL}},
    {"compression_level", COUNT, "qcow2", {NULL}},
    {"iops", COUNT, NULL, {NULL}},
    {"iops-read", COUNT, NULL, {NULL}},
    {"iops-write", COUNT, NULL, {NULL}},
    {"iops-burst", COUNT, NULL, {NULL}},
    {"iops-burst-read", COUNT, NULL, {NULL}},
    {"iops-burst-write", COUNT, NULL, {NULL}},
    {"bps", SIZE, NULL, {NULL}},
    {"bps-read", SIZE, NULL, {NULL}},
    {"bps-write", SIZE, NULL, {NULL}},
    {"bps-burst", SIZE, NULL, {NULL}},
    {"bps-burst-read", SIZE, NULL, {NULL}},
    {"bps-burst-write", SIZE, NULL, {NULL}},
    {"throttle-group", NEEDED, NULL, {NULL}},
    {"stats", SWITCH, NULL, {NULL}},
    {"inject", RULES, NULL, {NULL}},
    {"inject-below", RULES, NULL, {NULL}},
};

static const struct key *find(const char *name)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(keys); i++)
        if (!strcmp(keys[i].name, name))
            return &keys[i];
    return NULL;
}

static int unknown(const char *name, struct qz_error *err)
{
    char list[360] = "";

    for (unsigned i = 1; i < QZ_ARRAY_LEN(keys); i++) {
        size_t used = strlen(list);

        if (keys[i].kind == NUMBER) /* fd=: programs say that, not who reads this */
            continue;
        if (!strchr(keys[i].name, '-') || keys[i].kind == WORD || keys[i].kind == NEEDED ||
            keys[i].kind == RULES)
            snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "", keys[i].name);
    }
    return qz_fail(err, -EINVAL, "no option has the name %.40s; there are %s", name, list);
}

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

static int check_format(const char *name, struct qz_error *err)
{
    char list[120];

    if (!strcmp(name, "raw") || !strcmp(name, "auto") || format_find(name))
        return 0;
    return qz_fail(err, -EINVAL, "format: no format has the name %.40s; choose raw, %s or auto",
                   name, format_list(list, sizeof(list)));
}

/* "null:1GiB", "memory:64MiB" */
static int check_file(const char *file, struct qz_error *err)
{
    const char *colon = strchr(file, ':');
    uint64_t size;

    if (!*file)
        return qz_fail(err, -EINVAL, "file= is missing");
    if (strncmp(file, "null:", 5) && strncmp(file, "memory:", 7))
        return 0;
    return qz_parse_size(colon + 1, &size, err) < 0 ? qz_error_prefix(err, "%s", file) : 0;
}

static int check_value(struct options *o, const struct key *k, const char *value,
                       struct qz_error *err)
{
    const char *text = value ? value : "";
    uint64_t number;
    unsigned word;
    bool on;

    switch (k->kind) {
    case TEXT:
        return 0;
    case NEEDED:
        return *text ? 0 : qz_fail(err, -EINVAL, "%s needs a value", k->name);
    case SWITCH:
        return options_switch(o, k->name, &on, err);
    case SIZE:
        return options_size(o, k->name, &number, err);
    case COUNT:
        return options_number(o, k->name, 1, 1000000000, &number, err);
    case NUMBER:
        return options_number(o, k->name, 0, INT_MAX, &number, err);
    case WORD:
        return options_word(o, k->name, k->words, &word, err);
    case FORMAT:
        return check_format(text, err);
    case RULES:
        return inject_check(text, err);
    case SIZED_FILE:
        return check_file(text, err);
    }
    return 0;
}

static int check(struct options *o, struct qz_error *err);

static int check_one(struct options *o, const struct option *p, const char *format,
                     struct qz_error *err)
{
    const struct key *k = find(p->key);
    const char *value = p->value ? p->value : "";

    if (!k)
        return unknown(p->key, err);
    /* Every disk may be told to have no backing file, or the one its header names. */
    if (!strcmp(k->name, "backing") && (!strcmp(value, "none") || !strcmp(value, "header")))
        return 0;
    if (k->formats && strcmp(format, "auto") && !has_word(k->formats, format))
        return qz_fail(err, -EINVAL, "%s=%.80s is for the formats %s, and this is format=%s",
                       k->name, value, k->formats, format);
    return check_value(o, k, p->value, err);
}

/* backing.KEY: the backing file's own, which is told from the disk's by its prefix. */
static int check_backing(struct options *o, struct qz_error *err)
{
    struct options backing;
    int r = options_split(o, "backing", &backing);

    if (r < 0)
        return qz_fail(err, r, "no memory");
    r = check(&backing, err);
    options_clear(&backing);
    return r < 0 ? qz_error_prefix(err, "backing") : 0;
}

static int check(struct options *o, struct qz_error *err)
{
    const char *format;
    int r = 0;

    if (!o->count)
        return 0;
    if ((r = check_backing(o, err)) < 0)
        return r;
    format = options_text(o, "format");
    for (unsigned i = 0; r == 0 && i < o->count; i++)
        r = check_one(o, &o->list[i], format ? format : "raw", err);
    return r;
}

int disk_keys_check(struct options *o, struct qz_error *err)
{
    const char *file = options_text(o, "file");
    struct options copy = {0};
    int r = 0;

    if (!file || !*file)
        return qz_fail(err, -EINVAL, "disk: file= is missing");
    for (unsigned i = 0; r == 0 && i < o->count; i++)
        r = options_add(&copy, o->list[i].key, o->list[i].value);
    if (r < 0)
        qz_fail(err, r, "no memory");
    else
        r = check(&copy, err);
    options_clear(&copy);
    return r < 0 ? qz_error_prefix(err, "disk %s", file) : 0;
}

int qz_disk_check_options(const char *options, struct qz_error *err)
{
    struct options o;
    int r = options_parse(&o, options, "file", err);

    if (r < 0)
        return r;
    r = disk_keys_check(&o, err);
    options_clear(&o);
    return r;
}

bool qz_disk_is_local_file(const char *file)
{
    static const char *const others[] = {
        "null:", "memory:", "nbd:", "nbd+unix:", "nbds:", "nbds+unix:"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(others); i++)
        if (!strncmp(file, others[i], strlen(others[i])))
            return false;
    return true;
}

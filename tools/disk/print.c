/* print.c - what queztl-disk prints: values, progress, errors. */
#include "disk_tool.h"

int disk_failed(const struct qz_error *err)
{
    fprintf(stderr, "queztl-disk: %s\n", err->text);
    switch (-err->code) {
    case ENOENT:
        return QZ_EXIT_NOT_FOUND;
    case EEXIST:
    case EBUSY:
        return QZ_EXIT_CONFLICT;
    case EPERM:
        return QZ_EXIT_REFUSED;
    }
    return QZ_EXIT_FAILED;
}

int disk_parse(const struct qz_option *options, int argc, char **argv, void *target, int least,
               int most)
{
    struct qz_error err = {0};
    int i = qz_options_parse(options, argc, argv, target, &err);

    if (i >= 0 && i < argc && !strcmp(argv[i], "--"))
        i++;
    if (i >= 0 && argc - i < least)
        i = qz_fail(&err, -EINVAL, "%s: an operand is missing", argv[0]);
    else if (i >= 0 && argc - i > most)
        i = qz_fail(&err, -EINVAL, "%s: %s is one operand too many (options come first)", argv[0],
                    argv[i + most]);
    if (i >= 0)
        return i;
    qz_complain("queztl-disk", QZ_EXIT_USAGE, &err);
    return -1;
}

/* ---- image texts */

bool disk_text_has(const char *image, const char *key)
{
    size_t n = strlen(key);

    for (const char *p = image;; p++) {
        if (!strncmp(p, key, n) && (p[n] == '=' || p[n] == ',' || !p[n]))
            return true;
        while (*p && (*p != ',' || p[1] == ','))
            p += *p == ',' ? 2 : 1; /* a doubled comma is part of a value */
        if (!*p)
            return false;
    }
}

char *disk_text(const char *image, const char *more)
{
    char *text;

    return asprintf(&text, "%s%s%s", image, *more ? "," : "", more) < 0 ? NULL : text;
}

char *disk_text_to_read(const char *image, const char *more)
{
    char *text;

    if (asprintf(&text, "%s%s%s%s%s", image, disk_text_has(image, "readonly") ? "" : ",readonly",
                 disk_text_has(image, "format") ? "" : ",format=auto", *more ? "," : "", more) < 0)
        return NULL;
    return text;
}

/* ---- values */

int print_format_set(enum print_format *f, const char *value, struct qz_error *err)
{
    static const char *const names[] = {"table", "json", "yaml"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(names); i++) {
        if (!strcmp(names[i], value)) {
            *f = (enum print_format)i;
            return 0;
        }
    }
    return qz_fail(err, -EINVAL, "\"%s\": choose table, json or yaml", value);
}

static void yaml(json_t *v, int indent, bool in_list);

static void yaml_scalar(json_t *v)
{
    QZ_AUTO_FREE char *text = json_dumps(v, JSON_ENCODE_ANY);

    printf("%s\n", text ? text : "null");
}

static void yaml_child(json_t *v, int indent)
{
    if ((json_is_object(v) && json_object_size(v)) || (json_is_array(v) && json_array_size(v))) {
        printf("\n");
        yaml(v, indent, false);
    } else {
        printf(" ");
        yaml_scalar(v);
    }
}

/* in_list: the first line stands behind "- ". */
static void yaml(json_t *v, int indent, bool in_list)
{
    const char *key;
    json_t *item;
    size_t i;

    if (json_is_object(v)) {
        json_object_foreach(v, key, item)
        {
            printf("%*s%s:", in_list ? 0 : indent, "", key);
            yaml_child(item, indent + 2);
            in_list = false;
        }
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item)
        {
            printf("%*s- ", indent, "");
            yaml(item, indent + 2, true);
        }
    } else {
        yaml_scalar(v);
    }
}

void print_value(enum print_format f, json_t *v)
{
    if (f == PRINT_YAML) {
        yaml(v, 0, false);
    } else {
        json_dumpf(v, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        printf("\n");
    }
    json_decref(v);
}

/* ---- progress */

enum { BAR = 40 };

void progress_begin(struct progress *p, const char *what)
{
    *p = (struct progress){.what = what, .started = qz_now_ns(), .shown = isatty(2)};
}

void progress_show(struct progress *p, uint64_t done, uint64_t all)
{
    int64_t now = qz_now_ns();
    double share = all ? (double)done / (double)all : 1, left;
    int full = (int)(QZ_MIN(share, 1.0) * BAR);

    if (!p->shown || now - p->drawn < 100000000)
        return;
    p->drawn = now;
    left = share > 0.01 ? (double)(now - p->started) / 1e9 * (1 / share - 1) : 0;
    fprintf(stderr, "\r%s [%.*s%*s] %3.0f %%", p->what, full,
            "########################################", BAR - full, "", share * 100);
    if (left > 0.5)
        fprintf(stderr, "  %.0f s left   ", left);
    else
        fprintf(stderr, "               ");
}

void progress_end(struct progress *p)
{
    if (p->shown && p->drawn)
        fprintf(stderr, "\r%*s\r", BAR + 40, "");
}

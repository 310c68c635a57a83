/* images.c - queztl-disk create, info, check, resize, snapshot. */
#include <sys/stat.h>
#include <time.h>

#include "disk_tool.h"
#include "option_text.h"

/* ---- create */

struct create_config {
    bool force;
    const char *backing, *backing_format;
};

static int set_force(void *target, const char *value, struct qz_error *err)
{
    ((struct create_config *)target)->force = true;
    return 0;
}

static int set_backing(void *target, const char *value, struct qz_error *err)
{
    ((struct create_config *)target)->backing = value;
    return 0;
}

static int set_backing_format(void *target, const char *value, struct qz_error *err)
{
    ((struct create_config *)target)->backing_format = value;
    return 0;
}

const struct qz_option create_options[] = {
    {"force", NULL, "overwrite an image that is there", set_force},
    {"backing", "FILE", "what is not written yet shows this image", set_backing},
    {"backing-format", "FORMAT", "its format: raw, qcow2", set_backing_format},
    {0},
};

int disk_create(int argc, char **argv)
{
    struct create_config config = {0};
    struct qz_error err = {0};
    QZ_AUTO_FREE char *text = NULL, *backing = NULL;
    const char *size;
    int i = disk_parse(create_options, argc, argv, &config, 1, 2);

    if (i < 0)
        return QZ_EXIT_USAGE;
    size = argc - i > 1 ? argv[i + 1] : NULL;
    backing = option_text_escape(config.backing ? config.backing : "");
    if (!backing ||
        asprintf(&text, "%s%s%s%s%s%s%s%s", argv[i], size ? ",size=" : "", size ? size : "",
                 config.force ? ",overwrite" : "", config.backing ? ",backing=" : "", backing,
                 config.backing_format ? ",backing.format=" : "",
                 config.backing_format ? config.backing_format : "") < 0)
        return QZ_EXIT_FAILED;
    return qz_disk_create(text, &err) < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

/* ---- info */

struct format_config {
    enum print_format format;
};

static int set_format(void *target, const char *value, struct qz_error *err)
{
    return print_format_set(&((struct format_config *)target)->format, value, err);
}

const struct qz_option info_options[] = {
    {"format", "table|json|yaml", "how to print (default table)", set_format},
    {0},
};

static json_t *fact_value(const struct qz_disk_fact *f)
{
    switch (f->kind) {
    case QZ_DISK_FLAG:
        return json_boolean(f->number);
    case QZ_DISK_TEXT:
        return json_string(f->text);
    default:
        return json_integer((json_int_t)f->number);
    }
}

static void add_facts(json_t *o, struct qz_disk *d)
{
    struct qz_disk_fact facts[48];
    unsigned n = qz_disk_facts(d, facts, QZ_ARRAY_LEN(facts));

    for (unsigned i = 0; i < n; i++)
        json_object_set_new(o, facts[i].key, fact_value(&facts[i]));
}

static void print_info(json_t *o, struct qz_disk *d)
{
    static const char *const sizes[] = {"size", "disk_usage"};
    struct qz_disk_fact facts[48];
    unsigned n = qz_disk_facts(d, facts, QZ_ARRAY_LEN(facts));
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        char buf[32];
        bool bytes = !strcmp(key, sizes[0]) || !strcmp(key, sizes[1]);

        for (unsigned i = 0; i < n; i++)
            bytes |= facts[i].kind == QZ_DISK_BYTES && !strcmp(facts[i].key, key);
        if (bytes)
            printf("%-22s %s (%lld bytes)\n", key,
                   qz_format_size((uint64_t)json_integer_value(v), buf, sizeof(buf)),
                   json_integer_value(v));
        else if (json_is_string(v))
            printf("%-22s %s\n", key, json_string_value(v));
        else if (json_is_boolean(v))
            printf("%-22s %s\n", key, json_is_true(v) ? "yes" : "no");
        else
            printf("%-22s %lld\n", key, json_integer_value(v));
    }
}

static void add_names(json_t *o, const char *text)
{
    QZ_AUTO_FREE char *backing = NULL, *format = NULL, *data = NULL;
    struct qz_error err;

    if (qz_disk_names(text, &backing, &format, &data, &err) < 0)
        return;
    if (backing)
        json_object_set_new(o, "backing_file", json_string(backing));
    if (format)
        json_object_set_new(o, "backing_format", json_string(format));
    if (data)
        json_object_set_new(o, "data_file", json_string(data));
}

int disk_info(int argc, char **argv)
{
    struct format_config config = {0};
    struct qz_error err = {0};
    struct qz_disk_info info;
    struct qz_disk *d;
    QZ_AUTO_FREE char *text = NULL, *names = NULL;
    struct stat st;
    json_t *o;
    int i = disk_parse(info_options, argc, argv, &config, 1, 1);

    if (i < 0)
        return QZ_EXIT_USAGE;
    /* Files that the image names are not opened for this. A file in use may be looked at. */
    names = disk_text_to_read(argv[i], "");
    text = names ? disk_text(names, disk_text_has(argv[i], "backing") ? "" : "backing=none") : NULL;
    if (!text)
        return QZ_EXIT_FAILED;
    if (qz_disk_open(&d, text, &err) < 0)
        return disk_failed(&err);
    qz_disk_get_info(d, &info);
    o = json_pack("{s:s,s:s,s:I}", "file", info.label, "format", info.format, "size",
                  (json_int_t)info.size);
    if (stat(info.label, &st) == 0)
        json_object_set_new(o, "disk_usage", json_integer((json_int_t)st.st_blocks * 512));
    add_names(o, names);
    add_facts(o, d);
    if (config.format == PRINT_TABLE) {
        print_info(o, d);
        json_decref(o);
    } else {
        print_value(config.format, o);
    }
    return qz_disk_close(d, &err) < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

/* ---- check */

struct check_config {
    enum print_format format;
    bool repair;
    struct progress progress;
    struct qz_disk_check check;
};

static int set_check_format(void *target, const char *value, struct qz_error *err)
{
    return print_format_set(&((struct check_config *)target)->format, value, err);
}

static int set_repair(void *target, const char *value, struct qz_error *err)
{
    ((struct check_config *)target)->repair = true;
    return 0;
}

const struct qz_option check_options[] = {
    {"repair", NULL, "mend what can be mended without loss", set_repair},
    {"format", "table|json|yaml", "how to print (default table)", set_check_format},
    {0},
};

static void say(struct qz_disk_check *c, const char *text)
{
    struct check_config *config = QZ_CONTAINER_OF(c, struct check_config, check);

    progress_end(&config->progress);
    fprintf(stderr, "%s\n", text);
}

static void on_progress(struct qz_disk_check *c, double share)
{
    progress_show(&QZ_CONTAINER_OF(c, struct check_config, check)->progress,
                  (uint64_t)(share * 1000), 1000);
}

static void print_check(const struct qz_disk_check *c)
{
    if (!c->errors && !c->leaks)
        printf("no errors\n");
    if (c->errors)
        printf("%llu errors, %llu of them repaired\n", (unsigned long long)c->errors,
               (unsigned long long)c->errors_repaired);
    if (c->leaks)
        printf("%llu lost clusters, %llu of them given back\n", (unsigned long long)c->leaks,
               (unsigned long long)c->leaks_repaired);
    if (c->clusters)
        printf("%llu of %llu clusters (%.1f %%) allocated, %llu compressed, image ends at %llu\n",
               (unsigned long long)c->allocated, (unsigned long long)c->clusters,
               100.0 * (double)c->allocated / (double)c->clusters,
               (unsigned long long)c->compressed, (unsigned long long)c->image_end);
}

int disk_check(int argc, char **argv)
{
    struct check_config config = {0};
    struct qz_disk_check *c = &config.check;
    struct qz_error err = {0};
    QZ_AUTO_FREE char *text = NULL;
    int i = disk_parse(check_options, argc, argv, &config, 1, 1), r;

    if (i < 0)
        return QZ_EXIT_USAGE;
    text = config.repair ? disk_text(argv[i], "") : disk_text_to_read(argv[i], "");
    if (!text)
        return QZ_EXIT_FAILED;
    c->repair = config.repair;
    c->say = say;
    c->progress = on_progress;
    progress_begin(&config.progress, "checking");
    r = qz_disk_check(text, c, &err);
    progress_end(&config.progress);
    if (r < 0)
        return disk_failed(&err);
    if (config.format == PRINT_TABLE)
        print_check(c);
    else
        print_value(config.format,
                    json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "errors", (json_int_t)c->errors,
                              "errors_repaired", (json_int_t)c->errors_repaired, "leaks",
                              (json_int_t)c->leaks, "leaks_repaired", (json_int_t)c->leaks_repaired,
                              "clusters", (json_int_t)c->clusters, "allocated",
                              (json_int_t)c->allocated, "compressed", (json_int_t)c->compressed,
                              "image_end", (json_int_t)c->image_end));
    return c->errors == c->errors_repaired && c->leaks == c->leaks_repaired ? QZ_EXIT_OK
                                                                            : QZ_EXIT_FAILED;
}

/* ---- resize */

static int set_shrink(void *target, const char *value, struct qz_error *err)
{
    *(bool *)target = true;
    return 0;
}

const struct qz_option resize_options[] = {
    {"shrink", NULL, "allow a smaller size: what lies behind it is lost", set_shrink},
    {0},
};

/* "20GiB", "+5GiB", "-1GiB" */
static int new_size(const char *text, uint64_t old, uint64_t *size, struct qz_error *err)
{
    char sign = *text == '+' || *text == '-' ? *text++ : 0;
    int r = qz_parse_size(text, size, err);

    if (r < 0 || !sign)
        return r;
    if (sign == '-' ? *size > old : *size > INT64_MAX - old)
        return qz_fail(err, -ERANGE, "no disk has %c%s more than %llu bytes", sign, text,
                       (unsigned long long)old);
    *size = sign == '-' ? old - *size : old + *size;
    return 0;
}

static int resize(struct qz_disk *d, const char *text, bool shrink, struct qz_error *err)
{
    struct qz_disk_info info;
    uint64_t size;
    int r;

    qz_disk_get_info(d, &info);
    r = new_size(text, info.size, &size, err);
    if (r < 0)
        return r;
    if (size < info.size && !shrink)
        return qz_fail(err, -EPERM,
                       "%s: %llu bytes are less than the %llu that it has: --shrink allows it",
                       info.label, (unsigned long long)size, (unsigned long long)info.size);
    return qz_disk_resize(d, size, err);
}

int disk_resize(int argc, char **argv)
{
    struct qz_error err = {0};
    QZ_AUTO_FREE char *text = NULL;
    struct qz_disk *d;
    bool shrink = false;
    int i = disk_parse(resize_options, argc, argv, &shrink, 2, 2), r, c;

    if (i < 0)
        return QZ_EXIT_USAGE;
    text = disk_text(argv[i], "");
    if (!text)
        return QZ_EXIT_FAILED;
    if (qz_disk_open(&d, text, &err) < 0)
        return disk_failed(&err);
    r = resize(d, argv[i + 1], shrink, &err);
    c = qz_disk_close(d, r ? NULL : &err);
    return r < 0 || c < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

/* ---- snapshot */

struct snapshot_config {
    enum print_format format;
    const char *create, *apply, *delete;
};

static int set_snapshot_format(void *target, const char *value, struct qz_error *err)
{
    return print_format_set(&((struct snapshot_config *)target)->format, value, err);
}

static int set_snapshot_create(void *target, const char *value, struct qz_error *err)
{
    ((struct snapshot_config *)target)->create = value;
    return 0;
}

static int set_snapshot_apply(void *target, const char *value, struct qz_error *err)
{
    ((struct snapshot_config *)target)->apply = value;
    return 0;
}

static int set_snapshot_delete(void *target, const char *value, struct qz_error *err)
{
    ((struct snapshot_config *)target)->delete = value;
    return 0;
}

const struct qz_option snapshot_options[] = {
    {"create", "NAME", "make one of what the disk holds now", set_snapshot_create},
    {"apply", "NAME", "make the disk what it was then", set_snapshot_apply},
    {"delete", "NAME", "forget it", set_snapshot_delete},
    {"format", "table|json|yaml", "how to print the list (default table)", set_snapshot_format},
    {0},
};

static int list_snapshots(struct qz_disk *d, enum print_format format, struct qz_error *err)
{
    struct qz_disk_snapshot *list;
    json_t *array = json_array();
    unsigned n;
    int r = qz_disk_snapshots(d, &list, &n, err);

    if (r < 0) {
        json_decref(array);
        return r;
    }
    if (format == PRINT_TABLE && n)
        printf("%-6s %-24s %-20s %s\n", "ID", "NAME", "CREATED", "DISK");
    for (unsigned i = 0; i < n; i++) {
        char when[32] = "", size[32];
        time_t t = (time_t)list[i].created;
        struct tm tm;

        if (gmtime_r(&t, &tm))
            strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%SZ", &tm);
        if (format == PRINT_TABLE)
            printf("%-6s %-24s %-20s %s\n", list[i].id, list[i].name, when,
                   qz_format_size(list[i].disk_bytes, size, sizeof(size)));
        json_array_append_new(array, json_pack("{s:s,s:s,s:s,s:I,s:I}", "id", list[i].id, "name",
                                               list[i].name, "created", when, "disk_size",
                                               (json_int_t)list[i].disk_bytes, "vm_state_size",
                                               (json_int_t)list[i].vm_state_bytes));
    }
    if (format == PRINT_TABLE)
        json_decref(array);
    else
        print_value(format, array);
    qz_disk_snapshots_free(list, n);
    return 0;
}

int disk_snapshot(int argc, char **argv)
{
    struct snapshot_config config = {0};
    struct qz_error err = {0};
    QZ_AUTO_FREE char *text = NULL, *more = NULL;
    struct qz_disk *d;
    bool changes;
    int i = disk_parse(snapshot_options, argc, argv, &config, 1, 1), r = 0, c;

    if (i < 0)
        return QZ_EXIT_USAGE;
    changes = config.create || config.apply || config.delete;
    more = changes ? disk_text(argv[i], "") : disk_text_to_read(argv[i], "");
    text = more ? disk_text(more, disk_text_has(argv[i], "backing") ? "" : "backing=none") : NULL;
    if (!text)
        return QZ_EXIT_FAILED;
    if (qz_disk_open(&d, text, &err) < 0)
        return disk_failed(&err);
    if (config.create)
        r = qz_disk_snapshot_create(d, config.create, &err);
    if (r == 0 && config.apply)
        r = qz_disk_snapshot_apply(d, config.apply, &err);
    if (r == 0 && config.delete)
        r = qz_disk_snapshot_delete(d, config.delete, &err);
    if (r == 0 && !changes)
        r = list_snapshots(d, config.format, &err);
    c = qz_disk_close(d, r ? NULL : &err);
    return r < 0 || c < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

/* map.c - queztl-disk map: where the bytes of a disk are. */
#include "disk_tool.h"

struct config {
    enum print_format format;
    bool deep;
};

static int set_format(void *target, const char *value, struct qz_error *err)
{
    return print_format_set(&((struct config *)target)->format, value, err);
}

static int set_deep(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->deep = true;
    return 0;
}

const struct qz_option map_options[] = {
    {"deep", NULL, "look through the backing files too", set_deep},
    {"format", "table|json|yaml", "how to print (default table)", set_format},
    {0},
};

static const char *state_name(const struct qz_disk_extent *e)
{
    static const char *const names[] = {"data", "zero", "hole", "compressed"};

    return names[e->state];
}

static void print_extent(uint64_t start, const struct qz_disk_extent *e)
{
    char offset[24] = "-";

    if (e->has_offset)
        snprintf(offset, sizeof(offset), "0x%llx", (unsigned long long)e->offset);
    printf("0x%-14llx 0x%-14llx %-11s %5u  %s\n", (unsigned long long)start,
           (unsigned long long)e->length, state_name(e), e->depth, offset);
}

static json_t *extent_value(uint64_t start, const struct qz_disk_extent *e)
{
    json_t *o = json_pack("{s:I,s:I,s:s,s:b,s:i}", "start", (json_int_t)start, "length",
                          (json_int_t)e->length, "state", state_name(e), "zero", e->zero, "depth",
                          (int)e->depth);

    if (e->has_offset)
        json_object_set_new(o, "offset", json_integer((json_int_t)e->offset));
    return o;
}

static bool continues(const struct qz_disk_extent *a, const struct qz_disk_extent *b)
{
    return a->state == b->state && a->zero == b->zero && a->depth == b->depth &&
           a->has_offset == b->has_offset && (!a->has_offset || a->offset + a->length == b->offset);
}

static void emit(const struct config *c, json_t *list, uint64_t start,
                 const struct qz_disk_extent *e)
{
    if (!e->length)
        return;
    if (c->format == PRINT_TABLE)
        print_extent(start, e);
    else
        json_array_append_new(list, extent_value(start, e));
}

static int walk(struct qz_disk_queue *q, uint64_t size, const struct config *c, json_t *list)
{
    struct qz_disk_extent run = {0}, e;
    uint64_t start = 0;

    for (uint64_t at = 0; at < size; at += e.length) {
        int r = qz_disk_map(q, at, size - at, c->deep, &e);

        if (r < 0)
            return r;
        if (at && continues(&run, &e)) {
            run.length += e.length;
            continue;
        }
        emit(c, list, start, &run);
        run = e;
        start = at;
    }
    emit(c, list, start, &run);
    return 0;
}

int disk_map(int argc, char **argv)
{
    struct config config = {0};
    struct qz_error err = {0};
    struct qz_disk_queue *q;
    struct qz_disk_info info;
    struct qz_disk *d;
    QZ_AUTO_FREE char *text = NULL;
    json_t *list;
    int i = disk_parse(map_options, argc, argv, &config, 1, 1), r;

    if (i < 0)
        return QZ_EXIT_USAGE;
    text = disk_text_to_read(
        argv[i], config.deep || disk_text_has(argv[i], "backing") ? "" : "backing=none");
    if (!text)
        return QZ_EXIT_FAILED;
    if (qz_disk_open(&d, text, &err) < 0)
        return disk_failed(&err);
    if (qz_disk_queue_new(&q, d, 16, &err) < 0) {
        qz_disk_close(d, NULL);
        return disk_failed(&err);
    }
    qz_disk_get_info(d, &info);
    list = json_array();
    if (config.format == PRINT_TABLE)
        printf("%-16s %-16s %-11s %5s  %s\n", "START", "LENGTH", "STATE", "DEPTH", "OFFSET");
    r = walk(q, info.size, &config, list);
    if (r < 0)
        qz_fail(&err, r, "%s: cannot map it: %s", info.label, strerror(-r));
    if (config.format == PRINT_TABLE || r < 0)
        json_decref(list);
    else
        print_value(config.format, list);
    qz_disk_queue_free(q);
    qz_disk_close(d, NULL);
    return r < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

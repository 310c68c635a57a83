/* hv_restore.c - `queztl-hv restore`: a running machine, back to a snapshot. */
#include <fcntl.h>

#include "control_client.h"
#include "disk_overlays.h"
#include "queztl-hv.h"
#include "snapshot_source.h"

const struct qz_option hv_restore_options[] = {{0}};

/* What is needed to send a machine back. */
struct back {
    const char *socket;
    json_t *disks;                  /* as the machine tells of them now */
    json_t *bases;                  /* what each was, by position */
    struct snapshot_source *source; /* NULL: the machine's last snapshot */
    struct overlays overlays;
    int base[OVERLAYS_MAX]; /* for each overlay what it lies upon, open */
    unsigned opened;
};

static int ask_disks(struct back *b, struct qz_error *err)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    struct control_answer a;
    int r = control_ask(b->socket, request, NULL, 0, &a, err);

    json_decref(request);
    if (r < 0)
        return r;
    b->disks = json_incref(json_object_get(a.data, "disks"));
    control_answer_free(&a);
    return 0;
}

/* Of the snapshot that is named, or of the last one, which the machine knows. */
static int find_bases(struct back *b, struct qz_error *err)
{
    if (b->source) {
        b->bases = json_incref(json_object_get(b->source->description, "disks"));
        return json_array_size(b->bases) == json_array_size(b->disks)
                   ? 0
                   : qz_fail(err, -EINVAL,
                             "the snapshot has %zu disks and the machine %zu: it is of another one",
                             json_array_size(b->bases), json_array_size(b->disks));
    }
    b->bases = json_array();
    for (size_t i = 0; i < json_array_size(b->disks); i++) {
        json_t *base = json_object_get(json_array_get(b->disks, i), "base");

        json_array_append_new(b->bases, base ? json_incref(base) : json_null());
    }
    return 0;
}

static const char *base_name(const struct back *b, unsigned i)
{
    const json_t *base = json_array_get(b->bases, b->overlays.item[i].disk);

    return json_string_value(json_object_get(base, "file"));
}

static int open_bases(struct back *b, struct qz_error *err)
{
    for (; b->opened < b->overlays.count; b->opened++) {
        const char *name = base_name(b, b->opened);

        b->base[b->opened] = open(name, O_RDONLY | O_CLOEXEC);
        if (b->base[b->opened] < 0)
            return qz_fail(err, -errno, "disk %u: its image %s: %s",
                           b->overlays.item[b->opened].disk, name, strerror(errno));
    }
    return 0;
}

static int ask_restore(const struct back *b, struct qz_error *err)
{
    const struct overlays *o = &b->overlays;
    json_t *list = json_array(), *request;
    int fds[CONTROL_GIVEN_MAX], r;
    struct control_answer a;
    unsigned n = 0;

    for (unsigned i = 0; i < o->count; i++) {
        const char *name = o->item[i].unnamed ? NULL : o->item[i].path;

        json_array_append_new(list,
                              json_pack("[is?s]", (int)o->item[i].disk, name, base_name(b, i)));
        fds[n++] = o->item[i].fd;
    }
    for (unsigned i = 0; i < o->count; i++)
        fds[n++] = b->base[i];
    if (b->source) {
        fds[n++] = b->source->state;
        fds[n++] = b->source->memory;
    }
    request = json_pack("{s:s,s:o}", "cmd", "restore", "overlays", list);
    r = control_ask(b->socket, request, fds, n, &a, err);
    json_decref(request);
    if (r == 0)
        control_answer_free(&a);
    return r;
}
_Static_assert(2 * OVERLAYS_MAX + 2 <= (int)CONTROL_GIVEN_MAX, "a request carries all of them");

/*
 * What the machine wrote before is in no snapshot, and nobody can go on from it: the image goes.
 * But not one that the machine was given.
 */
static void remove_left(const struct back *b)
{
    for (unsigned i = 0; i < b->overlays.count; i++) {
        const json_t *disk = json_array_get(b->disks, b->overlays.item[i].disk);
        const char *file = json_string_value(json_object_get(disk, "file")),
                   *origin = json_string_value(json_object_get(disk, "origin"));

        if (!file)
            continue;
        if (origin && !strcmp(file, origin))
            fprintf(stderr, "%s is not used any more: the disk goes on in %s\n", file,
                    b->overlays.item[i].path);
        else
            unlink(file);
    }
}

static int send_back(struct back *b, struct qz_error *err)
{
    int r = ask_disks(b, err);

    if (r == 0)
        r = find_bases(b, err);
    if (r == 0)
        r = overlays_back(&b->overlays, b->disks, b->bases, err);
    if (r < 0)
        return r;
    r = open_bases(b, err);
    if (r == 0)
        r = ask_restore(b, err);
    if (r == 0)
        remove_left(b);
    overlays_end(&b->overlays, r < 0);
    while (b->opened)
        close(b->base[--b->opened]);
    return r;
}

static int exit_code(int r)
{
    switch (r) {
    case -ENOENT:
        return QZ_EXIT_NOT_FOUND;
    case -EREMOTEIO:
        return QZ_EXIT_REFUSED;
    case -ECONNREFUSED:
        return QZ_EXIT_UNREACHABLE;
    default:
        return QZ_EXIT_FAILED;
    }
}

int hv_restore(int argc, char **argv)
{
    struct qz_error err = {0};
    struct snapshot_source s;
    struct back b = {0};
    const int64_t began = qz_now_ns();
    char *operand[2] = {0};
    int r =
        qz_operands_parse(hv_restore_options, argc, argv, NULL, operand, 1, 2,
                          "name the machine's control socket, and a snapshot's folder unless it "
                          "is the last one",
                          &err);

    if (r < 0)
        return qz_complain("queztl-hv restore", QZ_EXIT_USAGE, &err);
    b.socket = operand[0];
    if (operand[1]) {
        r = snapshot_source_load(&s, operand[1], SNAPSHOT_LOAD_EAGER, &err);
        b.source = r < 0 ? NULL : &s;
    }
    if (r == 0)
        r = send_back(&b, &err);
    json_decref(b.disks);
    json_decref(b.bases);
    if (b.source)
        snapshot_source_close(b.source);
    if (r < 0)
        return qz_complain("queztl-hv restore", exit_code(r), &err);
    printf("sent back in %.1f ms\n", (double)(qz_now_ns() - began) / 1e6);
    return QZ_EXIT_OK;
}

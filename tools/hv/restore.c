/* restore.c - `queztl-hv restore`: a running machine, back to a snapshot. */
#include <fcntl.h>

#include "control_client.h"
#include "disk_overlays.h"
#include "guest_tell.h"
#include "machine_identity.h"
#include "queztl-hv.h"
#include "snapshot_source.h"

const struct qz_option hv_restore_options[] = {{0}};

#define AGENT_LIMIT_NS INT64_C(90000000000) /* programs of the guest may take a minute of it */

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

static int ask_info(const struct back *b, struct control_answer *a, struct qz_error *err)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    const int r = control_ask(b->socket, request, NULL, 0, a, err);

    json_decref(request);
    return r;
}

static int ask_disks(struct back *b, struct qz_error *err)
{
    struct control_answer a;
    const int r = ask_info(b, &a, err);

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

/* ---- who it is */

/* The addresses that its devices have; `former`: that its guest remembers now. True: others. */
static bool find_addresses(const json_t *info, struct machine_identity *i, json_t *former)
{
    const json_t *devices = json_object_get(info, "devices");
    bool differ = false;

    for (size_t k = 0; k < json_array_size(devices) && i->nets < VM_NETS_MAX; k++) {
        const json_t *d = json_array_get(devices, k);
        const char *mac = json_string_value(json_object_get(d, "mac")),
                   *was = json_string_value(json_object_get(d, "former_mac"));

        if (!mac || !was)
            continue;
        snprintf(i->mac[i->nets++], MAC_TEXT, "%s", mac);
        json_array_append_new(former, json_string(was));
        differ = differ || strcmp(mac, was) != 0;
    }
    return differ;
}

/* A clone that is sent back to where it began believes to be the machine that it was made of. */
static void tell_clone(const json_t *info)
{
    const json_t *options = json_object_get(info, "options");
    const char *name = option_nth(options, "--name", 0),
               *state = json_string_value(json_object_get(info, "state"));
    struct agent_call call = {.path = vsock_path(option_nth(options, "--vsock", 0))};
    struct machine_identity i = {.id_lock = -1};
    json_t *former = json_array();

    if (name && find_addresses(info, &i, former)) {
        hostname_from(i.hostname, sizeof(i.hostname), name);
        call.line = identity_request(&i, former);
        if (!call.path || !state || strcmp(state, "running"))
            qz_warn("the guest is not told that it is %s: it has no --vsock, or is paused", name);
        else if (call.line)
            guest_tell(&call, AGENT_LIMIT_NS);
    }
    json_decref(former);
    free(call.line);
}

static void tell(const struct back *b)
{
    struct control_answer a;

    if (ask_info(b, &a, NULL) < 0) /* it has ended */
        return;
    tell_clone(a.data);
    control_answer_free(&a);
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
    int64_t took;
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
    took = qz_now_ns() - began;
    if (r == 0)
        tell(&b);
    json_decref(b.disks);
    json_decref(b.bases);
    if (b.source)
        snapshot_source_close(b.source);
    if (r < 0)
        return qz_complain("queztl-hv restore", exit_code(r), &err);
    printf("sent back in %.1f ms\n", (double)took / 1e6);
    return QZ_EXIT_OK;
}

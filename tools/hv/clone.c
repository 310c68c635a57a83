/* clone.c - `queztl-hv clone`: machines that go on from one moment of another. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "clone_list.h"
#include "control_client.h"
#include "cpu/accel.h"
#include "firmware_store.h"
#include "queztl-hv.h"
#include "snapshot_words.h"

enum { CLONES_MAX = 1000, START_LIMIT_MS = 30000 };

struct config {
    uint64_t count;
    const char *folder, *accel;
    enum snapshot_load load;
    bool json;
    struct clone_plan plan;
};

static int set_count(void *t, const char *v, struct qz_error *err)
{
    return qz_parse_u64(v, "number of clones", 1, CLONES_MAX, &((struct config *)t)->count, err);
}

static int set_folder(void *t, const char *v, struct qz_error *err)
{
    ((struct config *)t)->folder = v;
    return 0;
}

static int set_accel(void *t, const char *v, struct qz_error *err)
{
    ((struct config *)t)->accel = v;
    return 0;
}

static int set_load(void *t, const char *v, struct qz_error *err)
{
    return snapshot_load_parse(v, &((struct config *)t)->load, err);
}

static int set_net(void *t, const char *v, struct qz_error *err)
{
    struct clone_plan *p = &((struct config *)t)->plan;

    if (p->nets == VM_NETS_MAX)
        return qz_fail(err, -EINVAL, "more than %d network devices", VM_NETS_MAX);
    p->net[p->nets++] = v;
    return 0;
}

static int set_format(void *t, const char *v, struct qz_error *err)
{
    struct config *c = t;

    c->json = !strcmp(v, "json");
    return c->json || !strcmp(v, "table") ? 0 : qz_fail(err, -EINVAL, "\"%s\": table or json", v);
}

const struct qz_option hv_clone_options[] = {
    {"count", "N", "how many (default 1)", set_count},
    {"folder", "DIR",
     "where each clone's control socket, console and messages go: NAME.sock, NAME.console,\n"
     "NAME.log, and NAME.vsock of machines that have one (default: here)",
     set_folder},
    {"accel", "auto|kvm|jit", "what executes the clones (default auto)", set_accel},
    {"load", "auto|lazy|eager",
     "memory of a snapshot's folder: as the clones need it, or before they begin (default auto)",
     set_load},
    {"net", "user|tap:NAME%d",
     "another network than the machine's, may be given several times; %d is the clone's number",
     set_net},
    {"format", "table|json", "how they are listed (default table)", set_format},
    {0},
};

/* The lock of its context id becomes the machine's, which keeps it and does nothing else with it.
 */
static int start_machine_from(const struct words *w, const struct snapshot_source *s,
                              const struct overlays *disks, struct clone *k)
{
    int fds[HANDED_MAX];
    unsigned count = snapshot_descriptors(s, disks, fds);
    QZ_AUTO_FD int id_lock = QZ_TAKE_FD(k->identity.id_lock);

    if (id_lock >= 0 && count < HANDED_MAX)
        fds[count++] = id_lock;
    return start_machine(w, fds, count, k->log);
}

static const char *name_of(const json_t *options)
{
    const char *name = option_nth(options, "--name", 0);

    return name ? name : "vm";
}

/* A variable store for firmware of its own, NAME.vars in the folder; *path is the caller's to free,
 * NULL: the machine has none. */
static int copy_store(char **path, const struct config *c, const json_t *options,
                      const struct clone *k, struct qz_error *err)
{
    const char *from = option_nth(options, "--firmware-vars", 0);

    *path = NULL;
    if (!from)
        return 0;
    if (asprintf(path, "%s/%s.vars", c->folder ? c->folder : ".", k->name) < 0) {
        *path = NULL;
        return qz_fail(err, -ENOMEM, "no memory");
    }
    return firmware_store_copy(from, *path, err);
}

static bool is_words(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i)))
            return false;
    return json_is_array(list);
}

static int add_option(struct words *w, const char *name, const char *value)
{
    return words_add(w, name) < 0 || words_add(w, value) < 0 ? -ENOMEM : 0;
}

static int add_identity(struct words *w, const struct machine_identity *i)
{
    char vsock[600];

    for (unsigned k = 0; k < i->nets; k++)
        if (add_option(w, "--net", i->net[k]) < 0)
            return -ENOMEM;
    snprintf(vsock, sizeof(vsock), "%llu,%s", (unsigned long long)i->cid, i->vsock);
    return i->cid ? add_option(w, "--vsock", vsock) : 0;
}

/* What makes this clone: the machine's options, and those that tell clones apart. */
static int clone_words(struct words *w, const char *vmm, const struct config *c,
                       const struct snapshot_source *s, const struct clone *k,
                       const struct overlays *disks, const char *store)
{
    static const char *const own[] = {"--net", "--vsock", "--firmware-vars", NULL};
    const json_t *command = json_object_get(s->description, "command");

    if (words_add(w, vmm) < 0 ||
        words_add_machine(w, json_object_get(s->description, "options"), disks, own) < 0 ||
        (store && add_option(w, "--firmware-vars", store) < 0) ||
        add_identity(w, &k->identity) < 0 || add_option(w, "--name", k->name) < 0 ||
        add_option(w, "--control", k->socket) < 0 || add_option(w, "--console", k->console) < 0 ||
        add_option(w, "--accel", c->accel) < 0 || words_add_snapshot(w, s, disks) < 0)
        return -ENOMEM;
    return json_array_size(command) && (words_add(w, "--") < 0 || words_add_list(w, command) < 0)
               ? -ENOMEM
               : 0;
}

static int begin_clone(struct clone *k, unsigned i, const char *vmm, struct config *c,
                       const struct snapshot_source *s, struct qz_error *err)
{
    const json_t *options = json_object_get(s->description, "options");
    const char *folder = c->folder ? c->folder : ".";
    struct overlays disks;
    QZ_AUTO_FREE char *store = NULL;
    struct words w = {0};
    char log[512];
    int r;

    snprintf(k->name, sizeof(k->name), "%.58s-%u", name_of(options), i + 1);
    snprintf(k->socket, sizeof(k->socket), "%s/%s.sock", folder, k->name);
    snprintf(k->console, sizeof(k->console), "%s/%s.console", folder, k->name);
    snprintf(log, sizeof(log), "%s/%s.log", folder, k->name);
    k->log = open(log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (k->log < 0)
        return qz_fail(err, -errno, "%s: %s", log, strerror(errno));
    r = clone_identity(&k->identity, &c->plan, options, i + 1, k->name, folder, err);
    if (r == 0)
        r = copy_store(&store, c, options, k, err);
    if (r == 0)
        r = overlays_in(&disks, json_object_get(s->description, "disks"), folder, k->name, err);
    if (r < 0)
        return r;
    r = clone_words(&w, vmm, c, s, k, &disks, store);
    k->pid = r < 0 ? r : start_machine_from(&w, s, &disks, k);
    words_free(&w);
    overlays_end(&disks, k->pid < 0);
    return k->pid < 0
               ? qz_fail(err, k->pid, "%s: cannot be started: %s", k->name, strerror(-k->pid))
               : 0;
}

/* The first line that it said. */
static void first_line(int log, char *line, size_t size)
{
    ssize_t n = pread(log, line, size - 1, 0);

    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* Its control socket answers once it runs. */
static int wait_for_clone(const struct clone *k, int64_t limit, struct qz_error *err)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    int r = -EAGAIN;

    while (r == -EAGAIN) {
        struct control_answer a;
        char line[200];

        r = control_ask(k->socket, request, NULL, 0, &a, err);
        if (r == 0) {
            control_answer_free(&a);
        } else if (waitpid(k->pid, NULL, WNOHANG) != 0) {
            first_line(k->log, line, sizeof(line));
            r = qz_fail(err, -ECHILD, "%s ended: %s", k->name, *line ? line : "without a word");
        } else if (qz_now_ns() < limit) {
            poll(NULL, 0, 1);
            r = -EAGAIN;
        }
    }
    json_decref(request);
    return r;
}

static unsigned wait_for_all(struct clone *clones, unsigned started, struct qz_error *err, int *r)
{
    const int64_t limit = qz_now_ns() + START_LIMIT_MS * INT64_C(1000000);
    unsigned run = 0;

    for (unsigned i = 0; i < started; i++) {
        if (*r == 0 && (*r = wait_for_clone(&clones[i], limit, err)) == 0)
            run++;
        if (clones[i].log > 0)
            close(clones[i].log);
    }
    return run;
}

static int run_clones(struct config *c, const char *vmm, const struct snapshot_source *s,
                      struct qz_error *err)
{
    QZ_AUTO_FREE struct clone *clones = calloc(c->count, sizeof(*clones));
    const int64_t began = qz_now_ns();
    unsigned started = 0, run;
    int r = clones ? 0 : qz_fail(err, -ENOMEM, "no memory");

    c->plan.count = (unsigned)c->count;
    if (r == 0)
        r = clone_plan_complete(&c->plan, json_object_get(s->description, "options"), err);
    while (r == 0 && started < c->count) {
        clones[started].identity.id_lock = -1;
        r = begin_clone(&clones[started], started, vmm, c, s, err);
        started++;
    }
    run = wait_for_all(clones, started, err, &r);
    if (r == 0)
        fprintf(stderr, "%u clones run after %.1f ms\n", run, (double)(qz_now_ns() - began) / 1e6);
    clones_hand_over(clones, run, s->description);
    clones_print(clones, run, c->json);
    for (unsigned i = 0; i < started; i++)
        machine_identity_free(&clones[i].identity);
    return r;
}

/* Looked for once, not by each clone: trying what a host can do takes some milliseconds. */
static int choose_accel(struct config *c, struct qz_error *err)
{
    struct accel_probe probe = {0};
    const struct accel_ops *ops;
    int r;

    if (strcmp(c->accel, "auto"))
        return 0;
    r = accel_choose(c->accel, &ops, &probe, err);
    if (r == 0)
        c->accel = ops->name;
    return r;
}

int hv_clone(int argc, char **argv)
{
    struct config c = {.count = 1, .accel = "auto"};
    struct qz_error err = {0};
    struct snapshot_source s;
    char vmm[4096], tag[64];
    struct timespec now; /* overlays are named for it: one machine may be cloned often */
    char *operand;
    int r = qz_operands_parse(hv_clone_options, argc, argv, &c, &operand, 1, 1,
                              "name a machine by its control socket, or a snapshot's folder", &err);

    if (r < 0)
        return qz_complain("queztl-hv clone", QZ_EXIT_USAGE, &err);
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(tag, sizeof(tag), "clone-%lld-%06ld", (long long)now.tv_sec, now.tv_nsec / 1000);
    if (find_vmm(vmm, sizeof(vmm), &err) < 0 || choose_accel(&c, &err) < 0 ||
        snapshot_source_open(&s, operand, tag, c.load, &err) < 0)
        return qz_complain("queztl-hv clone",
                           err.code == -ENOENT ? QZ_EXIT_NOT_FOUND : QZ_EXIT_FAILED, &err);
    if (is_words(json_object_get(s.description, "options")) &&
        is_words(json_object_get(s.description, "command")))
        r = run_clones(&c, vmm, &s, &err);
    else
        r = qz_fail(&err, -EINVAL, "%s: no list of options: it is no machine's snapshot", operand);
    snapshot_source_close(&s);
    return r < 0 ? qz_complain("queztl-hv clone", QZ_EXIT_FAILED, &err) : QZ_EXIT_OK;
}

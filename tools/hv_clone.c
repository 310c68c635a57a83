/* hv_clone.c - `queztl-hv clone`: machines that go on from one moment of another. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

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

const struct qz_option hv_clone_options[] = {
    {"count", "N", "how many (default 1)", set_count},
    {"folder", "DIR",
     "where each clone's control socket, console and messages go: NAME.sock, NAME.console,\n"
     "NAME.log (default: here)",
     set_folder},
    {"accel", "auto|kvm|jit", "what executes the clones (default auto)", set_accel},
    {"load", "auto|lazy|eager",
     "memory of a snapshot's folder: as the clones need it, or before they begin (default auto)",
     set_load},
    {0},
};

struct clone {
    char name[96], socket[512], console[512];
    pid_t pid;
    int log;
};

static int start_machine_from(const struct words *w, const struct snapshot_source *s,
                              const struct overlays *disks, int messages)
{
    int fds[HANDED_MAX];
    const unsigned count = snapshot_descriptors(s, disks, fds);

    return start_machine(w, fds, count, messages);
}

static const char *name_of(const json_t *options)
{
    const char *name = machine_option(options, "--name");

    return name ? name : "vm";
}

/* A variable store for firmware of its own, NAME.vars in the folder; *path is the caller's to free,
 * NULL: the machine has none. */
static int copy_store(char **path, const struct config *c, const json_t *options,
                      const struct clone *k, struct qz_error *err)
{
    const char *from = machine_option(options, "--firmware-vars");

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

/* What makes this clone: the machine's options, and those that tell clones apart. */
static int clone_words(struct words *w, const char *vmm, const struct config *c,
                       const struct snapshot_source *s, const struct clone *k,
                       const struct overlays *disks, const char *store)
{
    static const char *const without[] = {"--firmware-vars", NULL};
    const json_t *command = json_object_get(s->description, "command");

    if (words_add(w, vmm) < 0 ||
        words_add_machine(w, json_object_get(s->description, "options"), disks, without) < 0 ||
        (store && add_option(w, "--firmware-vars", store) < 0) ||
        add_option(w, "--name", k->name) < 0 || add_option(w, "--control", k->socket) < 0 ||
        add_option(w, "--console", k->console) < 0 || add_option(w, "--accel", c->accel) < 0 ||
        words_add_snapshot(w, s, disks) < 0)
        return -ENOMEM;
    return json_array_size(command) && (words_add(w, "--") < 0 || words_add_list(w, command) < 0)
               ? -ENOMEM
               : 0;
}

static int begin_clone(struct clone *k, unsigned i, const char *vmm, const struct config *c,
                       const struct snapshot_source *s, struct qz_error *err)
{
    const char *folder = c->folder ? c->folder : ".";
    struct overlays disks;
    QZ_AUTO_FREE char *store = NULL;
    struct words w = {0};
    char log[512];
    int r;

    snprintf(k->name, sizeof(k->name), "%.60s-%u",
             name_of(json_object_get(s->description, "options")), i + 1);
    snprintf(k->socket, sizeof(k->socket), "%s/%s.sock", folder, k->name);
    snprintf(k->console, sizeof(k->console), "%s/%s.console", folder, k->name);
    snprintf(log, sizeof(log), "%s/%s.log", folder, k->name);
    k->log = open(log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (k->log < 0)
        return qz_fail(err, -errno, "%s: %s", log, strerror(errno));
    r = copy_store(&store, c, json_object_get(s->description, "options"), k, err);
    if (r < 0)
        return r;
    r = overlays_in(&disks, json_object_get(s->description, "disks"), folder, k->name, err);
    if (r < 0)
        return r;
    r = clone_words(&w, vmm, c, s, k, &disks, store);
    k->pid = r < 0 ? r : start_machine_from(&w, s, &disks, k->log);
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

static int run_clones(const struct config *c, const char *vmm, const struct snapshot_source *s,
                      struct qz_error *err)
{
    QZ_AUTO_FREE struct clone *clones = calloc(c->count, sizeof(*clones));
    const int64_t began = qz_now_ns(), limit = began + START_LIMIT_MS * INT64_C(1000000);
    unsigned started = 0;
    int r = clones ? 0 : qz_fail(err, -ENOMEM, "no memory");

    while (r == 0 && started < c->count) {
        r = begin_clone(&clones[started], started, vmm, c, s, err);
        started++;
    }
    for (unsigned i = 0; i < started; i++) {
        if (r == 0 && (r = wait_for_clone(&clones[i], limit, err)) == 0)
            printf("%s\t%d\t%s\n", clones[i].name, clones[i].pid, clones[i].socket);
        if (clones[i].log > 0)
            close(clones[i].log);
    }
    if (r == 0)
        fprintf(stderr, "%llu clones run after %.1f ms\n", (unsigned long long)c->count,
                (double)(qz_now_ns() - began) / 1e6);
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

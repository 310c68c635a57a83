/* snapshot_source.c - folders and running machines as what clones are made of
 * (snapshot_source.h). */
#include "snapshot_source.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent_client.h"
#include "control_client.h"
#include "disk_overlays.h"
#include "machine_identity.h"
#include "snapshot/snapshot_dir.h"
#include "snapshot/userfault.h"
#include "snapshot_layers.h"
#include "snapshot_pager.h"
#include "snapshot_words.h"
#include "vm/vm_snapshot.h"

_Static_assert((int)VM_SNAPSHOT_FILES <= (int)CONTROL_DESCRIPTORS_MAX,
               "an answer is received whole");

/* Less is read before a process for it has begun. */
#define LAZY_MIN      (4ull << 20)
#define PING_LIMIT_NS INT64_C(300000000)

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

static int memory_file(const char *name, uint64_t size)
{
    QZ_AUTO_FD int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    return fd < 0 || ftruncate(fd, (off_t)size) < 0 ? -errno : QZ_TAKE_FD(fd);
}

static int seal(int fd)
{
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) < 0 ? -errno
                                                                                         : 0;
}

static int load_state(struct snapshot_source *s, struct snapshot_dir *dir, struct qz_error *err)
{
    QZ_AUTO_FREE void *bytes = NULL;
    size_t len = 0;
    int r = snapshot_dir_read_state(dir, &bytes, &len, err);

    if (r < 0)
        return r;
    s->state = memory_file("queztl-state", len);
    if (s->state < 0)
        return qz_fail(err, s->state, "no file in memory: %s", strerror(-s->state));
    if (pwrite(s->state, bytes, len, 0) != (ssize_t)len || (r = seal(s->state)) < 0)
        return qz_fail(err, -ENOMEM, "no memory for %zu bytes of state", len);
    return 0;
}

static int load_memory(struct snapshot_source *s, struct snapshot_dir *dir, struct qz_error *err)
{
    const uint64_t size = snapshot_dir_memory_size(dir);
    void *to;
    int r;

    s->memory = memory_file("queztl-ram", size);
    if (s->memory < 0)
        return qz_fail(err, s->memory, "no file in memory: %s", strerror(-s->memory));
    to = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s->memory, 0);
    if (to == MAP_FAILED)
        return qz_fail(err, -errno, "cannot map the machine's memory: %s", strerror(errno));
    r = snapshot_dir_read_memory(dir, to, err);
    munmap(to, size);
    if (r == 0 && (r = seal(s->memory)) < 0)
        qz_fail(err, r, "memory cannot be sealed: %s (Linux 5.1 can)", strerror(-r));
    return r;
}

/* A huge page would come into the file whole, zeros and all. */
static int check_pages(const json_t *options, struct qz_error *err)
{
    const char *pages = option_nth(options, "--hugepages", 0);

    return pages && !strcmp(pages, "transparent")
               ? qz_fail(err, -ENOTSUP, "the machine has transparent huge pages: --load eager")
               : userfault_check(err);
}

/* Whether it is to be loaded lazily; a negative errno: it must be, and cannot. */
static int decide(struct snapshot_source *s, const struct snapshot_dir *dir,
                  enum snapshot_load load, struct qz_error *err)
{
    struct qz_error why = {0};
    char size[32];
    const uint64_t used = snapshot_dir_memory_used(dir);
    const char *text = load == SNAPSHOT_LOAD_EAGER ? "as it was asked for" : "it is little";
    int can = 0;

    if (load == SNAPSHOT_LOAD_LAZY || (load == SNAPSHOT_LOAD_AUTO && used >= LAZY_MIN)) {
        can = check_pages(json_object_get(s->description, "options"), &why) == 0;
        text = why.text;
    }
    qz_format_size(used, size, sizeof(size));
    if (can)
        snprintf(s->how, sizeof(s->how), "%s of memory are loaded lazily", size);
    else
        snprintf(s->how, sizeof(s->how), "%s of memory are loaded at once: %s", size, text);
    return !can && load == SNAPSHOT_LOAD_LAZY
               ? qz_fail(err, why.code, "memory cannot be loaded lazily: %s", why.text)
               : can;
}

static int load_lazily(struct snapshot_source *s, struct snapshot_dir *dir, const char *path,
                       struct qz_error *err)
{
    s->memory = memory_file("queztl-ram", snapshot_dir_memory_size(dir));
    if (s->memory < 0)
        return qz_fail(err, s->memory, "no file in memory: %s", strerror(-s->memory));
    s->pager = snapshot_pager_start(dir, path, s->memory, err);
    return s->pager < 0 ? s->pager : 0;
}

int snapshot_source_load(struct snapshot_source *s, const char *folder, enum snapshot_load load,
                         struct qz_error *err)
{
    struct snapshot_dir *dir;
    int r = snapshot_dir_open(&dir, folder, err);

    *s = (struct snapshot_source){.state = -1, .memory = -1, .pager = -1};
    if (r < 0)
        return r;
    s->description = json_deep_copy(snapshot_dir_description(dir));
    r = decide(s, dir, load, err);
    if (r >= 0) /* a pager begins to load before anything else is done */
        r = r ? load_lazily(s, dir, folder, err) : load_memory(s, dir, err);
    if (r == 0)
        r = load_state(s, dir, err);
    snapshot_dir_close(dir);
    if (r < 0)
        snapshot_source_close(s);
    return r;
}

/* What the answer to "snapshot" brings; its state is taken out of it. */
static int take_answer(struct snapshot_source *s, struct control_answer *a, struct qz_error *err)
{
    const json_t *size = json_object_get(a->data, "memory");
    const json_t *chunk = json_object_get(a->data, "layer_chunk");

    if (a->fds < 2)
        return qz_fail(err, -EREMOTEIO, "the answer has %u descriptors instead of 2 or more",
                       a->fds);
    s->memory = snapshot_layers_join(a->fd + 1, a->fds - 1, (uint64_t)json_integer_value(size),
                                     (uint64_t)json_integer_value(chunk), err);
    if (s->memory < 0)
        return s->memory;
    json_object_del(a->data, "layer_chunk"); /* of no matter to what is made of it */
    s->description = json_incref(a->data);
    s->state = a->fd[0];
    a->fd[0] = a->fd[--a->fds];
    return 0;
}

/* What the machine says of itself before it stands. */
static int ask_info(const char *socket_path, struct control_answer *a, struct qz_error *err)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    const int r = control_ask(socket_path, request, NULL, 0, a, err);

    json_decref(request);
    return r;
}

/*
 * Whether the guest has an agent, "ok" or "none"; NULL: it has not said. Asked once and before the
 * machine stands, so that many that begin from it need not be asked.
 */
static const char *ask_agent(const json_t *info)
{
    static char ping[] = "{\"cmd\":\"ping\"}\n";
    struct agent_call call = {
        .path = vsock_path(option_nth(json_object_get(info, "options"), "--vsock", 0)),
        .line = ping};
    const char *state = json_string_value(json_object_get(info, "state"));

    if (!call.path)
        return "none";
    if (!state || strcmp(state, "running"))
        return NULL;
    agent_call_all(&call, 1, PING_LIMIT_NS);
    json_decref(call.data);
    return call.said == AGENT_OK ? "ok" : call.said == AGENT_NONE ? "none" : NULL;
}

static bool is_used(const char *path, const json_t *disks)
{
    for (size_t i = 0; i < json_array_size(disks); i++) {
        const char *file = json_string_value(json_object_get(json_array_get(disks, i), "file"));

        if (file && !strcmp(file, path))
            return true;
    }
    return false;
}

/* After a failure a disk may go on in its overlay all the same: what is used is asked, not guessed.
 */
static void remove_unused(const struct overlays *o, const char *socket_path)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    struct control_answer a;

    if (control_ask(socket_path, request, NULL, 0, &a, NULL) == 0) {
        for (unsigned i = 0; i < o->count; i++)
            if (!is_used(o->item[i].path, json_object_get(a.data, "disks")))
                unlink(o->item[i].path);
        control_answer_free(&a);
    }
    json_decref(request);
}

static int ask_snapshot(const char *socket_path, const struct overlays *o, struct control_answer *a,
                        struct qz_error *err)
{
    json_t *list = json_array(), *request;
    int fds[OVERLAYS_MAX], r;

    for (unsigned i = 0; i < o->count; i++) {
        fds[i] = o->item[i].fd;
        json_array_append_new(list, json_pack("[is]", (int)o->item[i].disk, o->item[i].path));
    }
    request = json_pack("{s:s,s:o}", "cmd", "snapshot", "overlays", list);
    r = control_ask(socket_path, request, fds, o->count, a, err);
    json_decref(request);
    return r;
}

int snapshot_source_freeze(struct snapshot_source *s, const char *socket_path, const char *tag,
                           struct qz_error *err)
{
    struct overlays overlays;
    struct control_answer a, info;
    const char *agent;
    int r = ask_info(socket_path, &info, err);

    *s = (struct snapshot_source){.state = -1, .memory = -1, .pager = -1};
    if (r < 0)
        return r;
    agent = ask_agent(info.data);
    r = overlays_beside(&overlays, json_object_get(info.data, "disks"), tag, err);
    control_answer_free(&info);
    if (r < 0)
        return r;
    r = ask_snapshot(socket_path, &overlays, &a, err);
    if (r < 0)
        remove_unused(&overlays, socket_path);
    overlays_end(&overlays, false);
    if (r < 0)
        return r;
    r = take_answer(s, &a, err);
    if (r == 0 && agent)
        json_object_set_new(s->description, "agent", json_string(agent));
    control_answer_free(&a);
    return r < 0 ? qz_error_prefix(err, "control socket %s", socket_path) : 0;
}

int snapshot_load_parse(const char *text, enum snapshot_load *load, struct qz_error *err)
{
    static const char *const words[] = {"auto", "lazy", "eager"};

    for (size_t i = 0; i < QZ_ARRAY_LEN(words); i++)
        if (!strcmp(text, words[i])) {
            *load = (enum snapshot_load)i;
            return 0;
        }
    return qz_fail(err, -EINVAL, "\"%s\": choose auto, lazy or eager", text);
}

int snapshot_source_open(struct snapshot_source *s, const char *where, const char *tag,
                         enum snapshot_load load, struct qz_error *err)
{
    struct stat st;
    int r;

    *s = (struct snapshot_source){.state = -1, .memory = -1, .pager = -1};
    if (stat(where, &st) < 0)
        return qz_fail(err, -errno,
                       "%s: %s: name a snapshot's folder, or a machine's control socket", where,
                       strerror(errno));
    r = S_ISSOCK(st.st_mode) ? snapshot_source_freeze(s, where, tag, err)
                             : snapshot_source_load(s, where, load, err);
    return r;
}

void snapshot_source_close(struct snapshot_source *s)
{
    json_decref(s->description);
    if (s->state >= 0)
        close(s->state);
    if (s->memory >= 0)
        close(s->memory);
    if (s->pager >= 0)
        close(s->pager);
    *s = (struct snapshot_source){.state = -1, .memory = -1, .pager = -1};
}

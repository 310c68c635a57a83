/* host_pressure.c - pressure stall information, and the kernel's triggers for it (host_pressure.h).
 */
#include "vm/host_pressure.h"

#include <fcntl.h>
#include <limits.h>

QZ_SYSCALLS(main, "pread64");

enum { SOURCES = 2, WINDOW_US = 2000000 }; /* what may be asked for without privileges */
#define OLD_NS 5000000000ll

static const char host_file[] = "/proc/pressure/memory";

struct source {
    struct host_pressure *owner;
    struct qz_watch watch; /* fd -1: there is none */
    uint64_t total_us;
    bool told; /* by the kernel, since it was read */
};

struct host_pressure {
    uint32_t threshold;
    void (*risen)(void *context);
    void *context;
    int64_t read_at;
    struct source source[SOURCES];
};

int host_pressure_parse(const char *text, uint64_t *total_us)
{
    unsigned long long v;

    if (sscanf(text, "some avg10=%*f avg60=%*f avg300=%*f total=%llu", &v) != 1)
        return -EINVAL;
    *total_us = v;
    return 0;
}

/* The line of version 2 is "0::PATH". */
static int own_group(const char *cgroup, char *path, size_t size)
{
    for (const char *line = cgroup; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, "0::/", 4)) {
            snprintf(path, size, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
            return 0;
        }
    }
    return -ENOENT;
}

/* proc(5): ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS ... - TYPE SOURCE OPTIONS */
static int mount_of_groups(const char *mountinfo, char *root, char *at)
{
    for (const char *line = mountinfo; line; line = strchr(line, '\n')) {
        const char *type;

        line += *line == '\n';
        type = strstr(line, " - ");
        if (type && type < line + strcspn(line, "\n") && !strncmp(type, " - cgroup2 ", 11) &&
            sscanf(line, "%*u %*u %*u:%*u %255s %255s", root, at) == 2)
            return 0;
    }
    return -ENOENT;
}

int host_pressure_path(const char *cgroup, const char *mountinfo, char *path, size_t size)
{
    char group[256], root[256], at[256];
    const char *below = group;
    size_t len;
    int r = own_group(cgroup, group, sizeof(group));

    if (r == 0)
        r = mount_of_groups(mountinfo, root, at);
    if (r < 0)
        return r;
    /* A mount may show a part of the hierarchy only. */
    len = strcmp(root, "/") ? strlen(root) : 0;
    if (len && !strncmp(group, root, len))
        below += len;
    r = snprintf(path, size, "%s%s%smemory.pressure", at, below,
                 *below && below[strlen(below) - 1] == '/' ? "" : "/");
    return r < 0 || (size_t)r >= size ? -ENAMETOOLONG : 0;
}

/* ---- one file */

static int read_total(struct source *s, uint64_t *total_us)
{
    char text[256];
    const ssize_t n = pread(s->watch.fd, text, sizeof(text) - 1, 0);

    if (n < 0)
        return -errno;
    text[n] = '\0';
    return host_pressure_parse(text, total_us);
}

static void forget(struct source *s)
{
    qz_loop_remove(&s->watch);
    close(s->watch.fd);
    s->watch.fd = -1;
}

static void on_event(struct qz_watch *w, uint32_t events)
{
    struct source *s = QZ_CONTAINER_OF(w, struct source, watch);

    if (events & EPOLLERR) { /* the group is gone: this process was moved to another */
        forget(s);
        return;
    }
    s->told = true;
    s->owner->risen(s->owner->context);
}

/* Without a trigger it is only read. */
static int open_source(struct host_pressure *h, struct source *s, const char *path,
                       struct qz_loop *loop)
{
    char trigger[64];
    int r;

    s->watch.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (s->watch.fd >= 0) {
        /* Its end is part of what the kernel reads. */
        const int len = snprintf(trigger, sizeof(trigger), "some %u %u",
                                 h->threshold * (WINDOW_US / 10000), WINDOW_US);

        if (write(s->watch.fd, trigger, (size_t)len + 1) > 0)
            qz_loop_add(loop, &s->watch, s->watch.fd, EPOLLPRI, on_event);
    } else {
        s->watch.fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (s->watch.fd < 0)
        return -errno;
    r = read_total(s, &s->total_us);
    if (r < 0)
        forget(s);
    return r;
}

static int read_text(const char *path, char *text, size_t size)
{
    QZ_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    while (fd >= 0 && len < size - 1 && (n = read(fd, text + len, size - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    return len ? 0 : -ENOENT;
}

static void open_own_group(struct host_pressure *h, struct qz_loop *loop)
{
    enum { MOUNTS_MAX = 1 << 20 };
    QZ_AUTO_FREE char *mounts = malloc(MOUNTS_MAX);
    char cgroup[4096], path[PATH_MAX];
    int r;

    if (!mounts || read_text("/proc/self/cgroup", cgroup, sizeof(cgroup)) < 0 ||
        read_text("/proc/self/mountinfo", mounts, MOUNTS_MAX) < 0)
        return;
    r = host_pressure_path(cgroup, mounts, path, sizeof(path));
    if (r == 0)
        r = open_source(h, &h->source[1], path, loop);
    qz_info("balloon: the pressure in this process's own control group is %s%s",
            r < 0 ? "not told: " : "looked at", r < 0 ? strerror(-r) : "");
}

/* ---- both */

int host_pressure_new(struct host_pressure **out, struct qz_loop *loop, uint32_t threshold,
                      void (*risen)(void *context), void *context, struct qz_error *err)
{
    struct host_pressure *h = calloc(1, sizeof(*h));
    int r;

    if (!h)
        return qz_fail(err, -ENOMEM, "balloon: no memory");
    *h = (struct host_pressure){
        .threshold = threshold, .risen = risen, .context = context, .read_at = qz_now_ns()};
    for (unsigned i = 0; i < SOURCES; i++) {
        h->source[i].owner = h;
        h->source[i].watch.fd = -1;
    }
    r = open_source(h, &h->source[0], host_file, loop);
    if (r < 0) {
        host_pressure_free(h);
        return qz_fail(err, -ENOTSUP,
                       "--balloon auto: this host does not tell its memory pressure (%s: %s): boot "
                       "it with psi=1 and a kernel that has CONFIG_PSI, or set the balloon by hand "
                       "(--balloon manual)",
                       host_file, strerror(-r));
    }
    open_own_group(h, loop);
    *out = h;
    return 0;
}

void host_pressure_free(struct host_pressure *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < SOURCES; i++)
        if (h->source[i].watch.fd >= 0)
            forget(&h->source[i]);
    free(h);
}

static uint32_t read_source(struct host_pressure *h, struct source *s, int64_t since_ns)
{
    const bool told = s->told;
    uint64_t total, stood;

    s->told = false;
    if (read_total(s, &total) < 0)
        return 0;
    stood = total > s->total_us ? total - s->total_us : 0;
    s->total_us = total;
    if (since_ns > OLD_NS)
        return told ? h->threshold : 0;
    return (uint32_t)QZ_MIN(stood * 10000 * 1000 / (uint64_t)QZ_MAX(since_ns, 1000000ll), 10000ull);
}

uint32_t host_pressure_read(struct host_pressure *h)
{
    const int64_t now = qz_now_ns(), since = now - h->read_at;
    uint32_t worst = 0;

    for (unsigned i = 0; i < SOURCES; i++)
        if (h->source[i].watch.fd >= 0)
            worst = QZ_MAX(worst, read_source(h, &h->source[i], since));
    h->read_at = now;
    return worst;
}

bool host_pressure_tells(const struct host_pressure *h)
{
    for (unsigned i = 0; i < SOURCES; i++)
        if (h->source[i].watch.fd >= 0 && !h->source[i].watch.loop)
            return false;
    return true;
}

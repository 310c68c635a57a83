/* pager.c - see pager.h. */
#include "snapshot/pager.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "snapshot/lazy_memory.h"
#include "snapshot/pager_machine.h"

enum {
    FAULTS_AT_ONCE = 64,
    AGAIN_MS = 10, /* to say something to somebody who does not listen just now */
    FOREVER = -1,
};
#define REPORT_NS INT64_C(20000000)
/*
 * While it is recorded what machines need, nothing is loaded that none asked for, until there is
 * one and none has asked for so long: the recording would lack it. But not for ever.
 */
#define QUIET_NS  INT64_C(100000000)
#define LATEST_NS INT64_C(2000000000)

struct pager {
    const struct pager_job *job;
    struct lazy_memory *memory; /* NULL: it failed at once */
    struct qz_loop *loop;
    struct qz_watch door;
    struct pager_machine *machines;
    bool hurry, failed, recorded;
    char failure[480];
    int64_t came_ns;  /* when the first machine did; 0: none has */
    int64_t asked_ns; /* when somebody needed something last, or came */
    int64_t said_ns;  /* when machines heard of progress last */
    int64_t since_ns; /* a fault that is found now was not there before; 0: when it is found */
};

static void fail(struct pager *p, const struct qz_error *err)
{
    p->failed = true;
    snprintf(p->failure, sizeof(p->failure), "%s", err->text);
}

static bool is_whole(const struct pager *p)
{
    return !p->failed && lazy_memory_is_whole(p->memory);
}

/* ---- faults */

static void serve(struct pager *p, struct pager_machine *m, const struct uffd_msg *msg)
{
    const uint64_t offset = pager_machine_offset(m, msg->arg.pagefault.address);
    struct qz_error err = {0};
    uint64_t begin, len;

    if (msg->event != UFFD_EVENT_PAGEFAULT || offset == UINT64_MAX) {
        m->gone = true;
        return;
    }
    if (lazy_memory_need(p->memory, offset, &begin, &len, &err) < 0)
        return fail(p, &err);
    if (pager_machine_wake(m, begin, len) < 0)
        m->gone = true;
    m->served++;
}

static void on_faults(struct qz_watch *w, uint32_t events)
{
    struct pager_machine *m = QZ_CONTAINER_OF(w, struct pager_machine, faults);
    struct pager *p = m->pager;
    struct uffd_msg msg;

    if (!p->since_ns)
        p->since_ns = qz_now_ns();
    for (unsigned i = 0; i < FAULTS_AT_ONCE && !p->failed && !m->gone; i++) {
        if (read(w->fd, &msg, sizeof(msg)) != sizeof(msg)) {
            m->gone = errno != EAGAIN;
            break;
        }
        serve(p, m, &msg);
        p->asked_ns = qz_now_ns();
        m->longest_ns = QZ_MAX(m->longest_ns, p->asked_ns - p->since_ns);
    }
}

/* ---- machines come and go */

static void on_channel(struct qz_watch *w, uint32_t events)
{
    struct pager_machine *m = QZ_CONTAINER_OF(w, struct pager_machine, channel);
    char word;
    const ssize_t n = recv(w->fd, &word, 1, MSG_DONTWAIT);

    if (n == 1)
        m->pager->hurry = m->pager->hurry || word == PAGER_HURRY;
    else
        m->gone = n == 0 || errno != EAGAIN;
}

static int begin_with(struct pager *p, struct pager_machine *m, struct qz_error *err)
{
    size_t count;
    const struct lazy_range *range = lazy_memory_ranges(p->memory, &count);
    int r = pager_machine_stop_at(m, range, count);

    if (r == 0)
        r = qz_loop_add(p->loop, &m->faults, m->faults.fd, EPOLLIN, on_faults);
    if (r == 0)
        r = qz_loop_add(p->loop, &m->channel, m->channel.fd, EPOLLIN, on_channel);
    if (r == 0)
        r = pager_machine_say(m, PAGER_READY, p->memory, p->job->path);
    p->asked_ns = qz_now_ns();
    if (!p->came_ns)
        p->came_ns = p->asked_ns;
    return r < 0 ? qz_fail(err, r, "memory cannot be loaded page by page: %s", strerror(-r)) : 0;
}

/* What fails already, or is whole already, it hears when all do. */
static void take_in(struct pager *p, const struct pager_hello *hello, const int *fd)
{
    struct pager_machine *m = pager_machine_new(p, hello, fd[0], fd[1]);
    struct qz_error err = {0};

    if (!m)
        return;
    if (!p->failed && !is_whole(p) && begin_with(p, m, &err) < 0) {
        pager_machine_say(m, PAGER_FAILED, NULL, err.text);
        pager_machine_free(m);
        return;
    }
    m->next = p->machines;
    p->machines = m;
}

/* The descriptors of a message; how many. */
static unsigned take_descriptors(struct msghdr *msg, int *fd)
{
    unsigned count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int))
                if (count < PAGER_HELLO_FDS)
                    memcpy(&fd[count++], (uint8_t *)c + at, sizeof(int));
    return count;
}

static void close_door(struct pager *p)
{
    qz_loop_remove(&p->door);
    close(p->door.fd);
    p->door.fd = -1;
}

static void on_door(struct qz_watch *w, uint32_t events)
{
    struct pager *p = QZ_CONTAINER_OF(w, struct pager, door);
    struct pager_hello hello;
    char control[CMSG_SPACE(PAGER_HELLO_FDS * sizeof(int))];
    struct iovec to = {&hello, sizeof(hello)};
    struct msghdr msg = {
        .msg_iov = &to, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    int fd[PAGER_HELLO_FDS];
    const ssize_t n = recvmsg(w->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    unsigned count;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        close_door(p);
        return;
    }
    count = take_descriptors(&msg, fd);
    if (n == sizeof(hello) && count == PAGER_HELLO_FDS)
        take_in(p, &hello, fd);
    else
        while (count)
            close(fd[--count]);
}

static void bury(struct pager *p)
{
    for (struct pager_machine **at = &p->machines; *at;) {
        struct pager_machine *m = *at;

        if (m->gone) {
            *at = m->next;
            pager_machine_free(m);
        } else {
            at = &m->next;
        }
    }
}

/* ---- loading ahead */

/* For how long nothing is loaded that nobody needs; 0: now it is. */
static int quiet_ms(const struct pager *p, int64_t now)
{
    const int64_t until = QZ_MIN(p->asked_ns + QUIET_NS, p->came_ns + LATEST_NS);

    if (p->hurry || !p->job->record)
        return 0;
    if (!p->came_ns)
        return FOREVER;
    return now < until ? (int)((until - now) / 1000000) + 1 : 0;
}

/* How long nothing needs to be loaded; 0: there is more. */
static int load_ahead(struct pager *p)
{
    const int64_t now = qz_now_ns();
    struct qz_error err = {0};
    int r, wait = 0;

    p->since_ns = now;
    r = lazy_memory_load_first(p->memory, &err);
    if (r == 1 && (wait = quiet_ms(p, now)) == 0)
        r = lazy_memory_load_next(p->memory, &err);
    if (r < 0)
        fail(p, &err);
    return wait;
}

/* ---- telling */

/* True: they all have heard of the end, and are gone. */
static bool tell_end(struct pager *p)
{
    const enum pager_word word = p->failed ? PAGER_FAILED : PAGER_DONE;

    for (struct pager_machine *m = p->machines; m; m = m->next)
        m->gone = m->gone || pager_machine_say(m, word, p->memory, p->failure) != -EAGAIN;
    bury(p);
    return !p->machines;
}

static void tell_progress(struct pager *p)
{
    const int64_t now = qz_now_ns();

    if (now - p->said_ns < REPORT_NS)
        return;
    p->said_ns = now;
    for (struct pager_machine *m = p->machines; m; m = m->next)
        pager_machine_say(m, PAGER_LOADING, p->memory, "");
}

/* A folder that cannot be written is as good as any. */
static void record(struct pager *p)
{
    const struct working_set *needed = lazy_memory_needed(p->memory);

    p->recorded = true;
    if (p->job->record && needed->count)
        working_set_write(p->job->snapshot, needed, NULL);
}

/* ---- all of it */

/* What is to be done without being asked; how long to wait for what is asked. */
static int work(struct pager *p)
{
    if (p->failed || is_whole(p)) {
        if (!tell_end(p))
            return AGAIN_MS;
        if (is_whole(p) && !p->recorded)
            record(p);
        return FOREVER;
    }
    tell_progress(p);
    return load_ahead(p);
}

/* Each machine takes two descriptors. */
static void allow_many_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void pager_run(const struct pager_job *job, int door)
{
    struct pager p = {.job = job, .door = {.fd = -1}};
    struct qz_error err = {0};

    allow_many_descriptors();
    if (qz_loop_new(&p.loop, &err) < 0 ||
        qz_loop_add(p.loop, &p.door, door, EPOLLIN, on_door) < 0) {
        close(door); /* which is all that can be said */
        qz_loop_free(p.loop);
        return;
    }
    if (lazy_memory_new(&p.memory, job->snapshot, job->memory, job->first, &err) < 0)
        fail(&p, &err);
    while (p.door.fd >= 0 || p.machines) {
        const int wait = work(&p);

        if (wait)
            p.since_ns = 0;
        if ((p.door.fd < 0 && !p.machines) || qz_loop_once(p.loop, wait) < 0)
            break;
        bury(&p);
    }
    while (p.machines) {
        p.machines->gone = true;
        bury(&p);
    }
    if (p.door.fd >= 0)
        close_door(&p);
    lazy_memory_free(p.memory);
    qz_loop_free(p.loop);
}

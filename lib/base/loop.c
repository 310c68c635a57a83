/*
 * loop.c - the event loop of <queztl/loop.h>.
 *
 * Theory of operation. One epoll set; an eventfd in it wakes the loop for posted work and for stop.
 * Timers are a list sorted by deadline (loops have a handful, so a list beats a heap), turned into
 * the epoll timeout. Posted work is a lock-free stack that the loop takes whole and reverses, so
 * work runs in the order it was posted.
 */
#include <poll.h>
#include <queztl/loop.h>
#include <sys/eventfd.h>

QZ_SYSCALLS(all, "epoll_wait epoll_pwait epoll_pwait2 epoll_ctl poll read write gettid");

enum { BATCH = 32 };

struct qz_loop {
    int epoll_fd;
    int wake_fd;
    struct qz_timer *timers;
    struct qz_work *posted; /* atomic stack */
    int stopped;            /* atomic */
    int code;
    pthread_t thread;
    bool running;
    struct epoll_event batch[BATCH];
    int batch_len, batch_next;
};

int qz_loop_new(struct qz_loop **out, struct qz_error *err)
{
    struct qz_loop *loop = calloc(1, sizeof(*loop));
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

    if (!loop)
        return qz_fail(err, -ENOMEM, "event loop: no memory");
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
        int code = -errno;

        qz_loop_free(loop);
        return qz_fail(err, code, "event loop: %s", strerror(-code));
    }
    *out = loop;
    return 0;
}

void qz_loop_free(struct qz_loop *loop)
{
    if (!loop)
        return;
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop);
}

static void wake(struct qz_loop *loop)
{
    uint64_t one = 1;

    /* Fails only when the counter is full, and then the loop is awake anyway. */
    if (write(loop->wake_fd, &one, sizeof(one)) < 0)
        return;
}

int qz_loop_add(struct qz_loop *loop, struct qz_watch *w, int fd, uint32_t events,
                void (*ready)(struct qz_watch *w, uint32_t events))
{
    struct epoll_event ev = {.events = events, .data.ptr = w};

    w->fd = fd;
    w->ready = ready;
    w->events = events;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
        return -errno;
    w->loop = loop;
    return 0;
}

int qz_loop_modify(struct qz_watch *w, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};

    if (w->events == events)
        return 0;
    if (epoll_ctl(w->loop->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) < 0)
        return -errno;
    w->events = events;
    return 0;
}

void qz_loop_remove(struct qz_watch *w)
{
    struct qz_loop *loop = w->loop;

    if (!loop)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    for (int i = loop->batch_next; i < loop->batch_len; i++)
        if (loop->batch[i].data.ptr == w)
            loop->batch[i].events = 0;
    w->loop = NULL;
}

void qz_timer_arm(struct qz_loop *loop, struct qz_timer *t, int64_t deadline_ns,
                  void (*fire)(struct qz_timer *t))
{
    struct qz_timer **at = &loop->timers;

    qz_timer_cancel(t);
    while (*at && (*at)->deadline_ns <= deadline_ns)
        at = &(*at)->next;
    t->fire = fire;
    t->loop = loop;
    t->deadline_ns = deadline_ns;
    t->next = *at;
    t->pprev = at;
    if (t->next)
        t->next->pprev = &t->next;
    *at = t;
}

void qz_timer_cancel(struct qz_timer *t)
{
    if (!t->loop)
        return;
    *t->pprev = t->next;
    if (t->next)
        t->next->pprev = t->pprev;
    t->loop = NULL;
}

void qz_loop_post(struct qz_loop *loop, struct qz_work *w, void (*run)(struct qz_work *w))
{
    struct qz_work *head;

    if (__atomic_exchange_n(&w->queued, 1, __ATOMIC_ACQ_REL))
        return;
    w->run = run;
    head = __atomic_load_n(&loop->posted, __ATOMIC_RELAXED);
    do {
        w->next = head;
        /* Release pairs with the acquire in run_posted(): the loop sees what was written before. */
    } while (!__atomic_compare_exchange_n(&loop->posted, &head, w, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    wake(loop);
}

static void run_posted(struct qz_loop *loop)
{
    struct qz_work *taken = __atomic_exchange_n(&loop->posted, NULL, __ATOMIC_ACQUIRE),
                   *list = NULL;

    while (taken) {
        struct qz_work *next = taken->next;

        taken->next = list;
        list = taken;
        taken = next;
    }
    while (list) {
        struct qz_work *w = list;

        list = w->next;
        /* From here on w may be posted again, or freed by its own callback. */
        __atomic_store_n(&w->queued, 0, __ATOMIC_RELEASE);
        w->run(w);
    }
}

static void run_timers(struct qz_loop *loop)
{
    int64_t now = loop->timers ? qz_now_ns() : 0;

    while (loop->timers && loop->timers->deadline_ns <= now) {
        struct qz_timer *t = loop->timers;

        qz_timer_cancel(t);
        t->fire(t);
    }
}

static int wait_ms(const struct qz_loop *loop, int timeout_ms)
{
    int64_t left;

    if (!loop->timers)
        return timeout_ms;
    left = loop->timers->deadline_ns - qz_now_ns();
    left = left <= 0 ? 0 : (left + 999999) / 1000000;
    if (left > INT32_MAX)
        left = INT32_MAX;
    return timeout_ms < 0 || left < timeout_ms ? (int)left : timeout_ms;
}

int qz_loop_once(struct qz_loop *loop, int timeout_ms)
{
    int n = epoll_wait(loop->epoll_fd, loop->batch, BATCH, wait_ms(loop, timeout_ms));

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    loop->batch_len = n;
    for (loop->batch_next = 0; loop->batch_next < loop->batch_len;) {
        struct epoll_event *ev = &loop->batch[loop->batch_next++];
        struct qz_watch *w = ev->data.ptr;

        if (!w) {
            uint64_t count;

            if (read(loop->wake_fd, &count, sizeof(count)) < 0)
                continue;
        } else if (ev->events) {
            w->ready(w, ev->events);
        }
    }
    loop->batch_len = 0;
    run_posted(loop);
    run_timers(loop);
    return n;
}

int qz_loop_run(struct qz_loop *loop)
{
    loop->thread = pthread_self();
    __atomic_store_n(&loop->running, true, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&loop->stopped, __ATOMIC_ACQUIRE)) {
        int r = qz_loop_once(loop, -1);

        if (r < 0)
            return r;
    }
    __atomic_store_n(&loop->running, false, __ATOMIC_RELEASE);
    return loop->code;
}

void qz_loop_stop(struct qz_loop *loop, int code)
{
    int expected = 0;

    /* The first stop decides the code. 1: code being written, 2: seen by the loop as non-zero too.
     */
    if (__atomic_load_n(&loop->stopped, __ATOMIC_ACQUIRE) == expected) {
        loop->code = code;
        __atomic_store_n(&loop->stopped, 1, __ATOMIC_RELEASE);
    }
    wake(loop);
}

bool qz_loop_pending(struct qz_loop *loop, int timeout_ms)
{
    struct pollfd p = {.fd = loop->epoll_fd, .events = POLLIN};

    return __atomic_load_n(&loop->posted, __ATOMIC_RELAXED) || poll(&p, 1, timeout_ms) > 0;
}

bool qz_loop_is_current(const struct qz_loop *loop)
{
    return __atomic_load_n(&loop->running, __ATOMIC_ACQUIRE) &&
           pthread_equal(loop->thread, pthread_self());
}

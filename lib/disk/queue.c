/*
 * queue.c - io_uring and what comes from other threads (queue.h).
 *
 * The ring is made disabled and starts on the thread that uses it first, because a ring with
 * SINGLE_ISSUER and DEFER_TASKRUN (completions are put together only when that thread asks) belongs
 * to one thread. Other threads push work on a list and write an eventfd, of which the ring always
 * has a read pending when its thread waits: so one wait waits for all. For an event loop the ring
 * signals the same eventfd: a ring with DEFER_TASKRUN does not wake who polls its own descriptor.
 */
#include <assert.h>
#include <linux/time_types.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "queue_internal.h"

QZ_SYSCALLS(io, "io_uring_enter io_uring_register preadv2 write");
QZ_SYSCALLS(main,
            "io_uring_setup io_uring_enter io_uring_register eventfd2 preadv2 write mmap munmap "
            "close sched_yield");

enum { FILES_MAX = 32, DEPTH_MIN = 8, DEPTH_MAX = 4096 };

static pthread_mutex_t index_lock = PTHREAD_MUTEX_INITIALIZER;
static bool index_used[DISK_QUEUES_MAX];
static uint64_t last_id;

static int take_index(void)
{
    QZ_LOCKED(&index_lock);

    for (unsigned i = 0; i < DISK_QUEUES_MAX; i++) {
        if (!index_used[i]) {
            index_used[i] = true;
            return (int)i;
        }
    }
    return -EMFILE;
}

static void give_index(unsigned i)
{
    QZ_LOCKED(&index_lock);

    index_used[i] = false;
}

unsigned queue_index(const struct disk_queue *q)
{
    return q->index;
}

uint64_t queue_id(const struct disk_queue *q)
{
    return q->id;
}

/* Kernels before 6.1 have no DEFER_TASKRUN; a plain ring does the same, slower. */
static int make_ring(struct disk_queue *q, unsigned depth)
{
    unsigned common = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE;
    struct io_uring_params p = {.flags = common | IORING_SETUP_SINGLE_ISSUER |
                                         IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
                                .cq_entries = depth * 4};
    int r = io_uring_queue_init_params(depth, &q->ring, &p);

    if (r == -EINVAL) {
        p = (struct io_uring_params){.flags = common, .cq_entries = depth * 4};
        r = io_uring_queue_init_params(depth, &q->ring, &p);
    }
    return r;
}

int queue_new(struct disk_queue **out, unsigned depth, struct qz_error *err)
{
    struct disk_queue *q = calloc(1, sizeof(*q));
    int r;

    if (!q)
        return qz_fail(err, -ENOMEM, "disk queue: no memory");
    r = take_index();
    if (r < 0) {
        free(q);
        return qz_fail(err, r, "disk queue: this process has %d of them already", DISK_QUEUES_MAX);
    }
    q->index = (unsigned)r;
    q->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    q->event_fd = eventfd(0, EFD_CLOEXEC);
    if (q->event_fd < 0) {
        r = qz_fail(err, -errno, "disk queue: eventfd: %s", strerror(errno));
    } else if ((r = make_ring(q, QZ_MIN(QZ_MAX(depth, (unsigned)DEPTH_MIN), (unsigned)DEPTH_MAX))) <
               0) {
        r = qz_fail(err, r, "disk queue: io_uring: %s%s", strerror(-r),
                    r == -EPERM || r == -EACCES
                        ? " (sysctl kernel.io_uring_disabled=0, or a looser container profile)"
                    : r == -ENOMEM ? " (raise ulimit -l)"
                                   : "");
        close(q->event_fd);
    }
    if (r < 0) {
        give_index(q->index);
        free(q);
        return r;
    }
    *out = q;
    return 0;
}

void queue_free(struct disk_queue *q)
{
    if (!q)
        return;
    assert(!q->living && !q->ready);
    /* Work of another thread may be done before that thread has left queue_post(). */
    while (__atomic_load_n(&q->posting, __ATOMIC_ACQUIRE))
        sched_yield();
    task_pool_free(q);
    while (q->blocks) {
        struct queue_block *b = q->blocks;

        q->blocks = b->next;
        free(b);
    }
    io_uring_queue_exit(&q->ring);
    close(q->event_fd);
    give_index(q->index);
    free(q);
}

/* The calling thread becomes the queue's own. */
static void make_own(struct disk_queue *q)
{
    q->owner = pthread_self();
    __atomic_store_n(&q->bound, true, __ATOMIC_RELEASE); /* pairs with queue_is_current */
    /* By its number: liburing 2.3 declares io_uring_enable_rings() and does not export it. */
    syscall(SYS_io_uring_register, q->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    q->files_ready = io_uring_register_files_sparse(&q->ring, FILES_MAX) == 0;
}

static void use(struct disk_queue *q)
{
    if (__builtin_expect(!q->bound, 0))
        make_own(q);
}

bool queue_is_current(const struct disk_queue *q)
{
    return __atomic_load_n(&q->bound, __ATOMIC_ACQUIRE) && pthread_equal(q->owner, pthread_self());
}

int queue_register_file(struct disk_queue *q, int fd)
{
    use(q);
    if (!q->files_ready || q->files >= FILES_MAX ||
        io_uring_register_files_update(&q->ring, q->files, &fd, 1) < 0)
        return -1;
    return (int)q->files++;
}

void *queue_take(struct disk_queue *q)
{
    struct queue_block *b = q->blocks;

    if (!b)
        return malloc(QUEUE_BLOCK);
    q->blocks = b->next;
    return b;
}

void queue_give(struct disk_queue *q, void *block)
{
    struct queue_block *b = block;

    b->next = q->blocks;
    q->blocks = b;
}

/* ---- entries */

struct io_uring_sqe *queue_sqe(struct disk_queue *q, struct queue_io *io)
{
    struct io_uring_sqe *sqe;

    use(q);
    /* A busy completion queue (EBUSY) drains only through us, which must not run completions here:
     * the kernel keeps what does not fit (no entry is lost), so trying again ends. */
    while (!(sqe = io_uring_get_sqe(&q->ring)))
        io_uring_submit(&q->ring);
    io_uring_sqe_set_data(sqe, io);
    return sqe;
}

void queue_timer(struct disk_queue *q, struct queue_timer *t, int64_t deadline_ns,
                 void (*done)(struct queue_io *io, int result))
{
    struct io_uring_sqe *sqe;

    _Static_assert(sizeof(t->at) == sizeof(struct __kernel_timespec), "the kernel reads it");
    t->io.done = done;
    t->deadline_ns = deadline_ns;
    t->at.seconds = deadline_ns / 1000000000;
    t->at.nanoseconds = deadline_ns % 1000000000;
    sqe = queue_sqe(q, &t->io);
    io_uring_prep_timeout(sqe, (struct __kernel_timespec *)&t->at, 0, IORING_TIMEOUT_ABS);
}

/* ---- work from other threads */

void queue_post(struct disk_queue *q, struct queue_work *w)
{
    static const uint64_t one = 1;
    struct queue_work *old = __atomic_load_n(&q->posted, __ATOMIC_RELAXED);

    __atomic_add_fetch(&q->posting, 1, __ATOMIC_RELAXED); /* the CAS below publishes it */
    do
        w->next = old;
    while (!__atomic_compare_exchange_n(&q->posted, &old, w, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    /* Only the first of a batch wakes: the others are found with it. */
    if (!old && write(q->event_fd, &one, sizeof(one)) != sizeof(one))
        qz_error_log("disk queue: cannot wake its thread: %s", strerror(errno));
    __atomic_sub_fetch(&q->posting, 1, __ATOMIC_RELEASE);
}

static int run_posted(struct disk_queue *q)
{
    struct queue_work *w, *in_order = NULL;
    int n = 0;

    if (!__atomic_load_n(&q->posted, __ATOMIC_RELAXED))
        return 0;
    w = __atomic_exchange_n(&q->posted, NULL, __ATOMIC_ACQUIRE); /* pairs with queue_post */
    while (w) {
        struct queue_work *next = w->next;

        w->next = in_order;
        in_order = w;
        w = next;
    }
    while (in_order) {
        w = in_order;
        in_order = w->next;
        w->run(w);
        n++;
    }
    return n;
}

static void on_event(struct queue_io *io, int result)
{
    struct disk_queue *q = QZ_CONTAINER_OF(io, struct disk_queue, event_io);

    q->event_armed = false;
}

static void arm_event(struct disk_queue *q)
{
    struct io_uring_sqe *sqe;

    if (q->event_armed)
        return;
    q->event_armed = true;
    q->event_io.done = on_event;
    sqe = queue_sqe(q, &q->event_io);
    io_uring_prep_read(sqe, q->event_fd, &q->event_count, sizeof(q->event_count), 0);
}

/* ---- serving */

static int serve(struct disk_queue *q)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    int n = 0;

    /* A completion may submit and so read the ring's head again: each is given back before its
     * callback runs. */
    for (;;) {
        struct queue_io *io;
        int result;

        io_uring_for_each_cqe(&q->ring, head, cqe) break;
        if (!cqe)
            break;
        io = io_uring_cqe_get_data(cqe);
        result = cqe->res;
        io_uring_cq_advance(&q->ring, 1);
        if (io)
            io->done(io, result);
        n++;
    }
    return n + run_posted(q);
}

void queue_kick(struct disk_queue *q)
{
    use(q);
    if (!q->watched)
        arm_event(q);
    if (io_uring_sq_ready(&q->ring))
        io_uring_submit(&q->ring); /* EAGAIN and EBUSY leave them for the next call */
}

/* The kernel says in the ring's flags when completions wait for us to ask for them. */
static bool kernel_wants_us(const struct disk_queue *q)
{
    return __atomic_load_n(q->ring.sq.kflags, __ATOMIC_RELAXED) &
           (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

bool queue_pending(const struct disk_queue *q)
{
    return io_uring_cq_ready(&q->ring) || kernel_wants_us(q) ||
           __atomic_load_n(&q->posted, __ATOMIC_RELAXED);
}

/* Takes the count out of the eventfd, if there is one. */
static void drain_event(struct disk_queue *q)
{
    uint64_t count;
    struct iovec v = {&count, sizeof(count)};

    if (preadv2(q->event_fd, &v, 1, -1, RWF_NOWAIT) < 0 && errno != EAGAIN)
        qz_error_log("disk queue: eventfd: %s", strerror(errno));
}

int queue_poll(struct disk_queue *q)
{
    int n;

    use(q);
    if (q->watched)
        drain_event(q);
    if (kernel_wants_us(q))
        io_uring_get_events(&q->ring);
    n = serve(q);
    queue_kick(q);
    return n;
}

int queue_wait(struct disk_queue *q)
{
    int n, r;

    use(q);
    if (kernel_wants_us(q))
        io_uring_get_events(&q->ring);
    n = serve(q);
    arm_event(q);
    if (n) {
        queue_kick(q);
        return n;
    }
    r = io_uring_submit_and_wait(&q->ring, 1);
    if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
        return r;
    return serve(q);
}

int queue_fd(struct disk_queue *q, struct qz_error *err)
{
    int r = q->watched ? 0 : io_uring_register_eventfd(&q->ring, q->event_fd);

    if (r < 0)
        return qz_fail(err, r, "disk queue: cannot make it signal an event: %s", strerror(-r));
    q->watched = true;
    return q->event_fd;
}

/*
 * convert.c - queztl-disk convert.
 *
 * Several workers run. Each takes the next piece that holds data (the source tells where;
 * holes and zeroes are skipped), reads it, and writes what is not zero. Compression, where asked
 * for, happens in the worker that writes.
 */
#include "disk_tool.h"

enum { STEP = 256 << 10, PIECE = 2 << 20, GRAIN = 4096, THREADS_MAX = 64 };

struct config {
    bool force, compress, existing;
    uint64_t threads;
    const char *options;
};

static int set_force(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->force = true;
    return 0;
}

static int set_compress(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->compress = true;
    return 0;
}

static int set_existing(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->existing = true;
    return 0;
}

static int set_threads(void *target, const char *value, struct qz_error *err)
{
    return qz_parse_u64(value, "threads", 1, THREADS_MAX, &((struct config *)target)->threads, err);
}

static int set_options(void *target, const char *value, struct qz_error *err)
{
    ((struct config *)target)->options = value;
    return 0;
}

const struct qz_option convert_options[] = {
    {"force", NULL, "overwrite an image that is there", set_force},
    {"existing", NULL, "write into a disk that is there, as large or larger", set_existing},
    {"compress", NULL, "pack the clusters (qcow2)", set_compress},
    {"options", "KEY=VALUE,...", "how to create the image: cluster_size=64K,...", set_options},
    {"threads", "N", "workers (default: one for each processor, at most 8)", set_threads},
    {0},
};

/* ---- the work */

struct job {
    struct qz_disk *from, *to;
    uint64_t size;
    uint32_t grain;       /* zeroes are left out in multiples of this */
    bool compress, blank; /* blank: the target reads as zeroes */
    pthread_mutex_t lock;
    uint64_t next;  /* under lock: from here on nobody took it */
    uint64_t known; /* under lock: up to here the source is... */
    bool zero; /* ...zeroes or not. Asked anew for each piece, a long file is walked each time */
    uint64_t done;    /* atomic */
    int failed;       /* atomic: the first error */
    const char *what; /* what failed */
    unsigned running; /* under lock */
    pthread_cond_t ended;
};

static void job_fail(struct job *j, int code, const char *what)
{
    QZ_LOCKED(&j->lock);

    if (!j->failed)
        j->what = what;
    __atomic_store_n(&j->failed, j->failed ? j->failed : code, __ATOMIC_RELAXED);
}

/* Asks what the source has at j->next, if that is not known; lock is held. */
static int look(struct job *j, struct qz_disk_queue *from)
{
    struct qz_disk_extent e;
    int r;

    if (j->next < j->known)
        return 0;
    r = qz_disk_map(from, j->next, j->size - j->next, true, &e);
    if (r == 0) {
        j->known = j->next + e.length;
        j->zero = e.zero;
    }
    return r;
}

/* The next piece; *zero: it reads as zeroes. false: nothing is left. */
static bool take(struct job *j, struct qz_disk_queue *from, uint64_t *offset, uint64_t *length,
                 bool *zero)
{
    int r;

    pthread_mutex_lock(&j->lock);
    *offset = j->next;
    if (*offset >= j->size || j->failed) {
        pthread_mutex_unlock(&j->lock);
        return false;
    }
    r = look(j, from);
    if (r == 0) {
        uint64_t end = QZ_ALIGN_DOWN(*offset, (uint64_t)PIECE) + PIECE;

        *zero = j->zero;
        /* Pieces end at multiples, so that two workers do not share a cluster of the target. */
        if (j->zero && j->known < j->size)
            end = QZ_ALIGN_DOWN(j->known, (uint64_t)j->grain);
        else if (j->zero)
            end = j->size;
        if (end <= *offset) {
            *zero = false;
            end = QZ_ALIGN_UP(*offset + 1, (uint64_t)j->grain);
        }
        end = QZ_MIN(end, j->size);
        *length = end - *offset;
        j->next = end;
    }
    pthread_mutex_unlock(&j->lock);
    if (r < 0)
        job_fail(j, r, "map the source");
    return r == 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    /* The first bytes tell mostly; then each byte is compared to the one before it. */
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int write_out(struct job *j, struct qz_disk_queue *to, uint64_t offset, const uint8_t *bytes,
                     size_t n)
{
    if (!j->compress)
        return qz_disk_write(to, offset, bytes, n);
    for (size_t at = 0; at < n; at += j->grain) {
        int r =
            qz_disk_write_compressed(to, offset + at, bytes + at, QZ_MIN(n - at, (size_t)j->grain));

        if (r < 0)
            return r;
    }
    return 0;
}

/* Writes the piece but for its zeroes. */
static int write_piece(struct job *j, struct qz_disk_queue *to, uint64_t offset,
                       const uint8_t *bytes, size_t n)
{
    size_t at = 0;
    int r = 0;

    while (at < n && r == 0) {
        bool zero = is_zero(bytes + at, QZ_MIN(n - at, (size_t)j->grain));
        size_t run = at;

        do
            run += QZ_MIN(n - run, (size_t)j->grain);
        while (run < n && is_zero(bytes + run, QZ_MIN(n - run, (size_t)j->grain)) == zero);
        if (!zero)
            r = write_out(j, to, offset + at, bytes + at, run - at);
        else if (!j->blank)
            r = qz_disk_zero(to, offset + at, run - at, QZ_DISK_MAY_UNMAP);
        at = run;
    }
    return r;
}

/* In steps that stay in a processor's cache between being read and being written. */
static int copy_piece(struct job *j, struct qz_disk_queue *from, struct qz_disk_queue *to,
                      uint64_t offset, uint64_t length, uint8_t *buffer)
{
    uint64_t step = QZ_MAX((uint64_t)STEP, (uint64_t)j->grain);
    int r = 0;

    for (uint64_t at = 0; r == 0 && at < length; at += step) {
        uint64_t n = QZ_MIN(step, length - at);

        r = qz_disk_read(from, offset + at, buffer, n);
        if (r < 0) {
            job_fail(j, r, "read the source");
            return 0;
        }
        r = write_piece(j, to, offset + at, buffer, n);
    }
    return r;
}

static void copy(struct job *j, struct qz_disk_queue *from, struct qz_disk_queue *to,
                 uint8_t *buffer)
{
    uint64_t offset, length;
    bool zero;

    while (take(j, from, &offset, &length, &zero)) {
        int r = 0;

        if (!zero)
            r = copy_piece(j, from, to, offset, length, buffer);
        else if (!j->blank)
            r = qz_disk_zero(to, offset, length, QZ_DISK_MAY_UNMAP);
        if (r < 0)
            job_fail(j, r, "write the target");
        __atomic_add_fetch(&j->done, length, __ATOMIC_RELAXED);
    }
}

static void *worker(void *argument)
{
    struct job *j = argument;
    struct qz_disk_queue *from = NULL, *to = NULL;
    void *buffer = NULL;
    struct qz_error err = {0};

    if (posix_memalign(&buffer, 4096, PIECE))
        job_fail(j, -ENOMEM, "begin");
    else if (qz_disk_queue_new(&from, j->from, 16, &err) < 0 ||
             qz_disk_queue_new(&to, j->to, 16, &err) < 0)
        job_fail(j, err.code, "begin");
    else
        copy(j, from, to, buffer);
    qz_disk_queue_free(from);
    qz_disk_queue_free(to);
    free(buffer);
    pthread_mutex_lock(&j->lock);
    j->running--;
    pthread_cond_signal(&j->ended);
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

static void watch(struct job *j, struct progress *p)
{
    QZ_LOCKED(&j->lock);

    while (j->running) {
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&j->ended, &j->lock, &until);
        progress_show(p, __atomic_load_n(&j->done, __ATOMIC_RELAXED), j->size);
    }
}

static int run(struct job *j, unsigned threads, struct qz_error *err)
{
    pthread_t thread[THREADS_MAX];
    pthread_condattr_t attr;
    struct progress p;
    unsigned n;

    pthread_mutex_init(&j->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&j->ended, &attr);
    progress_begin(&p, "converting");
    j->running = threads;
    for (n = 0; n < threads && pthread_create(&thread[n], NULL, worker, j) == 0; n++)
        ;
    pthread_mutex_lock(&j->lock);
    j->running -= threads - n;
    pthread_mutex_unlock(&j->lock);
    if (n == 0)
        job_fail(j, -EAGAIN, "start threads");
    watch(j, &p);
    for (unsigned i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
    progress_end(&p);
    return j->failed ? qz_fail(err, j->failed, "cannot %s: %s", j->what, strerror(-j->failed)) : 0;
}

static unsigned default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return (unsigned)QZ_MIN(QZ_MAX(n, 1l), 8l);
}

/* ---- convert */

static int make_target(const struct config *c, const char *image, uint64_t size,
                       struct qz_error *err)
{
    QZ_AUTO_FREE char *text = NULL;
    const char *dot = strrchr(image, '.');

    if (c->options && disk_text_has(c->options, "backing"))
        return qz_fail(err, -EINVAL, "convert makes images that stand alone: no backing file");
    if (dot && !strncmp(dot, ".qcow2", 6) && !disk_text_has(image, "format"))
        fprintf(stderr, "queztl-disk: %s becomes a raw disk: say format=qcow2\n", image);
    if (asprintf(&text, "%s,size=%lluB%s%s%s", image, (unsigned long long)size,
                 c->force ? ",overwrite" : "", c->options ? "," : "",
                 c->options ? c->options : "") < 0)
        return qz_fail(err, -ENOMEM, "no memory");
    return qz_disk_create(text, err);
}

static int convert(struct job *j, const struct config *c, const char *image, struct qz_error *err)
{
    struct qz_disk_info from, to;
    int r;

    qz_disk_get_info(j->from, &from);
    j->size = from.size;
    if (!c->existing && (r = make_target(c, image, from.size, err)) < 0)
        return r;
    if ((r = qz_disk_open(&j->to, image, err)) < 0)
        return r;
    qz_disk_get_info(j->to, &to);
    if (to.size < from.size)
        return qz_fail(err, -ENOSPC, "%s: its %llu bytes are less than the source's %llu", to.label,
                       (unsigned long long)to.size, (unsigned long long)from.size);
    if (c->compress && strcmp(to.format, "qcow2"))
        return qz_fail(err, -ENOTSUP, "%s: a %s disk packs nothing: --compress is for qcow2",
                       to.label, to.format);
    j->compress = c->compress;
    j->blank = !c->existing;
    j->grain = c->compress ? to.block_size : GRAIN;
    return run(j, c->threads ? (unsigned)c->threads : default_threads(), err);
}

int disk_convert(int argc, char **argv)
{
    struct config config = {0};
    struct job job = {0};
    struct qz_error err = {0}, close_err = {0};
    QZ_AUTO_FREE char *from = NULL;
    int i = disk_parse(convert_options, argc, argv, &config, 2, 2), r;

    if (i < 0)
        return QZ_EXIT_USAGE;
    from = disk_text_to_read(argv[i], "");
    if (!from)
        return QZ_EXIT_FAILED;
    if (qz_disk_open(&job.from, from, &err) < 0)
        return disk_failed(&err);
    r = convert(&job, &config, argv[i + 1], &err);
    if (qz_disk_close(job.to, &close_err) < 0 && r == 0) {
        r = close_err.code;
        err = close_err;
    }
    qz_disk_close(job.from, NULL);
    return r < 0 ? disk_failed(&err) : QZ_EXIT_OK;
}

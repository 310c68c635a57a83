/*
 * engine.c - what the disk engine itself takes, without a server.
 *
 *     disk_engine cost OPTIONS read|write COUNT     4 KiB requests, 32 at once, in measured(): for
 * callgrind disk_engine shrink OPTIONS FROM TO            fills the caches, then makes them smaller
 * under load: ms=N
 */
#include <inttypes.h>
#include <pthread.h>
#include <queztl/disk.h>
#include <stdatomic.h>

enum { BLOCK = 4096, DEPTH = 32 };

struct load {
    struct qz_disk *disk;
    struct qz_disk_queue *queue;
    struct slot {
        struct qz_disk_request r;
        struct iovec iov;
        struct load *load;
        bool busy;
    } slots[DEPTH];
    uint64_t random, blocks, ended;
    int failed;
    _Atomic bool stop;
};

static void on_done(struct qz_disk_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, r);

    s->busy = false;
    s->load->ended++;
    if (result < 0)
        s->load->failed = result;
}

static void submit(struct load *l, struct slot *s)
{
    l->random = l->random * 6364136223846793005u + 1442695040888963407u;
    s->r.offset = (l->random >> 20) % l->blocks * BLOCK;
    s->busy = true;
    qz_disk_submit(l->queue, &s->r);
}

/* Its instructions are what callgrind collects, and those of what it calls. */
__attribute__((noinline)) static void measured(struct load *l, uint64_t count)
{
    for (uint64_t until = l->ended + count; l->ended < until && !l->failed;) {
        bool waiting = true;

        for (unsigned i = 0; i < DEPTH; i++)
            if (!l->slots[i].busy) {
                submit(l, &l->slots[i]);
                waiting = false;
            }
        qz_disk_kick(l->queue);
        if (waiting)
            qz_disk_wait(l->queue);
    }
}

static void drain(struct load *l)
{
    for (unsigned i = 0; i < DEPTH; i++)
        while (l->slots[i].busy)
            qz_disk_wait(l->queue);
}

static int open_load(struct load *l, const char *options, bool write, struct qz_error *err)
{
    struct qz_disk_info info;
    uint8_t *bytes;
    int rc = qz_disk_open(&l->disk, options, err);

    if (rc == 0)
        rc = qz_disk_queue_new(&l->queue, l->disk, 64, err);
    if (rc < 0)
        return rc;
    bytes = aligned_alloc(BLOCK, (size_t)BLOCK * DEPTH);
    if (!bytes)
        return qz_fail(err, -ENOMEM, "no memory");
    memset(bytes, 1, (size_t)BLOCK * DEPTH);
    qz_disk_get_info(l->disk, &info);
    l->blocks = info.size / BLOCK;
    l->random = 1;
    for (unsigned i = 0; i < DEPTH; i++) {
        struct slot *s = &l->slots[i];

        s->load = l;
        s->iov = (struct iovec){bytes + (size_t)BLOCK * i, BLOCK};
        s->r = (struct qz_disk_request){.op = write ? QZ_DISK_WRITE : QZ_DISK_READ,
                                        .length = BLOCK,
                                        .iov = &s->iov,
                                        .iov_count = 1,
                                        .done = on_done};
    }
    return 0;
}

static int close_load(struct load *l, struct qz_error *err)
{
    void *bytes = l->slots[0].iov.iov_base;
    int rc;

    drain(l);
    qz_disk_queue_free(l->queue);
    rc = qz_disk_close(l->disk, err);
    free(bytes);
    return l->failed ? qz_fail(err, l->failed, "a request failed: %s", strerror(-l->failed)) : rc;
}

static int cost(char **argv, struct qz_error *err)
{
    struct load l = {0};
    int rc = open_load(&l, argv[0], !strcmp(argv[1], "write"), err);

    if (rc < 0)
        return rc;
    measured(&l, strtoull(argv[2], NULL, 10));
    return close_load(&l, err);
}

static void *load_main(void *argument)
{
    struct load *l = argument;

    while (!l->stop && !l->failed)
        measured(l, 1024);
    drain(l);
    return NULL;
}

static int shrink(char **argv, struct qz_error *err)
{
    struct load fill = {0}, l = {0};
    uint64_t from, to;
    pthread_t thread;
    int64_t start, ns;
    int rc = qz_parse_size(argv[1], &from, err);

    if (rc == 0)
        rc = qz_parse_size(argv[2], &to, err);
    if (rc == 0)
        rc = open_load(&fill, argv[0], false, err);
    if (rc < 0)
        return rc;
    qz_disk_set_memory(fill.disk, from);
    measured(&fill, from / BLOCK * 3); /* what is asked for three times in the mean is there */
    drain(&fill);
    l = fill;
    rc = qz_disk_queue_new(&l.queue, fill.disk, 64, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < DEPTH; i++) {
        l.slots[i].load = &l;
        l.slots[i].r.iov = &l.slots[i].iov;
    }
    pthread_create(&thread, NULL, load_main, &l);
    while (!__atomic_load_n(&l.slots[0].busy, __ATOMIC_RELAXED) && !l.failed)
        ;
    start = qz_now_ns();
    qz_disk_set_memory(fill.disk, to);
    ns = qz_now_ns() - start;
    l.stop = true;
    pthread_join(thread, NULL);
    qz_disk_queue_free(l.queue);
    printf("ms=%.2f\n", (double)ns / 1e6);
    return close_load(&fill, err);
}

int main(int argc, char **argv)
{
    struct qz_error err = {0};
    int rc;

    if (argc != 5 || (strcmp(argv[1], "cost") && strcmp(argv[1], "shrink"))) {
        fputs("usage: disk_engine cost OPTIONS read|write COUNT\n"
              "       disk_engine shrink OPTIONS FROM TO\n",
              stderr);
        return 2;
    }
    rc = strcmp(argv[1], "cost") ? shrink(argv + 2, &err) : cost(argv + 2, &err);
    if (rc < 0)
        fprintf(stderr, "disk_engine: %s\n", err.text);
    return rc < 0;
}

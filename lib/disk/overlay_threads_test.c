/*
 * overlay_threads_test.c - several queues, each on its thread: they write and read, stand still for
 * an overlay, and go on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>

#include "overlay_lab.h"

enum { THREADS = 3, ROUNDS = 8, DEPTH = 8, PIECE = 8192, REGION = SIZE / THREADS / PIECE };

struct slot {
    struct worker *w;
    struct qz_disk_request r;
    struct iovec iov;
    uint8_t bytes[PIECE];
};

struct worker {
    struct qz_disk_queue *q;
    uint64_t base, random;
    unsigned flying, wrong;
    uint8_t wrote[REGION]; /* what each piece was last filled with */
    struct slot slot[DEPTH];
};

static pthread_barrier_t stop, go;

static void on_done(struct qz_disk_request *r, int result)
{
    struct slot *s = QZ_CONTAINER_OF(r, struct slot, r);
    struct worker *w = s->w;
    uint8_t byte = w->wrote[(r->offset - w->base) / PIECE];

    w->wrong += result != 0;
    for (unsigned k = 0; r->op == QZ_DISK_READ && k < PIECE; k++)
        w->wrong += s->bytes[k] != byte;
    w->flying--;
}

static void submit(struct worker *w, struct slot *s, unsigned piece)
{
    s->w = w;
    s->iov = (struct iovec){s->bytes, PIECE};
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    s->r = (struct qz_disk_request){.op = w->random >> 60 < 9 ? QZ_DISK_WRITE : QZ_DISK_READ,
                                    .offset = w->base + piece * PIECE,
                                    .length = PIECE,
                                    .iov = &s->iov,
                                    .iov_count = 1,
                                    .done = on_done};
    if (s->r.op == QZ_DISK_WRITE) {
        w->wrote[piece] = (uint8_t)(w->random >> 50);
        memset(s->bytes, w->wrote[piece], PIECE);
    }
    w->flying++;
    qz_disk_submit(w->q, &s->r);
}

/* DEPTH at a time, never two of them at one piece. */
static void round_of(struct worker *w)
{
    for (unsigned turn = 0; turn < 30; turn++) {
        unsigned first = (unsigned)(w->random >> 40) % REGION;

        for (unsigned i = 0; i < DEPTH; i++)
            submit(w, &w->slot[i], (first + i * (REGION / DEPTH)) % REGION);
        qz_disk_kick(w->q);
        while (w->flying)
            qz_disk_wait(w->q);
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;

    for (unsigned i = 0; i <= ROUNDS; i++) {
        round_of(w);
        pthread_barrier_wait(&stop);
        pthread_barrier_wait(&go);
    }
    return NULL;
}

static void many(const char *format, const char *options)
{
    struct lab m;
    struct worker *w = calloc(THREADS, sizeof(*w));
    pthread_t thread[THREADS];
    struct qz_error err = {0};

    lab_create(lab_text("%s,overwrite,size=%dB,format=%s", lab_path("0"), SIZE, format));
    for (unsigned i = 1; i <= ROUNDS; i++)
        lab_create_overlay(lab_text("%u", i), lab_text("%u", i - 1), i == 1 ? format : "qcow2");
    m = lab_start(lab_text("%s,format=%s%s", lab_path("0"), format, options));
    pthread_barrier_init(&stop, NULL, THREADS + 1);
    pthread_barrier_init(&go, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i].base = (uint64_t)i * REGION * PIECE;
        w[i].random = i + 1;
        assert_int_equal(qz_disk_queue_new(&w[i].q, m.d, DEPTH, &err), 0);
        assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i <= ROUNDS; i++) {
        pthread_barrier_wait(&stop);
        if (i < ROUNDS)
            lab_go_on(&m, lab_text("%u", i + 1));
        pthread_barrier_wait(&go);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(w[i].wrong, 0);
        qz_disk_queue_free(w[i].q);
        for (unsigned k = 0; k < REGION; k++)
            memset(m.model + w[i].base + k * PIECE, w[i].wrote[k], PIECE);
    }
    lab_holds(m.q, m.model, "in the end");
    pthread_barrier_destroy(&stop);
    pthread_barrier_destroy(&go);
    lab_end(&m);
    for (unsigned i = 1; i <= ROUNDS; i++)
        lab_is_clean(lab_text("%s,format=qcow2", lab_path(lab_text("%u", i))));
    free(w);
}

static void test_threads(void **state)
{
    many("raw", "");
    many("qcow2", ",stats,block-cache=1MiB");
    many("raw", ",cache=none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};

    return cmocka_run_group_tests(tests, lab_make_folder, lab_remove_folder);
}

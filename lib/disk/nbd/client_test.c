/*
 * client_test.c - disks on NBD servers: nbdkit, qemu-nbd and our own; servers that vanish and come
 * back, or do not.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <queztl/disk.h>

enum { SIZE = 8 << 20, ROUNDS = 300 };

struct server {
    char dir[40], image[64], socket[64], pidfile[64];
    pid_t pid;
};

static void set_up(struct server *s)
{
    int fd;

    *s = (struct server){.dir = "/tmp/qz-nbd-XXXXXX"};
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->image, sizeof(s->image), "%s/image", s->dir);
    snprintf(s->socket, sizeof(s->socket), "%s/socket", s->dir);
    snprintf(s->pidfile, sizeof(s->pidfile), "%s/pid", s->dir);
    fd = open(s->image, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    close(fd);
}

static bool has_program(const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/usr/bin/%s", name);
    if (access(path, X_OK) == 0)
        return true;
    snprintf(path, sizeof(path), "/usr/sbin/%s", name);
    return access(path, X_OK) == 0;
}

/* Until the server listens. Both kinds make their pid file after that. */
static void await_listening(struct server *s)
{
    int64_t end = qz_now_ns() + 10000000000ll;
    struct stat st;

    while (stat(s->pidfile, &st) < 0 || !st.st_size) {
        assert_true(qz_now_ns() < end);
        assert_int_equal(waitpid(s->pid, NULL, WNOHANG), 0);
        usleep(2000);
    }
}

static void start(struct server *s, char *const argv[])
{
    unlink(s->socket);
    unlink(s->pidfile);
    s->pid = fork();
    if (s->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[0], argv);
        _exit(127);
    }
    await_listening(s);
}

static void start_nbdkit(struct server *s)
{
    char *argv[] = {(char *)"nbdkit", (char *)"-f",   (char *)"-U", s->socket, (char *)"-P",
                    s->pidfile,       (char *)"file", s->image,     NULL};

    start(s, argv);
}

static void start_qemu(struct server *s)
{
    char pid[80];
    char *argv[] = {(char *)"qemu-nbd",
                    (char *)"-t",
                    (char *)"-k",
                    s->socket,
                    pid,
                    (char *)"-f",
                    (char *)"raw",
                    (char *)"--discard=unmap",
                    s->image,
                    NULL};

    snprintf(pid, sizeof(pid), "--pid-file=%s", s->pidfile);
    start(s, argv);
}

static void stop(struct server *s)
{
    if (!s->pid)
        return;
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static void tear_down(struct server *s)
{
    stop(s);
    unlink(s->image);
    unlink(s->socket);
    unlink(s->pidfile);
    assert_int_equal(rmdir(s->dir), 0);
}

static struct qz_disk *open_disk(struct server *s, const char *more)
{
    struct qz_error err = {0};
    char options[200];
    struct qz_disk *d;

    snprintf(options, sizeof(options), "nbd+unix:///?socket=%s%s", s->socket, more);
    if (qz_disk_open(&d, options, &err) < 0)
        fail_msg("%s", err.text);
    return d;
}

static struct qz_disk_queue *new_queue(struct qz_disk *d)
{
    struct qz_disk_queue *q;
    struct qz_error err;

    assert_int_equal(qz_disk_queue_new(&q, d, 32, &err), 0);
    return q;
}

/* ---- data */

struct vectored {
    struct qz_disk_request r;
    bool done;
    int result;
};

static void on_done(struct qz_disk_request *r, int result)
{
    struct vectored *v = QZ_CONTAINER_OF(r, struct vectored, r);

    v->done = true;
    v->result = result;
}

/* One request of three vectors. */
static int transfer(struct qz_disk_queue *q, enum qz_disk_op op, uint64_t at, uint8_t *bytes,
                    size_t n)
{
    struct iovec iov[3] = {{bytes, n / 3}, {bytes + n / 3, 1}, {bytes + n / 3 + 1, n - n / 3 - 1}};
    struct vectored v = {
        .r = {.op = op, .offset = at, .length = n, .iov = iov, .iov_count = 3, .done = on_done}};

    qz_disk_submit(q, &v.r);
    while (!v.done)
        assert_true(qz_disk_wait(q) >= 0);
    return v.result;
}

static void exercise(struct server *s)
{
    struct qz_disk *d = open_disk(s, "");
    struct qz_disk_queue *q = new_queue(d);
    uint8_t *model = calloc(1, SIZE), *b = malloc(3 << 20);
    struct qz_disk_info info;
    struct qz_error err;
    unsigned seed = 7;
    int fd;

    qz_disk_get_info(d, &info);
    assert_int_equal(info.size, SIZE);
    assert_false(info.readonly);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t n = 3 + (size_t)rand_r(&seed) % (i % 20 ? 20000 : (3 << 20) - 4);
        uint64_t at = (uint64_t)rand_r(&seed) % (SIZE - n);

        memset(b, (int)i + 1, n);
        switch (i % 5) {
        case 0:
            assert_int_equal(qz_disk_write(q, at, b, n), 0);
            memcpy(model + at, b, n);
            break;
        case 1:
            assert_int_equal(transfer(q, QZ_DISK_WRITE, at, b, n), 0);
            memcpy(model + at, b, n);
            break;
        case 2:
            assert_int_equal(qz_disk_zero(q, at, n, i & 8 ? QZ_DISK_MAY_UNMAP : 0), 0);
            memset(model + at, 0, n);
            break;
        case 3:
            assert_int_equal(transfer(q, QZ_DISK_READ, at, b, n), 0);
            assert_memory_equal(b, model + at, n);
            break;
        default:
            assert_int_equal(qz_disk_read(q, at, b, n), 0);
            assert_memory_equal(b, model + at, n);
        }
    }
    assert_int_equal(qz_disk_flush(q), 0);
    assert_int_equal(qz_disk_discard(q, 1 << 20, 4096), 0);
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_close(d, &err), 0);
    fd = open(s->image, O_RDONLY);
    memset(model + (1 << 20), 0, 4096); /* both servers' files have a hole there */
    for (uint64_t at = 0; at < SIZE; at += 1 << 20) {
        assert_int_equal(pread(fd, b, 1 << 20, (off_t)at), 1 << 20);
        assert_memory_equal(b, model + at, 1 << 20);
    }
    close(fd);
    free(model);
    free(b);
}

enum { THREADS = 3, PART = SIZE / THREADS / 4096 * 4096 };

struct worker {
    struct qz_disk *d;
    unsigned number;
};

static void *work(void *argument)
{
    struct worker *w = argument;
    struct qz_disk_queue *q = new_queue(w->d);
    uint64_t base = (uint64_t)w->number * PART;
    uint8_t b[8192], c[8192];
    unsigned seed = w->number;

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t at = base + (uint64_t)rand_r(&seed) % (PART - sizeof(b));

        memset(b, (int)(i + w->number), sizeof(b));
        assert_int_equal(qz_disk_write(q, at, b, sizeof(b)), 0);
        assert_int_equal(qz_disk_read(q, at, c, sizeof(c)), 0);
        assert_memory_equal(b, c, sizeof(b));
    }
    qz_disk_queue_free(q);
    return NULL;
}

static void threads_on(struct server *s, const char *more)
{
    struct worker w[THREADS];
    pthread_t id[THREADS];
    struct qz_error err;
    struct qz_disk *d = open_disk(s, more);

    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){d, i};
        assert_int_equal(pthread_create(&id[i], NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(id[i], NULL);
    assert_int_equal(qz_disk_close(d, &err), 0);
}

static void test_nbdkit(void **state)
{
    struct server s;

    if (!has_program("nbdkit"))
        skip();
    set_up(&s);
    start_nbdkit(&s);
    exercise(&s);
    threads_on(&s, ",connections=3");
    threads_on(&s, ",connections=1"); /* several threads on one connection */
    tear_down(&s);
}

static void test_qemu_nbd(void **state)
{
    struct server s;

    if (!has_program("qemu-nbd"))
        skip();
    set_up(&s);
    start_qemu(&s);
    exercise(&s);
    tear_down(&s);
}

/* ---- our own server */

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void test_own_server(void **state)
{
    struct qz_disk_nbd_options o = {0};
    struct qz_disk_server *server;
    struct qz_disk *served;
    struct qz_error err;
    struct server s;
    int fd;

    set_up(&s);
    fd = listen_at(s.socket);
    assert_int_equal(qz_disk_open(&served, s.image, &err), 0);
    assert_int_equal(qz_disk_serve_nbd(&server, served, fd, &o, &err), 0);
    exercise(&s);
    threads_on(&s, ",connections=3");
    threads_on(&s, ",connections=1"); /* several threads on one connection */
    qz_disk_server_stop(server);
    close(fd);
    assert_int_equal(qz_disk_close(served, &err), 0);
    tear_down(&s);
}

/* ---- servers that vanish */

enum { FLIGHT = 16 };

struct flight {
    struct vectored v[FLIGHT];
    struct iovec iov[FLIGHT];
    uint8_t bytes[FLIGHT][4096];
};

static void submit_all(struct qz_disk_queue *q, struct flight *f, enum qz_disk_op op, uint8_t seed)
{
    for (unsigned i = 0; i < FLIGHT; i++) {
        if (op == QZ_DISK_WRITE)
            memset(f->bytes[i], seed + (int)i, 4096);
        f->iov[i] = (struct iovec){f->bytes[i], 4096};
        f->v[i] = (struct vectored){.r = {.op = op,
                                          .offset = i * 8192,
                                          .length = 4096,
                                          .iov = &f->iov[i],
                                          .iov_count = 1,
                                          .done = on_done}};
        qz_disk_submit(q, &f->v[i].r);
    }
    qz_disk_kick(q);
}

static void wait_all(struct qz_disk_queue *q, struct flight *f, int result)
{
    for (unsigned i = 0; i < FLIGHT; i++) {
        while (!f->v[i].done)
            assert_true(qz_disk_wait(q) >= 0);
        assert_int_equal(f->v[i].result, result);
    }
}

/* Killed with requests under way, again and again: nothing is lost, and nobody notices. */
static void test_comes_back(void **state)
{
    struct flight *f = calloc(1, sizeof(*f));
    struct qz_disk_queue *q;
    struct qz_error err;
    struct qz_disk *d;
    struct server s;

    if (!has_program("nbdkit"))
        skip();
    set_up(&s);
    start_nbdkit(&s);
    d = open_disk(&s, ",reconnect=20");
    q = new_queue(d);
    for (unsigned round = 0; round < 8; round++) {
        if (round & 1) { /* idle when it happens */
            stop(&s);
            submit_all(q, f, QZ_DISK_WRITE, (uint8_t)(round * 16));
        } else {
            submit_all(q, f, QZ_DISK_WRITE, (uint8_t)(round * 16));
            stop(&s);
        }
        qz_disk_poll(q);
        start_nbdkit(&s);
        wait_all(q, f, 0);
        submit_all(q, f, QZ_DISK_READ, 0);
        wait_all(q, f, 0);
        for (unsigned i = 0; i < FLIGHT; i++)
            for (unsigned j = 0; j < 4096; j++)
                assert_int_equal(f->bytes[i][j], (uint8_t)(round * 16 + i));
    }
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_close(d, &err), 0);
    free(f);
    tear_down(&s);
}

/* It stays away: requests fail after the time that was said, later ones sooner; and when it is
 * there again, they succeed. */
static void test_stays_away(void **state)
{
    struct flight *f = calloc(1, sizeof(*f));
    struct qz_disk_queue *q;
    struct qz_error err;
    struct qz_disk *d;
    struct server s;
    int64_t before;

    if (!has_program("nbdkit"))
        skip();
    set_up(&s);
    start_nbdkit(&s);
    d = open_disk(&s, ",reconnect=2");
    q = new_queue(d);
    stop(&s);
    for (unsigned round = 0; round < 2; round++) {
        before = qz_now_ns();
        submit_all(q, f, QZ_DISK_WRITE, 1);
        wait_all(q, f, -EIO);
        assert_in_range((qz_now_ns() - before) / 1000000, round ? 500 : 1900, round ? 5000 : 10000);
    }
    start_nbdkit(&s);
    submit_all(q, f, QZ_DISK_WRITE, 9);
    wait_all(q, f, 0);
    qz_disk_queue_free(q);
    assert_int_equal(qz_disk_close(d, &err), 0);
    free(f);
    tear_down(&s);
}

/* What the server itself refuses is told at once and as what it is. */
static void test_refusals(void **state)
{
    char options[200],
        *argv[] = {(char *)"nbdkit", (char *)"-f", (char *)"-r",   (char *)"-U", NULL,
                   (char *)"-P",     NULL,         (char *)"file", NULL,         NULL};
    struct qz_error err = {0};
    struct qz_disk *d;
    struct server s;

    if (!has_program("nbdkit"))
        skip();
    set_up(&s);
    snprintf(options, sizeof(options), "nbd+unix:///?socket=%s", s.socket);
    assert_true(qz_disk_open(&d, options, &err) < 0);
    assert_non_null(strstr(err.text, s.socket));
    argv[4] = s.socket;
    argv[6] = s.pidfile;
    argv[8] = s.image;
    start(&s, argv);
    assert_int_equal(qz_disk_open(&d, options, &err), -EROFS);
    assert_non_null(strstr(err.text, "say readonly"));
    strcat(options, ",readonly");
    assert_int_equal(qz_disk_open(&d, options, &err), 0);
    assert_true(qz_disk_resize(d, SIZE * 2, &err) < 0);
    qz_disk_close(d, NULL);
    assert_true(qz_disk_open(&d, "nbd://localhost,connections=99", &err) < 0);
    assert_true(qz_disk_open(&d, "nbds://localhost/x", &err) < 0); /* no certificates are read */
    tear_down(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nbdkit),     cmocka_unit_test(test_qemu_nbd),
        cmocka_unit_test(test_own_server), cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_stays_away), cmocka_unit_test(test_refusals),
    };

    return cmocka_run_group_tests_name("nbd-client", tests, NULL, NULL);
}

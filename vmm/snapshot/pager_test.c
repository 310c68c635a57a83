/* pager_test.c - a pager in a process of its own, and what machines see of it. */
#include "snapshot/snapshot_test_kit.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "snapshot/pager.h"
#include "snapshot/userfault.h"

enum { PATIENCE_MS = 20000, LOW = 40 * KIT_CHUNK };

/* ---- the pager's side */

struct running_pager {
    pid_t pid;
    int door, memory;
};

static void serve(const char *path, int memory, int door)
{
    struct working_set first;
    struct pager_job job = {.path = path, .first = &first};

    if (snapshot_dir_open(&job.snapshot, path, NULL) < 0)
        _exit(1);
    job.record = working_set_read(job.snapshot, &first, NULL) == -ENOENT;
    job.memory = mmap(NULL, KIT_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    pager_run(&job, door);
    _exit(0);
}

static struct running_pager start_pager(const char *path)
{
    struct running_pager p = {.memory = memfd_create("guest", MFD_CLOEXEC)};
    int ends[2];

    assert_int_equal(ftruncate(p.memory, KIT_MEMORY), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    p.door = ends[0];
    p.pid = fork();
    assert_true(p.pid >= 0);
    if (p.pid == 0) {
        close(ends[0]);
        serve(path, p.memory, ends[1]);
    }
    close(ends[1]);
    return p;
}

static void expect_end(struct running_pager *p)
{
    int status;

    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    assert_int_equal(status, 0);
    close(p->memory);
}

/* ---- a machine's side */

struct guest {
    uint8_t *memory; /* in two mappings, the second behind a hole */
    uint8_t *high;
    int userfault, channel;
};

/* The next word, without the reports in between; 0: the channel was closed. */
static unsigned next_word(struct guest *g, struct pager_report *r)
{
    struct pollfd p = {.fd = g->channel, .events = POLLIN};

    do {
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        if (recv(g->channel, r, sizeof(*r), 0) != sizeof(*r))
            return 0;
    } while (r->word == PAGER_LOADING);
    return r->word;
}

static struct guest knock(struct running_pager *p)
{
    const int prot = PROT_READ | PROT_WRITE;
    struct guest g = {.userfault = userfault_new(NULL)};
    struct pager_hello hello = {.version = PAGER_VERSION, .low_size = LOW};
    int ends[2];

    g.memory = mmap(NULL, LOW, prot, MAP_PRIVATE, p->memory, 0);
    g.high = mmap(NULL, KIT_MEMORY - LOW, prot, MAP_PRIVATE, p->memory, LOW);
    assert_true(g.memory != MAP_FAILED && g.high != MAP_FAILED && g.userfault >= 0);
    hello.low = (uintptr_t)g.memory;
    hello.high = (uintptr_t)g.high;
    hello.high_size = KIT_MEMORY - LOW;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(pager_knock(p->door, &hello, g.userfault, ends[1]), 0);
    close(ends[1]);
    g.channel = ends[0];
    return g;
}

static void leave(struct guest *g)
{
    close(g->channel);
    close(g->userfault);
    munmap(g->memory, LOW);
    munmap(g->high, KIT_MEMORY - LOW);
}

static uint8_t *at(const struct guest *g, uint64_t offset)
{
    return offset < LOW ? g->memory + offset : g->high + (offset - LOW);
}

static void expect_bytes(const struct guest *g, int memory)
{
    static uint8_t expected[KIT_MEMORY];

    assert_int_equal(pread(memory, expected, KIT_MEMORY, 0), KIT_MEMORY);
    assert_memory_equal(g->memory, expected, LOW);
    assert_memory_equal(g->high, expected + LOW, KIT_MEMORY - LOW);
}

static void hurry(const struct guest *g)
{
    assert_int_equal(send(g->channel, &(char){PAGER_HURRY}, 1, MSG_NOSIGNAL), 1);
}

/* ---- */

static int original;

static void make(const char *path, bool packed)
{
    original = kit_memory(7);
    kit_write(path, original, NULL, packed);
}

static void all_of_it_by_several(bool packed)
{
    struct running_pager p;
    struct pager_report r;
    struct guest a, b;

    make("one", packed);
    p = start_pager("one");
    a = knock(&p);
    b = knock(&p);
    close(p.door);
    assert_int_equal(next_word(&a, &r), PAGER_READY);
    assert_string_equal(r.text, "one");
    assert_int_equal(next_word(&b, &r), PAGER_READY);
    *at(&b, 94 * KIT_CHUNK) = 0x5a; /* before it was loaded */
    expect_bytes(&a, original);
    assert_int_equal(*at(&b, 94 * KIT_CHUNK), 0x5a);
    *at(&b, 94 * KIT_CHUNK) = *at(&a, 94 * KIT_CHUNK);
    expect_bytes(&b, original);
    assert_int_equal(next_word(&a, &r), PAGER_DONE);
    assert_true(r.done == r.of && r.of > 0);
    assert_int_equal(next_word(&b, &r), PAGER_DONE);
    leave(&a);
    leave(&b);
    expect_end(&p);
    close(original);
    kit_remove("one");
}

static void all_of_it(void **state)
{
    all_of_it_by_several(false);
    all_of_it_by_several(true);
}

/* KVM, io_uring and system calls read guest memory from the kernel. */
static void seen_by_the_kernel(void **state)
{
    static uint8_t got[4096], expected[4096];
    struct running_pager p;
    struct pager_report r;
    struct guest g;
    int fd = memfd_create("copy", MFD_CLOEXEC);

    make("one", true);
    p = start_pager("one");
    g = knock(&p);
    assert_int_equal(next_word(&g, &r), PAGER_READY);
    assert_int_equal(pwrite(fd, at(&g, 59 * KIT_CHUNK), 4096, 0), 4096);
    assert_int_equal(pread(fd, got, 4096, 0), 4096);
    assert_int_equal(pread(original, expected, 4096, 59 * KIT_CHUNK), 4096);
    assert_memory_equal(got, expected, 4096);
    close(fd);
    close(p.door);
    leave(&g);
    expect_end(&p);
    close(original);
    kit_remove("one");
}

/* What was needed first is loaded first the next time, and only recorded once. */
static void recorded(void **state)
{
    static const uint32_t order[] = {94, 3, 50};
    struct running_pager p;
    struct pager_report r;
    struct snapshot_dir *s;
    struct working_set w;
    struct guest g;

    make("one", true);
    for (unsigned i = 0; i < 2; i++) {
        p = start_pager("one");
        g = knock(&p);
        close(p.door);
        /* With a recording nothing waits for a machine: all of it may be there before. */
        if (next_word(&g, &r) == PAGER_READY) {
            for (unsigned k = 0; k < 3; k++)
                (void)*(volatile uint8_t *)at(&g, (uint64_t)order[k] * KIT_CHUNK);
            send(g.channel, &(char){PAGER_HURRY}, 1, MSG_NOSIGNAL); /* it may have ended */
            next_word(&g, &r);
        } else {
            assert_int_equal(i, 1);
        }
        assert_int_equal(r.word, PAGER_DONE);
        assert_true(i ? r.faults <= 3 : r.faults == 3 && r.longest_ns > 0);
        leave(&g);
        expect_end(&p);
        assert_int_equal(snapshot_dir_open(&s, "one", NULL), 0);
        assert_int_equal(working_set_read(s, &w, NULL), 0);
        assert_int_equal(w.count, 3);
        assert_memory_equal(w.chunk, order, sizeof(order));
        working_set_free(&w);
        snapshot_dir_close(s);
    }
    close(original);
    kit_remove("one");
}

/* Nobody sees a byte of a chunk that is damaged, and all hear why. */
static void damaged(void **state)
{
    const uint64_t where = 59 * KIT_CHUNK; /* uncompressed: its place in the file, too */
    struct running_pager p;
    struct pager_report r;
    struct guest g;
    const int fd = (make("one", false), open("one/memory", O_WRONLY | O_CLOEXEC));

    assert_int_equal(pwrite(fd, "?", 1, (off_t)where + 77), 1);
    close(fd);
    p = start_pager("one");
    g = knock(&p);
    assert_int_equal(next_word(&g, &r), PAGER_READY);
    hurry(&g);
    assert_int_equal(next_word(&g, &r), PAGER_FAILED);
    if (!strstr(r.text, "one/memory: chunk 59 ") || !strstr(r.text, "checksum"))
        fail_msg("%s", r.text);
    leave(&g);
    /* Who comes later hears it, too. */
    g = knock(&p);
    close(p.door);
    assert_int_equal(next_word(&g, &r), PAGER_FAILED);
    leave(&g);
    expect_end(&p);
    close(original);
    kit_remove("one");
}

static void *touch(void *g)
{
    volatile uint8_t *byte = at(g, 3 * KIT_CHUNK);

    (void)*byte;
    _exit(66); /* it must not come to this */
}

/* A machine whose pager is gone: who waits waits, and it can end. */
static void orphaned_machine(struct running_pager *p)
{
    struct guest g = knock(p);
    struct pager_report r;
    pthread_t thread;

    if (next_word(&g, &r) != PAGER_READY || kill(p->pid, SIGKILL) < 0)
        _exit(1);
    if (next_word(&g, &r) != 0 || pthread_create(&thread, NULL, touch, &g))
        _exit(2);
    _exit(poll(NULL, 0, 100) == 0 ? 7 : 3);
}

static void killed(void **state)
{
    struct running_pager p;
    pid_t machine;
    int status;

    make("one", true);
    p = start_pager("one");
    machine = fork();
    if (machine == 0)
        orphaned_machine(&p);
    assert_int_equal(waitpid(machine, &status, 0), machine);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
    assert_int_equal(waitpid(p.pid, &status, 0), p.pid);
    close(p.door);
    close(p.memory);
    close(original);
    kit_remove("one");
}

/* Whoever says nonsense is not served, and everybody else is. */
static void nonsense(void **state)
{
    struct pager_hello hello = {.version = PAGER_VERSION, .low = 4096, .low_size = KIT_MEMORY};
    struct running_pager p;
    struct pager_report r;
    struct guest g;
    int ends[2];

    make("one", true);
    p = start_pager("one");
    for (unsigned i = 0; i < 4; i++) {
        struct guest other = {0};
        int userfault = i == 0 ? memfd_create("none", MFD_CLOEXEC) : userfault_new(NULL);

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        hello.version = PAGER_VERSION + (i == 1);
        hello.low = i == 2 ? UINT64_MAX - 4095 : 4096; /* 3: there is nothing */
        assert_int_equal(pager_knock(p.door, &hello, userfault, ends[1]), 0);
        close(ends[1]);
        close(userfault);
        other.channel = ends[0];
        assert_int_equal(next_word(&other, &r), i == 3 ? PAGER_FAILED : 0);
        close(ends[0]);
    }
    assert_int_equal(send(p.door, "x", 1, MSG_NOSIGNAL), 1);
    g = knock(&p);
    close(p.door);
    assert_int_equal(next_word(&g, &r), PAGER_READY);
    expect_bytes(&g, original);
    assert_int_equal(next_word(&g, &r), PAGER_DONE);
    leave(&g);
    expect_end(&p);
    close(original);
    kit_remove("one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it), cmocka_unit_test(seen_by_the_kernel),
        cmocka_unit_test(recorded),  cmocka_unit_test(damaged),
        cmocka_unit_test(killed),    cmocka_unit_test(nonsense),
    };
    struct qz_error err = {0};

    if (userfault_check(&err) < 0) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}

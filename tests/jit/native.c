/* native.c - the parent of native_child.c (native.h). */
#include "native.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENDLESS_MS = 100, DEAD_MS = 5000 };

struct native {
    uint8_t *file;
    struct control *control;
    pid_t child;
};

/* In the child: nothing but the window's file stays open. */
static _Noreturn void become(const char *program, int fd)
{
    char *const nothing[] = {NULL};
    char *const argv[] = {(char *)program, NULL};

    if (fd == CHILD_FILE ? fcntl(fd, F_SETFD, 0) == 0 : dup2(fd, CHILD_FILE) == CHILD_FILE)
        execve(program, argv, nothing);
    _exit(127);
}

static bool is_alive(struct native *n)
{
    return n->child > 0 && waitpid(n->child, NULL, WNOHANG) == 0;
}

/* False: it is still the child's turn after so long. */
static bool wait_for_turn(struct native *n, unsigned ms)
{
    const struct timespec timeout = {ms / 1000, ms % 1000 * 1000000l};
    const int64_t end = qz_now_ns() + ms * 1000000ll;

    while (__atomic_load_n(&n->control->turn, __ATOMIC_ACQUIRE) != TURN_PARENT) {
        if (qz_now_ns() >= end)
            return false;
        syscall(SYS_futex, &n->control->turn, FUTEX_WAIT, TURN_CHILD, &timeout, NULL, 0);
    }
    return true;
}

/* It may die without a word: short waits. */
static int wait_for_child(struct native *n)
{
    for (unsigned ms = 0; ms < DEAD_MS; ms += ENDLESS_MS) {
        if (wait_for_turn(n, ENDLESS_MS))
            return 0;
        if (!is_alive(n)) {
            n->child = 0;
            return -ECHILD;
        }
        kill(n->child, SIGALRM);
    }
    return -ETIMEDOUT;
}

void native_close(struct native *n)
{
    if (!n)
        return;
    if (n->child > 0) {
        kill(n->child, SIGKILL);
        waitpid(n->child, NULL, 0);
    }
    if (n->file)
        munmap(n->file, FILE_SIZE);
    free(n);
}

static int start(struct native *n, const char *program, int fd, struct qz_error *err)
{
    int status = 0;

    if (ftruncate(fd, FILE_SIZE) < 0)
        return qz_fail(err, -errno, "the window of %s: %s", program, strerror(errno));
    n->file = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (n->file == MAP_FAILED) {
        n->file = NULL;
        return qz_fail(err, -errno, "the window of %s: %s", program, strerror(errno));
    }
    n->control = (struct control *)(n->file + FILE_CONTROL);
    n->control->turn = TURN_CHILD;
    n->child = fork();
    if (n->child < 0)
        return qz_fail(err, -errno, "%s: fork: %s", program, strerror(errno));
    if (n->child == 0)
        become(program, fd);
    while (!wait_for_turn(n, ENDLESS_MS))
        if (waitpid(n->child, &status, WNOHANG) != 0) {
            n->child = 0;
            return qz_fail(err, -ECHILD, "%s ended at its start with wait status 0x%x", program,
                           (unsigned)status);
        }
    return 0;
}

int native_open(struct native **out, const char *program, struct qz_error *err)
{
    struct native *n = calloc(1, sizeof(*n));
    int fd, r;

    if (!n)
        return qz_fail(err, -ENOMEM, "out of memory");
    fd = memfd_create("window", MFD_CLOEXEC);
    r = fd < 0 ? qz_fail(err, -errno, "memfd_create: %s", strerror(errno))
               : start(n, program, fd, err);
    if (fd >= 0)
        close(fd);
    if (r < 0) {
        native_close(n);
        return r;
    }
    *out = n;
    return 0;
}

uint8_t *native_window(struct native *n)
{
    return n->file;
}

int native_run(struct native *n, const struct registers *in, struct outcome *out)
{
    int r;

    n->control->in = *in;
    __atomic_store_n(&n->control->turn, TURN_CHILD, __ATOMIC_RELEASE);
    syscall(SYS_futex, &n->control->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    r = wait_for_child(n);
    if (r == 0)
        *out = n->control->out;
    return r;
}

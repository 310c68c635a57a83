/* snapshot_pager.c - see snapshot_pager.h. */
#include "snapshot_pager.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "machine/memory_layers.h"
#include "snapshot/pager.h"

enum { KEPT_MAX = SNAPSHOT_DESCRIPTORS_MAX + 1 };

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* What was open here for other reasons, such as a pipe that somebody waits at for its end. */
static void keep_only(const struct snapshot_dir *s, int door)
{
    int kept[KEPT_MAX];
    unsigned count = snapshot_dir_descriptors(s, kept), next = STDERR_FILENO + 1;

    kept[count++] = door;
    qsort(kept, count, sizeof(kept[0]), by_number);
    for (unsigned i = 0; i < count; next = (unsigned)kept[i++] + 1)
        if (next < (unsigned)kept[i])
            syscall(SYS_close_range, next, kept[i] - 1, 0);
    syscall(SYS_close_range, next, ~0u, 0);
}

static void forget_terminal(void)
{
    const int null = open("/dev/null", O_RDWR);

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (null >= 0 && null != fd)
            dup2(null, fd);
}

/* In a session of its own, and nobody's child: no terminal's signals end it, and whoever began this
 * need not wait for it. */
static _Noreturn void become_pager(const struct pager_job *job, int door)
{
    const pid_t pid = setsid() < 0 ? -1 : fork();

    if (pid)
        _exit(pid < 0);
    prctl(PR_SET_NAME, "queztl-pager");
    forget_terminal();
    keep_only(job->snapshot, door);
    pager_run(job, door);
    _exit(0);
}

static int start(const struct pager_job *job, struct qz_error *err)
{
    int ends[2], status = 0;
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return qz_fail(err, -errno, "no channel to a process that loads memory: %s",
                       strerror(errno));
    pid = fork();
    if (pid == 0) {
        close(ends[0]);
        become_pager(job, ends[1]);
    }
    close(ends[1]);
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status == 0)
        return ends[0];
    close(ends[0]);
    return qz_fail(err, -EAGAIN, "no process to load memory: %s",
                   pid < 0 ? strerror(errno) : "too many processes (ulimit -u)");
}

/* No recording is no failure; that it is damaged is said. */
static bool read_working_set(const struct snapshot_dir *s, const char *path, struct working_set *w)
{
    struct qz_error err = {0};
    const int r = working_set_read(s, w, &err);

    if (r < 0 && r != -ENOENT)
        qz_warn("snapshot %s: %s: it is recorded anew", path, err.text);
    return r < 0 && snapshot_dir_is_writable(s);
}

int snapshot_pager_start(struct snapshot_dir *s, const char *path, int memory, struct qz_error *err)
{
    const uint64_t size = snapshot_dir_memory_size(s);
    struct working_set first;
    struct pager_job job = {.snapshot = s, .path = path, .first = &first};
    int r;

    job.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory, 0);
    if (job.memory == MAP_FAILED)
        return qz_fail(err, -errno, "cannot map the machine's memory: %s", strerror(errno));
    job.record = read_working_set(s, path, &first);
    r = ram_file_seal(memory);
    r = r < 0 ? qz_fail(err, r, "memory cannot be sealed: %s (Linux 5.1 can)", strerror(-r))
              : start(&job, err);
    working_set_free(&first);
    munmap(job.memory, size);
    return r;
}

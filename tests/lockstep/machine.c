/* machine.c - a deterministic machine as a child process (machine.h). */
#include "machine.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { ARGS_MAX = 64, PIPE_BYTES = 1 << 20 };

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "lockstep: %s: %s\n", what, strerror(errno));
    exit(2);
}

static _Noreturn void become(const struct lock_machine *m, const struct state_log_config *when,
                             int fd)
{
    char log[160];
    const char *argv[ARGS_MAX + 8] = {m->vmm, "--accel", m->accel, "--state-log", log};
    unsigned n = 5;
    int used, null = open("/dev/null", O_RDWR);

    used = snprintf(log, sizeof(log), "/dev/fd/%d", fd);
    if (when->every)
        used += snprintf(log + used, sizeof(log) - (size_t)used, ",every=%llu",
                         (unsigned long long)when->every);
    if (when->also)
        used += snprintf(log + used, sizeof(log) - (size_t)used, ",also=%llu",
                         (unsigned long long)when->also);
    if (when->dense)
        snprintf(log + used, sizeof(log) - (size_t)used, ",dense=%llu",
                 (unsigned long long)when->dense);
    for (unsigned i = 0; m->args[i] && i < ARGS_MAX; i++)
        argv[n++] = m->args[i];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    execv(m->vmm, (char *const *)argv);
    _exit(127);
}

void lock_start(struct lock_machine *m, const struct state_log_config *when)
{
    int ends[2];

    if (pipe2(ends, 0) < 0)
        give_up("pipe");
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES); /* a smaller one only is slower */
    m->pid = fork();
    if (m->pid < 0)
        give_up("fork");
    if (m->pid == 0)
        become(m, when, ends[1]);
    close(ends[1]);
    m->fd = ends[0];
}

bool lock_next(struct lock_machine *m, struct state_record *r)
{
    uint8_t *p = (uint8_t *)r;
    size_t left = sizeof(*r);

    while (left) {
        const ssize_t n = read(m->fd, p, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        left -= (size_t)n;
    }
    return true;
}

bool lock_wait(const struct lock_machine *a, const struct lock_machine *b, int64_t until_ns)
{
    const struct lock_machine *both[] = {a, b};

    for (unsigned i = 0; i < 2; i++) {
        struct pollfd p = {.fd = both[i]->fd, .events = POLLIN};
        const int64_t left = until_ns - qz_now_ns();

        if (left <= 0 || poll(&p, 1, (int)QZ_MIN(left / 1000000 + 1, (int64_t)INT32_MAX)) == 0)
            return false;
    }
    return true;
}

void lock_stop(struct lock_machine *m)
{
    if (!m->pid)
        return;
    kill(m->pid, SIGKILL);
    waitpid(m->pid, NULL, 0);
    close(m->fd);
    m->pid = 0;
}

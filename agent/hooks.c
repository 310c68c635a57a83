/* hooks.c - see hooks.h. */
#include "hooks.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Not what editors and package managers leave behind. */
static int is_hook(const struct dirent *e)
{
    const size_t len = strlen(e->d_name);

    return e->d_name[0] != '.' && len && e->d_name[len - 1] != '~' && !strchr(e->d_name, '.');
}

static bool executable(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* In a process group of its own, so that all of it can be ended. */
static int start(const char *path, char *const *environment, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none;
    int r;

    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
    r = posix_spawn(pid, path, &files, &attr, (char *[]){(char *)path, NULL}, environment);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return -r;
}

/* Linux 5.3 has descriptors of processes; before that, time is taken in steps. */
static void wait_end(pid_t pid, int64_t until)
{
    QZ_AUTO_FD int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {fd, POLLIN, 0};
    siginfo_t info = {0};
    int64_t left;

    while ((left = until - qz_now_ns()) > 0) {
        const int ms = (int)(left / 1000000) + 1;

        poll(&p, 1, fd < 0 ? QZ_MIN(ms, 20) : ms);
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid)
            return;
    }
}

/* What it said of itself by its end, or that it had to be ended. */
static void finish(pid_t pid, int64_t until, char *done, size_t size)
{
    int status = 0;
    bool late;

    wait_end(pid, until);
    late = waitpid(pid, &status, WNOHANG) == 0;
    if (late) {
        kill(-pid, SIGKILL);
        waitpid(pid, &status, 0);
        snprintf(done, size, "failed: it took too long");
    } else if (WIFSIGNALED(status)) {
        snprintf(done, size, "failed: ended by signal %d", WTERMSIG(status));
    } else if (WEXITSTATUS(status)) {
        snprintf(done, size, "failed: exit code %d", WEXITSTATUS(status));
    } else {
        snprintf(done, size, "ok");
    }
}

static void run(const char *path, char *const *environment, int64_t until, char *done, size_t size)
{
    pid_t pid;
    int r;

    if (qz_now_ns() >= until) {
        snprintf(done, size, "failed: no time was left");
        return;
    }
    r = start(path, environment, &pid);
    if (r < 0)
        snprintf(done, size, "failed: %s", strerror(-r));
    else
        finish(pid, until, done, size);
}

json_t *hooks_run(const char *dir, char *const *environment, int64_t limit_ns)
{
    const int64_t until = qz_now_ns() + limit_ns;
    struct dirent **entry = NULL;
    json_t *list = json_array();
    const int count = scandir(dir, &entry, is_hook, alphasort);

    for (int i = 0; i < count; i++) {
        char path[PATH_MAX], done[80];

        snprintf(path, sizeof(path), "%s/%s", dir, entry[i]->d_name);
        if (executable(path) && json_array_size(list) < HOOKS_MAX) {
            run(path, environment, until, done, sizeof(done));
            json_array_append_new(list,
                                  json_pack("{s:s,s:s}", "name", entry[i]->d_name, "done", done));
        }
        free(entry[i]);
    }
    free(entry);
    return list;
}

/* program.c - processes of a test (machine.h). */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "machine.h"

enum { STEP_NS = 500000, CHILDREN_MAX = 64 };

static volatile sig_atomic_t interrupted;

void pause_ns(int64_t ns)
{
    const struct timespec t = {ns / 1000000000, ns % 1000000000};

    nanosleep(&t, NULL);
    if (interrupted)
        fail("ended by signal %d", interrupted);
}

static void on_signal(int number)
{
    interrupted = number;
}

void adopt_orphans(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
}

static unsigned find_children(pid_t child[CHILDREN_MAX], pid_t but)
{
    char path[64];
    unsigned n = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    f = fopen(path, "re");
    while (f && n < CHILDREN_MAX && fscanf(f, "%d", &child[n]) == 1)
        n += child[n] != but;
    if (f)
        fclose(f);
    return n;
}

/* True when there was one. They may leave children of their own to us, who are found the next time.
 */
static bool kill_children(pid_t but)
{
    pid_t child[CHILDREN_MAX];
    const unsigned n = find_children(child, but);

    for (unsigned i = 0; i < n; i++)
        kill(child[i], SIGKILL);
    for (unsigned i = 0; i < n; i++)
        waitpid(child[i], NULL, 0);
    return n > 0;
}

void kill_orphans(pid_t but)
{
    while (kill_children(but))
        ;
}

/* A pager among our children (its machine's parent is gone, or never was ours); 0: none. */
static pid_t find_pager(void)
{
    char path[64], name[32] = "";
    pid_t child = 0, found = 0;
    FILE *children, *f;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    children = fopen(path, "re");
    while (children && !found && fscanf(children, "%d", &child) == 1) {
        snprintf(path, sizeof(path), "/proc/%d/comm", child);
        f = fopen(path, "re");
        if (f && fgets(name, sizeof(name), f) && !strcmp(name, "queztl-pager\n"))
            found = child;
        if (f)
            fclose(f);
    }
    if (children)
        fclose(children);
    return found;
}

void pagers_end(bool killed)
{
    pid_t pid;

    while ((pid = find_pager())) {
        if (killed)
            kill(pid, SIGKILL);
        program_end(pid);
    }
}

void kill_all(void)
{
    kill_orphans(0);
}

void fail(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "FAILED: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    kill_all();
    exit(1);
}

pid_t program_start(char *const *words, const char *log)
{
    const int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const pid_t pid = out < 0 || in < 0 ? -1 : fork();

    if (pid < 0)
        fail("%s: %s", log, strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        execv(words[0], words);
        _exit(127);
    }
    close(in);
    close(out);
    return pid;
}

static int code_of(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int program_end(pid_t pid)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;
    int status;

    for (;;) {
        const pid_t r = waitpid(pid, &status, WNOHANG);

        if (r == pid)
            return code_of(status);
        if (r < 0)
            fail("process %d is nobody's child: %s", pid, strerror(errno));
        if (qz_now_ns() > limit)
            fail("process %d does not end", pid);
        pause_ns(STEP_NS);
    }
}

void program_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    program_end(pid);
}

static void show(const char *log)
{
    char text[2000];
    FILE *f = fopen(log, "re");
    const size_t n = f ? fread(text, 1, sizeof(text), f) : 0;

    fwrite(text, 1, n, stderr);
    if (f)
        fclose(f);
}

/* The first line of a file, without its end. */
static void read_line(const char *path, char *line, int size)
{
    FILE *f = fopen(path, "re");

    line[0] = '\0';
    if (f && !fgets(line, size, f))
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (f)
        fclose(f);
}

/* What each of its threads waits for. */
static void show_threads(pid_t pid)
{
    char path[320], name[64], where[128], call[128];
    const struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, e->d_name);
        read_line(path, name, sizeof(name));
        snprintf(path, sizeof(path), "/proc/%d/task/%s/wchan", pid, e->d_name);
        read_line(path, where, sizeof(where));
        snprintf(path, sizeof(path), "/proc/%d/task/%s/syscall", pid, e->d_name);
        read_line(path, call, sizeof(call));
        if (*name)
            fprintf(stderr, "%d/%s %s: in %s, system call %s\n", pid, e->d_name, name, where, call);
    }
    if (d)
        closedir(d);
}

static void show_children(void)
{
    pid_t child[CHILDREN_MAX];
    const unsigned n = find_children(child, 0);

    for (unsigned i = 0; i < n; i++)
        show_threads(child[i]);
}

int program_code(const char *log, char *const *words)
{
    return program_end(program_start(words, log));
}

void program_run(int wanted, const char *log, char *const *words)
{
    const int code = program_code(log, words);

    if (code == wanted)
        return;
    show(log);
    show_children();
    fail("%s %s %s: exit code %d", words[0], words[1], words[1] && words[2] ? words[2] : "", code);
}

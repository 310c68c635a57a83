/* machine_start.c - queztl-vmm as a process (machine_start.h). */
#include "machine_start.h"

#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>

extern char **environ;

int find_vmm(char *path, size_t size, struct qz_error *err)
{
    static const char *const places[] = {"queztl-vmm", "../vmm/vm/queztl-vmm",
                                         "../libexec/queztl/queztl-vmm"};
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *dir;

    if (n < 0)
        return qz_fail(err, -errno, "cannot tell where this program is: %s", strerror(errno));
    self[n] = '\0';
    dir = dirname(self);
    for (size_t i = 0; i < QZ_ARRAY_LEN(places); i++) {
        if (snprintf(path, size, "%s/%s", dir, places[i]) < (int)size && access(path, X_OK) == 0)
            return 0;
    }
    return qz_fail(err, -ENOENT, "queztl-vmm is not beside %s/queztl-hv: install both", dir);
}

int words_add(struct words *w, const char *text)
{
    char **grown, *copy;

    if (w->count + 2 > w->room) {
        grown = realloc(w->word, (w->room * 2 + 16) * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        w->word = grown;
        w->room = w->room * 2 + 16;
    }
    copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    w->word[w->count++] = copy;
    w->word[w->count] = NULL;
    return 0;
}

int words_add_list(struct words *w, const json_t *list)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        r = text ? words_add(w, text) : -EINVAL;
    }
    return r;
}

void words_free(struct words *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->word[i]);
    free(w->word);
    *w = (struct words){0};
}

/* Copies above all places where the machine wants one, so that none is overwritten. */
static int copy_above(const int *fds, unsigned count, int *copies)
{
    for (unsigned i = 0; i < count; i++)
        copies[i] = -1;
    for (unsigned i = 0; i < count; i++) {
        copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, HANDED_FIRST + HANDED_MAX);
        if (copies[i] < 0)
            return -errno;
    }
    return 0;
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int spawn(const struct words *words, const int *fds, unsigned count, int messages)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t pid;
    int r;

    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, messages, STDERR_FILENO);
    for (unsigned i = 0; i < count; i++)
        posix_spawn_file_actions_adddup2(&files, fds[i], HANDED_FIRST + (int)i);
    r = posix_spawn(&pid, words->word[0], &files, &attr, words->word, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return r ? -r : pid;
}

int start_machine(const struct words *words, const int *fds, unsigned count, int messages)
{
    int copies[HANDED_MAX + 1], all[HANDED_MAX + 1], r;

    if (count > HANDED_MAX)
        return -E2BIG;
    memcpy(all, fds, count * sizeof(all[0]));
    all[count] = messages;
    r = copy_above(all, count + 1, copies);
    if (r == 0)
        r = spawn(words, copies, count, copies[count]);
    close_all(copies, count + 1);
    return r;
}

int place_descriptors(const int *fds, unsigned count)
{
    int copies[HANDED_MAX];
    int r = count > HANDED_MAX ? -E2BIG : copy_above(fds, count, copies);

    for (unsigned i = 0; r == 0 && i < count; i++)
        if (dup2(copies[i], HANDED_FIRST + (int)i) < 0)
            r = -errno;
    return r;
}

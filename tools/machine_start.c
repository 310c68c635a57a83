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

int start_machine(const struct words *words, int state, int memory, int messages)
{
    /* Copies above those that the new process has at 3 and 4, so that none is overwritten. */
    QZ_AUTO_FD int state_copy = fcntl(state, F_DUPFD_CLOEXEC, 10);
    QZ_AUTO_FD int memory_copy = fcntl(memory, F_DUPFD_CLOEXEC, 10);
    QZ_AUTO_FD int messages_copy = fcntl(messages, F_DUPFD_CLOEXEC, 10);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    pid_t pid;
    int r;

    if (state_copy < 0 || memory_copy < 0 || messages_copy < 0)
        return -errno;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, messages_copy, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&files, state_copy, 3);
    posix_spawn_file_actions_adddup2(&files, memory_copy, 4);
    r = posix_spawn(&pid, words->word[0], &files, &attr, words->word, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return r ? -r : pid;
}

/* machine_start.h - starting queztl-vmm: where it is, and as a process that lives on by itself. */
#ifndef TOOLS_MACHINE_START_H
#define TOOLS_MACHINE_START_H

#include <jansson.h>
#include <queztl/base.h>

/* Beside this program when installed, in its place in the build tree otherwise. */
int find_vmm(char *path, size_t size, struct qz_error *err);

/* Words for execv(): the pointers and the texts are the list's. NULL-terminated. */
struct words {
    char **word;
    size_t count, room;
};
/* Keeps a copy. -ENOMEM. */
int words_add(struct words *w, const char *text);
int words_add_list(struct words *w, const json_t *list);
void words_free(struct words *w);

enum { HANDED_FIRST = 3, HANDED_MAX = 32 };

/*
 * Starts it in a session of its own, with standard input and output at /dev/null and its messages
 * on `messages` (a descriptor); those of fds are its descriptors from HANDED_FIRST on. The process
 * id, or a negative errno.
 */
int start_machine(const struct words *words, const int *fds, unsigned count, int messages);
/* For a process that becomes a machine itself: its own descriptors from HANDED_FIRST on. */
int place_descriptors(const int *fds, unsigned count);

#endif

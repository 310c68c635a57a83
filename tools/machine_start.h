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

/*
 * Starts it in a session of its own, with standard input and output at /dev/null and its messages
 * on `messages` (a descriptor); state and memory are its descriptors 3 and 4. The process id, or a
 * negative errno.
 */
int start_machine(const struct words *words, int state, int memory, int messages);

#endif

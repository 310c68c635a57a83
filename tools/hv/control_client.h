/*
 * control_client.h - asking a running queztl-vmm, over its control socket (docs of it: README.md).
 */
#ifndef TOOLS_CONTROL_CLIENT_H
#define TOOLS_CONTROL_CLIENT_H

#include <jansson.h>
#include <queztl/base.h>

enum {
    CONTROL_DESCRIPTORS_MAX = 32, /* no answer has more */
    CONTROL_GIVEN_MAX = 34,
};

struct control_answer {
    json_t *data; /* NULL: the answer has none */
    int fd[CONTROL_DESCRIPTORS_MAX];
    unsigned fds;
};

/*
 * Sends one request, with `count` descriptors that stay the caller's, and waits for its answer. 0
 * and *a filled, or a negative errno: -ECONNREFUSED and the like when nobody is there, -EREMOTEIO
 * when the monitor refuses (the text is its own).
 */
int control_ask(const char *socket_path, const json_t *request, const int *fds, unsigned count,
                struct control_answer *a, struct qz_error *err);
void control_answer_free(struct control_answer *a);

#endif

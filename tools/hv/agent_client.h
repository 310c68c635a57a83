/*
 * agent_client.h - asking the agents of many machines at a time (<queztl/agent.h>). A machine whose
 * agent is slow, or has none, delays no other.
 */
#ifndef TOOLS_AGENT_CLIENT_H
#define TOOLS_AGENT_CLIENT_H

#include <jansson.h>
#include <queztl/agent.h>
#include <queztl/base.h>
#include <sys/types.h>

enum agent_said {
    AGENT_SILENT, /* there was no time left */
    AGENT_NONE,   /* the guest has none */
    AGENT_OK,
    AGENT_ERROR,
};

struct agent_call {
    const char *path; /* the machine's vsock socket; it may come to be later */
    pid_t pid;        /* when this process is gone, nobody is waited for; 0: unknown */
    char *line;       /* the request with its end; the caller's */
    /* So long the machine may still be at its start, and one that lets nobody in is asked again. */
    int64_t starting_ns;
    enum agent_said said;
    json_t *data;   /* AGENT_OK; the caller's */
    char text[200]; /* AGENT_ERROR: why */

    /* private */
    enum agent_step { AGENT_CONNECT, AGENT_HANDSHAKE, AGENT_ANSWER, AGENT_DONE } step;
    int fd;
    int64_t none_until, next_try;
    unsigned broken; /* connections that ended behind the handshake */
    size_t have;
    char in[QZ_AGENT_LINE_MAX];
};

/* All of them at once; after limit_ns none is waited for any more. */
void agent_call_all(struct agent_call *calls, unsigned count, int64_t limit_ns);

#endif

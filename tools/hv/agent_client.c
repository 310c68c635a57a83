/*
 * agent_client.c - each call is a small machine of its own: connect, "CONNECT port", the request,
 * its answer (agent_client.h).
 *
 * A guest that goes on from a snapshot is told that its connections are gone, and may think so of
 * one that has just been made: when it ends after the handshake without an answer, it is made anew.
 * Requests may be repeated (<queztl/agent.h>).
 */
#include "agent_client.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SLOW_NS INT64_C(8000000000)
enum { STEP_MS = 5, LOOK_MS = 200, BROKEN_MAX = 16 };

static void hang_up(struct agent_call *c, enum agent_step next)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->have = 0;
    c->step = next;
}

static void end(struct agent_call *c, enum agent_said said, const char *text)
{
    hang_up(c, AGENT_DONE);
    c->said = said;
    snprintf(c->text, sizeof(c->text), "%s", text);
}

/* These lines are short: they fit a fresh socket's buffer. */
static bool say(struct agent_call *c, const char *line)
{
    return send(c->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)strlen(line);
}

static void try_connect(struct agent_call *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char line[32];

    c->next_try = qz_now_ns() + STEP_MS * INT64_C(1000000);
    if (strlen(c->path) >= sizeof(a.sun_path))
        return end(c, AGENT_ERROR, "the path is too long for a socket");
    strcpy(a.sun_path, c->path);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return; /* descriptors come back when other calls end */
    snprintf(line, sizeof(line), "CONNECT %d\n", QZ_AGENT_PORT);
    if (connect(c->fd, (const struct sockaddr *)&a, sizeof(a)) < 0 || !say(c, line))
        hang_up(c, AGENT_CONNECT); /* not there yet: again */
    else
        c->step = AGENT_HANDSHAKE;
}

static void understand(struct agent_call *c, size_t len)
{
    json_t *answer = json_loadb(c->in, len, JSON_REJECT_DUPLICATES, NULL);
    const char *why = json_string_value(json_object_get(answer, "error"));

    if (json_is_true(json_object_get(answer, "ok"))) {
        c->data = json_incref(json_object_get(answer, "data"));
        end(c, AGENT_OK, "");
    } else {
        end(c, AGENT_ERROR, why ? why : "its answer is not understood");
    }
    json_decref(answer);
}

/* Lines that are there: the monitor's "OK port", then the answer. */
static void take_lines(struct agent_call *c)
{
    char *newline;

    while (c->step != AGENT_DONE && (newline = memchr(c->in, '\n', c->have))) {
        const size_t len = (size_t)(newline - c->in);

        if (c->step == AGENT_ANSWER)
            return understand(c, len);
        c->have -= len + 1;
        memmove(c->in, newline + 1, c->have);
        c->step = AGENT_ANSWER;
        if (!say(c, c->line))
            hang_up(c, AGENT_CONNECT);
    }
    if (c->have == sizeof(c->in))
        end(c, AGENT_ERROR, "its answer is too long");
}

/*
 * A guest without an agent refuses at once. Whom the monitor has lost patience with has only been
 * slow, and one that is at its start may have one later.
 */
static void end_handshake(struct agent_call *c)
{
    const int64_t now = qz_now_ns();

    if (now < c->none_until || now - c->next_try >= SLOW_NS)
        hang_up(c, AGENT_CONNECT);
    else
        end(c, AGENT_NONE, "");
}

static void receive(struct agent_call *c)
{
    const ssize_t n = recv(c->fd, c->in + c->have, sizeof(c->in) - c->have, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        c->have += (size_t)n;
        take_lines(c);
    } else if (c->step == AGENT_HANDSHAKE) {
        end_handshake(c);
    } else if (++c->broken == BROKEN_MAX) {
        end(c, AGENT_ERROR, "it breaks off without an answer");
    } else {
        hang_up(c, AGENT_CONNECT);
    }
}

static bool gone(const struct agent_call *c)
{
    return c->pid && kill(c->pid, 0) < 0 && errno == ESRCH;
}

/* One round: calls that are not through yet. */
static unsigned advance(struct agent_call *calls, unsigned count, struct pollfd *polls, int *wait)
{
    unsigned open = 0;

    *wait = LOOK_MS;
    for (unsigned i = 0; i < count; i++) {
        struct agent_call *c = &calls[i];

        if (polls[i].revents)
            receive(c);
        if (c->step != AGENT_DONE && gone(c))
            end(c, AGENT_ERROR, "the machine has ended");
        if (c->step == AGENT_CONNECT && qz_now_ns() >= c->next_try)
            try_connect(c);
        if (c->step == AGENT_CONNECT)
            *wait = STEP_MS;
        polls[i] = (struct pollfd){c->fd, POLLIN, 0};
        open += c->step != AGENT_DONE;
    }
    return open;
}

void agent_call_all(struct agent_call *calls, unsigned count, int64_t limit_ns)
{
    QZ_AUTO_FREE struct pollfd *polls = calloc(count + 1, sizeof(*polls));
    const int64_t limit = qz_now_ns() + limit_ns;
    int wait;

    for (unsigned i = 0; i < count; i++) {
        calls[i].fd = -1;
        calls[i].none_until = qz_now_ns() + calls[i].starting_ns;
        hang_up(&calls[i], AGENT_CONNECT);
    }
    while (polls && advance(calls, count, polls, &wait)) {
        const int64_t left = (limit - qz_now_ns()) / 1000000;

        if (left <= 0)
            break;
        poll(polls, count, (int)QZ_MIN((int64_t)wait, left));
    }
    for (unsigned i = 0; i < count; i++)
        if (calls[i].step != AGENT_DONE)
            end(&calls[i], AGENT_SILENT, "no answer in time");
}

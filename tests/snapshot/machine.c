/* machine.c - machines that run the counting guest, seen from their consoles and control sockets
 * (machine.h). */
#include "machine.h"

#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <queztl/command.h>

#include "control_client.h"

enum { STEP_NS = 300000, SHOWN = 300, JUMP_LINES = 3, JUMP_ROOM = 64 * STREAM_LINE };

/* What its console has beyond what was judged; the caller's to free. */
static char *unread(const struct machine *m, size_t *n)
{
    QZ_AUTO_FD int fd = open(m->console, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    char *text;
    ssize_t got;

    *n = 0;
    if (fd >= 0 && fstat(fd, &st) < 0)
        fail("%s: %s", m->console, strerror(errno));
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        fail("no memory for %s", m->console);
    if (fd < 0 || (size_t)st.st_size <= m->judged)
        return text; /* it has not said anything yet */
    got = pread(fd, text, (size_t)st.st_size - m->judged, (off_t)m->judged);
    if (got < 0)
        fail("%s: %s", m->console, strerror(errno));
    *n = (size_t)got;
    return text;
}

static bool is_alive(const struct machine *m)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)m->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

/* How the console and the machine are, for whom this is a failure. */
static _Noreturn void complain(const struct machine *m, const char *what, const char *text,
                               size_t n)
{
    char log[SHOWN] = "";
    QZ_AUTO_FD int fd = open(m->log, O_RDONLY | O_CLOEXEC);

    if (fd >= 0 && pread(fd, log, sizeof(log) - 1, 0) < 0)
        log[0] = '\0';
    fail("%s %s (it is %s, expected at position %llu):\n%.*s\n%s", m->console, what,
         is_alive(m) ? "alive" : "gone", (unsigned long long)m->position,
         (int)QZ_MIN(n, (size_t)SHOWN), text + n - QZ_MIN(n, (size_t)SHOWN), log);
}

/* One more look, a moment later. `limit` is when there is none. */
static void look_again(const struct machine *m, int64_t limit, const char *what, const char *text,
                       size_t n)
{
    if (qz_now_ns() > limit || !is_alive(m))
        complain(m, what, text, n);
    pause_ns(STEP_NS);
}

void machine_begins(struct machine *m)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;

    for (;;) {
        size_t n;
        QZ_AUTO_FREE char *text = unread(m, &n);

        if (n >= (size_t)JUMP_LINES * STREAM_LINE && stream_find(text, n, &m->position)) {
            m->judged += n;
            m->position += n;
            return;
        }
        look_again(m, n < (size_t)JUMP_LINES * STREAM_LINE ? limit : 0,
                   "is no piece of what the guest says", text, n);
    }
}

void machine_goes_on(struct machine *m, unsigned lines)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;
    size_t enough = 0; /* counted from what it has said by now */

    for (;;) {
        size_t n;
        QZ_AUTO_FREE char *text = unread(m, &n);

        if (stream_follow(text, n, m->position) < n)
            complain(m, "does not go on as it must", text, n);
        m->judged += n;
        m->position += n;
        if (!enough)
            enough = m->judged + (size_t)lines * STREAM_LINE;
        if (m->judged >= enough)
            return;
        look_again(m, limit, "does not go on", text, n);
    }
}

void machine_judge(struct machine *m)
{
    machine_goes_on(m, 0);
}

struct moment machine_jumps(struct machine *m)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;

    for (;;) {
        struct moment to;
        uint64_t next;
        size_t n, old;
        QZ_AUTO_FREE char *text = unread(m, &n);

        if (stream_jump(text, n, m->position, &to, &next)) {
            m->judged += n;
            m->position = next;
            return to;
        }
        old = stream_follow(text, n, m->position);
        look_again(m, n - old < (size_t)JUMP_ROOM ? limit : 0, "was sent back and does not say so",
                   text, QZ_MIN(n, old + SHOWN / 2));
    }
}

int machine_ask(const struct machine *m, const char *verb)
{
    json_t *request = json_pack("{s:s}", "cmd", verb);
    struct control_answer a;
    struct qz_error err = {0};
    int r = control_ask(m->socket, request, NULL, 0, &a, &err);

    json_decref(request);
    if (r == 0)
        control_answer_free(&a);
    return r;
}

void machine_answers(const struct machine *m)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;

    while (machine_ask(m, "info") < 0)
        look_again(m, limit, "has no control socket that answers", "", 0);
}

static bool has_all_memory(const struct machine *m)
{
    json_t *request = json_pack("{s:s}", "cmd", "info");
    struct control_answer a;
    struct qz_error err = {0};
    const int r = control_ask(m->socket, request, NULL, 0, &a, &err);
    const bool has = r == 0 && !json_object_get(a.data, "loading");

    json_decref(request);
    if (r == 0)
        control_answer_free(&a);
    return has;
}

static void judge_the_dead(struct machine *m)
{
    const int code = program_end(m->pid);
    size_t n;
    QZ_AUTO_FREE char *text = unread(m, &n);

    if (code != QZ_EXIT_FAILED)
        fail("%s: without its memory the machine ended with %d", m->console, code);
    if (n >= (size_t)JUMP_LINES * STREAM_LINE && !stream_find(text, n, &m->position))
        fail("%s is no piece of what the guest says:\n%.*s", m->console, SHOWN, text);
}

bool machine_survives(struct machine *m)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;

    while (is_alive(m)) {
        if (has_all_memory(m))
            return true;
        if (qz_now_ns() > limit)
            complain(m, "neither has its memory nor ends", "", 0);
        pause_ns(STEP_NS);
    }
    judge_the_dead(m);
    return false;
}

void machine_stop(struct machine *m)
{
    int r = machine_ask(m, "stop"), code;

    if (r < 0)
        complain(m, strerror(-r), "", 0);
    code = program_end(m->pid);
    if (code)
        fail("%s: stopped, it ended with %d", m->console, code);
    machine_judge(m);
}

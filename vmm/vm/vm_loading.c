/* vm_loading.c - see vm_loading.h. */
#include "vm/vm_loading.h"

#include <queztl/command.h>
#include <sys/socket.h>

#include "snapshot/pager.h"
#include "snapshot/userfault.h"
#include "vm/host_console.h"

QZ_SYSCALLS(loading, "recvfrom");
QZ_SYSCALLS(main, "sendto shutdown");

struct vm_loading {
    int userfault, channel;
    char snapshot[sizeof(((struct pager_report *)0)->text)];
    pthread_t thread;
    bool listens;
    enum confine_mode confine;
    struct host_console *console;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct pager_report last;
    bool leaving; /* the machine ends by itself */
};

/* ---- saying hello */

static int knock(int door, const struct guest_memory *memory, int userfault, int channel)
{
    const struct pager_hello hello = {.version = PAGER_VERSION,
                                      .low = (uintptr_t)memory->low,
                                      .low_size = memory->low_size,
                                      .high = (uintptr_t)memory->high,
                                      .high_size = memory->high_size};

    return pager_knock(door, &hello, userfault, channel);
}

static int fail_gone(struct qz_error *err)
{
    return qz_fail(err, -EPIPE,
                   "the process that loads the snapshot's memory ended before it had all: begin "
                   "again from the snapshot (--load eager does without that process)");
}

/* True: a whole report came. */
static bool hear(struct vm_loading *l, struct pager_report *r)
{
    ssize_t n;

    do
        n = recv(l->channel, r, sizeof(*r), 0);
    while (n < 0 && errno == EINTR);
    r->text[sizeof(r->text) - 1] = '\0';
    return n == sizeof(*r);
}

static void close_userfault(struct vm_loading *l)
{
    close(l->userfault);
    l->userfault = -1;
}

static int hear_first(struct vm_loading *l, struct qz_error *err)
{
    if (!hear(l, &l->last))
        return fail_gone(err);
    if (l->last.word == PAGER_FAILED)
        return qz_fail(err, -EIO, "%s", l->last.text);
    if (l->last.word == PAGER_DONE)
        close_userfault(l);
    memcpy(l->snapshot, l->last.text, sizeof(l->snapshot));
    return 0;
}

static int meet(struct vm_loading *l, int door, const struct guest_memory *memory,
                struct qz_error *err)
{
    int ends[2], r;

    l->userfault = userfault_new(err);
    if (l->userfault < 0)
        return l->userfault;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return qz_fail(err, -errno, "no channel to the process that loads memory: %s",
                       strerror(errno));
    l->channel = ends[0];
    r = knock(door, memory, l->userfault, ends[1]);
    close(ends[1]);
    return r < 0 ? fail_gone(err) : hear_first(l, err);
}

int vm_loading_begin(struct vm_loading **out, int door, const struct guest_memory *memory,
                     struct qz_error *err)
{
    struct vm_loading *l = calloc(1, sizeof(*l));
    int r;

    if (!l) {
        close(door);
        return qz_fail(err, -ENOMEM, "no memory");
    }
    *out = l;
    l->userfault = l->channel = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    r = meet(l, door, memory, err);
    close(door);
    return r;
}

/* ---- listening */

/* Other threads may wait for pages that never come: nothing is waited for and nothing is freed. */
static _Noreturn void end_at_once(struct vm_loading *l, const char *why)
{
    host_console_restore(l->console);
    qz_log(QZ_LOG_ERROR, "snapshot %s: %s", l->snapshot, why);
    _exit(QZ_EXIT_FAILED);
}

/* False: there is nothing more to hear. */
static bool take(struct vm_loading *l, const struct pager_report *r, bool heard)
{
    struct qz_error err;
    QZ_LOCKED(&l->lock);

    if (l->leaving)
        return false;
    if (!heard) {
        fail_gone(&err);
        end_at_once(l, err.text);
    }
    if (r->word == PAGER_FAILED)
        end_at_once(l, r->text);
    l->last = *r;
    if (r->word != PAGER_DONE)
        return true;
    close_userfault(l);
    pthread_cond_broadcast(&l->changed);
    return false;
}

static void *listen_main(void *arg)
{
    struct vm_loading *l = arg;
    struct pager_report r;
    struct qz_error err;
    bool heard;

    pthread_setname_np(pthread_self(), "loading");
    if (confine_thread(CONFINE_LOADING, l->confine, &err) < 0)
        end_at_once(l, err.text);
    do
        heard = hear(l, &r);
    while (take(l, &r, heard));
    return NULL;
}

int vm_loading_listen(struct vm_loading *l, enum confine_mode mode, struct host_console *console,
                      struct qz_error *err)
{
    int r;

    if (l->userfault < 0)
        return 0;
    l->confine = mode;
    l->console = console;
    r = pthread_create(&l->thread, NULL, listen_main, l);
    l->listens = r == 0;
    return r ? qz_fail(err, -r, "cannot start a thread: %s", strerror(r)) : 0;
}

void vm_loading_free(struct vm_loading *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->leaving = true;
    pthread_mutex_unlock(&l->lock);
    if (l->listens) {
        shutdown(l->channel, SHUT_RDWR);
        pthread_join(l->thread, NULL);
    }
    if (l->channel >= 0)
        close(l->channel);
    if (l->userfault >= 0)
        close(l->userfault);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}

/* ---- what the rest of the machine asks */

void vm_loading_wait(struct vm_loading *l)
{
    const char word = PAGER_HURRY;

    if (!l)
        return;
    QZ_LOCKED(&l->lock);

    /* If it cannot be sent, nobody listens any more, and the other thread ends us. */
    if (l->last.word != PAGER_DONE && send(l->channel, &word, 1, MSG_NOSIGNAL) < 0)
        qz_info("the process that loads memory does not listen: %s", strerror(errno));
    while (l->last.word != PAGER_DONE)
        pthread_cond_wait(&l->changed, &l->lock);
}

json_t *vm_loading_info(struct vm_loading *l)
{
    if (!l)
        return NULL;
    QZ_LOCKED(&l->lock);

    return l->last.word == PAGER_DONE
               ? NULL
               : json_pack("{s:I,s:I,s:i}", "done", (json_int_t)l->last.done, "of",
                           (json_int_t)l->last.of, "pager", (int)l->last.pid);
}

json_t *vm_loading_metrics(struct vm_loading *l)
{
    if (!l)
        return NULL;
    QZ_LOCKED(&l->lock);

    return json_pack("{s:I,s:I,s:I}", "bytes", (json_int_t)l->last.done, "faults",
                     (json_int_t)l->last.faults, "longest_wait_us",
                     (json_int_t)l->last.longest_ns / 1000);
}

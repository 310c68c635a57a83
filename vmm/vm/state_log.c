/* state_log.c - the state at chosen moments of virtual time (state_log.h). */
#include "vm/state_log.h"

#include <fcntl.h>
#include <poll.h>

#include "gdb/memory.h"

QZ_SYSCALLS(vcpu, "write poll");

enum { FXSAVE_FOP = 6, FXSAVE_FDP_END = 24, WAIT_MS = 100 };

struct state_log {
    struct machine *machine;
    int fd;
    struct state_log_config config;
    int64_t next;
    bool stopped; /* atomic */
    struct vcpu_state *state;
    struct gdb_target memory; /* for the walk to the code */
};

static int physical(void *context, uint64_t address, void *data, size_t len, bool write)
{
    const struct state_log *log = context;

    return write ? -EACCES : mem_read(&log->machine->memory, gpa(address), data, len);
}

static int64_t next_after(const struct state_log_config *c, uint64_t time)
{
    uint64_t next = c->every ? time / c->every * c->every + c->every : INT64_MAX;

    if (c->also > time)
        next = QZ_MIN(next, c->also);
    if (c->dense)
        next = QZ_MIN(next, QZ_MAX(time + 1, c->dense));
    return (int64_t)next;
}

static const struct gdb_target_ops memory_ops = {.physical = physical};

int state_log_new(struct state_log **out, struct machine *m, const struct state_log_config *config,
                  struct qz_error *err)
{
    struct state_log *log = calloc(1, sizeof(*log));

    if (!log || posix_memalign((void **)&log->state, 64, sizeof(*log->state))) {
        free(log);
        return qz_fail(err, -ENOMEM, "state log: no memory");
    }
    log->machine = m;
    log->config = *config;
    log->next = next_after(config, 0);
    log->memory = (struct gdb_target){.ops = &memory_ops, .context = log};
    log->fd = open(config->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600);
    if (log->fd < 0) {
        const int e = errno;

        state_log_free(log);
        return qz_fail(err, -e, "state log %s: %s", config->path, strerror(e));
    }
    *out = log;
    return 0;
}

void state_log_free(struct state_log *log)
{
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    free(log->state);
    free(log);
}

int64_t state_log_next(const struct state_log *log)
{
    return log->next;
}

void state_log_stop(struct state_log *log)
{
    if (log)
        __atomic_store_n(&log->stopped, true, __ATOMIC_RELAXED);
}

static uint64_t hash(uint64_t h, const void *data, size_t len)
{
    const uint8_t *p = data;

    for (; len >= 8; p += 8, len -= 8) {
        h = (h ^ qz_load_le64(p)) * 0x9e3779b97f4a7c15;
        h ^= h >> 29;
    }
    for (; len; p++, len--)
        h = (h ^ *p) * 0x100000001b3;
    return h;
}

/* The last instruction's and operand's addresses are the host's business where code is copied
 * (README of the software CPU). */
static void forget_addresses(struct vcpu_state *s)
{
    if (s->xsave_size >= FXSAVE_FDP_END)
        memset(s->xsave + FXSAVE_FOP, 0, FXSAVE_FDP_END - FXSAVE_FOP);
}

static void describe(struct state_log *log, struct state_record *r, const struct vcpu_state *s)
{
    const uint64_t at = s->cs.base + s->rip;
    int64_t n;

    memcpy(r->gpr, s->gpr, sizeof(r->gpr));
    r->rip = s->rip;
    r->rflags = s->rflags;
    r->cr0 = s->cr0;
    r->cr2 = s->cr2;
    r->cr3 = s->cr3;
    r->cr4 = s->cr4;
    r->fs_base = s->fs.base;
    r->gs_base = s->gs.base;
    r->xmm = hash(1, s->xsave, s->xsave_size);
    r->rest = hash(2, &s->cs, offsetof(struct vcpu_state, msr) - offsetof(struct vcpu_state, cs));
    r->rest = hash(r->rest, s->msr, s->msr_count * sizeof(s->msr[0]));
    n = gdb_memory(&log->memory, s, at, r->code, sizeof(r->code), false);
    r->code_len = n > 0 ? (uint32_t)n : 0;
}

/* Waits for a slow reader; one that has seen enough is let go. */
static void put(const struct state_log *log, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len && !__atomic_load_n(&log->stopped, __ATOMIC_RELAXED)) {
        const ssize_t n = write(log->fd, p, len);
        struct pollfd room = {.fd = log->fd, .events = POLLOUT};

        if (n < 0 && errno == EAGAIN)
            poll(&room, 1, WAIT_MS);
        else if (n < 0 && errno != EINTR)
            return;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}

void state_log_write(struct state_log *log, struct accel_vcpu *const *vcpus, unsigned cpu)
{
    const struct machine *m = log->machine;
    const struct accel_ops *ops = m->accel->ops;
    struct state_record r = {.time = (uint64_t)vm_clock_now(m->clock), .cpu = cpu};

    for (unsigned i = 0; i < m->cpus; i++) {
        struct vcpu_state *s = log->state;

        if (ops->get_state(vcpus[i], s) < 0)
            continue;
        forget_addresses(s);
        r.states = hash(r.states + i, s, offsetof(struct vcpu_state, msr));
        r.states = hash(r.states, s->msr, s->msr_count * sizeof(s->msr[0]));
        r.states = hash(r.states, s->xsave, s->xsave_size);
        if (i == cpu)
            describe(log, &r, s);
    }
    if (ops->memory_hash(m->accel, &r.memory) < 0)
        qz_warn("state log: no memory");
    put(log, &r, sizeof(r));
    log->next = next_after(&log->config, r.time);
}

/*
 * test_server.c - see the header. It trusts its front end, which is the test's: what is wrong ends
 * it.
 */
#include "test_server.h"

#include "../sim/dev_ring.h"
#include "message.h"
#include "test_inflight.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { QUEUES_MAX = 4, HELD_MAX = 16, CONFIG_BYTES = 96, REPLY = 5, NEED_REPLY = 8 };

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        uint32_t pair[2];
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } addr;
        struct {
            uint32_t regions, padding;
            uint64_t guest, size, user, offset;
        } memory;
        struct {
            uint32_t offset, size, flags;
            uint8_t space[256];
        } config;
        struct {
            uint64_t size, offset;
            uint16_t queues, depth;
            uint32_t padding;
        } inflight;
        uint8_t bytes[512];
    };
} __attribute__((packed));

struct ring {
    struct dev_ring r;
    struct dev_chain held[HELD_MAX];
    unsigned count;
    struct test_inflight inflight;
    uint32_t base;
    int kick, call;
    bool enabled;
};

struct server {
    struct test_server o;
    int fd;
    uint64_t features, guest, size, rng;
    uint8_t *memory, *notes; /* in-flight buffer */
    unsigned notes_depth;
    struct ring rings[QUEUES_MAX];
};

static void die(const char *why)
{
    fprintf(stderr, "test server: %s\n", why);
    _exit(1);
}

static uint8_t *translate(void *ctx, uint64_t addr, uint64_t len)
{
    const struct server *s = ctx;
    uint64_t at = addr - s->guest;

    return addr >= s->guest && at <= s->size && len <= s->size - at ? s->memory + at : NULL;
}

/* ---- requests ---- */

static void transfer(const struct server *s, const struct dev_chain *c, bool write, uint64_t at)
{
    for (unsigned i = 1; i < c->count; i++) {
        const struct dev_piece *p = &c->pieces[i];
        size_t len = p->len;
        ssize_t n;

        if (i + 1 == c->count || p->write == write)
            continue;
        n = write ? pwrite(s->o.disk, p->at, len, (off_t)at)
                  : pread(s->o.disk, p->at, len, (off_t)at);
        if (n != (ssize_t)len)
            die("the disk is too short");
        at += len;
    }
}

static void serve(struct server *s, struct ring *q, const struct dev_chain *c)
{
    const struct dev_piece *last = &c->pieces[c->count - 1];
    uint64_t sector = qz_load_le64(c->pieces[0].at + 8);
    uint32_t type = qz_load_le32(c->pieces[0].at), len = 0;

    for (unsigned i = 1; i < c->count; i++)
        len += c->pieces[i].write ? c->pieces[i].len : 0;
    if (type == VBLK_OP_READ || type == VBLK_OP_WRITE)
        transfer(s, c, type == VBLK_OP_WRITE, sector * 512);
    *last->at = type <= VBLK_OP_FLUSH ? 0 : 2;
    test_inflight_pushing(&q->inflight, &q->r, c);
    dev_ring_push(&q->r, c, len);
}

/* One round: a busy ring does not keep the others waiting. True: there is more. */
static bool run_ring(struct server *s, struct ring *q)
{
    const uint64_t one = 1;

    while (q->count < HELD_MAX) {
        struct dev_chain *c = &q->held[q->count];
        unsigned place = q->r.next_avail;
        int rc = dev_ring_pop(&q->r, c);

        if (rc < 0)
            die(q->r.violation);
        if (rc == 0)
            break;
        test_inflight_taken(&q->inflight, &q->r, c, place);
        q->count++;
    }
    while (q->count) {
        unsigned i;
        bool told;

        s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
        i = s->o.reorder ? (s->rng >> 33) % q->count : 0;
        serve(s, q, &q->held[i]);
        /* Shown one by one: a kill can fall between any two. */
        told = dev_ring_flush(&q->r);
        test_inflight_pushed(&q->inflight, &q->r, &q->held[i]);
        if (told && write(q->call, &one, sizeof(one)) < 0)
            die("the event cannot be signalled");
        memmove(&q->held[i], &q->held[i + 1], (--q->count - i) * sizeof(q->held[0]));
    }
    return dev_ring_want_doorbell(&q->r);
}

/* ---- messages ---- */

static void reply_fd(struct server *s, struct message *m, uint32_t size, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {m, 12 + size};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cm = CMSG_FIRSTHDR(&h);

    cm->cmsg_level = SOL_SOCKET;
    cm->cmsg_type = SCM_RIGHTS;
    cm->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(cm), &fd, sizeof(fd));
    m->flags = REPLY;
    m->size = size;
    if (sendmsg(s->fd, &h, MSG_NOSIGNAL) != (ssize_t)(12 + size))
        _exit(0);
    close(fd);
}

static void reply(struct server *s, struct message *m, uint32_t size)
{
    m->flags = REPLY;
    m->size = size;
    if (send(s->fd, m, 12 + size, MSG_NOSIGNAL) != (ssize_t)(12 + size))
        _exit(0);
}

static void fill_config(const struct server *s, struct message *m)
{
    uint8_t space[CONFIG_BYTES] = {0};

    qz_store_le64(space, s->o.sectors);
    qz_store_le32(space + 12, 30);
    qz_store_le32(space + 20, 512);
    qz_store_le16(space + 34, (uint16_t)s->o.queues);
    memcpy(m->config.space, space + m->config.offset,
           QZ_MIN(m->config.size, (uint32_t)CONFIG_BYTES));
}

static void set_addr(struct server *s, const struct message *m)
{
    struct ring *q = &s->rings[m->addr.index % QUEUES_MAX];
    unsigned size = q->r.size;
    int kick = q->kick, call = q->call;

    q->r = (struct dev_ring){.packed = s->features & QZ_BIT(VBLK_F_RING_PACKED),
                             .event_idx = s->features & QZ_BIT(VBLK_F_EVENT_IDX),
                             .in_order = s->features & QZ_BIT(VBLK_F_IN_ORDER),
                             .indirect_ok = s->features & QZ_BIT(VBLK_F_INDIRECT_DESC),
                             .size = size,
                             .desc = translate(s, m->addr.desc, 16 * size),
                             .driver = translate(s, m->addr.avail, 4),
                             .device = translate(s, m->addr.used, 4),
                             .translate = translate,
                             .ctx = s};
    dev_ring_init(&q->r);
    q->kick = kick;
    q->call = call;
    q->count = 0;
    if (!q->r.desc || !q->r.driver || !q->r.device)
        die("a ring outside of the memory");
    if (q->r.packed) {
        q->r.next_avail = q->r.next_used = q->r.signalled = q->base & 0x7fff;
        q->r.avail_wrap = q->r.used_wrap = q->r.signalled_wrap = q->base >> 15 & 1;
    } else {
        q->r.next_avail = q->r.next_used = q->r.signalled = (uint16_t)q->base;
    }
}

/* Everything is known of the ring now: it goes on where a server before this one stopped. */
static void take_over(struct server *s, struct ring *q)
{
    int left;

    q->inflight = (struct test_inflight){.size = q->r.size};
    if (!s->notes)
        return;
    if (q->r.size != s->notes_depth)
        die("an in-flight buffer for another depth");
    q->inflight.region = s->notes + (q - s->rings) * test_inflight_bytes(q->r.size);
    left = test_inflight_left(&q->inflight, &q->r, q->held, HELD_MAX);
    if (left < 0)
        die("what was in flight makes no sense");
    q->count = (unsigned)left;
}

static void get_inflight(struct server *s, struct message *m)
{
    int fd = memfd_create("notes", MFD_CLOEXEC);

    m->inflight.size = m->inflight.queues * test_inflight_bytes(m->inflight.depth);
    m->inflight.offset = 0;
    if (fd < 0 || ftruncate(fd, (off_t)m->inflight.size) < 0)
        die("no in-flight buffer");
    reply_fd(s, m, sizeof(m->inflight), fd);
}

static void set_inflight(struct server *s, const struct message *m, int fd)
{
    s->notes = mmap(NULL, m->inflight.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                    (off_t)m->inflight.offset);
    s->notes_depth = m->inflight.depth;
    if (s->notes == MAP_FAILED)
        die("the in-flight buffer cannot be mapped");
    close(fd);
}

static void set_memory(struct server *s, const struct message *m, int fd)
{
    if (s->memory)
        munmap(s->memory, s->size);
    s->guest = m->memory.guest;
    s->size = m->memory.size;
    s->memory =
        mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)m->memory.offset);
    if (s->memory == MAP_FAILED)
        die("the memory cannot be mapped");
    close(fd);
}

static void handle(struct server *s, struct message *m, int fd)
{
    struct ring *q = &s->rings[m->pair[0] % QUEUES_MAX];
    bool packed = s->features & QZ_BIT(VBLK_F_RING_PACKED);

    switch (m->request) {
    case VU_GET_FEATURES:
        m->u64 = s->o.features | VBLK_BIT(VBLK_F_VERSION_1) | VBLK_BIT(VBLK_F_MQ) |
                 QZ_BIT(VU_F_PROTOCOL_FEATURES);
        reply(s, m, 8);
        return;
    case VU_SET_FEATURES:
        s->features = m->u64;
        break;
    case VU_GET_PROTOCOL_FEATURES:
        m->u64 = QZ_BIT(VU_PROTOCOL_MQ) | QZ_BIT(VU_PROTOCOL_REPLY_ACK) |
                 QZ_BIT(VU_PROTOCOL_CONFIG) | (s->o.inflight ? QZ_BIT(VU_PROTOCOL_INFLIGHT) : 0);
        reply(s, m, 8);
        return;
    case VU_GET_QUEUE_NUM:
        m->u64 = s->o.queues;
        reply(s, m, 8);
        return;
    case VU_GET_CONFIG:
        fill_config(s, m);
        reply(s, m, m->size);
        return;
    case VU_SET_MEM_TABLE:
        set_memory(s, m, fd);
        break;
    case VU_SET_VRING_NUM:
        q->r.size = m->pair[1];
        break;
    case VU_SET_VRING_BASE: /* a packed ring starts with both wrap counters at 1 */
        if (!s->notes && m->pair[1] != (packed ? 0x80008000u : 0))
            die("a ring that does not begin at its beginning");
        q->base = m->pair[1];
        break;
    case VU_GET_INFLIGHT_FD:
        get_inflight(s, m);
        return;
    case VU_SET_INFLIGHT_FD:
        set_inflight(s, m, fd);
        break;
    case VU_SET_VRING_ADDR:
        set_addr(s, m);
        break;
    case VU_SET_VRING_KICK:
        q->kick = fd;
        take_over(s, q);
        break;
    case VU_SET_VRING_CALL:
        q->call = fd;
        break;
    case VU_SET_VRING_ENABLE:
        q->enabled = m->pair[1];
        break;
    case VU_GET_VRING_BASE:
        q->enabled = false;
        m->pair[1] = q->r.next_avail;
        reply(s, m, 8);
        return;
    default:
        break;
    }
    if (m->flags & NEED_REPLY) {
        m->u64 = 0;
        reply(s, m, 8);
    }
}

static bool receive(struct server *s)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct message m = {0};
    struct iovec iov = {&m, 12};
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    struct cmsghdr *cm;
    int fd = -1;

    if (recvmsg(s->fd, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12 || m.size > sizeof(m.bytes))
        return false;
    cm = CMSG_FIRSTHDR(&h);
    if (cm && cm->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(cm), sizeof(fd));
    if (m.size && recv(s->fd, m.bytes, m.size, MSG_WAITALL) != (ssize_t)m.size)
        return false;
    handle(s, &m, fd);
    return true;
}

static void connection(struct server *s)
{
    bool more[QUEUES_MAX] = {false}, any = false;

    for (;;) {
        struct pollfd p[1 + QUEUES_MAX] = {{.fd = s->fd, .events = POLLIN}};
        uint64_t count;

        for (unsigned i = 0; i < QUEUES_MAX; i++)
            p[1 + i] = (struct pollfd){s->rings[i].enabled ? s->rings[i].kick : -1, POLLIN, 0};
        if (poll(p, 1 + QUEUES_MAX, any ? 0 : -1) < 0)
            die("poll");
        any = false;
        for (unsigned i = 0; i < QUEUES_MAX; i++) {
            if (p[1 + i].revents)
                more[i] |= read(p[1 + i].fd, &count, sizeof(count)) > 0;
            more[i] = s->rings[i].enabled && more[i] && run_ring(s, &s->rings[i]);
            any |= more[i];
        }
        if (p[0].revents && !receive(s))
            return;
    }
}

pid_t test_server_start(const struct test_server *o)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct server *s;
    pid_t child;

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", o->socket);
    unlink(o->socket);
    if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(listener, 4) < 0)
        return -errno;
    child = fork();
    if (child) {
        close(listener);
        return child;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    s = calloc(1, sizeof(*s));
    for (s->o = *o;;) {
        s->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        s->notes = NULL;
        for (unsigned i = 0; i < QUEUES_MAX; i++)
            s->rings[i].enabled = false;
        connection(s);
        close(s->fd);
    }
}

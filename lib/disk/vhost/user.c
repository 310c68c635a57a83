/*
 * user.c - the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as the back end.
 *
 * A message is 12 bytes of header, a payload, and descriptors beside it. Everything in it is
 * checked; what cannot be done ends the connection, or is refused by the reply that the frontend
 * asked for.
 */
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "vhost.h"

enum message_type {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    RESET_OWNER = 4,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    SET_VRING_ERR = 14,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    SET_BACKEND_REQ_FD = 21,
    GET_CONFIG = 24,
    SET_CONFIG = 25,
    GET_INFLIGHT_FD = 31,
    SET_INFLIGHT_FD = 32,
    RESET_DEVICE = 34,
    GET_MAX_MEM_SLOTS = 36,
    ADD_MEM_REG = 37,
    REM_MEM_REG = 38,
};

enum { BACKEND_CONFIG_CHANGE = 2 };
enum { VERSION = 1, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8 };
enum {
    PROTOCOL_MQ = 0,
    REPLY_ACK = 3,
    BACKEND_REQ = 5,
    CONFIG = 9,
    INFLIGHT = 12,
    RESET = 13,
    MEM_SLOTS = 15
};
enum { FDS_MAX = 8, REGIONS_IN_TABLE = 8, CONFIG_MAX = 256, RESIZE_POLL_MS = 500 };

#define F_VERSION_1         QZ_BIT(32)
#define F_RING_PACKED       QZ_BIT(34)
#define F_INDIRECT          QZ_BIT(28)
#define F_EVENT_IDX         QZ_BIT(29)
#define F_PROTOCOL_FEATURES QZ_BIT(30)

struct region {
    uint64_t gpa, size, user, offset;
};

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        struct {
            uint32_t index, num;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } addr;
        struct {
            uint32_t count, padding;
            struct region region[REGIONS_IN_TABLE];
        } memory;
        struct {
            uint64_t padding;
            struct region region;
        } slot;
        struct {
            uint32_t offset, size, flags;
            uint8_t bytes[CONFIG_MAX];
        } config;
        struct {
            uint64_t mmap_size, mmap_offset;
            uint16_t queues, size;
        } inflight;
    } p;
    int fds[FDS_MAX];
    unsigned fd_count;
};

enum { HEADER = 12, PAYLOAD_MAX = sizeof(((struct message *)0)->p) };

/* ---- the socket */

/* 1: readable; 0: time to stop; -EAGAIN: RESIZE_POLL_MS passed. */
static int wait_readable(struct vhost *v)
{
    struct pollfd p[2] = {{v->connection, POLLIN, 0}, {v->stop_fd, POLLIN, 0}};
    int r;

    do
        r = poll(p, 2, v->backend_fd >= 0 ? RESIZE_POLL_MS : -1);
    while (r < 0 && errno == EINTR);
    return r == 0 ? -EAGAIN : p[1].revents ? 0 : 1;
}

static void take_fds(struct message *m, struct msghdr *h)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (m->fd_count < FDS_MAX)
                m->fds[m->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

/* Reads length bytes; 0 or a negative errno. */
static int receive(struct vhost *v, struct message *m, void *bytes, size_t length)
{
    size_t got = 0;

    while (got < length) {
        union {
            struct cmsghdr h;
            char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control;
        struct iovec iov = {(uint8_t *)bytes + got, length - got};
        struct msghdr h = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof(control)};
        int ready = wait_readable(v);
        ssize_t n;

        if (ready == -EAGAIN && got == 0 && length == HEADER)
            return -EAGAIN;
        if (ready == -EAGAIN)
            continue;
        if (ready == 0)
            return -ESHUTDOWN;
        n = recvmsg(v->connection, &h, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return -errno;
        take_fds(m, &h);
        if (n == 0)
            return -ECONNRESET;
        got += (size_t)n;
    }
    return 0;
}

static int receive_message(struct vhost *v, struct message *m)
{
    int r;

    memset(m, 0, sizeof(*m));
    r = receive(v, m, m, HEADER);
    if (r < 0)
        return r;
    if ((m->flags & 3) != VERSION || m->size > PAYLOAD_MAX) {
        qz_warn("vhost-user: message %u: version %u, %u bytes", m->request, m->flags & 3, m->size);
        return -EPROTO;
    }
    return receive(v, m, &m->p, m->size);
}

static int send_message(int socket, struct message *m, int fd)
{
    union {
        struct cmsghdr h;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov[2] = {{m, HEADER}, {&m->p, m->size}};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t sent;

    if (fd >= 0) {
        h.msg_control = &control;
        h.msg_controllen = sizeof(control);
        control.h = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.h), &fd, sizeof(fd));
    }
    /* A few bytes: they fit the socket's buffer, or the frontend does not read. */
    do
        sent = sendmsg(socket, &h, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)(HEADER + m->size) ? 0 : -EIO;
}

static int reply(struct vhost *v, struct message *m, uint32_t size, int fd)
{
    m->flags = VERSION | FLAG_REPLY;
    m->size = size;
    return send_message(v->connection, m, fd);
}

static int reply_u64(struct vhost *v, struct message *m, uint64_t value)
{
    m->p.u64 = value;
    return reply(v, m, sizeof(value), -1);
}

/* The capacity changed: the frontend reads the configuration again. */
static void tell_resize(struct vhost *v)
{
    struct message m = {.request = BACKEND_CONFIG_CHANGE, .flags = VERSION};
    uint64_t size = __atomic_load_n(&v->top->info.size, __ATOMIC_RELAXED);

    if (v->backend_fd < 0 || size == v->told_size)
        return;
    v->told_size = size;
    send_message(v->backend_fd, &m, -1);
}

/* ---- memory */

/* Stops the rings, changes the memory, starts them again where they stood. */
static int with_rings_stopped(struct vhost *v, int (*fn)(struct vhost *v, struct message *m),
                              struct message *m)
{
    bool running[LANES_MAX], enabled[LANES_MAX];
    int r;

    for (unsigned i = 0; i < v->lane_count; i++) {
        running[i] = v->lane[i].running;
        enabled[i] = v->lane[i].enabled;
        if (running[i])
            lane_stop(&v->lane[i]);
    }
    r = fn(v, m);
    for (unsigned i = 0; i < v->lane_count; i++)
        if (running[i] && r == 0 && lane_start(&v->lane[i]) == 0)
            lane_enable(&v->lane[i], enabled[i]);
    return r;
}

static int add_region(struct vhost *v, const struct region *r, int fd)
{
    struct qz_error err = {0};
    int e = memory_map_add(&v->memory, r->gpa, r->user, r->size, r->offset, fd, &err);

    if (e < 0)
        qz_warn("%s", err.text);
    return e;
}

static int set_memory(struct vhost *v, struct message *m)
{
    if (m->p.memory.count > REGIONS_IN_TABLE || m->p.memory.count != m->fd_count ||
        m->size < 8 + m->p.memory.count * sizeof(struct region))
        return -EPROTO;
    memory_map_clear(&v->memory);
    for (unsigned i = 0; i < m->p.memory.count; i++) {
        int r = add_region(v, &m->p.memory.region[i], m->fds[i]);

        if (r < 0)
            return r;
    }
    return 0;
}

static int add_memory(struct vhost *v, struct message *m)
{
    return m->fd_count == 1 ? add_region(v, &m->p.slot.region, m->fds[0]) : -EPROTO;
}

static int remove_memory(struct vhost *v, struct message *m)
{
    const struct region *r = &m->p.slot.region;

    return memory_map_remove(&v->memory, r->gpa, r->user, r->size);
}

/* ---- rings */

static struct lane *lane_of(struct vhost *v, uint32_t index)
{
    if (index < v->lane_count)
        return &v->lane[index];
    qz_warn("vhost-user: there is no queue %u", index);
    return NULL;
}

/* Takes the descriptor of a SET_VRING_KICK, CALL or ERR; -1: none comes (bit 8). */
static struct lane *lane_and_fd(struct vhost *v, struct message *m, int *fd)
{
    struct lane *l = lane_of(v, m->p.u64 & 0xff);

    *fd = -1;
    if (l && !(m->p.u64 & 0x100)) {
        if (m->fd_count != 1)
            return NULL;
        *fd = m->fds[0];
        m->fd_count = 0;
    }
    return l;
}

static void replace(int *fd, int with)
{
    if (*fd >= 0)
        close(*fd);
    *fd = with;
}

static int set_kick(struct vhost *v, struct message *m)
{
    int fd, r;
    struct lane *l = lane_and_fd(v, m, &fd);

    if (!l)
        return -EPROTO;
    if (l->running)
        lane_stop(l);
    replace(&l->kick_fd, fd);
    l->inflight = v->inflight && l->index < v->inflight_queues && l->size == v->inflight_size
                      ? inflight_of_lane(v->inflight, l->index, v->inflight_size)
                      : NULL;
    r = lane_start(l);
    if (r == 0 && !(v->features & F_PROTOCOL_FEATURES))
        lane_enable(l, true);
    return r;
}

static int set_ring(struct vhost *v, struct message *m)
{
    struct lane *l = lane_of(v, m->p.state.index);

    if (!l || l->running)
        return -EPROTO;
    switch (m->request) {
    case SET_VRING_NUM:
        if (!m->p.state.num || m->p.state.num > RING_SIZE_MAX)
            return -EINVAL;
        l->size = (uint16_t)m->p.state.num;
        return 0;
    case SET_VRING_BASE:
        l->base = m->p.state.num;
        return 0;
    default:
        l->desc_user = m->p.addr.desc;
        l->driver_user = m->p.addr.avail;
        l->device_user = m->p.addr.used;
        return 0;
    }
}

static int get_base(struct vhost *v, struct message *m)
{
    struct lane *l = lane_of(v, m->p.state.index);

    if (!l)
        return -EPROTO;
    m->p.state.num = lane_stop(l);
    return reply(v, m, sizeof(m->p.state), -1);
}

static int enable(struct vhost *v, struct message *m)
{
    struct lane *l = lane_of(v, m->p.state.index);

    if (!l)
        return -EPROTO;
    lane_enable(l, m->p.state.num);
    return 0;
}

static void stop_all(struct vhost *v)
{
    for (unsigned i = 0; i < v->lane_count; i++) {
        struct lane *l = &v->lane[i];

        lane_stop(l);
        lane_enable(l, false);
        lane_set_call(l, -1);
        replace(&l->kick_fd, -1);
        replace(&l->err_fd, -1);
        l->base = 0;
        l->size = 0;
        l->inflight = NULL;
    }
}

/* ---- configuration */

static int get_config(struct vhost *v, struct message *m)
{
    struct blk_config c;
    uint32_t offset = m->p.config.offset, size = m->p.config.size;

    if (size > CONFIG_MAX || offset > CONFIG_MAX - size || m->size < 12)
        return reply(v, m, 0, -1); /* how the protocol says no here */
    blk_config(v, &c);
    v->told_size = __atomic_load_n(&v->top->info.size, __ATOMIC_RELAXED);
    memset(m->p.config.bytes, 0, sizeof(m->p.config.bytes));
    if (offset < sizeof(c))
        memcpy(m->p.config.bytes, (uint8_t *)&c + offset, QZ_MIN((size_t)size, sizeof(c) - offset));
    return reply(v, m, 12 + size, -1);
}

static int set_config(struct vhost *v, struct message *m)
{
    const uint32_t wce = offsetof(struct blk_config, wce);

    if (m->size < 13 || m->p.config.offset != wce || m->p.config.size != 1)
        return -EINVAL;
    __atomic_store_n(&v->wce, m->p.config.bytes[0] & 1, __ATOMIC_RELAXED);
    return 0;
}

/* ---- what was in flight */

static void forget_inflight(struct vhost *v)
{
    if (v->inflight)
        munmap(v->inflight, v->inflight_mapped);
    v->inflight = NULL;
}

static int get_inflight(struct vhost *v, struct message *m)
{
    size_t bytes;
    QZ_AUTO_FD int fd = -1;

    if (!m->p.inflight.queues || m->p.inflight.queues > v->lane_count || !m->p.inflight.size ||
        m->p.inflight.size > RING_SIZE_MAX)
        return -EINVAL;
    bytes = inflight_bytes(m->p.inflight.queues, m->p.inflight.size);
    fd = memfd_create("queztl-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return -errno;
    m->p.inflight.mmap_size = bytes;
    m->p.inflight.mmap_offset = 0;
    return reply(v, m, sizeof(m->p.inflight), fd);
}

static int set_inflight(struct vhost *v, struct message *m)
{
    uint64_t size = m->p.inflight.mmap_size, offset = m->p.inflight.mmap_offset;
    unsigned queues = m->p.inflight.queues, ring = m->p.inflight.size;
    struct stat st;
    void *p;

    if (m->fd_count != 1 || !queues || queues > LANES_MAX || !ring || ring > RING_SIZE_MAX ||
        size < inflight_bytes(queues, ring) || size > 64 << 20 || fstat(m->fds[0], &st) < 0 ||
        (uint64_t)st.st_size < size || offset > (uint64_t)st.st_size - size)
        return -EINVAL;
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fds[0], (off_t)offset);
    if (p == MAP_FAILED)
        return -errno;
    for (unsigned i = 0; i < v->lane_count; i++)
        if (v->lane[i].running)
            lane_stop(&v->lane[i]);
    forget_inflight(v);
    v->inflight = p;
    v->inflight_mapped = size;
    v->inflight_queues = queues;
    v->inflight_size = ring;
    return 0;
}

/* ---- all messages */

static uint64_t features(const struct vhost *v)
{
    return blk_features(v) | F_VERSION_1 | F_RING_PACKED | F_INDIRECT | F_EVENT_IDX |
           F_PROTOCOL_FEATURES;
}

static uint64_t protocol_features(void)
{
    return QZ_BIT(PROTOCOL_MQ) | QZ_BIT(REPLY_ACK) | QZ_BIT(BACKEND_REQ) | QZ_BIT(CONFIG) |
           QZ_BIT(INFLIGHT) | QZ_BIT(RESET) | QZ_BIT(MEM_SLOTS);
}

static int set_features(struct vhost *v, struct message *m)
{
    if (m->p.u64 & ~features(v))
        return -EINVAL;
    v->features = m->p.u64;
    /* Who cannot flush gets writes that are stable when they end, and reads writeback as 0 (VirtIO
     * 1.3 §5.2.5.2, §5.2.6.2). */
    if (!(v->features & QZ_BIT(9))) /* VIRTIO_BLK_F_FLUSH */
        __atomic_store_n(&v->wce, false, __ATOMIC_RELAXED);
    return 0;
}

/* *answered: a reply went out that is more than "done". */
static int handle(struct vhost *v, struct message *m, bool *answered)
{
    struct lane *l;
    int fd;

    *answered = true;
    switch (m->request) {
    case GET_FEATURES:
        return reply_u64(v, m, features(v));
    case GET_PROTOCOL_FEATURES:
        return reply_u64(v, m, protocol_features());
    case GET_QUEUE_NUM:
        return reply_u64(v, m, v->lane_count);
    case GET_MAX_MEM_SLOTS:
        return reply_u64(v, m, MAP_REGIONS_MAX);
    case GET_VRING_BASE:
        return get_base(v, m);
    case GET_CONFIG:
        return get_config(v, m);
    case GET_INFLIGHT_FD:
        return get_inflight(v, m);
    }
    *answered = false;
    switch (m->request) {
    case SET_FEATURES:
        return set_features(v, m);
    case SET_PROTOCOL_FEATURES:
        if (m->p.u64 & ~protocol_features())
            return -EINVAL;
        v->protocol_features = m->p.u64;
        return 0;
    case SET_OWNER:
        return 0;
    case RESET_OWNER:
    case RESET_DEVICE:
        stop_all(v);
        return 0;
    case SET_MEM_TABLE:
        return with_rings_stopped(v, set_memory, m);
    case ADD_MEM_REG:
        return with_rings_stopped(v, add_memory, m);
    case REM_MEM_REG:
        return with_rings_stopped(v, remove_memory, m);
    case SET_VRING_NUM:
    case SET_VRING_ADDR:
    case SET_VRING_BASE:
        return set_ring(v, m);
    case SET_VRING_KICK:
        return set_kick(v, m);
    case SET_VRING_CALL:
        l = lane_and_fd(v, m, &fd);
        if (l)
            lane_set_call(l, fd);
        return l ? 0 : -EPROTO;
    case SET_VRING_ERR:
        l = lane_and_fd(v, m, &fd);
        if (l)
            replace(&l->err_fd, fd);
        return l ? 0 : -EPROTO;
    case SET_VRING_ENABLE:
        return enable(v, m);
    case SET_CONFIG:
        return set_config(v, m);
    case SET_INFLIGHT_FD:
        return set_inflight(v, m);
    case SET_BACKEND_REQ_FD:
        if (m->fd_count != 1)
            return -EPROTO;
        replace(&v->backend_fd, m->fds[0]);
        m->fd_count = 0;
        return 0;
    }
    qz_warn("vhost-user: message %u is not known here", m->request);
    return -EOPNOTSUPP;
}

static int serve_message(struct vhost *v)
{
    struct message m;
    bool answered, wants_reply;
    int r = receive_message(v, &m);

    if (r == 0) {
        wants_reply = m.flags & FLAG_NEED_REPLY && v->protocol_features & QZ_BIT(REPLY_ACK);
        r = handle(v, &m, &answered);
        if (r < 0)
            qz_warn("vhost-user: message %u: %s", m.request, strerror(-r));
        if (wants_reply && !answered)
            r = reply_u64(v, &m, r < 0); /* told, and the frontend decides */
    }
    for (unsigned i = 0; i < m.fd_count; i++)
        close(m.fds[i]);
    return r;
}

void user_serve(struct vhost *v)
{
    int r;

    v->features = v->protocol_features = 0;
    v->backend_fd = -1;
    __atomic_store_n(&v->wce, true, __ATOMIC_RELAXED);
    do {
        r = serve_message(v);
        tell_resize(v);
    } while (r == 0 || r == -EAGAIN);
    stop_all(v);
    memory_map_clear(&v->memory);
    forget_inflight(v);
    replace(&v->backend_fd, -1);
}

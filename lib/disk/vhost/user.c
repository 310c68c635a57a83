/*
 * user.c - the vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as the back end.
 *
 * Everything in a message is checked; what cannot be done ends the connection, or is refused by the
 * reply that the frontend asked for.
 */
#include <sys/socket.h>
#include <sys/stat.h>

#include "message.h"

/* The capacity changed: the frontend reads the configuration again. */
static void tell_resize(struct vhost *v)
{
    struct message m = {.request = BACKEND_CONFIG_CHANGE, .flags = VERSION};
    uint64_t size = __atomic_load_n(&v->top->info.size, __ATOMIC_RELAXED);

    if (v->backend_fd < 0 || size == v->told_size)
        return;
    v->told_size = size;
    message_send(v->backend_fd, &m, -1);
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

static bool is_packed(const struct vhost *v)
{
    return v->features & QZ_BIT(34); /* VIRTIO_F_RING_PACKED */
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
    l->inflight = v->inflight && l->index < v->inflight_queues && l->size == v->inflight_size &&
                          inflight_bytes(l->index + 1, l->size, is_packed(v)) <= v->inflight_mapped
                      ? inflight_of_lane(v->inflight, l->index, v->inflight_size, is_packed(v))
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
    return message_reply(v, m, sizeof(m->p.state), -1);
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
        return message_reply(v, m, 0, -1); /* how the protocol says no here */
    blk_config(v, &c);
    v->told_size = __atomic_load_n(&v->top->info.size, __ATOMIC_RELAXED);
    memset(m->p.config.bytes, 0, sizeof(m->p.config.bytes));
    if (offset < sizeof(c))
        memcpy(m->p.config.bytes, (uint8_t *)&c + offset, QZ_MIN((size_t)size, sizeof(c) - offset));
    return message_reply(v, m, 12 + size, -1);
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
    /* The larger kind, in case the ring's is not yet agreed on. */
    bytes = inflight_bytes(m->p.inflight.queues, m->p.inflight.size, true);
    fd = memfd_create("queztl-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return -errno;
    m->p.inflight.mmap_size = bytes;
    m->p.inflight.mmap_offset = 0;
    return message_reply(v, m, sizeof(m->p.inflight), fd);
}

static int set_inflight(struct vhost *v, struct message *m)
{
    uint64_t size = m->p.inflight.mmap_size, offset = m->p.inflight.mmap_offset;
    unsigned queues = m->p.inflight.queues, ring = m->p.inflight.size;
    struct stat st;
    void *p;

    if (m->fd_count != 1 || !queues || queues > LANES_MAX || !ring || ring > RING_SIZE_MAX ||
        size < inflight_bytes(queues, ring, is_packed(v)) || size > 64 << 20 ||
        fstat(m->fds[0], &st) < 0 || (uint64_t)st.st_size < size ||
        offset > (uint64_t)st.st_size - size)
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
        return message_reply_u64(v, m, features(v));
    case GET_PROTOCOL_FEATURES:
        return message_reply_u64(v, m, protocol_features());
    case GET_QUEUE_NUM:
        return message_reply_u64(v, m, v->lane_count);
    case GET_MAX_MEM_SLOTS:
        return message_reply_u64(v, m, MAP_REGIONS_MAX);
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
    int r = message_receive(v, &m);

    if (r == 0) {
        wants_reply = m.flags & FLAG_NEED_REPLY && v->protocol_features & QZ_BIT(REPLY_ACK);
        r = handle(v, &m, &answered);
        if (r < 0)
            qz_warn("vhost-user: message %u: %s", m.request, strerror(-r));
        if (wants_reply && !answered)
            r = message_reply_u64(v, &m, r < 0); /* told, and the frontend decides */
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

/*
 * user.c - vhost-user as a transport of the driver, and Linux as its platform.
 *
 * A reset of the device is a new connection: the rings are stopped where the server still listens,
 * the socket is closed, and the handshake starts over. That is the one way that every server
 * handles, a crashed one included, and a server lets go of our memory before it takes the next
 * connection. A server that is lost and keeps its in-flight requests in a shared buffer is no
 * reset: the next one is given rings and buffer as they are. An address of the device is the
 * address in this process, so nothing is translated on the I/O path.
 */
#include <queztl/vblk_user.h>

#include "connection.h"

#include <sys/eventfd.h>

enum { STATUS_NEEDS_RESET = 64, CONFIG_MAX = 256, REPLY_MS = 5000, RECONNECT_MS = 10000 };
enum { DEPTH_MAX = 1024 };

static struct vblk_user *of(struct vblk_transport *t)
{
    return QZ_CONTAINER_OF(t, struct vblk_user, t);
}

/* Remembers that the connection can no longer be used. */
static int failed(struct vblk_user *u, int rc)
{
    if (rc < 0)
        u->broken = true;
    return rc;
}

/* ---- transport ---- */

static void stop_rings(struct vblk_user *u)
{
    for (unsigned i = 0; i < u->enabled; i++) {
        uint32_t ask[2] = {i, 0}, base[2];

        if (channel_ask(&u->channel, VU_GET_VRING_BASE, ask, sizeof(ask), base, sizeof(base)) < 0)
            return;
    }
}

static void drop_events(struct vblk_user *u)
{
    for (unsigned i = 0; i < VBLK_QUEUES_MAX; i++) {
        if (u->kick[i] >= 0)
            close(u->kick[i]);
        u->kick[i] = -1;
    }
    u->enabled = 0;
}

static uint64_t get_features(struct vblk_transport *t)
{
    /* A doorbell here is an eventfd, which carries no data. */
    return of(t)->features & ~(VBLK_BIT(VBLK_F_NOTIFICATION_DATA));
}

static int set_features(struct vblk_transport *t, uint64_t features)
{
    struct vblk_user *u = of(t);

    u->negotiated = features;
    return failed(u, channel_send_u64(&u->channel, VU_SET_FEATURES,
                                      features | QZ_BIT(VU_F_PROTOCOL_FEATURES), -1));
}

static uint8_t get_status(struct vblk_transport *t)
{
    struct vblk_user *u = of(t);

    return u->status |
           (u->status && (u->broken || channel_lost(&u->channel)) ? STATUS_NEEDS_RESET : 0);
}

/* A reset lets go of the server; the first status after it finds one again. */
static int set_status(struct vblk_transport *t, uint8_t status)
{
    struct vblk_user *u = of(t);
    int rc = 0;

    if (status) {
        if (u->channel.fd < 0)
            rc = u->status ? -VBLK_ENODEV : connect_within(u, u->options.reconnect_ms);
        if (rc == 0)
            u->status = status;
        return rc;
    }
    /* A connection that was never used for a queue is as good as a new one. */
    if (u->status == 0 && !u->broken && !channel_lost(&u->channel))
        return 0;
    if (!u->broken)
        stop_rings(u);
    channel_close(&u->channel);
    drop_events(u);
    inflight_forget(u); /* what it says of the rings is void now */
    u->status = 0;
    return 0;
}

struct config_message {
    uint32_t offset, size, flags;
    uint8_t space[CONFIG_MAX];
} __attribute__((packed));

static int config_read(struct vblk_transport *t, unsigned offset, void *to, unsigned len)
{
    struct vblk_user *u = of(t);
    struct config_message m = {.offset = offset, .size = len};
    size_t size = offsetof(struct config_message, space) + len;
    int rc;

    if (len > CONFIG_MAX)
        return -VBLK_EINVAL;
    rc = channel_ask(&u->channel, VU_GET_CONFIG, &m, size, &m, size);
    if (rc == 0 && (m.offset != offset || m.size != len))
        rc = -EPROTO;
    if (rc == 0)
        memcpy(to, m.space, len);
    return failed(u, rc);
}

static int config_write(struct vblk_transport *t, unsigned offset, const void *from, unsigned len)
{
    struct vblk_user *u = of(t);
    struct config_message m = {.offset = offset, .size = len};

    if (len > CONFIG_MAX)
        return -VBLK_EINVAL;
    memcpy(m.space, from, len);
    return failed(u, channel_send(&u->channel, VU_SET_CONFIG, &m,
                                  offsetof(struct config_message, space) + len, -1));
}

/* One message answers for the whole space: it cannot change half way. */
static uint32_t config_generation(struct vblk_transport *t)
{
    return 0;
}

static unsigned queue_depth_max(struct vblk_transport *t, unsigned queue)
{
    return queue < of(t)->queues ? DEPTH_MAX : 0;
}

static int set_ring(struct vblk_user *u, unsigned queue, uint32_t position)
{
    const struct vblk_ring_addresses *a = &u->rings[queue].addresses;
    uint32_t num[2] = {queue, u->rings[queue].depth}, base[2] = {queue, position};
    struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } addr = {queue, 0, a->desc, a->device, a->driver, 0};
    int rc = channel_send(&u->channel, VU_SET_VRING_NUM, num, sizeof(num), -1);

    if (rc == 0)
        rc = channel_send(&u->channel, VU_SET_VRING_BASE, base, sizeof(base), -1);
    if (rc == 0)
        rc = channel_send(&u->channel, VU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
    return rc;
}

static int open_event(int *fd)
{
    if (*fd < 0)
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *fd < 0 ? -errno : 0;
}

/* Starts a ring whose events are open at a position: what SET_VRING_BASE takes. */
static int start_ring(struct vblk_user *u, unsigned queue, uint32_t position)
{
    uint32_t enable[2] = {queue, 1};
    int rc = set_ring(u, queue, position);

    if (rc == 0)
        rc = channel_send_u64(&u->channel, VU_SET_VRING_CALL, queue, u->call[queue]);
    if (rc == 0)
        rc = channel_send_u64(&u->channel, VU_SET_VRING_KICK, queue, u->kick[queue]);
    if (rc == 0)
        rc = channel_send(&u->channel, VU_SET_VRING_ENABLE, enable, sizeof(enable), -1);
    return rc;
}

static int queue_enable(struct vblk_transport *t, unsigned queue, unsigned depth,
                        const struct vblk_ring_addresses *a, bool interrupts)
{
    struct vblk_user *u = of(t);
    int rc = open_event(&u->kick[queue]);

    /* Wanted or not: libvhost-user writes to it once in any case, and gives up when there is none.
     */
    if (rc == 0)
        rc = open_event(&u->call[queue]);
    if (rc < 0)
        return rc;
    u->rings[queue] = (struct user_ring){*a, depth};
    if (queue == 0)
        rc = inflight_begin(u, depth);
    /* A packed ring begins with both wrap counters at 1: bit 15 of each half of the base. */
    if (rc == 0)
        rc = start_ring(u, queue, a->packed ? 0x80008000u : 0);
    if (rc == 0)
        u->enabled = QZ_MAX(u->enabled, queue + 1);
    return failed(u, rc);
}

static int queue_reset(struct vblk_transport *t, unsigned queue)
{
    struct vblk_user *u = of(t);
    uint32_t ask[2] = {queue, 0}, base[2];

    return failed(
        u, channel_ask(&u->channel, VU_GET_VRING_BASE, ask, sizeof(ask), base, sizeof(base)));
}

static void notify(struct vblk_transport *t, unsigned queue, uint32_t data)
{
    const uint64_t one = 1;

    /* It fails only when the counter is full: then the server has a doorbell already. */
    if (write(of(t)->kick[queue], &one, sizeof(one)) < 0)
        return;
}

/* A server that was lost without a word about its rings being wrong: the next one gets them, and
 * the buffer in which the last one wrote what it had taken. */
static int resume(struct vblk_transport *t)
{
    struct vblk_user *u = of(t);
    int rc;

    if (u->broken || u->enabled == 0 || !inflight_kept(u) || !channel_lost(&u->channel))
        return -VBLK_ENOTSUP;
    channel_close(&u->channel);
    rc = connect_within(u, u->options.reconnect_ms);
    if (rc < 0)
        return -VBLK_ENODEV;
    if ((u->features & u->negotiated) != u->negotiated || u->queues < u->enabled)
        return -VBLK_ENOTSUP;
    rc = set_features(t, u->negotiated);
    return rc < 0 ? -VBLK_EIO : inflight_again(u);
}

static int queue_resume(struct vblk_transport *t, unsigned queue, uint16_t position)
{
    struct vblk_user *u = of(t);
    const uint64_t one = 1;
    int rc = start_ring(u, queue,
                        u->rings[queue].addresses.packed ? position | (uint32_t)position << 16
                                                         : position);

    /* The last server may have died with a doorbell read and not acted on, or with something used
     * and nobody told. A full counter says as much. */
    notify(t, queue, queue);
    if (write(u->call[queue], &one, sizeof(one)) < 0 && errno != EAGAIN)
        rc = -errno;
    return failed(u, rc);
}

static const struct vblk_transport_ops ops = {
    .name = "vhost-user",
    .get_features = get_features,
    .set_features = set_features,
    .get_status = get_status,
    .set_status = set_status,
    .config_read = config_read,
    .config_write = config_write,
    .config_generation = config_generation,
    .queue_depth_max = queue_depth_max,
    .queue_enable = queue_enable,
    .queue_reset = queue_reset,
    .notify = notify,
    .resume = resume,
    .queue_resume = queue_resume,
};

/* ---- platform ---- */

static void *dma_alloc(void *ctx, size_t size, size_t align, uint64_t *address)
{
    struct vblk_user *u = ctx;
    void *p = arena_alloc(&u->arena, size, align);

    *address = (uintptr_t)p;
    return p;
}

static void dma_free(void *ctx, void *memory, size_t size, uint64_t address)
{
    struct vblk_user *u = ctx;

    arena_free(&u->arena, memory, size);
}

static uint64_t now_ns(void *ctx)
{
    return (uint64_t)qz_now_ns();
}

static void log_line(void *ctx, enum vblk_log_level level, const char *text, uint64_t a, uint64_t b)
{
    static const enum qz_log_level levels[] = {QZ_LOG_ERROR, QZ_LOG_WARN, QZ_LOG_INFO};
    struct vblk_user *u = ctx;

    qz_log(levels[level], "%s: %s: %llu, %llu", u->path, text, (unsigned long long)a,
           (unsigned long long)b);
}

/* ---- opening ---- */

int qz_vblk_user_open(const struct vblk_user_options *o, struct vblk_user **out,
                      struct qz_error *err)
{
    struct vblk_user *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return qz_fail(err, -ENOMEM, "%s: out of memory", o->path);
    u->options = *o;
    u->channel.fd = u->arena.fd = u->inflight.fd = -1;
    for (unsigned i = 0; i < VBLK_QUEUES_MAX; i++)
        u->kick[i] = u->call[i] = -1;
    u->channel.reply_ms = o->reply_ms ? o->reply_ms : REPLY_MS;
    if (!u->options.reconnect_ms)
        u->options.reconnect_ms = RECONNECT_MS;
    u->platform = (struct vblk_platform){
        .ctx = u, .dma_alloc = dma_alloc, .dma_free = dma_free, .now_ns = now_ns, .log = log_line};
    u->t = (struct vblk_transport){&ops, &u->platform};
    u->path = strdup(o->path);
    rc = u->path ? arena_open(&u->arena, o->memory, o->huge_pages, err)
                 : qz_fail(err, -ENOMEM, "%s: out of memory", o->path);
    if (rc == 0) {
        rc = connect_within(u, 0);
        if (rc < 0)
            qz_fail(err, rc, "%s: no vhost-user-blk server: %s; start one or name its socket",
                    o->path, strerror(-rc));
    }
    if (rc < 0) {
        qz_vblk_user_close(u);
        return rc;
    }
    *out = u;
    return 0;
}

void qz_vblk_user_close(struct vblk_user *u)
{
    if (!u)
        return;
    channel_close(&u->channel);
    drop_events(u);
    inflight_forget(u);
    for (unsigned i = 0; i < VBLK_QUEUES_MAX; i++)
        if (u->call[i] >= 0)
            close(u->call[i]);
    arena_close(&u->arena);
    free(u->path);
    free(u);
}

struct vblk_transport *qz_vblk_user_transport(struct vblk_user *u)
{
    return &u->t;
}

void *qz_vblk_user_alloc(struct vblk_user *u, size_t size, size_t align)
{
    return arena_alloc(&u->arena, size, align);
}

void qz_vblk_user_free(struct vblk_user *u, void *memory, size_t size)
{
    arena_free(&u->arena, memory, size);
}

int qz_vblk_user_event_fd(const struct vblk_user *u, unsigned queue)
{
    return queue < VBLK_QUEUES_MAX ? u->call[queue] : -1;
}

int qz_vblk_user_socket(const struct vblk_user *u)
{
    return u->channel.fd;
}

uint64_t qz_vblk_user_memory_used(const struct vblk_user *u)
{
    return u->arena.used;
}

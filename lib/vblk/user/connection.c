/*
 * connection.c - finding a server, shaking hands with it, and the buffer of what it has in flight.
 */
#include "connection.h"

#include <time.h>

enum { RETRY_NS = 2000000 };

/* SET_MEM_TABLE's payload with one region. */
struct mem_table {
    uint32_t regions, padding;
    uint64_t guest, size, user, offset;
};

static int share_memory(struct vblk_user *u)
{
    uint64_t base = (uintptr_t)u->arena.base;
    struct mem_table m = {.regions = 1, .guest = base, .size = u->arena.size, .user = base};

    return channel_send(&u->channel, VU_SET_MEM_TABLE, &m, sizeof(m), u->arena.fd);
}

static int handshake(struct vblk_user *u)
{
    const uint64_t wanted = QZ_BIT(VU_PROTOCOL_MQ) | QZ_BIT(VU_PROTOCOL_REPLY_ACK) |
                            QZ_BIT(VU_PROTOCOL_CONFIG) | QZ_BIT(VU_PROTOCOL_INFLIGHT);
    uint64_t queues = 1;
    int rc = channel_send(&u->channel, VU_SET_OWNER, NULL, 0, -1);

    if (rc == 0)
        rc = channel_ask_u64(&u->channel, VU_GET_FEATURES, &u->features);
    if (rc == 0 && !(u->features & QZ_BIT(VU_F_PROTOCOL_FEATURES)))
        return -ENOTSUP;
    if (rc == 0)
        rc = channel_ask_u64(&u->channel, VU_GET_PROTOCOL_FEATURES, &u->protocol);
    if (rc == 0 && !(u->protocol & QZ_BIT(VU_PROTOCOL_CONFIG)))
        return -ENOTSUP;
    u->protocol &= wanted;
    if (rc == 0)
        rc = channel_send_u64(&u->channel, VU_SET_PROTOCOL_FEATURES, u->protocol, -1);
    if (rc == 0)
        u->channel.reply_ack = u->protocol & QZ_BIT(VU_PROTOCOL_REPLY_ACK);
    if (rc == 0 && u->protocol & QZ_BIT(VU_PROTOCOL_MQ))
        rc = channel_ask_u64(&u->channel, VU_GET_QUEUE_NUM, &queues);
    u->queues = (unsigned)QZ_MIN(queues, (uint64_t)VBLK_QUEUES_MAX);
    return rc < 0 ? rc : share_memory(u);
}

int connect_within(struct vblk_user *u, unsigned ms)
{
    int64_t until = qz_now_ns() + (int64_t)ms * 1000000;

    for (;;) {
        int rc = channel_connect(&u->channel, u->path);

        if (rc == 0)
            rc = handshake(u);
        if (rc == 0) {
            u->broken = false;
            return 0;
        }
        channel_close(&u->channel);
        if (rc == -ENOTSUP || rc == -ENAMETOOLONG || rc == -EACCES || qz_now_ns() >= until)
            return rc;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
}

/* ---- in-flight buffer ---- */

/* VhostUserInflight, with the padding that its peers send. */
struct inflight_message {
    uint64_t size, offset;
    uint16_t queues, depth;
    uint32_t padding;
};

static int inflight_send(struct vblk_user *u)
{
    const struct inflight *f = &u->inflight;
    struct inflight_message m = {f->size, f->offset, f->queues, f->depth, 0};

    return channel_send(&u->channel, VU_SET_INFLIGHT_FD, &m, sizeof(m), f->fd);
}

/* What the protocol's own layout takes for a ring. A server that gives less for packed rings has
 * only the notes for split ones, and would start a packed ring anew in its middle. */
static uint64_t least_size(const struct vblk_user *u, unsigned depth)
{
    uint64_t entry = u->negotiated & VBLK_BIT(VBLK_F_RING_PACKED) ? 32 : 16;

    return u->queues * entry * (depth + 1);
}

int inflight_begin(struct vblk_user *u, unsigned depth)
{
    struct inflight_message m = {.queues = (uint16_t)u->queues, .depth = (uint16_t)depth};
    int rc, fd;

    inflight_forget(u);
    if (!(u->protocol & QZ_BIT(VU_PROTOCOL_INFLIGHT)))
        return 0;
    rc = channel_ask_fd(&u->channel, VU_GET_INFLIGHT_FD, &m, sizeof(m), &m, sizeof(m), &fd);
    if (rc < 0)
        return rc;
    u->inflight = (struct inflight){fd, m.size, m.offset, (uint16_t)u->queues, (uint16_t)depth};
    if (m.size >= least_size(u, depth) && fd >= 0)
        return inflight_send(u);
    inflight_forget(u);
    return 0;
}

bool inflight_kept(const struct vblk_user *u)
{
    return u->inflight.fd >= 0;
}

int inflight_again(struct vblk_user *u)
{
    if (!(u->protocol & QZ_BIT(VU_PROTOCOL_INFLIGHT)) || u->queues < u->inflight.queues)
        return -VBLK_ENOTSUP;
    return inflight_send(u) < 0 ? -VBLK_EIO : 0;
}

void inflight_forget(struct vblk_user *u)
{
    if (u->inflight.fd >= 0)
        close(u->inflight.fd);
    u->inflight = (struct inflight){.fd = -1};
}

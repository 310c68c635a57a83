/*
 * connection.h - one front end and the server that it is connected to.
 */
#ifndef VBLK_CONNECTION_H
#define VBLK_CONNECTION_H

#include "arena.h"
#include "message.h"

#include <queztl/vblk_user.h>

struct user_ring {
    struct vblk_ring_addresses addresses;
    unsigned depth;
};

/* The server's notes about what it has taken and not answered, which outlive it. Only servers look
 * into them; this side keeps the descriptor. */
struct inflight {
    int fd; /* -1: no notes are kept */
    uint64_t size, offset;
    uint16_t queues, depth;
};

struct vblk_user {
    struct vblk_transport t;
    struct vblk_platform platform;
    struct vblk_user_options options;
    char *path;
    struct channel channel;
    struct arena arena;
    struct inflight inflight;
    uint64_t features, protocol, negotiated;
    unsigned queues;
    uint8_t status;
    bool broken; /* the server answered wrongly: only a new connection helps */
    unsigned enabled;
    struct user_ring rings[VBLK_QUEUES_MAX]; /* of those that are enabled */
    int kick[VBLK_QUEUES_MAX], call[VBLK_QUEUES_MAX];
};

/* One connection after another until a server has shaken hands or time is over. */
int connect_within(struct vblk_user *u, unsigned ms);

/* ---- in-flight buffer (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) ---- */

/* A fresh buffer for rings that begin, where the server keeps one. */
int inflight_begin(struct vblk_user *u, unsigned depth);
bool inflight_kept(const struct vblk_user *u);
/* Gives the next server the buffer of the last one. -VBLK_ENOTSUP when it does not want it. */
int inflight_again(struct vblk_user *u);
void inflight_forget(struct vblk_user *u);

#endif

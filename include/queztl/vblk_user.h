/*
 * vblk_user.h - the block driver in a Linux process, against a vhost-user-blk server.
 *
 * One object is both a transport and a platform for qz_vblk_create(): it connects to the server's
 * socket, owns the memory that both sides share, and connects again when the server went away. To
 * the driver a lost connection is a device that needs a reset; qz_vblk_recover() then connects anew
 * and gives every unacknowledged request to the new server. What the driver must remember for that
 * stands in its private memory, so it works with both ring formats and with every server. A server
 * that keeps an in-flight buffer (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) finds rings and buffer as
 * its predecessor left them.
 *
 * Threads: as for the driver. qz_vblk_user_event_fd() may be polled anywhere.
 */
#ifndef QUEZTL_VBLK_USER_H
#define QUEZTL_VBLK_USER_H

#include <queztl/base.h>
#include <queztl/vblk.h>

struct vblk_user;

struct vblk_user_options {
    const char *path;      /* of the server's socket */
    uint64_t memory;       /* bytes shared with the server: rings, and buffers for data */
    unsigned reply_ms;     /* how long the server may take for an answer; 0: 5000 */
    unsigned reconnect_ms; /* how long a reset tries to connect; 0: 10000 */
    bool huge_pages;       /* 2 MiB pages; fails where the host has none */
};

int qz_vblk_user_open(const struct vblk_user_options *o, struct vblk_user **u,
                      struct qz_error *err);
void qz_vblk_user_close(struct vblk_user *u);

struct vblk_transport *qz_vblk_user_transport(struct vblk_user *u);
/* Memory that the server reaches, for data; aligned to align (a power of two). NULL when it is used
 * up. */
void *qz_vblk_user_alloc(struct vblk_user *u, size_t size, size_t align);
void qz_vblk_user_free(struct vblk_user *u, void *memory, size_t size);
/* Readable when the queue has completions that qz_vblk_arm() asked for; read 8 bytes. -1 without
 * interrupts. */
int qz_vblk_user_event_fd(const struct vblk_user *u, unsigned queue);
/* The socket: readable or hung up when the server has gone. -1 while not connected. */
int qz_vblk_user_socket(const struct vblk_user *u);
/* Bytes of shared memory in use. */
uint64_t qz_vblk_user_memory_used(const struct vblk_user *u);

#endif

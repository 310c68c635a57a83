/*
 * session.h - a driver over vhost-user as a configuration file wants it, with its services.
 */
#ifndef VBLK_SESSION_H
#define VBLK_SESSION_H

#include "../config/settings.h"

#include <queztl/vblk_cache.h>
#include <queztl/vblk_user.h>

struct vblk_session {
    struct vblk_settings settings;
    struct vblk_user *user;
    struct vblk_device *dev;
    struct vblk_cache *caches[VBLK_QUEUES_MAX]; /* NULL: requests go straight to the ring */
    void *memory, *cache_memory[VBLK_QUEUES_MAX];
    char *path;
    int64_t since_ns;
};

/* Refused with -EMFILE when this process has settings->device_max_count devices open already. */
int session_open(struct vblk_session *s, const char *socket, const struct vblk_settings *settings,
                 struct qz_error *err);
void session_close(struct vblk_session *s);
int session_submit(struct vblk_session *s, unsigned queue, struct vblk_request *const *requests,
                   unsigned n);
int session_poll(struct vblk_session *s, unsigned queue, struct vblk_request **done, unsigned max);

#endif

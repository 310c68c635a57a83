/*
 * session.c - see the header. With read-ahead or a write-back cache there is one cache for each
 * queue, so such a session has one queue only: two caches would not see each other's blocks.
 */
#include "session.h"

static unsigned open_devices; /* in this process; any thread may open one */

static int create(struct vblk_session *s, struct qz_error *err)
{
    struct vblk_config c;
    size_t size;
    int rc;

    settings_apply(&s->settings, &c);
    size = qz_vblk_memory_size(&c);
    s->memory = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul));
    if (!s->memory)
        return qz_fail(err, -ENOMEM, "%s: out of memory", s->path);
    rc = qz_vblk_create(s->memory, size, qz_vblk_user_transport(s->user), &c, &s->dev);
    if (rc == 0)
        rc = qz_vblk_start(s->dev);
    if (rc < 0) {
        s->dev = NULL;
        return qz_fail(err, rc, "%s: the driver does not start: %s", s->path, strerror(-rc));
    }
    return 0;
}

static int create_cache(struct vblk_session *s, unsigned queue, struct qz_error *err)
{
    uint64_t ahead = s->settings.read_ahead_size;
    struct vblk_cache_config c = {.read_ahead = ahead, .write_back = s->settings.write_back_cache};
    size_t size;
    int rc;

    /* Without a write-back cache its size does not count: what is fetched ahead needs room, twice.
     */
    c.bytes = c.write_back ? s->settings.write_back_cache_size : 0;
    c.bytes = QZ_MAX(c.bytes, QZ_MAX(4 * ahead, UINT64_C(64) * VBLK_CACHE_BLOCK));
    size = qz_vblk_cache_memory_size(&c);
    s->cache_memory[queue] = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul));
    if (!s->cache_memory[queue])
        return qz_fail(err, -ENOMEM, "%s: out of memory", s->path);
    rc = qz_vblk_cache_create(s->cache_memory[queue], size, qz_vblk_queue(s->dev, queue), &c,
                              &s->caches[queue]);
    return rc < 0
               ? qz_fail(err, rc, "%s: no room for %llu bytes of cache; raise shared_memory_size",
                         s->path, (unsigned long long)c.bytes)
               : 0;
}

int session_open(struct vblk_session *s, const char *socket, const struct vblk_settings *settings,
                 struct qz_error *err)
{
    struct vblk_user_options o = {.path = socket, .memory = settings->shared_memory_size};
    bool cached = !settings->direct_io && (settings->read_ahead_size || settings->write_back_cache);
    int rc;

    *s = (struct vblk_session){.settings = *settings, .since_ns = qz_now_ns()};
    if (cached && settings->queue_count > 1)
        return qz_fail(err, -EINVAL,
                       "%s: read-ahead and cache work on one queue; set queue_count = 1", socket);
    if (__atomic_add_fetch(&open_devices, 1, __ATOMIC_RELAXED) > settings->device_max_count) {
        __atomic_sub_fetch(&open_devices, 1, __ATOMIC_RELAXED);
        return qz_fail(err, -EMFILE, "%s: %u devices are open; raise device_max_count", socket,
                       settings->device_max_count);
    }
    s->path = strdup(socket);
    rc = s->path ? qz_vblk_user_open(&o, &s->user, err)
                 : qz_fail(err, -ENOMEM, "%s: out of memory", socket);
    if (rc == 0)
        rc = create(s, err);
    if (rc == 0 && cached)
        rc = create_cache(s, 0, err);
    if (rc < 0)
        session_close(s);
    return rc;
}

void session_close(struct vblk_session *s)
{
    if (s->dev)
        qz_vblk_stop(s->dev);
    for (unsigned i = 0; i < VBLK_QUEUES_MAX; i++) {
        if (s->caches[i])
            qz_vblk_cache_destroy(s->caches[i]);
        free(s->cache_memory[i]);
    }
    qz_vblk_user_close(s->user);
    free(s->memory);
    free(s->path);
    *s = (struct vblk_session){0};
    __atomic_sub_fetch(&open_devices, 1, __ATOMIC_RELAXED);
}

int session_submit(struct vblk_session *s, unsigned queue, struct vblk_request *const *requests,
                   unsigned n)
{
    return s->caches[queue] ? qz_vblk_cache_submit(s->caches[queue], requests, n)
                            : qz_vblk_submit(qz_vblk_queue(s->dev, queue), requests, n);
}

int session_poll(struct vblk_session *s, unsigned queue, struct vblk_request **done, unsigned max)
{
    return s->caches[queue] ? qz_vblk_cache_poll(s->caches[queue], done, max)
                            : qz_vblk_poll(qz_vblk_queue(s->dev, queue), done, max);
}

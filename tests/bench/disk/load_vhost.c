/* load_vhost.c - the load over vhost-user-blk, with our own driver, which polls. */
#include "load.h"
#include "session.h"

static unsigned tag_of(const struct vblk_request *all, const struct vblk_request *r)
{
    return (unsigned)(r - all);
}

static int more(struct load *l, struct vblk_session *s, struct vblk_request *all,
                struct vblk_request **done, unsigned n)
{
    struct vblk_request *batch[LOAD_DEPTH];
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t offset;

        if (!load_next(l, tag_of(all, done[i]), &offset))
            break;
        done[i]->sector = offset / 512;
        batch[count++] = done[i];
    }
    return session_submit(s, 0, batch, count) == (int)count ? 0 : -EIO;
}

static int drive(struct load *l, struct vblk_session *s, struct vblk_request *all)
{
    struct vblk_request *done[LOAD_DEPTH];
    int rc;

    for (unsigned i = 0; i < LOAD_DEPTH; i++)
        done[i] = &all[i];
    rc = more(l, s, all, done, LOAD_DEPTH);
    while (!rc && l->ended < l->begun) {
        int n = session_poll(s, 0, done, LOAD_DEPTH);

        if (n < 0)
            return n;
        for (int i = 0; i < n; i++) {
            if (done[i]->status)
                return done[i]->status;
            load_ended(l, tag_of(all, done[i]));
        }
        if (n)
            rc = more(l, s, all, done, (unsigned)n);
    }
    return rc;
}

int load_vhost(struct load *l, struct qz_error *err)
{
    struct vblk_request all[LOAD_DEPTH];
    struct vblk_settings settings;
    struct vblk_session s;
    struct vblk_info info;
    int rc;

    settings_default(&settings);
    settings.shared_memory_size = 64 << 20;
    settings.queue_depth = 4 * LOAD_DEPTH;
    settings.queue_count = 1;
    rc = session_open(&s, l->socket, &settings, err);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < LOAD_DEPTH; i++) {
        all[i] = (struct vblk_request){
            .op = l->write ? VBLK_OP_WRITE : VBLK_OP_READ,
            .count = 1,
            .segment = {qz_vblk_user_alloc(s.user, LOAD_BLOCK, LOAD_BLOCK), LOAD_BLOCK}};
        memset(all[i].segment.base, (int)i + 1, LOAD_BLOCK);
    }
    qz_vblk_get_info(s.dev, &info);
    load_start(l, info.sectors * 512);
    rc = drive(l, &s, all);
    load_stop(l);
    session_close(&s);
    return rc < 0 ? qz_fail(err, rc, "%s: a request failed: %s", l->socket, strerror(-rc)) : 0;
}

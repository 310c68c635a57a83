/* client.c - a disk on an NBD server (client.h): opening, requests, pieces. */
#include "client.h"

#include "../file.h"
#include "nbd_client.h"

/* A piece with 32 bits of length, and a whole number of large blocks. */
#define RANGE_MAX (1ull << 30)

/* ---- pieces; link's lock held */

static int on_answer(void *argument, int *error)
{
    struct call *c = argument;

    c->result = *error ? -*error : 0;
    c->answered = true;
    return 1; /* nobody asks for this command again */
}

static uint64_t piece_of(const struct nbd_disk *d, const struct call *c)
{
    uint64_t left = c->r->length - c->progress;

    switch (c->r->op) {
    case DISK_READ:
    case DISK_WRITE:
        return QZ_MIN(left, c->bounce ? QZ_MIN(d->piece_max, (uint64_t)BOUNCE_MAX) : d->piece_max);
    case DISK_WRITE_ZEROES:
        return c->bounce ? QZ_MIN(left, (uint64_t)BOUNCE_MAX) : QZ_MIN(left, RANGE_MAX);
    default:
        return QZ_MIN(left, RANGE_MAX);
    }
}

static uint8_t *bytes_of(const struct call *c)
{
    return c->bounce ? c->bounce : (uint8_t *)c->r->iov[0].iov_base + c->progress;
}

static bool needs_flush(const struct nbd_disk *d, const struct call *c)
{
    return c->r->op == DISK_WRITE && c->r->flags & REQUEST_FUA && !d->can_fua && !d->unsafe;
}

static int64_t ask(struct nbd_disk *d, struct call *c, struct nbd_handle *h)
{
    const nbd_completion_callback done = {.callback = on_answer, .user_data = c};
    struct request *r = c->r;
    uint64_t at = r->offset + c->progress;
    bool unmap = r->flags & REQUEST_MAY_UNMAP && !d->no_discard;

    if (c->flushing || r->op == DISK_FLUSH)
        return nbd.aio_flush(h, done, 0);
    c->piece = piece_of(d, c);
    switch (r->op) {
    case DISK_READ:
        return nbd.aio_pread(h, bytes_of(c), c->piece, at, done, 0);
    case DISK_WRITE:
        if (c->bounce)
            iov_to_flat(c->bounce, r->iov, r->iov_count, c->progress, c->piece);
        return nbd.aio_pwrite(h, bytes_of(c), c->piece, at, done,
                              r->flags & REQUEST_FUA && d->can_fua ? LIBNBD_CMD_FLAG_FUA : 0);
    case DISK_DISCARD:
        return nbd.aio_trim(h, c->piece, at, done, 0);
    default:
        return c->bounce ? nbd.aio_pwrite(h, c->bounce, c->piece, at, done, 0)
                         : nbd.aio_zero(h, c->piece, at, done, unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
    }
}

int call_issue(struct call *c, struct nbd_handle *h)
{
    struct nbd_disk *d = c->link->disk;

    if ((c->flushing || c->r->op == DISK_FLUSH) && (!d->can_flush || d->unsafe))
        return 1; /* a server that knows no flush has nothing to flush */
    if (ask(d, c, h) >= 0)
        return 0;
    return nbd.get_errno() ? -nbd.get_errno() : -EIO;
}

bool call_advance(struct call *c)
{
    struct request *r = c->r;

    if (c->flushing || r->op == DISK_FLUSH)
        return true;
    if (r->op == DISK_READ && c->bounce)
        iov_from_flat(r->iov, r->iov_count, c->progress, c->bounce, c->piece);
    c->progress += c->piece;
    if (c->progress < r->length)
        return false;
    c->flushing = needs_flush(c->link->disk, c);
    return !c->flushing;
}

/* ---- requests */

void call_end(struct call *c)
{
    struct request *r = c->r;
    int result = c->result;

    free(c->bounce);
    queue_give(c->q, c);
    r->done(r, result);
}

static bool wants_bounce(const struct nbd_disk *d, const struct request *r)
{
    if (r->op == DISK_WRITE_ZEROES)
        return !d->can_zero;
    return (r->op == DISK_READ || r->op == DISK_WRITE) && r->iov_count > 1;
}

static void nbd_submit(struct layer *l, struct disk_queue *q, struct request *r)
{
    struct nbd_disk *d = QZ_CONTAINER_OF(l, struct nbd_disk, l);
    struct call *c;

    if (r->op != DISK_READ && r->op != DISK_FLUSH && l->info.readonly) {
        r->done(r, -EROFS);
        return;
    }
    if (r->op == DISK_DISCARD && (!d->can_trim || d->no_discard)) {
        r->done(r, 0); /* advice that this server has no use for */
        return;
    }
    if (r->op == DISK_WRITE_ZEROES && !d->can_zero && r->flags & REQUEST_NO_FALLBACK) {
        r->done(r, -ENOTSUP);
        return;
    }
    if (!(c = queue_take(q))) {
        r->done(r, -ENOMEM);
        return;
    }
    *c = (struct call){.r = r, .q = q, .link = d->link[queue_index(q) % d->links]};
    if (wants_bounce(d, r) && !(c->bounce = calloc(1, QZ_MIN(r->length, (uint64_t)BOUNCE_MAX)))) {
        c->result = -ENOMEM;
        call_end(c);
        return;
    }
    link_submit(c->link, c);
}

/* ---- opening */

static int failed(struct qz_error *err, const char *uri, int fallback)
{
    int code = nbd.get_errno();
    const char *text = nbd.get_error();

    return qz_fail(err, code ? -code : fallback, "%s: %s", uri, text ? text : strerror(-fallback));
}

static int connect_first(struct nbd_disk *d, struct link *k, const char *uri, struct qz_error *err)
{
    int fd;

    k->h = nbd.create();
    if (!k->h)
        return failed(err, uri, -ENOMEM);
    /* What an option names is a server, never a file of this host or a program to start. */
    if (nbd.set_uri_allow_transports(k->h, LIBNBD_ALLOW_TRANSPORT_TCP |
                                               LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        nbd.set_uri_allow_tls(k->h, 0) < 0 || nbd.set_uri_allow_local_file(k->h, false) < 0 ||
        nbd.connect_uri(k->h, uri) < 0)
        return failed(err, uri, -ECONNREFUSED);
    k->up = true;
    link_set_patience(k);
    d->export_name = nbd.get_export_name(k->h);
    fd = nbd.aio_get_fd(k->h);
    d->address_length = sizeof(d->address);
    if (!d->export_name || getpeername(fd, (struct sockaddr *)&d->address, &d->address_length) < 0)
        return failed(err, uri, -errno);
    return 0;
}

static int learn(struct nbd_disk *d, struct nbd_handle *h, const struct nbd_client_options *o,
                 struct qz_error *err)
{
    int64_t size = nbd.get_size(h), smallest = nbd.get_block_size(h, LIBNBD_SIZE_MINIMUM),
            preferred = nbd.get_block_size(h, LIBNBD_SIZE_PREFERRED),
            largest = nbd.get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0)
        return failed(err, o->uri, -EPROTO);
    if (nbd.is_read_only(h) > 0 && !o->readonly)
        return qz_fail(err, -EROFS, "%s: the server exports it for reading only: say readonly",
                       o->uri);
    if (smallest > 65536 || (smallest > 1 && smallest & (smallest - 1)))
        return qz_fail(err, -EPROTO, "%s: blocks of at least %lld bytes are more than this can do",
                       o->uri, (long long)smallest);
    d->can_flush = nbd.can_flush(h) > 0;
    d->can_fua = nbd.can_fua(h) > 0;
    d->can_trim = nbd.can_trim(h) > 0;
    d->can_zero = nbd.can_zero(h) > 0;
    d->unsafe = o->unsafe;
    d->no_discard = o->no_discard;
    d->piece_max =
        QZ_ALIGN_DOWN(QZ_MIN((uint64_t)(largest > 0 ? largest : PIECE_MAX), (uint64_t)PIECE_MAX),
                      (uint64_t)QZ_MAX(smallest, 1));
    d->links = nbd.can_multi_conn(h) > 0 ? o->connections : 1;
    d->l.info = (struct layer_info){
        .size = (uint64_t)size,
        .alignment = (uint32_t)QZ_MAX(smallest, 1),
        .memory_alignment = 1,
        .preferred = (uint32_t)QZ_MIN(QZ_MAX(preferred, 4096), 65536),
        .readonly = o->readonly,
        .discard = d->can_trim && !o->no_discard,
        .write_zeroes = true,
        .is_rotational = nbd.is_rotational(h) > 0,
    };
    return 0;
}

static void nbd_free(struct layer *l)
{
    struct nbd_disk *d = QZ_CONTAINER_OF(l, struct nbd_disk, l);

    for (unsigned i = 0; i < NBD_LINKS_MAX; i++)
        link_free(d->link[i]);
    free(d->export_name);
    free(d->l.label);
    free(d);
}

static int nbd_close_layer(struct layer *l, struct disk_queue *q, struct qz_error *err)
{
    int r = l->info.readonly ? 0 : layer_flush(l, q);

    return r < 0 ? qz_fail(err, r, "%s: cannot flush it: %s", l->label, strerror(-r)) : 0;
}

static const struct layer_ops nbd_ops = {
    .name = "nbd",
    .submit = nbd_submit,
    .close = nbd_close_layer,
    .free = nbd_free,
};

int nbd_client_open(struct layer **l, const struct nbd_client_options *o, struct qz_error *err)
{
    struct nbd_disk *d;
    int r = libnbd_load(err);

    if (r < 0)
        return r;
    d = calloc(1, sizeof(*d));
    if (!d || !(d->l.label = strdup(o->uri)) || !(d->link[0] = link_new(d))) {
        if (d)
            nbd_free(&d->l);
        return qz_fail(err, -ENOMEM, "%s: no memory", o->uri);
    }
    d->l.ops = &nbd_ops;
    d->reconnect_ns = (int64_t)o->reconnect_s * 1000000000;
    if ((r = connect_first(d, d->link[0], o->uri, err)) == 0)
        r = learn(d, d->link[0]->h, o, err);
    for (unsigned i = 1; r == 0 && i < d->links; i++)
        if (!(d->link[i] = link_new(d)))
            r = qz_fail(err, -ENOMEM, "%s: no memory", o->uri);
    if (r < 0) {
        nbd_free(&d->l);
        return r;
    }
    *l = &d->l;
    return 0;
}

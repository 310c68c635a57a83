/*
 * load_nbd.c - the load over NBD on a unix socket: fixed newstyle, simple replies, one connection
 * (doc/proto.md of the NBD project).
 */
#include "load.h"
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

enum { REQUEST = 28, REPLY = 16, BUFFER = 1 << 20 };

struct nbd {
    int fd;
    uint64_t size;
    uint8_t *in; /* what came and was not looked at lies in [at, end) */
    size_t at, end;
    uint8_t out[LOAD_DEPTH * (REQUEST + LOAD_BLOCK)];
    size_t out_length;
    uint8_t data[LOAD_DEPTH][LOAD_BLOCK];
};

static int send_all(struct nbd *n, const void *bytes, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t w = send(n->fd, (const uint8_t *)bytes + done, length - done, MSG_NOSIGNAL);

        if (w <= 0)
            return -EPIPE;
        done += (size_t)w;
    }
    return 0;
}

/* length bytes that lie together; NULL: the server is gone. */
static const uint8_t *take(struct nbd *n, size_t length)
{
    const uint8_t *p;

    if (n->end - n->at < length) {
        memmove(n->in, n->in + n->at, n->end - n->at);
        n->end -= n->at;
        n->at = 0;
    }
    while (n->end - n->at < length) {
        ssize_t r = recv(n->fd, n->in + n->end, BUFFER - n->end, 0);

        if (r <= 0)
            return NULL;
        n->end += (size_t)r;
    }
    p = n->in + n->at;
    n->at += length;
    return p;
}

static int negotiate(struct nbd *n)
{
    uint8_t hello[4 + 16] = {0, 0, 0, 3}; /* FIXED_NEWSTYLE, NO_ZEROES; then EXPORT_NAME "" */
    const uint8_t *p = take(n, 18);

    if (!p || memcmp(p, "NBDMAGICIHAVEOPT", 16))
        return -EPROTO;
    memcpy(hello + 4, "IHAVEOPT", 8);
    qz_store_be32(hello + 12, 1);
    if (send_all(n, hello, sizeof(hello)))
        return -EPIPE;
    p = take(n, 10);
    if (!p)
        return -EPIPE;
    n->size = qz_load_be64(p);
    return 0;
}

static void put_request(struct nbd *n, bool write, unsigned tag, uint64_t offset)
{
    uint8_t *p = n->out + n->out_length;

    qz_store_be32(p, 0x25609513);
    qz_store_be32(p + 4, write); /* no flags; NBD_CMD_READ 0, NBD_CMD_WRITE 1 */
    qz_store_be64(p + 8, tag);
    qz_store_be64(p + 16, offset);
    qz_store_be32(p + 24, LOAD_BLOCK);
    n->out_length += REQUEST;
    if (write) {
        memcpy(n->out + n->out_length, n->data[tag], LOAD_BLOCK);
        n->out_length += LOAD_BLOCK;
    }
}

/* One reply; its tag, or a negative errno. */
static int reply(struct nbd *n, bool write)
{
    const uint8_t *p = take(n, REPLY);
    uint64_t tag;

    if (!p || qz_load_be32(p) != 0x67446698)
        return -EPROTO;
    if (qz_load_be32(p + 4))
        return -EIO;
    tag = qz_load_be64(p + 8);
    if (tag >= LOAD_DEPTH)
        return -EPROTO;
    if (!write) {
        p = take(n, LOAD_BLOCK);
        if (!p)
            return -EPIPE;
        memcpy(n->data[tag], p, LOAD_BLOCK);
    }
    return (int)tag;
}

static int drive(struct load *l, struct nbd *n)
{
    uint64_t offset;

    for (unsigned tag = 0; tag < LOAD_DEPTH && load_next(l, tag, &offset); tag++)
        put_request(n, l->write, tag, offset);
    while (l->ended < l->begun) {
        if (n->out_length && send_all(n, n->out, n->out_length))
            return -EPIPE;
        n->out_length = 0;
        do { /* all replies that came together, then the next batch of requests */
            int tag = reply(n, l->write);

            if (tag < 0)
                return tag;
            load_ended(l, (unsigned)tag);
            if (load_next(l, (unsigned)tag, &offset))
                put_request(n, l->write, (unsigned)tag, offset);
        } while (n->end - n->at >= REPLY + (l->write ? 0 : LOAD_BLOCK));
    }
    return 0;
}

int load_nbd(struct load *l, struct qz_error *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    QZ_AUTO_FREE struct nbd *n = calloc(1, sizeof(*n));
    QZ_AUTO_FREE uint8_t *in = malloc(BUFFER);
    QZ_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", l->socket);
    if (!n || !in || fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return qz_fail(err, -EIO, "%s: cannot connect: %s", l->socket, strerror(errno));
    n->fd = fd;
    n->in = in;
    memset(n->data, 1, sizeof(n->data));
    rc = negotiate(n);
    if (rc == 0) {
        load_start(l, n->size);
        rc = drive(l, n);
        load_stop(l);
    }
    return rc < 0 ? qz_fail(err, rc, "%s: NBD: %s", l->socket, strerror(-rc)) : 0;
}

/* negotiate.c - the handshake: fixed newstyle (NBD proto.md, "Handshake phase"). */
#include <poll.h>
#include <sys/socket.h>

#include "nbd.h"

#define MAGIC_NBD    0x4e42444d41474943ull
#define MAGIC_OPTION 0x49484156454f5054ull
#define MAGIC_REPLY  0x0003e889045565a9ull

enum { HANDSHAKE_FIXED = 1, HANDSHAKE_NO_ZEROES = 2 };
enum option_type {
    OPT_EXPORT_NAME = 1,
    OPT_ABORT = 2,
    OPT_LIST = 3,
    OPT_INFO = 6,
    OPT_GO = 7,
    OPT_STRUCTURED_REPLY = 8,
    OPT_LIST_META_CONTEXT = 9,
    OPT_SET_META_CONTEXT = 10,
};
enum { REP_ACK = 1, REP_SERVER = 2, REP_INFO = 3, REP_META_CONTEXT = 4 };
#define REP_ERR(n)  (0x80000000u + (n))
#define ERR_UNSUP   REP_ERR(1)
#define ERR_INVALID REP_ERR(3)
#define ERR_UNKNOWN REP_ERR(6)
#define ERR_TOO_BIG REP_ERR(9)
enum { INFO_EXPORT = 0, INFO_BLOCK_SIZE = 3 };
enum { OPTIONS_MAX = 1000, HANDSHAKE_MS = 30000 };

static const char allocation[] = "base:allocation";

/* ---- whole lengths */

static int wait_for(struct nbd_connection *c, short events)
{
    struct pollfd p[2] = {{c->fd, events, 0}, {c->server->stop_fd, POLLIN, 0}};
    int r;

    do
        r = poll(p, 2, HANDSHAKE_MS);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : p[1].revents ? -ESHUTDOWN : 0;
}

int nbd_read(struct nbd_connection *c, void *bytes, size_t n)
{
    uint8_t *p = bytes;

    while (n) {
        ssize_t got = recv(c->fd, p, n, MSG_DONTWAIT);
        int r = 0;

        if (got == 0)
            return -ECONNRESET;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (got < 0 && (r = wait_for(c, POLLIN)) < 0)
            return r;
        p += got > 0 ? got : 0;
        n -= got > 0 ? (size_t)got : 0;
    }
    return 0;
}

int nbd_write(struct nbd_connection *c, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    while (n) {
        ssize_t sent = send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        int r = 0;

        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (sent < 0 && (r = wait_for(c, POLLOUT)) < 0)
            return r;
        p += sent > 0 ? sent : 0;
        n -= sent > 0 ? (size_t)sent : 0;
    }
    return 0;
}

/* ---- replies */

static int answer(struct nbd_connection *c, uint32_t option, uint32_t type, const void *bytes,
                  size_t n)
{
    uint8_t head[20];
    int r;

    qz_store_be64(head, MAGIC_REPLY);
    qz_store_be32(head + 8, option);
    qz_store_be32(head + 12, type);
    qz_store_be32(head + 16, (uint32_t)n);
    r = nbd_write(c, head, sizeof(head));
    return r < 0 || !n ? r : nbd_write(c, bytes, n);
}

static int answer_text(struct nbd_connection *c, uint32_t option, uint32_t type, const char *text)
{
    return answer(c, option, type, text, strlen(text));
}

static uint64_t export_size(const struct nbd_connection *c)
{
    return __atomic_load_n(&c->server->top->info.size, __ATOMIC_RELAXED);
}

static bool is_ours(const struct nbd_connection *c, const uint8_t *name, size_t n)
{
    return n == strlen(c->server->name) && !memcmp(name, c->server->name, n);
}

/* ---- options */

static int list(struct nbd_connection *c, size_t n)
{
    uint8_t entry[4 + 4096];
    size_t length = QZ_MIN(strlen(c->server->name), sizeof(entry) - 4);
    int r;

    if (n)
        return answer_text(c, OPT_LIST, ERR_INVALID, "list takes no data");
    qz_store_be32(entry, (uint32_t)length);
    memcpy(entry + 4, c->server->name, length);
    r = answer(c, OPT_LIST, REP_SERVER, entry, 4 + length);
    return r < 0 ? r : answer(c, OPT_LIST, REP_ACK, NULL, 0);
}

static int send_infos(struct nbd_connection *c, uint32_t option)
{
    uint8_t export[12], block[14];
    const struct layer_info *i = &c->server->top->info;
    int r;

    qz_store_be16(export, INFO_EXPORT);
    qz_store_be64(export + 2, export_size(c));
    qz_store_be16(export + 10, nbd_flags(c->server));
    qz_store_be16(block, INFO_BLOCK_SIZE);
    qz_store_be32(block + 2, 1);
    qz_store_be32(block + 6, QZ_MIN(QZ_MAX(i->preferred, 512u), 1u << 20));
    qz_store_be32(block + 10, NBD_MAX_REQUEST);
    r = answer(c, option, REP_INFO, export, sizeof(export));
    if (r == 0)
        r = answer(c, option, REP_INFO, block, sizeof(block));
    return r < 0 ? r : answer(c, option, REP_ACK, NULL, 0);
}

/* 1: transmission begins. */
static int info_or_go(struct nbd_connection *c, uint32_t option, const uint8_t *data, size_t n)
{
    uint32_t length = n >= 6 ? qz_load_be32(data) : 0;
    int r;

    if (n < 6 || length > n - 6 || n - 6 - length != 2u * qz_load_be16(data + 4 + length))
        return answer_text(c, option, ERR_INVALID, "lengths that do not add up");
    if (!is_ours(c, data + 4, length))
        return answer_text(c, option, ERR_UNKNOWN, "no export has this name");
    r = send_infos(c, option);
    return r < 0 ? r : option == OPT_GO;
}

static bool matches(const uint8_t *query, size_t n, bool listing)
{
    return (n == strlen(allocation) && !memcmp(query, allocation, n)) ||
           (listing && n == 5 && !memcmp(query, "base:", n));
}

static int meta_context(struct nbd_connection *c, uint32_t option, const uint8_t *data, size_t n)
{
    uint8_t context[4 + sizeof(allocation) - 1];
    bool listing = option == OPT_LIST_META_CONTEXT, found = false;
    uint32_t length = n >= 8 ? qz_load_be32(data) : 0, queries;
    size_t at;
    int r;

    if (!listing)
        c->allocation = false;
    if (n < 8 || length > n - 8 || (!c->structured && !listing))
        return answer_text(c, option, ERR_INVALID, "structured replies first, and whole lengths");
    if (!is_ours(c, data + 4, length))
        return answer_text(c, option, ERR_UNKNOWN, "no export has this name");
    queries = qz_load_be32(data + 4 + length);
    found = listing && !queries;
    at = 8 + length;
    for (uint32_t i = 0; i < queries; i++) {
        uint32_t q = n - at >= 4 ? qz_load_be32(data + at) : UINT32_MAX;

        if (q == UINT32_MAX || q > n - at - 4)
            return answer_text(c, option, ERR_INVALID, "a query longer than the option");
        found |= matches(data + at + 4, q, listing);
        at += 4 + q;
    }
    if (found) {
        qz_store_be32(context, listing ? 0 : NBD_CONTEXT_ALLOCATION);
        memcpy(context + 4, allocation, sizeof(allocation) - 1);
        if ((r = answer(c, option, REP_META_CONTEXT, context, sizeof(context))) < 0)
            return r;
        c->allocation |= !listing;
    }
    return answer(c, option, REP_ACK, NULL, 0);
}

/* 1: transmission begins. */
static int export_name(struct nbd_connection *c, const uint8_t *data, size_t n)
{
    uint8_t reply[10 + 124] = {0};
    int r;

    if (!is_ours(c, data, n))
        return -ENOENT; /* the only way to say no here */
    qz_store_be64(reply, export_size(c));
    qz_store_be16(reply + 8, nbd_flags(c->server));
    r = nbd_write(c, reply, c->no_zeroes ? 10 : sizeof(reply));
    return r < 0 ? r : 1;
}

static int handle(struct nbd_connection *c, uint32_t option, const uint8_t *data, size_t n)
{
    switch (option) {
    case OPT_EXPORT_NAME:
        return export_name(c, data, n);
    case OPT_ABORT:
        answer(c, option, REP_ACK, NULL, 0);
        return -ESHUTDOWN;
    case OPT_LIST:
        return list(c, n);
    case OPT_INFO:
    case OPT_GO:
        return info_or_go(c, option, data, n);
    case OPT_STRUCTURED_REPLY:
        if (n)
            return answer_text(c, option, ERR_INVALID, "structured reply takes no data");
        c->structured = true;
        return answer(c, option, REP_ACK, NULL, 0);
    case OPT_LIST_META_CONTEXT:
    case OPT_SET_META_CONTEXT:
        return meta_context(c, option, data, n);
    }
    return answer(c, option, ERR_UNSUP, NULL, 0);
}

static int next_option(struct nbd_connection *c, uint8_t *data)
{
    uint8_t head[16];
    uint32_t option, n;
    int r = nbd_read(c, head, sizeof(head));

    if (r < 0)
        return r;
    if (qz_load_be64(head) != MAGIC_OPTION)
        return -EPROTO;
    option = qz_load_be32(head + 8);
    n = qz_load_be32(head + 12);
    if (n > NBD_MAX_OPTION)
        return -EMSGSIZE;
    r = nbd_read(c, data, n);
    return r < 0 ? r : handle(c, option, data, n);
}

int nbd_negotiate(struct nbd_connection *c)
{
    QZ_AUTO_FREE uint8_t *data = malloc(NBD_MAX_OPTION);
    uint8_t hello[18], flags[4];
    uint32_t client;
    int r;

    if (!data)
        return -ENOMEM;
    qz_store_be64(hello, MAGIC_NBD);
    qz_store_be64(hello + 8, MAGIC_OPTION);
    qz_store_be16(hello + 16, HANDSHAKE_FIXED | HANDSHAKE_NO_ZEROES);
    if ((r = nbd_write(c, hello, sizeof(hello))) < 0 || (r = nbd_read(c, flags, sizeof(flags))) < 0)
        return r;
    client = qz_load_be32(flags);
    if (client & ~(uint32_t)(HANDSHAKE_FIXED | HANDSHAKE_NO_ZEROES))
        return -EPROTO;
    c->no_zeroes = client & HANDSHAKE_NO_ZEROES;
    for (unsigned i = 0; i < OPTIONS_MAX; i++) {
        r = next_option(c, data);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return -EPROTO;
}

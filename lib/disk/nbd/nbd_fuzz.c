/*
 * nbd_fuzz.c - what a client may send: the handshake and requests of any bytes. The server answers
 * or hangs up, and everything it took is given back.
 *
 * Input: one byte: begin with the handshake (even) or with requests (odd), then the client's bytes.
 */
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "../memory.h"
#include "nbd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fixture {
    struct qz_disk disk;
    struct nbd_server server;
};

static struct fixture *fixture(void)
{
    static struct fixture f;
    struct memory_options o = {.size = 64 << 10, .defers = true};
    struct qz_error err;

    if (f.disk.chain.top)
        return &f;
    if (memory_open(&f.disk.chain.top, &o, &err) < 0)
        abort();
    f.disk.chain.format_layer = f.disk.chain.top;
    f.server = (struct nbd_server){
        .disk = &f.disk, .top = f.disk.chain.top, .name = "x", .stop_fd = eventfd(0, EFD_CLOEXEC)};
    return &f;
}

struct client {
    int fd;
    const uint8_t *bytes;
    size_t n;
};

static void *write_all(void *argument)
{
    struct client *c = argument;

    while (c->n) {
        ssize_t n = send(c->fd, c->bytes, c->n, MSG_NOSIGNAL);

        if (n <= 0)
            break;
        c->bytes += n;
        c->n -= (size_t)n;
    }
    shutdown(c->fd, SHUT_WR);
    return NULL;
}

static void *read_all(void *argument)
{
    struct client *c = argument;
    char sink[65536];

    while (recv(c->fd, sink, sizeof(sink), 0) > 0)
        ;
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fixture *f = fixture();
    struct nbd_connection c = {.server = &f->server, .structured = true, .allocation = true};
    struct client client;
    pthread_t writer, reader;
    struct qz_error err;
    int pair[2];

    if (size < 1 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return 0;
    c.fd = pair[0];
    client = (struct client){pair[1], data + 1, size - 1};
    if (queue_new(&c.q, 8, &err) < 0)
        abort();
    pthread_create(&writer, NULL, write_all, &client);
    pthread_create(&reader, NULL, read_all, &client);
    if (data[0] & 1 || nbd_negotiate(&c) == 0)
        nbd_transmit(&c);
    shutdown(pair[0], SHUT_RDWR);
    pthread_join(writer, NULL);
    pthread_join(reader, NULL);
    queue_free(c.q);
    close(pair[0]);
    close(pair[1]);
    return 0;
}

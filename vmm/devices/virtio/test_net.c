/*
 * test_net.c - see test_net.h. It also checks its client: abort() where that breaks the contract of
 * net_backend.h.
 */
#include "devices/virtio/test_net.h"

static struct fake_net *fake_of(struct net_backend *b)
{
    return QZ_CONTAINER_OF(b, struct fake_net, b);
}

static void must(bool condition, const char *what)
{
    if (condition)
        return;
    fprintf(stderr, "fake network: %s\n", what);
    abort();
}

static void callbacks(struct qz_work *w)
{
    struct fake_net *f = QZ_CONTAINER_OF(w, struct fake_net, work);

    if (f->started && f->writable) {
        f->writable = false;
        f->client->writable(f->client);
    }
    if (f->started && f->readable && !f->paused) {
        f->readable = false;
        f->client->readable(f->client);
    }
}

static void drop_frames(struct fake_net *f)
{
    for (; f->rx_count; f->rx_count--) {
        free(f->rx[f->rx_head].data);
        f->rx_head = (f->rx_head + 1) % FAKE_NET_FRAMES;
    }
}

static int on_attach(struct net_backend *b, struct qz_loop *loop, struct net_client *client,
                     struct qz_error *err)
{
    fake_of(b)->loop = loop;
    fake_of(b)->client = client;
    return 0;
}

static void on_start(struct net_backend *b, uint64_t features)
{
    struct fake_net *f = fake_of(b);

    must(!f->started, "started twice");
    f->started = true;
    f->paused = f->readable = f->writable = false;
    f->negotiated = features;
    f->starts++;
    drop_frames(f);
}

static void on_stop(struct net_backend *b)
{
    must(fake_of(b)->started, "stopped, but not started");
    fake_of(b)->started = false;
    fake_of(b)->stops++;
}

static int on_send(struct net_backend *b, const struct iovec *iov, unsigned count, size_t bytes)
{
    struct fake_net *f = fake_of(b);
    size_t len = 0;

    must(f->started, "a frame to send, but not started");
    must(bytes >= NET_HEADER && bytes <= NET_BYTES_MAX && count <= 1024, "a frame out of bounds");
    if (f->refuses)
        return f->refuses;
    if (!f->takes)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        must(iov[i].iov_len <= NET_BYTES_MAX - len, "parts longer than the frame");
        memcpy(f->last.data + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    must(len == bytes, "parts that are not the frame");
    f->last.len = len;
    f->takes--;
    f->sent++;
    return 1;
}

static void on_flush(struct net_backend *b)
{
    fake_of(b)->flushes++;
}

static ssize_t on_receive(struct net_backend *b, const struct iovec *iov, unsigned count)
{
    struct fake_net *f = fake_of(b);
    struct fake_frame *frame = &f->rx[f->rx_head];
    size_t room = 0, at = 0;
    int error = f->rx_error;

    must(f->started && !f->paused, "a frame to receive, but paused or not started");
    must(count <= 1024, "too many parts");
    for (unsigned i = 0; i < count; i++)
        room += iov[i].iov_len;
    must(room >= NET_BYTES_MAX, "too little room for a frame");
    f->rx_error = 0;
    if (error)
        return error;
    if (!f->rx_count)
        return 0;
    for (unsigned i = 0; i < count && at < frame->len; i++) {
        size_t n = QZ_MIN(iov[i].iov_len, frame->len - at);

        memcpy(iov[i].iov_base, frame->data + at, n);
        at += n;
    }
    free(frame->data);
    f->rx_head = (f->rx_head + 1) % FAKE_NET_FRAMES;
    f->rx_count--;
    return (ssize_t)at;
}

static void on_pause(struct net_backend *b, bool paused)
{
    struct fake_net *f = fake_of(b);

    must(f->started && f->paused != paused, "paused or unpaused twice");
    f->paused = paused;
    f->pauses += paused;
}

static void on_free(struct net_backend *b)
{
    drop_frames(fake_of(b));
    free(fake_of(b)->last.data);
    fake_of(b)->freed++;
}

static const struct net_backend_ops ops = {
    .attach = on_attach,
    .start = on_start,
    .stop = on_stop,
    .send = on_send,
    .flush = on_flush,
    .receive = on_receive,
    .pause = on_pause,
    .free = on_free,
};

void fake_net_init(struct fake_net *f, uint64_t features)
{
    memset(f, 0, sizeof(*f));
    f->b = (struct net_backend){&ops, features, "fake"};
    f->takes = UINT32_MAX;
    f->last.data = malloc(NET_BYTES_MAX);
    must(f->last.data, "no memory");
}

void fake_net_arrives(struct fake_net *f, const void *header, const void *frame, size_t len)
{
    struct fake_frame *to = &f->rx[(f->rx_head + f->rx_count++) % FAKE_NET_FRAMES];

    must(f->rx_count <= FAKE_NET_FRAMES, "too many frames");
    to->len = NET_HEADER + len;
    to->data = malloc(to->len);
    must(to->data, "no memory");
    memcpy(to->data, header, NET_HEADER);
    memcpy(to->data + NET_HEADER, frame, len);
    f->readable = true;
    qz_loop_post(f->loop, &f->work, callbacks);
}

void fake_net_takes(struct fake_net *f, unsigned frames)
{
    f->takes = frames;
    f->writable = frames > 0;
    qz_loop_post(f->loop, &f->work, callbacks);
}

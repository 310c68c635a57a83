/*
 * virtio_vsock_fuzz.c - a guest that sends any packets, and host programs that do what they like.
 *
 * The input is one byte of choices, then operations of 8 bytes: what, how, two ports, and an
 * operand. Ports are few, so that packets meet connections. Aborts when more is kept than was
 * promised, when a connection outlives the device's reset, or when a loop does not come to rest.
 */
#include <sys/socket.h>

#include "devices/virtio/test_driver.h"
#include "devices/virtio/vsock_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RX, TX, EVENT, PORTS = 4, HOSTS = 16, RX_BUFFERS = 8, CID = 3, OPERATIONS = 200 };

static struct vtest_machine *tm;
static struct virtio_device *device;
static struct vtest *t;
static uint64_t memory_top; /* below this is memory for rings, new for each input */
static char dir[] = "/tmp/queztl-fuzz-XXXXXX", path[64];
static int listener[PORTS], host[HOSTS];
static uint8_t received[RX_BUFFERS][VSOCK_HEADER + 2000];

static struct vsock *vsock(void)
{
    return QZ_CONTAINER_OF(device, struct vsock, d);
}

static int open_socket(int port, bool listening)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (port < 0)
        snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    else
        snprintf(a.sun_path, sizeof(a.sun_path), "%s_%d", path, port);
    if (fd >= 0 && (listening ? bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4) < 0
                              : connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void clean_up(void)
{
    char name[80];

    for (int i = 0; i < PORTS; i++) {
        snprintf(name, sizeof(name), "%s_%d", path, i);
        unlink(name);
    }
    unlink(path);
    rmdir(dir);
}

static void build(void)
{
    struct virtio_pci *vp;
    struct qz_error err = {0};

    if (!mkdtemp(dir))
        abort();
    snprintf(path, sizeof(path), "%s/v", dir);
    atexit(clean_up);
    tm = vtest_machine_new(0);
    if (virtio_vsock_new(&device, &tm->m, tm->m.main_loop, CID, path, &err) < 0 ||
        virtio_pci_new(&vp, device, &err) < 0)
        abort();
    t = vtest_open(tm, VIRTIO_ID_VSOCK);
    for (int i = 0; i < PORTS - 1; i++) /* nobody listens on the last one */
        listener[i] = open_socket(i, true);
    for (int i = 0; i < HOSTS; i++)
        host[i] = -1;
    memory_top = tm->memory_top;
    qz_log_set_level(QZ_LOG_ERROR);
}

static void rest(void)
{
    for (unsigned i = 0; qz_loop_once(tm->m.main_loop, 0) > 0; i++)
        if (i == 10000)
            abort();
}

static void check(void)
{
    const struct vsock *v = vsock();
    const struct vsock_connection *c;
    unsigned n = 0;

    for (c = LIST_FIRST(&v->all); c; c = LIST_NEXT(c, all)) {
        n++;
        if (c->buffered > VSOCK_BUFFER || (c->buffered && !c->buffer) || c->head >= VSOCK_BUFFER)
            abort();
        if (c->state == VSOCK_CLOSED && c->fd < 0 && !c->owed)
            abort();
    }
    if (n != v->connections || n > v->connections_max || v->stray_count > VSOCK_STRAYS_MAX)
        abort();
}

static void post_buffer(const uint8_t *op)
{
    struct iovec in = {received[op[1] % RX_BUFFERS],
                       op[2] & 1 ? (size_t)VSOCK_HEADER + op[4] : sizeof(received[0])};

    if (vtest_submit(t, op[2] & 2 ? EVENT : RX, NULL, 0, &in, 1) >= 0)
        vtest_kick(t, op[2] & 2 ? EVENT : RX);
}

/* Ports of a connection that there is, so that not all packets are strays. */
static void meet(unsigned n, struct virtio_vsock_hdr *h)
{
    struct vsock_connection *c = LIST_FIRST(&vsock()->all);

    if (!c)
        return;
    for (n %= vsock()->connections; n; n--)
        c = LIST_NEXT(c, all);
    h->dst_port = c->host_port;
    h->src_port = c->guest_port;
}

static void guest_packet(const uint8_t *op)
{
    static uint8_t payload[60000];
    uint16_t operand = qz_load_le16(op + 4);
    uint32_t len = op[1] & 1 ? operand % sizeof(payload) : 0;
    struct virtio_vsock_hdr h = {
        .src_cid = op[1] & 0x80 && op[7] & 1 ? op[6] : CID,
        .dst_cid = op[1] & 0x80 && op[7] & 2 ? op[6] : VSOCK_HOST_CID,
        .src_port = op[2] % PORTS,
        .dst_port = op[3] % 8 < 4 ? op[3] % PORTS : 0x40000000u + op[3] % 16,
        .len = op[1] & 0x40 ? qz_load_le32(op + 4) : len,
        .type = op[1] & 0x20 && op[7] & 4 ? op[6] : VIRTIO_VSOCK_TYPE_STREAM,
        .op = op[1] & 2 ? VIRTIO_VSOCK_OP_RW : op[6] % 10,
        .flags = op[7] >> 3,
        .buf_alloc = op[7] & 0x10 ? operand : 65536,
        .fwd_cnt = op[7] & 0x20 ? qz_load_le32(op + 3) : 0,
    };
    struct iovec out[3] = {{&h, 20}, {(uint8_t *)&h + 20, sizeof(h) - 20}, {payload, len}};

    if (op[1] & 8)
        meet(op[2], &h);
    for (unsigned i = 0; i < 1 + op[0] / 16 % 8u; i++)
        if (vtest_submit(t, TX, out, op[1] & 4 && op[7] & 1 ? 1 : len ? 3 : 2, NULL, 0) >= 0)
            vtest_kick(t, TX);
}

static void host_does(const uint8_t *op)
{
    static const char *const lines[] = {"CONNECT 1\n", "CONNECT 2\nmore", "CONNECT ",
                                        "3\n",         "nonsense\n",      "x"};
    static uint8_t bytes[65536];
    int *fd = &host[op[2] % HOSTS];

    if (*fd < 0) {
        *fd = op[1] & 1 ? open_socket(-1, false)
                        : accept4(listener[op[3] % (PORTS - 1)], NULL, NULL,
                                  SOCK_CLOEXEC | SOCK_NONBLOCK);
        return;
    }
    switch (op[1] % 8) {
    case 0:
    case 1:
        send(*fd, lines[op[3] % QZ_ARRAY_LEN(lines)], strlen(lines[op[3] % QZ_ARRAY_LEN(lines)]),
             MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 2:
    case 3:
        send(*fd, bytes, qz_load_le16(op + 4), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 4:
        recv(*fd, bytes, qz_load_le16(op + 4), MSG_DONTWAIT);
        break;
    case 5:
        while (recv(*fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
            ;
        break;
    case 6:
        shutdown(*fd, op[3] % 3);
        break;
    default:
        close(*fd);
        *fd = -1;
    }
}

/* A connection as it should be, from either side. */
static void connect_both(const uint8_t *op)
{
    struct virtio_vsock_hdr h = {.src_cid = CID,
                                 .dst_cid = VSOCK_HOST_CID,
                                 .src_port = op[2] % PORTS,
                                 .dst_port = op[3] % (PORTS - 1),
                                 .type = VIRTIO_VSOCK_TYPE_STREAM,
                                 .op = VIRTIO_VSOCK_OP_REQUEST,
                                 .buf_alloc = 65536};
    struct iovec out = {&h, sizeof(h)};
    int *fd = &host[op[4] % HOSTS];

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (op[1] & 1) {
        *fd = open_socket(-1, false);
        if (*fd >= 0)
            send(*fd, "CONNECT 1\n", 10, MSG_DONTWAIT | MSG_NOSIGNAL);
        for (unsigned i = 0; i < 2; i++)
            post_buffer((const uint8_t[8]){0, (uint8_t)i});
        rest();
        meet(0, &h);
        h.op = VIRTIO_VSOCK_OP_RESPONSE;
    }
    if (vtest_submit(t, TX, &out, 1, NULL, 0) >= 0)
        vtest_kick(t, TX);
    rest();
    if (!(op[1] & 1))
        *fd = accept4(listener[h.dst_port], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static void now_and_then(const uint8_t *op)
{
    if (op[1] & 1) {
        virtio_vsock_disconnect(device);
    } else {
        QZ_LOCKED(&device->lock);

        vsock_sweep(vsock(), qz_now_ns() + VSOCK_PATIENCE_NS * (op[1] & 2));
        if (device->active)
            vsock_flush(vsock());
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned n = 0;

    if (!tm)
        build();
    if (!size)
        return 0;
    if (vtest_reset(t) < 0)
        abort();
    tm->memory_top = memory_top;
    if (vtest_negotiate(t, 0, data[0] & 1) < 0)
        abort();
    for (unsigned i = 0; data[0] & 2 && i < RX_BUFFERS; i++)
        post_buffer((const uint8_t[8]){0, (uint8_t)i});
    for (size_t at = 1; at + 8 <= size && n < OPERATIONS; at += 8, n++) {
        const uint8_t *op = data + at;

        if (op[0] % 16 < 2)
            connect_both(op);
        else if (op[0] % 16 < 8)
            guest_packet(op);
        else if (op[0] % 16 < 10)
            post_buffer(op);
        else if (op[0] % 16 < 15)
            host_does(op);
        else
            now_and_then(op);
        if (op[0] & 0x80)
            qz_loop_once(tm->m.main_loop, 0);
        else
            rest();
        check();
    }
    if (vtest_reset(t) < 0)
        abort();
    check();
    if (vsock()->connections)
        abort();
    for (int i = 0; i < HOSTS; i++) {
        if (host[i] >= 0)
            close(host[i]);
        host[i] = -1;
    }
    for (int i = 0; i < PORTS - 1; i++)
        for (int fd; (fd = accept(listener[i], NULL, NULL)) >= 0;)
            close(fd);
    rest();
    return 0;
}

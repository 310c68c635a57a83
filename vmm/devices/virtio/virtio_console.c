/*
 * virtio_console.c - the multiport console (VirtIO 1.3 §5.3).
 *
 * Theory of operation. Port 0 is the console and shares a terminal with the UART (terminal.h says
 * who of them gets what is typed). Other ports carry a name and hand what the guest writes
 * to a callback. A terminal that takes less than a whole buffer leaves the chain half written; it
 * is continued when the terminal has room. Terminal callbacks come on the terminal's loop and are
 * carried to the device's own by posted work.
 *
 * Queues: 0 and 1 receive and transmit of port 0, 2 and 3 control, then two for each further port.
 */
#include <linux/virtio_console.h>

#include "devices/virtio/devices.h"

enum {
    PORTS_MAX = 8,
    QUEUE_SIZE = 64,
    SEGMENTS = 64,
    ROUND_MAX = 256 << 10, /* output bytes before others get their turn */
    INPUT = 4096,
    NAME_MAX_BYTES = 64,
    CONTROL_PENDING = 64
};
enum { Q_CONTROL_RX = 2, Q_CONTROL_TX = 3 };

struct console;

struct control_message {
    uint32_t port;
    uint16_t event, value;
    uint16_t columns, rows; /* VIRTIO_CONSOLE_RESIZE */
};

struct port {
    struct console *console;
    unsigned id;
    struct console_port_config config;

    struct terminal_client client;
    struct qz_work input_ready, output_ready;
    /* Typed bytes on their way to the guest. */
    pthread_mutex_t input_lock;
    uint8_t input[INPUT];
    size_t input_head, input_len;
    bool input_full;

    /* A chain whose bytes were not all taken yet. */
    bool holding;
    struct virtqueue_chain held;
    struct iovec held_iov[SEGMENTS];
    uint64_t held_done; /* of it, or, when none is held, of the next one */
    bool listening;     /* the guest's side is open */
};

struct console {
    struct virtio_device d;
    struct virtio_console_config config;
    struct control_message
        pending[CONTROL_PENDING]; /* towards the guest, until it has buffers for them */
    unsigned pending_head, pending_count;
    uint32_t new_size; /* atomic: columns << 16 | rows, asked for by virtio_console_resize() */
    struct qz_work resize_work;
    unsigned ports;
    struct port port[PORTS_MAX];
};

static unsigned receive_queue(unsigned port)
{
    return port == 0 ? 0 : 2 + 2 * port;
}

static struct console *console_of(struct virtio_device *d)
{
    return QZ_CONTAINER_OF(d, struct console, d);
}

/* ---- control queue
 * --------------------------------------------------------------------------------------- */

static void flush_control(struct console *c)
{
    struct virtqueue *vq = &c->d.queue[Q_CONTROL_RX];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = SEGMENTS};

    while (c->pending_count && c->d.active && vq->enabled && virtqueue_pop(vq, &chain) == 1) {
        struct control_message *m = &c->pending[c->pending_head];
        uint8_t buf[8 + NAME_MAX_BYTES];
        const char *name = m->port < c->ports ? c->port[m->port].config.name : NULL;
        size_t len = 8;

        qz_store_le32(buf, m->port);
        qz_store_le16(buf + 4, m->event);
        qz_store_le16(buf + 6, m->value);
        if (m->event == VIRTIO_CONSOLE_PORT_NAME && name) {
            size_t n = QZ_MIN(strlen(name), (size_t)NAME_MAX_BYTES);

            memcpy(buf + 8, name, n);
            len += n;
        } else if (m->event == VIRTIO_CONSOLE_RESIZE) {
            qz_store_le16(buf + 8, m->columns);
            qz_store_le16(buf + 10, m->rows);
            len += 4;
        }
        virtqueue_push(vq, &chain, (uint32_t)virtqueue_write(&chain, 0, buf, len));
        c->pending_head = (c->pending_head + 1) % CONTROL_PENDING;
        c->pending_count--;
    }
    virtqueue_interrupt(vq);
}

/* Lock held. A guest that asks without taking answers loses the newest ones: nothing here grows
 * without bound. */
static void tell(struct console *c, struct control_message m)
{
    if (c->pending_count == CONTROL_PENDING) {
        qz_guest_warn("console: the guest does not take control messages; one was dropped");
        return;
    }
    c->pending[(c->pending_head + c->pending_count++) % CONTROL_PENDING] = m;
    flush_control(c);
}

static void port_ready(struct console *c, struct port *p)
{
    if (p->config.name)
        tell(c, (struct control_message){p->id, VIRTIO_CONSOLE_PORT_NAME, 1, 0, 0});
    if (p->id == 0) {
        tell(c, (struct control_message){0, VIRTIO_CONSOLE_CONSOLE_PORT, 1, 0, 0});
        tell(c,
             (struct control_message){0, VIRTIO_CONSOLE_RESIZE, 0, c->config.cols, c->config.rows});
    }
    tell(c, (struct control_message){p->id, VIRTIO_CONSOLE_PORT_OPEN, 1, 0, 0});
}

/* The guest's side of a port opens or closes: whether typed bytes go there. */
static void port_listen(struct port *p, bool on)
{
    p->listening = on;
    if (p->config.terminal)
        terminal_listen(&p->client, on);
}

static void handle_control(struct console *c, const uint8_t *message)
{
    uint32_t id = qz_load_le32(message);
    uint16_t event = qz_load_le16(message + 4), value = qz_load_le16(message + 6);

    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; value && i < c->ports; i++)
            tell(c, (struct control_message){i, VIRTIO_CONSOLE_PORT_ADD, 1, 0, 0});
        return;
    }
    if (id >= c->ports) {
        qz_guest_warn("console: control message for port %u, of %u", id, c->ports);
        return;
    }
    if (event == VIRTIO_CONSOLE_PORT_READY && value) {
        port_ready(c, &c->port[id]);
    } else if (event == VIRTIO_CONSOLE_PORT_OPEN && id == 0) {
        port_listen(&c->port[0], value);
    }
}

static void serve_control(struct console *c)
{
    struct virtqueue *vq = &c->d.queue[Q_CONTROL_TX];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = SEGMENTS};
    unsigned chains = vq->size;
    uint8_t message[8];

    for (; chains && virtqueue_pop(vq, &chain) == 1; chains--) {
        if (virtqueue_read(&chain, 0, message, sizeof(message)) == sizeof(message))
            handle_control(c, message);
        virtqueue_push(vq, &chain, 0);
    }
    virtqueue_interrupt(vq);
    if (!chains)
        virtio_queue_again(&c->d, Q_CONTROL_TX);
}

/* ---- guest to host
 * ------------------------------------------------------------------------------------------ */

/*
 * Hands on what is left of the held chain, at most *left bytes; false when the host side is full or
 * *left is used up.
 */
static bool drain_held(struct port *p, size_t *left)
{
    struct virtqueue_chain *chain = &p->held;

    while (p->held_done < chain->out_bytes) {
        uint8_t buf[4096];
        size_t n = virtqueue_read(chain, p->held_done, buf, QZ_MIN(sizeof(buf), *left)), taken = n;

        if (!n)
            return false;
        if (p->config.terminal)
            taken = terminal_write(&p->client, buf, n);
        else if (p->config.output)
            p->config.output(p->config.context, buf, n);
        p->held_done += taken;
        *left -= taken;
        if (taken < n)
            return false;
    }
    return true;
}

static void serve_output(struct port *p)
{
    unsigned q = receive_queue(p->id) + 1, chains = p->console->d.queue[q].size;
    struct virtqueue *vq = &p->console->d.queue[q];
    size_t left = ROUND_MAX;

    while (chains) {
        if (p->holding) {
            if (!drain_held(p, &left))
                break;
            virtqueue_push(vq, &p->held, 0);
            p->holding = false;
            p->held_done = 0;
            chains--;
            continue;
        }
        p->held.iov = p->held_iov;
        p->held.capacity = SEGMENTS;
        if (virtqueue_pop(vq, &p->held) != 1)
            break;
        p->holding = true;
    }
    virtqueue_interrupt(vq);
    if (!chains || !left)
        virtio_queue_again(&p->console->d, q);
}

static void output_again(struct qz_work *w)
{
    struct port *p = QZ_CONTAINER_OF(w, struct port, output_ready);
    QZ_LOCKED(&p->console->d.lock);

    if (p->console->d.active && p->holding)
        serve_output(p);
}

static void on_writable(struct terminal_client *client)
{
    struct port *p = QZ_CONTAINER_OF(client, struct port, client);

    qz_loop_post(p->console->d.loop, &p->output_ready, output_again);
}

/* ---- host to guest
 * ------------------------------------------------------------------------------------------ */

static void serve_input(struct port *p)
{
    struct console *c = p->console;
    struct virtqueue *vq = &c->d.queue[receive_queue(p->id)];
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain chain = {.iov = iov, .capacity = SEGMENTS};
    unsigned chains = vq->size;
    bool pull;

    pthread_mutex_lock(&p->input_lock);
    for (; chains && p->input_len && vq->enabled && virtqueue_pop(vq, &chain) == 1; chains--) {
        size_t n = QZ_MIN(p->input_len, INPUT - p->input_head),
               done = virtqueue_write(&chain, 0, p->input + p->input_head, n);

        p->input_head = (p->input_head + done) % INPUT;
        p->input_len -= done;
        virtqueue_push(vq, &chain, (uint32_t)done);
    }
    pull = p->input_full && p->input_len < INPUT;
    p->input_full = p->input_full && !pull;
    pthread_mutex_unlock(&p->input_lock);
    virtqueue_interrupt(vq);
    if (!chains)
        virtio_queue_again(&c->d, receive_queue(p->id));
    if (pull)
        terminal_pull(&p->client);
}

static void input_again(struct qz_work *w)
{
    struct port *p = QZ_CONTAINER_OF(w, struct port, input_ready);
    QZ_LOCKED(&p->console->d.lock);

    if (p->console->d.active)
        serve_input(p);
}

static size_t on_receive(struct terminal_client *client, const uint8_t *data, size_t len)
{
    struct port *p = QZ_CONTAINER_OF(client, struct port, client);
    size_t n = 0;

    pthread_mutex_lock(&p->input_lock);
    while (n < len && p->input_len < INPUT)
        p->input[(p->input_head + p->input_len++) % INPUT] = data[n++];
    if (n < len)
        p->input_full = true;
    pthread_mutex_unlock(&p->input_lock);
    qz_loop_post(p->console->d.loop, &p->input_ready, input_again);
    return n;
}

/* ---- device
 * -------------------------------------------------------------------------------------------------
 */

static void on_notify(struct virtio_device *d, unsigned q)
{
    struct console *c = console_of(d);
    bool multiport = virtio_has(d, VIRTIO_CONSOLE_F_MULTIPORT);

    if (q >= Q_CONTROL_RX && !multiport)
        return; /* without multiport there are two queues (§5.3.2) */
    if (q == Q_CONTROL_RX || q == Q_CONTROL_TX) {
        if (q == Q_CONTROL_RX)
            flush_control(c);
        else
            serve_control(c);
    } else {
        struct port *p = &c->port[q < 2 ? 0 : (q - 2) / 2];

        if (q & 1)
            serve_output(p);
        else
            serve_input(p);
    }
}

static void on_activate(struct virtio_device *d)
{
    struct console *c = console_of(d);

    /* Without multiport there is no message that says "open": the driver's readiness is. */
    if (!virtio_has(d, VIRTIO_CONSOLE_F_MULTIPORT))
        port_listen(&c->port[0], true);
}

static void on_config_read(struct virtio_device *d, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&console_of(d)->config + offset, len);
}

static void on_config_write(struct virtio_device *d, unsigned offset, const void *buf, unsigned len)
{
    struct console *c = console_of(d);
    const unsigned emergency = offsetof(struct virtio_console_config, emerg_wr);

    /* §5.3.4: works before any queue does, for a kernel's last words. */
    if (offset == emergency && c->port[0].config.terminal)
        terminal_write(&c->port[0].client, buf, 1);
}

static void on_reset(struct virtio_device *d)
{
    struct console *c = console_of(d);

    c->pending_count = 0;
    for (unsigned i = 0; i < c->ports; i++) {
        c->port[i].holding = false;
        c->port[i].held_done = 0;
    }
    port_listen(&c->port[0], false);
    virtio_reset_done(d);
}

static void on_let_go(struct virtio_device *d)
{
    struct console *c = console_of(d);

    for (unsigned i = 0; i < c->ports; i++)
        if (c->port[i].holding) {
            virtqueue_unpop(&d->queue[receive_queue(i) + 1], &c->port[i].held);
            c->port[i].holding = false;
        }
}

static void port_state(struct port *p, struct qz_state *s)
{
    uint8_t input[INPUT];
    size_t len;

    QZ_LOCKED(&p->input_lock);

    for (len = 0; len < p->input_len; len++)
        input[len] = p->input[(p->input_head + len) % INPUT];
    QZ_STATE(s, "listening", p->listening, 1);
    QZ_STATE_ANY(s, "written", p->held_done);
    qz_state_data_of(s, "input", input, &len, INPUT);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    memcpy(p->input, input, len);
    p->input_head = 0;
    p->input_len = len;
}

static void message_state(struct control_message *m, struct qz_state *s)
{
    QZ_STATE_ANY(s, "port", m->port);
    QZ_STATE_ANY(s, "event", m->event);
    QZ_STATE_ANY(s, "value", m->value);
    QZ_STATE_ANY(s, "columns", m->columns);
    QZ_STATE_ANY(s, "rows", m->rows);
}

static void on_state(struct virtio_device *d, struct qz_state *s)
{
    struct console *c = console_of(d);
    unsigned head = qz_state_loading(s) ? 0 : c->pending_head;

    QZ_STATE(s, "pending", c->pending_count, CONTROL_PENDING);
    for (unsigned i = 0; i < c->pending_count && !qz_state_failed(s); i++) {
        qz_state_group_at(s, "message", i);
        message_state(&c->pending[(head + i) % CONTROL_PENDING], s);
        qz_state_end(s);
    }
    for (unsigned i = 0; i < c->ports; i++) {
        qz_state_group_at(s, "port", i);
        port_state(&c->port[i], s);
        qz_state_end(s);
    }
    if (!qz_state_loading(s))
        return;
    c->pending_head = 0;
    if (qz_state_failed(s))
        c->pending_count = 0;
    else
        port_listen(&c->port[0], c->port[0].listening);
}

static void on_free(struct virtio_device *d)
{
    struct console *c = console_of(d);

    for (unsigned i = 0; i < c->ports; i++)
        pthread_mutex_destroy(&c->port[i].input_lock);
    free(c);
}

static const struct virtio_device_ops ops = {
    .name = "virtio-console",
    .device_id = VIRTIO_ID_CONSOLE,
    .config_read = on_config_read,
    .config_write = on_config_write,
    .activate = on_activate,
    .notify = on_notify,
    .reset = on_reset,
    .let_go = on_let_go,
    .state = on_state,
    .free = on_free,
};

static void apply_size(struct qz_work *w)
{
    struct console *c = QZ_CONTAINER_OF(w, struct console, resize_work);
    uint32_t size = __atomic_load_n(&c->new_size, __ATOMIC_RELAXED);
    QZ_LOCKED(&c->d.lock);

    c->config.cols = size >> 16;
    c->config.rows = size & 0xffff;
    if (!c->d.active)
        return;
    if (virtio_has(&c->d, VIRTIO_CONSOLE_F_MULTIPORT))
        tell(c,
             (struct control_message){0, VIRTIO_CONSOLE_RESIZE, 0, c->config.cols, c->config.rows});
    else
        virtio_config_changed(&c->d);
}

void virtio_console_resize(struct virtio_device *d, uint16_t columns, uint16_t rows)
{
    struct console *c = console_of(d);

    __atomic_store_n(&c->new_size, (uint32_t)columns << 16 | rows, __ATOMIC_RELAXED);
    qz_loop_post(d->loop, &c->resize_work, apply_size);
}

int virtio_console_new(struct virtio_device **out, struct machine *m, struct qz_loop *loop,
                       const struct console_port_config *ports, unsigned count,
                       struct qz_error *err)
{
    struct console *c;

    if (count < 1 || count > PORTS_MAX)
        return qz_fail(err, -EINVAL, "console: 1 to %d ports", PORTS_MAX);
    c = calloc(1, sizeof(*c));
    if (!c)
        return qz_fail(err, -ENOMEM, "console: no memory");
    c->d = (struct virtio_device){
        .ops = &ops,
        .machine = m,
        .loop = loop,
        .offered = QZ_BIT(VIRTIO_CONSOLE_F_SIZE) | QZ_BIT(VIRTIO_CONSOLE_F_MULTIPORT) |
                   QZ_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE),
        .config_size = sizeof(c->config),
        .queue_count = 2 + 2 * count,
        .queue_size_max = QUEUE_SIZE,
        .label = "console",
    };
    c->config.cols = 80;
    c->config.rows = 25;
    c->config.max_nr_ports = count;
    c->ports = count;
    for (unsigned i = 0; i < count; i++) {
        struct port *p = &c->port[i];

        p->console = c;
        p->id = i;
        p->config = ports[i];
        pthread_mutex_init(&p->input_lock, NULL);
        p->client.receive = on_receive;
        p->client.writable = on_writable;
        if (p->config.terminal)
            terminal_attach(p->config.terminal, &p->client);
    }
    *out = &c->d;
    return 0;
}

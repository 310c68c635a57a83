/*
 * serial.c - a 16550A UART (PC16550D data sheet).
 *
 * Theory of operation. Transmission is instantaneous as long as the terminal takes bytes. When it
 * does not, the byte stays in the transmit FIFO and LSR.THRE stays clear, as on a real line that is
 * slow: the guest waits or gives up by its own rules, the monitor never does. Received bytes go
 * through a 16 byte FIFO; a full FIFO makes the terminal wait, so there is no overrun.
 */
#include "devices/serial.h"

enum { FIFO = 16 };

enum { /* registers; 0 and 1 are the divisor latch while LCR.DLAB is set */
       RBR_THR = 0,
       IER = 1,
       IIR_FCR = 2,
       LCR = 3,
       MCR = 4,
       LSR = 5,
       MSR = 6,
       SCR = 7,
};
enum { IER_RDI = 1, IER_THRI = 2, IER_RLSI = 4, IER_MSI = 8 };
enum {
    IIR_NONE = 1,
    IIR_MSI = 0,
    IIR_THRI = 2,
    IIR_RDI = 4,
    IIR_TIMEOUT = 12,
    IIR_RLSI = 6,
    IIR_FIFOS = 0xc0
};
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_DR = 1, LSR_OE = 2, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct fifo {
    uint8_t data[FIFO];
    unsigned head, len;
};

struct serial {
    struct machine *machine;
    uint16_t port;
    pthread_mutex_t lock;
    struct irq_line line;
    struct terminal_client client;
    struct fifo rx, tx;
    uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
    bool overrun, thr_interrupt;
};

static void fifo_put(struct fifo *f, uint8_t byte)
{
    f->data[(f->head + f->len++) % FIFO] = byte;
}

static uint8_t fifo_get(struct fifo *f)
{
    uint8_t byte = f->data[f->head];

    f->head = (f->head + 1) % FIFO;
    f->len--;
    return byte;
}

static unsigned fifo_depth(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO : 1;
}

static uint8_t interrupt_id(const struct serial *s)
{
    static const uint8_t trigger[] = {1, 4, 8, 14};

    if (s->ier & IER_RLSI && s->overrun)
        return IIR_RLSI;
    if (s->ier & IER_RDI && s->rx.len)
        /* Below the trigger level a real UART waits four character times; nothing is gained by
         * waiting. */
        return !(s->fcr & FCR_ENABLE) || s->rx.len >= trigger[s->fcr >> 6] ? IIR_RDI : IIR_TIMEOUT;
    if (s->ier & IER_THRI && s->thr_interrupt)
        return IIR_THRI;
    return IIR_NONE;
}

static void update_irq(struct serial *s)
{
    irq_line_set(&s->line, interrupt_id(s) != IIR_NONE && s->mcr & MCR_OUT2);
}

static void transmit(struct serial *s)
{
    while (s->tx.len) {
        size_t run = QZ_MIN(s->tx.len, FIFO - s->tx.head);
        size_t n =
            s->client.terminal ? terminal_write(&s->client, s->tx.data + s->tx.head, run) : run;

        s->tx.head = (s->tx.head + n) % FIFO;
        s->tx.len -= n;
        if (n < run)
            return;
    }
    s->thr_interrupt = true;
}

static uint64_t serial_read(void *device, uint64_t offset, unsigned size)
{
    struct serial *s = device;
    uint8_t v = 0;

    switch (offset) {
    case RBR_THR:
        if (s->lcr & LCR_DLAB)
            return s->dll;
        if (s->rx.len) {
            v = fifo_get(&s->rx);
            if (s->rx.len == 0 && s->client.terminal)
                terminal_pull(&s->client);
        }
        break;
    case IER:
        return s->lcr & LCR_DLAB ? s->dlm : s->ier;
    case IIR_FCR:
        v = interrupt_id(s);
        if (v == IIR_THRI)
            s->thr_interrupt = false; /* reading IIR acknowledges this one source */
        v |= s->fcr & FCR_ENABLE ? IIR_FIFOS : 0;
        break;
    case LCR:
        return s->lcr;
    case MCR:
        return s->mcr;
    case LSR:
        v = (s->rx.len ? LSR_DR : 0) | (s->overrun ? LSR_OE : 0) |
            (s->tx.len ? 0 : LSR_THRE | LSR_TEMT);
        s->overrun = false;
        break;
    case MSR:
        if (s->mcr & MCR_LOOP) /* loopback wires DTR, RTS, OUT1, OUT2 to DSR, CTS, RI, DCD */
            v = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
        else
            v = MSR_CTS | MSR_DSR | MSR_DCD;
        break;
    default:
        v = s->scr;
    }
    update_irq(s);
    return v;
}

static void put_thr(struct serial *s, uint8_t byte)
{
    s->thr_interrupt = false;
    if (s->mcr & MCR_LOOP) {
        if (s->rx.len < fifo_depth(s))
            fifo_put(&s->rx, byte);
        else
            s->overrun = true;
        s->thr_interrupt = true;
        return;
    }
    if (s->tx.len < FIFO) /* else the guest wrote past THRE: a real UART loses the byte too */
        fifo_put(&s->tx, byte);
    transmit(s);
}

static void serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial *s = device;
    uint8_t v = (uint8_t)value;

    switch (offset) {
    case RBR_THR:
        if (s->lcr & LCR_DLAB)
            s->dll = v;
        else
            put_thr(s, v);
        break;
    case IER:
        if (s->lcr & LCR_DLAB) {
            s->dlm = v;
            break;
        }
        if (v & ~s->ier & IER_THRI && s->tx.len == 0)
            s->thr_interrupt = true; /* enabling it while the register is empty raises it at once */
        /* A kernel that only writes its messages does without the interrupt. */
        if ((v ^ s->ier) & IER_RDI && s->client.terminal)
            terminal_listen(&s->client, v & IER_RDI);
        s->ier = v & 0xf;
        break;
    case IIR_FCR:
        if ((v ^ s->fcr) & FCR_ENABLE)
            v |= FCR_CLEAR_RX | FCR_CLEAR_TX;
        if (v & FCR_CLEAR_RX) {
            s->rx.len = 0;
            if (s->client.terminal)
                terminal_pull(&s->client);
        }
        if (v & FCR_CLEAR_TX)
            s->tx.len = 0;
        s->fcr = v & (FCR_ENABLE | 0xc8);
        break;
    case LCR:
        s->lcr = v;
        break;
    case MCR:
        s->mcr = v & 0x1f;
        break;
    case SCR:
        s->scr = v;
        break;
    default: /* LSR and MSR are read only */
        break;
    }
    update_irq(s);
}

static size_t serial_receive(struct terminal_client *c, const uint8_t *data, size_t len)
{
    struct serial *s = QZ_CONTAINER_OF(c, struct serial, client);
    size_t n = 0;
    QZ_LOCKED(&s->lock);

    while (n < len && s->rx.len < fifo_depth(s))
        fifo_put(&s->rx, data[n++]);
    update_irq(s);
    return n;
}

static void serial_writable(struct terminal_client *c)
{
    struct serial *s = QZ_CONTAINER_OF(c, struct serial, client);
    QZ_LOCKED(&s->lock);

    transmit(s);
    update_irq(s);
}

static const struct bus_ops ops = {serial_read, serial_write};

void serial_reset(struct serial *s)
{
    QZ_LOCKED(&s->lock);

    s->rx.len = s->tx.len = 0;
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->dlm = 0;
    s->dll = 12; /* 9600 baud */
    s->overrun = s->thr_interrupt = false;
    irq_line_set(&s->line, false);
    if (s->client.terminal) {
        terminal_listen(&s->client, false);
        terminal_focus(&s->client); /* firmware and boot loaders ask by and by what was typed */
    }
}

static void fifo_state(struct fifo *f, struct qz_state *s, const char *name)
{
    uint8_t data[FIFO];
    size_t len = f->len;

    for (unsigned i = 0; i < f->len; i++)
        data[i] = f->data[(f->head + i) % FIFO];
    qz_state_data_of(s, name, data, &len, FIFO);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    f->head = 0;
    f->len = (unsigned)len;
    memcpy(f->data, data, len);
}

void serial_state(struct serial *serial, struct qz_state *s)
{
    QZ_LOCKED(&serial->lock);

    qz_state_group(s, "serial");
    fifo_state(&serial->rx, s, "rx");
    fifo_state(&serial->tx, s, "tx");
    QZ_STATE(s, "ier", serial->ier, 15);
    QZ_STATE(s, "fcr", serial->fcr, FCR_ENABLE | 0xc8);
    QZ_STATE_ANY(s, "lcr", serial->lcr);
    QZ_STATE(s, "mcr", serial->mcr, 0x1f);
    QZ_STATE_ANY(s, "scr", serial->scr);
    QZ_STATE_ANY(s, "dll", serial->dll);
    QZ_STATE_ANY(s, "dlm", serial->dlm);
    QZ_STATE(s, "overrun", serial->overrun, 1);
    QZ_STATE(s, "thr_interrupt", serial->thr_interrupt, 1);
    qz_state_end(s);
    if (!qz_state_loading(s) || qz_state_failed(s))
        return;
    if (serial->tx.len)
        transmit(serial);
    update_irq(serial);
    if (serial->client.terminal) {
        terminal_listen(&serial->client, serial->ier & IER_RDI);
        terminal_pull(&serial->client);
    }
}

int serial_new(struct serial **out, struct machine *m, uint16_t port, unsigned irq,
               struct terminal *terminal, struct qz_error *err)
{
    struct serial *s = calloc(1, sizeof(*s));
    struct bus_region region = {port, 8, &ops, s, NULL, "serial"};
    int r;

    if (!s)
        return qz_fail(err, -ENOMEM, "serial: no memory");
    s->machine = m;
    s->port = port;
    pthread_mutex_init(&s->lock, NULL);
    irq_line_init(&s->line, m->irq, irq);
    s->client.receive = serial_receive;
    s->client.writable = serial_writable;
    if (terminal)
        terminal_attach(terminal, &s->client);
    serial_reset(s);
    region.lock = &s->lock;
    r = bus_add(m->pio, &region);
    if (r < 0) {
        free(s);
        return qz_fail(err, r, "serial: port 0x%x is taken", port);
    }
    *out = s;
    return 0;
}

void serial_free(struct serial *s)
{
    if (!s)
        return;
    bus_remove(s->machine->pio, s->port, 8);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/*
 * virtio_console_fuzz.c - any driver against the multiport console, with a terminal on a socket
 * pair whose other end types, reads or does neither. Aborts when a reset does not end, or when the
 * console does not carry a line each way afterwards.
 */
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <sys/socket.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PORTS = 3, RX = 0, TX = 1, CONTROL_TX = 3, STEPS_MAX = 1000, DRAINS_MAX = 10000 };

#define OFFERED (QZ_BIT(VIRTIO_CONSOLE_F_SIZE) | QZ_BIT(VIRTIO_CONSOLE_F_MULTIPORT))

static struct vtest_machine *tm;
static struct virtio_device *console;
static struct vtest *t;
static struct vfuzz f;
static int host;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void take_output(void *context, const void *data, size_t len)
{
    must(len > 0 && len <= 4096);
}

static void make_rig(void)
{
    struct terminal *terminal;
    struct virtio_pci *vp;
    int pair[2];

    tm = vtest_machine_new(0);
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    host = pair[0];
    must(terminal_new(&terminal, tm->m.main_loop, pair[1], fcntl(pair[1], F_DUPFD_CLOEXEC, 0),
                      NULL) == 0);
    const struct console_port_config ports[PORTS] = {
        {.terminal = terminal}, {.name = "agent", .output = take_output}, {.name = "sink"}};
    must(virtio_console_new(&console, &tm->m, tm->m.main_loop, ports, PORTS, NULL) == 0);
    must(virtio_pci_new(&vp, console, NULL) == 0);
    t = vtest_open(tm, VIRTIO_ID_CONSOLE);
    must(t != NULL);
}

/* Reads what the guest wrote; whether anything came. */
static bool drain(void)
{
    char buf[4096];
    bool any = false;

    while (read(host, buf, sizeof(buf)) > 0)
        any = true;
    return any;
}

static void say(void)
{
    uint8_t m[8];

    qz_store_le32(m, (uint32_t)vfuzz_take(&f, 1) % (PORTS + 1));
    qz_store_le16(m + 4, (uint16_t)vfuzz_take(&f, 1) % 9);
    qz_store_le16(m + 6, (uint16_t)vfuzz_take(&f, 1));
    if (!t->q[CONTROL_TX].enabled)
        return;
    vtest_submit(t, CONTROL_TX, &(struct iovec){m, sizeof(m)}, 1, NULL, 0);
    vtest_mmio_write(tm, t->q[CONTROL_TX].notify, 2, CONTROL_TX);
}

/* A large buffer of output: more than the terminal takes at once. */
static void pour(void)
{
    static uint8_t data[96 << 10];
    unsigned q = (unsigned)vfuzz_take(&f, 1) & 1 ? TX : 5;

    if (!t->q[q].enabled)
        return;
    vtest_submit(t, q, &(struct iovec){data, sizeof(data)}, 1, NULL, 0);
    vtest_mmio_write(tm, t->q[q].notify, 2, q);
}

static void person(uint8_t what)
{
    static char typed[6000];

    if (what & 1)
        drain();
    if (what & 2) /* full is no mistake: the guest does not read */
        must(write(host, typed, what & 4 ? sizeof(typed) : 5) > 0 || errno == EAGAIN);
    if (what & 8)
        virtio_console_resize(console, (uint16_t)vfuzz_take(&f, 1), (uint16_t)vfuzz_take(&f, 1));
}

/* What is left of the input's output and typing goes first. */
static void settle(void)
{
    static uint8_t buf[4096];
    bool marked = false;
    uint32_t written;

    for (unsigned n = 0, idle = 0; idle < 3; n++) {
        must(n < DRAINS_MAX);
        vtest_run(tm, 0);
        idle = drain() ? 0 : idle + 1;
    }
    do { /* the end mark makes sure that every read has an answer */
        if (!marked)
            marked = write(host, "\n", 1) == 1;
        must(vtest_request(t, RX, NULL, 0, &(struct iovec){buf, sizeof(buf)}, 1, &written) == 0);
        must(written > 0);
    } while (!marked || buf[written - 1] != '\n');
}

static void still_works(void)
{
    uint8_t buf[16];
    uint32_t written;

    must(vtest_request(t, TX, &(struct iovec){"line\n", 5}, 1, NULL, 0, NULL) == 0);
    must(read(host, buf, sizeof(buf)) == 5 && !memcmp(buf, "line\n", 5));
    must(write(host, "typed", 5) == 5);
    for (unsigned n = 0; n < 5; n += written) { /* a stream: it may come in pieces */
        must(vtest_request(t, RX, NULL, 0, &(struct iovec){buf, sizeof(buf)}, 1, &written) == 0);
        must(written > 0 && written <= 5 - n && !memcmp(buf, "typed" + n, written));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!t)
        make_rig();
    vfuzz_begin(&f, t, OFFERED, data, size);
    for (unsigned n = 0; n < STEPS_MAX && f.p < f.end; n++) {
        uint8_t op = (uint8_t)vfuzz_take(&f, 1);

        if (op < 48)
            say();
        else if (op < 80)
            person((uint8_t)vfuzz_take(&f, 1));
        else if (op < 88)
            pour();
        else
            vfuzz_step(&f, op);
    }
    vfuzz_end(&f, 0);
    settle();
    still_works();
    return 0;
}

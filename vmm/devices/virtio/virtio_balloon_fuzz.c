/*
 * virtio_balloon_fuzz.c - a guest that gives, takes and reports any pages, in requests of any
 * shape.
 *
 * The input is one byte of features, then operations of 8 bytes. Pages below SAFE are the guest's
 * to lose; its rings lie above. Aborts when a page that was given does not read as zeros, or one
 * that was not is touched.
 */
#include <linux/virtio_balloon.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/test_driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGE = 4096, SAFE = 64, QUEUES = 5, OPERATIONS = 100, LIST = 512 };
#define RAM (16ull << 20)

static struct vtest_machine *tm;
static struct virtio_device *device;
static struct vtest *t;
static uint64_t memory_top; /* below this is memory for rings, new for each input */
static uint32_t list[LIST];
static uint8_t space[3 * PAGE];

static void build(void)
{
    struct virtio_pci *vp;
    struct qz_error err = {0};

    tm = vtest_machine_new(RAM);
    if (virtio_balloon_new(&device, &tm->m, tm->m.main_loop, &err) < 0 ||
        virtio_pci_new(&vp, device, &err) < 0)
        abort();
    t = vtest_open(tm, VIRTIO_ID_BALLOON);
    memory_top = tm->memory_top;
    qz_log_set_level(QZ_LOG_ERROR);
}

static uint8_t *page(unsigned pfn)
{
    return vtest_mem(tm, gpa((uint64_t)pfn * PAGE), PAGE);
}

/* Pages from the operand: runs up and down, repeated, outside RAM. */
static unsigned make_list(const uint8_t *op, bool given[SAFE])
{
    unsigned n = op[2] % 8 ? op[2] % 16 + 1u : LIST;
    uint32_t at = op[3] % SAFE;

    for (unsigned i = 0; i < n; i++) {
        list[i] = at;
        if (op[1] & 1 && i % 3 == 1)
            list[i] = (uint32_t)(RAM / PAGE) +
                      qz_load_le32(op + 4) % (UINT32_MAX - (uint32_t)(RAM / PAGE));
        else
            given[at] = true;
        at = (at + op[4] % 4 - 1u) % SAFE;
    }
    return n;
}

static void rest(void)
{
    for (unsigned i = 0; qz_loop_once(tm->m.main_loop, 0) > 0; i++)
        if (i == 100000)
            abort();
}

static void give(const uint8_t *op)
{
    bool given[SAFE] = {false};
    unsigned n = make_list(op, given) * (unsigned)sizeof(list[0]), cut = op[5] % n;
    struct iovec out[2] = {{list, cut}, {(uint8_t *)list + cut, n - cut}}, in = {space, 4};
    bool whole = !cut;
    int token;

    for (unsigned i = 0; i < SAFE; i++)
        memset(page(i), (int)i + 1, PAGE);
    token = vtest_submit(t, 0, whole ? out + 1 : out, whole ? 1 : 2, &in, op[1] >> 1 & 1);
    if (token < 0)
        return;
    vtest_kick(t, 0);
    rest();
    if (vtest_poll(t, 0) < 0 || !t->q[0].slot[token].done)
        abort();
    for (unsigned i = 0; i < SAFE; i++)
        for (unsigned k = 0; k < PAGE; k += 512)
            if (page(i)[k] != (given[i] ? 0 : i + 1))
                abort();
}

static void any_queue(const uint8_t *op)
{
    struct iovec out[2] = {{space, op[2] + 1u}, {space, op[3] * 40u + 1}};
    struct iovec in[2] = {{space, op[4] * 20u + 1}, {space, op[5] * 40u + 1}};
    unsigned q = op[1] % QUEUES, outs = op[6] % 3, ins = op[7] % 3;

    memcpy(space, op, 8);
    if (q == 0 || !(outs + ins))
        q = 2;
    if (vtest_submit(t, q, out, outs ? outs : 1, in, ins) < 0)
        return;
    vtest_kick(t, q);
    rest();
    if (vtest_poll(t, q) < 0)
        abort();
}

static void host_does(const uint8_t *op)
{
    uint64_t target, actual, reported;
    struct balloon_stats stats;
    uint32_t value = qz_load_le32(op + 4);

    if (op[1] & 1)
        virtio_balloon_set_target(device, qz_load_le64(op) & (2 * RAM - 1));
    if (op[1] & 2)
        vtest_device_write(t, op[2] % 16 & ~3u, &value, 4);
    virtio_balloon_ask_every(device, op[3] & 1 ? 1000000000 : 0);
    virtio_balloon_info(device, &target, &actual, &reported, &stats);
    if (target > RAM || actual > RAM || stats.actual > RAM || (stats.age_ns < 0) != !stats.at_ns)
        abort();
    rest();
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
    if (vtest_negotiate(t, data[0] >> 1, data[0] & 1) < 0)
        abort();
    for (size_t at = 1; at + 8 <= size && n < OPERATIONS; at += 8, n++) {
        const uint8_t *op = data + at;

        if (op[0] % 8 < 3)
            give(op);
        else if (op[0] % 8 < 6)
            any_queue(op);
        else
            host_does(op);
        if (vtest_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET)
            abort(); /* nothing here is against the rules of rings */
    }
    return 0;
}

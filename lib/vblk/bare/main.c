/*
 * main.c - the driver on a bare machine: finds virtio block devices on PCI and virtio-mmio, drives
 * each through its commands, verifies the data, and says what it saw on COM1. Exits with 0 when
 * every device passed and there was one at least.
 */
#include "../conform/conform.h"
#include "platform.h"
#include "steer.h"

void *memset(void *to, int byte, size_t n);

enum { DEPTH = 64, BLOCK = 4096, ROUNDS = 40, SECTORS = BLOCK / VBLK_SECTOR_SIZE };
enum { MMIO_BASE = 0xfeb00000, MMIO_SLOTS = 32, MMIO_STRIDE = 0x200, PCI_FUNCTIONS = 256 };
enum { QUEUES = 2 };
#define PATIENCE                                                                                   \
    60000000000 /* of bare_platform.now_ns(): at least ten seconds on any processor                \
                 */

int main(void);

static struct vblk_request requests[DEPTH], *batch[DEPTH], *done[DEPTH];
static struct vblk_segment segments[DEPTH][2];

static bool complain(const char *what, int64_t number)
{
    bare_print("FAILED: ");
    bare_print(what);
    bare_print(number < 0 ? ": -" : ": ");
    bare_print_number((uint64_t)(number < 0 ? -number : number));
    bare_print("\n");
    return false;
}

/* Submits n and waits until all ended well. */
static bool finish(struct vblk_queue *q, unsigned n)
{
    const uint64_t until = bare_platform.now_ns(0) + PATIENCE;
    unsigned ended = 0;
    int rc = qz_vblk_submit(q, batch, n);

    if (rc != (int)n)
        return complain("submit", rc < 0 ? rc : batch[rc]->status);
    while (ended < n && bare_platform.now_ns(0) < until) {
        rc = qz_vblk_poll(q, done, DEPTH);
        if (rc < 0)
            return complain("poll", rc);
        for (int k = 0; k < rc; k++) {
            if (steer_owns(done[k]))
                continue;
            if (done[k]->status)
                return complain("status", done[k]->status);
            ended++;
        }
    }
    return ended == n || complain("requests that ended", ended);
}

static bool one(struct vblk_queue *q, struct vblk_request r)
{
    requests[0] = r;
    batch[0] = &requests[0];
    return finish(q, 1);
}

static uint64_t mark(unsigned block, unsigned word, unsigned round)
{
    return (uint64_t)round << 48 ^ (uint64_t)block << 16 ^ word ^ 0x5a5a000000000000;
}

/* A batch over all blocks; odd ones in two segments. */
static void lay_out(uint32_t op, uint64_t *data, uint64_t blocks)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        uint8_t *at = (uint8_t *)data + (size_t)i * BLOCK;

        segments[i][0] = (struct vblk_segment){at, 512};
        segments[i][1] = (struct vblk_segment){at + 512, BLOCK - 512};
        requests[i] = (struct vblk_request){
            .op = op, .count = 1, .sector = (i * 7 % blocks) * SECTORS, .segment = {at, BLOCK}};
        if (i & 1) {
            requests[i].count = 2;
            requests[i].segments = segments[i];
        }
        batch[i] = &requests[i];
    }
}

static bool check_data(struct vblk_queue *q, uint64_t *data, unsigned round)
{
    enum { WORDS = BLOCK / 8 };

    for (unsigned i = 0; i < DEPTH * WORDS; i++)
        data[i] = mark(i / WORDS, i % WORDS, round);
    lay_out(VBLK_OP_WRITE, data, 1024);
    if (!finish(q, DEPTH))
        return false;
    memset(data, 0, DEPTH * BLOCK);
    lay_out(VBLK_OP_READ, data, 1024);
    if (!finish(q, DEPTH))
        return false;
    for (unsigned i = 0; i < DEPTH * WORDS; i++)
        if (data[i] != mark(i / WORDS, i % WORDS, round))
            return complain("data differs at word", i);
    return true;
}

static bool check_ranges(struct vblk_queue *q, const struct vblk_info *info, uint64_t *data)
{
    struct vblk_range range = {.sector = 0, .sectors = SECTORS};

    if (info->features & VBLK_BIT(VBLK_F_DISCARD) &&
        !one(q, (struct vblk_request){.op = VBLK_OP_DISCARD, .count = 1, .ranges = &range}))
        return false;
    if (!(info->features & VBLK_BIT(VBLK_F_WRITE_ZEROES)))
        return true;
    if (!one(q, (struct vblk_request){.op = VBLK_OP_WRITE_ZEROES, .count = 1, .ranges = &range}) ||
        !one(q, (struct vblk_request){.op = VBLK_OP_READ, .count = 1, .segment = {data, BLOCK}}))
        return false;
    for (unsigned i = 0; i < BLOCK / 8; i++)
        if (data[i])
            return complain("zeroes differ at word", i);
    return true;
}

static bool exercise(struct vblk_device *dev)
{
    uint64_t *data = bare_alloc(DEPTH * BLOCK, BLOCK);
    struct vblk_info info;
    int rc = 0;

    qz_vblk_get_info(dev, &info);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct vblk_queue *q = qz_vblk_queue(dev, round % info.queues);

        if (!check_data(q, data, round))
            return false;
        if (round == ROUNDS / 3 && info.features & VBLK_BIT(VBLK_F_RING_RESET))
            rc = qz_vblk_queue_recover(q);
        else if (round == ROUNDS / 2)
            rc = qz_vblk_recover(dev);
        if (rc < 0 && rc != -VBLK_ENOTSUP)
            return complain("reset", rc);
    }
    if (info.features & VBLK_BIT(VBLK_F_CONFIG_WCE) &&
        (qz_vblk_set_writeback(dev, false) < 0 || qz_vblk_set_writeback(dev, true) < 0))
        return complain("writeback", 0);
    return check_ranges(qz_vblk_queue(dev, 0), &info, data) &&
           (!(info.features & VBLK_BIT(VBLK_F_FLUSH)) ||
            one(qz_vblk_queue(dev, 0), (struct vblk_request){.op = VBLK_OP_FLUSH})) &&
           one(qz_vblk_queue(dev, 0), (struct vblk_request){.op = VBLK_OP_GET_ID,
                                                            .count = 1,
                                                            .segment = {data, VBLK_ID_BYTES}});
}

/* An interrupt that waits in the device's status: vectors are not used here. */
static bool notified(struct conform *c)
{
    return c->dev->transport->ops->interrupt_status(c->dev->transport) & 1;
}

/* What VirtIO demands of the device: whoever started us knows which deviations it has. */
static void conforms(struct vblk_device *dev)
{
    struct conform c = {.dev = dev, .data = bare_alloc(CONFORM_DATA, BLOCK), .notified = notified};
    unsigned counts[CONFORM_RESULTS] = {0};

    for (unsigned i = 0; i < conform_demand_count; i++) {
        enum conform_result r = conform_run(&c, &conform_demands[i]);

        counts[r]++;
        if (r != CONFORM_FAILED)
            continue;
        bare_print("DEVIATES ");
        bare_print(conform_demands[i].section);
        bare_print(" ");
        bare_print(conform_demands[i].text);
        bare_print(": ");
        bare_print(c.why);
        bare_print("\n");
    }
    bare_print("demands passed ");
    bare_print_number(counts[CONFORM_PASSED]);
    bare_print(" failed ");
    bare_print_number(counts[CONFORM_FAILED]);
    bare_print(" not applicable ");
    bare_print_number(counts[CONFORM_SKIPPED]);
    bare_print(" without check ");
    bare_print_number(counts[CONFORM_UNCHECKED]);
    bare_print("\n");
}

static void describe(const struct vblk_transport *t, struct vblk_device *dev)
{
    struct vblk_info info;

    qz_vblk_get_info(dev, &info);
    bare_print("OK ");
    bare_print(t->ops->name);
    bare_print(info.features & VBLK_BIT(VBLK_F_RING_PACKED) ? " packed" : " split");
    if (info.features & VBLK_BIT(VBLK_F_INDIRECT_DESC))
        bare_print(" indirect");
    if (info.features & VBLK_BIT(VBLK_F_EVENT_IDX))
        bare_print(" event-idx");
    if (info.features & VBLK_BIT(VBLK_F_IN_ORDER))
        bare_print(" in-order");
    if (info.features & VBLK_BIT(VBLK_F_RING_RESET))
        bare_print(" ring-reset");
    if (info.features & VBLK_BIT(VBLK_F_NOTIFICATION_DATA))
        bare_print(" notification-data");
    bare_print(" queues ");
    bare_print_number(info.queues);
    bare_print(" depth ");
    bare_print_number(info.depth);
    bare_print("\n");
}

/* The same device in several ways: as it offers itself, and without what is optional. */
static bool drive(struct vblk_transport *t)
{
    static const uint64_t off[] = {0, VBLK_BIT(VBLK_F_INDIRECT_DESC), VBLK_BIT(VBLK_F_EVENT_IDX),
                                   VBLK_BIT(VBLK_F_EVENT_IDX) | VBLK_BIT(VBLK_F_INDIRECT_DESC) |
                                       VBLK_BIT(VBLK_F_RING_PACKED)};

    for (unsigned i = 0; i < sizeof(off) / sizeof(off[0]); i++) {
        struct vblk_device *dev;
        struct vblk_config c;
        size_t size;
        int rc;

        bare_alloc_reset();
        qz_vblk_config_default(&c);
        c.queue_count = QUEUES;
        c.segments_max = 8;
        c.features_off = off[i];
        size = qz_vblk_memory_size(&c);
        rc = qz_vblk_create(bare_alloc(size, 64), size, t, &c, &dev);
        if (rc == 0)
            rc = qz_vblk_start(dev);
        if (rc < 0)
            return complain("start", rc);
        if (!dev->info.read_only && !exercise(dev))
            return false;
        conforms(dev);
        describe(t, dev);
        qz_vblk_stop(dev);
    }
    return true;
}

/* Works on data, and does what virtioctl says, until the device is removed. Returns only when
 * something went wrong. */
static bool be_steered(struct vblk_transport *t)
{
    struct vblk_device *dev;
    struct vblk_config c;
    uint64_t *data;
    size_t size;
    int rc;

    qz_vblk_config_default(&c);
    c.queue_count = QUEUES;
    c.segments_max = 8;
    c.latency = true;
    size = qz_vblk_memory_size(&c);
    data = bare_alloc(DEPTH * BLOCK, BLOCK);
    rc = qz_vblk_create(bare_alloc(size, 64), size, t, &c, &dev);
    if (rc == 0)
        rc = qz_vblk_start(dev);
    if (rc < 0)
        return complain("start", rc);
    steer_begin(dev, &bare_platform);
    for (unsigned round = 0; !steer_step(); round++)
        if (!check_data(qz_vblk_queue(dev, round % dev->info.queues), data, round))
            return false;
    bare_print("OK removed\n");
    for (;;) /* the answer is still to be fetched: the machine is stopped from outside */
        __asm__ volatile("hlt");
}

int main(void)
{
    bool steered = bare_word("steer");
    static struct vblk_mmio mmio;
    static struct vblk_pci pci;
    unsigned found = 0;

    for (uint32_t f = 0; f < PCI_FUNCTIONS; f++) {
        if (bare_platform.pci_read(NULL, f, 0, 2) == 0xffff ||
            qz_vblk_pci_init(&pci, &bare_platform, f) < 0)
            continue;
        found++;
        if (!(steered ? be_steered(&pci.t) : drive(&pci.t)))
            return 1;
    }
    for (unsigned i = 0; found == 0 && i < MMIO_SLOTS; i++) {
        if (qz_vblk_mmio_init(&mmio, &bare_platform, MMIO_BASE + i * MMIO_STRIDE) < 0)
            continue;
        found++;
        if (!drive(&mmio.t))
            return 1;
    }
    return found ? 0 : complain("devices found", 0) || 1;
}

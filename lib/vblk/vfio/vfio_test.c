/*
 * vfio_test.c - the driver on a function that VFIO gave to this process: data written and verified
 * on every queue, by polling and by interrupts, over resets; split and packed.
 *
 *     vblk_vfio_test ADDRESS          such as 0000:00:05.0, bound to vfio-pci. Writes to the
 * device.
 */
#include <queztl/vblk_vfio.h>

#include <poll.h>

enum { DEPTH = 64, BLOCK = 4096, QUEUES = 2, ROUNDS = 8, LIMIT_MS = 20000 };

struct rig {
    struct vblk_vfio *v;
    struct vblk_pci pci;
    struct vblk_device *dev;
    void *memory;
    uint64_t *data;
    unsigned events; /* interrupts that told of a queue */
    bool interrupts;
};

static int bad(const char *what, int rc)
{
    fprintf(stderr, "FAILED: %s: %d\n", what, rc);
    return -1;
}

static void on_event(void *arg, unsigned queue)
{
    struct rig *r = arg;

    r->events += queue != VBLK_CONFIG_CHANGED;
}

/* Until something may have ended: an interrupt, or, polling, at once. */
static int wait_for(struct rig *r, unsigned queue)
{
    struct pollfd p = {.fd = qz_vblk_vfio_event_fd(r->v, 1 + queue), .events = POLLIN};
    uint64_t wait_ns;

    if (!r->interrupts || qz_vblk_arm(qz_vblk_queue(r->dev, queue), &wait_ns))
        return 0;
    if (poll(&p, 1, wait_ns ? (int)(wait_ns / 1000000) + 1 : LIMIT_MS) < 1 && !wait_ns)
        return bad("no interrupt came", 0);
    qz_vblk_vfio_dispatch(r->v);
    return 0;
}

static int batch(struct rig *r, unsigned queue, uint32_t op, struct vblk_request *requests)
{
    int64_t until = qz_now_ns() + LIMIT_MS * INT64_C(1000000);
    struct vblk_request *list[DEPTH], *done[DEPTH];
    struct vblk_queue *q = qz_vblk_queue(r->dev, queue);
    unsigned ended = 0;

    for (unsigned i = 0; i < DEPTH; i++) {
        requests[i] = (struct vblk_request){
            .op = op,
            .count = 1,
            .sector = (uint64_t)(queue * DEPTH + i) * (BLOCK / VBLK_SECTOR_SIZE),
            .segment = {(uint8_t *)r->data + (size_t)i * BLOCK, BLOCK}};
        list[i] = &requests[i];
    }
    if (qz_vblk_submit(q, list, DEPTH) != DEPTH)
        return bad("submit", list[0]->status);
    while (ended < DEPTH) {
        int n = qz_vblk_poll(q, done, DEPTH);

        for (int i = 0; i < n; i++)
            if (done[i]->status)
                return bad("a request failed", done[i]->status);
        if (n < 0 || qz_now_ns() > until)
            return bad("poll", n);
        ended += (unsigned)n;
        if (n == 0 && wait_for(r, queue) < 0)
            return -1;
    }
    return 0;
}

static int verify(struct rig *r, unsigned queue, unsigned round)
{
    static struct vblk_request requests[DEPTH];
    const unsigned words = DEPTH * BLOCK / 8;

    for (unsigned i = 0; i < words; i++)
        r->data[i] = (uint64_t)round << 48 ^ (uint64_t)queue << 32 ^ i;
    if (batch(r, queue, VBLK_OP_WRITE, requests) < 0)
        return -1;
    memset(r->data, 0xa5, words * sizeof(*r->data));
    if (batch(r, queue, VBLK_OP_READ, requests) < 0)
        return -1;
    for (unsigned i = 0; i < words; i++)
        if (r->data[i] != ((uint64_t)round << 48 ^ (uint64_t)queue << 32 ^ i))
            return bad("data differs at word", (int)i);
    return 0;
}

/* Asked for while nothing is in flight, an interrupt has to come: in the rounds requests may all
 * have ended whenever somebody looks. */
static int expect_interrupt(struct rig *r)
{
    struct pollfd p = {.fd = qz_vblk_vfio_event_fd(r->v, 1), .events = POLLIN};
    struct vblk_request request = {
        .op = VBLK_OP_READ, .count = 1, .segment = {(uint8_t *)r->data, BLOCK}};
    struct vblk_request *list[1] = {&request};
    struct vblk_queue *q = qz_vblk_queue(r->dev, 0);
    const unsigned before = r->events;
    uint64_t wait_ns;

    qz_vblk_vfio_dispatch(r->v); /* what is left of the rounds */
    if (qz_vblk_arm(q, &wait_ns))
        return bad("something ended that nobody submitted", 0);
    if (qz_vblk_submit(q, list, 1) != 1)
        return bad("submit", request.status);
    if (poll(&p, 1, LIMIT_MS) < 1)
        return bad("no interrupt came", 0);
    qz_vblk_vfio_dispatch(r->v);
    if (qz_vblk_poll(q, list, 1) != 1 || request.status)
        return bad("an interrupt came before what it tells of", request.status);
    return r->events > before ? 0 : bad("no interrupt told of a queue", 0);
}

static int run(struct rig *r, uint64_t off)
{
    struct vblk_config c;
    struct vblk_info info;
    size_t size;
    int rc;

    qz_vblk_config_default(&c);
    c.queue_count = QUEUES;
    c.features_off = off;
    c.interrupts = r->interrupts;
    c.event = on_event;
    c.event_arg = r;
    size = qz_vblk_memory_size(&c);
    r->events = 0;
    r->memory = aligned_alloc(64, QZ_ALIGN_UP(size, 64ul));
    rc = qz_vblk_create(r->memory, size, &r->pci.t, &c, &r->dev);
    if (rc == 0)
        rc = qz_vblk_start(r->dev);
    if (rc < 0)
        return bad("start", rc);
    for (unsigned round = 0; rc == 0 && round < ROUNDS; round++) {
        qz_vblk_get_info(r->dev, &info);
        rc = verify(r, round % info.queues, round);
        if (rc == 0 && round == ROUNDS / 2)
            rc = qz_vblk_recover(r->dev);
    }
    if (rc == 0 && r->interrupts)
        rc = expect_interrupt(r);
    if (rc == 0)
        printf("OK %s %s, %u queues, %u interrupts\n",
               info.features & VBLK_BIT(VBLK_F_RING_PACKED) ? "packed" : "split",
               r->interrupts ? "interrupts" : "polling", info.queues, r->events);
    qz_vblk_stop(r->dev);
    free(r->memory);
    return rc;
}

int main(int argc, char **argv)
{
    struct qz_error err = {0};
    struct rig r = {0};
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: %s ADDRESS\n", argv[0]);
        return 2;
    }
    if (qz_vblk_vfio_open(argv[1], 8 << 20, &r.v, &err) < 0) {
        fprintf(stderr, "FAILED: %s\n", err.text);
        return 1;
    }
    rc = qz_vblk_pci_init(&r.pci, qz_vblk_vfio_platform(r.v), 0);
    if (rc < 0)
        bad("no virtio block device", rc);
    r.data = qz_vblk_vfio_alloc(r.v, DEPTH * BLOCK, BLOCK);
    for (unsigned way = 0; rc == 0 && way < 4; way++) {
        r.interrupts = way & 1;
        rc = run(&r, way & 2 ? VBLK_BIT(VBLK_F_RING_PACKED) : 0);
    }
    qz_vblk_vfio_close(r.v);
    return rc < 0;
}

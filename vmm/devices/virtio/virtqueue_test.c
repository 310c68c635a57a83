/*
 * virtqueue_test.c - the ring walker against rings written by hand: what is right works, and each
 * thing a driver can get wrong breaks the queue, and only that.
 */
#include "devices/virtio/virtqueue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <linux/virtio_ring.h>

#include "devices/virtio/virtio.h"

enum {
    RAM = 64 << 20,
    DESC = 0x1000,
    DRIVER = 0x5000,
    DEVICE = 0x6000,
    TABLE = 0x8000,
    DATA = 0x10000,
    SEGMENTS = 128,
    A = 1 << VRING_PACKED_DESC_F_AVAIL,
    U = 1 << VRING_PACKED_DESC_F_USED,
    W = VRING_DESC_F_WRITE,
    N = VRING_DESC_F_NEXT,
    I = VRING_DESC_F_INDIRECT,
};
#define EVENT_IDX QZ_BIT(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define PACKED    QZ_BIT(VIRTIO_F_RING_PACKED)

struct fixture {
    struct guest_memory memory;
    struct virtio_device d;
    struct machine machine; /* without an accelerator */
    struct virtqueue vq;
    struct iovec iov[SEGMENTS];
    struct virtqueue_chain c;
    unsigned interrupts, failures;
    uint16_t vector;
};

static void on_interrupt(struct virtio_device *d, uint16_t vector)
{
    struct fixture *f = QZ_CONTAINER_OF(d, struct fixture, d);

    f->interrupts++;
    f->vector = vector;
}

static void on_status(struct virtio_device *d)
{
    QZ_CONTAINER_OF(d, struct fixture, d)->failures++;
}

static const struct virtio_transport_ops transport = {.queue_interrupt = on_interrupt,
                                                      .status_changed = on_status};
static const struct virtio_device_ops device = {.name = "virtqueue-test"};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    qz_log_set_level(QZ_LOG_ERROR);
    f->memory = (struct guest_memory){
        .fd = -1, .size = RAM, .low_size = RAM, .low = aligned_alloc(4096, RAM)};
    memset(f->memory.low, 0, DATA + 0x10000);
    f->d.ops = &device;
    f->d.machine = &f->machine;
    f->d.transport = &transport;
    f->vq = (struct virtqueue){.device = &f->d, .memory = &f->memory, .index = 3, .msix_vector = 4};
    f->c = (struct virtqueue_chain){.iov = f->iov, .capacity = SEGMENTS};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    virtqueue_stop(&f->vq);
    free(f->memory.low);
    free(f);
    return 0;
}

/* A fresh queue with cleared rings. */
static void start(struct fixture *f, uint16_t size, uint64_t features)
{
    memset(f->memory.low, 0, DATA);
    f->d.status = 0;
    f->interrupts = f->failures = 0;
    virtqueue_stop(&f->vq);
    f->vq.size = size;
    f->vq.enabled = true;
    f->vq.desc = gpa(DESC);
    f->vq.driver = gpa(DRIVER);
    f->vq.device_area = gpa(DEVICE);
    assert_int_equal(virtqueue_start(&f->vq, features, NULL), 0);
}

static uint8_t *at(struct fixture *f, uint64_t a)
{
    return f->memory.low + a;
}

static void split_desc(struct fixture *f, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
                       uint16_t flags, uint16_t next)
{
    uint8_t *p = at(f, table + i * 16);

    qz_store_le64(p, addr);
    qz_store_le32(p + 8, len);
    qz_store_le16(p + 12, flags);
    qz_store_le16(p + 14, next);
}

static void packed_desc(struct fixture *f, uint64_t table, unsigned i, uint64_t addr, uint32_t len,
                        uint16_t id, uint16_t flags)
{
    split_desc(f, table, i, addr, len, id, flags);
}

/* Makes a head available. */
static void avail(struct fixture *f, uint16_t head)
{
    uint16_t idx = qz_load_le16(at(f, DRIVER + 2));

    qz_store_le16(at(f, DRIVER + 4 + 2 * (idx % f->vq.size)), head);
    qz_store_le16(at(f, DRIVER + 2), idx + 1);
}

static void assert_broken(struct fixture *f)
{
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_true(f->vq.broken);
    assert_true(f->d.status & VIRTIO_CONFIG_S_NEEDS_RESET);
    assert_int_equal(f->failures, 1);
    /* And it stays so, without more noise. */
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_int_equal(f->failures, 1);
    assert_false(virtqueue_notify_enable(&f->vq));
}

static void test_start_checks(void **state)
{
    struct fixture *f = *state;
    struct virtqueue *vq = &f->vq;
    struct qz_error err;
    static const struct {
        uint16_t size;
        uint64_t desc, driver, device, features;
        const char *what;
    } bad[] = {
        {0, DESC, DRIVER, DEVICE, 0, "size"},
        {3, DESC, DRIVER, DEVICE, 0, "size"},
        {2048, DESC, DRIVER, DEVICE, 0, "size"},
        {1025, DESC, DRIVER, DEVICE, PACKED, "size"},
        {8, DESC + 8, DRIVER, DEVICE, 0, "aligned"},
        {8, DESC, DRIVER + 1, DEVICE, 0, "aligned"},
        {8, DESC, DRIVER, DEVICE + 2, 0, "aligned"},
        {8, DESC, DRIVER + 2, DEVICE, PACKED, "aligned"},
        {8, RAM - 112, DRIVER, DEVICE, 0, "not in memory"},
        {8, DESC, RAM - 20, DEVICE, 0, "not in memory"},
        {8, DESC, DRIVER, RAM - 68, 0, "not in memory"},
        {8, DESC, DRIVER, RAM, PACKED, "not in memory"},
        {8, UINT64_MAX - 15, DRIVER, DEVICE, 0, "not in memory"},
        {8, 1ull << 63, DRIVER, DEVICE, PACKED, "not in memory"},
    };

    for (unsigned i = 0; i < QZ_ARRAY_LEN(bad); i++) {
        vq->size = bad[i].size;
        vq->desc = gpa(bad[i].desc);
        vq->driver = gpa(bad[i].driver);
        vq->device_area = gpa(bad[i].device);
        assert_int_equal(virtqueue_start(vq, bad[i].features, &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i].what));
        assert_int_equal(virtqueue_pop(vq, &f->c), 0); /* not started: empty */
    }
    /* Exactly at the end of memory is inside. */
    vq->size = 8;
    vq->desc = gpa(RAM - 128);
    vq->driver = gpa(RAM - 22 - 2);
    vq->device_area = gpa(RAM - 72);
    assert_int_equal(virtqueue_start(vq, 0, &err), 0);
    /* A packed ring may have any size. */
    virtqueue_stop(vq);
    vq->size = 7;
    assert_int_equal(virtqueue_start(vq, PACKED, &err), 0);
}

static void test_split_basic(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[64], want[64];

    start(f, 8, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    for (unsigned i = 0; i < 64; i++)
        want[i] = f->memory.low[DATA + i] = (uint8_t)i;
    memset(at(f, DATA + 0x100), 0, 64);
    split_desc(f, DESC, 5, DATA, 24, N, 2);
    split_desc(f, DESC, 2, DATA + 24, 40, N, 7);
    split_desc(f, DESC, 7, DATA + 0x100, 16, N | W, 0);
    split_desc(f, DESC, 0, DATA + 0x110, 48, W, 0);
    avail(f, 5);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(f->c.out_count, 2);
    assert_int_equal(f->c.in_count, 2);
    assert_int_equal(f->c.out_bytes, 64);
    assert_int_equal(f->c.in_bytes, 64);
    assert_int_equal(f->c.id, 5);
    assert_int_equal(f->vq.in_flight, 1);
    assert_int_equal(virtqueue_read(&f->c, 0, buf, 100), 64);
    assert_memory_equal(buf, want, 64);
    assert_int_equal(virtqueue_read(&f->c, 20, buf, 8), 8);
    assert_memory_equal(buf, want + 20, 8);
    assert_int_equal(virtqueue_read(&f->c, 64, buf, 8), 0);
    assert_int_equal(virtqueue_read(&f->c, UINT64_MAX, buf, 8), 0);
    assert_int_equal(virtqueue_write(&f->c, 10, want, 64), 54);
    assert_memory_equal(at(f, DATA + 0x10a), want, 54);
    virtqueue_push(&f->vq, &f->c, 64);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_int_equal(qz_load_le16(at(f, DEVICE + 2)), 1);
    assert_int_equal(qz_load_le32(at(f, DEVICE + 4)), 5);
    assert_int_equal(qz_load_le32(at(f, DEVICE + 8)), 64);
    assert_int_equal(f->interrupts, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 1);
    assert_int_equal(f->vector, 4);
    virtqueue_interrupt(&f->vq); /* nothing new */
    assert_int_equal(f->interrupts, 1);
    assert_false(f->vq.broken);
}

/* The free-running indices wrap at 65536, and unpop undoes a pop in every place. */
static void test_split_wrap_and_unpop(void **state)
{
    struct fixture *f = *state;

    start(f, 4, EVENT_IDX);
    for (unsigned i = 0; i < 70000; i++) {
        split_desc(f, DESC, i % 4, DATA, 8, W, 0);
        avail(f, i % 4);
        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
        assert_int_equal(f->c.id, i % 4);
        virtqueue_unpop(&f->vq, &f->c);
        assert_int_equal(f->vq.in_flight, 0);
        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
        assert_int_equal(f->c.id, i % 4);
        virtqueue_push(&f->vq, &f->c, i);
        assert_int_equal(qz_load_le32(at(f, DEVICE + 4 + 8 * (i % 4) + 4)),
                         QZ_MIN(i, 8u));                   /* never more than there was */
        qz_store_le16(at(f, DRIVER + 4 + 8), (uint16_t)i); /* used_event: this one */
        virtqueue_interrupt(&f->vq);
        assert_int_equal(f->interrupts, i + 1);
    }
}

static void test_split_indirect(void **state)
{
    struct fixture *f = *state;

    start(f, 8, INDIRECT);
    /* One normal descriptor, then the table; its own next fields, in a scrambled order. */
    split_desc(f, DESC, 0, DATA, 4, N, 1);
    split_desc(f, DESC, 1, TABLE + 4, 3 * 16, I, 0); /* tables have no alignment */
    split_desc(f, TABLE + 4, 0, DATA + 8, 8, N, 2);
    split_desc(f, TABLE + 4, 2, DATA + 16, 16, N | W, 1);
    split_desc(f, TABLE + 4, 1, DATA + 64, 32, W, 0);
    avail(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(f->c.out_count, 2);
    assert_int_equal(f->c.in_count, 2);
    assert_int_equal(f->c.out_bytes, 12);
    assert_int_equal(f->c.in_bytes, 48);
    assert_ptr_equal(f->iov[3].iov_base, at(f, DATA + 64));
}

static void test_split_refusals(void **state)
{
    struct fixture *f = *state;

    start(f, 8, INDIRECT);                 /* more available than the ring has */
    split_desc(f, DESC, 0, DATA, 8, 0, 0); /* which would be fine by itself */
    qz_store_le16(at(f, DRIVER + 2), 9);
    assert_broken(f);

    start(f, 8, INDIRECT); /* index runs backwards */
    split_desc(f, DESC, 0, DATA, 8, 0, 0);
    qz_store_le16(at(f, DRIVER + 2), 0xffff);
    assert_broken(f);

    start(f, 8, INDIRECT);
    avail(f, 8);
    assert_broken(f);

    start(f, 8, INDIRECT); /* next outside */
    split_desc(f, DESC, 0, DATA, 8, N, 8);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* itself, and a ring of three */
    split_desc(f, DESC, 0, DATA, 8, N, 0);
    avail(f, 0);
    assert_broken(f);
    start(f, 8, INDIRECT);
    split_desc(f, DESC, 0, DATA, 8, N, 1);
    split_desc(f, DESC, 1, DATA, 8, N, 2);
    split_desc(f, DESC, 2, DATA, 8, N, 1);
    avail(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_true(f->c.out_count <= 8); /* noticed by the number of steps, long before capacity */
    assert_broken(f);

    start(f, 8, INDIRECT); /* loop inside a table */
    split_desc(f, DESC, 0, TABLE, 32, I, 0);
    split_desc(f, TABLE, 0, DATA, 8, N, 1);
    split_desc(f, TABLE, 1, DATA, 8, N, 0);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* next outside the table, though inside the ring */
    split_desc(f, DESC, 0, TABLE, 32, I, 0);
    split_desc(f, TABLE, 0, DATA, 8, N, 2);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, 0); /* not negotiated */
    split_desc(f, DESC, 0, TABLE, 16, I, 0);
    split_desc(f, TABLE, 0, DATA, 8, 0, 0);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* nested */
    split_desc(f, DESC, 0, TABLE, 16, I, 0);
    split_desc(f, TABLE, 0, TABLE, 16, I, 0);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* indirect and next */
    split_desc(f, DESC, 0, TABLE, 16, I | N, 1);
    split_desc(f, DESC, 1, DATA, 8, 0, 0);
    split_desc(f, TABLE, 0, DATA, 8, 0, 0);
    avail(f, 0);
    assert_broken(f);

    static const uint32_t lengths[] = {0, 8, 17, 0xffffffff, 0xfffffff0};
    for (unsigned i = 0; i < QZ_ARRAY_LEN(lengths); i++) {
        start(f, 8, INDIRECT);
        split_desc(f, DESC, 0, TABLE, lengths[i], I, 0);
        avail(f, 0);
        assert_broken(f);
    }
    start(f, 8, INDIRECT); /* table half outside */
    split_desc(f, DESC, 0, RAM - 16, 32, I, 0);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* readable after writable */
    split_desc(f, DESC, 0, DATA, 8, N | W, 1);
    split_desc(f, DESC, 1, DATA, 8, 0, 0);
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* empty */
    split_desc(f, DESC, 0, DATA, 0, W, 0);
    avail(f, 0);
    assert_broken(f);

    static const struct {
        uint64_t addr;
        uint32_t len;
    } outside[] = {{RAM - 7, 8},        {RAM, 1},        {UINT64_MAX, 2},
                   {UINT64_MAX - 3, 8}, {0, UINT32_MAX}, {0xfee00000, 4}};
    for (unsigned i = 0; i < QZ_ARRAY_LEN(outside); i++) {
        start(f, 8, INDIRECT);
        split_desc(f, DESC, 0, outside[i].addr, outside[i].len, W, 0);
        avail(f, 0);
        assert_broken(f);
    }

    start(f, 8, INDIRECT); /* more than the device takes */
    for (unsigned i = 0; i < 4; i++)
        split_desc(f, DESC, i, DATA, 8, i < 3 ? N : 0, (uint16_t)(i + 1));
    avail(f, 0);
    f->c.capacity = 3;
    assert_broken(f);
    f->c.capacity = 4;
    start(f, 8, INDIRECT);
    for (unsigned i = 0; i < 4; i++)
        split_desc(f, DESC, i, DATA, 8, i < 3 ? N : 0, (uint16_t)(i + 1));
    avail(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    f->c.capacity = SEGMENTS;

    start(f, 128, INDIRECT); /* 4 GiB in one request, by naming the same memory again and again */
    for (unsigned i = 0; i < 64; i++)
        split_desc(f, DESC, i, 0, RAM, W | (i < 63 ? N : 0), (uint16_t)(i + 1));
    avail(f, 0);
    assert_broken(f);

    start(f, 8, INDIRECT); /* the same head twice before it was used */
    split_desc(f, DESC, 6, DATA, 8, 0, 0);
    avail(f, 6);
    avail(f, 6);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_broken(f);
}

/* A device's own mistake does not reach the ring either. */
static void test_push_of_nothing(void **state)
{
    struct fixture *f = *state;

    for (unsigned packed = 0; packed < 2; packed++) {
        start(f, 8, packed ? PACKED : 0);
        f->c.id = packed ? 0xffff : 0x4321;
        f->c.descriptors = 3;
        virtqueue_push(&f->vq, &f->c, 8);
        assert_true(f->vq.broken);
        assert_int_equal(qz_load_le16(at(f, DEVICE + 2)), 0);
        for (unsigned i = 0; i < 8 * 16; i++)
            assert_int_equal(at(f, DESC)[i], 0);
        virtqueue_interrupt(&f->vq);
        assert_int_equal(f->interrupts, 0);
    }
    virtqueue_stop(&f->vq); /* and after a stop */
    virtqueue_push(&f->vq, &f->c, 8);
    virtqueue_unpop(&f->vq, &f->c);
    virtqueue_interrupt(&f->vq);
    virtqueue_notify_disable(&f->vq);
    assert_false(virtqueue_notify_enable(&f->vq));
}

static void test_split_events(void **state)
{
    struct fixture *f = *state;

    start(f, 8, EVENT_IDX);
    for (unsigned i = 0; i < 8; i++)
        split_desc(f, DESC, i, DATA, 8, 0, 0);
    for (uint16_t i = 0; i < 4; i++)
        avail(f, i);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(qz_load_le16(at(f, DEVICE + 4 + 64)), 0); /* not while buffers keep coming */
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_int_equal(qz_load_le16(at(f, DEVICE + 4 + 64)), 4); /* avail_event: the next one */
    virtqueue_notify_disable(&f->vq);
    avail(f, 4);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_int_equal(qz_load_le16(at(f, DEVICE + 4 + 64)), 4); /* does not want to know */
    avail(f, 5);
    assert_true(virtqueue_notify_enable(&f->vq)); /* one came in between */
    assert_int_equal(qz_load_le16(at(f, DEVICE + 4 + 64)), 5);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    /* Interrupts: used_event 2 means the third. */
    qz_store_le16(at(f, DRIVER + 4 + 16), 2);
    for (uint16_t i = 0; i < 5; i++) {
        f->c.id = i;
        virtqueue_push(&f->vq, &f->c, 0);
        virtqueue_interrupt(&f->vq);
        assert_int_equal(f->interrupts, i >= 2);
    }

    start(f, 8, 0); /* by flags */
    split_desc(f, DESC, 0, DATA, 8, 0, 0);
    virtqueue_notify_disable(&f->vq);
    assert_int_equal(qz_load_le16(at(f, DEVICE)), VRING_USED_F_NO_NOTIFY);
    assert_false(virtqueue_notify_enable(&f->vq));
    assert_int_equal(qz_load_le16(at(f, DEVICE)), 0);
    qz_store_le16(at(f, DRIVER), VRING_AVAIL_F_NO_INTERRUPT);
    avail(f, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 0);
}

static void test_packed_basic(void **state)
{
    struct fixture *f = *state;
    bool wrap = true;
    unsigned slot = 0;

    /* Two descriptors a time in a ring of five: every phase of the wrap, many rounds. */
    start(f, 5, PACKED);
    for (unsigned i = 0; i < 1000; i++) {
        unsigned first = slot, id = 100 + i % 3;
        uint16_t first_flags = wrap ? A : U, flags;
        bool used_wrap = wrap;

        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
        if (++slot == 5) {
            slot = 0;
            wrap = !wrap;
        }
        packed_desc(f, DESC, slot, DATA + 64, 32, (uint16_t)id, (uint16_t)((wrap ? A : U) | W));
        if (++slot == 5) {
            slot = 0;
            wrap = !wrap;
        }
        packed_desc(f, DESC, first, DATA, 16, 999, first_flags | N);
        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
        assert_int_equal(f->c.id, id);
        assert_int_equal(f->c.descriptors, 2);
        assert_int_equal(f->c.out_bytes, 16);
        assert_int_equal(f->c.in_bytes, 32);
        virtqueue_unpop(&f->vq, &f->c);
        assert_int_equal(f->vq.slots_in_flight, 0);
        assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
        assert_int_equal(f->c.id, id);
        assert_int_equal(f->vq.slots_in_flight, 2);
        virtqueue_push(&f->vq, &f->c, i & 1 ? 20 : 0);
        flags = qz_load_le16(at(f, DESC + first * 16 + 14));
        assert_int_equal(flags, (used_wrap ? A | U : 0) | (i & 1 ? W : 0));
        assert_int_equal(qz_load_le16(at(f, DESC + first * 16 + 12)), id);
        assert_int_equal(qz_load_le32(at(f, DESC + first * 16 + 8)), i & 1 ? 20 : 0);
        virtqueue_interrupt(&f->vq);
        assert_int_equal(f->interrupts, i + 1);
    }
}

static void test_packed_indirect(void **state)
{
    struct fixture *f = *state;

    start(f, 4, PACKED | INDIRECT);
    packed_desc(f, TABLE, 0, DATA, 8, 0, N); /* NEXT means nothing in a table */
    packed_desc(f, TABLE, 1, DATA + 8, 8, 0, 0);
    packed_desc(f, TABLE, 2, DATA + 16, 8, 0, W);
    packed_desc(f, DESC, 0, TABLE, 48, 77, A | I);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(f->c.out_count, 2);
    assert_int_equal(f->c.in_count, 1);
    assert_int_equal(f->c.id, 77);
    assert_int_equal(f->c.descriptors, 1);
}

static void test_packed_refusals(void **state)
{
    struct fixture *f = *state;

    start(f, 4, PACKED | INDIRECT); /* a chain as long as the ring, without an end */
    for (unsigned i = 0; i < 4; i++)
        packed_desc(f, DESC, i, DATA, 8, 0, A | N);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT); /* an id that is in flight */
    packed_desc(f, DESC, 0, DATA, 8, 9, A);
    packed_desc(f, DESC, 1, DATA, 8, 9, A);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_broken(f);

    start(f, 2, PACKED); /* round again into slots that were not given back */
    packed_desc(f, DESC, 0, DATA, 8, 0, A);
    packed_desc(f, DESC, 1, DATA, 8, 1, A);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    packed_desc(f, DESC, 0, DATA, 8, 2, U);
    assert_broken(f);

    start(f, 4, PACKED); /* not negotiated */
    packed_desc(f, DESC, 0, TABLE, 16, 0, A | I);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT); /* indirect and next */
    packed_desc(f, DESC, 0, TABLE, 16, 0, A | I | N);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT); /* indirect inside a chain */
    packed_desc(f, DESC, 1, TABLE, 16, 0, A | I);
    packed_desc(f, DESC, 0, DATA, 8, 0, A | N);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT); /* nested */
    packed_desc(f, TABLE, 0, TABLE, 16, 0, I);
    packed_desc(f, DESC, 0, TABLE, 16, 0, A | I);
    assert_broken(f);

    start(f, 4,
          PACKED | INDIRECT); /* a table of a million, most of it beyond what the device takes */
    packed_desc(f, DESC, 0, DATA, 16 << 20, 0, A | I);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT);
    packed_desc(f, DESC, 1, DATA, 8, 0, A);
    packed_desc(f, DESC, 0, DATA, 8, 0, A | N | W);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT);
    packed_desc(f, DESC, 0, RAM - 4, 8, 0, A);
    assert_broken(f);

    start(f, 4, PACKED | INDIRECT);
    packed_desc(f, DESC, 0, DATA, 0, 0, A);
    assert_broken(f);
}

static void test_packed_events(void **state)
{
    struct fixture *f = *state;

    start(f, 4, PACKED | EVENT_IDX);
    assert_int_equal(qz_load_le32(at(f, DEVICE)), 0); /* ENABLE */
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 0);
    assert_int_equal(qz_load_le32(at(f, DEVICE)), VRING_PACKED_EVENT_FLAG_DESC << 16 | 0x8000 | 0);
    virtqueue_notify_disable(&f->vq);
    assert_int_equal(qz_load_le16(at(f, DEVICE + 2)), VRING_PACKED_EVENT_FLAG_DISABLE);
    for (uint16_t i = 0; i < 3; i++)
        packed_desc(f, DESC, i, DATA, 8, i, A);
    assert_true(virtqueue_notify_enable(&f->vq));
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    /* The driver wants to hear of slot 2 in this round. */
    qz_store_le16(at(f, DRIVER), 2 | 0x8000);
    qz_store_le16(at(f, DRIVER + 2), VRING_PACKED_EVENT_FLAG_DESC);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 0);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 1);
    /* And of slot 0 in the next: two more, over the end. */
    qz_store_le16(at(f, DRIVER), 0);
    packed_desc(f, DESC, 3, DATA, 8, 0, A);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 1);
    packed_desc(f, DESC, 0, DATA, 8, 0, U);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 2);
    /* Not at all. */
    qz_store_le16(at(f, DRIVER + 2), VRING_PACKED_EVENT_FLAG_DISABLE);
    packed_desc(f, DESC, 1, DATA, 8, 0, U);
    assert_int_equal(virtqueue_pop(&f->vq, &f->c), 1);
    virtqueue_push(&f->vq, &f->c, 0);
    virtqueue_interrupt(&f->vq);
    assert_int_equal(f->interrupts, 2);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_start_checks),    T(test_split_basic),    T(test_split_wrap_and_unpop),
        T(test_split_indirect),  T(test_split_refusals), T(test_push_of_nothing),
        T(test_split_events),    T(test_packed_basic),   T(test_packed_indirect),
        T(test_packed_refusals), T(test_packed_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

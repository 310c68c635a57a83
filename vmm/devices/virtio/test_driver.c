/*
 * test_driver.c - the driver of the in-process guest (test_driver.h): for virtio over PCI, written
 * from the driver's side of the specification (VirtIO 1.3 §2.7.13, §2.8.21, §3.1, §4.1), sharing no
 * code with the device side. It runs on the thread that also runs the device's loop, but keeps the
 * barriers a driver must have, because a device may serve its queues from elsewhere.
 */
#include "devices/virtio/test_driver_internal.h"

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

enum { DESC = 16, ARENA_SHARE = 4, Q_RESET = 58 };

/* ---- finding the device
 * --------------------------------------------------------------------------- */

static uint64_t bar_address(struct vtest *t, unsigned bar)
{
    unsigned reg = PCI_BASE_ADDRESS_0 + bar * 4;
    uint64_t a = vtest_config_read(t->tm, t->devfn, reg, 4);

    if ((a & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
        a |= (uint64_t)vtest_config_read(t->tm, t->devfn, reg + 4, 4) << 32;
    return a & ~15ull;
}

static void read_capabilities(struct vtest *t)
{
    unsigned at = vtest_config_read(t->tm, t->devfn, PCI_CAPABILITY_LIST, 1);

    for (unsigned n = 0; at && n < 48; n++) {
        unsigned id = vtest_config_read(t->tm, t->devfn, at, 1);

        if (id == PCI_CAP_ID_VNDR) {
            unsigned type = vtest_config_read(t->tm, t->devfn, at + VIRTIO_PCI_CAP_CFG_TYPE, 1);
            unsigned bar = vtest_config_read(t->tm, t->devfn, at + VIRTIO_PCI_CAP_BAR, 1);
            uint64_t address = bar < PCI_BARS ? bar_address(t, bar) +
                                                    vtest_config_read(t->tm, t->devfn,
                                                                      at + VIRTIO_PCI_CAP_OFFSET, 4)
                                              : 0;

            if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
                t->common = address;
            } else if (type == VIRTIO_PCI_CAP_ISR_CFG) {
                t->isr = address;
            } else if (type == VIRTIO_PCI_CAP_DEVICE_CFG) {
                t->device_config = address;
            } else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
                t->notify_base = address;
                t->notify_multiplier =
                    vtest_config_read(t->tm, t->devfn, at + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
            }
        }
        at = vtest_config_read(t->tm, t->devfn, at + PCI_CAP_LIST_NEXT, 1) & 0xfc;
    }
    if (!t->common || !t->isr || !t->device_config || !t->notify_base)
        vtest_die("device %02x: not all virtio capabilities found", t->devfn);
}

struct vtest *vtest_open_nth(struct vtest_machine *tm, uint16_t virtio_id, unsigned nth)
{
    struct vtest *t;
    unsigned devfn;

    for (devfn = 0; devfn < PCI_FUNCTIONS; devfn++)
        if (vtest_config_read(tm, devfn, PCI_VENDOR_ID, 4) ==
                (0x1af4 | (0x1040u + virtio_id) << 16) &&
            nth-- == 0)
            break;
    if (devfn == PCI_FUNCTIONS)
        return NULL;
    if (!(vtest_config_read(tm, devfn, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY))
        pci_assign_resources(tm->m.pci);
    t = vtest_need(calloc(1, sizeof(*t)));
    t->tm = tm;
    t->devfn = devfn;
    t->indirect = t->msix = true;
    read_capabilities(t);
    t->queue_count = (unsigned)vtest_common_read(t, VIRTIO_PCI_COMMON_NUMQ, 2);
    if (!t->queue_count || t->queue_count > VTEST_QUEUES_MAX)
        vtest_die("device %02x: %u queues", devfn, t->queue_count);
    t->q = vtest_need(calloc(t->queue_count, sizeof(*t->q)));
    for (unsigned q = 0; q < t->queue_count; q++) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        t->q[q].size = (uint16_t)vtest_common_read(t, VIRTIO_PCI_COMMON_Q_SIZE, 2);
        t->q[q].notify = t->notify_base +
                         t->notify_multiplier * vtest_common_read(t, VIRTIO_PCI_COMMON_Q_NOFF, 2);
    }
    t->arena = vtest_alloc(tm, tm->m.memory.low_size / ARENA_SHARE, 4096).v;
    t->arena_at = t->arena;
    t->arena_end = t->arena + tm->m.memory.low_size / ARENA_SHARE;
    if (vtest_reset(t) < 0)
        vtest_die("device %02x: reset does not end", devfn);
    vtest_set_status(t, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    vtest_set_status(t, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    for (unsigned half = 0; half < 2; half++) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_DFSELECT, 4, half);
        t->offered |= vtest_common_read(t, VIRTIO_PCI_COMMON_DF, 4) << 32 * half;
    }
    return t;
}

struct vtest *vtest_open(struct vtest_machine *tm, uint16_t virtio_id)
{
    return vtest_open_nth(tm, virtio_id, 0);
}

static void forget_queue(struct vtest *t, struct vtest_queue *q)
{
    for (unsigned i = 0; i < VIRTQUEUE_SIZE_MAX; i++) {
        free(q->slot[i].in);
        q->slot[i] = (struct vtest_slot){0};
    }
    free(q->free_list);
    q->free_list = NULL;
    t->in_flight -= q->in_flight;
    q->in_flight = 0;
    q->enabled = false;
}

static void forget_requests(struct vtest *t)
{
    for (unsigned q = 0; q < t->queue_count; q++)
        forget_queue(t, &t->q[q]);
    t->arena_at = t->arena;
}

void vtest_close(struct vtest *t)
{
    if (!t)
        return;
    if (vtest_reset(t) < 0)
        vtest_die("device %02x: reset does not end", t->devfn);
    free(t->q);
    free(t);
}

/* ---- registers
 * -------------------------------------------------------------------------------------- */

uint64_t vtest_common_read(struct vtest *t, unsigned offset, unsigned size)
{
    return vtest_mmio_read(t->tm, t->common + offset, size);
}

void vtest_common_write(struct vtest *t, unsigned offset, unsigned size, uint64_t value)
{
    vtest_mmio_write(t->tm, t->common + offset, size, value);
}

uint8_t vtest_status(struct vtest *t)
{
    return (uint8_t)vtest_common_read(t, VIRTIO_PCI_COMMON_STATUS, 1);
}

void vtest_set_status(struct vtest *t, uint8_t status)
{
    vtest_common_write(t, VIRTIO_PCI_COMMON_STATUS, 1, status);
}

void vtest_device_read(struct vtest *t, unsigned offset, void *buf, unsigned len)
{
    uint8_t *p = buf;

    for (unsigned n; len; offset += n, p += n, len -= n) {
        uint64_t v;

        n = len >= 4 && !(offset & 3) ? 4 : len >= 2 && !(offset & 1) ? 2 : 1;
        v = vtest_mmio_read(t->tm, t->device_config + offset, n);
        memcpy(p, &v, n);
    }
}

void vtest_device_write(struct vtest *t, unsigned offset, const void *buf, unsigned len)
{
    const uint8_t *p = buf;

    for (unsigned n; len; offset += n, p += n, len -= n) {
        uint64_t v = 0;

        n = len >= 4 && !(offset & 3) ? 4 : len >= 2 && !(offset & 1) ? 2 : 1;
        memcpy(&v, p, n);
        vtest_mmio_write(t->tm, t->device_config + offset, n, v);
    }
}

uint8_t vtest_isr(struct vtest *t)
{
    return (uint8_t)vtest_mmio_read(t->tm, t->isr, 1);
}

static bool status_is_zero(void *context)
{
    return vtest_status(context) == 0;
}

int vtest_reset(struct vtest *t)
{
    int r;

    vtest_set_status(t, 0);
    r = vtest_run_until(t->tm, status_is_zero, t);
    if (r == 0)
        forget_requests(t);
    return r;
}

/* ---- negotiation
 * -------------------------------------------------------------------------------------- */

int vtest_set_features(struct vtest *t, uint64_t features)
{
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    for (unsigned half = 0; half < 2; half++) {
        vtest_common_write(t, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
        vtest_common_write(t, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> 32 * half));
    }
    vtest_set_status(t, status); /* for a test that has just reset the device */
    vtest_set_status(t, status | VIRTIO_CONFIG_S_FEATURES_OK);
    if (!(vtest_status(t) & VIRTIO_CONFIG_S_FEATURES_OK))
        return -EINVAL;
    t->features = features;
    t->packed = features >> VIRTIO_F_RING_PACKED & 1;
    t->event_index = features >> VIRTIO_RING_F_EVENT_IDX & 1;
    return 0;
}

void vtest_setup_msix(struct vtest *t)
{
    unsigned at = vtest_config_read(t->tm, t->devfn, PCI_CAPABILITY_LIST, 1), n;
    uint32_t where;
    uint64_t table;

    for (n = 0; at && n < 48 && vtest_config_read(t->tm, t->devfn, at, 1) != PCI_CAP_ID_MSIX; n++)
        at = vtest_config_read(t->tm, t->devfn, at + PCI_CAP_LIST_NEXT, 1) & 0xfc;
    if (!at)
        vtest_die("device %02x: no MSI-X", t->devfn);
    where = vtest_config_read(t->tm, t->devfn, at + PCI_MSIX_TABLE, 4);
    table = bar_address(t, where & 7) + (where & ~7u);
    n = (vtest_config_read(t->tm, t->devfn, at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
    for (unsigned v = 0; v < n; v++) { /* to CPU 0; the vector number as data */
        vtest_mmio_write(t->tm, table + v * 16, 4, LAPIC_BASE);
        vtest_mmio_write(t->tm, table + v * 16 + 4, 4, 0);
        vtest_mmio_write(t->tm, table + v * 16 + 8, 4, v);
        vtest_mmio_write(t->tm, table + v * 16 + 12, 4, 0);
    }
    vtest_config_write(t->tm, t->devfn, at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    vtest_common_write(t, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    if (vtest_common_read(t, VIRTIO_PCI_COMMON_MSIX, 2) != 0)
        vtest_die("device %02x: configuration vector refused", t->devfn);
}

static void write64(struct vtest *t, unsigned offset, uint64_t value)
{
    vtest_common_write(t, offset, 4, (uint32_t)value); /* §4.1.3.1: two 32-bit writes */
    vtest_common_write(t, offset + 4, 4, value >> 32);
}

void vtest_setup_queue(struct vtest *t, unsigned i)
{
    struct vtest_queue *q = &t->q[i];
    uint16_t vector = t->msix ? (uint16_t)(i + 1) : VIRTIO_MSI_NO_VECTOR;

    q->desc = vtest_alloc(t->tm, (uint64_t)q->size * DESC, 16);
    q->driver = vtest_alloc(t->tm, t->packed ? 4 : 6 + 2ull * q->size, 4);
    q->device_area = vtest_alloc(t->tm, t->packed ? 4 : 6 + 8ull * q->size, 4);
    q->vector = vector;
    q->next_avail = q->last_used = q->kicked_at = q->added = 0;
    q->avail_wrap = q->used_wrap = true;
    q->num_free = q->size;
    q->in_flight = 0;
    free(q->free_list);
    q->free_list = vtest_need(calloc(q->size, sizeof(*q->free_list)));
    for (unsigned k = 0; k < q->size; k++)
        q->free_list[k] = (uint16_t)(q->size - 1 - k);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_SIZE, 2, q->size);
    write64(t, VIRTIO_PCI_COMMON_Q_DESCLO, q->desc.v);
    write64(t, VIRTIO_PCI_COMMON_Q_AVAILLO, q->driver.v);
    write64(t, VIRTIO_PCI_COMMON_Q_USEDLO, q->device_area.v);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
    if (vtest_common_read(t, VIRTIO_PCI_COMMON_Q_MSIX, 2) != vector)
        vtest_die("device %02x: vector of queue %u refused", t->devfn, i);
    vtest_common_write(t, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    q->enabled = true;
}

void vtest_restart_queue(struct vtest *t, unsigned q)
{
    forget_queue(t, &t->q[q]);
    vtest_setup_queue(t, q);
}

void vtest_driver_ok(struct vtest *t)
{
    vtest_set_status(t, vtest_status(t) | VIRTIO_CONFIG_S_DRIVER_OK);
}

int vtest_negotiate_exact(struct vtest *t, uint64_t features)
{
    int r = vtest_set_features(t, features);

    if (r < 0)
        return r;
    if (t->msix)
        vtest_setup_msix(t);
    for (unsigned q = 0; q < t->queue_count; q++)
        vtest_setup_queue(t, q);
    vtest_driver_ok(t);
    return vtest_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET ? -EIO : 0;
}

int vtest_negotiate(struct vtest *t, uint64_t features, bool packed)
{
    features |= QZ_BIT(VIRTIO_F_VERSION_1) | QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                QZ_BIT(VIRTIO_RING_F_EVENT_IDX);
    features &= ~QZ_BIT(VIRTIO_F_RING_PACKED);
    if (packed && !(t->offered >> VIRTIO_F_RING_PACKED & 1))
        return -ENOTSUP;
    if (packed)
        features |= QZ_BIT(VIRTIO_F_RING_PACKED);
    return vtest_negotiate_exact(t, features & t->offered);
}

/* ---- requests
 * ------------------------------------------------------------------------------------------ */

static uint8_t *ring_mem(struct vtest *t, gpa_t area, uint64_t offset, uint64_t len)
{
    return vtest_need(vtest_mem(t->tm, gpa_add(area, offset), len));
}

static uint16_t get16(struct vtest *t, gpa_t area, uint64_t offset)
{
    return __atomic_load_n((uint16_t *)(void *)ring_mem(t, area, offset, 2), __ATOMIC_ACQUIRE);
}

static void put16(struct vtest *t, gpa_t area, uint64_t offset, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)ring_mem(t, area, offset, 2), v, __ATOMIC_RELEASE);
}

static uint64_t arena_take(struct vtest *t, uint64_t bytes)
{
    uint64_t at;

    if (!t->in_flight)
        t->arena_at = t->arena;
    at = QZ_ALIGN_UP(t->arena_at, 16ull);
    if (bytes > t->arena_end - at)
        return 0;
    t->arena_at = at + bytes;
    return at;
}

/* One descriptor, but for a packed ring's flags, which the caller writes when everything else
 * stands. */
static void put_desc(uint8_t *p, uint64_t addr, uint32_t len, uint16_t third, uint16_t fourth)
{
    qz_store_le64(p, addr);
    qz_store_le32(p + 8, len);
    qz_store_le16(p + 12, third);
    qz_store_le16(p + 14, fourth);
}

struct piece {
    uint64_t addr;
    uint32_t len;
    bool write;
};

static void publish_split(struct vtest *t, struct vtest_queue *q, const struct piece *piece,
                          unsigned count, uint64_t table, uint16_t *head)
{
    uint16_t index[VIRTQUEUE_SIZE_MAX];
    unsigned slots = table ? 1 : count;

    for (unsigned i = 0; i < slots; i++)
        index[i] = q->free_list[--q->num_free];
    *head = index[0];
    if (table) {
        uint8_t *p = ring_mem(t, gpa(table), 0, (uint64_t)count * DESC);

        for (unsigned i = 0; i < count; i++)
            put_desc(p + i * DESC, piece[i].addr, piece[i].len,
                     (piece[i].write ? VRING_DESC_F_WRITE : 0) |
                         (i + 1 < count ? VRING_DESC_F_NEXT : 0),
                     (uint16_t)(i + 1));
        put_desc(ring_mem(t, q->desc, *head * DESC, DESC), table, count * DESC,
                 VRING_DESC_F_INDIRECT, 0);
    } else {
        for (unsigned i = 0; i < count; i++)
            put_desc(ring_mem(t, q->desc, index[i] * DESC, DESC), piece[i].addr, piece[i].len,
                     (piece[i].write ? VRING_DESC_F_WRITE : 0) |
                         (i + 1 < count ? VRING_DESC_F_NEXT : 0),
                     i + 1 < count ? index[i + 1] : 0);
    }
    put16(t, q->driver, 4 + 2 * (q->next_avail & (q->size - 1)), *head);
    q->next_avail++;
    put16(t, q->driver, 2, q->next_avail); /* release: the element before the index */
}

static void publish_packed(struct vtest *t, struct vtest_queue *q, const struct piece *piece,
                           unsigned count, uint64_t table, uint16_t id)
{
    unsigned slots = table ? 1 : count;
    uint16_t head_flags = 0, head = q->next_avail;

    if (table) {
        uint8_t *p = ring_mem(t, gpa(table), 0, (uint64_t)count * DESC);

        for (unsigned i = 0; i < count; i++)
            put_desc(p + i * DESC, piece[i].addr, piece[i].len, 0,
                     piece[i].write ? VRING_DESC_F_WRITE : 0);
    }
    for (unsigned i = 0; i < slots; i++) {
        uint16_t flags =
            q->avail_wrap ? 1 << VRING_PACKED_DESC_F_AVAIL : 1 << VRING_PACKED_DESC_F_USED;
        uint8_t *p = ring_mem(t, q->desc, q->next_avail * DESC, DESC);

        if (table)
            flags |= VRING_DESC_F_INDIRECT;
        else
            flags |=
                (piece[i].write ? VRING_DESC_F_WRITE : 0) | (i + 1 < count ? VRING_DESC_F_NEXT : 0);
        qz_store_le64(p, table ? table : piece[i].addr);
        qz_store_le32(p + 8, table ? count * DESC : piece[i].len);
        qz_store_le16(p + 12, id);
        if (i == 0)
            head_flags = flags;
        else
            qz_store_le16(p + 14, flags);
        if (++q->next_avail == q->size) {
            q->next_avail = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
    q->num_free -= slots;
    q->added += slots;
    put16(t, q->desc, head * DESC + 14,
          head_flags); /* release: the head's flags last (§2.8.21.1) */
}

int vtest_submit(struct vtest *t, unsigned qi, const struct iovec *out, unsigned out_count,
                 struct iovec *in, unsigned in_count)
{
    struct vtest_queue *q = &t->q[qi];
    unsigned count = out_count + in_count, slots, token;
    struct piece piece[VIRTQUEUE_SIZE_MAX];
    uint64_t bytes = 0, memory, at, table = 0;
    struct vtest_slot *s;
    bool indirect = t->indirect && count > 1 && t->features >> VIRTIO_RING_F_INDIRECT_DESC & 1;

    if (qi >= t->queue_count || !q->enabled || !count || count > VIRTQUEUE_SIZE_MAX)
        vtest_die("queue %u: cannot submit %u buffers", qi, count);
    slots = indirect ? 1 : count;
    if (slots > q->num_free)
        return -ENOSPC;
    for (unsigned i = 0; i < count; i++)
        bytes += i < out_count ? out[i].iov_len : in[i - out_count].iov_len;
    memory = arena_take(t, bytes + (indirect ? (uint64_t)count * DESC : 0));
    if (!memory)
        return -ENOSPC;
    at = memory;
    if (indirect) {
        table = memory;
        at += (uint64_t)count * DESC;
    }
    uint64_t in_at = at;
    for (unsigned i = 0; i < count; i++) {
        const struct iovec *v = i < out_count ? &out[i] : &in[i - out_count];

        piece[i] = (struct piece){at, (uint32_t)v->iov_len, i >= out_count};
        if (i == out_count)
            in_at = at;
        if (v->iov_len && i < out_count)
            memcpy(ring_mem(t, gpa(at), 0, v->iov_len), v->iov_base, v->iov_len);
        else if (v->iov_len)
            memset(ring_mem(t, gpa(at), 0, v->iov_len), 0xdb, v->iov_len);
        at += v->iov_len;
    }
    if (t->packed) {
        for (token = 0; token < VIRTQUEUE_SIZE_MAX && q->slot[token].used; token++)
            ;
        if (token == VIRTQUEUE_SIZE_MAX) /* that many were never waited for */
            return -ENOSPC;
    } else {
        token = q->free_list[q->num_free - 1];
    }
    s = &q->slot[token];
    if (s->used)
        vtest_die("queue %u: slot %u is still in use", qi, token);
    *s = (struct vtest_slot){.used = true,
                             .head = (uint16_t)token,
                             .slots = (uint16_t)slots,
                             .in_count = in_count,
                             .in_buffer = gpa(in_at),
                             .memory = gpa(memory)};
    if (in_count) {
        s->in = vtest_need(calloc(in_count, sizeof(*s->in)));
        memcpy(s->in, in, in_count * sizeof(*in));
        for (unsigned i = 0; i < in_count; i++)
            s->in_bytes += in[i].iov_len;
    }
    q->in_flight++;
    t->in_flight++;
    if (t->packed)
        publish_packed(t, q, piece, count, table, (uint16_t)token);
    else
        publish_split(t, q, piece, count, table, &s->head);
    return (int)token;
}

static bool wants_kick(struct vtest *t, struct vtest_queue *q)
{
    uint16_t old, event;

    /* Pairs with the device's full barrier in its "look again" (§2.7.13.4.1, §2.8.21.3.1). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!t->packed) {
        old = q->kicked_at;
        q->kicked_at = q->next_avail;
        if (!t->event_index)
            return !(get16(t, q->device_area, 0) & VRING_USED_F_NO_NOTIFY);
        return vring_need_event(get16(t, q->device_area, 4 + 8 * q->size), q->next_avail, old);
    }
    old = (uint16_t)(q->next_avail - q->added);
    q->added = 0;
    event = get16(t, q->device_area, 0);
    switch (get16(t, q->device_area, 2) & 3) {
    case VRING_PACKED_EVENT_FLAG_DISABLE:
        return false;
    case VRING_PACKED_EVENT_FLAG_DESC:
        if (event >> VRING_PACKED_EVENT_F_WRAP_CTR != q->avail_wrap)
            return vring_need_event((uint16_t)((event & 0x7fff) - q->size), q->next_avail, old);
        return vring_need_event(event & 0x7fff, q->next_avail, old);
    default:
        return true;
    }
}

bool vtest_kick(struct vtest *t, unsigned qi)
{
    struct vtest_queue *q = &t->q[qi];
    struct vtest_machine *tm = t->tm;

    if (!wants_kick(t, q) && !q->always_kick)
        return false;
    for (unsigned i = 0; i < tm->doorbell_count; i++)
        if (tm->doorbell[i].gpa == q->notify && tm->doorbell[i].len == 2) {
            uint64_t one = 1;

            if (write(tm->doorbell[i].fd, &one, sizeof(one)) != sizeof(one))
                vtest_die("doorbell of queue %u: %s", qi, strerror(errno));
            return true;
        }
    vtest_mmio_write(tm, q->notify, 2, qi);
    return true;
}

/* Copies the answer out, and gives the descriptors back to the ring. */
static int complete(struct vtest *t, struct vtest_queue *q, uint32_t id, uint32_t written)
{
    struct vtest_slot *s;
    uint64_t at;

    if (id >= VIRTQUEUE_SIZE_MAX || !q->slot[id].used || q->slot[id].done)
        return -EPROTO;
    s = &q->slot[id];
    if (written > s->in_bytes)
        return -EPROTO;
    s->done = true;
    s->written = written;
    at = s->in_buffer.v;
    for (unsigned i = 0; i < s->in_count; i++) {
        if (s->in[i].iov_len)
            memcpy(s->in[i].iov_base, ring_mem(t, gpa(at), 0, s->in[i].iov_len), s->in[i].iov_len);
        at += s->in[i].iov_len;
    }
    if (t->packed)
        q->num_free += s->slots;
    return 0;
}

int vtest_poll(struct vtest *t, unsigned qi)
{
    struct vtest_queue *q = &t->q[qi];
    int n = 0, r;

    for (;; n++) {
        if (!t->packed) {
            const uint8_t *p;

            if (get16(t, q->device_area, 2) == q->last_used)
                return n;
            p = ring_mem(t, q->device_area, 4 + 8 * (q->last_used & (q->size - 1)), 8);
            q->last_used++;
            r = complete(t, q, qz_load_le32(p), qz_load_le32(p + 4));
        } else {
            uint16_t flags = get16(t, q->desc, q->last_used * DESC + 14), id;
            bool avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1,
                 used = flags >> VRING_PACKED_DESC_F_USED & 1;
            const uint8_t *p;

            if (avail != q->used_wrap || used != q->used_wrap)
                return n;
            p = ring_mem(t, q->desc, q->last_used * DESC, DESC);
            id = qz_load_le16(p + 12);
            r = complete(t, q, id, qz_load_le32(p + 8));
            if (r == 0) {
                q->last_used += q->slot[id].slots;
                if (q->last_used >= q->size) {
                    q->last_used -= q->size;
                    q->used_wrap = !q->used_wrap;
                }
            }
        }
        if (r < 0)
            return r;
    }
}

static void release(struct vtest *t, struct vtest_queue *q, unsigned token, uint32_t *written)
{
    struct vtest_slot *s = &q->slot[token];
    unsigned index = s->head;

    if (written)
        *written = s->written;
    /* Split: only now, since the head is also the token. */
    for (unsigned i = 0; !t->packed && i < s->slots; i++) {
        q->free_list[q->num_free++] = (uint16_t)index;
        index = get16(t, q->desc, index * DESC + 14);
    }
    free(s->in);
    *s = (struct vtest_slot){0};
    q->in_flight--;
    t->in_flight--;
}

/* token -1: any. */
static int wait_for(struct vtest *t, unsigned qi, int token, uint32_t *written)
{
    struct vtest_queue *q = &t->q[qi];
    int64_t end = qz_now_ns() + VTEST_WAIT_MS * 1000000ll;

    if (qi >= t->queue_count || token >= VIRTQUEUE_SIZE_MAX || (token >= 0 && !q->slot[token].used))
        vtest_die("queue %u: nothing in flight with token %d", qi, token);
    for (;;) {
        int r = vtest_poll(t, qi);

        if (r < 0)
            return r;
        for (unsigned i = token < 0 ? 0 : (unsigned)token; i < VIRTQUEUE_SIZE_MAX; i++) {
            if (q->slot[i].done) {
                release(t, q, i, written);
                return (int)i;
            }
            if (token >= 0)
                break;
        }
        if (qz_now_ns() > end)
            return -ETIMEDOUT;
        vtest_run(t->tm, SLICE_MS);
    }
}

int vtest_wait(struct vtest *t, unsigned q, int token, uint32_t *written)
{
    int r;

    if (token < 0)
        return token; /* what vtest_submit() said */
    r = wait_for(t, q, token, written);
    return r < 0 ? r : 0;
}

int vtest_wait_any(struct vtest *t, unsigned q, uint32_t *written)
{
    return wait_for(t, q, -1, written);
}

int vtest_request(struct vtest *t, unsigned q, const struct iovec *out, unsigned out_count,
                  struct iovec *in, unsigned in_count, uint32_t *written)
{
    int token = vtest_submit(t, q, out, out_count, in, in_count);

    if (token < 0)
        return token;
    vtest_kick(t, q);
    return vtest_wait(t, q, token, written);
}

void vtest_interrupts(struct vtest *t, unsigned qi, bool on)
{
    struct vtest_queue *q = &t->q[qi];

    if (!t->packed && t->event_index) {
        /* At the next used element; or the one just behind, which is 65535 away. */
        put16(t, q->driver, 4 + 2 * q->size, (uint16_t)(on ? q->last_used : q->last_used - 1));
    } else if (!t->packed) {
        put16(t, q->driver, 0, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
    } else if (on && t->event_index) {
        put16(t, q->driver, 0,
              (uint16_t)(q->last_used | q->used_wrap << VRING_PACKED_EVENT_F_WRAP_CTR));
        put16(t, q->driver, 2, VRING_PACKED_EVENT_FLAG_DESC);
    } else {
        put16(t, q->driver, 2,
              on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE);
    }
    __atomic_thread_fence(
        __ATOMIC_SEQ_CST); /* before looking for used buffers; pairs with virtqueue_interrupt() */
}

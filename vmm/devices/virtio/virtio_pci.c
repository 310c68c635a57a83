/*
 * virtio_pci.c - the modern virtio transport over PCI (VirtIO 1.3 §4.1).
 *
 * Theory of operation. One function with two BARs: BAR 1 holds the MSI-X table, BAR 4 (64-bit) the
 * four regions that the vendor capabilities describe: common configuration, ISR, device
 * configuration, notifications. The fifth capability (VIRTIO_PCI_CAP_PCI_CFG) is a window through
 * which firmware may reach the same BARs with configuration accesses alone.
 *
 * Doorbells. Each queue has an eventfd that the device's loop watches. While the device is active
 * and BAR 4 is mapped, the accelerator is asked to signal it by itself (doorbell_add); a write that
 * still arrives on the bus (no such accelerator, another access size) signals it too. So a kick
 * never waits for the device's lock.
 *
 * virtio_pci_common.c has the registers and what they start, virtio_pci_state.c the state.
 *
 * Locks: the device's lock guards everything here but eventfds and BAR addresses. It is taken
 * inside the PCI bus's lock (bar_moved, the configuration window) and never the other way round.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>

#include "devices/virtio/virtio_pci_internal.h"
#include "machine/io_gate.h"

QZ_SYSCALLS(io, "read write");
QZ_SYSCALLS(vcpu, "write");

enum {
    MSIX_BAR = 1,
    REGION_BAR = 4,
    REGION_BAR_SIZE = 0x4000,
    COMMON = 0x0000,
    ISR = 0x1000,
    DEVICE = 0x2000,
    NOTIFY = 0x3000,
    REGION_SIZE = 0x1000,
    NOTIFY_STRIDE = 4,

    WINDOW_DATA = 16, /* pci_cfg_data in struct virtio_pci_cfg_cap */
    VIRTIO_PCI_VENDOR = 0x1af4,
};

/* ---- doorbells ----------------------------------------------------------------------------------
 */

static struct qz_loop *loop_of(const struct virtio_device *d, unsigned queue)
{
    return d->lane_loop ? d->lane_loop[queue % d->lanes] : d->loop;
}

/* Deterministic machines: returns when the device has nothing left to do. */
static void settle(struct virtio_device *d)
{
    for (unsigned i = 0; i < (d->lane_loop ? d->lanes : 1); i++)
        io_gate_settle(d->machine->gate, loop_of(d, i));
}

void vp_ring(struct vp_queue *q)
{
    uint64_t one = 1;

    if (q->vp->d->machine->gate) {
        io_gate_ring(q->vp->d->machine->gate, loop_of(q->vp->d, q->index), q->fd);
        return;
    }
    /* Fails only when the counter is full: then the loop has been told often enough. */
    if (write(q->fd, &one, sizeof(one)) < 0)
        return;
}

static void doorbell_ready(struct qz_watch *w, uint32_t events)
{
    struct vp_queue *q = QZ_CONTAINER_OF(w, struct vp_queue, watch);
    struct virtio_device *d = q->vp->d;
    uint64_t count;

    if (read(q->fd, &count, sizeof(count)) < 0)
        return;
    QZ_LOCKED(virtio_queue_lock(d, q->index));
    if (d->active && d->queue[q->index].enabled && !q->resetting && !q->vp->held)
        d->ops->notify(d, q->index);
    if (d->machine->gate)
        virtqueue_rings_written(&d->queue[q->index]);
}

void vp_doorbells_update(struct virtio_pci *vp)
{
    struct accel_vm *accel = vp->d->machine->accel;

    if (!accel || !accel->ops->doorbell_add || !accel->ops->doorbell_del)
        return;
    for (unsigned i = 0; i < vp->d->queue_count; i++) {
        struct vp_queue *q = &vp->q[i];
        uint64_t want =
            vp->d->active && vp->bar_base ? vp->bar_base + NOTIFY + i * NOTIFY_STRIDE : 0;

        if (q->doorbell == want)
            continue;
        /* Drivers write the queue's number as 16 bits (§4.1.5.2). Refused: the bus path does it. */
        if (q->doorbell)
            accel->ops->doorbell_del(accel, q->doorbell, 2, q->fd);
        q->doorbell = want && accel->ops->doorbell_add(accel, want, 2, q->fd) == 0 ? want : 0;
    }
}

void virtio_pci_hold(struct virtio_pci *vp, bool hold)
{
    struct virtio_device *d = vp->d;

    virtio_lock(d);
    vp->held = hold;
    for (unsigned i = 0; !hold && d->active && i < d->queue_count; i++)
        if (d->queue[i].enabled)
            vp_ring(&vp->q[i]);
    virtio_unlock(d);
}

bool virtio_pci_quiet(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;
    bool quiet;

    virtio_lock(d);
    quiet = !vp->resetting && (!d->ops->quiet || d->ops->quiet(d));
    virtio_unlock(d);
    return quiet;
}

/* ---- interrupts ---------------------------------------------------------------------------------
 */

static void interrupt(struct virtio_pci *vp, uint16_t vector, uint8_t isr)
{
    if (pci_msix_enabled(&vp->pci)) {
        if (vector != NO_VECTOR)
            pci_msix_notify(&vp->pci, vector);
        return;
    }
    QZ_LOCKED(&vp->isr_lock);
    vp->isr |= isr;
    pci_intx_set(&vp->pci, true);
}

uint8_t vp_isr_take(struct virtio_pci *vp)
{
    QZ_LOCKED(&vp->isr_lock);
    uint8_t value = vp->isr;

    vp->isr = 0;
    pci_intx_set(&vp->pci, false);
    return value;
}

static void on_queue_interrupt(struct virtio_device *d, uint16_t vector)
{
    interrupt(vp_of(d), vector, ISR_QUEUE);
}

static void config_interrupt(struct virtio_pci *vp)
{
    if (vp->d->status & VIRTIO_CONFIG_S_DRIVER_OK && !vp->resetting)
        interrupt(vp, vp->config_vector, ISR_CONFIG);
}

static void on_config_changed(struct virtio_device *d)
{
    vp_of(d)->generation++;
    config_interrupt(vp_of(d));
}

static void on_status_changed(struct virtio_device *d)
{
    config_interrupt(vp_of(d));
}

/* The doorbell is an eventfd on the device's loop: ringing it ourselves is all that it takes. */
static void on_queue_again(struct virtio_device *d, unsigned i)
{
    vp_ring(&vp_of(d)->q[i]);
}

static const struct virtio_transport_ops transport_ops = {
    .queue_interrupt = on_queue_interrupt,
    .config_changed = on_config_changed,
    .status_changed = on_status_changed,
    .reset_done = vp_reset_done,
    .queue_reset_done = vp_queue_reset_done,
    .queue_again = on_queue_again,
};

/* ---- BAR 4
 * --------------------------------------------------------------------------------------- */

/* The part of [offset, offset + size) that the device has. */
static unsigned config_part(const struct virtio_device *d, unsigned offset, unsigned size)
{
    return offset >= d->config_size ? 0 : QZ_MIN(size, d->config_size - offset);
}

static uint64_t region_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_pci *vp = opaque;
    struct virtio_device *d = vp->d;
    unsigned at = (unsigned)offset & (REGION_SIZE - 1), n;
    uint64_t value = 0;

    QZ_LOCKED(&d->lock);
    switch (offset & ~(uint64_t)(REGION_SIZE - 1)) {
    case COMMON:
        return vp_common_read(vp, at, size);
    case ISR:
        if (at)
            return 0;
        return vp_isr_take(vp);
    case DEVICE:
        n = config_part(d, at, size);
        if (n && d->ops->config_read)
            d->ops->config_read(d, at, &value, n);
        return value;
    default:
        return 0;
    }
}

static void region_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *vp = opaque;
    struct virtio_device *d = vp->d;
    unsigned at = (unsigned)offset & (REGION_SIZE - 1);

    if (offset >= NOTIFY) { /* without the lock: a kick waits for nobody */
        if (at % NOTIFY_STRIDE == 0 && at / NOTIFY_STRIDE < d->queue_count)
            vp_ring(&vp->q[at / NOTIFY_STRIDE]);
        return;
    }
    virtio_lock(d);
    if (offset < ISR)
        vp_common_write(vp, at, size, value);
    else if (offset >= DEVICE && size <= config_part(d, at, size) && d->ops->config_write &&
             !vp->resetting)
        d->ops->config_write(d, at, &value, size);
    virtio_unlock(d);
    if (d->machine->gate) /* a reset may go on in the device's loops */
        settle(d);
}

static const struct bus_ops region_ops = {.read = region_read, .write = region_write};

/* ---- the function's own hooks
 * ---------------------------------------------------------------------- */

static void bar_moved(struct pci_device *pci, unsigned bar, bool mapped, uint64_t base)
{
    struct virtio_pci *vp = QZ_CONTAINER_OF(pci, struct virtio_pci, pci);

    if (bar != REGION_BAR)
        return;
    QZ_LOCKED(&vp->d->lock);
    vp->bar_base = mapped ? base : 0;
    vp_doorbells_update(vp);
}

/* The window (§4.1.4.9): cap.length bytes at cap.offset of cap.bar, through pci_cfg_data. */
static void window_access(struct virtio_pci *vp, bool write)
{
    uint8_t *cap = vp->pci.config + vp->window;
    uint32_t offset = qz_load_le32(cap + VIRTIO_PCI_CAP_OFFSET),
             length = qz_load_le32(cap + VIRTIO_PCI_CAP_LENGTH);
    uint64_t value = qz_load_le32(cap + WINDOW_DATA);

    if ((length != 1 && length != 2 && length != 4) || offset % length)
        return;
    if (write)
        value &= UINT32_MAX >> (32 - 8 * length);
    if (pci_bar_access(&vp->pci, cap[VIRTIO_PCI_CAP_BAR], offset, length, &value, write) && !write)
        qz_store_le32(cap + WINDOW_DATA, (uint32_t)value);
}

static bool in_window(const struct virtio_pci *vp, unsigned offset, unsigned len)
{
    unsigned first = vp->window + WINDOW_DATA;

    /* len: one access; a reset passes the whole space and means no access. */
    return len <= 4 && offset < first + 4 && first < offset + len;
}

static void config_reading(struct pci_device *pci, unsigned offset, unsigned len)
{
    struct virtio_pci *vp = QZ_CONTAINER_OF(pci, struct virtio_pci, pci);

    if (in_window(vp, offset, len))
        window_access(vp, false);
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned len)
{
    struct virtio_pci *vp = QZ_CONTAINER_OF(pci, struct virtio_pci, pci);

    if (in_window(vp, offset, len))
        window_access(vp, true);
}

static void machine_reset(struct pci_device *pci)
{
    struct virtio_pci *vp = QZ_CONTAINER_OF(pci, struct virtio_pci, pci);

    virtio_lock(vp->d);
    vp_reset_begin(vp);
    virtio_unlock(vp->d);
}

static bool busy(struct pci_device *pci)
{
    struct virtio_pci *vp = QZ_CONTAINER_OF(pci, struct virtio_pci, pci);

    QZ_LOCKED(&vp->d->lock);
    return vp->resetting;
}

static const struct pci_device_ops pci_ops = {
    .config_reading = config_reading,
    .config_written = config_written,
    .bar_moved = bar_moved,
    .reset = machine_reset,
    .busy = busy,
};

/* ---- construction
 * -------------------------------------------------------------------------------- */

static uint32_t class_of(uint16_t id)
{
    switch (id) {
    case VIRTIO_ID_NET:
        return 0x020000; /* Ethernet */
    case VIRTIO_ID_BLOCK:
        return 0x010000; /* mass storage */
    case VIRTIO_ID_CONSOLE:
        return 0x078000; /* communication, other */
    case VIRTIO_ID_VSOCK:
        return 0x028000; /* network, other */
    default:
        return 0x00ff00; /* nothing that has a class */
    }
}

static int add_region_capability(struct pci_device *pci, uint8_t type, uint32_t offset,
                                 uint32_t length)
{
    /* struct virtio_pci_cap without its first two bytes; notify has a multiplier after it. */
    uint8_t body[sizeof(struct virtio_pci_notify_cap) - 2] = {0};
    unsigned len = type == VIRTIO_PCI_CAP_NOTIFY_CFG ? sizeof(struct virtio_pci_notify_cap)
                                                     : sizeof(struct virtio_pci_cap);

    body[VIRTIO_PCI_CAP_LEN - 2] = (uint8_t)len;
    body[VIRTIO_PCI_CAP_CFG_TYPE - 2] = type;
    body[VIRTIO_PCI_CAP_BAR - 2] = REGION_BAR;
    qz_store_le32(body + VIRTIO_PCI_CAP_OFFSET - 2, offset);
    qz_store_le32(body + VIRTIO_PCI_CAP_LENGTH - 2, length);
    if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
        qz_store_le32(body + VIRTIO_PCI_NOTIFY_CAP_MULT - 2, NOTIFY_STRIDE);
    return pci_capability_add(pci, PCI_CAP_ID_VNDR, body, NULL, len);
}

static int add_window_capability(struct pci_device *pci)
{
    uint8_t body[sizeof(struct virtio_pci_cfg_cap) - 2] = {0}, mask[sizeof(body)] = {0};

    body[VIRTIO_PCI_CAP_LEN - 2] = sizeof(struct virtio_pci_cfg_cap);
    body[VIRTIO_PCI_CAP_CFG_TYPE - 2] = VIRTIO_PCI_CAP_PCI_CFG;
    mask[VIRTIO_PCI_CAP_BAR - 2] = 0xff;
    memset(mask + VIRTIO_PCI_CAP_OFFSET - 2, 0xff, 12); /* offset, length, data */
    return pci_capability_add(pci, PCI_CAP_ID_VNDR, body, mask, sizeof(struct virtio_pci_cfg_cap));
}

static int build_function(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;
    struct bus_region region = {.ops = &region_ops, .device = vp, .name = d->ops->name};
    struct pci_identity id = {
        .vendor = VIRTIO_PCI_VENDOR,
        .device = (uint16_t)(0x1040 + d->ops->device_id),
        .subsystem_vendor = VIRTIO_PCI_VENDOR,
        .subsystem = (uint16_t)(0x40 + d->ops->device_id),
        .class_code = class_of(d->ops->device_id),
        .revision = 1,
        .pin = 1,
    };
    int r;

    pci_device_init(&vp->pci, &pci_ops, d->ops->name, &id);
    r = pci_msix_init(&vp->pci, MSIX_BAR, QZ_MAX(d->queue_count + 1, 2u));
    if (r == 0)
        r = pci_bar_init(&vp->pci, REGION_BAR, PCI_BAR_MEM64_PREFETCH, REGION_BAR_SIZE, &region);
    if (r == 0)
        r = add_region_capability(&vp->pci, VIRTIO_PCI_CAP_COMMON_CFG, COMMON, REGION_SIZE);
    if (r >= 0)
        r = add_region_capability(&vp->pci, VIRTIO_PCI_CAP_ISR_CFG, ISR, REGION_SIZE);
    if (r >= 0)
        r = add_region_capability(&vp->pci, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, REGION_SIZE);
    if (r >= 0)
        r = add_region_capability(&vp->pci, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY, REGION_SIZE);
    if (r >= 0)
        r = add_window_capability(&vp->pci);
    if (r >= 0)
        vp->window = (unsigned)r;
    return r < 0 ? r : 0;
}

/* Undoes everything but the device. */
static void destroy(struct virtio_pci *vp)
{
    struct virtio_device *d = vp->d;

    pci_remove(&vp->pci); /* doorbells go with the BAR */
    for (unsigned i = 0; vp->q && i < d->queue_count; i++) {
        qz_loop_remove(&vp->q[i].watch);
        if (vp->q[i].fd >= 0)
            close(vp->q[i].fd);
        virtqueue_stop(&d->queue[i]);
    }
    for (unsigned i = 0; d->lane_lock && i < d->lanes; i++)
        pthread_mutex_destroy(&d->lane_lock[i]);
    free(d->lane_lock);
    d->lane_lock = NULL;
    pthread_mutex_destroy(&vp->isr_lock);
    pthread_mutex_destroy(&d->lock);
    free(d->queue);
    d->queue = NULL;
    d->transport = NULL;
    d->transport_data = NULL;
    free(vp->q);
    free(vp);
}

static int open_doorbells(struct virtio_pci *vp, struct qz_error *err)
{
    for (unsigned i = 0; i < vp->d->queue_count; i++)
        vp->q[i] = (struct vp_queue){.vp = vp, .index = i, .fd = -1};
    for (unsigned i = 0; i < vp->d->queue_count; i++) {
        struct vp_queue *q = &vp->q[i];
        int r;

        vp_queue_defaults(vp->d, i);
        q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = q->fd < 0 ? -errno
                      : qz_loop_add(loop_of(vp->d, i), &q->watch, q->fd, EPOLLIN, doorbell_ready);
        if (r < 0)
            return qz_fail(err, r, "%s: doorbell of queue %u: %s", vp->d->ops->name, i,
                           strerror(-r));
    }
    return 0;
}

static int build(struct virtio_pci *vp, struct qz_error *err)
{
    struct virtio_device *d = vp->d;
    int r = build_function(vp);

    d->queue = calloc(d->queue_count, sizeof(*d->queue));
    vp->q = d->queue ? calloc(d->queue_count, sizeof(*vp->q)) : NULL;
    if (d->lane_loop)
        d->lane_lock = calloc(d->lanes, sizeof(*d->lane_lock));
    for (unsigned i = 0; d->lane_lock && i < d->lanes; i++)
        pthread_mutex_init(&d->lane_lock[i], NULL);
    if (r == 0 && (!vp->q || (d->lane_loop && !d->lane_lock)))
        r = -ENOMEM;
    if (r < 0) {
        free(vp->q); /* no doorbell is open: destroy() shall not look for them */
        vp->q = NULL;
        return qz_fail(err, r, "%s: PCI function: %s", d->ops->name, strerror(-r));
    }
    r = open_doorbells(vp, err);
    return r < 0 ? r : pci_add(d->machine->pci, &vp->pci, -1, err);
}

int virtio_pci_new(struct virtio_pci **out, struct virtio_device *d, struct qz_error *err)
{
    struct virtio_pci *vp = calloc(1, sizeof(*vp));
    int r = 0;

    if (!vp)
        r = qz_fail(err, -ENOMEM, "%s: no memory", d->ops->name);
    else if (!d->queue_count || d->queue_count > VIRTIO_QUEUES_MAX || !d->queue_size_max ||
             d->queue_size_max > VIRTQUEUE_SIZE_MAX ||
             d->queue_size_max & (d->queue_size_max - 1) || d->config_size > REGION_SIZE)
        r = qz_fail(err, -EINVAL, "%s: %u queues of %u, %u bytes of configuration", d->ops->name,
                    d->queue_count, d->queue_size_max, d->config_size);
    if (r < 0) {
        free(vp);
        d->ops->free(d);
        return r;
    }
    vp->d = d;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&vp->isr_lock, NULL);
    d->lane_lock = NULL;
    d->transport = &transport_ops;
    d->transport_data = vp;
    d->status = 0;
    d->negotiated = 0;
    d->active = false;
    vp->config_vector = NO_VECTOR;
    vp->offered = (d->offered & ~(QZ_BIT(VIRTIO_F_IN_ORDER) | QZ_BIT(VIRTIO_F_ACCESS_PLATFORM))) |
                  QZ_BIT(VIRTIO_F_VERSION_1) | QZ_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                  QZ_BIT(VIRTIO_RING_F_EVENT_IDX) |
                  (d->no_packed ? 0 : QZ_BIT(VIRTIO_F_RING_PACKED)) |
                  (d->ops->queue_reset ? QZ_BIT(VIRTIO_F_RING_RESET) : 0);
    r = build(vp, err);
    if (r < 0) {
        virtio_pci_free(vp);
        return r;
    }
    *out = vp;
    return 0;
}

void virtio_pci_free(struct virtio_pci *vp)
{
    struct virtio_device *d;

    if (!vp)
        return;
    d = vp->d;
    destroy(vp);
    d->ops->free(d);
}

/*
 * vfio.c - see queztl/vblk_vfio.h.
 *
 * The device sees one piece of memory, at an address of our choosing: an IOMMU often has fewer bits
 * than a process has addresses, so the two cannot be the same. A device address is then a pointer
 * plus a constant, and nothing is translated on the I/O path.
 */
#include <queztl/vblk_vfio.h>

#include "../user/arena.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

enum { BARS = 6, VECTORS_MAX = 1 + VBLK_QUEUES_MAX };
#define IOVA_BASE UINT64_C(0x10000000) /* clear of the window in which x86 keeps its MSIs */

struct vector {
    int fd;
    void (*handler)(void *arg);
    void *arg;
};

struct vblk_vfio {
    struct vblk_platform platform;
    struct arena arena;
    char address[32];
    int container, group, device;
    uint64_t config; /* of configuration space, in the device's descriptor */
    struct {
        void *at;
        uint64_t size;
    } bar[BARS];
    unsigned vectors; /* 0: interrupts are not set up */
    struct vector vector[VECTORS_MAX];
};

/* ---- platform ---- */

static void *dma_alloc(void *ctx, size_t size, size_t align, uint64_t *address)
{
    struct vblk_vfio *v = ctx;
    void *p = arena_alloc(&v->arena, size, align);

    *address = (uintptr_t)p + v->platform.dma_offset;
    return p;
}

static void dma_free(void *ctx, void *memory, size_t size, uint64_t address)
{
    struct vblk_vfio *v = ctx;

    arena_free(&v->arena, memory, size);
}

/* Registers are little-endian; the mapping is the device itself. */
static uint64_t reg_read(void *ctx, uint64_t address, unsigned width)
{
    void *at = (void *)(uintptr_t)address;

    switch (width) {
    case 1:
        return *(volatile uint8_t *)at;
    case 2:
        return le16toh(*(volatile uint16_t *)at);
    case 4:
        return le32toh(*(volatile uint32_t *)at);
    default:
        return le64toh(*(volatile uint64_t *)at);
    }
}

static void reg_write(void *ctx, uint64_t address, unsigned width, uint64_t value)
{
    void *at = (void *)(uintptr_t)address;

    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* memory before the register that speaks of it */
    switch (width) {
    case 1:
        *(volatile uint8_t *)at = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)at = htole16((uint16_t)value);
        break;
    case 4:
        *(volatile uint32_t *)at = htole32((uint32_t)value);
        break;
    default:
        *(volatile uint64_t *)at = htole64(value);
    }
}

static uint32_t pci_read(void *ctx, uint32_t function, unsigned offset, unsigned width)
{
    const struct vblk_vfio *v = ctx;
    uint32_t value = UINT32_MAX; /* what a missing function reads as */

    if (function || pread(v->device, &value, width, (off_t)(v->config + offset)) != (ssize_t)width)
        return UINT32_MAX;
    value = le32toh(value);
    return width == 4 ? value : value & ((1u << 8 * width) - 1);
}

static void pci_write(void *ctx, uint32_t function, unsigned offset, unsigned width, uint32_t value)
{
    const struct vblk_vfio *v = ctx;

    value = htole32(value);
    if (!function &&
        pwrite(v->device, &value, width, (off_t)(v->config + offset)) != (ssize_t)width)
        qz_warn("%s: configuration space at %#x cannot be written", v->address, offset);
}

static uint64_t pci_map(void *ctx, uint32_t function, unsigned bar, uint64_t *size)
{
    struct vblk_vfio *v = ctx;
    struct vfio_region_info r = {.argsz = sizeof(r), .index = bar};
    void *p;

    if (function || bar >= BARS)
        return 0;
    if (!v->bar[bar].at) {
        if (ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &r) < 0 || !r.size ||
            !(r.flags & VFIO_REGION_INFO_FLAG_MMAP))
            return 0;
        p = mmap(NULL, r.size, PROT_READ | PROT_WRITE, MAP_SHARED, v->device, (off_t)r.offset);
        if (p == MAP_FAILED)
            return 0;
        v->bar[bar].at = p;
        v->bar[bar].size = r.size;
    }
    *size = v->bar[bar].size;
    return (uintptr_t)v->bar[bar].at;
}

static uint64_t now_ns(void *ctx)
{
    return (uint64_t)qz_now_ns();
}

static void log_line(void *ctx, enum vblk_log_level level, const char *text, uint64_t a, uint64_t b)
{
    static const enum qz_log_level levels[] = {QZ_LOG_ERROR, QZ_LOG_WARN, QZ_LOG_INFO};
    const struct vblk_vfio *v = ctx;

    qz_log(levels[level], "%s: %s: %llu, %llu", v->address, text, (unsigned long long)a,
           (unsigned long long)b);
}

/* ---- interrupts ---- */

/* All vectors at once, each an event: VFIO switches MSI-X on with as many as it is told. */
static int vectors_open(struct vblk_vfio *v)
{
    struct vfio_irq_info info = {.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX};
    union {
        struct vfio_irq_set set;
        uint8_t space[sizeof(struct vfio_irq_set) + VECTORS_MAX * sizeof(int32_t)];
    } s = {.set = {.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                   .index = VFIO_PCI_MSIX_IRQ_INDEX}};
    unsigned n;

    if (ioctl(v->device, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0 || !info.count)
        return -ENODEV;
    n = QZ_MIN(info.count, (unsigned)VECTORS_MAX);
    for (unsigned i = 0; i < n; i++) {
        int32_t fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        if (fd < 0)
            return -errno;
        v->vector[i].fd = fd;
        memcpy(s.space + sizeof(s.set) + i * sizeof(fd), &fd, sizeof(fd));
    }
    s.set.argsz = (uint32_t)(sizeof(s.set) + n * sizeof(int32_t));
    s.set.count = n;
    if (ioctl(v->device, VFIO_DEVICE_SET_IRQS, &s) < 0)
        return -errno;
    v->vectors = n;
    return 0;
}

static int irq_attach(void *ctx, unsigned vector, void (*handler)(void *arg), void *arg)
{
    struct vblk_vfio *v = ctx;
    int rc = v->vectors || !handler ? 0 : vectors_open(v);

    if (rc < 0 || (handler && vector >= v->vectors))
        return rc < 0 ? rc : -VBLK_ENOSPC;
    if (vector < VECTORS_MAX) {
        v->vector[vector].arg = arg;
        v->vector[vector].handler = handler;
    }
    return 0;
}

void qz_vblk_vfio_dispatch(struct vblk_vfio *v)
{
    for (unsigned i = 0; i < v->vectors; i++) {
        uint64_t count;

        if (read(v->vector[i].fd, &count, sizeof(count)) > 0 && v->vector[i].handler)
            v->vector[i].handler(v->vector[i].arg);
    }
}

int qz_vblk_vfio_event_fd(const struct vblk_vfio *v, unsigned vector)
{
    return vector < v->vectors ? v->vector[vector].fd : -1;
}

/* ---- opening ---- */

static int open_group(struct vblk_vfio *v, struct qz_error *err)
{
    struct vfio_group_status status = {.argsz = sizeof(status)};
    char path[96], link[256];
    ssize_t n;

    snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", v->address);
    n = readlink(path, link, sizeof(link) - 1);
    if (n < 0)
        return qz_fail(err, -ENODEV, "%s: no such PCI function behind an IOMMU", v->address);
    link[n] = 0;
    snprintf(path, sizeof(path), "/dev/vfio/%.32s", strrchr(link, '/') + 1);
    v->group = open(path, O_RDWR | O_CLOEXEC);
    if (v->group < 0)
        return qz_fail(err, -errno, "%s: %s: %s; bind the function to vfio-pci", v->address, path,
                       strerror(errno));
    if (ioctl(v->group, VFIO_GROUP_GET_STATUS, &status) < 0 ||
        !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
        return qz_fail(err, -EBUSY, "%s: others of its IOMMU group are still bound to drivers",
                       v->address);
    return 0;
}

static int open_device(struct vblk_vfio *v, struct qz_error *err)
{
    struct vfio_region_info r = {.argsz = sizeof(r), .index = VFIO_PCI_CONFIG_REGION_INDEX};
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)v->arena.base,
        .iova = IOVA_BASE,
        .size = v->arena.size,
    };

    if (ioctl(v->group, VFIO_GROUP_SET_CONTAINER, &v->container) < 0 ||
        ioctl(v->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
        return qz_fail(err, -errno, "%s: its IOMMU group cannot be used: %s", v->address,
                       strerror(errno));
    if (ioctl(v->container, VFIO_IOMMU_MAP_DMA, &map) < 0)
        return qz_fail(err, -errno, "%s: %llu bytes cannot be pinned for the device: %s",
                       v->address, (unsigned long long)v->arena.size, strerror(errno));
    v->device = ioctl(v->group, VFIO_GROUP_GET_DEVICE_FD, v->address);
    if (v->device < 0 || ioctl(v->device, VFIO_DEVICE_GET_REGION_INFO, &r) < 0)
        return qz_fail(err, -errno, "%s: the function cannot be opened: %s", v->address,
                       strerror(errno));
    v->config = r.offset;
    return 0;
}

int qz_vblk_vfio_open(const char *address, uint64_t memory, struct vblk_vfio **out,
                      struct qz_error *err)
{
    struct vblk_vfio *v = calloc(1, sizeof(*v));
    int rc;

    if (!v)
        return qz_fail(err, -ENOMEM, "%s: out of memory", address);
    snprintf(v->address, sizeof(v->address), "%s", address);
    v->container = v->group = v->device = v->arena.fd = -1;
    for (unsigned i = 0; i < VECTORS_MAX; i++)
        v->vector[i].fd = -1;
    v->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    rc = v->container < 0
             ? qz_fail(err, -errno, "/dev/vfio/vfio: %s; load the module vfio-pci", strerror(errno))
             : arena_open(&v->arena, memory, false, err);
    if (rc == 0)
        rc = open_group(v, err);
    if (rc == 0)
        rc = open_device(v, err);
    if (rc < 0) {
        qz_vblk_vfio_close(v);
        return rc;
    }
    v->platform = (struct vblk_platform){.ctx = v,
                                         .dma_alloc = dma_alloc,
                                         .dma_free = dma_free,
                                         .dma_offset = IOVA_BASE - (uintptr_t)v->arena.base,
                                         .reg_read = reg_read,
                                         .reg_write = reg_write,
                                         .pci_read = pci_read,
                                         .pci_write = pci_write,
                                         .pci_map = pci_map,
                                         .irq_attach = irq_attach,
                                         .now_ns = now_ns,
                                         .log = log_line};
    *out = v;
    return 0;
}

void qz_vblk_vfio_close(struct vblk_vfio *v)
{
    if (!v)
        return;
    for (unsigned i = 0; i < BARS; i++)
        if (v->bar[i].at)
            munmap(v->bar[i].at, v->bar[i].size);
    /* The last descriptor resets the function and takes its memory from it. */
    for (int *fd = (int[]){v->device, v->group, v->container, -2}; *fd != -2; fd++)
        if (*fd >= 0)
            close(*fd);
    for (unsigned i = 0; i < VECTORS_MAX; i++)
        if (v->vector[i].fd >= 0)
            close(v->vector[i].fd);
    arena_close(&v->arena);
    free(v);
}

const struct vblk_platform *qz_vblk_vfio_platform(const struct vblk_vfio *v)
{
    return &v->platform;
}

void *qz_vblk_vfio_alloc(struct vblk_vfio *v, size_t size, size_t align)
{
    return arena_alloc(&v->arena, size, align);
}

void qz_vblk_vfio_free(struct vblk_vfio *v, void *memory, size_t size)
{
    arena_free(&v->arena, memory, size);
}

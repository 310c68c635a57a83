/*
 * vblk_vfio.h - the block driver in a Linux process on a virtio-pci function that the kernel gave
 * away to it (VFIO, behind an IOMMU).
 *
 *     qz_vblk_vfio_open -> qz_vblk_pci_init(&pci, qz_vblk_vfio_platform(v), 0) -> qz_vblk_create
 *
 * The function must be bound to vfio-pci, alone in its IOMMU group or with the rest of it. What the
 * device reaches is the memory that qz_vblk_vfio_alloc() gives, and nothing else.
 *
 * Threads: as for the driver. Interrupts are event descriptors: whoever sees one readable calls
 * qz_vblk_vfio_dispatch() in the thread that owns the queues.
 */
#ifndef QUEZTL_VBLK_VFIO_H
#define QUEZTL_VBLK_VFIO_H

#include <queztl/base.h>
#include <queztl/vblk.h>

struct vblk_vfio;

/* address: "0000:00:05.0". memory: bytes that the device can reach, for rings and data. */
int qz_vblk_vfio_open(const char *address, uint64_t memory, struct vblk_vfio **v,
                      struct qz_error *err);
/* Takes the memory away from the device first. */
void qz_vblk_vfio_close(struct vblk_vfio *v);

/* PCI functions have one name here: 0. */
const struct vblk_platform *qz_vblk_vfio_platform(const struct vblk_vfio *v);
/* Memory for data; NULL when it is used up. */
void *qz_vblk_vfio_alloc(struct vblk_vfio *v, size_t size, size_t align);
void qz_vblk_vfio_free(struct vblk_vfio *v, void *memory, size_t size);
/* Readable when a vector (0: configuration, 1 + n: queue n) was raised; -1 when it has none. */
int qz_vblk_vfio_event_fd(const struct vblk_vfio *v, unsigned vector);
/* Calls the handlers of the vectors that were raised. */
void qz_vblk_vfio_dispatch(struct vblk_vfio *v);

#endif

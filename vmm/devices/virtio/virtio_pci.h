/*
 * virtio_pci.h - the modern virtio PCI transport (VirtIO 1.3 §4.1).
 */
#ifndef VMM_VIRTIO_PCI_H
#define VMM_VIRTIO_PCI_H

#include "devices/virtio/virtio.h"

struct virtio_pci;

/*
 * Puts a filled-in virtio device on the machine's PCI bus, at the first free slot. The transport
 * owns the device from then on, also on failure: virtio_pci_free() and a failing virtio_pci_new()
 * call its ops->free.
 */
int virtio_pci_new(struct virtio_pci **vp, struct virtio_device *d, struct qz_error *err);
void virtio_pci_free(struct virtio_pci *vp);

#endif

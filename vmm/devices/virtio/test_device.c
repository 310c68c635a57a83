/* test_device.c - a virtio device together with its bus, saved, reset and loaded (test_driver.h).
 */
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_pci.h"

void vtest_device_state(struct vtest_device *device, struct qz_state *s)
{
    pci_bus_state(device->tm->m.pci, s);
    virtio_pci_state(device->vp, s);
}

void vtest_device_reset(struct vtest_device *device)
{
    pci_bus_reset(device->tm->m.pci);
    vtest_run(device->tm, 0); /* some end it on their loop */
}

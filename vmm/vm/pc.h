/*
 * pc.h - the parts of the machine: a q35-compatible PC with the devices that a configuration names.
 */
#ifndef VMM_PC_H
#define VMM_PC_H

#include <jansson.h>

#include "devices/virtio/devices.h"
#include "devices/virtio/virtio_pci.h"
#include "machine/machine.h"
#include "vm/config.h"

enum { PC_VIRTIO_MAX = 30 }; /* slots of the root bus, less host bridge and LPC */

struct pc_virtio {
    const char *kind; /* "disk", "net", "console", ... */
    struct virtio_device *device;
    struct virtio_pci *transport;
};

struct pc {
    struct machine *machine;
    struct pci_q35 *q35;
    struct pit *pit;
    struct hpet *hpet;
    struct serial *serial;
    struct rtc *rtc;
    struct acpi_pm *pm;
    struct vmgenid *vmgenid;
    struct isa_ports *ports;
    struct fw_cfg *fw_cfg;
    struct pflash *pflash;
    struct pc_virtio virtio[PC_VIRTIO_MAX];
    unsigned virtio_count;
    struct virtio_device *balloon, *console;
    int debug_fd;
};

/* What the devices are attached to on the host's side. */
struct pc_host {
    struct terminal *terminal;            /* the guest's console, NULL: none */
    struct qz_loop *const *storage_loops; /* serve disks; as many as the disk that wants most */
    unsigned storage_loop_count;
    struct qz_loop *device_loop; /* serves everything else */
    /* A disk keeps a request that failed (on-error=stop): asks for a pause. Any thread. */
    void (*disk_stopped)(void *context, struct virtio_device *d);
    /* Bytes that the guest writes to the port org.queztl.exit; on device_loop. */
    void (*exit_status)(void *context, const void *data, size_t len);
    void *context;
};

/* Buses, clock, memory and accelerator of *m exist. On failure pc_free() frees what was built. */
int pc_new(struct pc *pc, struct machine *m, const struct vm_config *config,
           const struct pc_host *host, struct qz_error *err);
void pc_free(struct pc *pc);
/* The first disk that keeps a request, with what it met; NULL: none. */
const char *pc_disk_kept(struct pc *pc, char *text, size_t size);
/* The disk of this position; NULL: there are not so many. */
struct virtio_device *pc_disk(struct pc *pc, unsigned position);
/* Tries again what disks keep. */
void pc_disks_retry(struct pc *pc);
/* The disk of this path or position ("0" is the first) grows; -ENOENT. */
int pc_disk_resize(struct pc *pc, const char *name, uint64_t size, struct qz_error *err);
/* For the control socket. */
json_t *pc_info(struct pc *pc);
json_t *pc_metrics(struct pc *pc);
json_t *pc_balloon_metrics(struct pc *pc);
/* The present MAC addresses of the network devices, in their order, as text. */
json_t *pc_net_addresses(struct pc *pc);

/* All vCPUs parked. Virtio devices may still be draining afterwards: see pc_idle(). */
void pc_reset(struct pc *pc);
bool pc_idle(struct pc *pc);

#endif

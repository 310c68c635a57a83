/*
 * pc.c - builds the PC's devices in the order that their slots and ports show to the guest (pc.h).
 */
#include "vm/pc.h"

#include <fcntl.h>
#include <sys/random.h>

#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/isa_ports.h"
#include "devices/pci.h"
#include "devices/pci_q35.h"
#include "devices/pflash.h"
#include "devices/rtc.h"
#include "devices/serial.h"
#include "devices/virtio/block_backend.h"
#include "devices/virtio/net_backend.h"
#include "devices/vmgenid.h"
#include "machine/hpet.h"
#include "machine/pit.h"

enum { COM1_PORT = 0x3f8, COM1_IRQ = 4, DISK_QUEUES_DEFAULT_MAX = 4 };

static void on_pmbase(void *context, uint16_t base, bool enabled)
{
    acpi_pm_map(context, base, enabled);
}

static int build_platform(struct pc *pc, const struct vm_config *config, const struct pc_host *host,
                          struct qz_error *err)
{
    struct machine *m = pc->machine;
    int r;

    if (config->debug_log) {
        pc->debug_fd = open(config->debug_log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (pc->debug_fd < 0)
            return qz_fail(err, -errno, "debug log %s: %s", config->debug_log, strerror(errno));
    }
    if ((r = pci_bus_new(&m->pci, m, err)) < 0 || (r = acpi_pm_new(&pc->pm, m, err)) < 0 ||
        (r = pci_q35_new(&pc->q35, m, on_pmbase, pc->pm, err)) < 0 ||
        (r = pit_new(&pc->pit, m, err)) < 0 || (r = hpet_new(&pc->hpet, m, pc->pit, err)) < 0 ||
        (r = rtc_new(&pc->rtc, m, err)) < 0 ||
        (r = serial_new(&pc->serial, m, COM1_PORT, COM1_IRQ, host->terminal, err)) < 0 ||
        (r = isa_ports_new(&pc->ports, m, pc->debug_fd, err)) < 0 ||
        (r = fw_cfg_new(&pc->fw_cfg, m, err)) < 0 ||
        (r = vmgenid_new(&pc->vmgenid, m, pc->pm, err)) < 0)
        return r;
    if (config->firmware)
        return pflash_new(&pc->pflash, m, config->firmware, config->firmware_vars, err);
    return 0;
}

/* Takes r and d as a constructor left them. */
static int plug(struct pc *pc, const char *kind, struct virtio_device *d, struct qz_error *err)
{
    struct pc_virtio *v = &pc->virtio[pc->virtio_count];
    int r;

    if (pc->virtio_count == PC_VIRTIO_MAX) {
        d->ops->free(d);
        return qz_fail(err, -ENOSPC, "more than %d devices", PC_VIRTIO_MAX);
    }
    r = virtio_pci_new(&v->transport, d, err);
    if (r < 0)
        return r;
    v->kind = kind;
    v->device = d;
    pc->virtio_count++;
    return 0;
}

static int add_disk(struct pc *pc, const struct vm_disk_config *disk, const struct pc_host *host,
                    struct qz_error *err)
{
    struct virtio_blk_options config = {
        .queues = disk->queues
                      ? disk->queues
                      : QZ_MAX(QZ_MIN(pc->machine->cpus, (unsigned)DISK_QUEUES_DEFAULT_MAX),
                               disk->iothreads),
        .loops = host->storage_loops,
        .loop_count = disk->iothreads,
        .on_error = (enum virtio_blk_on_error)disk->on_error,
        .stopped = host->disk_stopped,
        .context = host->context,
        .no_packed = disk->no_packed,
        .label = disk->path,
    };
    struct virtio_device *d;
    int r = block_disk_open(&config.backend, disk->options, err);

    strcpy(config.serial, disk->serial);
    if (r == 0)
        r = virtio_blk_new(&d, pc->machine, host->storage_loops[0], &config, err);
    return r < 0 ? r : plug(pc, "disk", d, err);
}

static int open_user_net(struct net_backend **backend, const struct vm_net_config *net,
                         struct qz_error *err)
{
    struct net_user_forward forward[VM_FORWARDS_MAX] = {0};
    const struct net_user_options options = {.forward = forward, .forwards = net->forwards};

    for (unsigned i = 0; i < net->forwards; i++) {
        forward[i].host_port = net->forward[i].host_port;
        forward[i].guest_port = net->forward[i].guest_port;
    }
    return net_user_open(backend, &options, err);
}

/* Locally administered, and random: machines on one bridge, from whatever host, keep apart. */
static int make_mac(struct machine *m, uint8_t mac[6], struct qz_error *err)
{
    if (machine_random(m, mac, 6) != 6)
        return qz_fail(err, -errno, "network: no random bytes for an address: %s", strerror(errno));
    mac[0] = 0x52;
    return 0;
}

static int add_net(struct pc *pc, const struct vm_net_config *net, const struct pc_host *host,
                   struct qz_error *err)
{
    struct virtio_net_options options = {.mac_given = net->has_mac};
    struct virtio_device *d;
    int r = 0;

    memcpy(options.mac, net->mac, sizeof(options.mac));
    if (!net->has_mac)
        r = make_mac(pc->machine, options.mac, err);
    if (r == 0)
        r = net->kind == VM_NET_TAP ? net_tap_open(&options.backend, net->tap, err)
                                    : open_user_net(&options.backend, net, err);
    if (r == 0)
        r = virtio_net_new(&d, pc->machine, host->device_loop, &options, err);
    return r < 0 ? r : plug(pc, "net", d, err);
}

static int add_console(struct pc *pc, const struct pc_host *host, struct qz_error *err)
{
    const struct console_port_config ports[] = {
        {.terminal = host->terminal},
        {.name = "org.queztl.exit", .output = host->exit_status, .context = host->context},
    };
    int r = virtio_console_new(&pc->console, pc->machine, host->device_loop, ports,
                               QZ_ARRAY_LEN(ports), err);

    return r < 0 ? r : plug(pc, "console", pc->console, err);
}

static int build_virtio(struct pc *pc, const struct vm_config *config, const struct pc_host *host,
                        struct qz_error *err)
{
    struct machine *m = pc->machine;
    struct virtio_device *d;
    int r;

    for (unsigned i = 0; i < config->disks; i++)
        if ((r = add_disk(pc, &config->disk[i], host, err)) < 0)
            return r;
    for (unsigned i = 0; i < config->nets; i++)
        if ((r = add_net(pc, &config->net[i], host, err)) < 0)
            return r;
    if ((r = add_console(pc, host, err)) < 0 ||
        (r = virtio_rng_new(&d, m, host->device_loop, err)) < 0)
        return r;
    if ((r = plug(pc, "rng", d, err)) < 0 ||
        (r = virtio_balloon_new(&pc->balloon, m, host->device_loop, err)) < 0)
        return r;
    if ((r = plug(pc, "balloon", pc->balloon, err)) < 0 || !config->vsock_path)
        return r;
    r = virtio_vsock_new(&d, m, host->device_loop, config->vsock_cid, config->vsock_path, err);
    return r < 0 ? r : plug(pc, "vsock", d, err);
}

int pc_new(struct pc *pc, struct machine *m, const struct vm_config *config,
           const struct pc_host *host, struct qz_error *err)
{
    int r;

    pc->machine = m;
    r = build_platform(pc, config, host, err);
    return r < 0 ? r : build_virtio(pc, config, host, err);
}

void pc_free(struct pc *pc)
{
    while (pc->virtio_count)
        virtio_pci_free(pc->virtio[--pc->virtio_count].transport);
    pflash_free(pc->pflash);
    vmgenid_free(pc->vmgenid);
    fw_cfg_free(pc->fw_cfg);
    isa_ports_free(pc->ports);
    serial_free(pc->serial);
    rtc_free(pc->rtc);
    hpet_free(pc->hpet);
    pit_free(pc->pit);
    pci_q35_free(pc->q35);
    acpi_pm_free(pc->pm);
    if (pc->machine)
        pci_bus_free(pc->machine->pci);
    if (pc->debug_fd >= 0)
        close(pc->debug_fd);
}

void pc_reset(struct pc *pc)
{
    acpi_pm_reset(pc->pm);
    pci_bus_reset(pc->machine->pci);
    pit_reset(pc->pit);
    hpet_reset(pc->hpet);
    rtc_reset(pc->rtc);
    serial_reset(pc->serial);
    isa_ports_reset(pc->ports);
    fw_cfg_reset(pc->fw_cfg);
    if (pc->pflash)
        pflash_reset(pc->pflash);
}

bool pc_idle(struct pc *pc)
{
    return !pci_bus_busy(pc->machine->pci);
}

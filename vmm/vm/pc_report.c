/* pc_report.c - what the devices tell about themselves through the control socket. */
#include "vm/pc.h"

static void add_disk_info(json_t *o, struct virtio_device *d)
{
    char text[200];
    unsigned kept = virtio_blk_kept(d, text, sizeof(text));

    json_object_set_new(o, "capacity_bytes", json_integer((json_int_t)virtio_blk_capacity(d)));
    json_object_set_new(o, "threads", json_integer(d->lane_loop ? d->lanes : 1));
    if (kept)
        json_object_set_new(o, "kept",
                            json_pack("{s:i,s:s}", "requests", (int)kept, "error", text));
}

static json_t *address_text(const uint8_t mac[6])
{
    return json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                        mac[5]);
}

static json_t *net_address(struct virtio_device *d)
{
    uint8_t mac[6];

    virtio_net_get_mac(d, mac);
    return address_text(mac);
}

static void add_net_info(json_t *o, struct virtio_device *d)
{
    uint8_t mac[6];

    json_object_set_new(o, "mac", net_address(d));
    virtio_net_get_former_mac(d, mac);
    json_object_set_new(o, "former_mac", address_text(mac));
}

json_t *pc_info(struct pc *pc)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < pc->virtio_count; i++) {
        const struct pc_virtio *v = &pc->virtio[i];

        json_t *o =
            json_pack("{s:s,s:s,s:b,s:b,s:b,s:i}", "kind", v->kind, "label",
                      v->device->label ? v->device->label : v->kind, "active", v->device->active,
                      "needs_reset", !!(v->device->status & VIRTIO_CONFIG_S_NEEDS_RESET), "packed",
                      v->device->active && virtio_has(v->device, VIRTIO_F_RING_PACKED), "queues",
                      (int)v->device->queue_count);

        if (v->device->ops->device_id == VIRTIO_ID_BLOCK)
            add_disk_info(o, v->device);
        if (v->device->ops->device_id == VIRTIO_ID_NET)
            add_net_info(o, v->device);
        json_array_append_new(list, o);
    }
    return list;
}

static void add_count(json_t *o, const char *name, uint64_t v)
{
    if (v != ~0ull) /* the guest does not tell */
        json_object_set_new(o, name, json_integer(v));
}

json_t *pc_balloon_metrics(struct pc *pc)
{
    uint64_t target, actual, reported;
    struct balloon_stats s;
    json_t *o = json_object();

    virtio_balloon_info(pc->balloon, &target, &actual, &reported, &s);
    add_count(o, "target_bytes", target);
    add_count(o, "actual_bytes", actual);
    add_count(o, "reported_free_bytes", reported);
    if (s.age_ns < 0)
        return o;
    add_count(o, "guest_free_bytes", s.free_memory);
    add_count(o, "guest_available_bytes", s.available_memory);
    add_count(o, "guest_total_bytes", s.total_memory);
    add_count(o, "guest_disk_caches_bytes", s.disk_caches);
    add_count(o, "guest_swap_in_bytes", s.swap_in);
    add_count(o, "guest_swap_out_bytes", s.swap_out);
    add_count(o, "guest_major_faults", s.major_faults);
    add_count(o, "guest_minor_faults", s.minor_faults);
    add_count(o, "statistics_age_ns", s.age_ns);
    return o;
}

static json_t *disk_metrics(struct virtio_device *d)
{
    struct virtio_blk_stats s;

    virtio_blk_get_stats(d, &s);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "label", d->label, "reads",
                     (json_int_t)s.reads, "writes", (json_int_t)s.writes, "flushes",
                     (json_int_t)s.flushes, "discards", (json_int_t)s.discards, "errors",
                     (json_int_t)s.errors, "read_bytes", (json_int_t)s.read_bytes, "written_bytes",
                     (json_int_t)s.written_bytes, "ignored", (json_int_t)s.ignored, "stops",
                     (json_int_t)s.stops);
}

static json_t *net_metrics(struct virtio_device *d)
{
    struct virtio_net_stats s;

    virtio_net_get_stats(d, &s);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "label", d->label, "rx_frames",
                     (json_int_t)s.rx_frames, "rx_bytes", (json_int_t)s.rx_bytes, "rx_dropped",
                     (json_int_t)s.rx_dropped, "rx_stalls", (json_int_t)s.rx_stalls, "tx_frames",
                     (json_int_t)s.tx_frames, "tx_bytes", (json_int_t)s.tx_bytes, "tx_dropped",
                     (json_int_t)s.tx_dropped, "tx_stalls", (json_int_t)s.tx_stalls);
}

/* One list for each kind of device: [{"label": ..., figures}, ...], or what else is asked of it. */
static json_t *each(struct pc *pc, uint16_t device_id, json_t *(*metrics)(struct virtio_device *d))
{
    json_t *list = json_array();

    for (unsigned i = 0; i < pc->virtio_count; i++)
        if (pc->virtio[i].device->ops->device_id == device_id)
            json_array_append_new(list, metrics(pc->virtio[i].device));
    return list;
}

json_t *pc_net_addresses(struct pc *pc)
{
    return each(pc, VIRTIO_ID_NET, net_address);
}

json_t *pc_metrics(struct pc *pc)
{
    json_t *o = json_object();

    json_object_set_new(o, "disks", each(pc, VIRTIO_ID_BLOCK, disk_metrics));
    json_object_set_new(o, "nets", each(pc, VIRTIO_ID_NET, net_metrics));
    return o;
}

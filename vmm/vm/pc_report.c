/* pc_report.c - what the devices tell about themselves through the control socket. */
#include "vm/pc.h"

json_t *pc_info(struct pc *pc)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < pc->virtio_count; i++) {
        const struct pc_virtio *v = &pc->virtio[i];

        json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:b,s:b,s:i}", "kind", v->kind, "label",
                                              v->device->label ? v->device->label : v->kind, "active",
                                              v->device->active, "needs_reset",
                                              !!(v->device->status & VIRTIO_CONFIG_S_NEEDS_RESET), "packed",
                                              v->device->active && virtio_has(v->device, VIRTIO_F_RING_PACKED),
                                              "queues", (int)v->device->queue_count));
    }
    return list;
}

json_t *pc_metrics(struct pc *pc)
{
    json_t *o = json_object();

    return o;
}

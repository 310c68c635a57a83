/*
 * settings.h - the driver's configuration file: [virtio_block] in TOML.
 */
#ifndef VBLK_SETTINGS_H
#define VBLK_SETTINGS_H

#include <queztl/base.h>
#include <queztl/vblk.h>

struct vblk_settings {
    unsigned device_max_count; /* devices that this process may open */
    unsigned device_max_queues, device_max_queue_depth;
    uint64_t device_max_sectors; /* 0: no bound */
    unsigned queue_count, queue_depth;
    bool interrupt_coalescing;
    unsigned coalescing_time_us, coalescing_threshold;
    uint64_t read_ahead_size; /* bytes; 0: none */
    bool write_back_cache;
    uint64_t write_back_cache_size; /* bytes */
    enum vblk_scheduler io_scheduler;
    bool direct_io;              /* requests go to the rings, past read-ahead and cache */
    uint64_t shared_memory_size; /* bytes shared with the device */
    bool dma_enabled;            /* off: the device never sees a caller's buffer */
    bool zero_copy_enabled, batch_processing;
};

void settings_default(struct vblk_settings *s);
/* Reads text; a wrong value, an unknown key or a contradiction is told with line and column. */
int settings_parse(const char *name, const char *text, size_t len, struct vblk_settings *s,
                   struct qz_error *err);
int settings_load(const char *path, struct vblk_settings *s, struct qz_error *err);
/* What the settings mean for the driver. */
void settings_apply(const struct vblk_settings *s, struct vblk_config *c);

#endif

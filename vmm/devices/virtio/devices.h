/*
 * devices.h - constructors of the virtio devices. Each opens what it needs (before confinement) and
 * fills a struct virtio_device for virtio_pci_new(). On failure nothing is left open.
 */
#ifndef VMM_VIRTIO_DEVICES_H
#define VMM_VIRTIO_DEVICES_H

#include "devices/virtio/virtio.h"
#include "machine/terminal.h"

struct qz_disk_backing; /* <queztl/disk.h> */
struct block_backend;   /* block_backend.h: the seam under virtio-blk */

enum virtio_blk_on_error {
    VIRTIO_BLK_REPORT, /* the guest sees the status */
    VIRTIO_BLK_STOP,   /* the machine pauses; the request is kept and tried again when it goes on */
    VIRTIO_BLK_IGNORE, /* what should have been written counts as written; reads are reported */
};

struct virtio_blk_options {
    struct block_backend *backend; /* owned by the device afterwards */
    unsigned queues;               /* 1 to 16 */
    uint16_t queue_size;           /* 0: default 256 */
    bool no_packed;
    char serial[21];
    const char *label;
    struct qz_loop *const *loops; /* queues are spread over these; NULL: all on the one given */
    unsigned loop_count;          /* up to BLOCK_LANES_MAX */
    enum virtio_blk_on_error on_error;
    /* VIRTIO_BLK_STOP: a request is kept. A queue's thread, with its lock: asks for a pause. */
    void (*stopped)(void *context, struct virtio_device *d);
    void *context;
};
int virtio_blk_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                   const struct virtio_blk_options *config, struct qz_error *err);

struct virtio_blk_stats {
    uint64_t reads, writes, flushes, discards, errors, read_bytes, written_bytes;
    uint64_t ignored, stops; /* errors that the guest was not told; requests kept */
};
void virtio_blk_get_stats(struct virtio_device *d, struct virtio_blk_stats *stats); /* any thread */
uint64_t virtio_blk_capacity(struct virtio_device *d); /* any thread; bytes */
/* What is kept by VIRTIO_BLK_STOP: how many requests, and in text what the last of them met. Any
 * thread. */
unsigned virtio_blk_kept(struct virtio_device *d, char *text, size_t size);
/* Tries again what is kept. Any thread. */
void virtio_blk_retry(struct virtio_device *d);
/* A larger disk, in bytes; the driver is told. Not a queue's thread, whose loops run: waits. */
int virtio_blk_resize(struct virtio_device *d, uint64_t capacity, struct qz_error *err);

/* What was written is on the medium. Not a queue's thread, whose loops run: waits. */
int virtio_blk_flush(struct virtio_device *d);
bool virtio_blk_readonly(const struct virtio_device *d);
const char *virtio_blk_format(const struct virtio_device *d); /* of the image that is written */
/* It writes to the overlay behind fd from now on, which is taken over. The device is held and
 * quiet, its loops stand. */
int virtio_blk_overlay(struct virtio_device *d, int fd, const char *name, struct qz_error *err);
/* The same, over the backing file that is open at `base`, as which the disk reads from now on. */
int virtio_blk_rewind(struct virtio_device *d, int base, int fd, const char *name,
                      struct qz_error *err);
/* As qz_disk_get_backing(); while no request is served. */
int virtio_blk_backing(struct virtio_device *d, struct qz_disk_backing *to);

struct net_backend; /* net_backend.h: TAP or libslirp under virtio-net */

struct virtio_net_options {
    struct net_backend *backend; /* owned by the device afterwards */
    uint8_t mac[6];
    bool mac_given; /* somebody asked for this one: a state that is loaded does not bring its own */
    uint16_t mtu;   /* 0: not announced */
};
int virtio_net_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                   const struct virtio_net_options *config, struct qz_error *err);

struct virtio_net_stats { /* seen from the guest; bytes without the virtio header */
    uint64_t rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped;
    uint64_t rx_stalls; /* times frames had to wait because the guest had no buffers */
    uint64_t tx_stalls; /* times the guest's frames had to wait for the host */
};
void virtio_net_get_stats(struct virtio_device *d, struct virtio_net_stats *stats); /* any thread */
void virtio_net_get_mac(struct virtio_device *d, uint8_t mac[6]); /* its present one; any thread */
/* The one that the driver had in the state that was loaded last, which may be another machine's;
 * the present one since a reset. Any thread. */
void virtio_net_get_former_mac(struct virtio_device *d, uint8_t mac[6]);

int virtio_rng_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                   struct qz_error *err);

/* guest connects to port P: the unix socket PATH_P; host connects to PATH and says "CONNECT P\n".
 */
int virtio_vsock_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                     uint64_t cid, const char *path, struct qz_error *err);
/* Any thread. Ends all connections and tells the guest by an event: it woke up as a clone, or
 * elsewhere (§5.10.6.7). */
void virtio_vsock_disconnect(struct virtio_device *d);

struct balloon_stats { /* VirtIO 1.3 §5.5.6.3, bytes or counts; ~0 where the guest does not tell */
    uint64_t swap_in, swap_out, major_faults, minor_faults, free_memory, total_memory,
        available_memory, disk_caches;
    int64_t age_ns;  /* since the guest reported; -1 never */
    int64_t at_ns;   /* when it did, by qz_now_ns() */
    uint64_t actual; /* bytes that the balloon had then */
};
int virtio_balloon_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                       struct qz_error *err);
/* Any thread. bytes: to take from the guest, -ERANGE when more than it has; kept until the driver
 * comes. */
int virtio_balloon_set_target(struct virtio_device *d, uint64_t bytes);
/* Any thread. actual: bytes that the guest gave so far. Statistics older than a second are asked
 * for anew. */
void virtio_balloon_info(struct virtio_device *d, uint64_t *target, uint64_t *actual,
                         uint64_t *reported_free, struct balloon_stats *stats);
/* Any thread. How often virtio_balloon_info() makes the guest report at most; 0: seldom. */
void virtio_balloon_ask_every(struct virtio_device *d, int64_t period_ns);

/* A port of the multiport console. The first one is the console itself (hvc0). */
struct console_port_config {
    const char *name;          /* NULL for the console; else the name in /sys/class/virtio-ports */
    struct terminal *terminal; /* console port: shared terminal */
    /* Named port: lines or bytes from the guest, on the device's loop. May be NULL. */
    void (*output)(void *context, const void *data, size_t len);
    void *context;
};
int virtio_console_new(struct virtio_device **d, struct machine *m, struct qz_loop *loop,
                       const struct console_port_config *ports, unsigned count,
                       struct qz_error *err);
/* Announces the console's size to the guest (VIRTIO_CONSOLE_F_SIZE). Any thread. */
void virtio_console_resize(struct virtio_device *d, uint16_t columns, uint16_t rows);

#endif

/*
 * vblk_cache.h - optional services above one queue: read-ahead, a write-back cache with ordered
 * flush and a byte budget, and merging of neighbouring blocks into one request. Freestanding, like
 * the driver.
 *
 * It is used in place of qz_vblk_submit() and qz_vblk_poll() on that queue. Reads and writes of
 * whole 4 KiB blocks go through it; everything else passes by it and stays coherent with it. A
 * write ends as soon as its data is in the cache; a FLUSH ends when everything written before it is
 * on the device and the device has flushed. Data that could not be written stays in the cache, the
 * next FLUSH tells the error, and the one after it tries again: nothing that was acknowledged is
 * dropped.
 *
 * Threads: the queue's. One cache for each place of a disk: two queues must not cache the same
 * blocks.
 */
#ifndef QUEZTL_VBLK_CACHE_H
#define QUEZTL_VBLK_CACHE_H

#include <queztl/vblk.h>

enum { VBLK_CACHE_BLOCK = 4096 };

struct vblk_cache;

struct vblk_cache_config {
    uint64_t bytes;      /* budget for data; at least 64 blocks */
    uint64_t read_ahead; /* bytes ahead of a sequential reader at most; 0: none */
    bool write_back;     /* off: writes pass by, reads are cached */
    unsigned merge;      /* blocks in one request at most, 1 to 64; 0: what the device can */
};

struct vblk_cache_stats {
    uint64_t hits, misses;      /* blocks read */
    uint64_t read_ahead_blocks; /* fetched ahead */
    uint64_t device_reads, device_writes,
        blocks_written; /* merged requests and what they carried */
    uint64_t write_errors;
    unsigned dirty, lines;
};

/* Bytes of private memory, aligned to 64; 0 when the configuration is invalid. */
size_t qz_vblk_cache_memory_size(const struct vblk_cache_config *c);
/* On a started queue with a block size of 4 KiB at most. Its data comes from the platform's DMA
 * memory. */
int qz_vblk_cache_create(void *memory, size_t size, struct vblk_queue *q,
                         const struct vblk_cache_config *c, struct vblk_cache **cache);
/* Gives the data back. What is dirty is lost: FLUSH first, and collect everything. */
void qz_vblk_cache_destroy(struct vblk_cache *cache);

/* As qz_vblk_submit() and qz_vblk_poll(). */
int qz_vblk_cache_submit(struct vblk_cache *cache, struct vblk_request *const *requests,
                         unsigned n);
int qz_vblk_cache_poll(struct vblk_cache *cache, struct vblk_request **done, unsigned max);
void qz_vblk_cache_get_stats(const struct vblk_cache *cache, struct vblk_cache_stats *s);

#endif

/*
 * bus.h - port and memory-mapped I/O: which device answers which address.
 *
 * Two buses of the same kind: 64 Ki ports, and guest-physical addresses that are not RAM. A
 * region's callbacks run on the vCPU thread that made the access, with the region's lock held when
 * it names one. They must not block. Accesses arrive as 1, 2, 4 or 8 bytes, aligned or not, always
 * wholly inside the region; the bus splits odd sizes and accesses over an end. What nobody claims
 * reads as all ones.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <queztl/base.h>

struct bus_ops {
    /* offset from the region's base. A value is returned in the low `size` bytes. */
    uint64_t (*read)(void *device, uint64_t offset, unsigned size);
    void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_region {
    uint64_t base, size;
    const struct bus_ops *ops;
    void *device;
    pthread_mutex_t *lock; /* taken around the callbacks; NULL: the device locks by itself */
    const char *name;      /* for the log and for conflicts */
};

struct bus;

int bus_new(struct bus **bus, uint64_t size); /* size: 0x10000 for ports, 0 for all of 64 bits */
void bus_free(struct bus *bus);

/*
 * Adds or removes a region; the bus keeps its own copy of *r. -EBUSY when it would overlap another
 * one (for instance a guest that programs two BARs onto each other: the later one stays unmapped).
 * May be called from a callback, any thread. A callback may still be running, or begin, shortly
 * after remove returned: devices outlive their regions.
 */
int bus_add(struct bus *bus, const struct bus_region *r);
void bus_remove(struct bus *bus, uint64_t base, uint64_t size);

/* One guest access of len bytes (1 to 8), little-endian in data. */
void bus_read(struct bus *bus, uint64_t address, void *data, unsigned len);
void bus_write(struct bus *bus, uint64_t address, const void *data, unsigned len);

#endif

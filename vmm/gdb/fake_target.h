/*
 * fake_target.h - a machine that does nothing, for tests of the server: two vCPUs, a little memory
 * with page tables, and a record of what was asked.
 *
 * Linear 0xffff800000000000 is physical 0 (2 MiB page); linear 0 is physical 0 as well; the 4 KiB
 * page at linear 0x200000 is physical 0x5000, the next is not there.
 */
#ifndef VMM_GDB_FAKE_TARGET_H
#define VMM_GDB_FAKE_TARGET_H

#include "gdb/target.h"

enum {
    FAKE_MEMORY = 64 << 10,
    FAKE_CPUS = 2,
    FAKE_PML4 = 0x1000,
    FAKE_PDPT = 0x2000,
    FAKE_PD = 0x3000,
    FAKE_PT = 0x4000,
    FAKE_PAGE = 0x5000,
};
#define FAKE_HIGH 0xffff800000000000ull

struct fake_target {
    struct vcpu_state state[FAKE_CPUS];
    uint8_t memory[FAKE_MEMORY];
    const struct accel_point *point;
    unsigned points, points_max;
    struct gdb_action action[FAKE_CPUS];
    unsigned resumes, stops, resets, kills, sets;
    bool running;
};

/* Stopped, in 64-bit mode. */
void fake_target_new(struct fake_target *f, struct gdb_target *target, bool patches);

#endif

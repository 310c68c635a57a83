/*
 * sim_disk.h - inside the simulated device: what its configuration says.
 */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "sim.h"

enum { SIM_CONFIG_BYTES = 96, SIM_ZONE_SECTORS = 256 };

void sim_config(const struct sim *s, uint8_t space[SIM_CONFIG_BYTES]);

#endif

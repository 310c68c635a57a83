/* nic.h - a virtio-net device of the counting guest: frames out and in, by polling. */
#ifndef SNAPSHOT_NIC_H
#define SNAPSHOT_NIC_H

#include <stdbool.h>
#include <stdint.h>

enum { NIC_FRAME_MAX = 1514 };

/* False: there is none. The device's address is in mac. */
bool nic_start(uint8_t mac[6]);

/* Room for a frame to send; waits while all are with the device. */
uint8_t *nic_room(void);
/* The frame that is there is the device's. It is told by nic_ring(), of all since then. */
void nic_send(unsigned len);
void nic_ring(void);

/* The next frame that came, and its length; 0: none. It is there until nic_give_back(). */
unsigned nic_receive(const uint8_t **frame);
void nic_give_back(void);

#endif

/*
 * vsock_test_guest.h - the guest's half of vsock for tests: packets over the in-process driver.
 */
#ifndef VMM_VSOCK_TEST_GUEST_H
#define VMM_VSOCK_TEST_GUEST_H

#include "devices/virtio/test_driver.h"
#include "devices/virtio/vsock_internal.h"

enum { GUEST_CID = 42, GUEST_RX = 16, GUEST_RX_DATA = 4096, GUEST_ALLOC = 64 << 10 };

struct guest_rx {
    uint8_t bytes[VSOCK_HEADER + GUEST_RX_DATA];
    int token;
};

struct guest {
    struct vtest_machine *tm;
    struct virtio_device *d;
    struct virtio_pci *vp;
    struct vtest *t;
    char dir[32], path[64];
    struct guest_rx rx[GUEST_RX];
    unsigned next_rx; /* the oldest posted */
};

/* Machine, device on a socket in a new directory, driver found but not negotiated. */
struct guest *guest_new(void);
void guest_free(struct guest *g);
/* To DRIVER_OK (from anywhere), with receive buffers. */
void guest_start(struct guest *g, bool packed);
void guest_post_buffers(struct guest *g);

/* Fills what any packet of connection host_port - guest_port has. */
struct virtio_vsock_hdr guest_header(uint16_t op, uint32_t host_port, uint32_t guest_port);
/* Sends it and waits until the device has taken it; h.len is set by the caller. */
void guest_send(struct guest *g, struct virtio_vsock_hdr h, const void *data, size_t len);
/* The next packet; fails the test when none comes. data: room for GUEST_RX_DATA, may be NULL. */
struct virtio_vsock_hdr guest_receive(struct guest *g, void *data);
/* As above, and checks that it is this one. */
struct virtio_vsock_hdr guest_expect(struct guest *g, uint16_t op, uint32_t host_port,
                                     uint32_t guest_port);
/* Whether a packet waits, after the loop had nothing more to do. */
bool guest_has_packet(struct guest *g);
void guest_idle(struct guest *g);

/* A host program: listens on PATH_port; connects to PATH. Descriptors do not block. */
int host_listen(struct guest *g, uint32_t port);
void host_unlisten(struct guest *g, int fd, uint32_t port);
int host_accept(int listener);
int host_connect(struct guest *g);
/* Exactly len bytes, driving the loop meanwhile; fewer are returned at the end of the stream. */
size_t host_read(struct guest *g, int fd, void *buf, size_t len);
void host_write(struct guest *g, int fd, const void *buf, size_t len);
/* Whether the stream ends here: 0, or the errno it ends with; -1 when there was a byte. */
int host_end(struct guest *g, int fd);
/* A connection of the guest's: the host's end of it. */
int guest_connect(struct guest *g, int listener, uint32_t host_port, uint32_t guest_port);

#endif

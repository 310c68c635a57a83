/*
 * message.h - messages of vhost-user (QEMU's docs/interop/vhost-user.rst) on their way over the
 * socket: 12 bytes of header, a payload, and descriptors beside it.
 */
#ifndef DISK_VHOST_MESSAGE_H
#define DISK_VHOST_MESSAGE_H

#include "vhost.h"

enum message_type {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    RESET_OWNER = 4,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    GET_VRING_BASE = 11,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    SET_VRING_ERR = 14,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    GET_QUEUE_NUM = 17,
    SET_VRING_ENABLE = 18,
    SET_BACKEND_REQ_FD = 21,
    GET_CONFIG = 24,
    SET_CONFIG = 25,
    GET_INFLIGHT_FD = 31,
    SET_INFLIGHT_FD = 32,
    RESET_DEVICE = 34,
    GET_MAX_MEM_SLOTS = 36,
    ADD_MEM_REG = 37,
    REM_MEM_REG = 38,
};

enum { BACKEND_CONFIG_CHANGE = 2 };
enum { VERSION = 1, FLAG_REPLY = 4, FLAG_NEED_REPLY = 8 };
enum {
    PROTOCOL_MQ = 0,
    REPLY_ACK = 3,
    BACKEND_REQ = 5,
    CONFIG = 9,
    INFLIGHT = 12,
    RESET = 13,
    MEM_SLOTS = 15
};
enum { FDS_MAX = 8, REGIONS_IN_TABLE = 8, CONFIG_MAX = 256, RESIZE_POLL_MS = 500 };

#define F_VERSION_1         QZ_BIT(32)
#define F_RING_PACKED       QZ_BIT(34)
#define F_INDIRECT          QZ_BIT(28)
#define F_EVENT_IDX         QZ_BIT(29)
#define F_PROTOCOL_FEATURES QZ_BIT(30)

struct region {
    uint64_t gpa, size, user, offset;
};

struct message {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        struct {
            uint32_t index, num;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } addr;
        struct {
            uint32_t count, padding;
            struct region region[REGIONS_IN_TABLE];
        } memory;
        struct {
            uint64_t padding;
            struct region region;
        } slot;
        struct {
            uint32_t offset, size, flags;
            uint8_t bytes[CONFIG_MAX];
        } config;
        struct {
            uint64_t mmap_size, mmap_offset;
            uint16_t queues, size;
        } inflight;
    } p;
    int fds[FDS_MAX];
    unsigned fd_count;
};

enum { HEADER = 12, PAYLOAD_MAX = sizeof(((struct message *)0)->p) };

/* The next message, whose descriptors are the caller's; -EAGAIN: RESIZE_POLL_MS passed without one;
 * another negative errno: the frontend is gone, breaks the rules, or the server shall stop. */
int message_receive(struct vhost *v, struct message *m);
int message_send(int socket, struct message *m, int fd);
/* fd: goes with it; -1: none. */
int message_reply(struct vhost *v, struct message *m, uint32_t size, int fd);
int message_reply_u64(struct vhost *v, struct message *m, uint64_t value);

#endif

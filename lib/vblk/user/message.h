/*
 * message.h - messages of the vhost-user protocol over a socket, from the front end's side.
 *
 * Every function returns 0 or a negative errno; -ETIMEDOUT when the server does not answer in time,
 * -EPROTO when its answer makes no sense, -ECONNRESET when it is gone.
 */
#ifndef VBLK_MESSAGE_H
#define VBLK_MESSAGE_H

#include <queztl/base.h>

/* Request numbers of the specification ("Vhost-user Protocol"). */
enum message_request {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_OWNER = 3,
    VU_SET_MEM_TABLE = 5,
    VU_SET_VRING_NUM = 8,
    VU_SET_VRING_ADDR = 9,
    VU_SET_VRING_BASE = 10,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_SET_VRING_CALL = 13,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_SET_PROTOCOL_FEATURES = 16,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_VRING_ENABLE = 18,
    VU_GET_CONFIG = 24,
    VU_SET_CONFIG = 25,
    VU_GET_INFLIGHT_FD = 31,
    VU_SET_INFLIGHT_FD = 32,
};

enum { VU_F_PROTOCOL_FEATURES = 30 };
enum {
    VU_PROTOCOL_MQ = 0,
    VU_PROTOCOL_REPLY_ACK = 3,
    VU_PROTOCOL_CONFIG = 9,
    VU_PROTOCOL_INFLIGHT = 12,
};

struct channel {
    int fd; /* -1: not connected */
    unsigned reply_ms;
    bool reply_ack; /* negotiated: every message is answered */
};

int channel_connect(struct channel *c, const char *path);
void channel_close(struct channel *c);
/* Sends a message, with a descriptor where fd >= 0, and waits for its acknowledgement where that
 * was negotiated. */
int channel_send(struct channel *c, enum message_request request, const void *payload, size_t len,
                 int fd);
/* The same for a request whose answer is a payload of exactly reply_len bytes. */
int channel_ask(struct channel *c, enum message_request request, const void *payload, size_t len,
                void *reply, size_t reply_len);
/* The same where the answer brings a descriptor, the caller's from then on; *fd is -1 where it
 * brought none. */
int channel_ask_fd(struct channel *c, enum message_request request, const void *payload, size_t len,
                   void *reply, size_t reply_len, int *fd);
int channel_send_u64(struct channel *c, enum message_request request, uint64_t value, int fd);
int channel_ask_u64(struct channel *c, enum message_request request, uint64_t *value);
/* Has the server hung up? */
bool channel_lost(const struct channel *c);

#endif

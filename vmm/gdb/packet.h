/*
 * packet.h - the packet layer of GDB's remote serial protocol (GDB manual, appendix E.1).
 *
 * $data#cs, where cs is the sum of data's bytes in two hexadecimal digits; '}' escapes the next
 * byte (exclusive or 0x20). Each packet is acknowledged by '+' (or asked for again by '-') until
 * both sides agree on no acknowledgements. A bare 0x03 asks to stop.
 *
 * Pure: bytes in, events and bytes out, no system call. What the peer sends is hostile: every
 * buffer has a fixed size, and a packet that does not fit is refused.
 */
#ifndef VMM_GDB_PACKET_H
#define VMM_GDB_PACKET_H

#include <queztl/base.h>

enum {
    GDB_PACKET_MAX = 16384, /* data of one packet, as told to the peer */
    GDB_OUT_MAX =
        2 * GDB_PACKET_MAX + 512, /* one packet with every byte escaped, and acknowledgements */
};

enum gdb_event_kind {
    GDB_NOTHING, /* all bytes taken, no whole packet yet */
    GDB_PACKET,  /* link->packet holds packet_len bytes and a terminating zero */
    GDB_INTERRUPT,
};

enum gdb_link_state { GDB_IDLE, GDB_DATA, GDB_ESCAPED, GDB_SUM1, GDB_SUM2 };

struct gdb_link {
    enum gdb_link_state state;
    bool no_ack;
    bool too_long;
    uint8_t sum, told_sum;
    uint8_t packet[GDB_PACKET_MAX + 1];
    size_t packet_len;

    /* What waits to be sent, from out_sent on. The last packet stays for the peer to ask for again.
     */
    uint8_t out[GDB_OUT_MAX];
    size_t out_len, out_sent;
    size_t last_at, last_len;
};

/* A packet being made: bytes that do not fit are dropped, and `overflow` says so. */
struct gdb_reply {
    char data[GDB_PACKET_MAX + 1];
    size_t len;
    bool overflow;
};

void gdb_link_init(struct gdb_link *l);

/* Takes bytes up to the end of the first event; *used tells how many. All output must have been
 * sent. */
enum gdb_event_kind gdb_link_input(struct gdb_link *l, const uint8_t *data, size_t len,
                                   size_t *used);
/* Frames a packet. At most one waits at a time: call it with all output sent, or after an input
 * event. */
void gdb_link_send(struct gdb_link *l, const struct gdb_reply *r);
static inline bool gdb_link_has_output(const struct gdb_link *l)
{
    return l->out_sent < l->out_len;
}

/* --- Making and reading packets ----------------------------------------------------------------
 */

void gdb_put(struct gdb_reply *r, const void *data, size_t len);
void gdb_put_text(struct gdb_reply *r, const char *text);
void gdb_printf(struct gdb_reply *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_reply *r, const void *data, size_t len); /* two digits a byte */

/* A cursor over a packet; every get_ moves it only when it succeeds. */
struct gdb_scan {
    const uint8_t *p, *end;
};

bool gdb_get_char(struct gdb_scan *s, char c);
bool gdb_get_word(struct gdb_scan *s, const char *word);
bool gdb_get_number(struct gdb_scan *s, uint64_t *value); /* hexadecimal, 1 to 16 digits */
/* len bytes of two digits each. */
bool gdb_get_hex(struct gdb_scan *s, void *data, size_t len);
static inline bool gdb_at_end(const struct gdb_scan *s)
{
    return s->p == s->end;
}

#endif

/* packet.c - framing, escapes and checksums (packet.h). */
#include "gdb/packet.h"

#include <assert.h>

static const char digits[] = "0123456789abcdef";

static int digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void gdb_link_init(struct gdb_link *l)
{
    memset(l, 0, sizeof(*l));
}

/* ---- output ------------------------------------------------------------------------------------
 */

static void out_byte(struct gdb_link *l, uint8_t byte)
{
    assert(l->out_len < sizeof(l->out));
    l->out[l->out_len++] = byte;
}

static void out_data(struct gdb_link *l, uint8_t byte, uint8_t *sum)
{
    *sum += byte;
    out_byte(l, byte);
}

/* Sent bytes go; the last packet stays where '-' finds it. */
static void forget_sent(struct gdb_link *l)
{
    if (l->out_sent < l->out_len)
        return;
    memmove(l->out, l->out + l->last_at, l->last_len);
    l->last_at = 0;
    l->out_len = l->out_sent = l->last_len;
}

static void acknowledge(struct gdb_link *l, char how)
{
    if (!l->no_ack)
        out_byte(l, how);
}

void gdb_link_send(struct gdb_link *l, const struct gdb_reply *r)
{
    const size_t unsent = l->out_len - l->out_sent;
    uint8_t sum = 0;

    memmove(l->out, l->out + l->out_sent, unsent);
    l->out_sent = 0;
    l->out_len = l->last_at = unsent;
    out_byte(l, '$');
    for (size_t i = 0; i < r->len; i++) {
        const char c = r->data[i];

        if (c == '$' || c == '#' || c == '}' || c == '*') {
            out_data(l, '}', &sum);
            out_data(l, c ^ 0x20, &sum);
        } else {
            out_data(l, c, &sum);
        }
    }
    out_byte(l, '#');
    out_byte(l, digits[sum >> 4]);
    out_byte(l, digits[sum & 15]);
    l->last_len = l->out_len - l->last_at;
}

/* ---- input -------------------------------------------------------------------------------------
 */

static void begin(struct gdb_link *l)
{
    l->state = GDB_DATA;
    l->sum = 0;
    l->packet_len = 0;
    l->too_long = false;
}

static void add(struct gdb_link *l, uint8_t byte)
{
    if (l->packet_len < GDB_PACKET_MAX)
        l->packet[l->packet_len++] = byte;
    else
        l->too_long = true;
}

/* A number that is no hexadecimal one makes a sum that nothing has. */
static enum gdb_event_kind finish(struct gdb_link *l, bool sum_right)
{
    l->state = GDB_IDLE;
    if (!l->no_ack && !sum_right) {
        acknowledge(l, '-');
        return GDB_NOTHING;
    }
    acknowledge(l, '+');
    /* Nothing that starts with a zero byte is a command: the answer is the empty one, "not known".
     */
    if (l->too_long)
        l->packet_len = 0;
    l->packet[l->packet_len] = '\0';
    return GDB_PACKET;
}

static enum gdb_event_kind idle_byte(struct gdb_link *l, uint8_t byte)
{
    if (byte == '$')
        begin(l);
    else if (byte == '-' && !l->no_ack)
        l->out_sent = l->last_at; /* again */
    return byte == 0x03 ? GDB_INTERRUPT : GDB_NOTHING;
}

static enum gdb_event_kind take(struct gdb_link *l, uint8_t byte)
{
    switch (l->state) {
    case GDB_IDLE:
        return idle_byte(l, byte);
    case GDB_DATA:
        if (byte == '#') {
            l->state = GDB_SUM1;
        } else if (byte == '$') { /* the end of the one before was lost */
            begin(l);
        } else {
            l->sum += byte;
            if (byte == '}')
                l->state = GDB_ESCAPED;
            else
                add(l, byte);
        }
        return GDB_NOTHING;
    case GDB_ESCAPED:
        l->sum += byte;
        add(l, byte ^ 0x20);
        l->state = GDB_DATA;
        return GDB_NOTHING;
    case GDB_SUM1:
        l->told_sum = (uint8_t)digit(byte);
        l->state = GDB_SUM2;
        return GDB_NOTHING;
    case GDB_SUM2:
        break;
    }
    return finish(l, digit(byte) >= 0 && l->told_sum < 16 &&
                         (l->told_sum << 4 | digit(byte)) == l->sum);
}

enum gdb_event_kind gdb_link_input(struct gdb_link *l, const uint8_t *data, size_t len,
                                   size_t *used)
{
    size_t i = 0;

    forget_sent(l);
    while (i < len) {
        const enum gdb_event_kind kind = take(l, data[i++]);

        /* Whatever is to be sent goes before more is read: that bounds what waits. */
        if (kind != GDB_NOTHING || gdb_link_has_output(l)) {
            *used = i;
            return kind;
        }
    }
    *used = i;
    return GDB_NOTHING;
}

/* ---- making ------------------------------------------------------------------------------------
 */

void gdb_put(struct gdb_reply *r, const void *data, size_t len)
{
    if (len > GDB_PACKET_MAX - r->len) {
        r->overflow = true;
        return;
    }
    memcpy(r->data + r->len, data, len);
    r->len += len;
}

void gdb_put_text(struct gdb_reply *r, const char *text)
{
    gdb_put(r, text, strlen(text));
}

void gdb_printf(struct gdb_reply *r, const char *fmt, ...)
{
    char text[512];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        r->overflow = true;
    else
        gdb_put(r, text, (size_t)n);
}

void gdb_put_hex(struct gdb_reply *r, const void *data, size_t len)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < len; i++) {
        const char two[2] = {digits[p[i] >> 4], digits[p[i] & 15]};

        gdb_put(r, two, 2);
    }
}

/* ---- reading -----------------------------------------------------------------------------------
 */

bool gdb_get_char(struct gdb_scan *s, char c)
{
    if (s->p == s->end || *s->p != (uint8_t)c)
        return false;
    s->p++;
    return true;
}

bool gdb_get_word(struct gdb_scan *s, const char *word)
{
    const size_t n = strlen(word);

    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

bool gdb_get_number(struct gdb_scan *s, uint64_t *value)
{
    const uint8_t *p = s->p;
    uint64_t v = 0;

    for (; p < s->end && digit(*p) >= 0; p++) {
        if (v >> 60)
            return false;
        v = v << 4 | (uint64_t)digit(*p);
    }
    if (p == s->p)
        return false;
    s->p = p;
    *value = v;
    return true;
}

bool gdb_get_hex(struct gdb_scan *s, void *data, size_t len)
{
    uint8_t *out = data;

    if ((size_t)(s->end - s->p) / 2 < len)
        return false;
    for (size_t i = 0; i < len; i++) {
        const int high = digit(s->p[2 * i]), low = digit(s->p[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    s->p += 2 * len;
    return true;
}

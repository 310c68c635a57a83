/*
 * server_fuzz.c - a hostile debugger: bytes as they come, and packets that are well formed around
 * what the fuzzer makes, so that the commands behind the checksum are met too.
 *
 * Input: lines. One that starts with '!' goes raw, any other is framed. Between them the fake
 * machine stops by itself. fake_target.c ends the program when the server asks for what it must
 * not.
 */
#include "gdb/fake_target.h"
#include "gdb/packet.h"
#include "gdb/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const commands[] = {
    "g",
    "G",
    "p",
    "P10=",
    "m",
    "m200000,",
    "M200000,4:",
    "X200000,2:",
    "x0,",
    "Z0,200010,1",
    "z0,200010,1",
    "Z2,",
    "Z1,1,1",
    "c",
    "s",
    "vCont;",
    "vCont;s:1;c",
    "vCont;r",
    "H",
    "Hg2",
    "T",
    "qSupported:",
    "qXfer:features:read:target.xml:",
    "qfThreadInfo",
    "qsThreadInfo",
    "qThreadExtraInfo,",
    "qRcmd,",
    "qRcmd,706879736963616c206f6e",
    "QStartNoAckMode",
    "?",
    "D",
};

static void give(struct gdb_server *s, const uint8_t *data, size_t len)
{
    size_t at = 0, waiting;

    while (at < len && !gdb_server_is_over(s)) {
        at += gdb_server_input(s, data + at, len - at);
        gdb_server_output(s, &waiting);
        gdb_server_sent(s, waiting);
    }
}

static void give_packet(struct gdb_server *s, const uint8_t *data, size_t len)
{
    static struct gdb_link writer;
    static struct gdb_reply r;

    r.len = 0;
    if (len > 0 && *data >= 0x80) { /* a whole command's begin in one byte */
        gdb_put_text(&r, commands[*data++ % QZ_ARRAY_LEN(commands)]);
        len--;
    }
    gdb_put(&r, data, QZ_MIN(len, GDB_PACKET_MAX - r.len));
    gdb_link_init(&writer);
    gdb_link_send(&writer, &r);
    give(s, writer.out, writer.out_len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fake_target fake;
    const uint8_t *end = data + size;
    struct gdb_target target;
    struct gdb_server *s;

    fake_target_new(&fake, &target, size & 1);
    if (gdb_server_new(&s, &target) < 0)
        return 0;
    while (data < end && !gdb_server_is_over(s)) {
        const uint8_t *line = memchr(data, '\n', (size_t)(end - data));
        const size_t len = (size_t)((line ? line : end) - data);

        if (fake.running && len % 3 == 0) {
            fake.running = false;
            gdb_server_stopped(s, &(const struct gdb_stop){.kind = (enum gdb_stop_kind)(len % 5),
                                                           .cpu = len % FAKE_CPUS});
        }
        if (*data == '!')
            give(s, data + 1, len - 1);
        else
            give_packet(s, data, len);
        data += len + (line != NULL);
    }
    if (!gdb_server_is_over(s))
        gdb_server_detach(s);
    gdb_server_free(s);
    return 0;
}

/* server_query.c - what the debugger asks about the server and the machine: q, Q, and `monitor`. */
#include "gdb/server_internal.h"

enum { THREADS_IN_A_PACKET = 256, MONITOR_LINE_MAX = 256 };

/* ---- threads -----------------------------------------------------------------------------------
 */

static void list_threads(struct gdb_server *s)
{
    const unsigned end = QZ_MIN(s->target.cpus, s->listed + THREADS_IN_A_PACKET);

    if (s->listed == end)
        return gdb_put_text(&s->reply, "l");
    for (char before = 'm'; s->listed < end; before = ',')
        gdb_printf(&s->reply, "%c%x", before, ++s->listed);
}

static void describe_thread(struct gdb_server *s, struct gdb_scan *a)
{
    char text[64];
    unsigned cpu = 0;
    bool any;

    if (!gdb_get_thread(s, a, &cpu, &any) || any || !gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    snprintf(text, sizeof(text), "vCPU %u%s", cpu,
             s->target.ops->is_halted(s->target.context, cpu) ? " [halted]" : "");
    gdb_put_hex(&s->reply, text, strlen(text));
}

/* ---- features ----------------------------------------------------------------------------------
 */

/* Whether the debugger's list of features has this one. */
static bool knows(const struct gdb_scan *a, const char *feature)
{
    const size_t n = strlen(feature), len = (size_t)(a->end - a->p);
    const uint8_t *at = memmem(a->p, len, feature, n);

    return at && (at + n == a->end || at[n] == ';');
}

static void tell_features(struct gdb_server *s, const struct gdb_scan *a)
{
    s->tell_swbreak = knows(a, "swbreak+");
    s->tell_hwbreak = knows(a, "hwbreak+");
    gdb_printf(&s->reply,
               "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;"
               "swbreak+;hwbreak+;binary-upload+",
               GDB_PACKET_MAX);
}

/* qXfer:features:read:target.xml:offset,length */
static void transfer(struct gdb_server *s, struct gdb_scan *a)
{
    uint64_t offset, len;

    if (!gdb_get_word(a, "target.xml:"))
        return gdb_put_text(&s->reply, "E00"); /* no such annex */
    if (!gdb_get_number(a, &offset) || !gdb_get_char(a, ',') || !gdb_get_number(a, &len) ||
        !gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    gdb_put_text(&s->reply, "l");
    if (gdb_target_xml(&s->reply, offset, QZ_MIN(len, (uint64_t)GDB_PACKET_MAX - 1)))
        s->reply.data[0] = 'm';
}

void gdb_query(struct gdb_server *s, struct gdb_scan *a)
{
    if (gdb_get_word(a, "Supported")) {
        tell_features(s, a);
    } else if (gdb_get_word(a, "Xfer:features:read:")) {
        transfer(s, a);
    } else if (gdb_get_word(a, "fThreadInfo")) {
        s->listed = 0;
        list_threads(s);
    } else if (gdb_get_word(a, "sThreadInfo")) {
        list_threads(s);
    } else if (gdb_get_word(a, "ThreadExtraInfo,")) {
        describe_thread(s, a);
    } else if (gdb_get_word(a, "Attached")) {
        gdb_put_text(&s->reply, "1"); /* so that quitting detaches and does not kill */
    } else if (gdb_get_word(a, "Rcmd,")) {
        gdb_monitor(s, a);
    } else if (gdb_get_char(a, 'C') && gdb_at_end(a)) {
        gdb_printf(&s->reply, "QC%x", s->cpu + 1);
    }
}

void gdb_set(struct gdb_server *s, struct gdb_scan *a)
{
    if (gdb_get_word(a, "StartNoAckMode")) {
        s->no_ack_next = true;
        gdb_answer(s, 0);
    }
}

/* ---- monitor -----------------------------------------------------------------------------------
 */

static void say(struct gdb_server *s, const char *text)
{
    gdb_put_hex(&s->reply, text, strlen(text));
}

static void monitor_info(struct gdb_server *s)
{
    char text[2048] = "";

    s->target.ops->describe(s->target.context, text, sizeof(text));
    say(s, text);
    snprintf(text, sizeof(text), "memory commands take %s addresses\n%u of %u points are set\n",
             s->physical ? "physical" : "linear", s->points, (unsigned)ACCEL_POINTS_MAX);
    say(s, text);
}

static void monitor_reset(struct gdb_server *s)
{
    struct qz_error err = {0};

    s->state_valid = false;
    if (s->target.ops->reset(s->target.context, &err) == 0)
        return say(s,
                   "reset; it waits at its first instruction (maintenance flush register-cache)\n");
    say(s, err.text);
    say(s, "\n");
}

static void monitor_physical(struct gdb_server *s, const char *how)
{
    if (!strcmp(how, "on") || !strcmp(how, "off"))
        s->physical = !strcmp(how, "on");
    else
        return say(s, "physical on|off\n");
    say(s, s->physical ? "addresses are physical now\n" : "addresses are linear now\n");
}

static void monitor_translate(struct gdb_server *s, const char *address)
{
    const struct vcpu_state *state = gdb_state(s, s->cpu);
    uint64_t linear, gpa;
    char text[96];

    if (qz_parse_u64(address, "address", 0, UINT64_MAX, &linear, NULL) < 0)
        return say(s, "translate ADDRESS, such as 0xffffffff81000000\n");
    if (state && gdb_translate(&s->target, state, linear, &gpa) == 0)
        snprintf(text, sizeof(text), "0x%llx is physical 0x%llx\n", (unsigned long long)linear,
                 (unsigned long long)gpa);
    else
        snprintf(text, sizeof(text), "0x%llx is not mapped on vCPU %u\n",
                 (unsigned long long)linear, s->cpu);
    say(s, text);
}

static void monitor_help(struct gdb_server *s)
{
    say(s, "info               the machine, its vCPUs, this connection\n"
           "physical on|off    memory commands take physical addresses\n"
           "translate ADDRESS  the physical address of a linear one\n"
           "reset              the machine starts again, stopped at its first instruction\n"
           "help               this\n");
}

static void run_line(struct gdb_server *s, const char *line)
{
    if (!strcmp(line, "info"))
        monitor_info(s);
    else if (!strcmp(line, "reset"))
        monitor_reset(s);
    else if (!strcmp(line, "help") || !*line)
        monitor_help(s);
    else if (!strncmp(line, "physical ", 9))
        monitor_physical(s, line + 9);
    else if (!strncmp(line, "translate ", 10))
        monitor_translate(s, line + 10);
    else
        say(s, "no such command; `monitor help` lists them\n");
}

void gdb_monitor(struct gdb_server *s, struct gdb_scan *a)
{
    const size_t len = (size_t)(a->end - a->p) / 2;
    char line[MONITOR_LINE_MAX];

    if (len >= sizeof(line) || !gdb_get_hex(a, line, len) || !gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    line[len] = '\0';
    run_line(s, line);
    if (s->reply.len == 0)
        gdb_answer(s, 0);
}

/* server.c - from a packet to the command that it is (server.h). */
#include "gdb/server_internal.h"

void gdb_answer(struct gdb_server *s, int result)
{
    s->reply.len = 0;
    if (result == 0)
        gdb_put_text(&s->reply, "OK");
    else if (result != -EOPNOTSUPP) /* an empty answer: no such thing here */
        gdb_printf(&s->reply, "E%02x", (unsigned)-result & 0xff);
}

/* Hg and Hc: 0 is any, -1 all; what is said later is about the vCPU chosen before then. */
static void choose_thread(struct gdb_server *s, struct gdb_scan *a)
{
    const bool step = gdb_get_char(a, 'c');
    unsigned cpu = s->cpu;
    bool any;

    if ((!step && !gdb_get_char(a, 'g')) || !gdb_get_thread(s, a, &cpu, &any) || !gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    *(step ? &s->step : &s->cpu) = cpu;
    gdb_answer(s, 0);
}

static void is_thread_alive(struct gdb_server *s, struct gdb_scan *a)
{
    unsigned cpu;
    bool any;

    gdb_answer(s, gdb_get_thread(s, a, &cpu, &any) && !any && gdb_at_end(a) ? 0 : -ESRCH);
}

static void kill_machine(struct gdb_server *s)
{
    s->over = true;
    s->target.ops->kill(s->target.context);
}

static void verb(struct gdb_server *s, struct gdb_scan *a)
{
    if (gdb_get_word(a, "Cont")) {
        gdb_vcont(s, a);
    } else if (gdb_get_word(a, "Kill;")) {
        gdb_answer(s, 0);
        kill_machine(s);
    }
}

/* An empty answer says that a command is not known. */
static void command(struct gdb_server *s, struct gdb_scan *a)
{
    switch (*a->p++) {
    case '?':
        return gdb_tell_stop(s);
    case 'g':
        return gdb_read_registers(s);
    case 'G':
        return gdb_write_registers(s, a);
    case 'p':
        return gdb_read_register(s, a);
    case 'P':
        return gdb_write_register(s, a);
    case 'm':
        return gdb_read_memory(s, a, false);
    case 'x':
        return gdb_read_memory(s, a, true);
    case 'M':
        return gdb_write_memory(s, a, false);
    case 'X':
        return gdb_write_memory(s, a, true);
    case 'Z':
        return gdb_insert_point(s, a);
    case 'z':
        return gdb_remove_point(s, a);
    case 'c':
        return gdb_continue(s, a, false, false);
    case 'C':
        return gdb_continue(s, a, false, true);
    case 's':
        return gdb_continue(s, a, true, false);
    case 'S':
        return gdb_continue(s, a, true, true);
    case 'v':
        return verb(s, a);
    case 'H':
        return choose_thread(s, a);
    case 'T':
        return is_thread_alive(s, a);
    case 'q':
        return gdb_query(s, a);
    case 'Q':
        return gdb_set(s, a);
    case 'D':
        gdb_detach(s);
        return gdb_answer(s, 0);
    case 'k':
        return kill_machine(s);
    default:
        return;
    }
}

static void packet(struct gdb_server *s)
{
    struct gdb_scan a = {s->link.packet, s->link.packet + s->link.packet_len};
    const bool is_kill = !gdb_at_end(&a) && *a.p == 'k';

    s->reply.len = 0;
    s->reply.overflow = false;
    if (s->running && !is_kill)
        gdb_answer(s, -EBUSY); /* all-stop: nothing but an interrupt is asked while it runs */
    else if (!gdb_at_end(&a))
        command(s, &a);
    if (is_kill || (s->running && s->reply.len == 0))
        return; /* k has no answer, going on has one when it stops */
    if (s->reply.overflow)
        gdb_answer(s, -E2BIG);
    gdb_link_send(&s->link, &s->reply);
    s->link.no_ack |= s->no_ack_next;
}

static void interrupt(struct gdb_server *s)
{
    if (!s->running)
        return;
    s->target.ops->stop(s->target.context);
    gdb_server_stopped(s, &(const struct gdb_stop){.kind = GDB_STOP_INTERRUPT, .cpu = s->cpu});
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

size_t gdb_server_input(struct gdb_server *s, const uint8_t *data, size_t len)
{
    size_t done = 0;

    while (done < len && !s->over && !gdb_link_has_output(&s->link)) {
        size_t used;

        switch (gdb_link_input(&s->link, data + done, len - done, &used)) {
        case GDB_PACKET:
            packet(s);
            break;
        case GDB_INTERRUPT:
            interrupt(s);
            break;
        case GDB_NOTHING:
            break;
        }
        done += used;
    }
    return done;
}

const uint8_t *gdb_server_output(const struct gdb_server *s, size_t *len)
{
    *len = s->link.out_len - s->link.out_sent;
    return s->link.out + s->link.out_sent;
}

void gdb_server_sent(struct gdb_server *s, size_t len)
{
    s->link.out_sent += QZ_MIN(len, s->link.out_len - s->link.out_sent);
}

/* ---- the machine's side ------------------------------------------------------------------------
 */

void gdb_server_stopped(struct gdb_server *s, const struct gdb_stop *stop)
{
    if (!s->running || s->over)
        return;
    s->running = false;
    s->state_valid = false;
    s->stop = *stop;
    s->cpu = s->step = stop->cpu;
    s->reply.len = 0;
    s->reply.overflow = false;
    gdb_tell_stop(s);
    gdb_link_send(&s->link, &s->reply);
}

void gdb_server_exited(struct gdb_server *s, int code)
{
    if (!s->running || s->over)
        return;
    s->over = true;
    s->reply.len = 0;
    s->reply.overflow = false;
    gdb_printf(&s->reply, "W%02x", (unsigned)code & 0xff);
    gdb_link_send(&s->link, &s->reply);
}

bool gdb_server_is_running(const struct gdb_server *s)
{
    return s->running;
}

bool gdb_server_is_over(const struct gdb_server *s)
{
    return s->over;
}

int gdb_server_new(struct gdb_server **out, const struct gdb_target *target)
{
    struct gdb_server *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->target = *target;
    s->stop.kind = GDB_STOP_INTERRUPT;
    s->action = calloc(target->cpus, sizeof(s->action[0]));
    if (!s->action || posix_memalign((void **)&s->state, 64, sizeof(*s->state))) {
        free(s->action);
        free(s);
        return -ENOMEM;
    }
    gdb_link_init(&s->link);
    *out = s;
    return 0;
}

void gdb_server_detach(struct gdb_server *s)
{
    if (!s->over)
        gdb_detach(s);
}

void gdb_server_free(struct gdb_server *s)
{
    if (!s)
        return;
    free(s->state);
    free(s->action);
    free(s);
}

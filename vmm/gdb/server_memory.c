/* server_memory.c - registers and memory: g G p P m M x X. */
#include "gdb/server_internal.h"

/* ---- registers ---------------------------------------------------------------------------------
 */

struct vcpu_state *gdb_state(struct gdb_server *s, unsigned cpu)
{
    if (s->state_valid && s->state_cpu == cpu)
        return s->state;
    s->state_cpu = cpu;
    s->state_valid = s->target.ops->get_state(s->target.context, cpu, s->state) == 0;
    return s->state_valid ? s->state : NULL;
}

static void put_register(struct gdb_server *s, const struct vcpu_state *state, unsigned n)
{
    uint8_t value[GDB_REGISTER_BYTES_MAX];

    gdb_register_get(state, n, value);
    gdb_put_hex(&s->reply, value, gdb_register_size(n));
}

void gdb_read_registers(struct gdb_server *s)
{
    const struct vcpu_state *state = gdb_state(s, s->cpu);

    if (!state)
        return gdb_answer(s, -EIO);
    for (unsigned n = 0; n < gdb_register_count(); n++)
        put_register(s, state, n);
}

void gdb_read_register(struct gdb_server *s, struct gdb_scan *a)
{
    const struct vcpu_state *state = gdb_state(s, s->cpu);
    uint64_t n;

    if (!gdb_get_number(a, &n) || !gdb_at_end(a) || n >= gdb_register_count())
        return gdb_answer(s, -EINVAL);
    if (!state)
        return gdb_answer(s, -EIO);
    put_register(s, state, (unsigned)n);
}

/* r: how the changes to the cached state went. What did not go is forgotten. */
static void give_registers(struct gdb_server *s, int r)
{
    if (r == 0)
        r = s->target.ops->set_registers(s->target.context, s->cpu, s->state);
    s->state_valid = false; /* read again: the vCPU may have made something else of it */
    gdb_answer(s, r);
}

static int set_one(struct gdb_server *s, unsigned n, struct gdb_scan *a)
{
    uint8_t value[GDB_REGISTER_BYTES_MAX] = {0};

    if (!gdb_get_hex(a, value, gdb_register_size(n)))
        return -EINVAL;
    return gdb_register_set(s->state, n, value);
}

void gdb_write_register(struct gdb_server *s, struct gdb_scan *a)
{
    uint64_t n;
    int r;

    if (!gdb_get_number(a, &n) || !gdb_get_char(a, '=') || n >= gdb_register_count())
        return gdb_answer(s, -EINVAL);
    if (!gdb_state(s, s->cpu))
        return gdb_answer(s, -EIO);
    r = set_one(s, (unsigned)n, a);
    give_registers(s, r == 0 && !gdb_at_end(a) ? -EINVAL : r);
}

void gdb_write_registers(struct gdb_server *s, struct gdb_scan *a)
{
    int r = 0;

    if (!gdb_state(s, s->cpu))
        return gdb_answer(s, -EIO);
    for (unsigned n = 0; r == 0 && n < gdb_register_count(); n++)
        r = set_one(s, n, a);
    give_registers(s, r == 0 && !gdb_at_end(a) ? -EINVAL : r);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* address,length */
static bool get_range(struct gdb_scan *a, uint64_t *address, uint64_t *len)
{
    return gdb_get_number(a, address) && gdb_get_char(a, ',') && gdb_get_number(a, len);
}

/* The address space that addresses are about; false: it cannot be had. */
static bool address_space(struct gdb_server *s, const struct vcpu_state **state)
{
    *state = s->physical ? NULL : gdb_state(s, s->cpu);
    return s->physical || *state;
}

/* A shorter answer than what was asked for says where memory ends. */
void gdb_read_memory(struct gdb_server *s, struct gdb_scan *a, bool binary)
{
    const struct vcpu_state *state;
    uint64_t address, len;
    int64_t got = 0;

    if (!get_range(a, &address, &len) || !gdb_at_end(a))
        return gdb_answer(s, -EINVAL);
    len = QZ_MIN(len, (uint64_t)(binary ? GDB_PACKET_MAX - 1 : GDB_PACKET_MAX / 2));
    if (!address_space(s, &state))
        return gdb_answer(s, -EIO);
    if (len > 0)
        got = gdb_memory(&s->target, state, address, s->data, len, false);
    if (got < 0)
        return gdb_answer(s, (int)got);
    gdb_hide_patches(s, state, address, s->data, (size_t)got);
    if (binary) {
        gdb_put_text(&s->reply, "b");
        gdb_put(&s->reply, s->data, (size_t)got);
    } else {
        gdb_put_hex(&s->reply, s->data, (size_t)got);
    }
}

void gdb_write_memory(struct gdb_server *s, struct gdb_scan *a, bool binary)
{
    const struct vcpu_state *state;
    uint64_t address, len;
    int64_t done = 0;

    if (!get_range(a, &address, &len) || !gdb_get_char(a, ':') || len > sizeof(s->data))
        return gdb_answer(s, -EINVAL);
    if (binary && (size_t)(a->end - a->p) == len) {
        memcpy(s->data, a->p, len);
    } else if (binary || !gdb_get_hex(a, s->data, len) || !gdb_at_end(a)) {
        return gdb_answer(s, -EINVAL);
    }
    if (!address_space(s, &state))
        return gdb_answer(s, -EIO);
    gdb_write_through_patches(s, state, address, s->data, len);
    if (len > 0)
        done = gdb_memory(&s->target, state, address, s->data, len, true);
    gdb_answer(s, done == (int64_t)len ? 0 : -EFAULT);
}

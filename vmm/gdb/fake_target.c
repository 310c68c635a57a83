/* fake_target.c - see fake_target.h. What the server must not do while the machine runs ends the
 * test. */
#include "gdb/fake_target.h"

#include <assert.h>

static int get_state(void *context, unsigned cpu, struct vcpu_state *s)
{
    struct fake_target *f = context;

    assert(!f->running && cpu < FAKE_CPUS);
    *s = f->state[cpu];
    return 0;
}

static int set_registers(void *context, unsigned cpu, const struct vcpu_state *s)
{
    struct fake_target *f = context;

    assert(!f->running && cpu < FAKE_CPUS);
    f->state[cpu] = *s;
    f->sets++;
    return 0;
}

static int physical(void *context, uint64_t gpa, void *data, size_t len, bool write)
{
    struct fake_target *f = context;

    assert(!f->running && len <= 4096 && (gpa & 4095) + len <= 4096);
    if (gpa >= FAKE_MEMORY || len > FAKE_MEMORY - gpa)
        return -EFAULT;
    if (write)
        memcpy(f->memory + gpa, data, len);
    else
        memcpy(data, f->memory + gpa, len);
    return 0;
}

static int set_points(void *context, const struct accel_point *point, unsigned count)
{
    struct fake_target *f = context;

    assert(!f->running);
    for (unsigned i = 0; i < count; i++)
        assert(point[i].len >= 1 && point[i].len <= ACCEL_POINT_BYTES_MAX &&
               point[i].address + (point[i].len - 1) >= point[i].address);
    if (count > f->points_max)
        return -ENOSPC;
    f->point = point;
    f->points = count;
    return 0;
}

static void resume(void *context, const struct gdb_action *action)
{
    struct fake_target *f = context;
    bool any = false;

    assert(!f->running);
    for (unsigned i = 0; i < FAKE_CPUS; i++)
        any |= action[i].kind != GDB_STAY;
    assert(any);
    memcpy(f->action, action, sizeof(f->action));
    f->running = true;
    f->resumes++;
}

static void stop(void *context)
{
    struct fake_target *f = context;

    f->running = false;
    f->stops++;
}

static bool is_halted(void *context, unsigned cpu)
{
    assert(cpu < FAKE_CPUS);
    return cpu == 1;
}

static int reset(void *context, struct qz_error *err)
{
    ((struct fake_target *)context)->resets++;
    return 0;
}

static void kill_machine(void *context)
{
    ((struct fake_target *)context)->kills++;
}

static void describe(void *context, char *text, size_t size)
{
    snprintf(text, size, "a fake\n");
}

static void store(struct fake_target *f, uint64_t gpa, uint64_t value)
{
    qz_store_le64(f->memory + gpa, value);
}

void fake_target_new(struct fake_target *f, struct gdb_target *target, bool patches)
{
    static const struct gdb_target_ops ops = {
        .get_state = get_state,
        .set_registers = set_registers,
        .physical = physical,
        .set_points = set_points,
        .resume = resume,
        .stop = stop,
        .is_halted = is_halted,
        .reset = reset,
        .kill = kill_machine,
        .describe = describe,
    };

    memset(f, 0, sizeof(*f));
    f->points_max = ACCEL_POINTS_MAX;
    for (unsigned i = 0; i < FAKE_CPUS; i++) {
        struct vcpu_state *s = &f->state[i];

        vcpu_state_reset(s, i == 0, i);
        vcpu_state_flat(s, 64);
        s->cr0 = 0x80000011;
        s->cr3 = FAKE_PML4;
        s->cr4 = 0x620;
        s->efer = 0x500;
        s->rip = 0x1122334455 + i;
        s->xsave_size = 576;
    }
    store(f, FAKE_PML4, FAKE_PDPT | 3);
    store(f, FAKE_PML4 + 256 * 8, FAKE_PDPT | 3);
    store(f, FAKE_PDPT, FAKE_PD | 3);
    store(f, FAKE_PD, 0x83);
    store(f, FAKE_PD + 8, FAKE_PT | 3);
    store(f, FAKE_PT, FAKE_PAGE | 3);
    *target = (struct gdb_target){&ops, f, FAKE_CPUS, patches};
}

/* guest_debug.c - what a debugger wants to stop at (guest_debug.h). */
#include "cpu/jit/guest_debug.h"

#include "cpu/jit/block_cache.h"
#include "cpu/jit/world.h"

static uint64_t page_bit(uint64_t linear)
{
    return 1ull << ((linear >> 12 ^ linear >> 18) & 63);
}

static bool is_sound(const struct accel_debug *d)
{
    if (d->points > ACCEL_POINTS_MAX)
        return false;
    for (unsigned i = 0; i < d->points; i++)
        if (d->point[i].kind != POINT_EXECUTE &&
            (d->point[i].len < 1 || d->point[i].len > ACCEL_POINT_BYTES_MAX ||
             d->point[i].address + (d->point[i].len - 1) < d->point[i].address))
            return false;
    return true;
}

int jit_set_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug)
{
    struct jit_cpu *cpu = jit_cpu_of(vcpu);
    struct jit_guest_debug d = {0};

    if (debug && !is_sound(debug))
        return -EINVAL;
    if (debug) {
        d.point = debug->point;
        d.points = debug->points;
        d.step = debug->step;
    }
    for (unsigned i = 0; i < d.points; i++)
        if (d.point[i].kind == POINT_EXECUTE)
            d.pages |= page_bit(d.point[i].address);
        else
            d.watches = true;
    d.executes = d.step || d.pages;
    world_enter(cpu);
    cpu->debug = d;
    jit_attention_clear(cpu, ATTENTION_DEBUG);
    tlb_flush_level1(cpu); /* and the jump cache */
    world_leave(cpu);
    return 0;
}

const struct accel_point *guest_debug_breakpoint(const struct jit_cpu *cpu)
{
    const uint64_t linear = block_linear(cpu);

    if (!(cpu->debug.pages & page_bit(linear)))
        return NULL;
    for (unsigned i = 0; i < cpu->debug.points; i++)
        if (cpu->debug.point[i].kind == POINT_EXECUTE && cpu->debug.point[i].address == linear)
            return &cpu->debug.point[i];
    return NULL;
}

bool guest_debug_in_page(const struct jit_cpu *cpu)
{
    const uint64_t linear = block_linear(cpu);

    if (!(cpu->debug.pages & page_bit(linear)))
        return false;
    for (unsigned i = 0; i < cpu->debug.points; i++)
        if (cpu->debug.point[i].kind == POINT_EXECUTE &&
            cpu->debug.point[i].address >> 12 == linear >> 12)
            return true;
    return false;
}

/* Both ranges end before they wrap; the sums of their ends may not. */
static bool overlap(const struct accel_point *p, uint64_t linear, uint64_t len)
{
    return linear <= p->address + (p->len - 1) && p->address <= linear + (len - 1);
}

bool guest_debug_watches(const struct jit_cpu *cpu, uint64_t linear, uint64_t len)
{
    if (!cpu->debug.watches)
        return false;
    for (unsigned i = 0; i < cpu->debug.points; i++)
        if (cpu->debug.point[i].kind != POINT_EXECUTE && overlap(&cpu->debug.point[i], linear, len))
            return true;
    return false;
}

void guest_debug_access(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    const enum accel_point_kind other = write ? POINT_READ : POINT_WRITE;

    if (!cpu->debug.watches || cpu->debug.met)
        return;
    for (unsigned i = 0; i < cpu->debug.points; i++) {
        const struct accel_point *p = &cpu->debug.point[i];

        if (p->kind != POINT_EXECUTE && p->kind != other && overlap(p, linear, len)) {
            cpu->debug.met = p;
            jit_attention_set(cpu, ATTENTION_DEBUG);
            return;
        }
    }
}

bool guest_debug_take(struct jit_cpu *cpu, struct vcpu_exit *exit)
{
    const struct accel_point *p = cpu->debug.met;

    if (!p && !cpu->debug.stepped && cpu->debug.pages && !cpu->debug.step && !cpu->halted)
        p = guest_debug_breakpoint(cpu);
    if (!p && !cpu->debug.stepped)
        return false;
    exit->kind = EXIT_DEBUG;
    exit->debug.point = p;
    exit->debug.rip = cpu->rip;
    cpu->debug.met = NULL;
    cpu->debug.stepped = false;
    jit_attention_clear(cpu, ATTENTION_DEBUG);
    return true;
}

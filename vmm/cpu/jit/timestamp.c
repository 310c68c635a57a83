/*
 * timestamp.c - the time-stamp counter, and KVM's paravirtual clock, which is made of it.
 *
 * The guest's counter is the host's plus an offset, at the same rate. What it would read had the
 * guest never written to it (counter minus IA32_TSC_ADJUST, SDM vol 3 §17.17.3) is the base of the
 * clock: the same on all vCPUs, and nothing that a guest writes moves it.
 */
#include <time.h>
#include <x86intrin.h>

#include "cpu/jit/block.h"
#include "cpu/jit/counted.h"
#include "cpu/jit/msr_internal.h"

QZ_SYSCALLS(vcpu, "clock_gettime");

enum { NS_PER_S = 1000000000, SYSTEM_TIME_ENABLED = 1, PVCLOCK_TSC_STABLE = 1 };

/* struct pvclock_vcpu_time_info and pvclock_wall_clock of the guest's ABI. */
struct system_time {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad1[2];
};
struct wall_clock {
    uint32_t version, sec, nsec;
};
_Static_assert(sizeof(struct system_time) == 32 && sizeof(struct wall_clock) == 12,
               "the guest's layout");

/* What the guest's counter is an offset from. */
static uint64_t base_tsc(const struct jit_cpu *cpu)
{
    if (cpu->vm->counted)
        return counted_tsc(cpu);
    return cpu->vm->clocks_stand ? cpu->vm->stopped_tsc : __rdtsc();
}

uint64_t jit_guest_tsc(const struct jit_cpu *cpu)
{
    return base_tsc(cpu) + cpu->tsc_offset;
}

/* --- The clock -------------------------------------------------------------------------------- */

/* ns = (ticks << shift) * mul >> 32, with mul of full precision: 2^31 <= mul < 2^32. */
static void time_scale(uint32_t khz, uint32_t *mul, int8_t *shift)
{
    uint64_t hz = (uint64_t)khz * 1000, ns = NS_PER_S;
    int s = 0;

    while (hz >= 2 * ns) {
        hz >>= 1;
        s--;
    }
    while (hz < ns) {
        hz <<= 1;
        s++;
    }
    /* ns <= hz < 2 ns */
    *mul = (uint32_t)QZ_MIN(((unsigned __int128)ns << 32) / hz, (unsigned __int128)UINT32_MAX);
    *shift = (int8_t)s;
}

static uint64_t scale(uint64_t ticks, uint32_t mul, int8_t shift)
{
    const uint64_t shifted = shift < 0 ? ticks >> -shift : ticks << shift;

    return (uint64_t)((unsigned __int128)shifted * mul >> 32);
}

static uint64_t clock_ns(const struct jit_cpu *cpu, uint64_t tsc, struct system_time *t)
{
    time_scale(cpu->vm->tsc_khz ? cpu->vm->tsc_khz : 1, &t->mul, &t->shift);
    return scale(tsc - cpu->msrs->tsc_adjust, t->mul, t->shift) + cpu->vm->pv_clock_ahead;
}

/* Guest memory at [gpa, gpa + len), NULL where that is not one piece of RAM. A running vCPU's map
 * stands still. */
static void *guest_memory(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < vm->slots; i++) {
        const struct jit_slot *s = &vm->slot[i];

        if (gpa >= s->gpa && gpa - s->gpa < s->size && s->size - (gpa - s->gpa) >= len)
            return s->readonly ? NULL : s->host + (gpa - s->gpa);
    }
    return NULL;
}

/* The version is odd while the rest changes, and moves on: readers look before and after. */
static void publish(struct jit_cpu *cpu, uint64_t gpa, const void *data, uint32_t len)
{
    uint8_t *to = guest_memory(cpu->vm, gpa, len);
    uint32_t version;

    if (!to)
        return;
    memcpy(&version, to, sizeof(version));
    version = (version & ~1u) + 1;
    memcpy(to, &version, sizeof(version));
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(to + sizeof(version), (const uint8_t *)data + sizeof(version), len - sizeof(version));
    __atomic_thread_fence(__ATOMIC_RELEASE);
    version++;
    memcpy(to, &version, sizeof(version));
    blocks_written(cpu->vm, gpa, len);
}

static void publish_system_time(struct jit_cpu *cpu)
{
    struct system_time t = {.flags = PVCLOCK_TSC_STABLE};

    if (!(cpu->msrs->kvm_system_time & SYSTEM_TIME_ENABLED))
        return;
    t.tsc_timestamp = jit_guest_tsc(cpu);
    t.system_time = clock_ns(cpu, t.tsc_timestamp, &t);
    publish(cpu, cpu->msrs->kvm_system_time & ~(uint64_t)SYSTEM_TIME_ENABLED, &t, sizeof(t));
}

void kvm_system_time_write(struct jit_cpu *cpu, uint64_t value)
{
    cpu->msrs->kvm_system_time = value;
    publish_system_time(cpu);
}

/* The time of day when the clock was 0. */
void kvm_wall_clock_write(struct jit_cpu *cpu, uint64_t value)
{
    struct system_time t;
    struct timespec now;
    struct wall_clock w;
    uint64_t ns;

    cpu->msrs->kvm_wall_clock = value;
    if (!value)
        return;
    if (cpu->vm->counted) /* the nanoseconds are many: only the sum is used */
        now = (struct timespec){cpu->vm->config.epoch, (long)counted_tsc(cpu)};
    else
        clock_gettime(CLOCK_REALTIME, &now);
    ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec -
         clock_ns(cpu, jit_guest_tsc(cpu), &t);
    w = (struct wall_clock){.sec = (uint32_t)(ns / NS_PER_S), .nsec = (uint32_t)(ns % NS_PER_S)};
    publish(cpu, value, &w, sizeof(w));
}

uint64_t pv_clock(const struct jit_cpu *cpu)
{
    struct system_time t;

    return clock_ns(cpu, jit_guest_tsc(cpu), &t);
}

void pv_clock_moved(struct jit_cpu *cpu)
{
    publish_system_time(cpu);
}

/* --- The counter ------------------------------------------------------------------------------ */

static void move(struct jit_cpu *cpu, uint64_t by)
{
    cpu->tsc_offset += by;
    publish_system_time(cpu);
}

/* A write of either register moves the other (SDM vol 3 §17.17.3). */
void tsc_write(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t by = value - jit_guest_tsc(cpu);

    cpu->msrs->tsc_adjust += by;
    move(cpu, by);
}

void tsc_adjust_write(struct jit_cpu *cpu, uint64_t value)
{
    const uint64_t by = value - cpu->msrs->tsc_adjust;

    cpu->msrs->tsc_adjust = value;
    move(cpu, by);
}

/*
 * The clocks stand while the vCPUs of a machine are restored, so that those given the same number
 * go on with the same. Guest memory is not touched: the clock's register is restored later, and is
 * what says where its structure now is.
 */
void tsc_restore(struct jit_cpu *cpu, uint64_t value)
{
    cpu->tsc_offset = value - base_tsc(cpu);
}

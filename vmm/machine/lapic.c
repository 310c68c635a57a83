/*
 * lapic.c - local APICs in software (lapic.h).
 *
 * Theory of operation. Each APIC has a lock over its registers, kept in the layout of the xAPIC page (one 32-bit
 * register each 16 bytes). Anybody may set a bit of IRR and then wakes the vCPU; only the vCPU's own thread takes
 * interrupts (IRR to ISR) and writes registers. A message to several APICs takes their locks one after the other,
 * never two at once, so APICs may send to each other at will.
 */
#include "machine/lapic.h"

#include <x86intrin.h>

QZ_SYSCALLS(all, "futex");

enum { /* register numbers: offset in the page / 16 = MSR - 0x800 */
    ID = 0x02, VERSION = 0x03, TPR = 0x08, APR = 0x09, PPR = 0x0a, EOI = 0x0b, LDR = 0x0d, DFR = 0x0e, SVR = 0x0f,
    ISR = 0x10, TMR = 0x18, IRR = 0x20, ESR = 0x28, LVT_CMCI = 0x2f, ICR = 0x30, ICR_HIGH = 0x31, LVT_TIMER = 0x32,
    LVT_THERMAL = 0x33, LVT_PERF = 0x34, LVT_LINT0 = 0x35, LVT_LINT1 = 0x36, LVT_ERROR = 0x37, TIMER_INITIAL = 0x38,
    TIMER_CURRENT = 0x39, TIMER_DIVIDE = 0x3e, SELF_IPI = 0x3f,
};
enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_X2APIC_END = 0x83f };
enum { BASE_BSP = 1 << 8, BASE_X2APIC = 1 << 10, BASE_ENABLED = 1 << 11 };
enum { MODE_FIXED, MODE_LOWEST, MODE_SMI, MODE_RESERVED, MODE_NMI, MODE_INIT, MODE_STARTUP, MODE_EXTINT };
enum { ERR_SEND_VECTOR = 1 << 5, ERR_RECEIVE_VECTOR = 1 << 6, ERR_REGISTER = 1 << 7 };
enum { SVR_ENABLED = 1 << 8, LVT_MASKED = 1 << 16, DATA_LEVEL = 1 << 15, DATA_ASSERT = 1 << 14 };
enum { TIMER_ONE_SHOT = 0, TIMER_PERIODIC = 1, TIMER_TSC_DEADLINE = 2 };
enum { VERSION_VALUE = 0x14 | 5 << 16 }; /* integrated APIC, six LVT entries */

struct lapic {
    struct lapic_set *set;
    unsigned id;
    pthread_mutex_t lock;
    uint64_t base;
    uint32_t reg[64];
    uint32_t esr_pending;
    uint64_t tsc_deadline;
    struct vm_timer timer;
    int64_t timer_start;   /* machine time at which the count was loaded */
    int64_t timer_expires; /* 0: not running */
};

struct lapic_set {
    unsigned count;
    struct vm_clock *clock;
    const struct lapic_ops *ops;
    void *context;
    uint32_t tsc_khz;
    uint64_t tsc_offset;
    bool extint; /* atomic */
    struct lapic apic[];
};

/* ---- bit vectors: ISR, TMR, IRR -------------------------------------------------------------------- */

static bool bit_test(const struct lapic *a, unsigned base, uint8_t v)
{
    return a->reg[base + v / 32] >> (v % 32) & 1;
}
static void bit_set(struct lapic *a, unsigned base, uint8_t v)
{
    a->reg[base + v / 32] |= 1u << v % 32;
}
static void bit_clear(struct lapic *a, unsigned base, uint8_t v)
{
    a->reg[base + v / 32] &= ~(1u << v % 32);
}
static int highest(const struct lapic *a, unsigned base)
{
    for (int i = 7; i >= 0; i--)
        if (a->reg[base + i])
            return i * 32 + 31 - __builtin_clz(a->reg[base + i]);
    return -1;
}

static bool is_x2apic(const struct lapic *a)
{
    return a->base & BASE_X2APIC;
}

static uint32_t processor_priority(const struct lapic *a)
{
    int isr = highest(a, ISR);
    uint32_t in_service = isr < 0 ? 0 : isr & 0xf0;

    return (a->reg[TPR] & 0xf0) >= in_service ? a->reg[TPR] : in_service;
}

/* ---- receiving --------------------------------------------------------------------------------------- */

/* False when it was refused. Lock held; the caller wakes the vCPU after unlocking. */
static bool accept(struct lapic *a, uint8_t vector, bool level)
{
    if (!(a->base & BASE_ENABLED) || !(a->reg[SVR] & SVR_ENABLED))
        return false;
    if (vector < 16) {
        a->esr_pending |= ERR_RECEIVE_VECTOR;
        return false;
    }
    bit_set(a, IRR, vector);
    if (level)
        bit_set(a, TMR, vector);
    else
        bit_clear(a, TMR, vector);
    return true;
}

static void receive(struct lapic *a, unsigned mode, uint8_t vector, bool level)
{
    struct lapic_set *s = a->set;
    bool taken;

    switch (mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        pthread_mutex_lock(&a->lock);
        taken = accept(a, vector, level);
        pthread_mutex_unlock(&a->lock);
        if (taken)
            s->ops->wake(s->context, a->id);
        break;
    case MODE_NMI:
        s->ops->nmi(s->context, a->id);
        break;
    case MODE_INIT:
        s->ops->init(s->context, a->id);
        break;
    case MODE_STARTUP:
        s->ops->sipi(s->context, a->id, vector);
        break;
    }
}

/* A local interrupt by its LVT entry. Lock held; true when the vCPU is to be woken. */
static bool local(struct lapic *a, unsigned lvt)
{
    uint32_t entry = a->reg[lvt];

    if (entry & LVT_MASKED)
        return false;
    if (lvt == LVT_TIMER || lvt == LVT_ERROR || (entry >> 8 & 7) == MODE_FIXED)
        return accept(a, (uint8_t)entry, false);
    return false;
}

/* Whether a message with this destination is for the APIC (SDM §11.6.2). Reads registers that change rarely. */
static bool matches(const struct lapic *a, uint32_t destination, bool logical)
{
    uint32_t ldr = __atomic_load_n(&a->reg[LDR], __ATOMIC_RELAXED);

    if (is_x2apic(a)) {
        if (destination == 0xffffffff)
            return true;
        if (!logical)
            return destination == a->id;
        return destination >> 16 == a->id >> 4 && destination >> (a->id & 15) & 1;
    }
    if (destination == 0xffffffff)
        return true;
    if (!logical)
        return destination == a->reg[ID] >> 24;
    if (a->reg[DFR] >> 28 == 0xf) /* flat */
        return destination & ldr >> 24;
    return destination >> 4 == ldr >> 28 && destination & ldr >> 24 & 0xf;
}

enum { TO_ALL = -1, TO_ALL_BUT = -2 };

static void send(struct lapic_set *s, int shorthand, unsigned self, uint32_t destination, bool logical, unsigned mode,
                 uint8_t vector, bool level)
{
    struct lapic *lowest = NULL;

    for (unsigned i = 0; i < s->count; i++) {
        struct lapic *a = &s->apic[i];

        if (shorthand == TO_ALL_BUT && i == self)
            continue;
        if (shorthand == 0 && !matches(a, destination, logical))
            continue;
        if (mode != MODE_LOWEST) {
            receive(a, mode, vector, level);
            continue;
        }
        /* Lowest priority: the enabled APIC with the lowest processor priority, the first of equals. */
        if (a->reg[SVR] & SVR_ENABLED && (!lowest || processor_priority(a) < processor_priority(lowest)))
            lowest = a;
    }
    if (lowest)
        receive(lowest, MODE_FIXED, vector, level);
}

void lapic_message(struct lapic_set *s, uint64_t address, uint32_t data)
{
    uint32_t destination = address >> 12 & 0xff;

    destination |= (address >> 5 & 0x7f) << 8; /* bits 14:8, as announced to the guest */
    send(s, 0, 0, destination == 0xff ? 0xffffffff : destination, address >> 2 & 1, data >> 8 & 7, (uint8_t)data,
         data & DATA_LEVEL);
}

void lapic_extint(struct lapic_set *s, bool level)
{
    __atomic_store_n(&s->extint, level, __ATOMIC_SEQ_CST);
    if (level)
        s->ops->wake(s->context, 0);
}

/* ---- timer --------------------------------------------------------------------------------------------- */

static unsigned timer_mode(const struct lapic *a)
{
    return a->reg[LVT_TIMER] >> 17 & 3;
}

static unsigned divisor(const struct lapic *a)
{
    unsigned code = (a->reg[TIMER_DIVIDE] & 3) | (a->reg[TIMER_DIVIDE] >> 1 & 4);

    return code == 7 ? 1 : 2u << code;
}

static void start_timer(struct lapic *a)
{
    int64_t period = (int64_t)a->reg[TIMER_INITIAL] * divisor(a);

    a->timer_start = vm_clock_now(a->set->clock);
    a->timer_expires = period && timer_mode(a) != TIMER_TSC_DEADLINE ? a->timer_start + period : 0;
    if (a->timer_expires)
        vm_timer_arm(&a->timer, a->timer_expires);
    else
        vm_timer_cancel(&a->timer);
}

static void start_deadline(struct lapic *a, uint64_t deadline)
{
    struct lapic_set *s = a->set;
    uint64_t now = __rdtsc() + s->tsc_offset;
    uint64_t ticks = deadline > now ? deadline - now : 0;

    if (timer_mode(a) != TIMER_TSC_DEADLINE)
        return; /* ignored in the other modes (SDM §11.5.4.1) */
    a->tsc_deadline = deadline;
    if (!deadline) {
        vm_timer_cancel(&a->timer);
        return;
    }
    a->timer_expires = vm_clock_now(s->clock) +
                       (int64_t)QZ_MIN((unsigned __int128)ticks * 1000000 / QZ_MAX(s->tsc_khz, 1u),
                                       (unsigned __int128)INT64_MAX / 2);
    vm_timer_arm(&a->timer, a->timer_expires);
}

static uint32_t current_count(const struct lapic *a)
{
    int64_t left;

    if (!a->timer_expires || timer_mode(a) == TIMER_TSC_DEADLINE)
        return 0;
    left = a->timer_expires - vm_clock_now(a->set->clock);
    return left > 0 ? (uint32_t)(left / divisor(a)) : 0;
}

static void on_timer(struct vm_timer *t)
{
    struct lapic *a = QZ_CONTAINER_OF(t, struct lapic, timer);
    bool wake = false;

    pthread_mutex_lock(&a->lock);
    int64_t now = vm_clock_now(a->set->clock), period = (int64_t)a->reg[TIMER_INITIAL] * divisor(a);

    /* The guest may have stopped or moved the timer since this firing was decided. */
    if (a->timer_expires && a->timer_expires <= now) {
        wake = local(a, LVT_TIMER);
        if (timer_mode(a) == TIMER_PERIODIC && period) {
            a->timer_expires += period * ((now - a->timer_expires) / period + 1);
            vm_timer_arm(&a->timer, a->timer_expires);
        } else {
            a->timer_expires = 0;
            a->tsc_deadline = 0;
        }
    }
    pthread_mutex_unlock(&a->lock);
    if (wake)
        a->set->ops->wake(a->set->context, a->id);
}

/* ---- registers ------------------------------------------------------------------------------------------ */

/* Stores the message that the lock must not be held for. */
struct outgoing {
    bool send, eoi;
    uint32_t icr_low, destination;
    uint8_t vector;
};

static void end_of_interrupt(struct lapic *a, struct outgoing *out)
{
    int vector = highest(a, ISR);

    if (vector < 0)
        return;
    bit_clear(a, ISR, (uint8_t)vector);
    if (bit_test(a, TMR, (uint8_t)vector)) {
        out->eoi = true;
        out->vector = (uint8_t)vector;
    }
}

static void write_lvt(struct lapic *a, unsigned reg, uint32_t v)
{
    static const uint32_t masks[] = {
        [LVT_TIMER - LVT_TIMER] = 0x700ff,   [LVT_THERMAL - LVT_TIMER] = 0x107ff, [LVT_PERF - LVT_TIMER] = 0x107ff,
        [LVT_LINT0 - LVT_TIMER] = 0x1a7ff,   [LVT_LINT1 - LVT_TIMER] = 0x1a7ff,   [LVT_ERROR - LVT_TIMER] = 0x100ff,
    };
    unsigned old_mode = timer_mode(a);

    v &= masks[reg - LVT_TIMER];
    if (!(a->reg[SVR] & SVR_ENABLED))
        v |= LVT_MASKED;
    a->reg[reg] = v;
    if (reg == LVT_TIMER && timer_mode(a) != old_mode) {
        a->timer_expires = 0;
        a->tsc_deadline = 0;
        vm_timer_cancel(&a->timer);
    }
}

/* False: no such register, or read-only. Lock held. */
static bool write_register(struct lapic *a, unsigned reg, uint64_t value, struct outgoing *out)
{
    uint32_t v = (uint32_t)value;

    switch (reg) {
    case TPR:
        a->reg[TPR] = v & 0xff;
        return true;
    case EOI:
        end_of_interrupt(a, out);
        return true;
    case SVR:
        a->reg[SVR] = v & 0x1ff;
        if (!(v & SVR_ENABLED)) /* a disabled APIC masks its LVT (SDM §11.4.7.2) */
            for (unsigned i = LVT_TIMER; i <= LVT_ERROR; i++)
                a->reg[i] |= LVT_MASKED;
        return true;
    case ESR: /* writing latches what has come up since */
        a->reg[ESR] = a->esr_pending;
        a->esr_pending = 0;
        return true;
    case LVT_TIMER ... LVT_ERROR:
        write_lvt(a, reg, v);
        return true;
    case TIMER_INITIAL:
        a->reg[TIMER_INITIAL] = v;
        if (timer_mode(a) != TIMER_TSC_DEADLINE)
            start_timer(a);
        return true;
    case TIMER_DIVIDE:
        a->reg[TIMER_DIVIDE] = v & 0xb;
        if (a->timer_expires && timer_mode(a) != TIMER_TSC_DEADLINE)
            start_timer(a);
        return true;
    case ICR:
        a->reg[ICR] = v & 0xccfff;
        out->send = true;
        out->icr_low = a->reg[ICR];
        if (is_x2apic(a))
            a->reg[ICR_HIGH] = value >> 32;
        out->destination = is_x2apic(a) ? a->reg[ICR_HIGH] : a->reg[ICR_HIGH] >> 24;
        return true;
    }
    if (is_x2apic(a)) {
        if (reg != SELF_IPI)
            return false;
        out->send = true;
        out->icr_low = (v & 0xff) | 1 << 18;
        return true;
    }
    switch (reg) { /* xAPIC only */
    case ID:
    case ICR_HIGH:
    case LDR:
        a->reg[reg] = v & 0xff000000;
        return true;
    case DFR:
        a->reg[DFR] = v | 0x0fffffff;
        return true;
    }
    return false;
}

static bool read_register(struct lapic *a, unsigned reg, uint64_t *value)
{
    switch (reg) {
    case ID:
        *value = is_x2apic(a) ? a->id : a->reg[ID];
        return true;
    case PPR:
        *value = processor_priority(a);
        return true;
    case TIMER_CURRENT:
        *value = current_count(a);
        return true;
    case LDR:
        *value = is_x2apic(a) ? (a->id >> 4) << 16 | 1u << (a->id & 15) : a->reg[LDR];
        return true;
    case ICR:
        *value = a->reg[ICR] | (is_x2apic(a) ? (uint64_t)a->reg[ICR_HIGH] << 32 : 0);
        return true;
    case ICR_HIGH:
    case DFR:
    case APR:
        *value = a->reg[reg];
        return !is_x2apic(a);
    case VERSION:
    case TPR:
    case SVR:
    case ESR:
    case ISR ... IRR + 7:
    case LVT_TIMER ... TIMER_INITIAL:
    case TIMER_DIVIDE:
        *value = a->reg[reg];
        return true;
    case EOI:
        *value = 0;
        return !is_x2apic(a);
    }
    return false;
}

/* What a register write wants to tell others, once the lock is dropped. */
static void dispatch(struct lapic *a, const struct outgoing *out)
{
    struct lapic_set *s = a->set;
    unsigned mode = out->icr_low >> 8 & 7, shorthand = out->icr_low >> 18 & 3;
    bool level = out->icr_low & DATA_LEVEL;

    if (out->eoi)
        s->ops->eoi(s->context, out->vector);
    if (!out->send || (mode == MODE_INIT && level && !(out->icr_low & DATA_ASSERT)))
        return; /* INIT level de-assert synchronises arbitration ids, which nothing here has */
    if (shorthand == 1)
        receive(a, mode, (uint8_t)out->icr_low, false);
    else
        send(s, shorthand == 2 ? TO_ALL : shorthand == 3 ? TO_ALL_BUT : 0, a->id,
             !is_x2apic(a) && out->destination == 0xff ? 0xffffffff : out->destination, out->icr_low >> 11 & 1, mode,
             (uint8_t)out->icr_low, false);
}

bool lapic_mmio(struct lapic_set *s, unsigned cpu, uint64_t gpa, void *data, unsigned len, bool write)
{
    struct lapic *a = &s->apic[cpu];
    uint64_t page = a->base & ~0xfffull & ((1ull << 52) - 1), value = 0;
    unsigned reg = (gpa & 0xfff) >> 4;
    struct outgoing out = {0};

    if ((gpa & ~0xfffull) != page || !(a->base & BASE_ENABLED) || is_x2apic(a))
        return false;
    if (!write)
        memset(data, 0, len);
    if (gpa & 3 || len != 4 || gpa & 0xc || reg >= 64) /* 32 bits, aligned to 16 bytes; others are undefined */
        return true;
    pthread_mutex_lock(&a->lock);
    if (write) {
        memcpy(&value, data, 4);
        if (!write_register(a, reg, value, &out))
            a->esr_pending |= ERR_REGISTER;
    } else if (read_register(a, reg, &value)) {
        memcpy(data, &value, 4);
    } else {
        a->esr_pending |= ERR_REGISTER;
    }
    pthread_mutex_unlock(&a->lock);
    dispatch(a, &out);
    return true;
}

static void reset_registers(struct lapic *a)
{
    memset(a->reg, 0, sizeof(a->reg));
    a->reg[ID] = a->id << 24;
    a->reg[VERSION] = VERSION_VALUE;
    a->reg[DFR] = 0xffffffff;
    a->reg[SVR] = 0xff;
    for (unsigned i = LVT_TIMER; i <= LVT_ERROR; i++)
        a->reg[i] = LVT_MASKED;
    a->esr_pending = 0;
    a->tsc_deadline = 0;
    a->timer_expires = 0;
    vm_timer_cancel(&a->timer);
}

/* IA32_APIC_BASE (SDM §11.12.5): which mode changes are legal. */
static bool write_base(struct lapic *a, uint64_t v)
{
    unsigned mode = v >> 10 & 3, old = a->base >> 10 & 3;
    enum { OFF = 0, INVALID = 1, XAPIC = 2, X2APIC = 3 };

    if (v & ~(0xfffffffff000ull | BASE_BSP | BASE_X2APIC | BASE_ENABLED) || mode == INVALID)
        return false;
    if ((old == X2APIC && mode == XAPIC) || (old == OFF && mode == X2APIC))
        return false;
    a->base = (v & ~(uint64_t)BASE_BSP) | (a->id == 0 ? BASE_BSP : 0);
    if (mode == OFF && old != OFF)
        reset_registers(a);
    return true;
}

bool lapic_rdmsr(struct lapic_set *s, unsigned cpu, uint32_t index, uint64_t *value, bool *fault)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    *fault = false;
    *value = 0;
    if (index == MSR_APIC_BASE)
        *value = a->base;
    else if (index == MSR_TSC_DEADLINE)
        *value = timer_mode(a) == TIMER_TSC_DEADLINE ? a->tsc_deadline : 0;
    else if (index >= MSR_X2APIC && index <= MSR_X2APIC_END)
        *fault = !is_x2apic(a) || !read_register(a, index - MSR_X2APIC, value);
    else
        return false;
    return true;
}

bool lapic_wrmsr(struct lapic_set *s, unsigned cpu, uint32_t index, uint64_t value, bool *fault)
{
    struct lapic *a = &s->apic[cpu];
    struct outgoing out = {0};

    *fault = false;
    pthread_mutex_lock(&a->lock);
    bool mine = true;

    if (index == MSR_APIC_BASE)
        *fault = !write_base(a, value);
    else if (index == MSR_TSC_DEADLINE)
        start_deadline(a, value);
    else if (index >= MSR_X2APIC && index <= MSR_X2APIC_END)
        /* EOI and ESR take zero only; other registers but ICR have no upper half. */
        *fault = !is_x2apic(a) || ((index == MSR_X2APIC + EOI || index == MSR_X2APIC + ESR) && value) ||
                 (index != MSR_X2APIC + ICR && value >> 32) || !write_register(a, index - MSR_X2APIC, value, &out);
    else
        mine = false;
    pthread_mutex_unlock(&a->lock);
    if (mine && !*fault)
        dispatch(a, &out);
    return mine;
}

/* ---- the vCPU's side ----------------------------------------------------------------------------------------- */

/* Whether the PIC's interrupts pass: always with the APIC off, else by LINT0 in ExtINT mode. Lock held. */
static bool extint_passes(const struct lapic *a)
{
    if (a->id != 0 || !__atomic_load_n(&a->set->extint, __ATOMIC_SEQ_CST))
        return false;
    if (!(a->base & BASE_ENABLED))
        return true;
    return !(a->reg[LVT_LINT0] & LVT_MASKED) && (a->reg[LVT_LINT0] >> 8 & 7) == MODE_EXTINT;
}

static int deliverable(const struct lapic *a)
{
    int vector = a->reg[SVR] & SVR_ENABLED ? highest(a, IRR) : -1;

    return vector >= 0 && ((uint32_t)vector & 0xf0) > (processor_priority(a) & 0xf0) ? vector : -1;
}

bool lapic_pending(struct lapic_set *s, unsigned cpu)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    return extint_passes(a) || deliverable(a) >= 0;
}

int lapic_acknowledge(struct lapic_set *s, unsigned cpu, bool *extint)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);
    int vector = deliverable(a);

    *extint = vector < 0 && extint_passes(a);
    if (vector >= 0) {
        bit_clear(a, IRR, (uint8_t)vector);
        bit_set(a, ISR, (uint8_t)vector);
    }
    return vector;
}

uint64_t lapic_get_tpr(struct lapic_set *s, unsigned cpu)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    return a->reg[TPR] >> 4;
}

void lapic_set_tpr(struct lapic_set *s, unsigned cpu, uint64_t cr8)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    if (a->reg[TPR] >> 4 != (cr8 & 15))
        a->reg[TPR] = (cr8 & 15) << 4;
}

void lapic_get(struct lapic_set *s, unsigned cpu, struct lapic_registers *r, uint64_t *base)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    memcpy(r->reg, a->reg, sizeof(r->reg));
    r->reg[TIMER_CURRENT] = current_count(a);
    r->tsc_deadline = a->tsc_deadline;
    *base = a->base;
}

void lapic_put(struct lapic_set *s, unsigned cpu, const struct lapic_registers *r, uint64_t base)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    reset_registers(a);
    memcpy(a->reg, r->reg, sizeof(a->reg));
    a->reg[ID] = a->id << 24;
    a->reg[VERSION] = VERSION_VALUE;
    a->base = base;
    if (timer_mode(a) == TIMER_TSC_DEADLINE) {
        start_deadline(a, r->tsc_deadline);
    } else if (r->reg[TIMER_CURRENT]) {
        a->timer_expires = vm_clock_now(s->clock) + (int64_t)r->reg[TIMER_CURRENT] * divisor(a);
        vm_timer_arm(&a->timer, a->timer_expires);
    }
}

int lapic_set_new(struct lapic_set **out, unsigned cpus, struct vm_clock *clock, const struct lapic_ops *ops, void *context)
{
    struct lapic_set *s = calloc(1, sizeof(*s) + cpus * sizeof(s->apic[0]));

    if (!s)
        return -ENOMEM;
    s->count = cpus;
    s->clock = clock;
    s->ops = ops;
    s->context = context;
    s->tsc_khz = 1000000;
    for (unsigned i = 0; i < cpus; i++) {
        s->apic[i].set = s;
        s->apic[i].id = i;
        pthread_mutex_init(&s->apic[i].lock, NULL);
        vm_timer_init(&s->apic[i].timer, clock, on_timer);
    }
    lapic_set_reset(s);
    *out = s;
    return 0;
}

void lapic_set_free(struct lapic_set *s)
{
    for (unsigned i = 0; s && i < s->count; i++) {
        vm_timer_cancel(&s->apic[i].timer);
        pthread_mutex_destroy(&s->apic[i].lock);
    }
    free(s);
}

void lapic_set_reset(struct lapic_set *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct lapic *a = &s->apic[i];
        QZ_LOCKED(&a->lock);

        a->base = LAPIC_BASE | BASE_ENABLED | (i == 0 ? BASE_BSP : 0);
        reset_registers(a);
    }
}

void lapic_set_tsc(struct lapic_set *s, uint32_t khz, uint64_t offset)
{
    s->tsc_khz = khz;
    s->tsc_offset = offset;
}

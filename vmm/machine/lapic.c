/*
 * lapic.c - local APICs in software (lapic.h): registers and delivery. The timer is in
 * lapic_timer.c.
 *
 * Theory of operation. Each APIC has a lock over its registers, kept in the layout of the xAPIC
 * page (one 32-bit register each 16 bytes). Anybody may set a bit of IRR and then wakes the vCPU;
 * only the vCPU's own thread takes interrupts (IRR to ISR) and writes registers. A message to
 * several APICs takes their locks one after the other, never two at once, and nothing outside is
 * called with one held, so APICs may send to each other at will. Orders to the vCPU (wake, NMI) are
 * noted under the lock and given when it is dropped.
 *
 * The APIC ID is the vCPU's number and cannot be changed (SDM vol 3 §11.4.6 leaves that to the
 * model).
 */
#include <x86intrin.h>

#include "machine/lapic_internal.h"

QZ_SYSCALLS(all, "futex");

enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0, MSR_X2APIC = 0x800, MSR_X2APIC_END = 0x83f };
enum { BASE_BSP = 1 << 8, BASE_X2APIC = 1 << 10, BASE_ENABLED = 1 << 11 };
#define BASE_PAGE 0x000ffffffffff000ull

enum {
    MODE_FIXED,
    MODE_LOWEST,
    MODE_SMI,
    MODE_RESERVED,
    MODE_NMI,
    MODE_INIT,
    MODE_STARTUP,
    MODE_EXTINT
};
enum { TO_DESTINATION, TO_SELF, TO_ALL, TO_OTHERS }; /* shorthands */
enum { ERR_SEND_VECTOR = 1 << 5, ERR_RECEIVE_VECTOR = 1 << 6, ERR_REGISTER = 1 << 7 };
enum { SVR_ENABLED = 1 << 8, SVR_KEPT = 0x3ff };
enum { LVT_MASKED = 1 << 16, LVT_LEVEL = 1 << 15, LVT_REMOTE_IRR = 1 << 14, LVT_STATUS = 1 << 12 };
enum { ICR_LOGICAL = 1 << 11, ICR_ASSERT = 1 << 14, ICR_LEVEL = 1 << 15, ICR_KEPT = 0xccfff };
enum { VERSION_VALUE = 0x14 | 5 << 16 }; /* integrated APIC, six LVT entries */

/* ---- bit vectors: ISR, TMR, IRR ------------------------------------------------------------- */

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

/* ---- small questions; lock held ------------------------------------------------------------- */

static bool is_enabled(const struct lapic *a)
{
    return a->base & BASE_ENABLED;
}
static bool is_x2apic(const struct lapic *a)
{
    return a->base & BASE_X2APIC;
}
static bool takes_interrupts(const struct lapic *a)
{
    return is_enabled(a) && a->reg[SVR] & SVR_ENABLED;
}

static uint32_t class_of(int vector)
{
    return vector < 0 ? 0 : vector & 0xf0;
}

/* §11.8.3.1 */
static uint32_t processor_priority(const struct lapic *a)
{
    uint32_t in_service = class_of(highest(a, ISR));

    return (a->reg[TPR] & 0xf0) >= in_service ? a->reg[TPR] : in_service;
}

/* §11.6.2.4: no bus arbitrates any more, but the register is still there in xAPIC mode. */
static uint32_t arbitration_priority(const struct lapic *a)
{
    uint32_t in_service = class_of(highest(a, ISR)), requested = class_of(highest(a, IRR));

    if ((a->reg[TPR] & 0xf0) >= requested && (a->reg[TPR] & 0xf0) > in_service)
        return a->reg[TPR];
    return QZ_MAX(QZ_MAX(a->reg[TPR] & 0xf0, in_service), requested);
}

static uint32_t apic_id(const struct lapic *a)
{
    return is_x2apic(a) ? a->id : a->id << 24;
}
static uint32_t logical_id(const struct lapic *a)
{
    return is_x2apic(a) ? (a->id >> 4) << 16 | 1u << (a->id & 15) : a->reg[LDR];
}

/* ---- lock and notes ------------------------------------------------------------------------- */

void lapic_lock(struct lapic *a)
{
    pthread_mutex_lock(&a->lock);
}

void lapic_unlock(struct lapic *a, bool own_thread)
{
    struct lapic_set *s = a->set;
    unsigned notes = a->notes;

    a->notes = 0;
    pthread_mutex_unlock(&a->lock);
    if (notes & NOTE_NMI)
        s->ops->nmi(s->context, a->id);
    if (notes & NOTE_WAKE && !own_thread)
        s->ops->wake(s->context, a->id);
}

/* ---- accepting; lock held ------------------------------------------------------------------- */

static void accept(struct lapic *a, uint8_t vector, bool level);

static void raise_error(struct lapic *a, uint32_t bit)
{
    /* Only news interrupts. It also ends the circle of an error entry whose own vector is illegal.
     */
    if (a->esr_pending & bit)
        return;
    a->esr_pending |= bit;
    lapic_local(a, LVT_ERROR);
}

static void accept(struct lapic *a, uint8_t vector, bool level)
{
    if (!takes_interrupts(a))
        return;
    if (vector < 16) {
        raise_error(a, ERR_RECEIVE_VECTOR);
        return;
    }
    if (!bit_test(a, IRR, vector))
        a->notes |= NOTE_WAKE; /* whoever set the bit before has woken the vCPU */
    bit_set(a, IRR, vector);
    if (level)
        bit_set(a, TMR, vector);
    else
        bit_clear(a, TMR, vector);
}

void lapic_local(struct lapic *a, unsigned lvt)
{
    uint32_t entry = a->reg[lvt];

    if (!(entry & LVT_MASKED))
        accept(a, (uint8_t)entry, false);
}

/* ---- LINT0 of APIC 0, the PIC's output ------------------------------------------------------ */

static bool extint_level(const struct lapic *a)
{
    return a->id == 0 && __atomic_load_n(&a->set->extint, __ATOMIC_SEQ_CST);
}

/* Whether the PIC's interrupts pass: always with the APIC off, else by LINT0 in ExtINT mode. Lock
 * held. */
static bool extint_passes(const struct lapic *a)
{
    uint32_t entry = a->reg[LVT_LINT0];

    if (!extint_level(a))
        return false;
    return !is_enabled(a) || (!(entry & LVT_MASKED) && (entry >> 8 & 7) == MODE_EXTINT);
}

/* rose: the line has just gone up. Lock held. */
static void check_lint0(struct lapic *a, bool rose)
{
    uint32_t entry = a->reg[LVT_LINT0];
    unsigned mode = entry >> 8 & 7;

    if (!extint_level(a))
        return;
    if (extint_passes(a)) {
        a->notes |= NOTE_WAKE;
    } else if (entry & LVT_MASKED) {
        return;
    } else if (mode == MODE_NMI) {
        a->notes |= rose ? NOTE_NMI : 0;
    } else if (mode == MODE_FIXED && !(entry & LVT_LEVEL)) {
        if (rose)
            accept(a, (uint8_t)entry, false);
    } else if (mode == MODE_FIXED && !(entry & LVT_REMOTE_IRR)) {
        a->reg[LVT_LINT0] |= LVT_REMOTE_IRR;
        accept(a, (uint8_t)entry, true);
    }
}

void lapic_extint(struct lapic_set *s, bool level)
{
    struct lapic *a = &s->apic[0];
    bool old = __atomic_exchange_n(&s->extint, level, __ATOMIC_SEQ_CST);

    if (!level)
        return;
    lapic_lock(a);
    check_lint0(a, !old);
    lapic_unlock(a, false);
}

/* ---- reset ---------------------------------------------------------------------------------- */

/* As after power-up or INIT (§11.4.7); IA32_APIC_BASE stays. Lock held. */
static void reset_registers(struct lapic *a)
{
    lapic_timer_stop(a);
    memset(a->reg, 0, sizeof(a->reg));
    a->reg[VERSION] = VERSION_VALUE;
    a->reg[DFR] = 0xffffffff;
    a->reg[SVR] = 0xff;
    for (unsigned i = LVT_TIMER; i <= LVT_ERROR; i++)
        a->reg[i] = LVT_MASKED;
    a->esr_pending = 0;
    a->notes = 0;
}

/* ---- messages ------------------------------------------------------------------------------- */

struct apic_message {
    uint32_t destination;
    bool wide; /* a 32-bit destination of an x2APIC; else 8 bits, extended for MSIs to 15 */
    bool logical, level;
    uint8_t mode, vector;
    int sender; /* APIC, or -1: a device */
};

static bool is_broadcast(const struct apic_message *m, bool x2apic)
{
    /* 0xff is a CPU like any other to an x2APIC, so that all 256 can be reached. */
    return m->wide ? m->destination == 0xffffffff : m->destination == 0xff && !x2apic;
}

/* Whether a message is for this APIC (§11.6.2). Lock held. */
static bool matches(const struct lapic *a, const struct apic_message *m)
{
    uint32_t d = m->destination, ldr = logical_id(a);

    if (!is_enabled(a))
        return false;
    if (is_broadcast(m, is_x2apic(a)))
        return true;
    if (!m->logical)
        return d == a->id;
    if (is_x2apic(a))
        return d >> 16 == ldr >> 16 && d & ldr & 0xffff;
    if (d > 0xff)
        return false;
    if (a->reg[DFR] >> 28 == 0xf) /* flat */
        return d & ldr >> 24;
    return d >> 4 == ldr >> 28 && d & ldr >> 24 & 0xf;
}

static void receive(struct lapic *a, const struct apic_message *m)
{
    struct lapic_set *s = a->set;

    switch (m->mode) {
    case MODE_FIXED:
    case MODE_LOWEST:
        lapic_lock(a);
        accept(a, m->vector, m->level);
        lapic_unlock(a, m->sender == (int)a->id);
        break;
    case MODE_NMI:
        s->ops->nmi(s->context, a->id);
        break;
    case MODE_INIT:
        lapic_lock(a);
        reset_registers(a);
        lapic_unlock(a, true);
        s->ops->init(s->context, a->id);
        break;
    case MODE_STARTUP:
        s->ops->sipi(s->context, a->id, m->vector);
        break;
    default:
        /* SMI: there is no system management mode. ExtINT: the PIC speaks through LINT0 only. */
        break;
    }
}

static bool is_for(struct lapic *a, const struct apic_message *m, unsigned shorthand)
{
    bool result;

    if (shorthand != TO_DESTINATION)
        return shorthand == TO_ALL || (int)a->id != m->sender;
    pthread_mutex_lock(&a->lock);
    result = matches(a, m);
    pthread_mutex_unlock(&a->lock);
    return result;
}

/* Lowest priority: the one that is least busy; among equals they take turns. */
static void send_lowest(struct lapic_set *s, const struct apic_message *m, unsigned shorthand)
{
    unsigned first = __atomic_fetch_add(&s->arbiter, 1, __ATOMIC_RELAXED) % s->count;
    struct lapic *best = NULL;
    uint32_t best_priority = 0;

    for (unsigned i = 0; i < s->count; i++) {
        struct lapic *a = &s->apic[(first + i) % s->count];
        uint32_t priority;
        bool takes;

        if (!is_for(a, m, shorthand))
            continue;
        pthread_mutex_lock(&a->lock);
        takes = takes_interrupts(a);
        priority = processor_priority(a);
        pthread_mutex_unlock(&a->lock);
        if (takes && (!best || priority < best_priority)) {
            best = a;
            best_priority = priority;
        }
    }
    if (best)
        receive(best, m);
}

static void send(struct lapic_set *s, const struct apic_message *m, unsigned shorthand)
{
    if (m->mode == MODE_LOWEST) {
        send_lowest(s, m, shorthand);
    } else if (shorthand == TO_DESTINATION && !m->logical && !is_broadcast(m, false)) {
        /* The common case: one CPU by its number. */
        if (m->destination < s->count && is_for(&s->apic[m->destination], m, shorthand))
            receive(&s->apic[m->destination], m);
    } else {
        for (unsigned i = 0; i < s->count; i++)
            if (is_for(&s->apic[i], m, shorthand))
                receive(&s->apic[i], m);
    }
}

void lapic_message(struct lapic_set *s, uint64_t address, uint32_t data)
{
    struct apic_message m = {
        /* Bits 14:8 of the destination in address bits 11:5, as announced to the guest. */
        .destination = (uint32_t)(address >> 12 & 0xff) | (uint32_t)(address >> 5 & 0x7f) << 8,
        .logical = address >> 2 & 1,
        .level = data & ICR_LEVEL,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
        .sender = -1,
    };

    if (m.mode == MODE_STARTUP || (m.level && !(data & ICR_ASSERT)))
        return; /* start-up comes from ICR only; the end of a level says nothing to an APIC */
    send(s, &m, TO_DESTINATION);
}

/* ---- writing registers ---------------------------------------------------------------------- */

/* What a register write wants to tell others, once the lock is dropped. */
struct outgoing {
    bool send, eoi;
    unsigned shorthand;
    struct apic_message message;
    uint8_t eoi_vector;
};

static void dispatch(struct lapic *a, const struct outgoing *out)
{
    struct lapic_set *s = a->set;

    if (out->eoi)
        s->ops->eoi(s->context, out->eoi_vector);
    if (!out->send)
        return;
    if (out->shorthand == TO_SELF)
        receive(a, &out->message);
    else
        send(s, &out->message, out->shorthand);
}

static void end_of_interrupt(struct lapic *a, struct outgoing *out)
{
    int vector = highest(a, ISR);
    uint32_t lint0 = a->reg[LVT_LINT0];

    if (vector < 0)
        return;
    bit_clear(a, ISR, (uint8_t)vector);
    if (!bit_test(a, TMR, (uint8_t)vector))
        return;
    out->eoi = true;
    out->eoi_vector = (uint8_t)vector;
    if (lint0 & LVT_REMOTE_IRR && (lint0 & 0xff) == (uint32_t)vector) {
        a->reg[LVT_LINT0] &= ~LVT_REMOTE_IRR;
        check_lint0(a, false);
    }
}

static void write_icr(struct lapic *a, uint64_t value, struct outgoing *out)
{
    uint32_t v = (uint32_t)value & ICR_KEPT;
    struct apic_message *m = &out->message;

    a->reg[ICR] = v;
    if (is_x2apic(a))
        a->reg[ICR_HIGH] = value >> 32;
    *m = (struct apic_message){
        .destination = is_x2apic(a) ? a->reg[ICR_HIGH] : a->reg[ICR_HIGH] >> 24,
        .wide = is_x2apic(a),
        .logical = v & ICR_LOGICAL,
        .mode = v >> 8 & 7,
        .vector = (uint8_t)v,
        .sender = (int)a->id,
    };
    out->shorthand = v >> 18 & 3;
    if (m->mode == MODE_INIT && v & ICR_LEVEL && !(v & ICR_ASSERT))
        return; /* INIT level de-assert synchronises arbitration numbers, which nothing here has */
    if (m->mode <= MODE_LOWEST && m->vector < 16) {
        raise_error(a, ERR_SEND_VECTOR);
        return;
    }
    /* Self takes fixed interrupts only, all-including-self no INIT or start-up either (table 11-3).
     */
    if ((out->shorthand == TO_SELF && m->mode != MODE_FIXED) ||
        (out->shorthand == TO_ALL && (m->mode == MODE_INIT || m->mode == MODE_STARTUP)))
        return;
    out->send = true;
}

/* Bits of an LVT entry that software sets, and those that it may write as it read them. */
static uint32_t lvt_writable(unsigned reg)
{
    switch (reg) {
    case LVT_TIMER:
        return 0x700ff;
    case LVT_LINT0:
    case LVT_LINT1:
        return 0x1a7ff;
    case LVT_ERROR:
        return 0x100ff;
    }
    return 0x107ff;
}

static void write_lvt(struct lapic *a, unsigned reg, uint32_t v)
{
    v &= lvt_writable(reg);
    if (!(a->reg[SVR] & SVR_ENABLED))
        v |= LVT_MASKED;
    if (reg == LVT_TIMER) {
        lapic_timer_write_lvt(a, v);
        return;
    }
    if (v & LVT_LEVEL && !(v & LVT_MASKED))
        v |= a->reg[reg] & LVT_REMOTE_IRR;
    a->reg[reg] = v;
    if (reg == LVT_LINT0)
        check_lint0(a, false);
}

static void write_svr(struct lapic *a, uint32_t v)
{
    a->reg[SVR] = v & SVR_KEPT;
    if (v & SVR_ENABLED)
        return;
    for (unsigned i = LVT_TIMER; i <= LVT_ERROR;
         i++) /* a disabled APIC masks its LVT (§11.4.7.2) */
        a->reg[i] |= LVT_MASKED;
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
        write_svr(a, v);
        return true;
    case ESR: /* writing shows what has come up since the last write */
        a->reg[ESR] = a->esr_pending;
        a->esr_pending = 0;
        return true;
    case LVT_TIMER:
    case LVT_THERMAL:
    case LVT_PERF:
    case LVT_LINT0:
    case LVT_LINT1:
    case LVT_ERROR:
        write_lvt(a, reg, v);
        return true;
    case TIMER_INITIAL:
        lapic_timer_write_initial(a, v);
        return true;
    case TIMER_DIVIDE:
        lapic_timer_write_divide(a, v & 0xb);
        return true;
    case ICR:
        write_icr(a, value, out);
        return true;
    case SELF_IPI:
        if (!is_x2apic(a))
            return false;
        write_icr(a, (v & 0xff) | TO_SELF << 18, out);
        return true;
    case ICR_HIGH:
    case LDR:
        if (is_x2apic(a))
            return false;
        a->reg[reg] = v & 0xff000000;
        return true;
    case DFR:
        if (is_x2apic(a))
            return false;
        a->reg[DFR] = v | 0x0fffffff;
        return true;
    case ID: /* fixed; software that writes it back gets no error */
        return !is_x2apic(a);
    }
    return false;
}

/* x2APIC: bits that must be zero in a WRMSR, else #GP (§11.12.1.3). */
static uint64_t x2apic_reserved(unsigned reg)
{
    switch (reg) {
    case TPR:
    case SELF_IPI:
        return ~0xffull;
    case EOI:
    case ESR:
        return ~0ull;
    case SVR:
        return ~(uint64_t)SVR_KEPT;
    case ICR:
        return 0xfff32000;
    case TIMER_INITIAL:
        return ~0xffffffffull;
    case TIMER_DIVIDE:
        return ~0xbull;
    }
    return ~(uint64_t)(lvt_writable(reg) | LVT_STATUS | LVT_REMOTE_IRR);
}

/* ---- reading registers ---------------------------------------------------------------------- */

static bool read_register(const struct lapic *a, unsigned reg, uint64_t *value)
{
    bool x2apic = is_x2apic(a);

    switch (reg) {
    case ID:
        *value = apic_id(a);
        return true;
    case PPR:
        *value = processor_priority(a);
        return true;
    case TIMER_CURRENT:
        *value = lapic_timer_current(a);
        return true;
    case LDR:
        *value = logical_id(a);
        return true;
    case ICR:
        *value = a->reg[ICR] | (x2apic ? (uint64_t)a->reg[ICR_HIGH] << 32 : 0);
        return true;
    case APR:
        *value = arbitration_priority(a);
        return !x2apic;
    case EOI: /* write-only; reads as zero in the page */
    case ICR_HIGH:
    case DFR:
        *value = a->reg[reg];
        return !x2apic;
    case VERSION:
    case TPR:
    case SVR:
    case ESR:
    case LVT_TIMER ... TIMER_INITIAL:
    case TIMER_DIVIDE:
    case ISR ... IRR + 7:
        *value = a->reg[reg];
        return true;
    }
    return false;
}

/* ---- the xAPIC page ------------------------------------------------------------------------- */

/* Registers are 32 bits at the start of each 16 bytes (§11.4.1); the rest of them reads as zero. */
static void page_read(struct lapic *a, unsigned offset, uint8_t *data, unsigned len)
{
    unsigned at = offset & 15;
    uint64_t value = 0;
    uint8_t line[16] = {0};

    memset(data, 0, len);
    if (offset / 16 >= REGISTERS || !read_register(a, offset / 16, &value)) {
        raise_error(a, ERR_REGISTER);
        return;
    }
    qz_store_le32(line, (uint32_t)value);
    memcpy(data, line + at, QZ_MIN(len, 16 - at));
}

static void page_write(struct lapic *a, unsigned offset, const uint8_t *data, unsigned len,
                       struct outgoing *out)
{
    if (offset & 15 || len < 4)
        return; /* not a register; what happens is undefined, here nothing */
    if (offset / 16 >= REGISTERS || !write_register(a, offset / 16, qz_load_le32(data), out))
        raise_error(a, ERR_REGISTER);
}

bool lapic_mmio(struct lapic_set *s, unsigned cpu, uint64_t gpa, void *data, unsigned len,
                bool write)
{
    struct lapic *a = &s->apic[cpu];
    struct outgoing out = {0};
    bool mine;

    lapic_lock(a);
    mine = is_enabled(a) && !is_x2apic(a) && (gpa & ~0xfffull) == (a->base & BASE_PAGE);
    if (mine && write)
        page_write(a, gpa & 0xfff, data, len, &out);
    else if (mine)
        page_read(a, gpa & 0xfff, data, len);
    lapic_unlock(a, true);
    dispatch(a, &out);
    return mine;
}

/* ---- MSRs ----------------------------------------------------------------------------------- */

enum { BASE_OFF = 0, BASE_INVALID = 1, BASE_XAPIC = 2 /* 3: x2APIC */ };

static unsigned base_mode(uint64_t base)
{
    return base >> 10 & 3;
}

/* IA32_APIC_BASE (§11.12.5): which mode changes are legal. */
static bool write_base(struct lapic *a, uint64_t v)
{
    unsigned mode = base_mode(v), old = base_mode(a->base);
    bool to_x2apic = mode > BASE_XAPIC;

    if (v & ~(BASE_PAGE | BASE_BSP | BASE_X2APIC | BASE_ENABLED) || mode == BASE_INVALID)
        return false;
    if ((old > BASE_XAPIC && mode == BASE_XAPIC) || (old == BASE_OFF && to_x2apic))
        return false;
    a->base = (v & ~(uint64_t)BASE_BSP) | (a->id == 0 ? BASE_BSP : 0);
    if (mode == BASE_OFF && old != BASE_OFF)
        reset_registers(a);
    check_lint0(a, false);
    return true;
}

static bool is_x2apic_msr(uint32_t index)
{
    return index >= MSR_X2APIC && index <= MSR_X2APIC_END;
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
        *value = lapic_timer_deadline(a);
    else if (is_x2apic_msr(index))
        *fault = !is_x2apic(a) || !read_register(a, index - MSR_X2APIC, value);
    else
        return false;
    return true;
}

bool lapic_wrmsr(struct lapic_set *s, unsigned cpu, uint32_t index, uint64_t value, bool *fault)
{
    struct lapic *a = &s->apic[cpu];
    struct outgoing out = {0};
    unsigned reg = index - MSR_X2APIC;
    bool mine = true;

    *fault = false;
    lapic_lock(a);
    if (index == MSR_APIC_BASE)
        *fault = !write_base(a, value);
    else if (index == MSR_TSC_DEADLINE)
        lapic_timer_write_deadline(a, value);
    else if (is_x2apic_msr(index))
        *fault =
            !is_x2apic(a) || value & x2apic_reserved(reg) || !write_register(a, reg, value, &out);
    else
        mine = false;
    lapic_unlock(a, true);
    dispatch(a, &out);
    return mine;
}

/* ---- the vCPU's side ------------------------------------------------------------------------ */

static int deliverable(const struct lapic *a)
{
    int vector = is_enabled(a) ? highest(a, IRR) : -1;

    return vector >= 0 && class_of(vector) > (processor_priority(a) & 0xf0) ? vector : -1;
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

    if (a->reg[TPR] >> 4 !=
        (cr8 & 15)) /* CR8 has no subclass: an equal class leaves TPR's lower half alone */
        a->reg[TPR] = (cr8 & 15) << 4;
}

/* ---- state ---------------------------------------------------------------------------------- */

void lapic_get(struct lapic_set *s, unsigned cpu, struct lapic_registers *r, uint64_t *base)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    memcpy(r->reg, a->reg, sizeof(r->reg));
    r->reg[ID] = apic_id(a);
    r->reg[LDR] = logical_id(a);
    r->reg[PPR] = processor_priority(a);
    r->reg[TIMER_CURRENT] = lapic_timer_current(a);
    r->tsc_deadline = lapic_timer_deadline(a);
    *base = a->base;
}

int lapic_put(struct lapic_set *s, unsigned cpu, const struct lapic_registers *r, uint64_t base)
{
    struct lapic *a = &s->apic[cpu];
    QZ_LOCKED(&a->lock);

    if (base & ~(BASE_PAGE | BASE_BSP | BASE_X2APIC | BASE_ENABLED) ||
        base_mode(base) == BASE_INVALID)
        return -EINVAL;
    reset_registers(a);
    a->base = (base & ~(uint64_t)BASE_BSP) | (a->id == 0 ? BASE_BSP : 0);
    a->reg[TPR] = r->reg[TPR] & 0xff;
    a->reg[LDR] = r->reg[LDR] & 0xff000000;
    a->reg[DFR] = r->reg[DFR] | 0x0fffffff;
    a->reg[SVR] = r->reg[SVR] & SVR_KEPT;
    a->reg[ESR] = r->reg[ESR] & 0xff;
    a->reg[ICR] = r->reg[ICR] & ICR_KEPT;
    a->reg[ICR_HIGH] = r->reg[ICR_HIGH];
    memcpy(&a->reg[ISR], &r->reg[ISR], 24 * sizeof(a->reg[0]));
    a->reg[ISR] &= 0xffff0000; /* vectors below 16 do not exist */
    a->reg[IRR] &= 0xffff0000;
    for (unsigned i = LVT_TIMER; i <= LVT_ERROR; i++)
        a->reg[i] = r->reg[i] & (lvt_writable(i) | LVT_REMOTE_IRR);
    a->reg[TIMER_DIVIDE] = r->reg[TIMER_DIVIDE] & 0xb;
    a->reg[TIMER_INITIAL] = r->reg[TIMER_INITIAL];
    lapic_timer_restore(a, r->reg[TIMER_CURRENT], r->tsc_deadline);
    return 0;
}

int lapic_set_new(struct lapic_set **out, unsigned cpus, struct vm_clock *clock,
                  const struct lapic_ops *ops, void *context)
{
    struct lapic_set *s = calloc(1, sizeof(*s) + cpus * sizeof(s->apic[0]));

    if (!s)
        return -ENOMEM;
    s->count = cpus;
    s->clock = clock;
    s->ops = ops;
    s->context = context;
    s->tsc_at_start = __rdtsc();
    s->ns_at_start = qz_now_ns();
    for (unsigned i = 0; i < cpus; i++) {
        s->apic[i].set = s;
        s->apic[i].id = i;
        pthread_mutex_init(&s->apic[i].lock, NULL);
        lapic_timer_init(&s->apic[i]);
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
    for (unsigned i = 0; i < s->count; i++) {
        QZ_LOCKED(&s->apic[i].lock);

        s->apic[i].tsc_offset = offset;
        lapic_timer_tsc_changed(&s->apic[i]);
    }
}

void lapic_set_cpu_tsc(struct lapic_set *s, unsigned cpu, uint64_t offset)
{
    QZ_LOCKED(&s->apic[cpu].lock);

    s->apic[cpu].tsc_offset = offset;
}

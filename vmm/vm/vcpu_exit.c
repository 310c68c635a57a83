/*
 * vcpu_exit.c - what the guest does outside of itself: ports, device memory, MSRs, halting,
 * crashing (vcpu_internal.h).
 */
#include "vm/vcpu_internal.h"

#include "cpu/vcpu_msrs.h"

static void do_pio(struct vcpu *v, const struct vcpu_exit *e)
{
    struct bus *pio = v->group->machine->pio;
    uint8_t *data = e->pio.data;

    for (uint32_t i = 0; i < e->pio.count; i++, data += e->pio.size)
        if (e->pio.write)
            bus_write(pio, e->pio.port, data, e->pio.size);
        else
            bus_read(pio, e->pio.port, data, e->pio.size);
}

static void do_mmio(struct vcpu *v, const struct vcpu_exit *e)
{
    struct machine *m = v->group->machine;

    if (m->accel->own_lapic &&
        irq_lapic_mmio(m->irq, v->id, e->mmio.gpa, e->mmio.data, e->mmio.len, e->mmio.write))
        return;
    if (e->mmio.write)
        bus_write(m->mmio, e->mmio.gpa, e->mmio.data, e->mmio.len);
    else
        bus_read(m->mmio, e->mmio.gpa, e->mmio.data, e->mmio.len);
}

static void do_msr(struct vcpu *v, struct vcpu_exit *e)
{
    struct machine *m = v->group->machine;
    bool write = e->kind == EXIT_WRMSR, fault = false;

    if (m->accel->own_lapic && write && e->msr.index == MSR_TSC_DEADLINE)
        vcpu_tell_own_tsc(v);
    if (m->accel->own_lapic &&
        (write ? irq_lapic_wrmsr(m->irq, v->id, e->msr.index, e->msr.value, &fault)
               : irq_lapic_rdmsr(m->irq, v->id, e->msr.index, &e->msr.value, &fault))) {
        e->msr.fault = fault;
        return;
    }
    qz_debug("vCPU %u: %s of unknown MSR 0x%x", v->id, write ? "write" : "read", e->msr.index);
    e->msr.fault = true;
}

/* Where it happened, as far as the back end still knows: AMD's processors lose the state in a
 * shutdown and KVM then shows that of a reset. */
static void report_crash(struct vcpu *v)
{
    QZ_AUTO_FREE struct vcpu_state *s = NULL;
    char text[160] = "";

    if (posix_memalign((void **)&s, 64, sizeof(*s)) == 0 &&
        v->group->ops->get_state(v->accel, s) == 0 && s->rip != 0xfff0)
        snprintf(text, sizeof(text),
                 " at cs 0x%x rip 0x%llx, rsp 0x%llx, cr0 0x%llx, cr2 0x%llx, cr3 0x%llx",
                 s->cs.selector, (unsigned long long)s->rip, (unsigned long long)s->gpr[RSP],
                 (unsigned long long)s->cr0, (unsigned long long)s->cr2,
                 (unsigned long long)s->cr3);
    v->group->events.triple_fault(v->group->events.context, v->id, text);
}

/* False: this vCPU cannot go on and waits for the life cycle. */
bool vcpu_handle_exit(struct vcpu *v, struct vcpu_exit *e)
{
    struct vcpu_group *g = v->group;

    switch (e->kind) {
    case EXIT_PIO:
        do_pio(v, e);
        return true;
    case EXIT_MMIO:
        do_mmio(v, e);
        return true;
    case EXIT_RDMSR:
    case EXIT_WRMSR:
        do_msr(v, e);
        return true;
    case EXIT_HALT:
        if (g->machine->accel->own_lapic)
            v->wait = MP_HALTED;
        return true;
    case EXIT_IOAPIC_EOI:
        irq_eoi(g->machine->irq, e->eoi.vector);
        return true;
    case EXIT_KICKED:
    case EXIT_IRQ_WINDOW:
        return true;
    case EXIT_DEBUG:
        return g->events.debug && g->events.debug(g->events.context, v->id, e);
    case EXIT_SHUTDOWN:
        report_crash(v);
        return false;
    case EXIT_FAIL:
        g->events.failed(g->events.context, v->id, e->fail.text);
        return false;
    }
    return false;
}

void vcpu_count_exit(struct vcpu *v, const struct vcpu_exit *e)
{
    struct vcpu_group *g = v->group;

    v->exits[e->kind]++;
    if (e->kind != EXIT_KICKED && !__atomic_load_n(&g->ran, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&g->ran, true, __ATOMIC_RELAXED))
        g->events.first_exit(g->events.context);
}

/*
 * The task priority may have changed on either side: CR8 in the guest, the register by the access.
 * An access to the APIC (EOI, TPR, an IPI to itself) may also let an interrupt through that was
 * held back when it came; nobody wakes a vCPU that is awake, so it asks to come out for it.
 */
void vcpu_serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct vcpu_group *g = *(struct vcpu_group **)context;
    struct vcpu *v = &g->vcpu[cpu];

    if (g->turns)
        turns_arrive(g->turns, g->ops->executed(v->accel));
    irq_lapic_set_tpr(g->machine->irq, cpu, g->ops->get_cr8(v->accel));
    vcpu_count_exit(v, exit);
    vcpu_handle_exit(v, exit);
    g->ops->set_cr8(v->accel, irq_lapic_get_tpr(g->machine->irq, cpu));
    if (irq_pending(g->machine->irq, cpu))
        g->ops->request_window(v->accel, true);
    if (g->turns && turns_is_late(g->turns)) /* a timer was set to fire before it would come out */
        g->ops->kick(v->accel);
}

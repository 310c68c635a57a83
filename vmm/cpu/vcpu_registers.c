/*
 * vcpu_registers.c - struct vcpu_state as named values (vcpu_state.h).
 *
 * Values that no processor takes are for the accelerator's set_state() to refuse; here only what
 * would leave the structure is.
 */
#include "cpu/vcpu_state.h"

static void general_state(struct vcpu_state *v, struct qz_state *s)
{
    static const char *const name[GPR_COUNT] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                                "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                                "r12", "r13", "r14", "r15"};

    for (unsigned i = 0; i < GPR_COUNT; i++)
        QZ_STATE_ANY(s, name[i], v->gpr[i]);
    QZ_STATE_ANY(s, "rip", v->rip);
    QZ_STATE_ANY(s, "rflags", v->rflags);
}

static void segment_state(struct segment *g, struct qz_state *s, const char *name)
{
    qz_state_group(s, name);
    QZ_STATE_ANY(s, "base", g->base);
    QZ_STATE_ANY(s, "limit", g->limit);
    QZ_STATE_ANY(s, "selector", g->selector);
    QZ_STATE_ANY(s, "attr", g->attr);
    qz_state_end(s);
}

static void table_state(struct descriptor_table *t, struct qz_state *s, const char *name)
{
    qz_state_group(s, name);
    QZ_STATE_ANY(s, "base", t->base);
    QZ_STATE_ANY(s, "limit", t->limit);
    qz_state_end(s);
}

static void segments_state(struct vcpu_state *v, struct qz_state *s)
{
    segment_state(&v->cs, s, "cs");
    segment_state(&v->ds, s, "ds");
    segment_state(&v->es, s, "es");
    segment_state(&v->fs, s, "fs");
    segment_state(&v->gs, s, "gs");
    segment_state(&v->ss, s, "ss");
    segment_state(&v->tr, s, "tr");
    segment_state(&v->ldt, s, "ldt");
    table_state(&v->gdt, s, "gdt");
    table_state(&v->idt, s, "idt");
}

static void control_state(struct vcpu_state *v, struct qz_state *s)
{
    QZ_STATE_ANY(s, "cr0", v->cr0);
    QZ_STATE_ANY(s, "cr2", v->cr2);
    QZ_STATE_ANY(s, "cr3", v->cr3);
    QZ_STATE_ANY(s, "cr4", v->cr4);
    QZ_STATE_ANY(s, "cr8", v->cr8);
    QZ_STATE_ANY(s, "efer", v->efer);
    QZ_STATE_ANY(s, "xcr0", v->xcr0);
    QZ_STATE_ANY(s, "dr0", v->dr[0]);
    QZ_STATE_ANY(s, "dr1", v->dr[1]);
    QZ_STATE_ANY(s, "dr2", v->dr[2]);
    QZ_STATE_ANY(s, "dr3", v->dr[3]);
    QZ_STATE_ANY(s, "dr6", v->dr6);
    QZ_STATE_ANY(s, "dr7", v->dr7);
    QZ_STATE_ANY(s, "apic_base", v->apic_base);
    QZ_STATE(s, "mp_state", v->mp_state, MP_UNINITIALIZED);
}

static void event_state(struct vcpu_state *v, struct qz_state *s)
{
    qz_state_group(s, "event");
    QZ_STATE(s, "exception_injected", v->event.exception_injected, 1);
    QZ_STATE(s, "exception_pending", v->event.exception_pending, 1);
    QZ_STATE(s, "exception_has_code", v->event.exception_has_code, 1);
    QZ_STATE(s, "exception_vector", v->event.exception_vector, 31);
    QZ_STATE_ANY(s, "exception_code", v->event.exception_code);
    QZ_STATE(s, "interrupt_injected", v->event.interrupt_injected, 1);
    QZ_STATE(s, "interrupt_soft", v->event.interrupt_soft, 1);
    QZ_STATE_ANY(s, "interrupt_vector", v->event.interrupt_vector);
    QZ_STATE(s, "interrupt_shadow", v->event.interrupt_shadow, 3);
    QZ_STATE(s, "nmi_injected", v->event.nmi_injected, 1);
    QZ_STATE(s, "nmi_pending", v->event.nmi_pending, 1);
    QZ_STATE(s, "nmi_masked", v->event.nmi_masked, 1);
    qz_state_end(s);
}

static void msrs_state(struct vcpu_state *v, struct qz_state *s)
{
    QZ_STATE(s, "msrs", v->msr_count, VCPU_MSR_MAX);
    for (unsigned i = 0; i < v->msr_count && !qz_state_failed(s); i++) {
        qz_state_group_at(s, "msr", i);
        QZ_STATE_ANY(s, "index", v->msr[i].index);
        QZ_STATE_ANY(s, "value", v->msr[i].value);
        qz_state_end(s);
    }
}

static void xsave_state(struct vcpu_state *v, struct qz_state *s)
{
    size_t len = v->xsave_size;

    qz_state_data_of(s, "xsave", v->xsave, &len, VCPU_XSAVE_MAX);
    if (len < VCPU_XSAVE_MAX)
        memset(v->xsave + len, 0, VCPU_XSAVE_MAX - len);
    v->xsave_size = (uint32_t)len;
}

static void lapic_state(struct vcpu_state *v, struct qz_state *s)
{
    uint8_t page[sizeof(v->lapic.reg)];

    for (unsigned i = 0; i < QZ_ARRAY_LEN(v->lapic.reg); i++)
        qz_store_le32(page + i * 4, v->lapic.reg[i]);
    qz_state_group(s, "lapic");
    qz_state_data(s, "registers", page, sizeof(page));
    QZ_STATE_ANY(s, "tsc_deadline", v->lapic.tsc_deadline);
    qz_state_end(s);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(v->lapic.reg); i++)
        v->lapic.reg[i] = qz_load_le32(page + i * 4);
}

void vcpu_registers_state(struct vcpu_state *v, struct qz_state *s)
{
    general_state(v, s);
    segments_state(v, s);
    control_state(v, s);
    event_state(v, s);
    msrs_state(v, s);
    xsave_state(v, s);
    lapic_state(v, s);
}

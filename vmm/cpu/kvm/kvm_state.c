/*
 * kvm_state.c - architectural state between struct vcpu_state and KVM.
 *
 * The order in which KVM is told matters. Special registers come first: they hold the mode,
 * CR4.OSXSAVE (without which XCR0 means nothing) and IA32_APIC_BASE (without which the local APIC's
 * registers are read in the wrong format). The TSC comes first among the MSRs; the APIC's page
 * before the deadline, which is a mode of its timer; events and the run state last, since setting
 * registers clears what was pending.
 */
#include "cpu/kvm/kvm_internal.h"
#include "cpu/vcpu_msrs.h"

_Static_assert(sizeof(((struct kvm_lapic_state *)0)->regs) == 64 * 16,
               "the page that KVM hands out");

union msr_buffer {
    struct kvm_msrs head;
    uint8_t bytes[sizeof(struct kvm_msrs) + VCPU_MSR_MAX * sizeof(struct kvm_msr_entry)];
};

static int control(struct kvm_vcpu *v, unsigned long request, void *argument)
{
    return ioctl(v->fd, request, argument) >= 0 ? 0 : -errno;
}

/* ---- registers ------------------------------------------------------------------------------- */

static int get_registers(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_regs r;
    const int result = control(v, KVM_GET_REGS, &r);

    if (result < 0)
        return result;
    s->gpr[RAX] = r.rax, s->gpr[RCX] = r.rcx, s->gpr[RDX] = r.rdx, s->gpr[RBX] = r.rbx;
    s->gpr[RSP] = r.rsp, s->gpr[RBP] = r.rbp, s->gpr[RSI] = r.rsi, s->gpr[RDI] = r.rdi;
    s->gpr[R8] = r.r8, s->gpr[R9] = r.r9, s->gpr[R10] = r.r10, s->gpr[R11] = r.r11;
    s->gpr[R12] = r.r12, s->gpr[R13] = r.r13, s->gpr[R14] = r.r14, s->gpr[R15] = r.r15;
    s->rip = r.rip;
    s->rflags = r.rflags;
    return 0;
}

static int set_registers(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    struct kvm_regs r = {
        .rax = s->gpr[RAX],
        .rcx = s->gpr[RCX],
        .rdx = s->gpr[RDX],
        .rbx = s->gpr[RBX],
        .rsp = s->gpr[RSP],
        .rbp = s->gpr[RBP],
        .rsi = s->gpr[RSI],
        .rdi = s->gpr[RDI],
        .r8 = s->gpr[R8],
        .r9 = s->gpr[R9],
        .r10 = s->gpr[R10],
        .r11 = s->gpr[R11],
        .r12 = s->gpr[R12],
        .r13 = s->gpr[R13],
        .r14 = s->gpr[R14],
        .r15 = s->gpr[R15],
        .rip = s->rip,
        .rflags = s->rflags,
    };

    return control(v, KVM_SET_REGS, &r);
}

static struct segment segment_from_kvm(const struct kvm_segment *k)
{
    return (struct segment){
        .base = k->base,
        .limit = k->limit,
        .selector = k->selector,
        .attr = (uint16_t)((k->type & SEG_TYPE_MASK) | (k->s ? SEG_S : 0) |
                           (k->dpl & 3) << SEG_DPL_SHIFT | (k->present ? SEG_P : 0) |
                           (k->avl ? SEG_AVL : 0) | (k->l ? SEG_L : 0) | (k->db ? SEG_DB : 0) |
                           (k->g ? SEG_G : 0) | (k->unusable ? SEG_UNUSABLE : 0)),
    };
}

static struct kvm_segment segment_to_kvm(const struct segment *s)
{
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->attr & SEG_TYPE_MASK,
        .s = !!(s->attr & SEG_S),
        .dpl = s->attr >> SEG_DPL_SHIFT & 3,
        .present = !!(s->attr & SEG_P),
        .avl = !!(s->attr & SEG_AVL),
        .l = !!(s->attr & SEG_L),
        .db = !!(s->attr & SEG_DB),
        .g = !!(s->attr & SEG_G),
        .unusable = !!(s->attr & SEG_UNUSABLE),
    };
}

static int get_special(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_sregs k;
    const int r = control(v, KVM_GET_SREGS, &k);

    if (r < 0)
        return r;
    s->cs = segment_from_kvm(&k.cs);
    s->ds = segment_from_kvm(&k.ds);
    s->es = segment_from_kvm(&k.es);
    s->fs = segment_from_kvm(&k.fs);
    s->gs = segment_from_kvm(&k.gs);
    s->ss = segment_from_kvm(&k.ss);
    s->tr = segment_from_kvm(&k.tr);
    s->ldt = segment_from_kvm(&k.ldt);
    s->gdt = (struct descriptor_table){k.gdt.base, k.gdt.limit};
    s->idt = (struct descriptor_table){k.idt.base, k.idt.limit};
    s->cr0 = k.cr0;
    s->cr2 = k.cr2;
    s->cr3 = k.cr3;
    s->cr4 = k.cr4;
    s->cr8 = k.cr8;
    s->efer = k.efer;
    s->apic_base = v->vm->config.own_lapic ? v->apic_base : k.apic_base;
    return 0;
}

static int set_special(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    struct kvm_sregs k = {
        .cs = segment_to_kvm(&s->cs),
        .ds = segment_to_kvm(&s->ds),
        .es = segment_to_kvm(&s->es),
        .fs = segment_to_kvm(&s->fs),
        .gs = segment_to_kvm(&s->gs),
        .ss = segment_to_kvm(&s->ss),
        .tr = segment_to_kvm(&s->tr),
        .ldt = segment_to_kvm(&s->ldt),
        .gdt = {.base = s->gdt.base, .limit = s->gdt.limit},
        .idt = {.base = s->idt.base, .limit = s->idt.limit},
        .cr0 = s->cr0,
        .cr2 = s->cr2,
        .cr3 = s->cr3,
        .cr4 = s->cr4,
        .cr8 = s->cr8,
        .efer = s->efer,
        .apic_base = s->apic_base,
    };
    const int r = control(v, KVM_SET_SREGS, &k);

    if (r == 0) {
        v->apic_base = s->apic_base;
        v->run->cr8 = s->cr8 & 0xf; /* KVM_RUN takes it from there when the local APIC is ours */
    }
    return r;
}

static int get_debug(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_debugregs k;
    const int r = control(v, KVM_GET_DEBUGREGS, &k);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < 4; i++)
        s->dr[i] = k.db[i];
    s->dr6 = k.dr6;
    s->dr7 = k.dr7;
    return 0;
}

static int set_debug(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    struct kvm_debugregs k = {
        .db = {s->dr[0], s->dr[1], s->dr[2], s->dr[3]}, .dr6 = s->dr6, .dr7 = s->dr7};

    return control(v, KVM_SET_DEBUGREGS, &k);
}

/* ---- extended state -------------------------------------------------------------------------- */

static int get_extended(struct kvm_vcpu *v, struct vcpu_state *s)
{
    const size_t size = v->vm->xsave_size;
    struct kvm_xcrs xcrs = {0};
    int r;

    s->xcr0 = 1;
    if (v->xsave) {
        r = control(v, KVM_GET_XCRS, &xcrs);
        if (r < 0)
            return r;
        for (unsigned i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
            if (xcrs.xcrs[i].xcr == 0)
                s->xcr0 = xcrs.xcrs[i].value;
    }
    r = control(v, size > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, s->xsave);
    s->xsave_size = (uint32_t)size;
    return r;
}

static int set_extended(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    const size_t size = v->vm->xsave_size;
    /* On the stack: a confined vCPU thread should need no memory from the system. */
    uint8_t area[VCPU_XSAVE_MAX] __attribute__((aligned(64)));

    if (s->xsave_size > size || s->xsave_size < 576)
        return -EINVAL;
    if (v->xsave) {
        struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = s->xcr0}}};
        const int r = control(v, KVM_SET_XCRS, &xcrs);

        if (r < 0)
            return r;
    } else if (s->xcr0 > 1) {
        return -EINVAL;
    }
    /* KVM reads its full size; what the state does not hold is in its initial configuration, all
     * zero. */
    memset(area, 0, size);
    memcpy(area, s->xsave, s->xsave_size);
    return control(v, KVM_SET_XSAVE, area);
}

/* ---- model-specific registers ---------------------------------------------------------------- */

/* The place of an MSR in vcpu_msr_list, or past its end. */
static unsigned list_position(uint32_t index)
{
    unsigned i = 0;

    while (i < vcpu_msr_list_count && vcpu_msr_list[i].index != index)
        i++;
    return i;
}

static bool is_missing(const struct kvm_vm *vm, uint32_t index)
{
    const unsigned i = list_position(index);

    return i < vcpu_msr_list_count && __atomic_load_n(&vm->msr_missing[i], __ATOMIC_RELAXED);
}

static void note_missing(struct kvm_vm *vm, uint32_t index)
{
    const unsigned i = list_position(index);

    if (i < vcpu_msr_list_count)
        __atomic_store_n(&vm->msr_missing[i], true, __ATOMIC_RELAXED);
}

/*
 * Reads those of msr[] that this KVM has into value[] and says in have[] which they are. KVM stops
 * at an MSR that it does not have; the VM remembers those of the list, so that each is stumbled
 * over only once.
 */
static int read_msrs(struct kvm_vcpu *v, const struct vcpu_msr *msr, unsigned count,
                     uint64_t value[VCPU_MSR_MAX], bool have[VCPU_MSR_MAX])
{
    union msr_buffer buffer;
    unsigned position[VCPU_MSR_MAX], next = 0;

    memset(have, 0, VCPU_MSR_MAX * sizeof(have[0]));
    while (next < count) {
        unsigned n = 0;
        int got;

        memset(&buffer, 0, sizeof(buffer));
        for (unsigned i = next; i < count; i++) {
            if (is_missing(v->vm, msr[i].index))
                continue;
            position[n] = i;
            buffer.head.entries[n++].index = msr[i].index;
        }
        if (n == 0)
            return 0;
        buffer.head.nmsrs = n;
        got = ioctl(v->fd, KVM_GET_MSRS, &buffer.head);
        if (got < 0)
            return -errno;
        for (unsigned i = 0; i < (unsigned)got && i < n; i++) {
            have[position[i]] = true;
            value[position[i]] = buffer.head.entries[i].data;
        }
        if ((unsigned)got >= n)
            return 0;
        note_missing(v->vm, msr[position[got]].index);
        next = position[got] + 1;
    }
    return 0;
}

static int get_msrs(struct kvm_vcpu *v, struct vcpu_state *s)
{
    uint64_t value[VCPU_MSR_MAX];
    bool have[VCPU_MSR_MAX];
    int r = read_msrs(v, vcpu_msr_list, vcpu_msr_list_count, value, have);

    s->msr_count = 0;
    for (unsigned i = 0; r == 0 && i < vcpu_msr_list_count; i++)
        if (have[i])
            s->msr[s->msr_count++] = (struct vcpu_msr){vcpu_msr_list[i].index, value[i]};
    for (unsigned i = 0; r == 0 && i < s->msr_count; i++)
        if (s->msr[i].index == MSR_TSC && v->vm->clocks_stand)
            s->msr[i].value = v->stopped_tsc;
    return r;
}

static uint64_t reset_value(uint32_t index)
{
    const unsigned i = list_position(index);

    return i < vcpu_msr_list_count ? vcpu_msr_list[i].value : 0;
}

int kvm_read_msr(struct kvm_vcpu *v, uint32_t index, uint64_t *value)
{
    union msr_buffer one = {.head = {.nmsrs = 1}};
    int got;

    one.head.entries[0].index = index;
    got = ioctl(v->fd, KVM_GET_MSRS, &one.head);
    if (got != 1)
        return got < 0 ? -errno : -ENOTSUP;
    *value = one.head.entries[0].data;
    return 0;
}

int kvm_get_tsc(struct accel_vcpu *vcpu, uint64_t *tsc)
{
    return kvm_read_msr(QZ_CONTAINER_OF(vcpu, struct kvm_vcpu, base), MSR_TSC, tsc);
}

int kvm_write_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    union msr_buffer one = {.head = {.nmsrs = 1}};
    int took;

    one.head.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    took = ioctl(v->fd, KVM_SET_MSRS, &one.head);
    return took == 1 ? 0 : took < 0 ? -errno : -ENOTSUP;
}

static int write_msrs(struct kvm_vcpu *v, union msr_buffer *buffer)
{
    const int took = ioctl(v->fd, KVM_SET_MSRS, &buffer->head);

    if (took < 0)
        return -errno;
    if ((unsigned)took >= buffer->head.nmsrs)
        return 0;
    qz_warn("vCPU %u: KVM does not take the value 0x%llx for MSR 0x%x", v->base.id,
            (unsigned long long)buffer->head.entries[took].data, buffer->head.entries[took].index);
    return -ENOTSUP;
}

/*
 * Writes only what differs: a fresh vCPU costs next to nothing, and KVM does not log writes to
 * registers that it half knows. A register that this KVM lacks is as good as set when it should
 * hold its reset value.
 */
static int set_msrs(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    union msr_buffer buffer;
    uint64_t value[VCPU_MSR_MAX];
    bool have[VCPU_MSR_MAX];
    unsigned n = 0;
    int r = read_msrs(v, s->msr, s->msr_count, value, have);

    memset(&buffer, 0, sizeof(buffer));
    for (unsigned i = 0; r == 0 && i < s->msr_count; i++) {
        if (s->msr[i].index == MSR_TSC && v->vm->clocks_stand)
            v->stopped_tsc = s->msr[i].value;
        else if (have[i] ? s->msr[i].value != value[i]
                         : s->msr[i].value != reset_value(s->msr[i].index))
            buffer.head.entries[n++] =
                (struct kvm_msr_entry){.index = s->msr[i].index, .data = s->msr[i].value};
    }
    buffer.head.nmsrs = n;
    return r == 0 && n > 0 ? write_msrs(v, &buffer) : r;
}

/* ---- local APIC ------------------------------------------------------------------------------ */

static int get_lapic(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_lapic_state k;
    const int r = control(v, KVM_GET_LAPIC, &k);

    if (r < 0)
        return r;
    for (unsigned i = 0; i < 64; i++)
        s->lapic.reg[i] = qz_load_le32(k.regs + 16 * i);
    return kvm_read_msr(v, MSR_TSC_DEADLINE, &s->lapic.tsc_deadline);
}

static int set_lapic(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    struct kvm_lapic_state k = {{0}};
    int r;

    for (unsigned i = 0; i < 64; i++)
        qz_store_le32(k.regs + 16 * i, s->lapic.reg[i]);
    r = control(v, KVM_SET_LAPIC, &k);
    return r < 0 ? r : kvm_write_msr(v, MSR_TSC_DEADLINE, s->lapic.tsc_deadline);
}

/* ---- events and run state -------------------------------------------------------------------- */

static int get_events(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_vcpu_events k;
    const int r = control(v, KVM_GET_VCPU_EVENTS, &k);

    if (r < 0)
        return r;
    s->event.exception_injected = k.exception.injected;
    s->event.exception_pending = k.exception.pending && !k.exception.injected;
    s->event.exception_has_code = k.exception.has_error_code;
    s->event.exception_vector = k.exception.nr;
    s->event.exception_code = k.exception.error_code;
    s->event.interrupt_injected = k.interrupt.injected;
    s->event.interrupt_soft = k.interrupt.soft;
    s->event.interrupt_vector = k.interrupt.nr;
    /* AMD has one shadow for both and KVM reports both; Intel takes both at once for an invalid
     * state. */
    s->event.interrupt_shadow = k.interrupt.shadow & 1 ? 1 : k.interrupt.shadow & 2;
    s->event.nmi_injected = k.nmi.injected;
    s->event.nmi_pending = k.nmi.pending;
    s->event.nmi_masked = k.nmi.masked;
    return 0;
}

static int set_events(struct kvm_vcpu *v, const struct vcpu_state *s)
{
    /* KVM tells pending from injected only with exception payloads; without them it re-injects
     * either. */
    struct kvm_vcpu_events k = {
        .exception = {.injected = s->event.exception_injected || s->event.exception_pending,
                      .nr = s->event.exception_vector,
                      .has_error_code = s->event.exception_has_code,
                      .error_code = s->event.exception_code},
        .interrupt = {.injected = s->event.interrupt_injected,
                      .nr = s->event.interrupt_vector,
                      .soft = s->event.interrupt_soft,
                      .shadow = s->event.interrupt_shadow & 3},
        .nmi = {.injected = s->event.nmi_injected,
                .pending = s->event.nmi_pending,
                .masked = s->event.nmi_masked},
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
    };

    return control(v, KVM_SET_VCPU_EVENTS, &k);
}

static int get_mp_state(struct kvm_vcpu *v, struct vcpu_state *s)
{
    struct kvm_mp_state k;
    int r;

    if (v->vm->config.own_lapic) {
        s->mp_state = v->mp_state;
        return 0;
    }
    r = control(v, KVM_GET_MP_STATE, &k);
    if (r < 0)
        return r;
    switch (k.mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
        s->mp_state = MP_UNINITIALIZED;
        break;
    case KVM_MP_STATE_INIT_RECEIVED:
        s->mp_state = MP_WAIT_SIPI;
        break;
    case KVM_MP_STATE_HALTED:
        s->mp_state = MP_HALTED;
        break;
    default:
        s->mp_state = MP_RUNNABLE;
        break;
    }
    return 0;
}

static int set_mp_state(struct kvm_vcpu *v, enum mp_state state)
{
    static const uint32_t to_kvm[] = {
        [MP_RUNNABLE] = KVM_MP_STATE_RUNNABLE,
        [MP_HALTED] = KVM_MP_STATE_HALTED,
        [MP_WAIT_SIPI] = KVM_MP_STATE_INIT_RECEIVED,
        [MP_UNINITIALIZED] = KVM_MP_STATE_UNINITIALIZED,
    };
    struct kvm_mp_state k = {.mp_state = KVM_MP_STATE_RUNNABLE};

    if ((unsigned)state >= QZ_ARRAY_LEN(to_kvm))
        return -EINVAL;
    v->mp_state = state;
    if (v->vm->config.own_lapic)
        return 0; /* KVM never leaves RUNNABLE there */
    k.mp_state = to_kvm[state];
    return control(v, KVM_SET_MP_STATE, &k);
}

/* ---- all of it ------------------------------------------------------------------------------- */

int kvm_get_state(struct accel_vcpu *vcpu, struct vcpu_state *s)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    const enum mp_state own_mp_state = v->mp_state;
    int r;

    if (v->stashed)
        return -EAGAIN;
    r = kvm_vcpu_settle(v, false);
    if (r < 0)
        return r;
    v->mp_state = own_mp_state; /* settling ran no guest code */

    memset(s, 0, sizeof(*s));
    /* First of all: KVM moves INIT and start-up IPIs that wait into the registers here. */
    r = get_mp_state(v, s);
    if (r == 0)
        r = get_registers(v, s);
    if (r == 0)
        r = get_special(v, s);
    if (r == 0)
        r = get_debug(v, s);
    if (r == 0)
        r = get_extended(v, s);
    if (r == 0)
        r = get_msrs(v, s);
    if (r == 0)
        r = get_events(v, s);
    if (r == 0 && !v->vm->config.own_lapic)
        r = get_lapic(v, s);
    return r;
}

int kvm_set_state(struct accel_vcpu *vcpu, const struct vcpu_state *s)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    int r;

    if (s->msr_count > VCPU_MSR_MAX)
        return -EINVAL;
    /* An instruction that is still to be completed would write into the new state. */
    r = kvm_vcpu_settle(v, true);
    v->stashed = false;
    v->msr_exit = NULL;
    v->injected = false;
    v->run->request_interrupt_window = 0;
    v->run->ready_for_interrupt_injection = 0; /* until KVM has looked at the new flags */

    if (r == 0)
        r = set_special(v, s);
    if (r == 0)
        r = set_registers(v, s);
    if (r == 0)
        r = set_extended(v, s);
    if (r == 0)
        r = set_msrs(v, s);
    if (r == 0 && !v->vm->config.own_lapic)
        r = set_lapic(v, s);
    if (r == 0)
        r = set_debug(v, s);
    if (r == 0)
        r = set_events(v, s);
    if (r == 0)
        r = set_mp_state(v, s->mp_state);
    return r;
}

/* For a debugger (accel.h). KVM_SET_REGS drops an exception that waits, as another rip must. */
int kvm_set_registers(struct accel_vcpu *vcpu, const struct vcpu_state *s)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct kvm_regs old;
    struct kvm_sregs special;
    int r = v->stashed ? -EAGAIN : kvm_vcpu_settle(v, false);

    if (r == 0)
        r = control(v, KVM_GET_REGS, &old);
    if (r == 0)
        r = control(v, KVM_GET_SREGS, &special);
    if (r == 0 && (special.fs.base != s->fs.base || special.gs.base != s->gs.base)) {
        special.fs.base = s->fs.base;
        special.gs.base = s->gs.base;
        r = control(v, KVM_SET_SREGS, &special);
    }
    if (r == 0)
        r = set_registers(v, s);
    if (r == 0)
        r = set_extended(v, s);
    if (r == 0 && s->rip != old.rip && s->mp_state == MP_HALTED)
        r = set_mp_state(v, MP_RUNNABLE);
    return r;
}

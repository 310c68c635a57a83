/*
 * kvm_debug.c - a debugger's breakpoints, watchpoints and steps (accel_ops.set_debug).
 *
 * KVM lends the processor's four debug registers to the debugger (KVM_GUESTDBG_USE_HW_BP): the
 * guest's own do nothing meanwhile. Breakpoints beyond those are INT3 instructions that the caller
 * wrote to guest memory; KVM hands every #BP out then, and the guest's own go back to it
 * (KVM_GUESTDBG_INJECT_BP).
 */
#include "cpu/kvm/kvm_internal.h"

enum { VECTOR_DB = 1, VECTOR_BP = 3, DR6_STEP = 1 << 14 };

/* DR7's fields (SDM vol 3 §17.2.4). */
enum { DR7_GLOBAL_ENABLE = 2, DR7_TYPE_SHIFT = 16, DR7_LENGTH_SHIFT = 18, DR7_FIXED = 0x600 };

struct plan {
    struct kvm_guest_debug request;
    const struct accel_point *point[KVM_DEBUG_REGISTERS];
    unsigned used;
};

static int add_register(struct plan *p, const struct accel_point *point, uint64_t address,
                        unsigned len)
{
    static const uint8_t types[] = {[POINT_EXECUTE] = 0, [POINT_WRITE] = 1, [POINT_ACCESS] = 3};
    static const uint8_t lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    const unsigned n = p->used;

    if (n == KVM_DEBUG_REGISTERS)
        return -ENOSPC;
    p->point[p->used++] = point;
    p->request.control |= KVM_GUESTDBG_USE_HW_BP;
    p->request.arch.debugreg[n] = address;
    p->request.arch.debugreg[7] |= (uint64_t)DR7_GLOBAL_ENABLE << (2 * n) |
                                   (uint64_t)types[point->kind] << (DR7_TYPE_SHIFT + 4 * n) |
                                   (uint64_t)lengths[len] << (DR7_LENGTH_SHIFT + 4 * n);
    return 0;
}

/* A register watches 1, 2, 4 or 8 bytes, aligned (§17.2.5). */
static int add_data(struct plan *p, const struct accel_point *point)
{
    uint64_t at = point->address, left = point->len;

    while (left > 0) {
        unsigned piece = 8;
        int r;

        while (piece > left || at % piece)
            piece /= 2;
        r = add_register(p, point, at, piece);
        if (r < 0)
            return r;
        at += piece;
        left -= piece;
    }
    return 0;
}

static int add_point(struct plan *p, const struct accel_point *point)
{
    if (point->kind == POINT_READ)
        return -EOPNOTSUPP; /* the processor knows writes, and reads with writes */
    if (point->kind != POINT_EXECUTE)
        return add_data(p, point);
    if (point->hardware)
        return add_register(p, point, point->address, 1);
    p->request.control |= KVM_GUESTDBG_USE_SW_BP;
    return 0;
}

/* Linux 5.15 can hold interrupts back during a step. */
static uint32_t hold_interrupts(const struct kvm_vcpu *v)
{
    const int bits = ioctl(v->vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);

    return bits > 0 ? (uint32_t)bits & KVM_GUESTDBG_BLOCKIRQ : 0;
}

int kvm_set_debug(struct accel_vcpu *vcpu, const struct accel_debug *debug)
{
    struct kvm_vcpu *v = kvm_vcpu_of(vcpu);
    struct plan p = {.request.arch.debugreg[7] = DR7_FIXED};
    int r = 0;

    if (debug && debug->points > ACCEL_POINTS_MAX)
        return -EINVAL;
    for (unsigned i = 0; r == 0 && debug && i < debug->points; i++)
        r = add_point(&p, &debug->point[i]);
    if (r < 0)
        return r;
    if (debug && debug->step)
        p.request.control |= KVM_GUESTDBG_SINGLESTEP | hold_interrupts(v);
    if (p.request.control)
        p.request.control |= KVM_GUESTDBG_ENABLE;
    if (p.request.control == 0 && v->debug_control == 0)
        return 0;
    if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, &p.request) != 0)
        return -errno;
    v->debug_control = p.request.control;
    v->debug_arch = p.request.arch;
    v->debug = debug ? *debug : (struct accel_debug){0};
    memcpy(v->debug_point, p.point, sizeof(p.point));
    return 0;
}

/* The guest's own: it gets its exception, and the debugger's wishes stay as they are. */
static void give_back(struct kvm_vcpu *v, uint32_t how)
{
    struct kvm_guest_debug request = {.control = v->debug_control | how, .arch = v->debug_arch};

    if (ioctl(v->fd, KVM_SET_GUEST_DEBUG, &request) != 0)
        qz_guest_warn("vCPU %u: KVM does not take the guest's own debug exception back: %s",
                      v->base.id, strerror(errno));
}

static const struct accel_point *written_breakpoint(const struct kvm_vcpu *v, uint64_t linear)
{
    for (unsigned i = 0; i < v->debug.points; i++) {
        const struct accel_point *p = &v->debug.point[i];

        if (p->kind == POINT_EXECUTE && !p->hardware && p->address == linear)
            return p;
    }
    return NULL;
}

static const struct accel_point *register_met(const struct kvm_vcpu *v, uint64_t dr6)
{
    for (unsigned i = 0; i < KVM_DEBUG_REGISTERS; i++)
        if ((dr6 >> i & 1) && v->debug_point[i])
            return v->debug_point[i];
    return NULL;
}

bool kvm_debug_exit(struct kvm_vcpu *v, struct vcpu_exit *exit)
{
    const struct kvm_debug_exit_arch *arch = &v->run->debug.arch;
    const struct accel_point *point = NULL;
    struct kvm_regs regs = {0};

    if (arch->exception == VECTOR_BP)
        point = written_breakpoint(v, arch->pc);
    else
        point = register_met(v, arch->dr6);
    if (!point && (arch->exception == VECTOR_BP || !v->debug.step || !(arch->dr6 & DR6_STEP))) {
        give_back(v,
                  arch->exception == VECTOR_BP ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB);
        return false;
    }
    ioctl(v->fd, KVM_GET_REGS, &regs);
    exit->kind = EXIT_DEBUG;
    exit->debug.point = point;
    exit->debug.rip = regs.rip;
    return true;
}

/* kvm_state_test.c - memory, doorbells, clocks and the state of machines on KVM, and which KVM is
 * taken. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "cpu/kvm/kvm_kit.h"
#include "cpu/vcpu_msrs.h"

/* ---- memory and doorbells -------------------------------------------------------------------- */

/* A KVM that is itself emulated may take an offset and forget it. */
static bool keeps_tsc_offsets(void)
{
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    const int cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    uint64_t offset = 12345;
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    ioctl(cpu, KVM_SET_DEVICE_ATTR, &attr);
    offset = 0;
    ioctl(cpu, KVM_GET_DEVICE_ATTR, &attr);
    close(cpu);
    close(vm);
    close(kvm);
    return offset == 12345;
}

/* Counters that are set while the clocks stand go on from there, all together. */
static void test_counters_start_together(void **unused)
{
    struct machine *m = machine_new(false, 2);
    struct vcpu_state *s = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*s), (size_t)64));
    uint64_t tsc[2];

    if (!keeps_tsc_offsets()) {
        printf("skipped: this KVM forgets the offset of a counter\n");
        free(s);
        return machine_free(m);
    }
    assert_non_null(s);
    assert_int_equal(accel_kvm.clock_stop(m->vm), 0);
    for (unsigned i = 0; i < 2; i++) {
        vcpu_state_reset(s, i == 0, i);
        assert_int_equal(vcpu_state_set_msr(s, MSR_TSC, 1000000), 0);
        assert_int_equal(accel_kvm.set_state(m->cpu[i], s), 0);
        usleep(2000); /* what lies between the vCPUs' resets is not to be seen */
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(accel_kvm.get_state(m->cpu[i], s), 0);
        assert_int_equal(s->msr[0].index, MSR_TSC);
        assert_int_equal(s->msr[0].value, 1000000);
    }
    assert_int_equal(accel_kvm.clock_start(m->vm), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_kvm.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[0], 1000000, 1ull << 40);
    assert_in_range(tsc[1], tsc[0], 1ull << 40); /* it was read later */
    vcpu_state_init(s, 1);
    assert_int_equal(accel_kvm.set_state(m->cpu[1], s), 0); /* INIT leaves the counter alone */
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(accel_kvm.get_tsc(m->cpu[i], &tsc[i]), 0);
    assert_in_range(tsc[1], tsc[0], 1ull << 40);
    free(s);
    machine_free(m);
}

static void test_memory_slots(void **unused)
{
    struct machine *m = machine_new(false, 1);
    const struct accel_ops *k = &accel_kvm;

    assert_int_equal(k->memory_map(m->vm, 0x1000, 0x1000, m->memory, false), -EEXIST);
    assert_int_equal(k->memory_map(m->vm, 0xf000, 0x200000, m->memory, false), -EEXIST);
    assert_int_equal(k->memory_map(m->vm, 0x200100, 0x1000, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_map(m->vm, 0x200000, 0, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_map(m->vm, UINT64_MAX - 0xfff, 0x2000, m->memory, false), -EINVAL);
    assert_int_equal(k->memory_unmap(m->vm, 0x200000, 0x1000), -ENOENT);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(k->memory_map(m->vm, 0x200000 + i * 0x2000, 0x1000, m->memory, false), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(k->memory_unmap(m->vm, 0x200000 + i * 0x2000, 0x1000), 0);
    assert_int_equal(k->memory_map(m->vm, 0x200000, 0x10000, m->memory, false), 0);
    machine_free(m);
}

static void test_doorbell(void **unused)
{
    struct machine *m = machine_new(false, 1);
    const int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t count = 0;

    assert_true(bell >= 0);
    assert_int_equal(accel_kvm.doorbell_add(m->vm, DEVICE, 8, bell), 0);
    START(m, mmio);
    run_cpu(m, 0, EXIT_MMIO);
    assert_false(m->exit.mmio.write); /* the write rang the bell and never came here */
    assert_int_equal(read(bell, &count, sizeof(count)), sizeof(count));
    assert_int_equal(count, 1);

    assert_int_equal(accel_kvm.doorbell_del(m->vm, DEVICE, 8, bell), 0);
    enter_64bit(&m->state);
    START(m, mmio);
    run_cpu(m, 0, EXIT_MMIO);
    assert_true(m->exit.mmio.write);
    close(bell);
    machine_free(m);
}

/* ---- state ----------------------------------------------------------------------------------- */

static void test_state_between_exit_and_completion(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    e = run_cpu(m, 0, EXIT_PIO);
    qz_store_le32(e->pio.data, 0x87654321);
    /* The IN has not been completed in KVM yet; the state must be as if it had. */
    assert_int_equal(get_state(m)->gpr[RAX], 0x87654321);
    assert_int_equal(m->state.rip, CODE + 9);
    run_to_done(m);
    assert_int_equal(qz_load_le32(m->memory + DATA), 0x87654321);
    machine_free(m);
}

static void test_state_replaces_unfinished_instruction(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    run_cpu(m, 0, EXIT_PIO); /* an IN that nobody answers */
    enter_64bit(&m->state);
    m->state.gpr[RAX] = 0x1234;
    m->state.gpr[RBX] = 0x99;
    START(m, spin);
    assert_int_equal(get_state(m)->gpr[RAX], 0x1234);
    assert_int_equal(m->state.gpr[RBX], 0x99);
    assert_int_equal(m->state.rip, CODE);
    machine_free(m);
}

static void same_segment(const struct segment *a, const struct segment *b)
{
    assert_int_equal(a->base, b->base);
    assert_int_equal(a->selector, b->selector);
    assert_int_equal(a->attr & SEG_UNUSABLE, b->attr & SEG_UNUSABLE);
    if (!(a->attr & SEG_UNUSABLE)) {
        assert_int_equal(a->limit, b->limit);
        assert_int_equal(a->attr, b->attr);
    }
}

static bool own; /* its address as a test's state: with our own local APIC */

static void test_state_round_trip(void **state)
{
    const bool own_lapic = *state == &own;
    struct machine *m = machine_new(own_lapic, 1);
    struct vcpu_state *in = &m->state;
    struct vcpu_state *out = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*out), (size_t)64));

    assert_non_null(out);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        in->gpr[i] = 0x0101010101010101ull * (i + 1);
    in->rflags = 0x202;
    in->fs.base = 0x1000;
    in->gs.base = 0xffff888000000000ull;
    in->cr2 = 0xdead000;
    in->dr[0] = 0x4321;
    in->event.nmi_masked = true;
    in->event.interrupt_shadow = 2;
    in->apic_base = 0xfee00d00;
    in->lapic.reg[2] = 0;        /* x2APIC form of the id */
    in->lapic.reg[0x0f] = 0x1ff; /* SVR: enabled */
    in->lapic.reg[0x32] = 0x10033;
    in->lapic.reg[0x3e] = 0xb;
    qz_store_le16(in->xsave, 0x37f);
    qz_store_le32(in->xsave + 24, 0x1fa0);
    for (unsigned i = 0; i < 16 * 16; i++)
        in->xsave[160 + i] = (uint8_t)(i * 7 + 1); /* XMM0 to XMM15 */
    assert_int_equal(vcpu_state_set_msr(in, 0xc0000102, 0xffff888012340000ull), 0);
    assert_int_equal(vcpu_state_set_msr(in, 0xc0000082, 0xffffffff81000000ull), 0);
    assert_int_equal(vcpu_state_set_msr(in, 0x277, 0x0407050600070106ull), 0);

    assert_int_equal(accel_kvm.set_state(m->cpu[0], in), 0);
    assert_int_equal(accel_kvm.get_state(m->cpu[0], out), 0);

    assert_memory_equal(in->gpr, out->gpr, sizeof(in->gpr));
    assert_int_equal(in->rip, out->rip);
    assert_int_equal(in->rflags, out->rflags);
    same_segment(&in->cs, &out->cs);
    same_segment(&in->ds, &out->ds);
    same_segment(&in->fs, &out->fs);
    same_segment(&in->gs, &out->gs);
    same_segment(&in->ss, &out->ss);
    same_segment(&in->tr, &out->tr);
    assert_int_equal(in->gdt.base, out->gdt.base);
    assert_int_equal(in->gdt.limit, out->gdt.limit);
    assert_int_equal(in->idt.base, out->idt.base);
    assert_int_equal(in->cr0, out->cr0);
    assert_int_equal(in->cr2, out->cr2);
    assert_int_equal(in->cr3, out->cr3);
    assert_int_equal(in->cr4, out->cr4);
    assert_int_equal(in->efer, out->efer);
    assert_int_equal(in->xcr0, out->xcr0);
    assert_int_equal(in->apic_base, out->apic_base);
    assert_int_equal(in->dr[0], out->dr[0]);
    assert_int_equal(in->dr6, out->dr6);
    assert_int_equal(in->dr7, out->dr7);
    assert_int_equal(in->mp_state, out->mp_state);
    assert_int_equal(out->event.nmi_masked, true);
    assert_true(out->event.interrupt_shadow == 1 || out->event.interrupt_shadow == 2);
    assert_false(out->event.exception_injected);
    assert_memory_equal(in->xsave, out->xsave, 2);
    assert_memory_equal(in->xsave + 24, out->xsave + 24, 4);
    assert_memory_equal(in->xsave + 160, out->xsave + 160, 256);
    assert_true(out->xsave_size >= 576);
    for (unsigned i = 0; i < out->msr_count; i++) {
        if (out->msr[i].index == 0xc0000102)
            assert_int_equal(out->msr[i].value, 0xffff888012340000ull);
        if (out->msr[i].index == 0xc0000082)
            assert_int_equal(out->msr[i].value, 0xffffffff81000000ull);
        if (out->msr[i].index == 0x277)
            assert_int_equal(out->msr[i].value, 0x0407050600070106ull);
    }
    assert_true(out->msr_count > 8);
    if (!own_lapic) {
        assert_int_equal(out->lapic.reg[0x0f], 0x1ff);
        assert_int_equal(out->lapic.reg[0x32], 0x10033);
        assert_int_equal(out->lapic.reg[0x3e], 0xb);
    }

    /* What came out goes in again, and comes out the same. */
    assert_int_equal(accel_kvm.set_state(m->cpu[0], out), 0);
    assert_int_equal(accel_kvm.get_state(m->cpu[0], in), 0);
    assert_memory_equal(in->gpr, out->gpr, sizeof(in->gpr));
    assert_memory_equal(in->xsave, out->xsave, out->xsave_size);
    assert_int_equal(in->msr_count, out->msr_count);
    free(out);
    machine_free(m);
}

static void test_bad_state_is_refused(void **unused)
{
    struct machine *m = machine_new(false, 1);

    m->state.msr_count = VCPU_MSR_MAX + 1;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    m->state.xsave_size = VCPU_XSAVE_MAX + 1;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    m->state.mp_state = 99;
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -EINVAL);
    enter_64bit(&m->state);
    assert_int_equal(vcpu_state_set_msr(&m->state, 0x12345, 1), 0);
    assert_int_equal(accel_kvm.set_state(m->cpu[0], &m->state), -ENOTSUP);
    machine_free(m);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static void test_bad_configurations(void **unused)
{
    struct accel_config config = {.vcpus = 4, .model = CPU_MODEL_HOST, .topology = {1, 3, 1}};
    struct accel_vm *vm = NULL;
    struct qz_error err = {0};

    assert_int_equal(accel_kvm.vm_new(&config, &vm, &err), -EINVAL);
    assert_non_null(strstr(err.text, "are not 4 vCPUs"));
    config =
        (struct accel_config){.vcpus = 100000, .model = CPU_MODEL_HOST, .topology = {1, 100000, 1}};
    assert_int_equal(accel_kvm.vm_new(&config, &vm, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at most"));
    assert_null(vm);
}

static void test_probe(void **unused)
{
    struct accel_probe probe;
    const struct accel_ops *ops = NULL;
    struct qz_error err = {0};

    assert_int_equal(accel_kvm.probe(&probe, true), 0);
    print_message("%s\n", probe.reason);
    assert_true(probe.present);
    assert_true(probe.ring0_loop_ns > 0);
    assert_int_equal(probe.usable, probe.ring0_loop_ns <= 200);

    assert_int_equal(accel_choose("kvm", &ops, &probe, &err), 0); /* by name: present is enough */
    assert_ptr_equal(ops, &accel_kvm);
    assert_int_equal(accel_choose("nonsense", &ops, &probe, &err), -EINVAL);
    assert_non_null(strstr(err.text, "auto, kvm"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_start_together),
        cmocka_unit_test(test_memory_slots),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_state_between_exit_and_completion),
        cmocka_unit_test(test_state_replaces_unfinished_instruction),
        cmocka_unit_test(test_state_round_trip),
        {"test_state_round_trip (own local APIC)", test_state_round_trip, NULL, NULL, &own},
        cmocka_unit_test(test_bad_state_is_refused),
        cmocka_unit_test(test_bad_configurations),
        cmocka_unit_test(test_probe),
    };

    return kvm_run_tests("kvm_state_test", tests, QZ_ARRAY_LEN(tests), argc, argv);
}

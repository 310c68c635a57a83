/* kvm_apic_test.c - interrupts on KVM: local APICs of our own and of the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/kvm/kvm_kit.h"
#include "cpu/vcpu_msrs.h"

/* ---- our own local APIC ---------------------------------------------------------------------- */

static void test_halt(void **unused)
{
    struct machine *m = machine_new(true, 1);

    START(m, halt);
    run_cpu(m, 0, EXIT_HALT);
    assert_int_equal(get_state(m)->mp_state, MP_HALTED);
    run_to_done(m);
    assert_int_equal(get_state(m)->mp_state, MP_RUNNABLE);
    machine_free(m);
}

static void test_lapic_msrs(void **unused)
{
    static const uint32_t indices[] = {0x1b, 0x6e0, 0x802, 0x80f, 0x83f};
    struct machine *m = machine_new(true, 1);

    for (unsigned i = 0; i < QZ_ARRAY_LEN(indices); i++) {
        struct vcpu_exit *e;

        enter_64bit(&m->state);
        m->state.gpr[RCX] = indices[i];
        START(m, rdmsr);
        e = run_cpu(m, 0, EXIT_RDMSR);
        assert_int_equal(e->msr.index, indices[i]);
        e->msr.value = 0xfee00900 + i;
        run_to_done(m);
        assert_int_equal(get_state(m)->gpr[RAX], 0xfee00900 + i);
    }
    machine_free(m);
}

static void test_apic_base(void **unused)
{
    struct machine *m = machine_new(true, 1);
    struct vcpu_exit *e;

    assert_int_equal(accel_kvm.get_apic_base(m->cpu[0]), 0xfee00900);
    m->state.gpr[RCX] = 0x1b;
    m->state.gpr[RAX] = 0xfee00d00;
    START(m, wrmsr);
    e = run_cpu(m, 0, EXIT_WRMSR);
    assert_int_equal(e->msr.index, 0x1b);
    assert_int_equal(e->msr.value, 0xfee00d00);
    run_to_done(m);
    assert_int_equal(accel_kvm.get_apic_base(m->cpu[0]), 0xfee00d00);
    assert_int_equal(get_state(m)->apic_base, 0xfee00d00);
    machine_free(m);
}

static void test_bad_msr_value_is_a_fault(void **unused)
{
    struct machine *m = machine_new(true, 1);

    /* KVM knows EFER and refuses its reserved bits: the guest's fault, and not the machine's to
     * answer. */
    m->state.gpr[RCX] = 0xc0000080;
    m->state.gpr[RAX] = 0x502;
    m->state.idt.limit = 0;
    START(m, wrmsr);
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

static void test_injection(void **unused)
{
    struct machine *m = machine_new(true, 1);
    struct vcpu_exit *e;

    START(m, take_interrupt);
    assert_false(accel_kvm.can_inject(m->cpu[0]));
    accel_kvm.request_window(m->cpu[0], true);
    run_cpu(m, 0, EXIT_IRQ_WINDOW);
    assert_true(accel_kvm.can_inject(m->cpu[0]));
    assert_int_equal(accel_kvm.inject(m->cpu[0], VECTOR), 0);
    assert_false(accel_kvm.can_inject(m->cpu[0]));
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    machine_free(m);
}

static void test_cr8(void **unused)
{
    struct machine *m = machine_new(true, 1);

    m->state.cr8 = 3;
    START(m, halt);
    assert_int_equal(accel_kvm.get_cr8(m->cpu[0]), 3);
    accel_kvm.set_cr8(m->cpu[0], 5);
    run_cpu(m, 0, EXIT_HALT);
    assert_int_equal(accel_kvm.get_cr8(m->cpu[0]), 5);
    assert_int_equal(get_state(m)->cr8, 5);
    machine_free(m);
}

/* ---- KVM's local APICs ----------------------------------------------------------------------- */

static void test_message(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, take_message);
    run_to_done(m);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee00000, VECTOR), 0);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    run_to_done(m); /* edge-triggered: no end of interrupt comes out */
    machine_free(m);
}

static void test_message_to_nobody(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, spin);
    /* Destination 77, and destination 0x4d00 by the extended bits. */
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee4d000, VECTOR), 0);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee009a0, VECTOR), 0);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0x12345000, VECTOR), -EINVAL);
    machine_free(m);
}

static void test_level_interrupt(void **unused)
{
    enum { LEVEL = 1 << 15, PIN = 9 };
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    assert_int_equal(accel_kvm.ioapic_route(m->vm, 24, 0xfee00000, VECTOR | LEVEL, false), -EINVAL);
    assert_int_equal(accel_kvm.ioapic_route(m->vm, PIN, 0xfee00000, VECTOR | LEVEL, false), 0);
    START(m, take_message);
    run_to_done(m);
    assert_int_equal(accel_kvm.signal_msi(m->vm, 0xfee00000, VECTOR | LEVEL | 1 << 14), 0);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    /* Masked while in service: the end must be seen all the same. */
    assert_int_equal(accel_kvm.ioapic_route(m->vm, PIN, 0xfee00000, VECTOR | LEVEL, true), 0);
    e = run_cpu(m, 0, EXIT_IOAPIC_EOI);
    assert_int_equal(e->eoi.vector, VECTOR);
    run_to_done(m);
    machine_free(m);
}

static void test_second_cpu(void **unused)
{
    struct machine *m = machine_new(false, 2);
    struct vcpu_state *ap = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*ap), (size_t)64));
    struct vcpu_exit *e;

    assert_non_null(ap);
    vcpu_state_reset(ap, false, 1);
    assert_int_equal(accel_kvm.set_state(m->cpu[1], ap), 0);
    memcpy(m->memory + AP_CODE, payload_ap_entry,
           (size_t)(payload_ap_entry_end - payload_ap_entry));
    START(m, start_ap);
    run_to_done(m);
    e = run_cpu(m, 1, EXIT_PIO);
    assert_int_equal(e->pio.port, PORT);
    assert_int_equal(*(uint8_t *)e->pio.data, 0x77);
    assert_int_equal(accel_kvm.get_state(m->cpu[1], ap), 0);
    assert_int_equal(ap->cs.selector, AP_CODE >> 4);
    assert_int_equal(ap->cs.base, AP_CODE);
    free(ap);
    machine_free(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halt),
        cmocka_unit_test(test_lapic_msrs),
        cmocka_unit_test(test_apic_base),
        cmocka_unit_test(test_bad_msr_value_is_a_fault),
        cmocka_unit_test(test_injection),
        cmocka_unit_test(test_cr8),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_message_to_nobody),
        cmocka_unit_test(test_level_interrupt),
        cmocka_unit_test(test_second_cpu),
    };

    return kvm_run_tests("kvm_apic_test", tests, QZ_ARRAY_LEN(tests), argc, argv);
}

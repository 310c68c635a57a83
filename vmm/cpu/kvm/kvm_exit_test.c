/* kvm_exit_test.c - why a guest on KVM comes out, and how it is fetched out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/kvm/kvm_kit.h"
#include "cpu/vcpu_msrs.h"

/* ---- exits ----------------------------------------------------------------------------------- */

static void test_ports(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, ports);
    e = run_cpu(m, 0, EXIT_PIO);
    assert_true(e->pio.write);
    assert_int_equal(e->pio.port, PORT);
    assert_int_equal(e->pio.size, 1);
    assert_int_equal(e->pio.count, 1);
    assert_int_equal(*(uint8_t *)e->pio.data, 0x5a);

    e = run_cpu(m, 0, EXIT_PIO);
    assert_false(e->pio.write);
    assert_int_equal(e->pio.size, 4);
    qz_store_le32(e->pio.data, 0xcafe1234);
    run_to_done(m);
    assert_int_equal(qz_load_le32(m->memory + DATA), 0xcafe1234);
    machine_free(m);
}

static void test_string_ports(void **unused)
{
    struct machine *m = machine_new(false, 1);
    char got[8] = "";
    size_t n = 0;

    memcpy(m->memory + DATA, "hello", 5);
    START(m, string);
    while (n < 5) { /* KVM may hand out the elements one by one */
        const struct vcpu_exit *e = run_cpu(m, 0, EXIT_PIO);

        assert_int_equal(e->pio.port, PORT);
        assert_true(e->pio.count >= 1 && e->pio.count <= 5 - n);
        memcpy(got + n, e->pio.data, e->pio.count);
        n += e->pio.count;
    }
    assert_string_equal(got, "hello");
    run_to_done(m);
    machine_free(m);
}

static void test_mmio(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    START(m, mmio);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_true(e->mmio.write);
    assert_int_equal(e->mmio.gpa, DEVICE);
    assert_int_equal(e->mmio.len, 8);
    assert_int_equal(qz_load_le64(e->mmio.data), 0x1122334455667788);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_false(e->mmio.write);
    assert_int_equal(e->mmio.gpa, DEVICE + 6);
    assert_int_equal(e->mmio.len, 2);
    qz_store_le16(e->mmio.data, 0xbeef);
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RCX], 0xbeef);
    machine_free(m);
}

static void test_readonly_memory(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    qz_store_le32(m->memory + READONLY, 0x600df00d);
    START(m, readonly);
    e = run_cpu(m, 0, EXIT_MMIO);
    assert_true(e->mmio.write);
    assert_int_equal(e->mmio.gpa, READONLY + 8);
    assert_int_equal(qz_load_le32(e->mmio.data), 0x12345678);
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RCX], 0x600df00d);
    assert_int_equal(m->state.gpr[RSI], 0);
    machine_free(m);
}

static void test_triple_fault(void **unused)
{
    struct machine *m = machine_new(false, 1);

    m->state.idt.limit = 0; /* no vector to deliver to */
    START(m, fault);
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

static void test_unknown_msr(void **unused)
{
    struct machine *m = machine_new(false, 1);
    struct vcpu_exit *e;

    m->state.gpr[RCX] = 0x12345;
    START(m, rdmsr);
    e = run_cpu(m, 0, EXIT_RDMSR);
    assert_int_equal(e->msr.index, 0x12345);
    e->msr.value = 0x1122334455667788;
    run_to_done(m);
    assert_int_equal(get_state(m)->gpr[RAX], 0x55667788);

    enter_64bit(&m->state);
    m->state.gpr[RCX] = 0x12345;
    m->state.gpr[RAX] = 0xaabbccdd;
    m->state.gpr[RDX] = 0x11;
    m->state.idt.limit = 0; /* so that the fault is seen as a shutdown */
    START(m, wrmsr);
    e = run_cpu(m, 0, EXIT_WRMSR);
    assert_int_equal(e->msr.value, 0x11aabbccdd);
    e->msr.fault = true;
    run_cpu(m, 0, EXIT_SHUTDOWN);
    machine_free(m);
}

/* ---- kicks ----------------------------------------------------------------------------------- */

static void *kicker(void *cpu)
{
    accel_kvm.kick(cpu);
    return NULL;
}

static void test_kick(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, spin);
    /* Before the run, and during it: whichever way the race goes, every kick is seen. */
    accel_kvm.kick(m->cpu[0]);
    run_cpu(m, 0, EXIT_KICKED);
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, kicker, m->cpu[0]), 0);
        run_cpu(m, 0, EXIT_KICKED);
        pthread_join(thread, NULL);
    }
    machine_free(m);
}

static void test_kick_after_exit_is_kept(void **unused)
{
    struct machine *m = machine_new(false, 1);

    START(m, ports);
    run_cpu(m, 0, EXIT_PIO);
    accel_kvm.kick(m->cpu[0]);
    assert_int_equal(accel_kvm.run(m->cpu[0], &m->exit), 0);
    assert_int_equal(m->exit.kind, EXIT_KICKED);
    assert_int_equal(accel_kvm.run(m->cpu[0], &m->exit), 0);
    assert_int_equal(m->exit.kind, EXIT_PIO);
    assert_false(m->exit.pio.write);
    machine_free(m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),        cmocka_unit_test(test_string_ports),
        cmocka_unit_test(test_mmio),         cmocka_unit_test(test_readonly_memory),
        cmocka_unit_test(test_triple_fault), cmocka_unit_test(test_unknown_msr),
        cmocka_unit_test(test_kick),         cmocka_unit_test(test_kick_after_exit_is_kept),
    };

    return kvm_run_tests("kvm_exit_test", tests, QZ_ARRAY_LEN(tests), argc, argv);
}

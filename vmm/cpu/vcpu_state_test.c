/*
 * vcpu_state_test.c - the states that vcpu_state.c makes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/vcpu_msrs.h"
#include "cpu/vcpu_state.h"
#include "test_state.h"

static struct vcpu_state s;

static uint64_t msr(uint32_t index)
{
    for (unsigned i = 0; i < s.msr_count; i++)
        if (s.msr[i].index == index)
            return s.msr[i].value;
    fail_msg("MSR 0x%x is not in the state", index);
    return 0;
}

static void test_reset(void **unused)
{
    memset(&s, 0xa5, sizeof(s));
    vcpu_state_reset(&s, true, 3);
    assert_int_equal(s.cs.base + s.rip, 0xfffffff0);
    assert_int_equal(s.cs.selector, 0xf000);
    assert_int_equal(s.cs.attr, 0x9b);
    assert_int_equal(s.ss.attr, 0x93);
    assert_int_equal(s.tr.attr, 0x8b);
    assert_int_equal(s.ldt.attr, 0x82);
    assert_int_equal(s.idt.limit, 0xffff);
    assert_int_equal(s.cr0, 0x60000010);
    assert_int_equal(s.efer, 0);
    assert_int_equal(s.rflags, 2);
    assert_int_equal(s.gpr[RSP], 0);
    assert_int_equal(s.xcr0, 1);
    assert_int_equal(s.dr6, 0xffff0ff0);
    assert_int_equal(s.dr7, 0x400);
    assert_int_equal(s.apic_base, 0xfee00900);
    assert_int_equal(s.mp_state, MP_RUNNABLE);
    assert_int_equal(s.lapic.reg[2], 3u << 24);
    assert_int_equal(s.lapic.reg[0xf], 0xff);
    assert_int_equal(s.lapic.reg[0x35], 0x10000);
    assert_int_equal(s.lapic.tsc_deadline, 0);
    assert_int_equal(msr(0x277), 0x0007040600070406);
    assert_int_equal(msr(0x4b564d01),
                     0); /* or the host would write its clock into a rebooted guest */
    assert_int_equal(qz_load_le32(s.xsave + 24), 0x1f80);

    vcpu_state_reset(&s, false, 1);
    assert_int_equal(s.apic_base, 0xfee00800);
    assert_int_equal(s.mp_state, MP_WAIT_SIPI);
}

static void test_sipi(void **unused)
{
    static struct vcpu_state before;

    vcpu_state_reset(&s, false, 1);
    before = s;
    vcpu_state_sipi(&s, 0x9a);
    assert_int_equal(s.cs.base, 0x9a000);
    assert_int_equal(s.cs.selector, 0x9a00);
    assert_int_equal(s.cs.limit, 0xffff);
    assert_int_equal(s.rip, 0);
    assert_int_equal(s.mp_state, MP_RUNNABLE);
    s.cs = before.cs;
    s.rip = before.rip;
    s.mp_state = before.mp_state;
    assert_memory_equal(&s, &before, sizeof(s));
}

static void test_flat(void **unused)
{
    vcpu_state_reset(&s, true, 0);
    vcpu_state_flat(&s, 64);
    assert_int_equal(s.cs.attr, 0xa9b);
    assert_int_equal(s.cs.selector, 0x10);
    assert_int_equal(s.cs.limit, 0xffffffff);
    assert_int_equal(s.ds.attr, 0xc93);
    assert_int_equal(s.ss.selector, 0x18);
    assert_int_equal(s.ldt.attr, SEG_UNUSABLE);
    vcpu_state_flat(&s, 32);
    assert_int_equal(s.cs.attr, 0xc9b);
}

static void test_set_msr(void **unused)
{
    unsigned before;

    vcpu_state_reset(&s, true, 0);
    before = s.msr_count;
    assert_int_equal(vcpu_state_set_msr(&s, 0x2ff, 0xc06), 0);
    assert_int_equal(s.msr_count, before);
    assert_int_equal(msr(0x2ff), 0xc06);
    for (uint32_t i = 0; s.msr_count < VCPU_MSR_MAX; i++)
        assert_int_equal(vcpu_state_set_msr(&s, 0x10000 + i, i), 0);
    assert_int_equal(vcpu_state_set_msr(&s, 0x20000, 1), -ENOSPC);
    assert_int_equal(vcpu_state_set_msr(&s, 0x10000, 7), 0);
    assert_int_equal(msr(0x10000), 7);
}

static void test_msr_list_has_no_doubles(void **unused)
{
    for (unsigned i = 0; i < vcpu_msr_list_count; i++)
        for (unsigned k = i + 1; k < vcpu_msr_list_count; k++)
            assert_int_not_equal(vcpu_msr_list[i].index, vcpu_msr_list[k].index);
    assert_int_equal(vcpu_msr_list[0].index, MSR_TSC);
}

static void forget(struct vcpu_state *v)
{
    vcpu_state_reset(v, false, 9);
    v->msr_count = v->xsave_size = 0;
}

static void test_saved_and_loaded(void **unused)
{
    vcpu_state_reset(&s, true, 0);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s.gpr[i] = 0x1111111111111111ull * i;
    s.mp_state = MP_HALTED;
    s.event.nmi_pending = true;
    s.event.exception_vector = 14;
    s.lapic.reg[0x20] = 0x80000000;
    s.lapic.tsc_deadline = UINT64_MAX;
    memset(s.xsave + 160, 0x5a, 256);
    TEST_STATE_KEPT(&s, vcpu_registers_state, forget);
    assert_int_equal(s.gpr[R15], 0xffffffffffffffffull);
    assert_int_equal(s.mp_state, MP_HALTED);
    assert_int_equal(s.lapic.reg[0x20], 0x80000000);
    assert_int_equal(s.xsave[160], 0x5a);
    assert_int_equal(msr(0x277), 0x0007040600070406);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_sipi),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_set_msr),
        cmocka_unit_test(test_msr_list_has_no_doubles),
        cmocka_unit_test(test_saved_and_loaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* memory_test.c - the page-table walk, in every mode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gdb/fake_target.h"
#include "gdb/memory.h"

static struct fake_target fake;
static struct gdb_target target;

static int setup(void **state)
{
    fake_target_new(&fake, &target, false);
    return 0;
}

static struct vcpu_state *cpu(void)
{
    return &fake.state[0];
}

static void expect(uint64_t linear, uint64_t wanted)
{
    uint64_t gpa;

    assert_int_equal(gdb_translate(&target, cpu(), linear, &gpa), 0);
    assert_int_equal(gpa, wanted);
}

static void expect_none(uint64_t linear)
{
    uint64_t gpa;

    assert_int_equal(gdb_translate(&target, cpu(), linear, &gpa), -EFAULT);
}

static void put64(uint64_t gpa, uint64_t value)
{
    qz_store_le64(fake.memory + gpa, value);
}

static void test_4_levels(void **state)
{
    expect(0x1234, 0x1234);
    expect(FAKE_HIGH + 0x1fffff, 0x1fffff);
    expect(0x200123, FAKE_PAGE + 0x123);
    expect_none(0x201000);
    expect_none(0x0000800000000000);               /* not canonical */
    put64(FAKE_PDPT + 8, 0x40000083 | 1ull << 63); /* 1 GiB, no-execute */
    expect(0x7abcdef0, 0x7abcdef0);
    put64(FAKE_PML4 + 8, 0xfffffffff003); /* a table where there is no memory */
    expect_none(0x8000000000);
}

static void test_5_levels(void **state)
{
    cpu()->cr4 |= 1 << 12;
    cpu()->cr3 = 0x6000;
    put64(0x6000 + 17 * 8, FAKE_PML4 | 3);
    expect((17ull << 48) + 0x200123, FAKE_PAGE + 0x123);
    expect_none(0x200123);
}

static void test_pae(void **state)
{
    cpu()->efer = 0;
    cpu()->cr3 = 0x6020; /* aligned to 32 bytes */
    put64(0x6020 + 3 * 8, FAKE_PD | 1);
    expect(0xc0200123, FAKE_PAGE + 0x123);
    expect(0xffffffffc0000001, 1); /* 32 bits count */
    expect_none(0x200123);
}

static void test_32_bits(void **state)
{
    cpu()->efer = 0;
    cpu()->cr4 = 1 << 4;
    cpu()->cr3 = 0x6000;
    qz_store_le32(fake.memory + 0x6000 + 1 * 4, 0x00c02083); /* 4 MiB, bit 32 set */
    qz_store_le32(fake.memory + 0x6000 + 2 * 4, 0x7003);
    qz_store_le32(fake.memory + 0x7000 + 5 * 4, 0x8003);
    expect(0x00412345, 0x100c12345);
    expect(0x00805678, 0x8678);
    expect_none(0x00806000);
    cpu()->cr4 = 0; /* no large pages: the bit means nothing, and there is no table there */
    expect_none(0x00412345);
}

static void test_no_paging(void **state)
{
    cpu()->cr0 = 0x11;
    cpu()->efer = 0;
    expect(0xfffffff0, 0xfffffff0);
}

static void test_access(void **state)
{
    uint8_t data[0x2000];

    memcpy(fake.memory + FAKE_PAGE + 0xffe, "ab", 2);
    assert_int_equal(gdb_memory(&target, cpu(), 0x200ffe, data, 4, false), 2); /* up to the hole */
    assert_memory_equal(data, "ab", 2);
    assert_int_equal(gdb_memory(&target, cpu(), 0x201000, data, 4, false), -EFAULT);
    assert_int_equal(gdb_memory(&target, NULL, FAKE_PAGE + 0xffe, data, 2, false), 2);
    assert_int_equal(gdb_memory(&target, cpu(), FAKE_HIGH + 0x7fff, "xyz", 3, true), 3);
    assert_memory_equal(fake.memory + 0x7fff, "xyz", 3);
    assert_int_equal(gdb_memory(&target, NULL, FAKE_MEMORY - 0x1000, data, 0x2000, false), 0x1000);
    assert_int_equal(gdb_memory(&target, NULL, ~0ull - 1, data, 4, false), -EFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_4_levels, setup),  cmocka_unit_test_setup(test_5_levels, setup),
        cmocka_unit_test_setup(test_pae, setup),       cmocka_unit_test_setup(test_32_bits, setup),
        cmocka_unit_test_setup(test_no_paging, setup), cmocka_unit_test_setup(test_access, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

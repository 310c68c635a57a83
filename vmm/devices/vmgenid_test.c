/* vmgenid_test.c - the generation identifier as a guest sees it: its page, and the event. */
#include "devices/vmgenid.h"

#include <setjmp.h>

#include <cmocka.h>

#include "devices/acpi_pm.h"
#include "machine/test_machine.h"
#include "test_state.h"

enum {
    GPE_STATUS = ACPI_PM_BASE + 0x20 + ACPI_GPE_VMGENID / 8,
    GPE_ENABLE = GPE_STATUS + ACPI_GPES / 8,
    GPE_BIT = 1 << ACPI_GPE_VMGENID % 8,
    LEVEL = 1 << 15, /* of an I/O APIC's entry */
};

static struct test_machine *t;
static struct acpi_pm *pm;
static struct vmgenid *id;

/* An accelerator that maps one thing, and notes it. */
static struct accel_ops ops;
static uint8_t *mapped;
static int map_result;

static int note_map(struct accel_vm *vm, uint64_t gpa_, uint64_t size, void *hva, bool readonly)
{
    assert_int_equal(gpa_, VMGENID_BASE);
    assert_int_equal(size, VMGENID_PAGE);
    assert_true(readonly);
    assert_null(mapped);
    if (map_result == 0)
        mapped = hva;
    return map_result;
}

static int note_unmap(struct accel_vm *vm, uint64_t gpa_, uint64_t size)
{
    assert_int_equal(gpa_, VMGENID_BASE);
    assert_int_equal(size, VMGENID_PAGE);
    assert_non_null(mapped);
    mapped = NULL;
    return 0;
}

static int setup(void **state)
{
    t = test_machine_new(1, false);
    ops = *t->accel.ops;
    ops.memory_map = note_map;
    ops.memory_unmap = note_unmap;
    t->accel.ops = &ops;
    map_result = 0;
    assert_int_equal(acpi_pm_new(&pm, &t->m, NULL), 0);
    assert_int_equal(vmgenid_new(&id, &t->m, pm, NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    vmgenid_free(id);
    assert_null(mapped);
    acpi_pm_free(pm);
    test_machine_free(t);
    return 0;
}

struct bytes {
    uint64_t half[2];
};

static struct bytes look(void)
{
    return (struct bytes){{test_load(t, VMGENID_BASE, 8), test_load(t, VMGENID_BASE + 8, 8)}};
}

static bool same(struct bytes a, struct bytes b)
{
    return a.half[0] == b.half[0] && a.half[1] == b.half[1];
}

static void it_is_random(void **state)
{
    const struct bytes first = look();

    assert_true(first.half[0] && first.half[1]);
    vmgenid_free(id);
    assert_int_equal(vmgenid_new(&id, &t->m, pm, NULL), 0);
    assert_false(same(look(), first));
}

static void it_is_mapped_and_alone_in_its_page(void **state)
{
    const struct bytes here = look();

    assert_memory_equal(mapped, &here, sizeof(here));
    for (unsigned i = sizeof(here); i < VMGENID_PAGE; i++)
        assert_int_equal(mapped[i], 0);
    assert_int_equal(test_load(t, VMGENID_BASE + VMGENID_PAGE - 8, 8), 0);
}

static void the_guest_cannot_write_it(void **state)
{
    const struct bytes before = look();

    test_store(t, VMGENID_BASE, 8, 0x1122334455667788);
    test_store(t, VMGENID_BASE + 15, 1, 0xff);
    assert_true(same(look(), before));
}

static void a_new_one_is_told(void **state)
{
    const struct bytes before = look();
    struct bytes after;
    unsigned messages;

    test_ioapic_route(t, ACPI_SCI_GSI, LEVEL | 0x41);
    test_out(t, GPE_ENABLE, GPE_BIT);
    assert_int_equal(test_in(t, GPE_STATUS), 0);
    messages = t->messages;
    assert_int_equal(vmgenid_renew(id, NULL), 0);
    after = look();
    assert_false(same(after, before));
    assert_memory_equal(mapped, &after, sizeof(after));
    assert_int_equal(test_in(t, GPE_STATUS), GPE_BIT);
    assert_int_equal(t->messages, messages + 1);
    assert_int_equal(t->message[messages % TEST_MESSAGES].data & 0xff, 0x41);
    test_out(t, GPE_STATUS, GPE_BIT);
    assert_int_equal(test_in(t, GPE_STATUS), 0);
}

static void nobody_is_disturbed_who_does_not_listen(void **state)
{
    test_ioapic_route(t, ACPI_SCI_GSI, LEVEL | 0x41);
    assert_int_equal(vmgenid_renew(id, NULL), 0);
    assert_int_equal(t->messages, 0);
    test_out(t, GPE_ENABLE, GPE_BIT); /* who begins to listen learns what has happened */
    assert_int_equal(t->messages, 1);
}

static void renew(void *device)
{
    assert_int_equal(vmgenid_renew(device, NULL), 0);
}

static void its_state_is_kept(void **state)
{
    const struct bytes before = look();

    TEST_STATE_KEPT(id, vmgenid_state, renew);
    assert_true(same(look(), before));
    assert_memory_equal(mapped, &before, sizeof(before));
}

static void what_cannot_be_mapped_is_told(void **state)
{
    struct qz_error err;
    struct vmgenid *second = NULL;

    assert_int_equal(vmgenid_new(&second, &t->m, pm, &err), -EBUSY);
    assert_non_null(strstr(err.text, "is taken"));
    vmgenid_free(id);
    map_result = -ENOSPC;
    id = NULL;
    assert_int_equal(vmgenid_new(&id, &t->m, pm, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "fake does not map it"));
    assert_null(id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_random, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_mapped_and_alone_in_its_page, setup, teardown),
        cmocka_unit_test_setup_teardown(the_guest_cannot_write_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_new_one_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_is_disturbed_who_does_not_listen, setup, teardown),
        cmocka_unit_test_setup_teardown(its_state_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_mapped_is_told, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

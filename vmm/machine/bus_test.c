/* bus_test.c - dispatch: splitting, overlaps, what nobody claims, regions that change under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "machine/bus.h"

/* A device that remembers how it was called. */
struct probe {
    struct bus *bus;
    pthread_mutex_t lock;
    unsigned calls;
    struct {
        uint64_t offset, value;
        unsigned size;
    } call[16];
    bool lock_was_held;
};

static void note(struct probe *p, uint64_t offset, unsigned size, uint64_t value)
{
    assert_true(p->calls < QZ_ARRAY_LEN(p->call));
    p->call[p->calls].offset = offset;
    p->call[p->calls].size = size;
    p->call[p->calls++].value = value;
    p->lock_was_held = pthread_mutex_trylock(&p->lock) == EBUSY;
    if (!p->lock_was_held)
        pthread_mutex_unlock(&p->lock);
}
static uint64_t probe_read(void *device, uint64_t offset, unsigned size)
{
    note(device, offset, size, 0);
    return 0x8877665544332211ull + offset;
}
static void probe_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    note(device, offset, size, value);
}
static const struct bus_ops probe_ops = {probe_read, probe_write};

static struct bus *new_bus(uint64_t size)
{
    struct bus *b;

    assert_int_equal(bus_new(&b, size), 0);
    return b;
}

static int add(struct bus *b, uint64_t base, uint64_t size, struct probe *p)
{
    return bus_add(b, &(struct bus_region){base, size, &probe_ops, p, &p->lock, "probe"});
}

static void expect_call(const struct probe *p, unsigned i, uint64_t offset, unsigned size,
                        uint64_t value)
{
    assert_true(i < p->calls);
    assert_int_equal(p->call[i].offset, offset);
    assert_int_equal(p->call[i].size, size);
    assert_int_equal(p->call[i].value, value);
}

static void odd_sizes_are_split(void **state)
{
    struct probe p = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct bus *b = new_bus(0);
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    assert_int_equal(add(b, 0x1000, 0x100, &p), 0);
    bus_write(b, 0x1003, data, 7);
    assert_int_equal(p.calls, 3);
    expect_call(&p, 0, 3, 4, 0x04030201);
    expect_call(&p, 1, 7, 2, 0x0605);
    expect_call(&p, 2, 9, 1, 7);
    assert_true(p.lock_was_held);
    p.calls = 0;
    bus_write(b, 0x1000, data, 8);
    assert_int_equal(p.calls, 1);
    expect_call(&p, 0, 0, 8, 0x0807060504030201ull);
    p.calls = 0;
    bus_read(b, 0x1010, data, 3);
    assert_int_equal(p.calls, 2);
    assert_int_equal(data[0], 0x21);
    assert_int_equal(data[1], 0x22);
    assert_int_equal(data[2], 0x23); /* 0x11 + offset 0x12 */
    assert_int_equal(data[3], 4);
    bus_free(b);
}

static void accesses_over_an_end_are_split(void **state)
{
    struct probe first = {.lock = PTHREAD_MUTEX_INITIALIZER},
                 second = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct bus *b = new_bus(0);
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    assert_int_equal(add(b, 0x1000, 3, &first), 0);
    assert_int_equal(add(b, 0x1004, 1, &second), 0);
    bus_write(b, 0x1001, data, 8);
    assert_int_equal(first.calls, 1);
    expect_call(&first, 0, 1, 2, 0x0201);
    assert_int_equal(second.calls, 1);
    expect_call(&second, 0, 0, 1, 4);
    bus_read(b, 0x0ffe, data, 8);
    assert_memory_equal(data, ((uint8_t[]){0xff, 0xff, 0x11, 0x22, 0x13, 0xff, 0x11, 0xff}), 8);
    bus_free(b);
}

static void unclaimed_addresses_read_ones(void **state)
{
    struct bus *ports = new_bus(0x10000), *mmio = new_bus(0);
    struct probe top = {.lock = PTHREAD_MUTEX_INITIALIZER},
                 zero = {.lock = PTHREAD_MUTEX_INITIALIZER};
    uint64_t v = 0;

    bus_read(ports, 0x1234, &v, 4);
    assert_int_equal(v, 0xffffffff);
    v = 0;
    bus_read(ports, 0xfffe, &v, 8);
    assert_int_equal(v, ~0ull);
    v = 0;
    bus_read(ports, 0x10000, &v, 2);
    assert_int_equal(v, 0xffff);
    bus_write(ports, ~0ull, &v, 8);
    /* The end of 64 bits does not run into address 0. */
    assert_int_equal(add(mmio, ~0ull, 1, &top), 0);
    assert_int_equal(add(mmio, 0, 4, &zero), 0);
    v = 0;
    bus_read(mmio, ~0ull, &v, 4);
    assert_int_equal(v, 0xffffff11);
    bus_write(mmio, ~0ull, &v, 4);
    assert_int_equal(top.calls, 2);
    assert_int_equal(zero.calls, 0);
    bus_free(ports);
    bus_free(mmio);
}

static void overlaps_are_refused(void **state)
{
    struct probe p = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct bus *b = new_bus(0x10000);

    assert_int_equal(add(b, 0x100, 0x10, &p), 0);
    assert_int_equal(add(b, 0x100, 0x10, &p), -EBUSY);
    assert_int_equal(add(b, 0x10f, 1, &p), -EBUSY);
    assert_int_equal(add(b, 0xf0, 0x11, &p), -EBUSY);
    assert_int_equal(add(b, 0, 0x10000, &p), -EBUSY);
    assert_int_equal(add(b, 0xf0, 0x10, &p), 0);
    assert_int_equal(add(b, 0x110, 1, &p), 0);
    assert_int_equal(add(b, 0, 0, &p), -EINVAL);
    assert_int_equal(add(b, 0xffff, 2, &p), -EINVAL);
    assert_int_equal(add(b, 0x10000, 1, &p), -EINVAL);
    assert_int_equal(add(b, 1, ~0ull, &p), -EINVAL);
    bus_remove(b, 0x100, 0x11); /* not its size: nothing happens */
    assert_int_equal(add(b, 0x100, 0x10, &p), -EBUSY);
    bus_remove(b, 0x100, 0x10);
    assert_int_equal(add(b, 0x100, 0x10, &p), 0);
    bus_free(b);
}

static void many_regions_are_found(void **state)
{
    static struct probe p[300];
    struct bus *b = new_bus(0);
    uint32_t v;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(p); i++) {
        unsigned k = i * 7 % QZ_ARRAY_LEN(p); /* not in order */

        pthread_mutex_init(&p[k].lock, NULL);
        assert_int_equal(add(b, 0x1000 + k * 0x20ull, 0x10, &p[k]), 0);
    }
    for (unsigned i = 0; i < QZ_ARRAY_LEN(p); i++) {
        bus_read(b, 0x1008 + i * 0x20ull, &v, 4);
        assert_int_equal(p[i].calls, 1);
        assert_int_equal(p[i].call[0].offset, 8);
        bus_read(b, 0x1010 + i * 0x20ull, &v, 4);
        assert_int_equal(p[i].calls, 1);
        assert_int_equal(v, 0xffffffff);
    }
    bus_free(b);
}

/* A device that moves itself when written, as a PCI BAR does. */
static void mover_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct probe *p = device;
    static const struct bus_ops ops = {NULL, mover_write};

    p->calls++;
    bus_remove(p->bus, 0x1000, 0x10);
    assert_int_equal(bus_add(p->bus, &(struct bus_region){value, 0x10, &ops, p, &p->lock, "moved"}),
                     0);
}

static void callbacks_may_change_the_bus(void **state)
{
    static const struct bus_ops ops = {NULL, mover_write};
    struct probe p = {.lock = PTHREAD_MUTEX_INITIALIZER};
    uint32_t to = 0x2000, v = 0;

    p.bus = new_bus(0);
    assert_int_equal(bus_add(p.bus, &(struct bus_region){0x1000, 0x10, &ops, &p, &p.lock, "mover"}),
                     0);
    bus_write(p.bus, 0x1000, &to, 4);
    bus_write(p.bus, 0x1000, &to, 4);
    assert_int_equal(p.calls, 1);
    bus_read(p.bus, 0x2000, &v, 4); /* there, but write-only */
    assert_int_equal(v, 0xffffffff);
    assert_int_equal(bus_add(p.bus, &(struct bus_region){0x2008, 1, &ops, &p, NULL, "late"}),
                     -EBUSY);
    bus_free(p.bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_sizes_are_split),
        cmocka_unit_test(accesses_over_an_end_are_split),
        cmocka_unit_test(unclaimed_addresses_read_ones),
        cmocka_unit_test(overlaps_are_refused),
        cmocka_unit_test(many_regions_are_found),
        cmocka_unit_test(callbacks_may_change_the_bus),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

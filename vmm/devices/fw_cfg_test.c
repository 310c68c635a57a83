/* fw_cfg_test.c - the firmware configuration device by its ports and by DMA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "devices/fw_cfg.h"
#include "test_state.h"

enum { REQUEST = 0x3000, BUFFER = 0x8000 };

struct fixture {
    struct machine m;
    struct fw_cfg *fw;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_int_equal(guest_memory_new(&f->m.memory, 4 << 20, NULL), 0);
    assert_int_equal(bus_new(&f->m.pio, 0x10000), 0);
    f->m.cpus = 3;
    assert_int_equal(fw_cfg_new(&f->fw, &f->m, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    fw_cfg_free(f->fw);
    bus_free(f->m.pio);
    guest_memory_free(&f->m.memory);
    free(f);
    return 0;
}

static void out(struct fixture *f, unsigned port, unsigned size, uint64_t v)
{
    bus_write(f->m.pio, port, &v, size);
}

static void read_item(struct fixture *f, uint16_t key, void *data, size_t len)
{
    out(f, 0x510, 2, key);
    for (size_t i = 0; i < len; i++)
        bus_read(f->m.pio, 0x511, (uint8_t *)data + i, 1);
}

/* Returns the control field after the request. */
static uint32_t dma(struct fixture *f, uint32_t control, uint32_t length, uint64_t address)
{
    uint8_t q[16];

    qz_store_be32(q, control);
    qz_store_be32(q + 4, length);
    qz_store_be64(q + 8, address);
    assert_int_equal(mem_write(&f->m.memory, gpa(REQUEST), q, sizeof(q)), 0);
    out(f, 0x514, 4, 0);
    out(f, 0x518, 4, __builtin_bswap32(REQUEST));
    mem_read(&f->m.memory, gpa(REQUEST), q, 4);
    return qz_load_be32(q);
}

/* Key of a file by the directory, 0 when it is not there. */
static uint16_t find(struct fixture *f, const char *name, uint32_t *size)
{
    uint8_t head[4], e[64];
    uint32_t n;

    read_item(f, 0x19, head, 4);
    n = qz_load_be32(head);
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof(e); k++)
            bus_read(f->m.pio, 0x511, e + k, 1);
        if (!strcmp((char *)e + 8, name)) {
            *size = qz_load_be32(e);
            return qz_load_be16(e + 4);
        }
    }
    return 0;
}

static void well_known_items(void **state)
{
    struct fixture *f = *state;
    uint8_t v[8];

    read_item(f, 0, v, 6);
    assert_memory_equal(v, "QEMU\0\0", 6); /* zeros behind the end */
    read_item(f, 1, v, 4);
    assert_int_equal(qz_load_le32(v), 3);
    read_item(f, 5, v, 2);
    assert_int_equal(qz_load_le16(v), 3);
    read_item(f, 0xf, v, 2);
    assert_int_equal(qz_load_le16(v), 3);
    read_item(f, 0xffff, v, 2);
    assert_int_equal(qz_load_le16(v), 0);
    bus_read(f->m.pio, 0x514, v, 4);
    bus_read(f->m.pio, 0x518, v + 4, 4);
    assert_memory_equal(v, "QEMU CFG", 8);
}

static void files(void **state)
{
    struct fixture *f = *state;
    uint32_t size = 0;
    char name[80], data[8] = "";
    uint16_t key;

    assert_int_equal(fw_cfg_add_file(f->fw, "etc/one", "hello", 5), 0);
    assert_int_equal(fw_cfg_add_file(f->fw, "etc/empty", NULL, 0), 0);
    key = find(f, "etc/one", &size);
    assert_true(key >= 0x20);
    assert_int_equal(size, 5);
    read_item(f, key, data, 7);
    assert_string_equal(data, "hello");
    assert_true(find(f, "etc/empty", &size) >= 0x20);
    assert_int_equal(size, 0);
    assert_true(find(f, "etc/system-states", &size) >= 0x20);
    assert_int_equal(size, 6);
    assert_int_equal(find(f, "etc/none", &size), 0);

    assert_int_equal(fw_cfg_add_file(f->fw, "etc/one", "x", 1), -EEXIST);
    memset(name, 'n', sizeof(name));
    name[56] = '\0';
    assert_int_equal(fw_cfg_add_file(f->fw, name, "x", 1), -ENAMETOOLONG);
    for (int i = 3; i < FW_CFG_FILES_MAX; i++) {
        snprintf(name, sizeof(name), "file%d", i);
        assert_int_equal(fw_cfg_add_file(f->fw, name, "x", 1), 0);
    }
    assert_int_equal(fw_cfg_add_file(f->fw, "one too many", "x", 1), -ENOSPC);
    assert_true(find(f, "file63", &size) == 0x20 + 63);
}

static void dma_reads(void **state)
{
    struct fixture *f = *state;
    uint32_t size;
    uint8_t v[16];
    uint16_t key;

    assert_int_equal(fw_cfg_add_file(f->fw, "f", "0123456789", 10), 0);
    key = find(f, "f", &size);
    memset(v, 0xee, sizeof(v));
    mem_write(&f->m.memory, gpa(BUFFER), v, 16);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 2, 4, BUFFER), 0);
    assert_int_equal(dma(f, 4, 2, 0), 0);
    assert_int_equal(dma(f, 2, 8, BUFFER + 4), 0); /* four bytes and then zeros */
    mem_read(&f->m.memory, gpa(BUFFER), v, 16);
    assert_memory_equal(v, "01236789\0\0\0\0\xee\xee\xee\xee", 16);
    /* Both halves of the address at once, and a selection alone. */
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8, 0, 0), 0);
    bus_read(f->m.pio, 0x511, v, 1);
    assert_int_equal(v[0], '0');
}

static void dma_errors(void **state)
{
    struct fixture *f = *state;
    uint32_t size;
    uint16_t key;

    assert_int_equal(fw_cfg_add_file(f->fw, "f", "0123456789", 10), 0);
    key = find(f, "f", &size);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 2, 4, 4 << 20), 1);
    assert_int_equal(dma(f, 2, 4, UINT64_MAX - 1), 1);
    assert_int_equal(dma(f, 2, 4, (4 << 20) - 2), 1);
    assert_int_equal(dma(f, 2, 0xffffffff, 0), 1);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 16, 4, BUFFER), 1); /* not writable */
    assert_int_equal(dma(f, 4, 0xffffffff, 0), 0);
    assert_int_equal(dma(f, 4, 0xffffffff, 0), 0); /* the position does not wrap */
    assert_int_equal(dma(f, 2, 4, BUFFER), 0);
    /* A request outside RAM, and halves of it: nothing happens. */
    out(f, 0x514, 4, 0xffffffff);
    out(f, 0x518, 4, 0xffffffff);
    out(f, 0x514, 2, 1);
    out(f, 0x519, 1, 1);
}

struct seen {
    unsigned calls;
    uint8_t data[8];
};

static void on_written(void *context, const void *data, size_t len)
{
    struct seen *s = context;

    s->calls++;
    memcpy(s->data, data, len);
}

static void writable_file(void **state)
{
    struct fixture *f = *state;
    struct seen seen = {0};
    uint32_t size;
    uint8_t v[8];
    uint16_t key;

    assert_int_equal(fw_cfg_add_writable_file(f->fw, "etc/w", 8, on_written, &seen), 0);
    key = find(f, "etc/w", &size);
    mem_write(&f->m.memory, gpa(BUFFER), "abcdefghi", 9);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 16, 9, BUFFER),
                     1); /* past its end: nothing is written */
    assert_int_equal(seen.calls, 0);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 4, 2, 0), 0);
    assert_int_equal(dma(f, 16, 6, BUFFER), 0);
    assert_int_equal(seen.calls, 1);
    assert_memory_equal(seen.data, "\0\0abcdef", 8);
    read_item(f, key, v, 8);
    assert_memory_equal(v, "\0\0abcdef", 8);
    fw_cfg_reset(f->fw);
    read_item(f, key, v, 8);
    assert_memory_equal(v, "\0\0\0\0\0\0\0\0", 8);
}

static void its_state_is_kept(void **state)
{
    struct fixture *f = *state;
    uint8_t v[8];
    uint32_t size;
    uint16_t key;

    assert_int_equal(fw_cfg_add_writable_file(f->fw, "a", 8, NULL, NULL), 0);
    key = find(f, "a", &size);
    mem_write(&f->m.memory, gpa(BUFFER), "12345678", 8);
    assert_int_equal(dma(f, (uint32_t)key << 16 | 8 | 16, 8, BUFFER), 0);
    read_item(f, key, v, 3); /* and no further */
    TEST_STATE_KEPT(f->fw, fw_cfg_state, fw_cfg_reset);
    read_item(f, key, v, 8);
    assert_memory_equal(v, "12345678", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(well_known_items, setup, teardown),
        cmocka_unit_test_setup_teardown(files, setup, teardown),
        cmocka_unit_test_setup_teardown(dma_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(dma_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(writable_file, setup, teardown),
        cmocka_unit_test_setup_teardown(its_state_is_kept, setup, teardown),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("fw_cfg", tests, NULL, NULL);
}

/* pflash_test.c - the flash as firmware drives it, with and without an accelerator that maps it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/file.h>

#include <cmocka.h>

#include "cpu/accel.h"
#include "devices/pflash.h"
#include "test_state.h"

enum { CODE_SIZE = 16384, VARS_SIZE = 3 * 4096 };
#define VARS (0x100000000ull - CODE_SIZE - VARS_SIZE)

struct fixture {
    struct machine m;
    struct pflash *flash;
    char code[64], vars[64];
};

/* An accelerator that only notes what is mapped. */
static struct {
    uint64_t gpa, size;
    uint8_t *hva;
} mapped[4];
static unsigned maps, unmaps;

static int note_map(struct accel_vm *vm, uint64_t gpa_, uint64_t size, void *hva, bool readonly)
{
    assert_true(readonly);
    assert_true(gpa_ % 4096 == 0 && size % 4096 == 0 && (uintptr_t)hva % 4096 == 0);
    for (size_t i = 0; i < QZ_ARRAY_LEN(mapped); i++) {
        if (!mapped[i].size) {
            mapped[i].gpa = gpa_;
            mapped[i].size = size;
            mapped[i].hva = hva;
            maps++;
            return 0;
        }
    }
    return -ENOSPC;
}

static int note_unmap(struct accel_vm *vm, uint64_t gpa_, uint64_t size)
{
    for (size_t i = 0; i < QZ_ARRAY_LEN(mapped); i++) {
        if (mapped[i].size == size && mapped[i].gpa == gpa_) {
            mapped[i].size = 0;
            unmaps++;
            return 0;
        }
    }
    return -ENOENT;
}

static const struct accel_ops noting = {
    .name = "noting", .memory_map = note_map, .memory_unmap = note_unmap};

static void make_file(char *path, size_t len, unsigned seed)
{
    uint8_t *data = malloc(len);
    int fd;

    for (size_t i = 0; i < len; i++)
        data[i] = (i * 7 + seed) ^ i >> 8;
    strcpy(path, "/tmp/queztl-flash-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, data, len) == (ssize_t)len);
    close(fd);
    free(data);
}

static int setup_with(void **state, struct accel_vm *accel)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct qz_error err = {0};

    memset(mapped, 0, sizeof(mapped));
    maps = unmaps = 0;
    assert_int_equal(bus_new(&f->m.mmio, 0), 0);
    f->m.accel = accel;
    make_file(f->code, CODE_SIZE, 1);
    make_file(f->vars, VARS_SIZE, 2);
    if (pflash_new(&f->flash, &f->m, f->code, f->vars, &err) < 0)
        fail_msg("%s", err.text);
    *state = f;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

static int setup_mapped(void **state)
{
    static struct accel_vm vm = {.ops = &noting};

    return setup_with(state, &vm);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    pflash_free(f->flash);
    for (size_t i = 0; i < QZ_ARRAY_LEN(mapped); i++)
        assert_int_equal(mapped[i].size, 0);
    bus_free(f->m.mmio);
    unlink(f->code);
    unlink(f->vars);
    free(f);
    return 0;
}

static uint8_t rd(struct fixture *f, uint64_t offset)
{
    uint8_t v;

    bus_read(f->m.mmio, VARS + offset, &v, 1);
    return v;
}

static void wr(struct fixture *f, uint64_t offset, uint8_t v)
{
    bus_write(f->m.mmio, VARS + offset, &v, 1);
}

static uint8_t in_file(struct fixture *f, size_t offset)
{
    FILE *file = fopen(f->vars, "rb");
    int c;

    assert_int_equal(fseek(file, offset, SEEK_SET), 0);
    c = fgetc(file);
    fclose(file);
    return c;
}

static void lies_below_4_gib(void **state)
{
    struct fixture *f = *state;
    uint8_t v[8];

    bus_read(f->m.mmio, 0xfffffff0, v, 8);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(v[i],
                         (uint8_t)(((CODE_SIZE - 16 + i) * 7 + 1) ^ (CODE_SIZE - 16 + i) >> 8));
    assert_int_equal(rd(f, 5), 5 * 7 + 2);
    bus_write(f->m.mmio, 0xfffffff0, "\0\0\0\0", 4); /* the code is not flash that takes commands */
    bus_read(f->m.mmio, 0xfffffff0, v + 4, 4);
    assert_memory_equal(v, v + 4, 4);
}

/* As OVMF's QemuFlashDetected() does it. */
static void ovmf_detects_it(void **state)
{
    struct fixture *f = *state;
    uint8_t original = rd(f, 5);

    assert_true(original != 0x50 && original != 0x70 && original != 0);
    wr(f, 5, 0x50);
    assert_int_equal(rd(f, 5), original); /* not RAM */
    wr(f, 5, 0x70);
    assert_int_equal(rd(f, 5), 0); /* neither ROM nor RAM: a cleared status */
    wr(f, 5, 0xff);
    assert_int_equal(rd(f, 5), original);
}

static void program_and_erase(void **state)
{
    struct fixture *f = *state;
    uint8_t before = rd(f, 4095);

    wr(f, 4096 + 10, 0x20);
    wr(f, 4096 + 10, 0xd0);
    assert_int_equal(rd(f, 0), 0x80);
    wr(f, 0, 0xff);
    assert_int_equal(rd(f, 4096), 0xff);
    assert_int_equal(rd(f, 8191), 0xff);
    assert_int_equal(rd(f, 4095), before); /* one block only */
    assert_int_equal(in_file(f, 4096), 0xff);
    assert_int_equal(in_file(f, 8191), 0xff);
    assert_int_equal(in_file(f, 4095), before);

    wr(f, 5000, 0x10);
    wr(f, 5000, 0x5a);
    wr(f, 5001, 0x40);
    wr(f, 5001, 0x0f);
    assert_int_equal(rd(f, 5000), 0x80);
    wr(f, 5001, 0xff);
    assert_int_equal(rd(f, 5000), 0x5a);
    assert_int_equal(in_file(f, 5001), 0x0f);
    wr(f, 5000, 0x10);
    wr(f, 5000, 0xf0); /* bits are only cleared */
    wr(f, 5000, 0xff);
    assert_int_equal(rd(f, 5000), 0x50);
    assert_int_equal(in_file(f, 5000), 0x50);
}

static void wide_accesses(void **state)
{
    struct fixture *f = *state;
    uint32_t v = 0x20;

    bus_write(f->m.mmio, VARS, &v, 4);
    v = 0xd0;
    bus_write(f->m.mmio, VARS, &v, 4);
    bus_read(f->m.mmio, VARS, &v, 4);
    assert_int_equal(v, 0x80808080);
    v = 0x10;
    bus_write(f->m.mmio, VARS + 8, &v, 4);
    v = 0x44332211;
    bus_write(f->m.mmio, VARS + 8, &v, 4);
    v = 0xff;
    bus_write(f->m.mmio, VARS + 8, &v, 4);
    bus_read(f->m.mmio, VARS + 8, &v, 4);
    assert_int_equal(v, 0x44332211);
}

static void buffered_write(void **state)
{
    struct fixture *f = *state;

    wr(f, 0, 0x20);
    wr(f, 0, 0xd0);
    wr(f, 512, 0xe8);
    assert_int_equal(rd(f, 512), 0x80);
    wr(f, 512, 3); /* four bytes */
    for (int i = 0; i < 4; i++)
        wr(f, 520 + i, 0xa0 + i);
    wr(f, 512, 0xd0);
    assert_int_equal(rd(f, 512), 0x80);
    wr(f, 0, 0xff);
    assert_int_equal(rd(f, 519), 0xff);
    assert_int_equal(rd(f, 520), 0xa0);
    assert_int_equal(rd(f, 523), 0xa3);
    assert_int_equal(in_file(f, 523), 0xa3);
    assert_int_equal(rd(f, 524), 0xff);

    /* Leaving the buffer's piece of flash, and another command instead of the confirmation. */
    wr(f, 512, 0xe8);
    wr(f, 512, 1);
    wr(f, 512, 0);
    wr(f, 768, 0);
    assert_int_equal(rd(f, 0), 0xb0);
    wr(f, 0, 0x50);
    wr(f, 512, 0xe8);
    wr(f, 512, 0);
    wr(f, 512, 0);
    wr(f, 512, 0xff);
    assert_int_equal(rd(f, 0), 0xb0);
    wr(f, 0, 0xff);
    assert_int_equal(rd(f, 512), 0xff);
}

static void identification(void **state)
{
    struct fixture *f = *state;

    wr(f, 0, 0x90);
    assert_int_equal(rd(f, 0), 0x89);
    assert_int_equal(rd(f, 1), 0x18);
    wr(f, 0, 0x98);
    assert_int_equal(rd(f, 0x10), 'Q');
    assert_int_equal(rd(f, 0x11), 'R');
    assert_int_equal(rd(f, 0x12), 'Y');
    assert_int_equal(rd(f, 0x27), 14); /* 12 KiB need 2^14 */
    assert_int_equal(rd(f, 0x2d), 2);
    assert_int_equal(rd(f, 0x2f), 16);
    assert_int_equal(rd(f, 4000), 0);
    wr(f, 0, 0x60);
    wr(f, 0, 0xd0);
    assert_int_equal(rd(f, 0), 0x80);
    wr(f, 0, 0x60);
    wr(f, 0, 0x77);
    assert_int_equal(rd(f, 0), 0xb0);
    pflash_reset(f->flash);
    assert_int_equal(rd(f, 5), 5 * 7 + 2);
}

static void mapped_while_it_is_an_array(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(maps, 2);
    assert_int_equal(mapped[0].gpa, 0x100000000ull - CODE_SIZE);
    assert_int_equal(mapped[1].gpa, VARS);
    assert_int_equal(mapped[1].size, VARS_SIZE);
    wr(f, 0, 0xff); /* an array already: nothing changes */
    assert_int_equal(unmaps, 0);
    wr(f, 0, 0x20);
    assert_int_equal(unmaps, 1);
    wr(f, 0, 0xd0);
    wr(f, 9, 0x10);
    wr(f, 9, 0x12);
    wr(f, 9, 0xff);
    assert_int_equal(unmaps, 1);
    assert_int_equal(maps, 3);
    assert_int_equal(mapped[1].hva[9], 0x12);
    wr(f, 0, 0x70);
    pflash_reset(f->flash);
    assert_int_equal(maps, 4);
}

static void survives_a_restart(void **state)
{
    struct fixture *f = *state;
    struct pflash *other;
    struct qz_error err = {0};

    wr(f, 100, 0x10);
    wr(f, 100, 0);
    assert_int_equal(pflash_new(&other, &f->m, f->code, f->vars, &err), -EWOULDBLOCK);
    assert_non_null(strstr(err.text, "in use by another machine"));
    pflash_free(f->flash);
    assert_int_equal(pflash_new(&f->flash, &f->m, f->code, f->vars, &err), 0);
    assert_int_equal(rd(f, 100), 0);
}

static void bad_files(void **state)
{
    struct fixture *f = *state;
    struct pflash *p = NULL;
    struct qz_error err = {0};
    char odd[64];

    make_file(odd, 4097, 0);
    assert_int_equal(pflash_new(&p, &f->m, "/nonexistent/code.fd", NULL, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/code.fd"));
    assert_int_equal(pflash_new(&p, &f->m, odd, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "4097 bytes"));
    assert_int_equal(pflash_new(&p, &f->m, f->code, odd, &err), -EINVAL);
    assert_int_equal(pflash_new(&p, &f->m, f->code, "/tmp", &err), -EISDIR);
    assert_int_equal(truncate(odd, 0), 0);
    assert_int_equal(pflash_new(&p, &f->m, odd, NULL, &err), -EINVAL);
    assert_int_equal(truncate(odd, 15 << 20), 0);
    pflash_free(f->flash);
    f->flash = NULL;
    assert_int_equal(truncate(f->vars, 2 << 20), 0);
    assert_int_equal(pflash_new(&p, &f->m, odd, f->vars, &err), -EINVAL);
    assert_non_null(strstr(err.text, "16 MiB"));
    /* Without a variable store: code alone. */
    assert_int_equal(pflash_new(&f->flash, &f->m, f->code, NULL, &err), 0);
    assert_int_equal(rd(f, 0), 0xff);
    pflash_reset(f->flash);
    assert_null(p);
    unlink(odd);
}

/* In the middle of a buffered write, and what was programmed before. */
static void its_state_is_kept(void **state)
{
    struct fixture *f = *state;

    wr(f, 0x100, 0x40);
    wr(f, 0x100, 0);
    wr(f, 0, 0xe8);
    wr(f, 0, 3);
    wr(f, 0x200, 0x12);
    wr(f, 0x201, 0x34);
    TEST_STATE_KEPT(f->flash, pflash_state, pflash_reset);
    wr(f, 0x202, 0x56);
    wr(f, 0x203, 0x78);
    wr(f, 0, 0xd0);
    wr(f, 0, 0xff);
    assert_int_equal(rd(f, 0x100), 0);
    assert_int_equal(rd(f, 0x203) & ~0x78, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lies_below_4_gib, setup, teardown),
        cmocka_unit_test_setup_teardown(ovmf_detects_it, setup, teardown),
        cmocka_unit_test_setup_teardown(program_and_erase, setup, teardown),
        cmocka_unit_test_setup_teardown(wide_accesses, setup, teardown),
        cmocka_unit_test_setup_teardown(buffered_write, setup, teardown),
        cmocka_unit_test_setup_teardown(identification, setup, teardown),
        cmocka_unit_test_setup_teardown(mapped_while_it_is_an_array, setup_mapped, teardown),
        cmocka_unit_test_setup_teardown(ovmf_detects_it, setup_mapped, teardown),
        cmocka_unit_test_setup_teardown(survives_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(its_state_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(its_state_is_kept, setup_mapped, teardown),
    };

    qz_log_set_level(QZ_LOG_ERROR);
    return cmocka_run_group_tests_name("pflash", tests, NULL, NULL);
}

/* snapshot_layers_test.c - layers of a machine as one file, and answers that do not fit together.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "machine/memory.h"
#include "machine/memory_layers.h"
#include "snapshot_layers.h"

enum { SIZE = 4 << 20, CHUNKS = SIZE / LAYER_CHUNK_MIN };

/* Two layers and their table: chunk 1 in the upper one, chunk 2 given back. */
struct answer {
    int fd[3];
    uint8_t table[CHUNKS];
};

static int file_of(const void *bytes, size_t len)
{
    const int fd = memfd_create("table", MFD_CLOEXEC);

    assert_int_equal(pwrite(fd, bytes, len, 0), len);
    return fd;
}

static int layer_of(const char *text, size_t chunk)
{
    const int fd = ram_file_new(SIZE);
    uint8_t page[4096] = {0};

    strcpy((char *)page, text);
    assert_int_equal(ram_file_write(fd, page, sizeof(page), chunk * LAYER_CHUNK_MIN), 4096);
    return fd;
}

static void make(struct answer *a)
{
    uint8_t page[3 * LAYER_CHUNK_MIN];

    memset(page, 'x', sizeof(page));
    a->fd[0] = layer_of("lowest", 5);
    assert_int_equal(ram_file_write(a->fd[0], page, sizeof(page), 0), sizeof(page));
    a->fd[1] = layer_of("upper", 1);
    assert_int_equal(ram_file_seal(a->fd[0]), 0);
    assert_int_equal(ram_file_seal(a->fd[1]), 0);
    memset(a->table, 0, sizeof(a->table));
    a->table[1] = 1;
    a->table[2] = LAYER_ZERO;
    a->fd[2] = file_of(a->table, sizeof(a->table));
}

static void end(struct answer *a)
{
    for (unsigned i = 0; i < 3; i++)
        close(a->fd[i]);
}

static void expect(int fd, size_t chunk, const char *text)
{
    char found[16];

    assert_int_equal(pread(fd, found, sizeof(found), (off_t)(chunk * LAYER_CHUNK_MIN)), 16);
    assert_memory_equal(found, text, strlen(text) + (*text != 'x'));
}

static void each_chunk_comes_from_its_layer(void **state)
{
    struct qz_error err = {0};
    struct answer a;
    int fd;

    make(&a);
    fd = snapshot_layers_join(a.fd, 3, SIZE, LAYER_CHUNK_MIN, &err);
    assert_true(fd >= 0);
    assert_true(ram_file_is_sealed(fd));
    expect(fd, 0, "xxxx");
    expect(fd, 1, "upper");
    expect(fd, 2, "");
    expect(fd, 5, "lowest");
    assert_int_equal(ram_file_bytes(fd), 3 * 4096);
    close(fd);
    end(&a);
}

static void one_layer_is_passed_on(void **state)
{
    struct qz_error err = {0};
    struct answer a;
    int fd;

    make(&a);
    fd = snapshot_layers_join(a.fd, 1, SIZE, 0, &err);
    assert_true(fd >= 0 && fd != a.fd[0]);
    expect(fd, 1, "xxxx");
    assert_int_equal(ram_file_bytes(fd), ram_file_bytes(a.fd[0]));
    close(fd);
    end(&a);
}

static void refused(const int *fd, unsigned fds, uint64_t size, uint64_t chunk, const char *why)
{
    struct qz_error err = {0};

    assert_int_equal(snapshot_layers_join(fd, fds, size, chunk, &err), -EREMOTEIO);
    if (!strstr(err.text, why))
        fail_msg("no \"%s\" in: %s", why, err.text);
}

static void what_does_not_fit_is_refused(void **state)
{
    const int none[LAYERS_MAX + 2] = {0};
    struct answer a;
    int fd[3];

    make(&a);
    refused(a.fd, 0, SIZE, LAYER_CHUNK_MIN, "0 files");
    refused(none, LAYERS_MAX + 2, SIZE, LAYER_CHUNK_MIN, "files of memory");
    refused(a.fd, 3, 0, LAYER_CHUNK_MIN, "of 0 bytes");
    refused(a.fd, 3, UINT64_MAX & ~4095ull, LAYER_CHUNK_MIN, "files of memory");
    refused(a.fd, 3, SIZE, 2 * LAYER_CHUNK_MIN, "another version");
    refused(a.fd, 3, 2 * SIZE, LAYER_CHUNK_MIN, "another size");

    memcpy(fd, a.fd, sizeof(fd));
    fd[1] = ram_file_new(SIZE); /* somebody could still write it */
    refused(fd, 3, SIZE, LAYER_CHUNK_MIN, "is none");
    close(fd[1]);

    fd[1] = a.fd[1];
    fd[2] = file_of(a.table, CHUNKS - 1);
    refused(fd, 3, SIZE, LAYER_CHUNK_MIN, "too short");
    close(fd[2]);

    a.table[CHUNKS - 1] = 2;
    fd[2] = file_of(a.table, CHUNKS);
    refused(fd, 3, SIZE, LAYER_CHUNK_MIN, "names file 2 of 2");
    close(fd[2]);
    end(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_chunk_comes_from_its_layer),
        cmocka_unit_test(one_layer_is_passed_on),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

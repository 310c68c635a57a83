/* snapshot_test_kit.c - see snapshot_test_kit.h. */
#include "snapshot/snapshot_test_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "snapshot/state_file.h"

static char home[] = "/dev/shm/queztl-snapshot-XXXXXX"; /* fsync costs nothing there */

int kit_setup(void **state)
{
    return mkdtemp(home) && chdir(home) == 0 ? 0 : -1;
}

int kit_teardown(void **state)
{
    kit_remove(home);
    return chdir("/");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    return remove(path);
}

void kit_remove(const char *path)
{
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void put(int fd, const void *data, size_t len, uint64_t at)
{
    assert_int_equal(pwrite(fd, data, len, (off_t)at), len);
}

int kit_memory(uint64_t seed)
{
    const int fd = memfd_create("guest", MFD_CLOEXEC);
    static uint64_t noise[KIT_CHUNK / 8];
    static char text[KIT_CHUNK];

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, KIT_MEMORY), 0);
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = "all work and no play makes a dull guest "[(i + seed) % 40];
    for (unsigned n = 3; n < 100; n += 7) {
        for (size_t i = 0; i < QZ_ARRAY_LEN(noise); i++)
            noise[i] = qz_random64(&seed);
        put(fd, noise, n == 99 ? 4096 : sizeof(noise), (uint64_t)n * KIT_CHUNK);
        put(fd, text, n == 94 ? 4096 : sizeof(text), (uint64_t)(n - 2) * KIT_CHUNK);
    }
    put(fd, "x", 1, 50 * KIT_CHUNK + 4095);                            /* one byte in a chunk */
    put(fd, memset(text, 0, sizeof(text)), KIT_CHUNK, 51 * KIT_CHUNK); /* zeros, and no hole */
    put(fd, "y", 1, KIT_MEMORY - 1);
    return fd;
}

void kit_change(int memory, uint64_t at)
{
    uint8_t byte = 0;

    assert_int_equal(pread(memory, &byte, 1, (off_t)at), 1);
    byte += 1;
    put(memory, &byte, 1, at);
}

void kit_state(void **state, size_t *len)
{
    const struct state_section section = {"cpu", "its registers", 13};
    const int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(here >= 0);
    assert_int_equal(state_file_write(here, "kit-state", &section, 1, NULL), 0);
    assert_int_equal(qz_read_file("kit-state", 4096, state, len, NULL), 0);
    assert_int_equal(unlink("kit-state"), 0);
    close(here);
}

void kit_write(const char *path, int memory, const char *parent, bool compress)
{
    const struct snapshot_options o = {.compress = compress, .parent = parent};
    json_t *d = json_pack("{s:[s,s],s:i}", "options", "--cpus", "2", "tsc_khz", 1000);
    QZ_AUTO_FREE void *state = NULL;
    struct qz_error err = {0};
    size_t len;

    kit_state(&state, &len);
    if (snapshot_dir_write(path, d, state, len, memory, KIT_MEMORY, &o, &err) < 0)
        fail_msg("%s", err.text);
    json_decref(d);
}

static void expect_chunks(const struct snapshot_dir *s, const uint8_t *expected)
{
    QZ_AUTO_FREE uint8_t *chunk = malloc(KIT_CHUNK);
    struct qz_error err = {0};

    assert_int_equal(snapshot_dir_chunk_size(s), KIT_CHUNK);
    for (uint64_t n = 0; n * KIT_CHUNK < KIT_MEMORY; n++) {
        if (snapshot_dir_read_chunk(s, n, chunk, &err) < 0)
            fail_msg("%s", err.text);
        assert_memory_equal(chunk, expected + n * KIT_CHUNK,
                            QZ_MIN((uint64_t)KIT_CHUNK, KIT_MEMORY - n * KIT_CHUNK));
    }
    assert_int_equal(snapshot_dir_read_chunk(s, 100, chunk, &err), -ERANGE);
}

void kit_expect(const char *path, int memory)
{
    QZ_AUTO_FREE uint8_t *expected = malloc(KIT_MEMORY), *got = calloc(1, KIT_MEMORY);
    QZ_AUTO_FREE void *state = NULL;
    static struct state_file file;
    struct qz_error err = {0};
    struct snapshot_dir *s;
    size_t len = 0;

    assert_int_equal(pread(memory, expected, KIT_MEMORY, 0), KIT_MEMORY);
    if (snapshot_dir_open(&s, path, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(snapshot_dir_memory_size(s), KIT_MEMORY);
    if (snapshot_dir_read_state(s, &state, &len, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(state_file_parse(state, len, &file, NULL), 0);
    assert_memory_equal(state_file_find(&file, "cpu")->data, "its registers", 13);
    if (snapshot_dir_read_memory(s, got, &err) < 0)
        fail_msg("%s", err.text);
    assert_memory_equal(got, expected, KIT_MEMORY);
    expect_chunks(s, expected);
    snapshot_dir_close(s);
}

void kit_expect_bad(const char *path, int code, const char *text)
{
    QZ_AUTO_FREE uint8_t *got = calloc(1, KIT_MEMORY);
    struct qz_error err = {0};
    struct snapshot_dir *s;
    int r = snapshot_dir_open(&s, path, &err);

    if (r == 0)
        r = snapshot_dir_read_memory(s, got, &err);
    snapshot_dir_close(s);
    if (r != code || !strstr(err.text, text))
        fail_msg("%d \"%s\", expected %d \"%s\"", r, err.text, code, text);
}

void kit_put(const char *path, const void *data, size_t len)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    put(fd, data, len, 0);
    close(fd);
}

void kit_copy(const char *from, const char *to)
{
    static const char *const files[] = {"snapshot.json", "state", "memory", "memory.index"};
    char path[256];

    assert_int_equal(mkdir(to, 0700), 0);
    for (size_t i = 0; i < QZ_ARRAY_LEN(files); i++) {
        QZ_AUTO_FREE void *data = NULL;
        size_t len;

        snprintf(path, sizeof(path), "%s/%s", from, files[i]);
        assert_int_equal(qz_read_file(path, KIT_MEMORY, &data, &len, NULL), 0);
        snprintf(path, sizeof(path), "%s/%s", to, files[i]);
        kit_put(path, data, len);
    }
}

unsigned kit_names_with(const char *folder, const char *text)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    unsigned n = 0;

    assert_non_null(d);
    while ((e = readdir(d)))
        n += strstr(e->d_name, text) != NULL;
    closedir(d);
    return n;
}

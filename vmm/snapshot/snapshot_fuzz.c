/*
 * snapshot_fuzz.c - any bytes as snapshot.json, as memory.index and working-set with a good
 * checksum, and as memory, in folders that are otherwise good.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "snapshot/snapshot_internal.h"
#include "snapshot/state_file.h"
#include "snapshot/working_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY = 4 * CHUNK_SIZE_MIN - 4096, READ_MAX = 16 << 20 };

/* What this program itself needs. */
static void must(bool happened)
{
    if (!happened)
        abort();
}

static char base[] = "/dev/shm/queztl-snapshot-fuzz-XXXXXX"; /* fsync costs nothing there */
static int good, tried;

static void remove_all(void)
{
    const int root = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    remove_snapshot_files(AT_FDCWD, "good");
    remove_snapshot_files(AT_FDCWD, "tried");
    if (root >= 0 && chdir("/") == 0)
        unlinkat(root, strrchr(base, '/') + 1, AT_REMOVEDIR);
    close(root);
}

static void write_good(const char *path, const char *parent)
{
    const struct snapshot_options o = {.compress = true, .parent = parent};
    const int memory = memfd_create("guest", MFD_CLOEXEC);

    must(ftruncate(memory, MEMORY) == 0);
    must(pwrite(memory, "some", 4, 100000) == 4 && pwrite(memory, "more", 4, 3) == 4);
    if (parent)
        must(pwrite(memory, "else", 4, 150000) == 4);
    must(snapshot_dir_write(path, NULL, "", 0, memory, MEMORY, &o, NULL) == 0);
    close(memory);
}

static void record(void)
{
    uint32_t chunk[] = {2, 0};
    struct snapshot_dir *s;

    must(snapshot_dir_open(&s, "tried", NULL) == 0);
    must(working_set_write(s, &(struct working_set){chunk, 2}, NULL) == 0);
    snapshot_dir_close(s);
}

static void begin(void)
{
    must(mkdtemp(base) && chdir(base) == 0);
    atexit(remove_all);
    write_good("good", NULL);
    write_good("tried", "good");
    good = open("good", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tried = open("tried", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(good >= 0 && tried >= 0);
    record();
}

static void put(const char *name, const void *data, size_t len)
{
    const int fd = openat(tried, name, O_WRONLY | O_TRUNC | O_CLOEXEC);

    must(fd >= 0 && write_all(fd, data, len, 0) == 0);
    close(fd);
}

/* All of it is read, when it is not too much for a fuzzer's patience. */
static void look(void)
{
    struct working_set w;
    struct snapshot_dir *s;
    struct qz_error err;
    void *memory;

    if (snapshot_dir_open(&s, "tried", &err) < 0)
        return;
    if (snapshot_dir_memory_size(s) <= READ_MAX) {
        memory = calloc(1, snapshot_dir_memory_size(s));
        must(memory);
        snapshot_dir_read_memory(s, memory, &err);
        free(memory);
    }
    must(working_set_read(s, &w, &err) < 0 || w.count <= s->index.chunks);
    working_set_free(&w);
    snapshot_dir_close(s);
}

/* In place of a good file, which is there again afterwards. */
static void try_file(const char *name, const void *data, size_t size)
{
    void *was = NULL;
    size_t len = 0;

    must(read_file(tried, name, 1 << 20, &was, &len, NULL) == 0);
    put(name, data, size);
    look();
    put(name, was, len);
    free(was);
}

/* The input as what a file's two sections are, over a good one's. */
static void try_sections(const char *name, const uint8_t *data, size_t size)
{
    struct state_file *f = malloc(sizeof(*f));
    struct state_section *h, *c;
    void *was = NULL, *changed;
    size_t len = 0;

    must(f && read_file(tried, name, 1 << 20, &was, &len, NULL) == 0);
    changed = malloc(len);
    must(changed);
    memcpy(changed, was, len);
    must(state_file_parse(changed, len, f, NULL) == 0 && f->count == 2);
    h = &f->section[0];
    c = &f->section[1];
    /* First byte: whether the head is the input's, too. */
    if (size && data[0] & 1) {
        memcpy((void *)h->data, data, QZ_MIN(size, h->len));
        data += QZ_MIN(size, h->len);
        size -= QZ_MIN(size, h->len);
    }
    memcpy((void *)c->data, data, QZ_MIN(size, c->len));
    must(state_file_write(tried, name, f->section, 2, NULL) == 0);
    look();
    put(name, was, len);
    free(changed);
    free(was);
    free(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tried)
        begin();
    try_file(SNAPSHOT_JSON, data, size);
    try_file(SNAPSHOT_MEMORY, data, size);
    try_file(SNAPSHOT_INDEX, data, size);
    try_file(SNAPSHOT_WORKING_SET, data, size);
    try_sections(SNAPSHOT_INDEX, data, size);
    try_sections(SNAPSHOT_WORKING_SET, data, size);
    return 0;
}

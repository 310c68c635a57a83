/*
 * memory_base_test.c - frozen memory: what is written, given back, frozen again and sent back to,
 * compared with a model; layers that do not become more.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "machine/memory.h"
#include "machine/memory_fold.h"

/* The files of a set as one, which is the caller's. */
static int one_file(struct memory_layers *l)
{
    struct memory_fold *f = fold_new(l, 0);
    struct memory_layers *one;
    int fd;

    assert_non_null(f);
    assert_int_equal(fold_step(f, UINT64_MAX), 0);
    one = fold_result(f);
    assert_non_null(one);
    fd = dup(one->fd[0]);
    layers_drop(one);
    fold_free(f);
    return fd;
}

static uint64_t allocated(const struct guest_memory *m)
{
    uint64_t sum = 0;

    if (!m->layers)
        return ram_file_bytes(m->fd);
    for (unsigned i = 0; i < m->layers->count; i++)
        sum += ram_file_bytes(m->layers->fd[i]);
    return sum;
}

static void fill(struct guest_memory *m, uint64_t at, const char *text)
{
    assert_int_equal(mem_write(m, gpa(at), text, strlen(text) + 1), 0);
}

static void expect(struct guest_memory *m, uint64_t at, const char *text)
{
    char found[64];

    assert_int_equal(mem_read(m, gpa(at), found, strlen(text) + 1), 0);
    assert_string_equal(found, text);
}

static void a_base_is_not_written(void **state)
{
    const uint64_t size = LOW_RAM_MAX + (16 << 20), high = HIGH_RAM + (3 << 20);
    struct qz_error err = {0};
    struct guest_memory m, clone;
    struct mem_span before, after;
    char text[8];

    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    fill(&m, 0x5000, "first");
    fill(&m, high, "above");
    assert_int_equal(mem_span(&m, gpa(high), 1, &before), 0);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    assert_int_equal(mem_span(&m, gpa(high), 1, &after), 0);
    assert_ptr_equal(before.data, after.data);
    expect(&m, 0x5000, "first");
    fill(&m, 0x5000, "after");
    fill(&m, high, "later");
    assert_int_equal(pread(m.layers->fd[0], text, 6, 0x5000), 6);
    assert_string_equal(text, "first");

    /* Another machine over the same base sees none of it, nor does this one see what that writes.
     */
    assert_int_equal(guest_memory_over(&clone, one_file(m.layers), size, &err), 0);
    expect(&clone, 0x5000, "first");
    expect(&clone, high, "above");
    fill(&clone, 0x5000, "clone");
    expect(&m, 0x5000, "after");

    assert_true(write(m.layers->fd[0], "x", 1) < 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, m.layers->fd[0], 0),
                     MAP_FAILED);
    assert_true(fallocate(m.layers->fd[0], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) <
                0);

    assert_int_equal(guest_memory_revert(&m, m.layers), 0);
    expect(&m, 0x5000, "first");
    expect(&m, high, "above");
    expect(&clone, 0x5000, "clone");
    guest_memory_free(&clone);
    guest_memory_free(&m);
}

/* What was written, given back and left alone is all in the next base; the old one stays. */
static void frozen_again(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m, old;

    assert_int_equal(guest_memory_new(&m, 64 << 20, &err), 0);
    fill(&m, 0x1000, "kept");
    fill(&m, 5 << 20, "given back");
    fill(&m, 9 << 20, "old");
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
        if (round == 0)
            assert_int_equal(guest_memory_over(&old, one_file(m.layers), 64 << 20, &err), 0);
        fill(&m, 9 << 20, "new");
        fill(&m, (20 + round) << 20, "more");
        assert_int_equal(mem_discard(&m, gpa(5 << 20), 4096), 0);
        expect(&m, 5 << 20, "");
    }
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    assert_int_equal(guest_memory_revert(&m, m.layers), 0);
    expect(&m, 0x1000, "kept");
    expect(&m, 5 << 20, "");
    expect(&m, 9 << 20, "new");
    expect(&m, 20 << 20, "more");
    expect(&m, 22 << 20, "more");
    /* The chunks of five pages in each of four layers, and little more. */
    assert_true(allocated(&m) <= 12 * LAYER_CHUNK_MIN);
    expect(&old, 5 << 20, "given back");
    expect(&old, 9 << 20, "old");
    expect(&old, 20 << 20, "");
    guest_memory_free(&old);
    guest_memory_free(&m);
}

static void cleared_memory_is_zero(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;

    assert_int_equal(guest_memory_new(&m, 8 << 20, &err), 0);
    for (unsigned round = 0; round < 2; round++) {
        fill(&m, 0x3000, "text");
        assert_int_equal(guest_memory_clear(&m), 0);
        assert_int_equal(allocated(&m), 0);
        expect(&m, 0x3000, "");
        fill(&m, 0x3000, "text");
        assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
        fill(&m, 0x4000, "text");
    }
    assert_int_equal(guest_memory_clear(&m), 0);
    assert_null(m.layers);
    expect(&m, 0x3000, "");
    expect(&m, 0x4000, "");
    guest_memory_free(&m);
}

/* Only a file that keeps its size and that nobody can write is a base. */
static void strange_bases_are_refused(void **state)
{
    struct qz_error err = {0};
    struct guest_memory m;
    int fd = memfd_create("strange", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_int_equal(ftruncate(fd, 8 << 20), 0);
    assert_int_equal(guest_memory_over(&m, dup(fd), 8 << 20, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no frozen memory"));
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | 0x10), 0);
    assert_int_equal(guest_memory_over(&m, dup(fd), 4 << 20, &err), -EINVAL);
    assert_non_null(strstr(err.text, "another size"));
    assert_int_equal(guest_memory_over(&m, fd, 8 << 20, &err), 0);
    guest_memory_free(&m);
    assert_int_equal(guest_memory_over(&m, open("/dev/null", O_RDWR), 8 << 20, &err), -EINVAL);
}

/* The last chunk below the hole under 4 GiB and the first above it are neighbours in the files, but
 * not in the process. */
static void the_hole_ends_a_mapping(void **state)
{
    const uint64_t size = 5ull << 30, chunk = layers_chunk(size);
    struct qz_error err = {0};
    struct guest_memory m;
    char text[16];

    assert_true(chunk > LAYER_CHUNK_MIN);
    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    for (unsigned round = 0; round < 3; round++) {
        snprintf(text, sizeof(text), "round %u", round);
        fill(&m, LOW_RAM_MAX - chunk, text);
        fill(&m, HIGH_RAM, text);
        fill(&m, HIGH_RAM + (3ull << 30) - 4096, text);
        assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
        fill(&m, LOW_RAM_MAX - 4096, "gone");
        fill(&m, HIGH_RAM, "gone");
        assert_int_equal(guest_memory_revert(&m, m.layers), 0);
        expect(&m, LOW_RAM_MAX - chunk, text);
        expect(&m, LOW_RAM_MAX - 4096, "");
        expect(&m, HIGH_RAM, text);
        expect(&m, HIGH_RAM + (3ull << 30) - 4096, text);
    }
    guest_memory_free(&m);
}

/* ---- against a model ---- */

enum { MODEL_SIZE = 4 << 20, MODEL_PAGES = MODEL_SIZE / 4096, KEPT = 4 };

/* Memory as it should be, and as it was whenever it was frozen. */
struct model {
    struct guest_memory m;
    uint8_t now[MODEL_SIZE];
    struct {
        struct memory_layers *layers;
        uint8_t bytes[MODEL_SIZE];
    } kept[KEPT];
    unsigned frozen;
    uint64_t random;
};

static uint64_t next_random(struct model *d, uint64_t below)
{
    d->random ^= d->random << 13; /* xorshift64 */
    d->random ^= d->random >> 7;
    d->random ^= d->random << 17;
    return d->random % below;
}

static void write_some(struct model *d)
{
    for (uint64_t n = next_random(d, 40); n; n--) {
        const uint64_t at = next_random(d, MODEL_SIZE - 9000), len = 1 + next_random(d, 9000);

        memset(d->now + at, (int)next_random(d, 4), len); /* zeroes, too */
        assert_int_equal(mem_write(&d->m, gpa(at), d->now + at, len), 0);
    }
}

static void give_some_back(struct model *d)
{
    const uint64_t page = next_random(d, MODEL_PAGES - 64), pages = 1 + next_random(d, 64);

    memset(d->now + page * 4096, 0, pages * 4096);
    assert_int_equal(mem_discard(&d->m, gpa(page * 4096), pages * 4096), 0);
}

static void freeze_model(struct model *d)
{
    const unsigned slot = d->frozen++ % KEPT;
    struct qz_error err = {0};

    assert_int_equal(guest_memory_freeze(&d->m, NULL, &err), 0);
    assert_true(d->m.layers->count <= LAYERS_MAX);
    layers_drop(d->kept[slot].layers);
    d->kept[slot].layers = layers_hold(d->m.layers);
    memcpy(d->kept[slot].bytes, d->now, MODEL_SIZE);
}

static void compare(struct guest_memory *m, const uint8_t *with)
{
    struct mem_span s;

    assert_int_equal(mem_span(m, gpa(0), MODEL_SIZE, &s), 0);
    assert_memory_equal(s.data, with, MODEL_SIZE);
}

/* A machine that begins from one of the moments that are kept. */
static void clone_one(struct model *d, unsigned slot)
{
    struct guest_memory clone;
    struct qz_error err = {0};

    assert_int_equal(guest_memory_over(&clone, one_file(d->kept[slot].layers), MODEL_SIZE, &err),
                     0);
    compare(&clone, d->kept[slot].bytes);
    guest_memory_free(&clone);
}

static void go_back(struct model *d, unsigned slot)
{
    assert_int_equal(guest_memory_revert(&d->m, d->kept[slot].layers), 0);
    memcpy(d->now, d->kept[slot].bytes, MODEL_SIZE);
}

static void tidy_some(struct model *d)
{
    for (uint64_t n = next_random(d, 12); n && guest_memory_tidy(&d->m); n--)
        ;
}

static void one_round(struct model *d)
{
    const unsigned slot =
        d->frozen ? (unsigned)next_random(d, QZ_MIN(d->frozen, (unsigned)KEPT)) : 0;

    write_some(d);
    if (next_random(d, 2))
        give_some_back(d);
    switch (next_random(d, 12)) {
    case 0:
        if (d->frozen)
            go_back(d, slot);
        break;
    case 1:
        if (d->frozen)
            clone_one(d, slot);
        break;
    case 2:
        if (next_random(d, 10) == 0) {
            assert_int_equal(guest_memory_clear(&d->m), 0);
            memset(d->now, 0, MODEL_SIZE);
        }
        break;
    case 3:
    case 4:
        tidy_some(d);
        break;
    case 5: /* to the last one, as queztl-hv does */
        if (d->frozen)
            go_back(d, (d->frozen - 1) % KEPT);
        break;
    default:
        freeze_model(d);
    }
    compare(&d->m, d->now);
}

static void run_model(uint64_t seed, bool has_page_map, unsigned rounds)
{
    struct model *d = calloc(1, sizeof(*d));
    struct qz_error err = {0};

    assert_non_null(d);
    d->random = seed;
    assert_int_equal(guest_memory_new(&d->m, MODEL_SIZE, &err), 0);
    if (!has_page_map) {
        close(d->m.pagemap);
        d->m.pagemap = -1;
    }
    for (unsigned i = 0; i < rounds; i++)
        one_round(d);
    for (unsigned i = 0; i < KEPT; i++) {
        clone_one(d, i);
        layers_drop(d->kept[i].layers);
    }
    guest_memory_free(&d->m);
    free(d);
}

static void as_the_model_says(void **state)
{
    run_model(0x9e3779b97f4a7c15, true, 400);
    run_model(0xd1b54a32d192ed03, true, 400);
}

static void as_the_model_says_without_a_page_map(void **state)
{
    run_model(0x2545f4914f6cdd1d, false, 60);
}

/* A thousand snapshots of a machine that writes the same and a little more. */
static void layers_do_not_become_more(void **state)
{
    const uint64_t size = 32 << 20;
    struct qz_error err = {0};
    struct guest_memory m;
    unsigned most = 0;

    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    for (unsigned round = 0; round < 1000; round++) {
        char text[32];

        snprintf(text, sizeof(text), "round %u", round);
        fill(&m, 1 << 20, text);
        fill(&m, (uint64_t)(round * 7919 % 8192) * 4096, text);
        assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
        while (guest_memory_tidy(&m))
            ;
        most = QZ_MAX(most, m.layers->count);
        expect(&m, 1 << 20, text);
        assert_true(allocated(&m) <= 2 * size);
    }
    assert_true(most >= 2 && most < LAYERS_MAX);
    guest_memory_free(&m);
}

static unsigned mappings(void)
{
    QZ_AUTO_FILE FILE *f = fopen("/proc/self/maps", "re");
    unsigned count = 0;

    assert_non_null(f);
    for (int c; (c = getc(f)) != EOF;)
        count += c == '\n';
    return count;
}

/* Every fourth chunk of a machine of 1 GiB, in two goes: more mappings than are to be. */
static void scattered_writes_take_few_mappings(void **state)
{
    const uint64_t size = 1 << 30, step = 4 * LAYER_CHUNK_MIN;
    struct qz_error err = {0};
    struct guest_memory m;

    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    for (unsigned half = 0; half < 2; half++) {
        for (uint64_t at = half * size / 4; at < size; at += step)
            fill(&m, at, half ? "second" : "first");
        assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
        assert_true(mappings() < 40000);
        assert_int_equal(m.layers->count, 1);
        expect(&m, half * size / 4 + 10 * step, half ? "second" : "first");
        expect(&m, half * size / 4 + 11 * step - LAYER_CHUNK_MIN, "");
    }
    expect(&m, 0, "first");
    guest_memory_free(&m);
}

/* ---- threads that look together */

struct lent {
    void (*job)(void *context, unsigned part);
    void *context;
    unsigned next, parts;
};

static void *lend(void *argument)
{
    struct lent *l = argument;

    for (unsigned n; (n = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED)) < l->parts;)
        l->job(l->context, n);
    return NULL;
}

static void share(void *lender, void (*job)(void *context, unsigned part), void *context,
                  unsigned parts)
{
    struct lent l = {job, context, 0, parts};
    pthread_t thread[3];

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, lend, &l), 0);
    for (unsigned i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    *(unsigned *)lender += parts;
}

static void found_by_threads(void **state)
{
    const uint64_t size = LOW_RAM_MAX + (80 << 20), step = 5 << 20;
    unsigned parts = 0;
    const struct memory_threads threads = {share, &parts};
    struct qz_error err = {0};
    struct guest_memory m;
    char text[32];

    assert_int_equal(guest_memory_new(&m, size, &err), 0);
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t at = 0; at < size; at += step) {
            snprintf(text, sizeof(text), "%u at %llx", round, (unsigned long long)at);
            fill(&m, at < LOW_RAM_MAX ? at : at - LOW_RAM_MAX + HIGH_RAM, text);
        }
        guest_memory_foresee(&m);
        assert_int_equal(guest_memory_freeze(&m, &threads, &err), 0);
        fill(&m, 4096, "lost");
        assert_int_equal(guest_memory_revert(&m, m.layers), 0);
        for (uint64_t at = 0; at < size; at += step) {
            snprintf(text, sizeof(text), "%u at %llx", round, (unsigned long long)at);
            expect(&m, at < LOW_RAM_MAX ? at : at - LOW_RAM_MAX + HIGH_RAM, text);
        }
        expect(&m, 4096, "");
    }
    assert_int_equal(parts, 2 * (size / (32 << 20) + 1)); /* the first time has nothing to find */
    guest_memory_free(&m);
}

static long faults(void)
{
    struct rusage u;

    assert_int_equal(getrusage(RUSAGE_SELF, &u), 0);
    return u.ru_minflt;
}

/* Freezing does not look at what was given back: only at what was written there since. */
static void given_back(void **state)
{
    enum { PAGES = 4096 };
    const uint64_t at = 16 << 20;
    struct qz_error err = {0};
    struct guest_memory m;
    long before;

    assert_int_equal(guest_memory_new(&m, 64 << 20, &err), 0);
    for (unsigned i = 0; i < PAGES; i++)
        fill(&m, at + i * 4096, "used");
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    assert_int_equal(mem_discard(&m, gpa(at), PAGES * 4096ull), 0);
    fill(&m, at + 7 * 4096, "again");
    before = faults();
    assert_int_equal(guest_memory_freeze(&m, NULL, &err), 0);
    assert_in_range(faults() - before, 0, PAGES / 8);
    expect(&m, at + 7 * 4096, "again");
    expect(&m, at, "");
    expect(&m, at + (PAGES - 1) * 4096, "");
    fill(&m, at, "later");
    assert_int_equal(guest_memory_revert(&m, m.layers), 0);
    expect(&m, at + 7 * 4096, "again");
    expect(&m, at, "");
    guest_memory_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_base_is_not_written),
        cmocka_unit_test(frozen_again),
        cmocka_unit_test(cleared_memory_is_zero),
        cmocka_unit_test(strange_bases_are_refused),
        cmocka_unit_test(the_hole_ends_a_mapping),
        cmocka_unit_test(as_the_model_says),
        cmocka_unit_test(as_the_model_says_without_a_page_map),
        cmocka_unit_test(layers_do_not_become_more),
        cmocka_unit_test(scattered_writes_take_few_mappings),
        cmocka_unit_test(given_back),
        cmocka_unit_test(found_by_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

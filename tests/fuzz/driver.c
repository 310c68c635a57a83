/*
 * driver.c - runs a fuzz target a fixed number of times with reproducible inputs.
 *
 *     thing_fuzz COUNT [SEED_FILE...]     COUNT inputs: mutations of the seed files, and random
 * bytes thing_fuzz -- FILE...               exactly these inputs (to reproduce a crash)
 *
 * Input i depends only on i and the seed files, so a failing number can be run again alone with
 * QZ_FUZZ_ONLY=i. The target itself is libFuzzer's entry point, so clang -fsanitize=fuzzer can take
 * this file's place.
 */
#include <queztl/base.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 16384, SEEDS_MAX = 64 };

struct seed {
    void *data;
    size_t len;
};

static uint64_t rng_state;

static uint64_t rng(void)
{
    /* splitmix64: every state gives a full-period sequence, so any i is a good seed. */
    uint64_t z = (rng_state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t interesting(void)
{
    static const uint64_t values[] = {0,
                                      1,
                                      2,
                                      4,
                                      7,
                                      8,
                                      0x7f,
                                      0x80,
                                      0xff,
                                      0x100,
                                      0xfff,
                                      0x1000,
                                      0x7fff,
                                      0x8000,
                                      0xffff,
                                      0x10000,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000ull,
                                      0x7fffffffffffffffull,
                                      0x8000000000000000ull,
                                      ~0ull,
                                      ~0ull - 0xfff};
    return values[rng() % QZ_ARRAY_LEN(values)];
}

static size_t make_input(uint64_t i, const struct seed *seeds, size_t n_seeds, uint8_t *buf)
{
    size_t len;

    rng_state = i * 0x2545f4914f6cdd1dull + 1;
    if (n_seeds && rng() % 8) {
        const struct seed *s = &seeds[rng() % n_seeds];

        len = QZ_MIN(s->len, (size_t)INPUT_MAX);
        memcpy(buf, s->data, len);
    } else {
        len = rng() % (rng() % 4 ? 256 : INPUT_MAX);
        for (size_t k = 0; k < len; k++)
            buf[k] = rng() % 3 ? (uint8_t)rng() : (uint8_t)interesting();
    }
    for (uint64_t edits = rng() % 16; edits && len; edits--) {
        size_t at = rng() % len, width = 1u << rng() % 4;
        uint64_t v = rng() & 1 ? interesting() : rng();

        switch (rng() % 5) {
        case 0:
            buf[at] ^= 1u << rng() % 8;
            break;
        case 1:
            memcpy(buf + at, &v, QZ_MIN(width, len - at));
            break;
        case 2:
            len = at + 1;
            break;
        case 3: { /* a piece of the input over another place in it */
            size_t to = rng() % len, n = QZ_MIN(rng() % 64, len - QZ_MAX(at, to));

            memmove(buf + to, buf + at, n);
            break;
        }
        default:
            if (len < INPUT_MAX)
                buf[len++] = (uint8_t)v;
        }
    }
    return len;
}

static void run(const uint8_t *data, size_t len)
{
    /* An exact-size heap copy lets AddressSanitizer see reads past the end. */
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        abort();
    memcpy(copy, data, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static bool load(const char *path, struct seed *s)
{
    struct qz_error err;

    if (qz_read_file(path, 64 << 20, &s->data, &s->len, &err) == 0)
        return true;
    fprintf(stderr, "%s\n", err.text);
    return false;
}

int main(int argc, char **argv)
{
    static uint8_t buf[INPUT_MAX + 8];
    struct seed seeds[SEEDS_MAX];
    const char *only = getenv("QZ_FUZZ_ONLY");
    size_t n_seeds = 0;
    uint64_t count;

    qz_log_set_level(QZ_LOG_ERROR);
    if (argc < 2) {
        fprintf(stderr, "usage: %s COUNT [SEED_FILE...] | -- FILE...\n", argv[0]);
        return 2;
    }
    for (int i = 2; i < argc && n_seeds < SEEDS_MAX; i++)
        if (load(argv[i], &seeds[n_seeds]))
            n_seeds++;
        else
            return 2;
    if (!strcmp(argv[1], "--")) {
        for (size_t i = 0; i < n_seeds; i++)
            run(seeds[i].data, seeds[i].len);
        count = n_seeds;
    } else {
        count = strtoull(argv[1], NULL, 10);
        for (uint64_t i = only ? strtoull(only, NULL, 10) : 0; i < count; i++) {
            size_t len = make_input(i, seeds, n_seeds, buf);

            run(buf, len);
            if (only)
                break;
        }
    }
    for (size_t i = 0; i < n_seeds; i++)
        free(seeds[i].data);
    printf("%s: %llu inputs\n", argv[0], (unsigned long long)count);
    return 0;
}

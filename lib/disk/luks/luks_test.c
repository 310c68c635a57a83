/*
 * luks_test.c - LUKS volumes: ours, and with cryptsetup and QEMU in both directions where they are
 * installed.
 */
#include "../format.h"
#include "../memory.h"
#include "../qcow2/rig.h"
#include "volume.h"
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { SIZE = 1 << 20 };

static char folder[] = "/tmp/luks-test-XXXXXX";

struct rigged {
    const struct format_ops *format;
    struct layer *file, *l;
    const char *text;
    uint64_t size;
    struct qz_error err;
    uint8_t *bytes;
};

static int in_create(struct disk_queue *q, void *argument)
{
    struct rigged *g = argument;
    struct options o;
    struct format_create c = {.size = g->size, .options = &o};
    int rc = options_parse(&o, g->text, NULL, &g->err);

    if (!rc)
        rc = g->format->create(g->file, q, &c, &g->err);
    if (!rc)
        rc = options_check(&o, "test", &g->err);
    options_clear(&o);
    return rc;
}

static int in_open(struct disk_queue *q, void *argument)
{
    struct rigged *g = argument;
    struct options o;
    struct format_open f = {.options = &o, .label = "test"};
    int rc = options_parse(&o, g->text, NULL, &g->err);

    if (!rc)
        rc = g->format->open(&g->l, g->file, q, &f, &g->err);
    options_clear(&o);
    return rc;
}

static int in_close(struct disk_queue *q, void *argument)
{
    struct rigged *g = argument;
    int rc = layer_close(g->l, q, &g->err);

    g->l->ops->free(g->l);
    return rc;
}

/* Odd vectors, so that both ways of decrypting are used. */
static int in_use(struct disk_queue *q, void *argument)
{
    struct rigged *g = argument;
    uint8_t *b = malloc(g->size);
    struct iovec v[2] = {{b, 700}, {b + 700, 8192 - 700}};
    int rc = 0;

    for (uint64_t at = 0; !rc && at < g->size; at += 65536)
        rc = layer_write(g->l, q, at, g->bytes + at, QZ_MIN(g->size - at, 65536ull));
    if (!rc)
        rc = layer_flush(g->l, q);
    if (!rc)
        rc = layer_read(g->l, q, 0, b, g->size);
    if (!rc && memcmp(b, g->bytes, g->size))
        rc = -EBADMSG;
    if (!rc)
        rc = layer_readv(g->l, q, 4096, v, 2);
    if (!rc && memcmp(b, g->bytes + 4096, 8192))
        rc = -EBADMSG;
    free(b);
    return rc;
}

static int in_compare(struct disk_queue *q, void *argument)
{
    struct rigged *g = argument;
    uint8_t *b = malloc(g->size);
    int rc = layer_read(g->l, q, 0, b, g->size);

    if (!rc && memcmp(b, g->bytes, g->size))
        rc = -EBADMSG;
    free(b);
    return rc;
}

static void must(struct rigged *g, struct disk_queue *q,
                 int (*fn)(struct disk_queue *q, void *argument), const char *what)
{
    int rc = task_run(q, fn, g);

    if (rc)
        fail_msg("%s (%s): %d %s", what, g->text, rc, g->err.text);
}

static void fill(uint8_t *b, size_t n)
{
    for (size_t k = 0; k < n; k++)
        b[k] = (uint8_t)(k * 31 + (k >> 8) * 7 + (k >> 16));
}

static void new_file(struct rigged *g, const void *bytes, size_t n)
{
    struct qz_error err;

    assert_int_equal(
        memory_open(&g->file, &(struct memory_options){.size = n, .size_max = 64 << 20}, &err), 0);
    if (n)
        memcpy(memory_bytes(g->file), bytes, n);
}

static void put(const char *name, const void *bytes, size_t n)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static int shell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int shell(const char *fmt, ...)
{
    char line[1000], all[1200];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    snprintf(all, sizeof(all), "cd %s && { %s; } >log 2>&1 || { cat log >&2; false; }", folder,
             line);
    return system(all);
}

static const char *const kinds[] = {
    "luks_version=1,luks_iterations=1000,key_secret=open sesame",
    "luks_version=2,luks_kdf=pbkdf2,luks_iterations=1000,key_secret=open sesame",
    "luks_kdf=argon2id,luks_memory_kib=1024,luks_iterations=1000,key_secret=open sesame",
    "luks_version=2,luks_kdf=pbkdf2,luks_iterations=1000,luks_sector=4KiB,key_secret=open sesame",
};

static void ours(void **state)
{
    for (unsigned n = 0; n < QZ_ARRAY_LEN(kinds); n++) {
        struct rigged g = {.format = &luks_format, .text = kinds[n], .size = SIZE};
        struct disk_queue *q;
        struct qz_error err;

        assert_int_equal(queue_new(&q, 16, &err), 0);
        g.bytes = malloc(SIZE);
        fill(g.bytes, SIZE);
        new_file(&g, NULL, 0);
        must(&g, q, in_create, "create");
        g.text = "key_secret=open sesame";
        must(&g, q, in_open, "open");
        assert_int_equal(g.l->info.size, SIZE);
        must(&g, q, in_use, "use");
        /* Nothing of it stands in the file in clear. */
        assert_null(memmem(memory_bytes(g.file), g.file->info.size, g.bytes + 4096, 64));
        must(&g, q, in_close, "close");
        g.text = "key_secret=open barley";
        assert_int_equal(task_run(q, in_open, &g), -EACCES);
        g.text = "readonly";
        assert_int_equal(task_run(q, in_open, &g), -EACCES);
        if (system("command -v cryptsetup >/dev/null") == 0) {
            put("ours.luks", memory_bytes(g.file), g.file->info.size);
            put("key", "open sesame", 11);
            assert_int_equal(shell("cryptsetup luksDump ours.luks && cryptsetup open "
                                   "--test-passphrase --key-file key ours.luks"),
                             0);
        }
        if (n == 0 && system("command -v qemu-img >/dev/null") == 0) {
            put("model.raw", g.bytes, SIZE);
            assert_int_equal(
                shell("qemu-img convert --object secret,id=s,file=key --image-opts "
                      "driver=luks,key-secret=s,file.filename=ours.luks -O raw t.raw && "
                      "cmp t.raw model.raw"),
                0);
        }
        g.file->ops->free(g.file);
        queue_free(q);
        free(g.bytes);
    }
}

static void theirs(void **state)
{
    static const char *const commands[] = {
        /* QEMU measures how fast it is by a coarse clock, and gives up at once, one time in four or
         * more, when that has not moved. */
        "for n in $(seq 300); do qemu-img create -q --object secret,id=s,data='open sesame' "
        "-f luks -o key-secret=s,iter-time=50 t.luks 1M && break; done; "
        "qemu-img convert -n --object secret,id=s,data='open sesame' "
        "-f raw model.raw --target-image-opts driver=luks,key-secret=s,file.filename=t.luks",
        "rm -f t.luks; truncate -s 20M t.luks && cryptsetup -q luksFormat --type luks2 --pbkdf "
        "argon2id --pbkdf-memory 4096 --pbkdf-force-iterations 4 --pbkdf-parallel 1 t.luks key",
        "rm -f t.luks; truncate -s 20M t.luks && cryptsetup -q luksFormat --type luks2 --pbkdf "
        "pbkdf2 --pbkdf-force-iterations 1000 --sector-size 4096 t.luks key",
        "rm -f t.luks; truncate -s 20M t.luks && cryptsetup -q luksFormat --type luks1 "
        "--pbkdf-force-iterations 1000 -c aes-cbc-essiv:sha256 -s 256 -h sha512 t.luks key",
    };

    if (system("command -v qemu-img cryptsetup >/dev/null")) {
        print_message("skipped: qemu-img and cryptsetup are not installed\n");
        skip();
    }
    put("key", "open sesame", 11);
    for (unsigned n = 0; n < QZ_ARRAY_LEN(commands); n++) {
        struct rigged g = {.format = &luks_format, .text = "key_secret=open sesame"};
        struct disk_queue *q;
        struct qz_error err;
        char path[200];
        void *bytes;
        size_t length;

        g.bytes = malloc(SIZE);
        fill(g.bytes, SIZE);
        put("model.raw", g.bytes, SIZE);
        assert_int_equal(shell("%s", commands[n]), 0);
        snprintf(path, sizeof(path), "%s/t.luks", folder);
        assert_int_equal(qz_read_file(path, 64 << 20, &bytes, &length, &err), 0);
        new_file(&g, bytes, length);
        free(bytes);
        assert_int_equal(queue_new(&q, 16, &err), 0);
        must(&g, q, in_open, commands[n]);
        g.size = SIZE;
        must(&g, q, n ? in_use : in_compare, commands[n]);
        must(&g, q, in_close, "close");
        g.file->ops->free(g.file);
        queue_free(q);
        free(g.bytes);
    }
}

/* In a qcow2 image, with snapshots of nothing but our own making; then QEMU reads it. */
static void inside(void **state)
{
    struct rigged g = {.format = &qcow2_format,
                       .text = "encryption=luks,luks_iterations=1000,cluster_size=4KiB,"
                               "key_secret=open sesame",
                       .size = SIZE};
    struct disk_queue *q;
    struct qz_error err;

    assert_int_equal(queue_new(&q, 16, &err), 0);
    g.bytes = malloc(SIZE);
    fill(g.bytes, SIZE);
    new_file(&g, NULL, 0);
    must(&g, q, in_create, "create");
    g.text = "key_secret=open sesame";
    must(&g, q, in_open, "open");
    {
        struct rig r = {.q = q, .image = g.l, .file = g.file, .size = SIZE};

        r.model = calloc(1, SIZE);
        rig_storm(&r, 500, 8, 40 << 10);
        rig_compare(&r, "encrypted");
        rig_check(&r, "encrypted");
        memcpy(g.bytes, r.model, SIZE);
        free(r.model);
    }
    must(&g, q, in_close, "close");
    must(&g, q, in_open, "open again");
    must(&g, q, in_compare, "compare");
    must(&g, q, in_close, "close again");
    if (system("command -v qemu-img >/dev/null") == 0) {
        put("key", "open sesame", 11);
        put("ours.qcow2", memory_bytes(g.file), g.file->info.size);
        put("model.raw", g.bytes, SIZE);
        assert_int_equal(
            shell(
                "qemu-img convert --object secret,id=s,file=key --image-opts "
                "driver=qcow2,encrypt.key-secret=s,file.filename=ours.qcow2 -O raw t.raw && "
                "cmp t.raw model.raw && qemu-img check --object secret,id=s,file=key --image-opts "
                "driver=qcow2,encrypt.key-secret=s,file.filename=ours.qcow2"),
            0);
    }
    g.text = "key_secret=wrong";
    assert_int_equal(task_run(q, in_open, &g), -EACCES);
    g.file->ops->free(g.file);
    queue_free(q);
    free(g.bytes);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char line[200];

    snprintf(line, sizeof(line), "rm -rf %s", folder);
    return system(line);
}

/* Many sectors at once give what the library gives for each one. */
static void many_sectors(void **state)
{
    uint8_t key[64], ours[12288], theirs[12288], iv[16] = {0};
    EVP_CIPHER_CTX *x = EVP_CIPHER_CTX_new();
    struct qz_error err;
    struct luks_cipher *c;
    int n;

    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 7 + 1);
    assert_int_equal(luks_cipher_new(&c, "aes", "xts-plain64", key, sizeof(key), &err), 0);
    for (uint32_t sector = 512; sector <= 4096; sector *= 2) {
        uint64_t first = 0x123456789abcdeull;

        for (unsigned i = 0; i < sizeof(ours); i++)
            ours[i] = theirs[i] = (uint8_t)(i * i >> 3);
        for (uint32_t at = 0; at < sizeof(theirs); at += sector) {
            qz_store_le64(iv, first + (at >> 9));
            assert_int_equal(EVP_EncryptInit_ex(x, EVP_aes_256_xts(), NULL, key, iv), 1);
            assert_int_equal(EVP_EncryptUpdate(x, theirs + at, &n, theirs + at, (int)sector), 1);
        }
        assert_int_equal(luks_cipher_run(c, true, first, sector, ours, sizeof(ours)), 0);
        assert_memory_equal(ours, theirs, sizeof(ours));
        assert_int_equal(luks_cipher_run(c, false, first, sector, ours, sizeof(ours)), 0);
        for (unsigned i = 0; i < sizeof(ours); i++)
            assert_int_equal(ours[i], (uint8_t)(i * i >> 3));
    }
    EVP_CIPHER_CTX_free(x);
    luks_cipher_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_sectors),
        cmocka_unit_test(ours),
        cmocka_unit_test(theirs),
        cmocka_unit_test(inside),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

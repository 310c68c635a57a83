/*
 * luks2.c - LUKS version 2: a binary header with a checksum, and JSON behind it, twice ("LUKS2
 * On-Disk Format Specification 1.1.1").
 *
 * The copy with the higher sequence number whose checksum is right counts.
 */
#include "volume.h"
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum {
    BINARY = 4096,
    SIZE_MIN = 16384,
    SIZE_MAX_ = 4 << 20,
    CHECKSUM_AT = 448,
    CHECKSUM = 64,
    SLOTS_MAX = 32,
    KEYSLOTS_AT = 2 * SIZE_MIN,
    SLOT_AREA = 258048,
};

/* ---- reading JSON: every number that is a place or a length stands there as a decimal string */

static const char *text_of(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static bool number_text(json_t *o, const char *key, uint64_t *v)
{
    const char *s = text_of(o, key);

    return s && qz_parse_u64(s, key, 0, INT64_MAX, v, NULL) == 0;
}

static bool number(json_t *o, const char *key, uint64_t max, uint64_t *v)
{
    json_t *n = json_object_get(o, key);

    if (!json_is_integer(n) || json_integer_value(n) < 0 || (uint64_t)json_integer_value(n) > max)
        return false;
    *v = (uint64_t)json_integer_value(n);
    return true;
}

/* Bytes in base64; *n: room, then how many. */
static bool bytes_of(json_t *o, const char *key, uint8_t *out, size_t *n)
{
    const char *s = text_of(o, key);
    size_t length = s ? strlen(s) : 0, cut = 0;
    uint8_t buffer[192];
    int got;

    if (!length || length % 4 || length / 4 * 3 > sizeof(buffer))
        return false;
    while (cut < 2 && s[length - 1 - cut] == '=')
        cut++;
    got = EVP_DecodeBlock(buffer, (const uint8_t *)s, (int)length);
    if (got < (int)cut || (size_t)got - cut > *n)
        return false;
    *n = (size_t)got - cut;
    memcpy(out, buffer, *n);
    return true;
}

/* "aes-xts-plain64" into its two halves. */
static bool split_cipher(const char *s, char name[32], char mode[40])
{
    const char *dash = s ? strchr(s, '-') : NULL;

    if (!dash || dash - s >= 32 || strlen(dash + 1) >= 40)
        return false;
    memcpy(name, s, (size_t)(dash - s));
    name[dash - s] = 0;
    strcpy(mode, dash + 1);
    return true;
}

static bool lists(json_t *array, const char *name)
{
    for (size_t n = 0; n < json_array_size(array); n++) {
        const char *s = json_string_value(json_array_get(array, n));

        if (s && !strcmp(s, name))
            return true;
    }
    return false;
}

/* ---- finding the header */

static bool checksum_right(const uint8_t *b, uint64_t size)
{
    uint8_t zero[CHECKSUM] = {0}, sum[EVP_MAX_MD_SIZE];
    char name[33] = {0};
    const EVP_MD *md;
    EVP_MD_CTX *x;
    unsigned n = 0;
    bool ok;

    memcpy(name, b + 72, 32);
    md = EVP_get_digestbyname(name);
    x = EVP_MD_CTX_new();
    ok = md && x && EVP_DigestInit_ex(x, md, NULL) == 1 &&
         EVP_DigestUpdate(x, b, CHECKSUM_AT) == 1 && EVP_DigestUpdate(x, zero, CHECKSUM) == 1 &&
         EVP_DigestUpdate(x, b + CHECKSUM_AT + CHECKSUM, size - CHECKSUM_AT - CHECKSUM) == 1 &&
         EVP_DigestFinal_ex(x, sum, &n) == 1;
    EVP_MD_CTX_free(x);
    return ok && n <= CHECKSUM && !CRYPTO_memcmp(sum, b + CHECKSUM_AT, n);
}

/* A whole copy that is what it says, at an offset from base; NULL: there is none. */
static uint8_t *read_copy(struct layer *file, struct disk_queue *q, uint64_t base, uint64_t at,
                          const char *magic)
{
    uint8_t head[BINARY], *b;
    uint64_t size;

    if (luks_read(file, q, base + at, head, BINARY) || memcmp(head, magic, 6) ||
        qz_load_be16(head + 6) != 2 || qz_load_be64(head + 256) != at)
        return NULL;
    size = qz_load_be64(head + 8);
    if (size < SIZE_MIN || size > SIZE_MAX_ || size % BINARY)
        return NULL;
    b = malloc(size + 1);
    if (b && !luks_read(file, q, base + at, b, size) && checksum_right(b, size)) {
        b[size] = 0;
        return b;
    }
    free(b);
    return NULL;
}

static json_t *find_header(struct luks_volume *v, struct layer *file, struct disk_queue *q,
                           uint64_t base, struct qz_error *err)
{
    uint8_t *first = read_copy(file, q, base, 0, "LUKS\xba\xbe"), *second = NULL, *best;
    json_error_t where;
    json_t *json;

    for (uint64_t at = SIZE_MIN; !second && at <= SIZE_MAX_; at *= 2)
        second = read_copy(file, q, base, at, "SKUL\xba\xbe");
    best = first && (!second || qz_load_be64(first + 16) >= qz_load_be64(second + 16)) ? first
                                                                                       : second;
    if (!best) {
        qz_fail(err, -EINVAL, "both copies of the LUKS2 header are damaged (checksum)");
        return NULL;
    }
    memcpy(v->uuid, best + 168, 40);
    json = json_loads((const char *)best + BINARY, JSON_REJECT_DUPLICATES, &where);
    if (!json)
        qz_fail(err, -EINVAL, "LUKS2 metadata: line %d: %s", where.line, where.text);
    free(first);
    free(second);
    return json;
}

/* ---- opening */

static int segment(struct luks_volume *v, json_t *root, char name[32], char mode[40],
                   struct qz_error *err)
{
    json_t *segments = json_object_get(root, "segments"), *s = json_object_get(segments, "0");
    const char *size = text_of(s, "size"), *type = text_of(s, "type");
    uint64_t sector, iv;

    if (json_object_size(segments) != 1 || !type || strcmp(type, "crypt"))
        return qz_fail(err, -ENOTSUP, "LUKS2 segments: only one of type crypt is known");
    if (!number_text(s, "offset", &v->payload) || !number_text(s, "iv_tweak", &iv) ||
        !number(s, "sector_size", 4096, &sector) || !size ||
        !split_cipher(text_of(s, "encryption"), name, mode))
        return qz_fail(err, -EINVAL, "LUKS2 segment 0 lacks a field or has one out of range");
    if (json_object_get(s, "integrity"))
        return qz_fail(err, -ENOTSUP, "LUKS2 segment 0 has integrity, which is not supported");
    if (sector < 512 || sector & (sector - 1) || v->payload % sector)
        return qz_fail(err, -EINVAL, "LUKS2 segment 0: sector_size %llu, offset %llu do not fit",
                       (unsigned long long)sector, (unsigned long long)v->payload);
    if (strcmp(size, "dynamic") && (!number_text(s, "size", &v->payload_bytes) ||
                                    !v->payload_bytes || v->payload_bytes % sector))
        return qz_fail(err, -EINVAL, "LUKS2 segment 0: size \"%s\" is not possible", size);
    v->version = 2;
    v->sector_bytes = (uint32_t)sector;
    v->iv_sector = iv;
    snprintf(v->encryption, sizeof(v->encryption), "%s-%s", name, mode);
    return 0;
}

static int derive(json_t *kdf, const struct luks_secret *s, uint8_t *out, size_t n,
                  struct qz_error *err)
{
    const char *type = text_of(kdf, "type"), *hash = text_of(kdf, "hash");
    uint64_t iterations, time, kib, cpus;
    uint8_t salt[128];
    size_t salt_bytes = sizeof(salt);

    if (!type || !bytes_of(kdf, "salt", salt, &salt_bytes))
        return qz_fail(err, -EINVAL, "LUKS2 key slot: kdf lacks its type or salt");
    if (!strcmp(type, "pbkdf2") && hash && number(kdf, "iterations", UINT32_MAX, &iterations))
        return luks_pbkdf2(hash, s, salt, salt_bytes, iterations, out, n, err);
    if (!strncmp(type, "argon2i", 7) && number(kdf, "time", UINT32_MAX, &time) &&
        number(kdf, "memory", UINT32_MAX, &kib) && number(kdf, "cpus", UINT32_MAX, &cpus))
        return luks_argon2(type, s, salt, salt_bytes, time, kib, cpus, out, n, err);
    return qz_fail(err, -ENOTSUP, "LUKS2 key slot: kdf %s is not known or lacks a field", type);
}

/* 1: the digest of the segment accepts the key. */
static int digest_accepts(json_t *root, const char *slot, const struct luks_secret *s,
                          const uint8_t *key, size_t n, struct qz_error *err)
{
    json_t *digests = json_object_get(root, "digests"), *d;
    const char *name;

    json_object_foreach(digests, name, d)
    {
        uint8_t want[64], got[64], salt[128];
        size_t want_bytes = sizeof(want), salt_bytes = sizeof(salt);
        struct luks_secret k = {key, n, s->most_iterations, 0};
        const char *hash = text_of(d, "hash");
        uint64_t iterations;
        int rc;

        if (!lists(json_object_get(d, "keyslots"), slot) ||
            !lists(json_object_get(d, "segments"), "0"))
            continue;
        if (!hash || !bytes_of(d, "digest", want, &want_bytes) ||
            !bytes_of(d, "salt", salt, &salt_bytes) ||
            !number(d, "iterations", UINT32_MAX, &iterations))
            return qz_fail(err, -EINVAL, "LUKS2 digest %s lacks a field", name);
        rc = luks_pbkdf2(hash, &k, salt, salt_bytes, iterations, got, want_bytes, err);
        return rc ? rc : CRYPTO_memcmp(want, got, want_bytes) == 0;
    }
    return 0;
}

/* 1: *key is the volume's; 0: not this slot. */
static int try_slot(json_t *root, const char *name, json_t *o, struct layer *file,
                    struct disk_queue *q, uint64_t base, const struct luks_secret *s, uint8_t *key,
                    size_t *key_bytes, struct qz_error *err)
{
    json_t *af = json_object_get(o, "af"), *area = json_object_get(o, "area");
    const char *hash = text_of(af, "hash"), *type = text_of(o, "type");
    char cipher[32], mode[40];
    uint8_t slot_key[LUKS_KEY_MAX];
    uint64_t n, slot_n, stripes, at, size;
    struct luks_slot slot;
    int rc;

    if (!type || strcmp(type, "luks2"))
        return 0; /* reencrypt and the like hold no key */
    if (!hash || !number(o, "key_size", LUKS_KEY_MAX, &n) || !n ||
        !number(area, "key_size", LUKS_KEY_MAX, &slot_n) || !slot_n ||
        !number(af, "stripes", LUKS_STRIPES, &stripes) || stripes != LUKS_STRIPES ||
        !number_text(area, "offset", &at) || !number_text(area, "size", &size) ||
        n * stripes > size || !split_cipher(text_of(area, "encryption"), cipher, mode))
        return qz_fail(err, -EINVAL, "LUKS2 key slot %s lacks a field or has one out of range",
                       name);
    rc = derive(json_object_get(o, "kdf"), s, slot_key, slot_n, err);
    slot = (struct luks_slot){cipher, mode, hash, at, slot_n, n, (unsigned)stripes};
    if (!rc)
        rc = luks_slot_open(&slot, file, q, base, slot_key, key, err);
    OPENSSL_cleanse(slot_key, sizeof(slot_key));
    *key_bytes = n;
    return rc ? rc : digest_accepts(root, name, s, key, n, err);
}

int luks2_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
               uint64_t length, const struct luks_secret *s, struct qz_error *err)
{
    json_t *root = find_header(v, file, q, base, err), *slot;
    uint8_t key[LUKS_KEY_MAX];
    char cipher[32], mode[40];
    size_t key_bytes = 0;
    unsigned tried = 0;
    const char *name;
    int rc;

    if (!root)
        return err ? err->code : -EINVAL;
    rc = segment(v, root, cipher, mode, err);
    if (!rc) {
        json_object_foreach(json_object_get(root, "keyslots"), name, slot)
        {
            if (rc || tried++ >= SLOTS_MAX)
                break;
            rc = try_slot(root, name, slot, file, q, base, s, key, &key_bytes, err);
        }
        if (!rc)
            rc = qz_fail(err, -EACCES, "the passphrase opens none of the key slots");
    }
    if (rc == 1)
        rc = luks_cipher_new(&v->cipher, cipher, mode, key, key_bytes, err);
    OPENSSL_cleanse(key, sizeof(key));
    json_decref(root);
    return rc;
}

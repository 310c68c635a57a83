/* luks2_create.c - a new LUKS2 header: both copies, one key slot, one segment (luks2.c). */
#include "volume.h"
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

enum {
    BINARY = 4096,
    COPY = 16384,
    SLOTS_AT = 2 * COPY,
    SLOT_AREA = 258048,
    SALT = 32,
    CHECKSUM_AT = 448,
    ARGON_KIB = 512 << 10,
    ARGON_TIME = 4,
    ARGON_LANES = 4,
};

struct material {
    uint8_t key[LUKS_KEY_MAX], slot_key[LUKS_KEY_MAX];
    uint8_t slot_salt[SALT], digest_salt[SALT], digest[32];
    uint64_t iterations, digest_iterations, argon_kib;
};

static json_t *base64(const uint8_t *b, size_t n)
{
    char out[200];

    EVP_EncodeBlock((uint8_t *)out, b, (int)n);
    return json_string(out);
}

static json_t *decimal(uint64_t v)
{
    return json_sprintf("%llu", (unsigned long long)v);
}

static int derive(struct material *m, const struct luks_new *n, const struct luks_secret *s,
                  struct qz_error *err)
{
    struct luks_secret k = {.bytes = m->key, .length = sizeof(m->key)};
    int rc;

    if (RAND_bytes(m->key, sizeof(m->key)) != 1 || RAND_bytes(m->slot_salt, SALT) != 1 ||
        RAND_bytes(m->digest_salt, SALT) != 1)
        return qz_fail(err, -EIO, "no randomness");
    m->iterations = n->iterations ? n->iterations : luks_iterations("sha256");
    m->digest_iterations = QZ_MAX(m->iterations / 8, 1000ull);
    m->argon_kib = n->argon_kib ? n->argon_kib : ARGON_KIB;
    rc = n->argon ? luks_argon2("argon2id", s, m->slot_salt, SALT, ARGON_TIME, m->argon_kib,
                                ARGON_LANES, m->slot_key, sizeof(m->slot_key), err)
                  : luks_pbkdf2("sha256", s, m->slot_salt, SALT, m->iterations, m->slot_key,
                                sizeof(m->slot_key), err);
    return rc ? rc
              : luks_pbkdf2("sha256", &k, m->digest_salt, SALT, m->digest_iterations, m->digest,
                            sizeof(m->digest), err);
}

static json_t *kdf(const struct material *m, bool argon)
{
    if (argon)
        return json_pack("{s:s, s:I, s:I, s:I, s:o}", "type", "argon2id", "time",
                         (json_int_t)ARGON_TIME, "memory", (json_int_t)m->argon_kib, "cpus",
                         (json_int_t)ARGON_LANES, "salt", base64(m->slot_salt, SALT));
    return json_pack("{s:s, s:s, s:I, s:o}", "type", "pbkdf2", "hash", "sha256", "iterations",
                     (json_int_t)m->iterations, "salt", base64(m->slot_salt, SALT));
}

static json_t *metadata(const struct material *m, const struct luks_new *n)
{
    json_t *slot = json_pack("{s:s, s:i, s:{s:s, s:i, s:s}, s:{s:s, s:o, s:o, s:s, s:i}, s:o}",
                             "type", "luks2", "key_size", LUKS_KEY_MAX, "af", "type", "luks1",
                             "stripes", LUKS_STRIPES, "hash", "sha256", "area", "type", "raw",
                             "offset", decimal(SLOTS_AT), "size", decimal(SLOT_AREA), "encryption",
                             "aes-xts-plain64", "key_size", LUKS_KEY_MAX, "kdf", kdf(m, n->argon));
    json_t *segment =
        json_pack("{s:s, s:o, s:s, s:s, s:s, s:i}", "type", "crypt", "offset",
                  decimal(luks_header_bytes(2)), "size", "dynamic", "iv_tweak", "0", "encryption",
                  "aes-xts-plain64", "sector_size", (int)n->sector_bytes);
    json_t *digest = json_pack(
        "{s:s, s:[s], s:[s], s:s, s:I, s:o, s:o}", "type", "pbkdf2", "keyslots", "0", "segments",
        "0", "hash", "sha256", "iterations", (json_int_t)m->digest_iterations, "salt",
        base64(m->digest_salt, SALT), "digest", base64(m->digest, sizeof(m->digest)));

    return json_pack("{s:{s:o}, s:{}, s:{s:o}, s:{s:o}, s:{s:o, s:o}}", "keyslots", "0", slot,
                     "tokens", "segments", "0", segment, "digests", "0", digest, "config",
                     "json_size", decimal(COPY - BINARY), "keyslots_size",
                     decimal(luks_header_bytes(2) - SLOTS_AT));
}

static int write_copy(struct layer *file, struct disk_queue *q, uint64_t base, unsigned which,
                      const char *uuid, const char *json)
{
    uint8_t *b = calloc(1, COPY);
    unsigned n;
    int rc;

    if (!b)
        return -ENOMEM;
    memcpy(b, which ? "SKUL\xba\xbe" : "LUKS\xba\xbe", 6);
    qz_store_be16(b + 6, 2);
    qz_store_be64(b + 8, COPY);
    qz_store_be64(b + 16, 1);
    memcpy(b + 72, "sha256", 6);
    RAND_bytes(b + 104, 64);
    memcpy(b + 168, uuid, strlen(uuid));
    qz_store_be64(b + 256, which * (uint64_t)COPY);
    memcpy(b + BINARY, json, strlen(json));
    EVP_Digest(b, COPY, b + CHECKSUM_AT, &n, EVP_sha256(), NULL);
    rc = luks_write(file, q, base + which * (uint64_t)COPY, b, COPY);
    free(b);
    return rc;
}

int luks2_create(struct layer *file, struct disk_queue *q, uint64_t base, const struct luks_new *n,
                 const struct luks_secret *s, struct qz_error *err)
{
    struct luks_slot slot = {"aes",        "xts-plain64", "sha256",    SLOTS_AT,
                             LUKS_KEY_MAX, LUKS_KEY_MAX,  LUKS_STRIPES};
    struct material m;
    json_t *root = NULL;
    char *json = NULL, uuid[40];
    int rc = derive(&m, n, s, err);

    if (!rc)
        rc = luks_slot_write(&slot, file, q, base, m.slot_key, m.key, err);
    if (!rc) {
        root = metadata(&m, n);
        json = root ? json_dumps(root, JSON_COMPACT) : NULL;
        if (!json || strlen(json) >= COPY - BINARY)
            rc = qz_fail(err, -ENOMEM, "no memory for the LUKS2 metadata");
    }
    luks_new_uuid(uuid);
    for (unsigned which = 0; !rc && which < 2; which++) {
        rc = write_copy(file, q, base, which, uuid, json);
        if (rc)
            qz_fail(err, rc, "cannot write the LUKS2 header: %s", strerror(-rc));
    }
    json_decref(root);
    free(json);
    OPENSSL_cleanse(&m, sizeof(m));
    return rc;
}

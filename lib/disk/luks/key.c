/* key.c - see key.h. LUKS1 On-Disk Format §2.3 (PBKDF2), §2.4 (anti-forensic). */
#include "key.h"
#include <argon2.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

int luks_pbkdf2(const char *hash, const struct luks_secret *s, const void *salt, size_t salt_bytes,
                uint64_t iterations, void *out, size_t out_bytes, struct qz_error *err)
{
    const EVP_MD *md = EVP_get_digestbyname(hash);
    uint64_t most = s->most_iterations ? s->most_iterations : LUKS_ITERATIONS_MAX;

    if (!md)
        return qz_fail(err, -ENOTSUP, "hash %s is not known", hash);
    if (!iterations || iterations > most)
        return qz_fail(err, -EINVAL, "%llu iterations of PBKDF2 are not between 1 and %llu",
                       (unsigned long long)iterations, (unsigned long long)most);
    if (PKCS5_PBKDF2_HMAC(s->bytes, (int)s->length, salt, (int)salt_bytes, (int)iterations, md,
                          (int)out_bytes, out) != 1)
        return qz_fail(err, -ENOMEM, "PBKDF2 failed");
    return 0;
}

int luks_argon2(const char *which, const struct luks_secret *s, const void *salt, size_t salt_bytes,
                uint64_t time, uint64_t kib, uint64_t lanes, void *out, size_t out_bytes,
                struct qz_error *err)
{
    argon2_type type = strcmp(which, "argon2i") ? Argon2_id : Argon2_i;
    uint64_t most = s->most_kib ? s->most_kib : LUKS_ARGON_KIB_MAX;
    int rc;

    if (!time || time > LUKS_ARGON_TIME_MAX || kib < 8 || kib > most || !lanes || lanes > 64)
        return qz_fail(
            err, -EINVAL,
            "%s with time %llu, memory %llu KiB, cpus %llu is outside of 1..%d, 8..%llu, "
            "1..64",
            which, (unsigned long long)time, (unsigned long long)kib, (unsigned long long)lanes,
            LUKS_ARGON_TIME_MAX, (unsigned long long)most);
    rc = argon2_hash((uint32_t)time, (uint32_t)kib, (uint32_t)lanes, s->bytes, s->length, salt,
                     salt_bytes, out, out_bytes, NULL, 0, type, ARGON2_VERSION_13);
    if (rc != ARGON2_OK)
        return qz_fail(err, rc == ARGON2_MEMORY_ALLOCATION_ERROR ? -ENOMEM : -EINVAL, "%s: %s",
                       which, argon2_error_message(rc));
    return 0;
}

uint64_t luks_iterations(const char *hash)
{
    enum { TRIAL = 20000, LEAST = 100000 };
    struct luks_secret s = {.bytes = "trial", .length = 5};
    uint8_t salt[32] = {0}, out[32];
    int64_t start = qz_now_ns(), took;

    if (luks_pbkdf2(hash, &s, salt, sizeof(salt), TRIAL, out, sizeof(out), NULL))
        return LEAST;
    took = QZ_MAX(qz_now_ns() - start, (int64_t)1);
    return QZ_MIN(QZ_MAX((uint64_t)(TRIAL * 1000000000ll / took), (uint64_t)LEAST),
                  (uint64_t)LUKS_ITERATIONS_MAX);
}

/* Hashes each digest-sized block together with its number, in place; the last may be short. */
static int diffuse(const EVP_MD *md, EVP_MD_CTX *x, uint8_t *bytes, size_t n)
{
    size_t size = (size_t)EVP_MD_get_size(md);

    for (size_t at = 0, block = 0; at < n; at += size, block++) {
        uint8_t number[4], out[EVP_MAX_MD_SIZE];
        size_t part = QZ_MIN(size, n - at);

        qz_store_be32(number, (uint32_t)block);
        if (EVP_DigestInit_ex(x, md, NULL) != 1 || EVP_DigestUpdate(x, number, 4) != 1 ||
            EVP_DigestUpdate(x, bytes + at, part) != 1 || EVP_DigestFinal_ex(x, out, NULL) != 1)
            return -EIO;
        memcpy(bytes + at, out, part);
    }
    return 0;
}

/* The mix of all stripes but the last. */
static int mix(const char *hash, const uint8_t *material, size_t n, unsigned stripes, uint8_t *sum)
{
    const EVP_MD *md = EVP_get_digestbyname(hash);
    EVP_MD_CTX *x = EVP_MD_CTX_new();
    int rc = md ? x ? 0 : -ENOMEM : -ENOTSUP;

    memset(sum, 0, n);
    for (unsigned s = 0; !rc && s + 1 < stripes; s++) {
        for (size_t k = 0; k < n; k++)
            sum[k] ^= material[s * n + k];
        rc = diffuse(md, x, sum, n);
    }
    EVP_MD_CTX_free(x);
    return rc;
}

int luks_merge(const char *hash, const uint8_t *material, size_t key_bytes, unsigned stripes,
               uint8_t *key)
{
    int rc = mix(hash, material, key_bytes, stripes, key);

    for (size_t k = 0; k < key_bytes; k++)
        key[k] ^= material[(stripes - 1) * key_bytes + k];
    return rc;
}

int luks_split(const char *hash, const uint8_t *key, size_t key_bytes, unsigned stripes,
               uint8_t *material)
{
    uint8_t sum[LUKS_KEY_MAX];
    int rc;

    if (RAND_bytes(material, (int)((stripes - 1) * key_bytes)) != 1)
        return -EIO;
    rc = mix(hash, material, key_bytes, stripes, sum);
    for (size_t k = 0; k < key_bytes; k++)
        material[(stripes - 1) * key_bytes + k] = sum[k] ^ key[k];
    OPENSSL_cleanse(sum, sizeof(sum));
    return rc;
}

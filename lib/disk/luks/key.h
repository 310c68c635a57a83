/* key.h - from a passphrase to the key: derivation and anti-forensic stripes. */
#ifndef DISK_LUKS_KEY_H
#define DISK_LUKS_KEY_H

#include "cipher.h"

enum {
    LUKS_STRIPES = 4000,
    /* Against headers made to keep us busy for ever: minutes at the most. */
    LUKS_ITERATIONS_MAX = 100000000,
    LUKS_ARGON_KIB_MAX = 4 << 20,
    LUKS_ARGON_TIME_MAX = 64,
};

struct luks_secret {
    const void *bytes;
    size_t length;
    /* The most iterations of PBKDF2, and KiB for Argon2, that a header may ask for; 0: the limits
     * above. */
    uint64_t most_iterations, most_kib;
};

/* hash: "sha1", "sha256", "sha512", ... */
int luks_pbkdf2(const char *hash, const struct luks_secret *s, const void *salt, size_t salt_bytes,
                uint64_t iterations, void *out, size_t out_bytes, struct qz_error *err);
/* which: "argon2i" or "argon2id". */
int luks_argon2(const char *which, const struct luks_secret *s, const void *salt, size_t salt_bytes,
                uint64_t time, uint64_t kib, uint64_t lanes, void *out, size_t out_bytes,
                struct qz_error *err);
/* Iterations that take about a second here. */
uint64_t luks_iterations(const char *hash);

/* "AF splitter", LUKS1 §2.4: key_bytes * stripes of material against key_bytes of key. */
int luks_merge(const char *hash, const uint8_t *material, size_t key_bytes, unsigned stripes,
               uint8_t *key);
int luks_split(const char *hash, const uint8_t *key, size_t key_bytes, unsigned stripes,
               uint8_t *material);

#endif

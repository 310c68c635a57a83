/*
 * luks1.c - LUKS version 1: one header of 592 bytes, eight key slots ("LUKS On-Disk Format
 * Specification 1.2.3"). All numbers are big-endian, places are counted in sectors of 512 bytes.
 */
#include "volume.h"
#include <openssl/crypto.h>
#include <openssl/rand.h>

enum {
    HEADER = 592,
    SLOTS = 8,
    SLOT = 48,
    SLOTS_AT = 208,
    ACTIVE = 0x00ac71f3,
    DISABLED = 0x0000dead,
    DIGEST = 20,
    SALT = 32,
    PAYLOAD_SECTORS = 4040, /* header and eight slots of 4000 stripes of 512 bits */
    FIRST_SLOT = 8,
    SLOT_SECTORS = 504,
};

struct header {
    uint8_t bytes[HEADER];
    char cipher[33], mode[33], hash[33];
    uint32_t payload, key_bytes, digest_iterations;
};

static void text(char *out, const uint8_t *in)
{
    memcpy(out, in, 32);
    out[32] = 0;
}

static int parse(struct header *h, struct luks_volume *v, struct qz_error *err)
{
    const uint8_t *b = h->bytes;

    text(h->cipher, b + 8);
    text(h->mode, b + 40);
    text(h->hash, b + 72);
    h->payload = qz_load_be32(b + 104);
    h->key_bytes = qz_load_be32(b + 108);
    h->digest_iterations = qz_load_be32(b + 164);
    if (!h->key_bytes || h->key_bytes > LUKS_KEY_MAX)
        return qz_fail(err, -EINVAL, "LUKS key-bytes at offset 108 is %u, must be 1 to %d",
                       h->key_bytes, LUKS_KEY_MAX);
    v->version = 1;
    v->payload = h->payload * 512ull;
    memcpy(v->uuid, b + 168, 40);
    snprintf(v->encryption, sizeof(v->encryption), "%s-%s", h->cipher, h->mode);
    return 0;
}

/* 1: the slot gave the key; 0: it is not this passphrase's; negative: an error. */
static int try_slot(const struct header *h, unsigned n, struct layer *file, struct disk_queue *q,
                    uint64_t base, uint64_t length, const struct luks_secret *s, uint8_t *key,
                    struct qz_error *err)
{
    const uint8_t *b = h->bytes + SLOTS_AT + n * SLOT;
    uint32_t stripes = qz_load_be32(b + 44), at = qz_load_be32(b + 40);
    struct luks_slot slot = {h->cipher,    h->mode,      h->hash, at * 512ull,
                             h->key_bytes, h->key_bytes, stripes};
    uint8_t slot_key[LUKS_KEY_MAX], digest[DIGEST];
    int rc;

    if (stripes != LUKS_STRIPES || at * 512ull + h->key_bytes * (uint64_t)stripes > length)
        return qz_fail(err, -EINVAL,
                       "LUKS key slot %u: %u stripes at sector %u; must be %d and lie in the "
                       "header's area",
                       n, stripes, at, LUKS_STRIPES);
    rc = luks_pbkdf2(h->hash, s, b + 8, SALT, qz_load_be32(b + 4), slot_key, h->key_bytes, err);
    if (!rc)
        rc = luks_slot_open(&slot, file, q, base, slot_key, key, err);
    OPENSSL_cleanse(slot_key, sizeof(slot_key));
    if (!rc) {
        struct luks_secret k = {key, h->key_bytes, s->most_iterations, 0};

        rc = luks_pbkdf2(h->hash, &k, h->bytes + 132, SALT, h->digest_iterations, digest, DIGEST,
                         err);
    }
    if (rc)
        return rc;
    return CRYPTO_memcmp(digest, h->bytes + 112, DIGEST) == 0;
}

int luks1_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
               uint64_t length, const struct luks_secret *s, struct qz_error *err)
{
    struct header h;
    uint8_t key[LUKS_KEY_MAX];
    int rc = luks_read(file, q, base, h.bytes, HEADER);

    if (rc)
        return qz_fail(err, rc, "cannot read the LUKS header: %s", strerror(-rc));
    rc = parse(&h, v, err);
    for (unsigned n = 0; !rc && n < SLOTS; n++) {
        uint32_t state = qz_load_be32(h.bytes + SLOTS_AT + n * SLOT);

        if (state == DISABLED)
            continue;
        if (state != ACTIVE)
            return qz_fail(err, -EINVAL,
                           "LUKS key slot %u at offset %u is neither active nor disabled: 0x%x", n,
                           SLOTS_AT + n * SLOT, state);
        rc = try_slot(&h, n, file, q, base, length, s, key, err);
    }
    if (rc == 1)
        rc = luks_cipher_new(&v->cipher, h.cipher, h.mode, key, h.key_bytes, err);
    else if (!rc)
        rc = qz_fail(err, -EACCES, "the passphrase opens none of the key slots");
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

/* ---- a new one */

static int fill(uint8_t *b, const struct luks_new *n, const uint8_t *key, uint64_t iterations,
                struct qz_error *err)
{
    struct luks_secret k = {.bytes = key, .length = LUKS_KEY_MAX};
    uint64_t digest_iterations = QZ_MAX(iterations / 8, 1000ull);

    memcpy(b, "LUKS\xba\xbe", 6);
    qz_store_be16(b + 6, 1);
    memcpy(b + 8, "aes", 3);
    memcpy(b + 40, "xts-plain64", 11);
    memcpy(b + 72, "sha256", 6);
    qz_store_be32(b + 104, PAYLOAD_SECTORS);
    qz_store_be32(b + 108, LUKS_KEY_MAX);
    if (RAND_bytes(b + 132, SALT) != 1)
        return qz_fail(err, -EIO, "no randomness");
    qz_store_be32(b + 164, (uint32_t)digest_iterations);
    luks_new_uuid((char *)b + 168);
    for (unsigned i = 0; i < SLOTS; i++) {
        uint8_t *slot = b + SLOTS_AT + i * SLOT;

        qz_store_be32(slot, i ? DISABLED : ACTIVE);
        qz_store_be32(slot + 4, i ? 0 : (uint32_t)iterations);
        if (!i && RAND_bytes(slot + 8, SALT) != 1)
            return qz_fail(err, -EIO, "no randomness");
        qz_store_be32(slot + 40, FIRST_SLOT + i * SLOT_SECTORS);
        qz_store_be32(slot + 44, LUKS_STRIPES);
    }
    return luks_pbkdf2("sha256", &k, b + 132, SALT, digest_iterations, b + 112, DIGEST, err);
}

int luks1_create(struct layer *file, struct disk_queue *q, uint64_t base, const struct luks_new *n,
                 const struct luks_secret *s, struct qz_error *err)
{
    struct luks_slot slot = {"aes",        "xts-plain64", "sha256",    FIRST_SLOT * 512ull,
                             LUKS_KEY_MAX, LUKS_KEY_MAX,  LUKS_STRIPES};
    uint64_t iterations = n->iterations ? n->iterations : luks_iterations("sha256");
    uint8_t b[HEADER] = {0}, key[LUKS_KEY_MAX], slot_key[LUKS_KEY_MAX];
    int rc = RAND_bytes(key, sizeof(key)) == 1 ? 0 : qz_fail(err, -EIO, "no randomness");

    if (!rc)
        rc = fill(b, n, key, iterations, err);
    if (!rc)
        rc = luks_pbkdf2("sha256", s, b + SLOTS_AT + 8, SALT, iterations, slot_key,
                         sizeof(slot_key), err);
    if (!rc)
        rc = luks_slot_write(&slot, file, q, base, slot_key, key, err);
    if (!rc) {
        rc = luks_write(file, q, base, b, sizeof(b));
        if (rc)
            qz_fail(err, rc, "cannot write the LUKS header: %s", strerror(-rc));
    }
    OPENSSL_cleanse(key, sizeof(key));
    OPENSSL_cleanse(slot_key, sizeof(slot_key));
    return rc;
}

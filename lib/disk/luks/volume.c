/* volume.c - what both versions of LUKS have in common (volume.h). */
#include "volume.h"
#include <openssl/crypto.h>
#include <openssl/rand.h>

enum { SECRET_MAX = 8192 };

static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

int luks_read(struct layer *file, struct disk_queue *q, uint64_t offset, void *bytes, size_t n)
{
    uint32_t a = file->info.alignment;
    uint64_t start = QZ_ALIGN_DOWN(offset, a), end = QZ_ALIGN_UP(offset + n, a);
    uint8_t *b;
    int rc;

    if (offset + n < offset || offset + n > file->info.size)
        return -ERANGE;
    end = QZ_MIN(end, file->info.size);
    b = aligned_alloc(4096, QZ_ALIGN_UP(end - start + 1, 4096));
    rc = b ? layer_read(file, q, start, b, end - start) : -ENOMEM;
    if (!rc)
        memcpy(bytes, b + (offset - start), n);
    free(b);
    return rc;
}

int luks_write(struct layer *file, struct disk_queue *q, uint64_t offset, const void *bytes,
               size_t n)
{
    uint32_t a = file->info.alignment;
    uint64_t start = QZ_ALIGN_DOWN(offset, a), end = QZ_ALIGN_UP(offset + n, a);
    uint8_t *b = aligned_alloc(4096, QZ_ALIGN_UP(end - start + 1, 4096));
    int rc = b ? 0 : -ENOMEM;

    if (!rc && (start != offset || end != offset + n))
        rc = luks_read(file, q, start, b, end - start);
    if (!rc) {
        memcpy(b + (offset - start), bytes, n);
        rc = layer_write(file, q, start, b, end - start);
    }
    free(b);
    return rc;
}

static int version_of(struct layer *file, struct disk_queue *q, uint64_t base, struct qz_error *err)
{
    uint8_t head[8];
    int rc = luks_read(file, q, base, head, sizeof(head));

    if (rc)
        return qz_fail(err, rc, "cannot read the LUKS header at 0x%llx: %s",
                       (unsigned long long)base, strerror(-rc));
    if (memcmp(head, magic, sizeof(magic)))
        return qz_fail(err, -EINVAL, "no LUKS header at 0x%llx: the magic is missing",
                       (unsigned long long)base);
    return qz_load_be16(head + 6);
}

int luks_volume_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
                     uint64_t length, const struct luks_secret *s, struct qz_error *err)
{
    int version = version_of(file, q, base, err);

    *v = (struct luks_volume){.sector_bytes = 512};
    switch (version) {
    case 1:
        return luks1_open(v, file, q, base, length, s, err);
    case 2:
        return luks2_open(v, file, q, base, length, s, err);
    default:
        return version < 0 ? version
                           : qz_fail(err, -ENOTSUP, "LUKS version %d at 0x%llx is not known",
                                     version, (unsigned long long)base + 6);
    }
}

void luks_volume_clear(struct luks_volume *v)
{
    luks_cipher_free(v->cipher);
    v->cipher = NULL;
}

uint64_t luks_header_bytes(unsigned version)
{
    /* Version 1: one slot's stripes behind the header, rounded; version 2: two headers of 16 KiB
     * and an area for slots, 16 MiB as cryptsetup makes it. */
    return version == 1 ? 2068480 : 16 << 20;
}

int luks_volume_create(struct layer *file, struct disk_queue *q, uint64_t base,
                       const struct luks_new *n, const struct luks_secret *s, struct qz_error *err)
{
    return n->version == 1 ? luks1_create(file, q, base, n, s, err)
                           : luks2_create(file, q, base, n, s, err);
}

/* ---- key slots */

int luks_slot_open(const struct luks_slot *k, struct layer *file, struct disk_queue *q,
                   uint64_t base, const uint8_t *slot_key, uint8_t *key, struct qz_error *err)
{
    size_t n = k->key_bytes * k->stripes, padded = QZ_ALIGN_UP(n, (size_t)512);
    struct luks_cipher *c = NULL;
    uint8_t *material = malloc(padded);
    int rc = material ? 0 : qz_fail(err, -ENOMEM, "no memory for a key slot");

    if (!rc)
        rc = luks_cipher_new(&c, k->cipher, k->mode, slot_key, k->slot_key_bytes, err);
    if (!rc) {
        rc = luks_read(file, q, base + k->material, material, padded);
        if (rc)
            qz_fail(err, rc, "cannot read a key slot's material at 0x%llx: %s",
                    (unsigned long long)(base + k->material), strerror(-rc));
    }
    if (!rc) {
        rc = luks_cipher_run(c, false, 0, 512, material, padded);
        if (!rc)
            rc = luks_merge(k->hash, material, k->key_bytes, k->stripes, key);
        if (rc)
            qz_fail(err, rc, "cannot open a key slot (hash %s): %s", k->hash, strerror(-rc));
    }
    luks_cipher_free(c);
    if (material)
        OPENSSL_cleanse(material, padded);
    free(material);
    return rc;
}

int luks_slot_write(const struct luks_slot *k, struct layer *file, struct disk_queue *q,
                    uint64_t base, const uint8_t *slot_key, const uint8_t *key,
                    struct qz_error *err)
{
    size_t n = k->key_bytes * k->stripes, padded = QZ_ALIGN_UP(n, (size_t)512);
    struct luks_cipher *c = NULL;
    uint8_t *material = calloc(1, padded);
    int rc = material ? luks_split(k->hash, key, k->key_bytes, k->stripes, material) : -ENOMEM;

    if (!rc)
        rc = luks_cipher_new(&c, k->cipher, k->mode, slot_key, k->slot_key_bytes, err);
    if (!rc)
        rc = luks_cipher_run(c, true, 0, 512, material, padded);
    if (!rc)
        rc = luks_write(file, q, base + k->material, material, padded);
    luks_cipher_free(c);
    free(material);
    return rc ? qz_fail(err, rc, "cannot write a key slot: %s", strerror(-rc)) : 0;
}

void luks_new_uuid(char out[40])
{
    uint8_t b[16];

    RAND_bytes(b, sizeof(b));
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

/* ---- the passphrase */

int luks_secret_take(struct options *o, struct luks_secret *s, void **owned, struct qz_error *err)
{
    const char *text = o ? options_text(o, "key_secret") : NULL;
    const char *path = o ? options_text(o, "key_file") : NULL;

    *owned = NULL;
    *s = (struct luks_secret){0};
    if (text && path)
        return qz_fail(err, -EINVAL, "key_secret and key_file exclude each other");
    if (!text && !path)
        return qz_fail(err, -EACCES,
                       "the image is encrypted: give the passphrase with key_file=PATH");
    if (path) {
        int rc = qz_read_file(path, SECRET_MAX, owned, &s->length, err);

        if (rc)
            return rc;
        s->bytes = *owned;
    } else {
        *s = (struct luks_secret){.bytes = text, .length = strlen(text)};
    }
    if (s->length)
        return 0;
    luks_secret_clear(s, owned);
    return qz_fail(err, -EINVAL, "the passphrase is empty");
}

void luks_secret_clear(struct luks_secret *s, void **owned)
{
    if (*owned)
        OPENSSL_cleanse(*owned, s->length);
    free(*owned);
    *owned = NULL;
    *s = (struct luks_secret){0};
}

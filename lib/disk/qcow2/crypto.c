/*
 * crypto.c - LUKS inside qcow2 ("Encryption"): the header stands in clusters that a header
 * extension names, the guest's clusters are encrypted by their place in the file.
 */
#include "crypto.h"
#include "../luks/volume.h"
#include "image.h"

struct qcow2_crypto {
    struct luks_volume volume;
};

static int run(struct qcow2_crypto *c, bool encrypt, uint64_t host, void *bytes, uint64_t length)
{
    if ((host | length) & (c->volume.sector_bytes - 1))
        return -EINVAL;
    return luks_cipher_run(c->volume.cipher, encrypt, host >> 9, c->volume.sector_bytes, bytes,
                           length);
}

int qcow2_encrypt(struct qcow2_crypto *c, uint64_t host, void *bytes, uint64_t length)
{
    return run(c, true, host, bytes, length);
}

int qcow2_decrypt(struct qcow2_crypto *c, uint64_t host, void *bytes, uint64_t length)
{
    return run(c, false, host, bytes, length);
}

void qcow2_crypto_free(struct qcow2_crypto *c)
{
    if (c)
        luks_volume_clear(&c->volume);
    free(c);
}

int qcow2_crypto_open(struct qcow2 *i, struct disk_queue *q, const struct format_open *o,
                      struct qz_error *err)
{
    struct luks_secret s;
    void *owned;
    int rc;

    if (i->header.crypt != QCOW2_CRYPT_LUKS)
        return qz_fail(err, -ENOTSUP,
                       "crypt_method at offset 32 is the old AES of qcow2, which is broken: "
                       "convert the image with qemu-img to LUKS");
    /* A check looks at tables, not at bytes: it needs no passphrase. */
    if (o->check && !(o->options && (options_text(o->options, "key_file") ||
                                     options_text(o->options, "key_secret"))))
        return 0;
    i->crypto = calloc(1, sizeof(*i->crypto));
    rc = i->crypto ? luks_secret_take(o->options, &s, &owned, err)
                   : qz_fail(err, -ENOMEM, "no memory for the cipher");
    if (rc)
        return rc;
    rc = luks_volume_open(&i->crypto->volume, i->layer.below, q, i->header.crypto_offset,
                          i->header.crypto_length, &s, err);
    luks_secret_clear(&s, &owned);
    if (!rc && i->crypto->volume.version != 1)
        rc = qz_fail(err, -ENOTSUP, "the LUKS header inside is of version %u; qcow2 knows 1",
                     i->crypto->volume.version);
    return rc;
}

int qcow2_crypto_create(struct layer *file, struct disk_queue *q, uint64_t offset,
                        struct options *o, struct qz_error *err)
{
    struct luks_new n = {.version = 1};
    struct luks_secret s;
    void *owned;
    int rc = luks_take_new(&n, o, err);

    if (!rc && n.version != 1)
        rc = qz_fail(err, -EINVAL, "inside of qcow2 only LUKS1 is possible");
    if (!rc)
        rc = luks_secret_take(o, &s, &owned, err);
    if (rc)
        return rc;
    rc = luks_volume_create(file, q, offset, &n, &s, err);
    luks_secret_clear(&s, &owned);
    return rc;
}

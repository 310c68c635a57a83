/*
 * cipher.c - see cipher.h; OpenSSL does the arithmetic.
 *
 * Setting a key costs more than a sector, so contexts that have it are kept: each call takes one
 * for its direction from a list and gives it back. What nearly all volumes have, AES-256 in XTS
 * mode, goes by xts.c; the rest sector by sector.
 */
#include "cipher.h"
#include "xts.h"
#include <openssl/crypto.h>
#include <openssl/evp.h>

enum iv { IV_PLAIN, IV_PLAIN64, IV_ESSIV };

struct context {
    EVP_CIPHER_CTX *evp; /* or, with `many`, NULL */
    struct xts xts;
    struct context *next;
};

struct luks_cipher {
    const EVP_CIPHER *evp;
    enum iv iv;
    bool many; /* xts.c does many sectors at once */
    uint8_t key[LUKS_KEY_MAX];
    EVP_CIPHER_CTX *essiv; /* guarded by mutex */
    pthread_mutex_t mutex;
    struct context *idle[2]; /* decrypt, encrypt */
};

static const struct {
    const char *mode;
    unsigned key_bytes;
    enum iv iv;
    const EVP_CIPHER *(*evp)(void);
} modes[] = {
    {"xts-plain64", 64, IV_PLAIN64, EVP_aes_256_xts},
    {"xts-plain64", 32, IV_PLAIN64, EVP_aes_128_xts},
    {"xts-plain", 64, IV_PLAIN, EVP_aes_256_xts},
    {"xts-plain", 32, IV_PLAIN, EVP_aes_128_xts},
    {"cbc-plain64", 32, IV_PLAIN64, EVP_aes_256_cbc},
    {"cbc-plain64", 16, IV_PLAIN64, EVP_aes_128_cbc},
    {"cbc-plain", 32, IV_PLAIN, EVP_aes_256_cbc},
    {"cbc-plain", 16, IV_PLAIN, EVP_aes_128_cbc},
    {"cbc-essiv:sha256", 32, IV_ESSIV, EVP_aes_256_cbc},
    {"cbc-essiv:sha256", 16, IV_ESSIV, EVP_aes_128_cbc},
};

/* ESSIV: the IV is the sector's number encrypted with a hash of the key. */
static int make_essiv(struct luks_cipher *c, size_t key_bytes)
{
    uint8_t salt[32];
    unsigned n;
    bool ok = EVP_Digest(c->key, key_bytes, salt, &n, EVP_sha256(), NULL) == 1;

    c->essiv = EVP_CIPHER_CTX_new();
    ok = ok && c->essiv && EVP_EncryptInit_ex(c->essiv, EVP_aes_256_ecb(), NULL, salt, NULL) == 1;
    OPENSSL_cleanse(salt, sizeof(salt));
    return ok ? 0 : -ENOMEM;
}

int luks_cipher_new(struct luks_cipher **out, const char *name, const char *mode, const void *key,
                    size_t key_bytes, struct qz_error *err)
{
    struct luks_cipher *c;
    unsigned m = 0;

    while (m < QZ_ARRAY_LEN(modes) &&
           (strcmp(modes[m].mode, mode) || modes[m].key_bytes != key_bytes))
        m++;
    if (strcmp(name, "aes") || m == QZ_ARRAY_LEN(modes))
        return qz_fail(err, -ENOTSUP, "cipher %s-%s with a key of %zu bits is not known", name,
                       mode, key_bytes * 8);
    c = calloc(1, sizeof(*c));
    if (!c)
        return qz_fail(err, -ENOMEM, "no memory for the cipher");
    pthread_mutex_init(&c->mutex, NULL);
    c->evp = modes[m].evp();
    c->iv = modes[m].iv;
    c->many = key_bytes == XTS_KEY && c->iv == IV_PLAIN64;
    memcpy(c->key, key, key_bytes);
    if (c->iv == IV_ESSIV && make_essiv(c, key_bytes)) {
        luks_cipher_free(c);
        return qz_fail(err, -ENOMEM, "no memory for the cipher");
    }
    *out = c;
    return 0;
}

void luks_cipher_free(struct luks_cipher *c)
{
    if (!c)
        return;
    for (int way = 0; way < 2; way++)
        while (c->idle[way]) {
            struct context *x = c->idle[way];

            c->idle[way] = x->next;
            EVP_CIPHER_CTX_free(x->evp);
            xts_clear(&x->xts);
            free(x);
        }
    EVP_CIPHER_CTX_free(c->essiv);
    OPENSSL_cleanse(c->key, sizeof(c->key));
    free(c);
}

static struct context *take(struct luks_cipher *c, bool encrypt)
{
    struct context *x;

    pthread_mutex_lock(&c->mutex);
    x = c->idle[encrypt];
    if (x)
        c->idle[encrypt] = x->next;
    pthread_mutex_unlock(&c->mutex);
    if (x)
        return x;
    x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    if (c->many && xts_init(&x->xts, c->key, encrypt))
        return x;
    x->evp = c->many ? NULL : EVP_CIPHER_CTX_new();
    if (x->evp && EVP_CipherInit_ex(x->evp, c->evp, NULL, c->key, NULL, encrypt) == 1) {
        EVP_CIPHER_CTX_set_padding(x->evp, 0);
        return x;
    }
    EVP_CIPHER_CTX_free(x->evp);
    free(x);
    return NULL;
}

static void give(struct luks_cipher *c, struct context *x, bool encrypt)
{
    QZ_LOCKED(&c->mutex);
    x->next = c->idle[encrypt];
    c->idle[encrypt] = x;
}

static bool make_iv(struct luks_cipher *c, uint64_t sector, uint8_t iv[16])
{
    uint8_t plain[16] = {0};
    int n;

    memset(iv, 0, 16);
    if (c->iv == IV_PLAIN)
        sector = (uint32_t)sector;
    qz_store_le64(iv, sector);
    if (c->iv != IV_ESSIV)
        return true;
    memcpy(plain, iv, 16);
    QZ_LOCKED(&c->mutex);
    return EVP_EncryptUpdate(c->essiv, iv, &n, plain, 16) == 1;
}

static bool run_one_by_one(struct luks_cipher *c, struct context *x, uint64_t sector,
                           uint32_t sector_bytes, uint8_t *bytes, uint64_t length)
{
    bool ok = true;

    for (uint64_t at = 0; ok && at < length; at += sector_bytes) {
        uint8_t iv[16], *b = bytes + at;
        int n;

        ok = make_iv(c, sector + (at >> 9), iv) &&
             EVP_CipherInit_ex(x->evp, NULL, NULL, NULL, iv, -1) == 1 &&
             EVP_CipherUpdate(x->evp, b, &n, b, (int)sector_bytes) == 1;
    }
    return ok;
}

int luks_cipher_run(struct luks_cipher *c, bool encrypt, uint64_t sector, uint32_t sector_bytes,
                    void *bytes, uint64_t length)
{
    struct context *x = take(c, encrypt);
    bool ok;

    if (!x)
        return -ENOMEM;
    ok = c->many ? xts_run(&x->xts, sector, sector_bytes, bytes, length)
                 : run_one_by_one(c, x, sector, sector_bytes, bytes, length);
    give(c, x, encrypt);
    return ok ? 0 : -EIO;
}

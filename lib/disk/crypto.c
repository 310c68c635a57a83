/*
 * crypto.c - libcrypto and libargon2 behind a loader (crypto.h).
 *
 * Theory of operation. One table holds the libraries' functions, found by name when they are
 * loaded. The functions below have the names and prototypes of the libraries' headers, which check
 * them; the program links neither library.
 */
#include "crypto.h"

#include <argon2.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/rand.h>
#include <pthread.h>

#include "library.h"

/* The number in a library's name is that of the binary interface the headers describe. */
#define TEXT_OF(x)   #x
#define NUMBER_OF(x) TEXT_OF(x)
#define LIBCRYPTO    "libcrypto.so." NUMBER_OF(OPENSSL_VERSION_MAJOR)
#define LIBARGON2    "libargon2.so.1"

static struct {
    __typeof__(CRYPTO_memcmp) *CRYPTO_memcmp;
    __typeof__(OPENSSL_cleanse) *OPENSSL_cleanse;
    __typeof__(RAND_bytes) *RAND_bytes;
    __typeof__(PKCS5_PBKDF2_HMAC) *PKCS5_PBKDF2_HMAC;
    __typeof__(EVP_DecodeBlock) *EVP_DecodeBlock;
    __typeof__(EVP_EncodeBlock) *EVP_EncodeBlock;
    __typeof__(EVP_sha256) *EVP_sha256;
    __typeof__(EVP_get_digestbyname) *EVP_get_digestbyname;
    __typeof__(EVP_MD_get_size) *EVP_MD_get_size;
    __typeof__(EVP_Digest) *EVP_Digest;
    __typeof__(EVP_MD_CTX_new) *EVP_MD_CTX_new;
    __typeof__(EVP_MD_CTX_free) *EVP_MD_CTX_free;
    __typeof__(EVP_DigestInit_ex) *EVP_DigestInit_ex;
    __typeof__(EVP_DigestUpdate) *EVP_DigestUpdate;
    __typeof__(EVP_DigestFinal_ex) *EVP_DigestFinal_ex;
    __typeof__(EVP_aes_128_cbc) *EVP_aes_128_cbc;
    __typeof__(EVP_aes_128_xts) *EVP_aes_128_xts;
    __typeof__(EVP_aes_256_cbc) *EVP_aes_256_cbc;
    __typeof__(EVP_aes_256_ecb) *EVP_aes_256_ecb;
    __typeof__(EVP_aes_256_xts) *EVP_aes_256_xts;
    __typeof__(EVP_CIPHER_CTX_new) *EVP_CIPHER_CTX_new;
    __typeof__(EVP_CIPHER_CTX_free) *EVP_CIPHER_CTX_free;
    __typeof__(EVP_CIPHER_CTX_set_padding) *EVP_CIPHER_CTX_set_padding;
    __typeof__(EVP_CipherInit_ex) *EVP_CipherInit_ex;
    __typeof__(EVP_CipherUpdate) *EVP_CipherUpdate;
    __typeof__(EVP_EncryptInit_ex) *EVP_EncryptInit_ex;
    __typeof__(EVP_EncryptUpdate) *EVP_EncryptUpdate;
    __typeof__(argon2_hash) *argon2_hash;
    __typeof__(argon2_error_message) *argon2_error_message;
} f;

static const struct library_function functions[] = {
    {LIBCRYPTO, "CRYPTO_memcmp", (void **)&f.CRYPTO_memcmp},
    {LIBCRYPTO, "OPENSSL_cleanse", (void **)&f.OPENSSL_cleanse},
    {LIBCRYPTO, "RAND_bytes", (void **)&f.RAND_bytes},
    {LIBCRYPTO, "PKCS5_PBKDF2_HMAC", (void **)&f.PKCS5_PBKDF2_HMAC},
    {LIBCRYPTO, "EVP_DecodeBlock", (void **)&f.EVP_DecodeBlock},
    {LIBCRYPTO, "EVP_EncodeBlock", (void **)&f.EVP_EncodeBlock},
    {LIBCRYPTO, "EVP_sha256", (void **)&f.EVP_sha256},
    {LIBCRYPTO, "EVP_get_digestbyname", (void **)&f.EVP_get_digestbyname},
    {LIBCRYPTO, "EVP_MD_get_size", (void **)&f.EVP_MD_get_size},
    {LIBCRYPTO, "EVP_Digest", (void **)&f.EVP_Digest},
    {LIBCRYPTO, "EVP_MD_CTX_new", (void **)&f.EVP_MD_CTX_new},
    {LIBCRYPTO, "EVP_MD_CTX_free", (void **)&f.EVP_MD_CTX_free},
    {LIBCRYPTO, "EVP_DigestInit_ex", (void **)&f.EVP_DigestInit_ex},
    {LIBCRYPTO, "EVP_DigestUpdate", (void **)&f.EVP_DigestUpdate},
    {LIBCRYPTO, "EVP_DigestFinal_ex", (void **)&f.EVP_DigestFinal_ex},
    {LIBCRYPTO, "EVP_aes_128_cbc", (void **)&f.EVP_aes_128_cbc},
    {LIBCRYPTO, "EVP_aes_128_xts", (void **)&f.EVP_aes_128_xts},
    {LIBCRYPTO, "EVP_aes_256_cbc", (void **)&f.EVP_aes_256_cbc},
    {LIBCRYPTO, "EVP_aes_256_ecb", (void **)&f.EVP_aes_256_ecb},
    {LIBCRYPTO, "EVP_aes_256_xts", (void **)&f.EVP_aes_256_xts},
    {LIBCRYPTO, "EVP_CIPHER_CTX_new", (void **)&f.EVP_CIPHER_CTX_new},
    {LIBCRYPTO, "EVP_CIPHER_CTX_free", (void **)&f.EVP_CIPHER_CTX_free},
    {LIBCRYPTO, "EVP_CIPHER_CTX_set_padding", (void **)&f.EVP_CIPHER_CTX_set_padding},
    {LIBCRYPTO, "EVP_CipherInit_ex", (void **)&f.EVP_CipherInit_ex},
    {LIBCRYPTO, "EVP_CipherUpdate", (void **)&f.EVP_CipherUpdate},
    {LIBCRYPTO, "EVP_EncryptInit_ex", (void **)&f.EVP_EncryptInit_ex},
    {LIBCRYPTO, "EVP_EncryptUpdate", (void **)&f.EVP_EncryptUpdate},
    {LIBARGON2, "argon2_hash", (void **)&f.argon2_hash},
    {LIBARGON2, "argon2_error_message", (void **)&f.argon2_error_message},
};

/* ---- loading */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded; /* guarded by lock; whoever saw it true needs no lock any more */

int crypto_load(struct qz_error *err)
{
    int r = 0;
    QZ_LOCKED(&lock);

    if (loaded)
        return 0;
    if ((r = library_open(LIBCRYPTO, "libssl3", functions, QZ_ARRAY_LEN(functions), err)) < 0 ||
        (r = library_open(LIBARGON2, "libargon2-1", functions, QZ_ARRAY_LEN(functions), err)) < 0)
        return r;
    __atomic_store_n(&loaded, true, __ATOMIC_RELEASE);
    return 0;
}

/* For the functions: loads them when nobody has. */
static void need(void)
{
    struct qz_error err = {0};

    if (__atomic_load_n(&loaded, __ATOMIC_ACQUIRE) || crypto_load(&err) == 0)
        return;
    qz_error_log("%s", err.text);
    abort();
}

/* ---- their functions */

int CRYPTO_memcmp(const void *a, const void *b, size_t n)
{
    need();
    return f.CRYPTO_memcmp(a, b, n);
}

void OPENSSL_cleanse(void *p, size_t n)
{
    need();
    f.OPENSSL_cleanse(p, n);
}

int RAND_bytes(unsigned char *b, int n)
{
    need();
    return f.RAND_bytes(b, n);
}

int PKCS5_PBKDF2_HMAC(const char *pass, int pass_n, const unsigned char *salt, int salt_n,
                      int rounds, const EVP_MD *md, int n, unsigned char *out)
{
    need();
    return f.PKCS5_PBKDF2_HMAC(pass, pass_n, salt, salt_n, rounds, md, n, out);
}

int EVP_DecodeBlock(unsigned char *to, const unsigned char *from, int n)
{
    need();
    return f.EVP_DecodeBlock(to, from, n);
}

int EVP_EncodeBlock(unsigned char *to, const unsigned char *from, int n)
{
    need();
    return f.EVP_EncodeBlock(to, from, n);
}

const EVP_MD *EVP_sha256(void)
{
    need();
    return f.EVP_sha256();
}

const EVP_MD *EVP_get_digestbyname(const char *name)
{
    need();
    return f.EVP_get_digestbyname(name);
}

int EVP_MD_get_size(const EVP_MD *md)
{
    need();
    return f.EVP_MD_get_size(md);
}

int EVP_Digest(const void *b, size_t n, unsigned char *sum, unsigned *size, const EVP_MD *md,
               ENGINE *e)
{
    need();
    return f.EVP_Digest(b, n, sum, size, md, e);
}

EVP_MD_CTX *EVP_MD_CTX_new(void)
{
    need();
    return f.EVP_MD_CTX_new();
}

void EVP_MD_CTX_free(EVP_MD_CTX *x)
{
    need();
    f.EVP_MD_CTX_free(x);
}

int EVP_DigestInit_ex(EVP_MD_CTX *x, const EVP_MD *md, ENGINE *e)
{
    need();
    return f.EVP_DigestInit_ex(x, md, e);
}

int EVP_DigestUpdate(EVP_MD_CTX *x, const void *b, size_t n)
{
    need();
    return f.EVP_DigestUpdate(x, b, n);
}

int EVP_DigestFinal_ex(EVP_MD_CTX *x, unsigned char *sum, unsigned *size)
{
    need();
    return f.EVP_DigestFinal_ex(x, sum, size);
}

const EVP_CIPHER *EVP_aes_128_cbc(void)
{
    need();
    return f.EVP_aes_128_cbc();
}

const EVP_CIPHER *EVP_aes_128_xts(void)
{
    need();
    return f.EVP_aes_128_xts();
}

const EVP_CIPHER *EVP_aes_256_cbc(void)
{
    need();
    return f.EVP_aes_256_cbc();
}

const EVP_CIPHER *EVP_aes_256_ecb(void)
{
    need();
    return f.EVP_aes_256_ecb();
}

const EVP_CIPHER *EVP_aes_256_xts(void)
{
    need();
    return f.EVP_aes_256_xts();
}

EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void)
{
    need();
    return f.EVP_CIPHER_CTX_new();
}

void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *x)
{
    need();
    f.EVP_CIPHER_CTX_free(x);
}

int EVP_CIPHER_CTX_set_padding(EVP_CIPHER_CTX *x, int on)
{
    need();
    return f.EVP_CIPHER_CTX_set_padding(x, on);
}

int EVP_CipherInit_ex(EVP_CIPHER_CTX *x, const EVP_CIPHER *c, ENGINE *e, const unsigned char *key,
                      const unsigned char *iv, int encrypt)
{
    need();
    return f.EVP_CipherInit_ex(x, c, e, key, iv, encrypt);
}

int EVP_CipherUpdate(EVP_CIPHER_CTX *x, unsigned char *out, int *out_n, const unsigned char *in,
                     int n)
{
    need();
    return f.EVP_CipherUpdate(x, out, out_n, in, n);
}

int EVP_EncryptInit_ex(EVP_CIPHER_CTX *x, const EVP_CIPHER *c, ENGINE *e, const unsigned char *key,
                       const unsigned char *iv)
{
    need();
    return f.EVP_EncryptInit_ex(x, c, e, key, iv);
}

int EVP_EncryptUpdate(EVP_CIPHER_CTX *x, unsigned char *out, int *out_n, const unsigned char *in,
                      int n)
{
    need();
    return f.EVP_EncryptUpdate(x, out, out_n, in, n);
}

int argon2_hash(const uint32_t rounds, const uint32_t kib, const uint32_t lanes, const void *pass,
                const size_t pass_n, const void *salt, const size_t salt_n, void *hash,
                const size_t hash_n, char *encoded, const size_t encoded_n, argon2_type type,
                const uint32_t version)
{
    need();
    return f.argon2_hash(rounds, kib, lanes, pass, pass_n, salt, salt_n, hash, hash_n, encoded,
                         encoded_n, type, version);
}

const char *argon2_error_message(int code)
{
    need();
    return f.argon2_error_message(code);
}

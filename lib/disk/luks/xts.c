/*
 * xts.c - AES in XTS mode on the library's AES in ECB mode (xts.h).
 *
 * The library's own XTS wants to be set up for each sector, which for sectors of 512 bytes costs
 * more than the arithmetic. Here a batch of sectors has its tweaks encrypted in one call and its
 * data in another; between them stand a multiplication and two XORs for each block.
 */
#include "xts.h"

enum { BATCH = 4096, BLOCK = 16, SECTORS_MAX = BATCH / 512, BLOCKS_MAX = BATCH / BLOCK };

/* A block as a number of GF(2^128), little-endian (IEEE 1619 §5.2). */
struct element {
    uint64_t low, high;
};

bool xts_init(struct xts *x, const uint8_t key[XTS_KEY], bool encrypt)
{
    *x = (struct xts){EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new()};
    if (!x->data || !x->tweak ||
        EVP_CipherInit_ex(x->data, EVP_aes_256_ecb(), NULL, key, NULL, encrypt) != 1 ||
        EVP_CipherInit_ex(x->tweak, EVP_aes_256_ecb(), NULL, key + XTS_KEY / 2, NULL, 1) != 1) {
        xts_clear(x);
        return false;
    }
    EVP_CIPHER_CTX_set_padding(x->data, 0);
    EVP_CIPHER_CTX_set_padding(x->tweak, 0);
    return true;
}

void xts_clear(struct xts *x)
{
    EVP_CIPHER_CTX_free(x->data);
    EVP_CIPHER_CTX_free(x->tweak);
    *x = (struct xts){0};
}

/* Times x, modulo x^128 + x^7 + x^2 + x + 1; no branch, no look-up. */
static struct element doubled(struct element e)
{
    uint64_t carry = -(e.high >> 63) & 0x87;

    return (struct element){e.low << 1 ^ carry, e.high << 1 | e.low >> 63};
}

static struct element load(const uint8_t *b)
{
    return (struct element){qz_load_le64(b), qz_load_le64(b + 8)};
}

static void store(uint8_t *b, struct element e)
{
    qz_store_le64(b, e.low);
    qz_store_le64(b + 8, e.high);
}

/* The tweaks of all blocks; sectors side by side, because each one is a chain. */
static bool make_tweaks(struct xts *x, uint64_t number, unsigned sectors, unsigned blocks,
                        unsigned step, uint8_t *tweaks)
{
    uint8_t first[SECTORS_MAX * BLOCK] = {0};
    struct element e[SECTORS_MAX];
    int n;

    for (unsigned s = 0; s < sectors; s++)
        qz_store_le64(first + s * BLOCK, number + (uint64_t)s * step);
    if (EVP_CipherUpdate(x->tweak, first, &n, first, (int)(sectors * BLOCK)) != 1)
        return false;
    for (unsigned s = 0; s < sectors; s++)
        e[s] = load(first + s * BLOCK);
    for (unsigned b = 0; b < blocks; b++)
        for (unsigned s = 0; s < sectors; s++) {
            store(tweaks + (size_t)(s * blocks + b) * BLOCK, e[s]);
            e[s] = doubled(e[s]);
        }
    return true;
}

/* A register's worth of bytes, wherever they lie. */
typedef uint8_t chunk __attribute__((vector_size(BLOCK), aligned(1), may_alias));

static void add(uint8_t *restrict bytes, const uint8_t *restrict tweaks, size_t length)
{
    for (size_t i = 0; i < length; i += BLOCK)
        *(chunk *)(bytes + i) ^= *(const chunk *)(tweaks + i);
}

bool xts_run(struct xts *x, uint64_t number, uint32_t sector_bytes, uint8_t *bytes, uint64_t length)
{
    uint8_t tweaks[BATCH];

    for (uint64_t at = 0; at < length; at += BATCH) {
        uint64_t now = QZ_MIN(length - at, (uint64_t)BATCH);
        int n;

        if (!make_tweaks(x, number + (at >> 9), (unsigned)(now / sector_bytes),
                         sector_bytes / BLOCK, sector_bytes >> 9, tweaks))
            return false;
        add(bytes + at, tweaks, now);
        if (EVP_CipherUpdate(x->data, bytes + at, &n, bytes + at, (int)now) != 1)
            return false;
        add(bytes + at, tweaks, now);
    }
    return true;
}

/*
 * xts.h - AES-256 in XTS mode (IEEE 1619) over many sectors at once. Whole blocks of 16 bytes only,
 * as disks have them: no ciphertext stealing.
 */
#ifndef DISK_LUKS_XTS_H
#define DISK_LUKS_XTS_H

#include <openssl/evp.h>
#include <queztl/base.h>

enum { XTS_KEY = 64 };

struct xts {
    EVP_CIPHER_CTX *data, *tweak;
};

/* For one direction. false: no memory. */
bool xts_init(struct xts *x, const uint8_t key[XTS_KEY], bool encrypt);
void xts_clear(struct xts *x);
/* In place. `number`: of the first sector, counted in 512 bytes, as its tweak's little-endian
 * beginning; sector_bytes: 512 to 4096. One thread at a time. */
bool xts_run(struct xts *x, uint64_t number, uint32_t sector_bytes, uint8_t *bytes,
             uint64_t length);

#endif

/*
 * cipher.h - sectors encrypted as dm-crypt does it: AES in XTS or CBC, IV from the sector's
 * number. Any number of threads at once.
 */
#ifndef DISK_LUKS_CIPHER_H
#define DISK_LUKS_CIPHER_H

#include <queztl/base.h>

struct luks_cipher;

enum { LUKS_KEY_MAX = 64 };

/* name and mode as LUKS writes them: "aes", "xts-plain64", "cbc-essiv:sha256", "cbc-plain64". */
int luks_cipher_new(struct luks_cipher **c, const char *name, const char *mode, const void *key,
                    size_t key_bytes, struct qz_error *err);
void luks_cipher_free(struct luks_cipher *c);
/*
 * In place. sector: the number, in units of 512 bytes, of the first sector; sector_bytes: what is
 * encrypted as one. length is a multiple of sector_bytes.
 */
int luks_cipher_run(struct luks_cipher *c, bool encrypt, uint64_t sector, uint32_t sector_bytes,
                    void *bytes, uint64_t length);

#endif

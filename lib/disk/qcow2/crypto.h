/*
 * crypto.h - LUKS inside qcow2: guest clusters encrypted in sectors of 512 bytes.
 *
 * The sector number is counted from the start of the image file, not of the guest's disk
 * ("Encryption": the physical offset), so that a cluster that a snapshot shares needs no copy.
 */
#ifndef DISK_QCOW2_CRYPTO_H
#define DISK_QCOW2_CRYPTO_H

#include <stdint.h>

struct qcow2_crypto;

/* In place; length is a multiple of 512. Any thread. */
int qcow2_encrypt(struct qcow2_crypto *c, uint64_t host, void *bytes, uint64_t length);
int qcow2_decrypt(struct qcow2_crypto *c, uint64_t host, void *bytes, uint64_t length);
void qcow2_crypto_free(struct qcow2_crypto *c);

#endif

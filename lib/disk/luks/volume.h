/*
 * volume.h - a LUKS header, unlocked or made. All calls are [task].
 *
 * The header may stand anywhere in a file (base): at its start, or where a qcow2 image has it.
 */
#ifndef DISK_LUKS_VOLUME_H
#define DISK_LUKS_VOLUME_H

#include "../layer.h"
#include "../options.h"
#include "key.h"

struct luks_volume {
    struct luks_cipher *cipher;
    unsigned version;
    uint32_t sector_bytes;  /* what is encrypted as one */
    uint64_t payload;       /* bytes from base to the data */
    uint64_t payload_bytes; /* 0: to the end of the file */
    uint64_t iv_sector;     /* number of the data's first sector */
    char uuid[41], encryption[72];
};

/* Finds out the version and tries the passphrase on each key slot. -EACCES: it fits none. */
int luks_volume_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
                     uint64_t length, const struct luks_secret *s, struct qz_error *err);
void luks_volume_clear(struct luks_volume *v);

struct luks_new {
    unsigned version;    /* 1 or 2 */
    uint64_t iterations; /* of PBKDF2, 0: about a second's worth */
    bool argon;          /* version 2: argon2id instead */
    uint64_t argon_kib;  /* its memory, 0: 512 MiB */
    uint32_t sector_bytes;
};
/* Bytes that a header takes up, key material included: where the payload may begin. */
uint64_t luks_header_bytes(unsigned version);
/* Writes a header for a new random key, opened by s; aes-xts-plain64, 512 bits, sha256. */
int luks_volume_create(struct layer *file, struct disk_queue *q, uint64_t base,
                       const struct luks_new *n, const struct luks_secret *s, struct qz_error *err);

/* layer.c: luks_version, luks_kdf, luks_iterations, luks_memory_kib, luks_sector; n->version
 * is the version unless said. */
int luks_take_new(struct luks_new *n, struct options *o, struct qz_error *err);

/* Versions, for volume.c. */
int luks1_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
               uint64_t length, const struct luks_secret *s, struct qz_error *err);
int luks1_create(struct layer *file, struct disk_queue *q, uint64_t base, const struct luks_new *n,
                 const struct luks_secret *s, struct qz_error *err);
int luks2_open(struct luks_volume *v, struct layer *file, struct disk_queue *q, uint64_t base,
               uint64_t length, const struct luks_secret *s, struct qz_error *err);
int luks2_create(struct layer *file, struct disk_queue *q, uint64_t base, const struct luks_new *n,
                 const struct luks_secret *s, struct qz_error *err);

/* Reads the slot's stripes, decrypts them with its key and merges them into the volume's key. */
struct luks_slot {
    const char *cipher, *mode, *hash;
    uint64_t material; /* bytes from base */
    size_t slot_key_bytes, key_bytes;
    unsigned stripes;
};
int luks_slot_open(const struct luks_slot *k, struct layer *file, struct disk_queue *q,
                   uint64_t base, const uint8_t *slot_key, uint8_t *key, struct qz_error *err);
/* Splits, encrypts and writes it. */
int luks_slot_write(const struct luks_slot *k, struct layer *file, struct disk_queue *q,
                    uint64_t base, const uint8_t *slot_key, const uint8_t *key,
                    struct qz_error *err);

void luks_new_uuid(char out[40]);

/* The passphrase that options name: key_secret=TEXT or key_file=PATH (all of its bytes). *owned is
 * given back by luks_secret_clear(). */
int luks_secret_take(struct options *o, struct luks_secret *s, void **owned, struct qz_error *err);
void luks_secret_clear(struct luks_secret *s, void **owned);

/* Any range of a file that wants aligned requests. [task] */
int luks_read(struct layer *file, struct disk_queue *q, uint64_t offset, void *bytes, size_t n);
int luks_write(struct layer *file, struct disk_queue *q, uint64_t offset, const void *bytes,
               size_t n);

#endif

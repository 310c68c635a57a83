/*
 * fw_cfg.h - the configuration device that firmware reads the machine from (QEMU
 * docs/specs/fw_cfg.rst).
 *
 * Ports 0x510 (16-bit selector), 0x511 (data, a byte at a time) and 0x514 (DMA). Present from the
 * start: signature, id, CPU counts, file directory, "etc/system-states" (power off, but no sleep).
 */
#ifndef VMM_FW_CFG_H
#define VMM_FW_CFG_H

#include "machine/machine.h"

enum { FW_CFG_FILES_MAX = 64, FW_CFG_NAME_MAX = 55, FW_CFG_FILE_SIZE_MAX = 16 << 20 };

struct fw_cfg;

int fw_cfg_new(struct fw_cfg **fw, struct machine *m, struct qz_error *err);
void fw_cfg_free(struct fw_cfg *fw);
/* Files stay; what the guest wrote into writable ones becomes zeros again. */
void fw_cfg_reset(struct fw_cfg *fw);
void fw_cfg_state(struct fw_cfg *fw, struct qz_state *s); /* saved or loaded */

/*
 * Adds a file; data is copied. Any thread, but meant for before the guest runs: a guest reads the
 * directory once. -EEXIST, -ENOSPC (FW_CFG_FILES_MAX), -ENAMETOOLONG, -EFBIG, -ENOMEM.
 */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len);
/*
 * A file of len zeros that the guest may write to (by DMA). written() runs on the vCPU's thread
 * with no lock held, after each write, with a copy of the whole file; it may be NULL.
 */
int fw_cfg_add_writable_file(struct fw_cfg *fw, const char *name, size_t len,
                             void (*written)(void *context, const void *data, size_t len),
                             void *context);

#endif

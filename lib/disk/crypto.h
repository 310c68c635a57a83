/*
 * crypto.h - libcrypto and libargon2, loaded when an encrypted disk asks for them.
 *
 * They cost a process about 1.4 MiB of memory, mostly relocated tables of its own, which machines
 * without encrypted disks shall not pay. crypto.c defines those of their functions that the engine
 * calls; each goes on to the library's. Code that encrypts includes their usual headers and notices
 * nothing.
 */
#ifndef DISK_CRYPTO_H
#define DISK_CRYPTO_H

#include <queztl/base.h>

/* Loads both, once for the process, or says what to install. A process that confines itself calls
 * this before (opening a disk does): afterwards no library can be opened. */
int crypto_load(struct qz_error *err);

#endif

/*
 * crc32c.h - CRC-32C (Castagnoli, RFC 3720 appendix B.4), for each chunk of a snapshot's memory.
 *
 * Any thread. With SSE4.2 (x86-64-v2) three streams run at once, because the instruction takes
 * three cycles and one can begin in each: as fast as memory comes.
 */
#ifndef VMM_SNAPSHOT_CRC32C_H
#define VMM_SNAPSHOT_CRC32C_H

#include <queztl/base.h>

/* crc: what this function gave for the bytes before, 0 at the beginning. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
/* The same, a byte at a time by a table: for processors without the instruction. */
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len);

#endif

/*
 * crc32c.c - CRC-32C by instruction or by table.
 *
 * Three streams: a block of 3 x LANE bytes is three sums that begin at 0 (the first one at what
 * came before). A sum moves over LANE zero bytes by one table for each of its four bytes, since
 * that is a linear map of its bits; then the next lane's is added to it.
 */
#include "snapshot/crc32c.h"

#include <immintrin.h>

enum { LANE = 4096, POLYNOMIAL = (int)0x82f63b78 };

static uint32_t table[256];    /* one zero byte further, of the lowest byte */
static uint32_t shift[4][256]; /* LANE zero bytes further, of each byte */
static bool with_sse42;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint32_t one_byte(uint32_t crc, uint8_t byte)
{
    return table[(crc ^ byte) & 0xff] ^ crc >> 8;
}

static uint32_t over_a_lane(uint32_t crc)
{
    for (unsigned i = 0; i < LANE; i++)
        crc = one_byte(crc, 0);
    return crc;
}

static void make_tables(void)
{
    uint32_t bit[32];

    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;

        for (unsigned k = 0; k < 8; k++)
            v = v >> 1 ^ (v & 1 ? (uint32_t)POLYNOMIAL : 0);
        table[i] = v;
    }
    for (unsigned k = 0; k < 32; k++)
        bit[k] = over_a_lane(1u << k);
    for (unsigned b = 0; b < 4; b++)
        for (unsigned i = 0; i < 256; i++)
            for (unsigned k = 0; k < 8; k++)
                shift[b][i] ^= i & 1u << k ? bit[b * 8 + k] : 0;
    with_sse42 = __builtin_cpu_supports("sse4.2");
}

static uint32_t moved(uint32_t crc)
{
    return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^
           shift[3][crc >> 24];
}

static uint64_t word(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *p,
                                                                 size_t len)
{
    for (; len >= 3 * (size_t)LANE; p += 3 * (size_t)LANE, len -= 3 * (size_t)LANE) {
        uint64_t a = crc, b = 0, c = 0;

        for (size_t i = 0; i < LANE; i += 8) {
            a = _mm_crc32_u64(a, word(p + i));
            b = _mm_crc32_u64(b, word(p + LANE + i));
            c = _mm_crc32_u64(c, word(p + 2 * (size_t)LANE + i));
        }
        crc = moved(moved((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
    }
    for (; len >= 8; p += 8, len -= 8)
        crc = (uint32_t)_mm_crc32_u64(crc, word(p));
    for (; len; p++, len--)
        crc = _mm_crc32_u8(crc, *p);
    return crc;
}

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;

    pthread_once(&once, make_tables);
    crc = ~crc;
    for (; len; p++, len--)
        crc = one_byte(crc, *p);
    return ~crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    pthread_once(&once, make_tables);
    return with_sse42 ? ~by_instruction(~crc, data, len) : crc32c_by_table(crc, data, len);
}

/*
 * vector.c - workloads of SSE2, AES-NI and x87 registers, and SHA-256 in plain C.
 */
#include <string.h>
#include <wmmintrin.h>

#include "workload.h"

/* ChaCha20 (RFC 8439), one block at a time with a row of the state in each register. An operation
 * is 1 KiB. */
static inline __m128i rotate(__m128i v, int bits)
{
    return _mm_or_si128(_mm_slli_epi32(v, bits), _mm_srli_epi32(v, 32 - bits));
}

static inline void quarter_rounds(__m128i r[4])
{
    r[0] = _mm_add_epi32(r[0], r[1]);
    r[3] = rotate(_mm_xor_si128(r[3], r[0]), 16);
    r[2] = _mm_add_epi32(r[2], r[3]);
    r[1] = rotate(_mm_xor_si128(r[1], r[2]), 12);
    r[0] = _mm_add_epi32(r[0], r[1]);
    r[3] = rotate(_mm_xor_si128(r[3], r[0]), 8);
    r[2] = _mm_add_epi32(r[2], r[3]);
    r[1] = rotate(_mm_xor_si128(r[1], r[2]), 7);
}

static void chacha_block(const __m128i state[4], __m128i *out)
{
    __m128i r[4] = {state[0], state[1], state[2], state[3]};

    for (int i = 0; i < 10; i++) {
        quarter_rounds(r);
        r[1] = _mm_shuffle_epi32(r[1], 0x39);
        r[2] = _mm_shuffle_epi32(r[2], 0x4e);
        r[3] = _mm_shuffle_epi32(r[3], 0x93);
        quarter_rounds(r);
        r[1] = _mm_shuffle_epi32(r[1], 0x93);
        r[2] = _mm_shuffle_epi32(r[2], 0x4e);
        r[3] = _mm_shuffle_epi32(r[3], 0x39);
    }
    for (int i = 0; i < 4; i++)
        out[i] = _mm_xor_si128(out[i], _mm_add_epi32(r[i], state[i]));
}

static void chacha20(uint64_t n)
{
    static __m128i text[64];
    __m128i state[4] = {_mm_set_epi32(0x6b206574, 0x79622d32, 0x3320646e, 0x61707865),
                        _mm_set_epi32(4, 3, 2, 1), _mm_set_epi32(8, 7, 6, 5),
                        _mm_set_epi32(9, 9, 9, 0)};
    uint64_t first;

    while (n--) {
        for (int block = 0; block < 16; block++) {
            chacha_block(state, text + block * 4);
            state[3] = _mm_add_epi32(state[3], _mm_set_epi32(0, 0, 0, 1));
        }
    }
    memcpy(&first, text, sizeof(first));
    sink = first;
}

/* Five bodies that attract each other, in double precision; an operation is 100 steps. */
enum { BODIES = 5 };

struct body {
    double at[3], speed[3], mass;
};

static double inverse_cube(double square)
{
    return 1 / (square * _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(square))));
}

static void attract(struct body *a, struct body *b, double dt)
{
    double d[3], square = 1e-9, pull;

    for (int i = 0; i < 3; i++) {
        d[i] = a->at[i] - b->at[i];
        square += d[i] * d[i];
    }
    pull = dt * inverse_cube(square);
    for (int i = 0; i < 3; i++) {
        a->speed[i] -= d[i] * b->mass * pull;
        b->speed[i] += d[i] * a->mass * pull;
    }
}

static void n_body(uint64_t n)
{
    struct body bodies[BODIES];

    for (int i = 0; i < BODIES; i++)
        bodies[i] = (struct body){
            {i * 3.1, i - 2.2, 0.5 * i}, {0.1 * i, 0.3 - 0.1 * i, 0.05}, i ? 1e-3 * i : 40};
    for (n *= 100; n; n--) {
        for (int i = 0; i < BODIES; i++) {
            for (int j = i + 1; j < BODIES; j++)
                attract(&bodies[i], &bodies[j], 0.001);
        }
        for (int i = 0; i < BODIES; i++) {
            for (int k = 0; k < 3; k++)
                bodies[i].at[k] += 0.001 * bodies[i].speed[k];
        }
    }
    sink = (uint64_t)(int64_t)(bodies[1].at[0] * 1e6);
}

/* AES-128 in counter mode, four blocks at once. An operation is 1 KiB. */
static bool has_aes(void)
{
    return __builtin_cpu_supports("aes");
}

static __attribute__((target("aes"))) __m128i aes_next_key(__m128i key, __m128i assist)
{
    assist = _mm_shuffle_epi32(assist, 0xff);
    for (int i = 0; i < 3; i++)
        key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    return _mm_xor_si128(key, assist);
}

/* The round constant is part of the instruction, so each round has one of its own (FIPS 197 §5.2).
 */
static __attribute__((target("aes"))) void aes_expand(__m128i key, __m128i k[11])
{
    k[0] = key;
    k[1] = aes_next_key(k[0], _mm_aeskeygenassist_si128(k[0], 0x01));
    k[2] = aes_next_key(k[1], _mm_aeskeygenassist_si128(k[1], 0x02));
    k[3] = aes_next_key(k[2], _mm_aeskeygenassist_si128(k[2], 0x04));
    k[4] = aes_next_key(k[3], _mm_aeskeygenassist_si128(k[3], 0x08));
    k[5] = aes_next_key(k[4], _mm_aeskeygenassist_si128(k[4], 0x10));
    k[6] = aes_next_key(k[5], _mm_aeskeygenassist_si128(k[5], 0x20));
    k[7] = aes_next_key(k[6], _mm_aeskeygenassist_si128(k[6], 0x40));
    k[8] = aes_next_key(k[7], _mm_aeskeygenassist_si128(k[7], 0x80));
    k[9] = aes_next_key(k[8], _mm_aeskeygenassist_si128(k[8], 0x1b));
    k[10] = aes_next_key(k[9], _mm_aeskeygenassist_si128(k[9], 0x36));
}

static __attribute__((target("aes"))) void aes_ctr(uint64_t n)
{
    static __m128i text[64];
    const __m128i one = _mm_set_epi64x(0, 1);
    __m128i k[11], counter = _mm_set_epi64x(42, 0);
    uint64_t first;

    aes_expand(_mm_set_epi64x(0x0706050403020100, 0x0f0e0d0c0b0a0908), k);
    for (; n; n--) {
        for (int i = 0; i < 64; i += 4) {
            __m128i b[4];

            for (int j = 0; j < 4; j++) {
                b[j] = _mm_xor_si128(counter, k[0]);
                counter = _mm_add_epi64(counter, one);
            }
            for (int round = 1; round < 10; round++) {
                for (int j = 0; j < 4; j++)
                    b[j] = _mm_aesenc_si128(b[j], k[round]);
            }
            for (int j = 0; j < 4; j++)
                text[i + j] = _mm_xor_si128(text[i + j], _mm_aesenclast_si128(b[j], k[10]));
        }
    }
    memcpy(&first, text, sizeof(first));
    sink = first;
}

/* SHA-256 (FIPS 180-4 §6.2) of words as they come. An operation is 1 KiB. */
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t ror(uint32_t x, int bits)
{
    return x >> bits | x << (32 - bits);
}

static void sha256_block(uint32_t h[8], const uint32_t block[16])
{
    uint32_t w[64], s[8];

    memcpy(w, block, 64);
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10;

        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    memcpy(s, h, 32);
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                      ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha_k[i] + w[i];
        uint32_t t2 = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                      ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        for (int j = 7; j > 0; j--)
            s[j] = s[j - 1];
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static void sha256_c(uint64_t n)
{
    static uint32_t text[256];
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    while (n--) {
        for (int i = 0; i < 256; i += 16)
            sha256_block(h, text + i);
    }
    sink = h[0];
}

/* Newton's square roots and a sum, in long double: loads, stores and arithmetic of the x87 stack.
 * An operation is 1,000 roots. */
static void x87(uint64_t n)
{
    static volatile long double values[8] = {2, 3, 5, 7, 11, 13, 17, 19};
    long double sum = 0;

    for (n *= 1000; n; n--) {
        long double v = values[n & 7], root = v / 2, exact = v;

        for (int i = 0; i < 4; i++)
            root = (root + v / root) / 2;
        __asm__("fsqrt" : "+t"(exact));
        sum += root - exact;
        values[n & 7] = v + 1e-6L;
    }
    sink = (uint64_t)(int64_t)(sum * 1e6L);
}

const struct workload vector_workloads[] = {
    {"chacha20", "KiB", chacha20, NULL, false}, {"n-body", "100step", n_body, NULL, false},
    {"aes-ni", "KiB", aes_ctr, has_aes, false}, {"sha256-c", "KiB", sha256_c, NULL, false},
    {"x87", "kroot", x87, NULL, false},         {NULL},
};

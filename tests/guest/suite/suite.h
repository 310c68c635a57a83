/*
 * suite.h - the frame that both payloads of the suite stand on: output, checks, the table of tests.
 *
 * A test is a function; it calls check*() and returns. The first check that fails decides the
 * test's line, and the test goes on or returns as it likes. skip() says why a test cannot tell
 * anything on this CPU. The lines:
 *
 *   ok 3 page: not present
 *   not ok 4 page: write: error code: expected 0x3, got 0x2
 *   skip 5 page: SMEP: not offered
 *   suite: 3 passed, 1 failed, 1 skipped
 *
 * The command line holds words: `cpus=N` (CPUs that shall start), `only=TEXT` (tests whose name
 * contains it, with _ for a space), `software` (our own CPU: CPUID's word is law), `tcg` (the CPU
 * below a hypervisor is QEMU's TCG, which leaves out some checks; said beside each use).
 */
#ifndef SUITE_H
#define SUITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- console.c: COM1 and text; power off ---- */

void put_char(char c);
void put_text(const char *s);
void put_number(uint64_t v);
void put_hex(uint64_t v);
_Noreturn void power_off(void);

bool text_equal(const char *a, const char *b);
bool text_has(const char *text, const char *part);

static inline void out8(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void out16(uint16_t port, uint16_t v)
{
    asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t in8(uint16_t port)
{
    uint8_t v;

    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

/* ---- check.c: verdicts ---- */

struct test {
    const char *name;
    void (*run)(void);
};

/* Run all tests of a table whose name holds `only`. */
void tests_run(const struct test *tests, unsigned count);
/* Called before each test: puts the CPU back. */
void tests_before_each(void (*reset)(void));
void tests_summary(void);
/* The test that runs now, for a trap that nobody expected. */
const char *test_name(void);

/* The words of the command line. */
void options_read(const char *cmdline);
bool option(const char *word);                                /* given alone */
uint64_t option_number(const char *word, uint64_t otherwise); /* word=N */

void check(const char *what, uint64_t expected, uint64_t got);
static inline void check_true(const char *what, bool holds)
{
    check(what, 1, holds);
}
bool test_failed(void);
void skip(const char *reason);
/* Skips where the CPU is QEMU's TCG, which differs from processors as `reason` says. */
bool skip_on_tcg(const char *reason);

#define TESTS(table) tests_run(table, sizeof(table) / sizeof((table)[0]))

/* ---- what compilers call ---- */

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- CPUID ---- */

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;

    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}

/* Features by leaf, register (0 EAX to 3 EDX) and bit; false too where the leaf is beyond the
 * range. */
bool has_feature(uint32_t leaf, unsigned reg, unsigned bit);
bool is_amd(void);

static inline uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;

    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t index, uint64_t v)
{
    asm volatile("wrmsr" : : "c"(index), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

#endif

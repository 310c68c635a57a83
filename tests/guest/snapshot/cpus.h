/* cpus.h - a bare machine's other CPUs, and sleeping (platform.h is the rest of the machine). */
#ifndef SNAPSHOT_CPUS_H
#define SNAPSHOT_CPUS_H

#include <stdint.h>

/* Starts CPUs 1 to count - 1; each calls work with its number. The calling one is CPU 0. */
void cpus_start(unsigned count, void (*work)(unsigned n));
/* From now on CPU 0 has an interrupt about every so many milliseconds, if the APIC's timer counts
 * at 1 GHz. */
void timer_start(unsigned ms);
/* Until the next interrupt. */
void timer_wait(void);

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

/* A vector register that nothing else uses: it holds v for as long as the CPU keeps its state. */
static inline void vector_set(uint64_t v)
{
    __asm__ volatile("movq %0, %%xmm7" : : "r"(v));
}
static inline uint64_t vector_get(void)
{
    uint64_t v;

    __asm__ volatile("movq %%xmm7, %0" : "=r"(v));
    return v;
}

#endif

/*
 * host_memory.h - accesses to the host's memory behind guest memory: at any alignment, each as one
 * access where the host makes it one, because other vCPUs and devices read and write there too.
 */
#ifndef VMM_JIT_HOST_MEMORY_H
#define VMM_JIT_HOST_MEMORY_H

#include <stdint.h>

typedef uint16_t host_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t host_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t host_u64 __attribute__((aligned(1), may_alias));

/* size: 1, 2, 4, 8. */
static inline uint64_t host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return *(const volatile host_u16 *)p;
    case 4:
        return *(const volatile host_u32 *)p;
    default:
        return *(const volatile host_u64 *)p;
    }
}

static inline void host_store(void *p, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = value;
        break;
    case 2:
        *(volatile host_u16 *)p = value;
        break;
    case 4:
        *(volatile host_u32 *)p = value;
        break;
    default:
        *(volatile host_u64 *)p = value;
    }
}

#endif

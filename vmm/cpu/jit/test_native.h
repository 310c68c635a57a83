/*
 * test_native.h - one instruction on the host's own CPU, from given registers to what it makes of
 * them: what the software CPU is compared with.
 *
 * Code, context and operands lie in the lowest 2 GiB, so that every register can be the
 * instruction's, rsp included, and addresses of 32 bits reach them. A fault is caught and reported.
 * One at a time, one thread.
 */
#ifndef VMM_JIT_TEST_NATIVE_H
#define VMM_JIT_TEST_NATIVE_H

#include "cpu/vcpu_state.h"

struct native_state {
    uint64_t gpr[GPR_COUNT];
    uint64_t rflags;
};

enum { NATIVE_NONE = -1 };

struct native_result {
    struct native_state state;
    int vector;    /* of the exception, as the CPU told the kernel; NATIVE_NONE */
    uint64_t code; /* its error code */
    uint64_t rip;  /* after it */
};

/* 0, or a negative errno where the host refuses pages that are writable and executable. */
int native_open(void);
void native_close(void);
/* Where the next instruction's first byte will be. */
uint64_t native_rip(void);
void native_run(const uint8_t *code, unsigned len, const struct native_state *in,
                struct native_result *out);

/* `pages` writable pages below 2 GiB with an inaccessible one on either side. */
uint8_t *native_pages(unsigned pages);
void native_pages_free(uint8_t *p, unsigned pages);

#endif

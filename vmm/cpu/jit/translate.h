/*
 * translate.h - blocks of guest instructions as host code.
 *
 * Theory of operation. Guest and host speak the same language, so an instruction is copied with its
 * operands patched and not modelled. Guest registers live in host registers while code runs:
 *
 *   rax rcx rdx rbx rbp rsi rdi r8 r9 r12 r13 r14   in themselves
 *   rsp                                             in host r15
 *   r10 r11 r15                                     in memory, through gs:
 *   xmm0-xmm15, MXCSR                               in themselves while cpu->fpu_loaded
 *   x87 registers                                   in themselves while cpu->x87_loaded
 *
 * Host r10 and r11 are scratch, gs: is struct jit_cpu, rsp stays a real stack. The arithmetic flags
 * live in the host's, or in cpu->host_flags: the translator knows at every place which, and moves
 * them only where something that is still wanted would be lost.
 *
 * A memory operand is looked up in the TLB (tlb.h) with two scratch registers; a miss calls the
 * fill routine, and what is no plain memory (devices, page crossings, pages with code) is executed
 * by the interpreter, one instruction, out of line. So is everything that has no host form here.
 * Exceptions leave from there, with all registers in memory.
 *
 * A block's code is relative to its page (cpu->code_base holds the page's linear address), so that
 * one translation serves every mapping. It ends by jumping to its successor in the same page, or
 * through the jump cache.
 */
#ifndef VMM_JIT_TRANSLATE_H
#define VMM_JIT_TRANSLATE_H

#include "cpu/jit/block.h"
#include "cpu/jit/code_cache.h"

/* An exit of translated code to a fixed place in the same page. */
struct jit_link {
    uint8_t *jump;               /* the rel32 of its jmp or jcc, writable view */
    uint32_t unlinked;           /* what it is while not linked */
    uint32_t target;             /* offset in the page */
    struct jit_block *from, *to; /* to: NULL while not linked */
    struct jit_link *next;       /* of those that lead to `to` */
};

/* block->code */
struct jit_code {
    const uint8_t *entry; /* executable view */
    ptrdiff_t to_run;     /* from a place in the writable view to the same in the executable one */
    struct jit_link *incoming;
    unsigned links;
    struct jit_link link[]; /* one for each conditional branch, and two for the end */
};

struct translator;

/* -errno: no executable memory on this host. */
int translator_new(struct translator **t, bool counted /* counted.h */);
void translator_free(struct translator *t);

/*
 * Gives the block code; page: its page of guest memory. False: the cache is full (translator_reset
 * when no vCPU is in it), or no memory. The caller holds the lock of the block cache.
 */
bool translate_block(struct translator *t, struct jit_block *b, const uint8_t *page,
                     struct jit_cpu *cpu);
/* The block is going, or is no longer true: nothing jumps to it any more. Its space comes back with
 * the next reset. */
void translate_forget(struct jit_block *b);
void translate_link(struct jit_link *link, struct jit_block *to);
/* All code is gone; every block's code was forgotten before. */
void translator_reset(struct translator *t);

/*
 * Runs translated code from b until it leaves: cpu->rip is the next instruction, cpu->exit_link the
 * link it left by (NULL: none). Exceptions unwind as from the interpreter.
 */
void translate_run(struct translator *t, struct jit_cpu *cpu, struct jit_block *b);
/* Modes that are translated at all: 64-bit code, no unmasked floating-point exception, nothing to
 * trace. */
bool translate_wanted(const struct jit_cpu *cpu, const struct jit_block *b);

/* The jump cache: linear addresses of the current address space and mode, to code. */
void jump_cache_add(struct jit_cpu *cpu, uint64_t rip, const struct jit_block *b);
void jump_cache_flush(struct jit_cpu *cpu);
void jump_cache_flush_local(struct jit_cpu *cpu);                 /* at least what is not global */
void jump_cache_flush_page(struct jit_cpu *cpu, uint64_t linear); /* at least the page */
void jump_cache_mode(struct jit_cpu *cpu);                        /* the mode changed */

/* The arithmetic flags move between cpu->rflags and what generated code uses. */
void translate_enter_state(struct jit_cpu *cpu);
void translate_leave_state(struct jit_cpu *cpu);

/* --- What routines call (routines.c)
 * ------------------------------------------------------------------------------- */

/* Host memory for the access, or NULL where only the interpreter can do it. Raises what the access
 * raises. */
void *translate_fill_read(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned offset);
void *translate_fill_write(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned offset);
/* One instruction by the interpreter; not 0: something wants attention, or this block is no longer
 * true. */
unsigned translate_execute(struct jit_cpu *cpu, const struct insn *i);
/* The same for what the translator had a host form for: it is decoded again. at: INSN_AT(). */
unsigned translate_execute_at(struct jit_cpu *cpu, unsigned at);
/* The same at a block's end: the code to go on with, or NULL: the run loop looks. */
const uint8_t *translate_execute_end(struct jit_cpu *cpu, const struct insn *i);
const uint8_t *translate_execute_at_end(struct jit_cpu *cpu, unsigned at);

#endif

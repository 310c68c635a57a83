/*
 * block.h - runs of decoded instructions, cached by where they physically are.
 *
 * A block begins at one guest-physical address, ends at the first instruction that can change the
 * flow or the mode but a conditional branch, at JIT_BLOCK_MAX instructions or with its page, and is
 * keyed by address, code width, and the rest of the mode that decoding and translating depend on.
 * Interpreter and translator execute the same blocks.
 */
#ifndef VMM_JIT_BLOCK_H
#define VMM_JIT_BLOCK_H

#include "cpu/jit/exec.h"

enum { JIT_BLOCK_MAX = 32 };

struct jit_code;

struct jit_block {
    uint64_t gpa;   /* key */
    uint32_t mode;  /* key: BLOCK_MODE bits */
    uint16_t bytes; /* guest bytes */
    uint8_t count;
    bool valid;            /* atomic: false after a write to its bytes; it may still be executing */
    uint8_t executions;    /* until translation */
    struct insn *insn;     /* count of them; NULL: translated, and the memory is used for others */
    jit_handler **handler; /* the same number: what executes each */
    struct jit_code *code; /* translated, or NULL (translate.h) */
    uint64_t looked_at;    /* lines of its page, besides its own bytes, that the code depends on */
    struct jit_block *hash_next;
    struct jit_block *page_next; /* of the same guest page, for invalidation */
};

/* The block at cpu->rip in the current mode, made when it is not there. With `decoded` it has its
 * instructions, else they or code. Raises fetch faults. */
struct jit_block *block_lookup(struct jit_cpu *cpu, bool decoded);

/* Whether a block goes on behind that instruction; behind a conditional branch it may. */
bool block_ends_with(const struct insn *i);

int blocks_new(struct jit_vm *vm); /* -ENOMEM */
void blocks_free(struct jit_vm *vm);

/*
 * Guest memory [gpa, gpa + len) was written, by a vCPU or a device: blocks with a byte there become
 * invalid. Any thread. True when there were any.
 */
bool blocks_written(struct jit_vm *vm, uint64_t gpa, uint64_t len);
/* Whether any block lies in that page: stores to it must take the slow path. */
bool blocks_in_page(struct jit_vm *vm, uint64_t gpa);

/* Code for a block that is worth it. False: not now. What is the vCPU's own (crosses a page) never
 * has any. */
bool block_translate(struct jit_cpu *cpu, struct jit_block *b);
/* A block was left by this link and led to b: the next time it leads there by itself. */
void block_link(struct jit_cpu *cpu, struct jit_link *link, struct jit_block *b);

#endif

/*
 * sequence.h - one random sequence: its instructions and what it begins with.
 *
 * Items are instructions in order; the last one is INT3. What depends on where an item lies (branch
 * displacements, addresses relative to rip) is filled in by sequence_place(), so that items can be
 * replaced until the sequence is placed.
 */
#ifndef TESTS_JIT_SEQUENCE_H
#define TESTS_JIT_SEQUENCE_H

#include "forms.h"
#include "random.h"
#include "window.h"

#include "cpu/vcpu_state.h"

enum { ITEMS_MAX = 128, CODE_MAX = ITEMS_MAX * 15, NO_ITEM = -1, NO_FORM = -1 };

struct item {
    uint8_t bytes[15], len;
    int16_t form;     /* index into forms, NO_FORM: what the generator added for its own ends */
    int16_t target;   /* of a relative branch, or of the address below; NO_ITEM: none */
    uint8_t rel;      /* bytes of the branch displacement at the end */
    uint8_t label;    /* not 0: the last 8 bytes (64-bit code) or 4 are the target's address */
    uint8_t rip;      /* not 0: where the 32-bit displacement from rip is; then: */
    bool begins;      /* a branch may lead here */
    bool count_known; /* the count of a shift by CL is: */
    uint8_t count;
    /* with a target: to the target's last byte; else */
    uint64_t address; /* what the displacement from rip leads to */
    uint16_t at;      /* offset in the code, when placed */
};

struct sequence {
    uint64_t seed;
    enum code_width width;
    struct item item[ITEMS_MAX];
    unsigned count;
    uint64_t rip;  /* of the first item */
    bool modifies; /* its own code, in PAGE_MODIFIED */
    struct registers in;
    uint8_t code[CODE_MAX];
    unsigned code_len;
};

/* A random sequence: the same for the same seed. */
void sequence_generate(struct sequence *s, const struct forms *forms, uint64_t seed);
/* Lays the items out at s->rip: fills code, code_len. */
void sequence_place(struct sequence *s);
/* The memory of the window that sequences of this seed begin with, PAGE_END pages. */
void sequence_memory(uint8_t *window, uint64_t seed);

/* The item at this address, s->count when there is none. */
unsigned sequence_item_at(const struct sequence *s, uint64_t rip);

/*
 * Arithmetic flags that are undefined before each item, on any way to it, and after replacing every
 * item that would use one (undefined.c). undefined[]: count + 1 of them.
 */
void sequence_define_flags(struct sequence *s, const struct forms *forms, uint16_t *undefined);

/* Arithmetic flags that the instruction at this address, which may lie inside an item, and those
 * behind it write before any of them reads them. */
uint16_t sequence_dead_flags(const struct sequence *s, const struct forms *forms, uint64_t rip);

/* Registers to begin with, which the encoder then knows. */
struct encoder;
void sequence_registers(struct registers *in, struct encoder *e);

/* --- encode.c: one instruction */

struct encoder {
    struct random *random;
    const struct forms *forms;
    uint64_t known[16]; /* values of registers, as far as they are known */
    uint16_t is_known;  /* bits */
    uint64_t fs_base, gs_base;
    uint64_t window; /* WINDOW or WINDOW_HIGH: where operands rather are */
};

/* False: it came out as something else, or as something whose result is undefined. Try again. */
bool encode_form(struct encoder *e, unsigned form, struct item *item);
/* mov reg, value */
void encode_mov(struct encoder *e, unsigned reg, uint64_t value, struct item *item);
/* An address that an operand of `size` bytes may have: mostly in memory, sometimes not. */
uint64_t encode_target(struct encoder *e, unsigned size, bool aligned);
/* Registers that the instruction may have written are no longer known. */
void encode_forget(struct encoder *e, const struct item *item);

#endif

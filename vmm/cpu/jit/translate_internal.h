/*
 * translate_internal.h - the translation in progress, shared by translate_*.c.
 */
#ifndef VMM_JIT_TRANSLATE_INTERNAL_H
#define VMM_JIT_TRANSLATE_INTERNAL_H

#include "cpu/jit/flags.h"
#include "cpu/jit/routines.h"
#include "cpu/jit/translate.h"

struct translator {
    struct code_cache cache;
    struct jit_routines routines;
    bool bmi2;           /* the host has RORX */
    bool counted;        /* counted.h */
    unsigned generation; /* of the code: what was entered under another one is not returned to */
};

/* Code that is only reached when something is out of the ordinary; it stands behind the block's. */
struct slow_path {
    enum {
        SLOW_FILL,    /* TLB miss: fill, then resume, or execute the instruction */
        SLOW_EXECUTE, /* the interpreter executes the instruction, and `row` of them altogether */
    } kind;
    unsigned row;
    uint8_t *hole;
    unsigned insn;
    unsigned access, size; /* TLB_*, bytes */
    unsigned span, lead;   /* of a row: bytes in all, and the first access's place in them */
    bool apart;            /* emit_access_apart(): r10 is 0 behind a fill */
    const uint8_t *resume;
};

enum { SLOW_MAX = 6 * JIT_BLOCK_MAX }; /* a repeated MOVS has six */

/* A conditional branch that leaves the block in its middle, to a place in the same page or not. */
struct side_exit {
    uint8_t *hole; /* of its jcc */
    int64_t offset;
    bool save_flags;  /* on the way */
    unsigned skipped; /* instructions of the block behind it */
};

struct translation {
    struct emitter e;
    struct translator *t;
    struct jit_block *block;
    struct jit_code *code;
    unsigned set; /* TLB set of data accesses in this block's mode */
    unsigned k;   /* instruction being translated */
    bool vectors; /* this block uses xmm registers in the host's */
    bool x87;     /* and the x87's */
    bool flags_in_host, flags_in_memory;
    uint16_t live[JIT_BLOCK_MAX];
    const uint8_t *start[JIT_BLOCK_MAX + 1];
    bool flags_in_host_at[JIT_BLOCK_MAX + 1]; /* at start[] */
    struct side_exit side[JIT_BLOCK_MAX];
    unsigned sides;
    const uint8_t *page; /* of guest memory */
    enum code_width width;
    uint64_t features;
    struct slow_path slow[SLOW_MAX];
    unsigned slows;
    bool ended; /* the last instruction left the block by itself */
    /* While a row of accesses is translated: r11 is the host address of its lowest displacement. */
    bool in_row;
    int32_t row_low;
};

/* A copy of the current instruction that lives as long as the code, or NULL when the cache is full.
 */
const struct insn *keep_instruction(struct translation *x);

static inline const struct insn *current(const struct translation *x)
{
    return &x->block->insn[x->k];
}

/* --- Flags (translate_state.c); all may change r10
 * ----------------------------------------------------------------------------- */

void flags_save(struct translation *x); /* into memory, where they are only in the host's */
void flags_need(struct translation *x); /* into the host's */
void flags_lose(struct translation *x,
                uint16_t wanted);          /* the host's are about to be overwritten */
void flags_written(struct translation *x); /* the host's are the guest's */
void flags_load(struct emitter *e);        /* memory to host; keeps all registers */
uint16_t flags_live_before(const struct translation *x);
/* Around a native instruction: what it reads or keeps is in the host's flags before it. */
void flags_for(struct translation *x, const struct insn *i);
void flags_after(struct translation *x, const struct insn *i);

/* --- Counting instructions (translate_counted.c): nothing, where they are not counted
 * ----------------------------------------------------------------------------- */

/* At the block's start: takes the block from the budget. Flags are lost, r11 too. The returned jump
 * is taken where that is not enough. */
uint8_t *counted_take(struct translation *x);
/* Before C is called for instruction k: cpu->ahead. Keeps everything. */
void counted_note(struct translation *x, unsigned k);
/* On a way out of the block's middle: flags are lost. */
void counted_return(struct translation *x, unsigned instructions);

/* --- Registers and memory (translate_state.c)
 * -------------------------------------------------------------- */

/* The host register that holds a guest register now: its own, or `scratch` after loading it there.
 */
unsigned use_register(struct translation *x, unsigned guest, unsigned scratch);
/* A guest register's new value is in `host`: stored where the register lives in memory. */
void put_register(struct translation *x, unsigned guest, unsigned host);
static inline bool in_memory(unsigned guest)
{
    return jit_host_register[guest] == HOST_NONE;
}

/* r11 := the operand's address. False: not a form that is emitted. With the segment's base: flags
 * are lost. */
bool emit_address(struct translation *x, const struct insn *i, bool with_segment);
bool address_emittable(const struct insn *i);
/* r11, a linear address, becomes a host address good for `size` bytes; r10 is lost. */
void emit_access(struct translation *x, unsigned access, unsigned size);
/* The same, and the host address is r10 + r11: an addition less on the way from one load to the
 * next one that uses its result as address. */
void emit_access_apart(struct translation *x, unsigned access, unsigned size);
void add_slow(struct translation *x, struct slow_path s); /* for the current instruction */
/* The same for the first of several: r10 becomes the host address, r11 the offset in the page. */
void emit_access_first(struct translation *x, unsigned access, unsigned size);
/* The same for a row of instructions that access these bytes together: their interpreter is the
 * only other way. */
void emit_access_row(struct translation *x, unsigned access, unsigned bytes, unsigned row);
/* A row of loads: `size` bytes at `lead` are its first instruction's access, which fills the TLB.
 */
void emit_access_read_row(struct translation *x, unsigned bytes, unsigned size, unsigned lead,
                          unsigned row);
/* The memory operand of an instruction, in a row or by itself: checked afterwards, at [r11 + the
 * result]. False: not emittable, and nothing was emitted. */
bool emit_operand(struct translation *x, const struct insn *i, unsigned access, unsigned size,
                  bool aligned, int32_t *disp);
/* The interpreter executes the instruction unless the host's flags say cc. */
void emit_execute_unless(struct translation *x, unsigned cc);
/* The interpreter executes the instruction when the 16-byte alignment of r11 is not there. */
void emit_alignment_check(struct translation *x);
/* The interpreter executes the row when r11 + offset is not aligned. */
void emit_row_alignment_check(struct translation *x, unsigned offset, unsigned row);
/* The interpreter executes the branch when its target, r11, is not canonical: the fault is the
 * branch's own, before it did anything. Flags and r10 are lost. */
void emit_canonical_check(struct translation *x);

/* --- Instructions: false when there is no host form, and nothing was emitted
 * ------------------------------- */

bool translate_integer(struct translation *x, const struct insn *i);
bool translate_stack(struct translation *x, const struct insn *i);
bool translate_flow(struct translation *x, const struct insn *i);
bool translate_string(struct translation *x, const struct insn *i);
bool translate_divide(struct translation *x, const struct insn *i);
bool translate_system(struct translation *x, const struct insn *i);
bool translate_vector(struct translation *x, const struct insn *i);
bool is_native_vector(const struct insn *i);
unsigned vector_memory_size(const struct insn *i);
bool translate_x87(struct translation *x, const struct insn *i);
bool is_native_x87(const struct insn *i);
/* Several instructions from the current one on; that is the last one of them afterwards. */
bool translate_stack_row(struct translation *x);
bool translate_access_row(struct translation *x);
/* Integer or vector code. */
static inline bool translate_plain(struct translation *x, const struct insn *i)
{
    return i->op == OP_VEC ? translate_vector(x, i) : translate_integer(x, i);
}

/* The ways out that were put off. */
void translate_side_exits(struct translation *x);
/* Leaves the block for the instruction behind the last one. */
void translate_fall_through(struct translation *x);

#endif

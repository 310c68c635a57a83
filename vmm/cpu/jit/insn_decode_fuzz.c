/*
 * insn_decode_fuzz.c - any bytes in any code width: lengths hold, nothing is read beyond them, more
 * bytes change nothing, and no field leads out of a table.
 */
#include "cpu/jit/insn_print.h"
#include "cpu/jit/vec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INSN_BYTES = 15, WIDTHS = 3 };

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_register(uint8_t reg)
{
    must(reg < REG_AH + 4);
}

static void check_fields(const struct insn *i)
{
    must(i->op < OP_COUNT && i->len >= 1 && i->len <= INSN_BYTES);
    must(i->size <= 8 && i->src_size <= 8);
    check_register(i->reg);
    check_register(i->rm);
    must(i->vvvv < 16 && i->cond < 16 && i->seg < SEG_COUNT && i->scale < 4);
    must(i->base < 16 || i->base == REG_NONE || i->base == REG_RIP);
    must(i->index < 16 || i->index == REG_NONE);
    must(i->vec < vec_ops_count && (i->op == OP_VEC) == (i->vec != 0));
    if (i->op != OP_UD)
        must(i->asize == 2 || i->asize == 4 || i->asize == 8);
}

/* Exactly the bytes of the instruction, where a sanitizer sees what is read beside them. */
static void check_exact(const struct insn *whole, const uint8_t *data, enum code_width width,
                        uint64_t features)
{
    uint8_t *exact = malloc(whole->len);
    struct insn again;

    if (!exact)
        abort();
    memcpy(exact, data, whole->len);
    must(insn_decode(&again, exact, whole->len, width, features) == DECODE_OK);
    must(memcmp(&again, whole, sizeof(again)) == 0);
    must(insn_decode(&again, exact, whole->len - 1u, width, features) == DECODE_SHORT ||
         whole->op == OP_UD);
    free(exact);
}

static void decode(const uint8_t *data, unsigned available, enum code_width width,
                   uint64_t features)
{
    struct insn i;
    char text[128];

    switch (insn_decode(&i, data, available, width, features)) {
    case DECODE_OK:
        must(i.len <= available);
        check_fields(&i);
        check_exact(&i, data, width, features);
        must(strlen(insn_print(&i, text, sizeof(text))) < sizeof(text));
        break;
    case DECODE_SHORT:
        must(available < INSN_BYTES);
        break;
    case DECODE_TOO_LONG:
        must(available >= INSN_BYTES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t features = 0;

    if (size < sizeof(features))
        return 0;
    memcpy(&features, data, sizeof(features));
    for (size_t at = sizeof(features); at < size; at++) {
        for (unsigned width = 0; width < WIDTHS; width++) {
            decode(data + at, (unsigned)(size - at), width, features);
            decode(data + at, (unsigned)(size - at), width, UINT64_MAX);
        }
    }
    return 0;
}

/*
 * vec_snippets_gen.c - prints the assembly of vec_snippets.h from the table of vec_ops.c, at build
 * time.
 *
 * Instructions are printed as bytes: the table is their encoding, and no assembler has to know
 * them.
 */
#include "cpu/jit/vec.h"
#include "cpu/jit/vec_snippets.h"

/* The snippet of one form, its immediate written as the assembler's symbol n. */
static void print_snippet(const struct vec_op *op, enum vec_form form)
{
    static const char *const prefix[] = {"", "0x66, ", "0xf3, ", "0xf2, "};
    static const char *const map[] = {"", "", "0x38, ", "0x3a, "};
    bool memory = form == VEC_FORM_MEM || form == VEC_FORM_MEM_W;
    bool wide = form == VEC_FORM_REG_W || form == VEC_FORM_MEM_W;
    unsigned reg = op->group >= 0 ? op->group : 1;
    unsigned modrm = memory ? reg << 3 | 7 : 0xc0 | reg << 3 | 2;

    if (op->imm8)
        printf(".set n, 0\n.rept 256\n");
    printf(".byte %s%s0x0f, %s%#x, %#x%s, 0xc3\n.balign %d, 0xcc\n", prefix[op->prefix],
           wide ? "0x48, " : "", map[op->map], op->opcode, modrm, op->imm8 ? ", n" : "",
           VEC_SNIPPET_SIZE);
    if (op->imm8)
        printf(".set n, n + 1\n.endr\n");
}

/* REX.W changes what an instruction does where a general register is involved. */
static bool has_form(const struct vec_op *op, enum vec_form form)
{
    bool gpr = op->reg == VEC_OPERAND_GPR || op->rm == VEC_OPERAND_GPR ||
               (op->implicit & VEC_IMPLICIT_RAX_RDX);

    switch (form) {
    case VEC_FORM_REG:
        return !op->no_reg_form && !(op->implicit & VEC_IMPLICIT_RDI);
    case VEC_FORM_REG_W:
        return gpr && !op->no_reg_form;
    case VEC_FORM_MEM:
        return op->mem_size;
    default:
        return gpr && op->mem_size;
    }
}

static void start(const char *section, const char *symbol)
{
    printf(".section %s\n.globl %s\n.hidden %s\n.balign 16\n%s:\n", section, symbol, symbol,
           symbol);
}

static void print_vec(void)
{
    start(".text", "vec_snippet_code");
    for (unsigned n = 1; n < vec_ops_count; n++)
        for (unsigned form = 0; form < VEC_FORMS; form++)
            if (has_form(&vec_ops[n], form))
                print_snippet(&vec_ops[n], form);

    unsigned slot = 0;
    start(".rodata", "vec_snippet_slot");
    for (unsigned n = 0; n < vec_ops_count; n++) {
        for (unsigned form = 0; form < VEC_FORMS; form++) {
            bool there = n && has_form(&vec_ops[n], form);

            printf(".long %#x\n", there ? slot : VEC_NO_SNIPPET);
            if (there)
                slot += vec_ops[n].imm8 ? 256 : 1;
        }
    }
}

static void print_x87(void)
{
    start(".text", "x87_snippet_reg");
    for (unsigned n = 0; n < 8 * 64; n++)
        printf(".byte %#x, %#x, 0xc3, 0xcc\n", 0xd8 | n >> 6, 0xc0 | (n & 63));
    start(".text", "x87_snippet_mem");
    for (unsigned n = 0; n < 8 * 8; n++)
        printf(".byte %#x, %#x, 0xc3, 0xcc\n", 0xd8 | n >> 3, (n & 7) << 3 | 7);
}

int main(void)
{
    print_vec();
    print_x87();
    printf(".section .note.GNU-stack, \"\", @progbits\n");
    return fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

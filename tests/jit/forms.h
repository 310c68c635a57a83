/*
 * forms.h - every instruction form that user code may execute here, found by asking the decoder.
 *
 * A form is an encoding without its operands: opcode, what of ModRM selects the instruction, the
 * mandatory prefix, register or memory. Whatever decodes to the same operation by another value of
 * those fields is the same form.
 */
#ifndef TESTS_JIT_FORMS_H
#define TESTS_JIT_FORMS_H

#include "cpu/jit/insn.h"

enum form_class {
    CLASS_INTEGER,
    CLASS_FLOW,
    CLASS_STRING,
    CLASS_STACK,
    CLASS_VECTOR,
    CLASS_X87,
    CLASS_SYSTEM, /* raises #GP or #UD in user mode, segment registers */
    CLASS_COUNT,
};

struct form {
    uint16_t op, vec;
    uint8_t map, opcode;
    uint8_t prefix; /* mandatory: 0, 0x66, 0xf3, 0xf2 */
    uint8_t class;
    bool modrm, mem, vex;
    int8_t reg, rm; /* of ModRM where they select, else -1 */
};

enum { FORMS_MAX = 4096 };

struct forms {
    enum code_width width;
    uint64_t features;
    unsigned count;
    struct form form[FORMS_MAX];
    unsigned of_class[CLASS_COUNT]; /* how many */
    uint16_t member[CLASS_COUNT][FORMS_MAX];
};

void forms_find(struct forms *f, enum code_width width, uint64_t features);

/* "add 01 /r mem", for reports. */
const char *form_name(const struct form *f, char *text, size_t len);

#endif

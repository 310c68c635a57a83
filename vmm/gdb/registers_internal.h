/* registers_internal.h - the table's rows, between registers.c and register_values.c. */
#ifndef VMM_GDB_REGISTERS_INTERNAL_H
#define VMM_GDB_REGISTERS_INTERNAL_H

#include "gdb/registers.h"

enum gdb_register_part {
    PART_GPR,
    PART_RIP,
    PART_FLAGS,
    PART_SELECTOR,
    PART_ST,
    PART_X87,
    PART_XMM,
    PART_MXCSR,
    PART_BASE,
    PART_KERNEL_GS,
    PART_CONTROL,
};

enum { X87_CONTROL, X87_STATUS, X87_TAG, X87_ISEG, X87_IOFF, X87_OSEG, X87_OOFF, X87_OP };
enum { CONTROL_CR0, CONTROL_CR2, CONTROL_CR3, CONTROL_CR4, CONTROL_CR8, CONTROL_EFER };
enum { SEGMENT_CS, SEGMENT_SS, SEGMENT_DS, SEGMENT_ES, SEGMENT_FS, SEGMENT_GS };

struct gdb_register {
    const char *name, *type;
    uint8_t size;
    uint8_t part, index; /* enum gdb_register_part, and which of them */
};

const struct gdb_register *gdb_register(unsigned n); /* NULL: there is none */

#endif

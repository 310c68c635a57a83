/* registers.c - the table of registers, and the description made of it (registers.h). */
#include "gdb/registers_internal.h"

struct feature {
    const char *name, *types; /* types: definitions that come first */
    const struct gdb_register *reg;
    unsigned count;
};

/* The order is GDB's (i386.c: amd64 general registers), not the instruction set's. */
static const struct gdb_register core[] = {
    {"rax", "int64", 8, PART_GPR, RAX},
    {"rbx", "int64", 8, PART_GPR, RBX},
    {"rcx", "int64", 8, PART_GPR, RCX},
    {"rdx", "int64", 8, PART_GPR, RDX},
    {"rsi", "int64", 8, PART_GPR, RSI},
    {"rdi", "int64", 8, PART_GPR, RDI},
    {"rbp", "data_ptr", 8, PART_GPR, RBP},
    {"rsp", "data_ptr", 8, PART_GPR, RSP},
    {"r8", "int64", 8, PART_GPR, R8},
    {"r9", "int64", 8, PART_GPR, R9},
    {"r10", "int64", 8, PART_GPR, R10},
    {"r11", "int64", 8, PART_GPR, R11},
    {"r12", "int64", 8, PART_GPR, R12},
    {"r13", "int64", 8, PART_GPR, R13},
    {"r14", "int64", 8, PART_GPR, R14},
    {"r15", "int64", 8, PART_GPR, R15},
    {"rip", "code_ptr", 8, PART_RIP, 0},
    {"eflags", "eflags", 4, PART_FLAGS, 0},
    {"cs", "int32", 4, PART_SELECTOR, SEGMENT_CS},
    {"ss", "int32", 4, PART_SELECTOR, SEGMENT_SS},
    {"ds", "int32", 4, PART_SELECTOR, SEGMENT_DS},
    {"es", "int32", 4, PART_SELECTOR, SEGMENT_ES},
    {"fs", "int32", 4, PART_SELECTOR, SEGMENT_FS},
    {"gs", "int32", 4, PART_SELECTOR, SEGMENT_GS},
    {"st0", "i387_ext", 10, PART_ST, 0},
    {"st1", "i387_ext", 10, PART_ST, 1},
    {"st2", "i387_ext", 10, PART_ST, 2},
    {"st3", "i387_ext", 10, PART_ST, 3},
    {"st4", "i387_ext", 10, PART_ST, 4},
    {"st5", "i387_ext", 10, PART_ST, 5},
    {"st6", "i387_ext", 10, PART_ST, 6},
    {"st7", "i387_ext", 10, PART_ST, 7},
    {"fctrl", "int", 4, PART_X87, X87_CONTROL},
    {"fstat", "int", 4, PART_X87, X87_STATUS},
    {"ftag", "int", 4, PART_X87, X87_TAG},
    {"fiseg", "int", 4, PART_X87, X87_ISEG},
    {"fioff", "int", 4, PART_X87, X87_IOFF},
    {"foseg", "int", 4, PART_X87, X87_OSEG},
    {"fooff", "int", 4, PART_X87, X87_OOFF},
    {"fop", "int", 4, PART_X87, X87_OP},
};

static const struct gdb_register sse[] = {
    {"xmm0", "vec128", 16, PART_XMM, 0},   {"xmm1", "vec128", 16, PART_XMM, 1},
    {"xmm2", "vec128", 16, PART_XMM, 2},   {"xmm3", "vec128", 16, PART_XMM, 3},
    {"xmm4", "vec128", 16, PART_XMM, 4},   {"xmm5", "vec128", 16, PART_XMM, 5},
    {"xmm6", "vec128", 16, PART_XMM, 6},   {"xmm7", "vec128", 16, PART_XMM, 7},
    {"xmm8", "vec128", 16, PART_XMM, 8},   {"xmm9", "vec128", 16, PART_XMM, 9},
    {"xmm10", "vec128", 16, PART_XMM, 10}, {"xmm11", "vec128", 16, PART_XMM, 11},
    {"xmm12", "vec128", 16, PART_XMM, 12}, {"xmm13", "vec128", 16, PART_XMM, 13},
    {"xmm14", "vec128", 16, PART_XMM, 14}, {"xmm15", "vec128", 16, PART_XMM, 15},
    {"mxcsr", "mxcsr", 4, PART_MXCSR, 0},
};

static const struct gdb_register segments[] = {
    {"fs_base", "int64", 8, PART_BASE, SEGMENT_FS},
    {"gs_base", "int64", 8, PART_BASE, SEGMENT_GS},
};

static const struct gdb_register system_registers[] = {
    {"k_gs_base", "int64", 8, PART_KERNEL_GS, 0},
    {"cr0", "int64", 8, PART_CONTROL, CONTROL_CR0},
    {"cr2", "int64", 8, PART_CONTROL, CONTROL_CR2},
    {"cr3", "int64", 8, PART_CONTROL, CONTROL_CR3},
    {"cr4", "int64", 8, PART_CONTROL, CONTROL_CR4},
    {"cr8", "int64", 8, PART_CONTROL, CONTROL_CR8},
    {"efer", "int64", 8, PART_CONTROL, CONTROL_EFER},
};

static const char core_types[] =
    "<flags id=\"eflags\" size=\"4\">"
    "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
    "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
    "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
    "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
    "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
    "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
    "<field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>"
    "<field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>"
    "<field name=\"ID\" start=\"21\" end=\"21\"/></flags>\n";

static const char sse_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
    "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
    "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>"
    "<flags id=\"mxcsr\" size=\"4\">"
    "<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
    "<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
    "<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
    "<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"IM\" start=\"7\" end=\"7\"/>"
    "<field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" end=\"9\"/>"
    "<field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/>"
    "<field name=\"PM\" start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/>"
    "</flags>\n";

static const struct feature features[] = {
    {"org.gnu.gdb.i386.core", core_types, core, QZ_ARRAY_LEN(core)},
    {"org.gnu.gdb.i386.sse", sse_types, sse, QZ_ARRAY_LEN(sse)},
    {"org.gnu.gdb.i386.segments", "", segments, QZ_ARRAY_LEN(segments)},
    {"org.queztl.system", "", system_registers, QZ_ARRAY_LEN(system_registers)},
};

unsigned gdb_register_count(void)
{
    return QZ_ARRAY_LEN(core) + QZ_ARRAY_LEN(sse) + QZ_ARRAY_LEN(segments) +
           QZ_ARRAY_LEN(system_registers);
}

const struct gdb_register *gdb_register(unsigned n)
{
    for (unsigned i = 0; i < QZ_ARRAY_LEN(features); n -= features[i++].count)
        if (n < features[i].count)
            return &features[i].reg[n];
    return NULL;
}

unsigned gdb_register_size(unsigned n)
{
    const struct gdb_register *r = gdb_register(n);

    return r ? r->size : 0;
}

/* ---- the description ---------------------------------------------------------------------------
 */

/* The part of a text that was asked for. */
struct window {
    struct gdb_reply *reply;
    uint64_t skip, left; /* bytes until it begins, and that still belong to it */
    bool more;           /* something lies behind it */
};

static void show(struct window *w, const char *text)
{
    uint64_t n = strlen(text);
    const uint64_t skipped = QZ_MIN(n, w->skip);

    w->skip -= skipped;
    text += skipped;
    n -= skipped;
    w->more |= n > w->left;
    n = QZ_MIN(n, w->left);
    w->left -= n;
    gdb_put(w->reply, text, n);
}

static void show_register(struct window *w, const struct gdb_register *r)
{
    const bool x87 = r->part == PART_X87;
    char text[128];

    snprintf(text, sizeof(text), "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s/>\n", r->name,
             r->size * 8u, r->type, x87 ? " group=\"float\"" : "");
    show(w, text);
}

bool gdb_target_xml(struct gdb_reply *reply, uint64_t offset, uint64_t len)
{
    struct window w = {.reply = reply, .skip = offset, .left = len};

    show(&w, "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
             "<target><architecture>i386:x86-64</architecture>\n");
    for (unsigned i = 0; i < QZ_ARRAY_LEN(features); i++) {
        show(&w, "<feature name=\"");
        show(&w, features[i].name);
        show(&w, "\">\n");
        show(&w, features[i].types);
        for (unsigned k = 0; k < features[i].count; k++)
            show_register(&w, &features[i].reg[k]);
        show(&w, "</feature>\n");
    }
    show(&w, "</target>\n");
    return w.more;
}

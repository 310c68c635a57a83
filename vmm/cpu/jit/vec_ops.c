/*
 * vec_ops.c - the table of MMX, SSE to SSE4.2, AES, PCLMULQDQ and SHA instructions.
 *
 * Ordered by map, opcode, prefix and group as the opcode maps of SDM vol 2 appendix A are, so that
 * vec_find() is a binary search. Everything that executes these instructions (the snippets, the
 * interpreter, the translator) goes by this table; operand sizes, alignment and exception classes
 * are those of the instruction pages of SDM vol 2.
 */
#include "cpu/jit/vec.h"

#include "cpu/jit/insn_ops.h"

/* What a row says beside its operands. */
enum {
    L = 1 << 0, /* rm is read */
    S = 1 << 1, /* rm is written */
    W = 1 << 2, /* reg is written */
    A = 1 << 3, /* aligned */
    I = 1 << 4, /* imm8 */
    F = 1 << 5, /* flags */
    E = 1 << 6, /* floating-point exceptions */
    M = 1 << 7, /* memory form only */
};

enum { NP = VEC_PREFIX_NONE, P66 = VEC_PREFIX_66, PF3 = VEC_PREFIX_F3, PF2 = VEC_PREFIX_F2 };
enum { NO = VEC_OPERAND_NONE, X = VEC_OPERAND_XMM, Q = VEC_OPERAND_MMX, G = VEC_OPERAND_GPR };
enum {
    XMM0 = VEC_IMPLICIT_XMM0,
    LENGTHS = VEC_IMPLICIT_RAX_RDX,
    RCX_ = VEC_IMPLICIT_RCX,
    RDI_ = VEC_IMPLICIT_RDI
};

#define ROW(name_, map_, prefix_, opcode_, group_, feature_, reg_, rm_, size_, size_w_, bits,      \
            implicit_)                                                                             \
    {                                                                                              \
        .name = name_,                                                                             \
        .map = map_,                                                                               \
        .prefix = prefix_,                                                                         \
        .opcode = opcode_,                                                                         \
        .group = group_,                                                                           \
        .feature = CPU_##feature_,                                                                 \
        .reg = reg_,                                                                               \
        .rm = rm_,                                                                                 \
        .mem_size = size_,                                                                         \
        .mem_size_w = size_w_,                                                                     \
        .no_reg_form = ((bits)&M) != 0,                                                            \
        .store = ((bits)&S) != 0,                                                                  \
        .load = ((bits)&L) != 0,                                                                   \
        .reg_written = ((bits)&W) != 0,                                                            \
        .aligned = ((bits)&A) != 0,                                                                \
        .imm8 = ((bits)&I) != 0,                                                                   \
        .flags = ((bits)&F) != 0,                                                                  \
        .fp = ((bits)&E) != 0,                                                                     \
        .implicit = implicit_,                                                                     \
    },

/* One row of the 0f, 0f38 and 0f3a maps. */
#define V1(opcode, prefix, name, reg, rm, size, bits)                                              \
    ROW(name, 1, prefix, opcode, -1, BASE, reg, rm, size, 0, bits, 0)
#define V1W(opcode, prefix, name, reg, rm, size, size_w, bits)                                     \
    ROW(name, 1, prefix, opcode, -1, BASE, reg, rm, size, size_w, bits, 0)
#define V1F(opcode, prefix, name, feature, size, bits)                                             \
    ROW(name, 1, prefix, opcode, -1, feature, X, X, size, 0, bits, 0)
#define V2(opcode, prefix, name, feature, size, bits)                                              \
    ROW(name, 2, prefix, opcode, -1, feature, X, X, size, 0, bits, 0)
#define V2I(opcode, prefix, name, feature, size, bits, implicit)                                   \
    ROW(name, 2, prefix, opcode, -1, feature, X, X, size, 0, bits, implicit)
#define V3(opcode, prefix, name, feature, reg, rm, size, bits)                                     \
    ROW(name, 3, prefix, opcode, -1, feature, reg, rm, size, 0, (bits) | I, 0)
#define V3I(opcode, prefix, name, feature, size, bits, implicit)                                   \
    ROW(name, 3, prefix, opcode, -1, feature, X, X, size, 0, (bits) | I, implicit)

/* reg := reg op rm, the same operation on MMX and on SSE registers. */
#define MMX_SSE2(opcode, name) V1(opcode, NP, name, Q, Q, 8, L | W) SSE2_INT(opcode, name)
#define SSE2_INT(opcode, name) V1(opcode, P66, name, X, X, 16, L | W | A)
#define MMX_SSSE3(opcode, name)                                                                    \
    ROW(name, 2, NP, opcode, -1, SSSE3, Q, Q, 8, 0, L | W, 0)                                      \
    V2(opcode, P66, name, SSSE3, 16, L | W | A)
#define SSE41(opcode, name) V2(opcode, P66, name, SSE41, 16, L | W | A)

/* Packed and scalar, single and double. */
#define PS_PD(opcode, name, bits)                                                                  \
    V1(opcode, NP, name "ps", X, X, 16, L | W | A | (bits))                                        \
    V1(opcode, P66, name "pd", X, X, 16, L | W | A | (bits))
#define SS_SD(opcode, name, bits)                                                                  \
    V1(opcode, PF3, name "ss", X, X, 4, L | W | (bits))                                            \
    V1(opcode, PF2, name "sd", X, X, 8, L | W | (bits))
#define FP4(opcode, name, bits) PS_PD(opcode, name, (bits) | E) SS_SD(opcode, name, (bits) | E)

/* Shifts by an immediate: groups 12 to 14, register form only. */
#define SHIFT_SSE2(opcode, group, name)                                                            \
    ROW(name, 1, P66, opcode, group, BASE, NO, X, 0, 0, L | S | I, 0)
#define SHIFT_MMX(opcode, group, name)                                                             \
    ROW(name, 1, NP, opcode, group, BASE, NO, Q, 0, 0, L | S | I, 0)

/* clang-format off */
const struct vec_op vec_ops[] = {
    {.name = "none", .group = -1},

    /* --- 0f --- */
    V1(0x10, NP, "movups", X, X, 16, L | W) V1(0x10, P66, "movupd", X, X, 16, L | W) SS_SD(0x10, "mov", 0)
    V1(0x11, NP, "movups", X, X, 16, S) V1(0x11, P66, "movupd", X, X, 16, S)
    V1(0x11, PF3, "movss", X, X, 4, S) V1(0x11, PF2, "movsd", X, X, 8, S)
    V1(0x12, NP, "movlps", X, X, 8, L | W) /* register form: MOVHLPS */
    V1(0x12, P66, "movlpd", X, X, 8, L | W | M)
    V1F(0x12, PF3, "movsldup", SSE3, 16, L | W | A) V1F(0x12, PF2, "movddup", SSE3, 8, L | W)
    V1(0x13, NP, "movlps", X, X, 8, S | M) V1(0x13, P66, "movlpd", X, X, 8, S | M)
    PS_PD(0x14, "unpckl", 0) PS_PD(0x15, "unpckh", 0)
    V1(0x16, NP, "movhps", X, X, 8, L | W) /* register form: MOVLHPS */
    V1(0x16, P66, "movhpd", X, X, 8, L | W | M) V1F(0x16, PF3, "movshdup", SSE3, 16, L | W | A)
    V1(0x17, NP, "movhps", X, X, 8, S | M) V1(0x17, P66, "movhpd", X, X, 8, S | M)
    PS_PD(0x28, "mova", 0)
    V1(0x29, NP, "movaps", X, X, 16, S | A) V1(0x29, P66, "movapd", X, X, 16, S | A)
    V1(0x2a, NP, "cvtpi2ps", X, Q, 8, L | W | E) V1(0x2a, P66, "cvtpi2pd", X, Q, 8, L | W)
    V1W(0x2a, PF3, "cvtsi2ss", X, G, 4, 8, L | W | E) V1W(0x2a, PF2, "cvtsi2sd", X, G, 4, 8, L | W | E)
    V1(0x2b, NP, "movntps", X, X, 16, S | A | M) V1(0x2b, P66, "movntpd", X, X, 16, S | A | M)
    V1(0x2c, NP, "cvttps2pi", Q, X, 8, L | W | E) V1(0x2c, P66, "cvttpd2pi", Q, X, 16, L | W | A | E)
    V1(0x2c, PF3, "cvttss2si", G, X, 4, L | W | E) V1(0x2c, PF2, "cvttsd2si", G, X, 8, L | W | E)
    V1(0x2d, NP, "cvtps2pi", Q, X, 8, L | W | E) V1(0x2d, P66, "cvtpd2pi", Q, X, 16, L | W | A | E)
    V1(0x2d, PF3, "cvtss2si", G, X, 4, L | W | E) V1(0x2d, PF2, "cvtsd2si", G, X, 8, L | W | E)
    V1(0x2e, NP, "ucomiss", X, X, 4, L | F | E) V1(0x2e, P66, "ucomisd", X, X, 8, L | F | E)
    V1(0x2f, NP, "comiss", X, X, 4, L | F | E) V1(0x2f, P66, "comisd", X, X, 8, L | F | E)
    V1(0x50, NP, "movmskps", G, X, 0, L | W) V1(0x50, P66, "movmskpd", G, X, 0, L | W)
    FP4(0x51, "sqrt", 0)
    V1(0x52, NP, "rsqrtps", X, X, 16, L | W | A) V1(0x52, PF3, "rsqrtss", X, X, 4, L | W)
    V1(0x53, NP, "rcpps", X, X, 16, L | W | A) V1(0x53, PF3, "rcpss", X, X, 4, L | W)
    PS_PD(0x54, "and", 0) PS_PD(0x55, "andn", 0) PS_PD(0x56, "or", 0) PS_PD(0x57, "xor", 0)
    FP4(0x58, "add", 0) FP4(0x59, "mul", 0)
    V1(0x5a, NP, "cvtps2pd", X, X, 8, L | W | E) V1(0x5a, P66, "cvtpd2ps", X, X, 16, L | W | A | E)
    V1(0x5a, PF3, "cvtss2sd", X, X, 4, L | W | E) V1(0x5a, PF2, "cvtsd2ss", X, X, 8, L | W | E)
    V1(0x5b, NP, "cvtdq2ps", X, X, 16, L | W | A | E) V1(0x5b, P66, "cvtps2dq", X, X, 16, L | W | A | E)
    V1(0x5b, PF3, "cvttps2dq", X, X, 16, L | W | A | E)
    FP4(0x5c, "sub", 0) FP4(0x5d, "min", 0) FP4(0x5e, "div", 0) FP4(0x5f, "max", 0)

    /* the low unpacks of MMX registers read only 32 bits of memory */
    V1(0x60, NP, "punpcklbw", Q, Q, 4, L | W) SSE2_INT(0x60, "punpcklbw")
    V1(0x61, NP, "punpcklwd", Q, Q, 4, L | W) SSE2_INT(0x61, "punpcklwd")
    V1(0x62, NP, "punpckldq", Q, Q, 4, L | W) SSE2_INT(0x62, "punpckldq")
    MMX_SSE2(0x63, "packsswb") MMX_SSE2(0x64, "pcmpgtb") MMX_SSE2(0x65, "pcmpgtw") MMX_SSE2(0x66, "pcmpgtd")
    MMX_SSE2(0x67, "packuswb") MMX_SSE2(0x68, "punpckhbw") MMX_SSE2(0x69, "punpckhwd")
    MMX_SSE2(0x6a, "punpckhdq") MMX_SSE2(0x6b, "packssdw")
    SSE2_INT(0x6c, "punpcklqdq") SSE2_INT(0x6d, "punpckhqdq")
    V1W(0x6e, NP, "movd", Q, G, 4, 8, L | W) V1W(0x6e, P66, "movd", X, G, 4, 8, L | W)
    V1(0x6f, NP, "movq", Q, Q, 8, L | W) SSE2_INT(0x6f, "movdqa") V1(0x6f, PF3, "movdqu", X, X, 16, L | W)

    V1(0x70, NP, "pshufw", Q, Q, 8, L | W | I) V1(0x70, P66, "pshufd", X, X, 16, L | W | A | I)
    V1(0x70, PF3, "pshufhw", X, X, 16, L | W | A | I) V1(0x70, PF2, "pshuflw", X, X, 16, L | W | A | I)
    SHIFT_MMX(0x71, 2, "psrlw") SHIFT_MMX(0x71, 4, "psraw") SHIFT_MMX(0x71, 6, "psllw")
    SHIFT_SSE2(0x71, 2, "psrlw") SHIFT_SSE2(0x71, 4, "psraw") SHIFT_SSE2(0x71, 6, "psllw")
    SHIFT_MMX(0x72, 2, "psrld") SHIFT_MMX(0x72, 4, "psrad") SHIFT_MMX(0x72, 6, "pslld")
    SHIFT_SSE2(0x72, 2, "psrld") SHIFT_SSE2(0x72, 4, "psrad") SHIFT_SSE2(0x72, 6, "pslld")
    SHIFT_MMX(0x73, 2, "psrlq") SHIFT_MMX(0x73, 6, "psllq")
    SHIFT_SSE2(0x73, 2, "psrlq") SHIFT_SSE2(0x73, 3, "psrldq") SHIFT_SSE2(0x73, 6, "psllq") SHIFT_SSE2(0x73, 7, "pslldq")
    MMX_SSE2(0x74, "pcmpeqb") MMX_SSE2(0x75, "pcmpeqw") MMX_SSE2(0x76, "pcmpeqd")
    V1F(0x7c, P66, "haddpd", SSE3, 16, L | W | A | E) V1F(0x7c, PF2, "haddps", SSE3, 16, L | W | A | E)
    V1F(0x7d, P66, "hsubpd", SSE3, 16, L | W | A | E) V1F(0x7d, PF2, "hsubps", SSE3, 16, L | W | A | E)
    V1W(0x7e, NP, "movd", Q, G, 4, 8, S) V1W(0x7e, P66, "movd", X, G, 4, 8, S) V1(0x7e, PF3, "movq", X, X, 8, L | W)
    V1(0x7f, NP, "movq", Q, Q, 8, S) V1(0x7f, P66, "movdqa", X, X, 16, S | A) V1(0x7f, PF3, "movdqu", X, X, 16, S)

    V1(0xc2, NP, "cmpps", X, X, 16, L | W | A | I | E) V1(0xc2, P66, "cmppd", X, X, 16, L | W | A | I | E)
    V1(0xc2, PF3, "cmpss", X, X, 4, L | W | I | E) V1(0xc2, PF2, "cmpsd", X, X, 8, L | W | I | E)
    V1(0xc4, NP, "pinsrw", Q, G, 2, L | W | I) V1(0xc4, P66, "pinsrw", X, G, 2, L | W | I)
    V1(0xc5, NP, "pextrw", G, Q, 0, L | W | I) V1(0xc5, P66, "pextrw", G, X, 0, L | W | I)
    V1(0xc6, NP, "shufps", X, X, 16, L | W | A | I) V1(0xc6, P66, "shufpd", X, X, 16, L | W | A | I)

    V1F(0xd0, P66, "addsubpd", SSE3, 16, L | W | A | E) V1F(0xd0, PF2, "addsubps", SSE3, 16, L | W | A | E)
    MMX_SSE2(0xd1, "psrlw") MMX_SSE2(0xd2, "psrld") MMX_SSE2(0xd3, "psrlq") MMX_SSE2(0xd4, "paddq") MMX_SSE2(0xd5, "pmullw")
    V1(0xd6, P66, "movq", X, X, 8, S) V1(0xd6, PF3, "movq2dq", X, Q, 0, L | W) V1(0xd6, PF2, "movdq2q", Q, X, 0, L | W)
    V1(0xd7, NP, "pmovmskb", G, Q, 0, L | W) V1(0xd7, P66, "pmovmskb", G, X, 0, L | W)
    MMX_SSE2(0xd8, "psubusb") MMX_SSE2(0xd9, "psubusw") MMX_SSE2(0xda, "pminub") MMX_SSE2(0xdb, "pand")
    MMX_SSE2(0xdc, "paddusb") MMX_SSE2(0xdd, "paddusw") MMX_SSE2(0xde, "pmaxub") MMX_SSE2(0xdf, "pandn")
    MMX_SSE2(0xe0, "pavgb") MMX_SSE2(0xe1, "psraw") MMX_SSE2(0xe2, "psrad") MMX_SSE2(0xe3, "pavgw")
    MMX_SSE2(0xe4, "pmulhuw") MMX_SSE2(0xe5, "pmulhw")
    V1(0xe6, P66, "cvttpd2dq", X, X, 16, L | W | A | E) V1(0xe6, PF3, "cvtdq2pd", X, X, 8, L | W)
    V1(0xe6, PF2, "cvtpd2dq", X, X, 16, L | W | A | E)
    V1(0xe7, NP, "movntq", Q, Q, 8, S | M) V1(0xe7, P66, "movntdq", X, X, 16, S | A | M)
    MMX_SSE2(0xe8, "psubsb") MMX_SSE2(0xe9, "psubsw") MMX_SSE2(0xea, "pminsw") MMX_SSE2(0xeb, "por")
    MMX_SSE2(0xec, "paddsb") MMX_SSE2(0xed, "paddsw") MMX_SSE2(0xee, "pmaxsw") MMX_SSE2(0xef, "pxor")
    V1F(0xf0, PF2, "lddqu", SSE3, 16, L | W | M)
    MMX_SSE2(0xf1, "psllw") MMX_SSE2(0xf2, "pslld") MMX_SSE2(0xf3, "psllq") MMX_SSE2(0xf4, "pmuludq")
    MMX_SSE2(0xf5, "pmaddwd") MMX_SSE2(0xf6, "psadbw")
    ROW("maskmovq", 1, NP, 0xf7, -1, BASE, Q, Q, 0, 0, L, RDI_) ROW("maskmovdqu", 1, P66, 0xf7, -1, BASE, X, X, 0, 0, L, RDI_)
    MMX_SSE2(0xf8, "psubb") MMX_SSE2(0xf9, "psubw") MMX_SSE2(0xfa, "psubd") MMX_SSE2(0xfb, "psubq")
    MMX_SSE2(0xfc, "paddb") MMX_SSE2(0xfd, "paddw") MMX_SSE2(0xfe, "paddd")

    /* --- 0f38 --- */
    MMX_SSSE3(0x00, "pshufb") MMX_SSSE3(0x01, "phaddw") MMX_SSSE3(0x02, "phaddd") MMX_SSSE3(0x03, "phaddsw")
    MMX_SSSE3(0x04, "pmaddubsw") MMX_SSSE3(0x05, "phsubw") MMX_SSSE3(0x06, "phsubd") MMX_SSSE3(0x07, "phsubsw")
    MMX_SSSE3(0x08, "psignb") MMX_SSSE3(0x09, "psignw") MMX_SSSE3(0x0a, "psignd") MMX_SSSE3(0x0b, "pmulhrsw")
    V2I(0x10, P66, "pblendvb", SSE41, 16, L | W | A, XMM0)
    V2I(0x14, P66, "blendvps", SSE41, 16, L | W | A, XMM0) V2I(0x15, P66, "blendvpd", SSE41, 16, L | W | A, XMM0)
    V2(0x17, P66, "ptest", SSE41, 16, L | A | F)
    MMX_SSSE3(0x1c, "pabsb") MMX_SSSE3(0x1d, "pabsw") MMX_SSSE3(0x1e, "pabsd")
    V2(0x20, P66, "pmovsxbw", SSE41, 8, L | W) V2(0x21, P66, "pmovsxbd", SSE41, 4, L | W) V2(0x22, P66, "pmovsxbq", SSE41, 2, L | W)
    V2(0x23, P66, "pmovsxwd", SSE41, 8, L | W) V2(0x24, P66, "pmovsxwq", SSE41, 4, L | W) V2(0x25, P66, "pmovsxdq", SSE41, 8, L | W)
    SSE41(0x28, "pmuldq") SSE41(0x29, "pcmpeqq") V2(0x2a, P66, "movntdqa", SSE41, 16, L | W | A | M) SSE41(0x2b, "packusdw")
    V2(0x30, P66, "pmovzxbw", SSE41, 8, L | W) V2(0x31, P66, "pmovzxbd", SSE41, 4, L | W) V2(0x32, P66, "pmovzxbq", SSE41, 2, L | W)
    V2(0x33, P66, "pmovzxwd", SSE41, 8, L | W) V2(0x34, P66, "pmovzxwq", SSE41, 4, L | W) V2(0x35, P66, "pmovzxdq", SSE41, 8, L | W)
    V2(0x37, P66, "pcmpgtq", SSE42, 16, L | W | A)
    SSE41(0x38, "pminsb") SSE41(0x39, "pminsd") SSE41(0x3a, "pminuw") SSE41(0x3b, "pminud")
    SSE41(0x3c, "pmaxsb") SSE41(0x3d, "pmaxsd") SSE41(0x3e, "pmaxuw") SSE41(0x3f, "pmaxud")
    SSE41(0x40, "pmulld") SSE41(0x41, "phminposuw")
    V2(0xc8, NP, "sha1nexte", SHA, 16, L | W | A) V2(0xc9, NP, "sha1msg1", SHA, 16, L | W | A) V2(0xca, NP, "sha1msg2", SHA, 16, L | W | A)
    V2I(0xcb, NP, "sha256rnds2", SHA, 16, L | W | A, XMM0)
    V2(0xcc, NP, "sha256msg1", SHA, 16, L | W | A) V2(0xcd, NP, "sha256msg2", SHA, 16, L | W | A)
    V2(0xdb, P66, "aesimc", AES, 16, L | W | A) V2(0xdc, P66, "aesenc", AES, 16, L | W | A) V2(0xdd, P66, "aesenclast", AES, 16, L | W | A)
    V2(0xde, P66, "aesdec", AES, 16, L | W | A) V2(0xdf, P66, "aesdeclast", AES, 16, L | W | A)

    /* --- 0f3a: all with imm8 --- */
    V3(0x08, P66, "roundps", SSE41, X, X, 16, L | W | A | E) V3(0x09, P66, "roundpd", SSE41, X, X, 16, L | W | A | E)
    V3(0x0a, P66, "roundss", SSE41, X, X, 4, L | W | E) V3(0x0b, P66, "roundsd", SSE41, X, X, 8, L | W | E)
    V3(0x0c, P66, "blendps", SSE41, X, X, 16, L | W | A) V3(0x0d, P66, "blendpd", SSE41, X, X, 16, L | W | A)
    V3(0x0e, P66, "pblendw", SSE41, X, X, 16, L | W | A)
    V3(0x0f, NP, "palignr", SSSE3, Q, Q, 8, L | W) V3(0x0f, P66, "palignr", SSSE3, X, X, 16, L | W | A)
    V3(0x14, P66, "pextrb", SSE41, X, G, 1, S) V3(0x15, P66, "pextrw", SSE41, X, G, 2, S)
    ROW("pextrd", 3, P66, 0x16, -1, SSE41, X, G, 4, 8, S | I, 0) V3(0x17, P66, "extractps", SSE41, X, G, 4, S)
    V3(0x20, P66, "pinsrb", SSE41, X, G, 1, L | W) V3(0x21, P66, "insertps", SSE41, X, X, 4, L | W)
    ROW("pinsrd", 3, P66, 0x22, -1, SSE41, X, G, 4, 8, L | W | I, 0)
    V3(0x40, P66, "dpps", SSE41, X, X, 16, L | W | A | E) V3(0x41, P66, "dppd", SSE41, X, X, 16, L | W | A | E)
    V3(0x42, P66, "mpsadbw", SSE41, X, X, 16, L | W | A) V3(0x44, P66, "pclmulqdq", PCLMUL, X, X, 16, L | W | A)
    V3I(0x60, P66, "pcmpestrm", SSE42, 16, L | F, XMM0 | LENGTHS) V3I(0x61, P66, "pcmpestri", SSE42, 16, L | F, LENGTHS | RCX_)
    V3I(0x62, P66, "pcmpistrm", SSE42, 16, L | F, XMM0) V3I(0x63, P66, "pcmpistri", SSE42, 16, L | F, RCX_)
    V3(0xcc, NP, "sha1rnds4", SHA, X, X, 16, L | W | A) V3(0xdf, P66, "aeskeygenassist", AES, X, X, 16, L | W | A)
};
/* clang-format on */

const unsigned vec_ops_count = sizeof(vec_ops) / sizeof(vec_ops[0]);

/* Sorts the opcodes of the table: a row's key without its group in the upper bits. */
static unsigned vec_key(unsigned map, unsigned opcode, unsigned prefix)
{
    return map << 10 | opcode << 2 | prefix;
}

unsigned vec_find(unsigned map, unsigned prefix, uint8_t opcode, uint8_t modrm)
{
    unsigned key = vec_key(map, opcode, prefix);
    unsigned low = 1, high = vec_ops_count; /* the first row with at least this key */

    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct vec_op *op = &vec_ops[middle];

        if (vec_key(op->map, op->opcode, op->prefix) < key)
            low = middle + 1;
        else
            high = middle;
    }
    for (unsigned n = low; n < vec_ops_count; n++) {
        const struct vec_op *op = &vec_ops[n];

        if (vec_key(op->map, op->opcode, op->prefix) != key)
            return 0;
        if (op->group >= 0 && op->group != (modrm >> 3 & 7))
            continue;
        if (modrm >> 6 == 3)
            return op->no_reg_form ? 0 : n;
        return op->mem_size ? n : 0;
    }
    return 0;
}

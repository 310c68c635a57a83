/*
 * aml_expr.c - AML expressions as values (ACPI 6.4 §20.2.3 data, §20.2.5.4 expressions, §20.2.6
 * locals and arguments).
 *
 * AML is prefix code: an operator byte, then its operands. So an expression is its operator
 * followed by the bytes of its operands, and nesting is concatenation. A length past the array
 * marks a failure, which every expression made from it inherits and the statement that uses it
 * reports.
 */
#include "internal.h"

enum {
    EXPR_MAX = sizeof(((struct qz_ax *)0)->code),
    STRING_MAX = 150,
    BYTES_MAX = 128,
    OP_STRING = 0x0d,
    OP_BUFFER = 0x11,
    OP_EXT = 0x5b,
    OP_LOCAL0 = 0x60,
    OP_ARG0 = 0x68,
    OP_REF_OF = 0x71,
    OP_INCREMENT = 0x75,
    OP_DECREMENT = 0x76,
    OP_DIVIDE = 0x78,
    OP_NOT = 0x80,
    OP_FIND_SET_LEFT_BIT = 0x81,
    OP_FIND_SET_RIGHT_BIT = 0x82,
    OP_DEREF_OF = 0x83,
    OP_SIZE_OF = 0x87,
    OP_LAND = 0x90,
    OP_LOR = 0x91,
    OP_LNOT = 0x92,
    OP_LEQUAL = 0x93,
    OP_LGREATER = 0x94,
    OP_LLESS = 0x95,
    OP_TO_BUFFER = 0x96,
    OP_TO_INTEGER = 0x99,
    EXT_COND_REF_OF = 0x12,
    EXT_ACQUIRE = 0x23,
    EXT_DEBUG = 0x31,
    NULL_TARGET = 0x00,
};

_Static_assert((int)QZ_AX_TOO_LONG > (int)EXPR_MAX && (int)QZ_AX_BAD > (int)EXPR_MAX,
               "failures are no lengths");

static void add_bytes(struct qz_ax *e, const void *p, size_t n)
{
    if (e->len > EXPR_MAX || n == 0)
        return;
    if (n > (size_t)(EXPR_MAX - e->len)) {
        e->len = QZ_AX_TOO_LONG;
        return;
    }
    memcpy(e->code + e->len, p, n);
    e->len = (uint16_t)(e->len + n);
}

static void add_byte(struct qz_ax *e, uint8_t v)
{
    add_bytes(e, &v, 1);
}

static void add(struct qz_ax *e, const struct qz_ax *x)
{
    if (e->len > EXPR_MAX)
        return;
    if (x->len > EXPR_MAX)
        e->len = x->len;
    else
        add_bytes(e, x->code, x->len);
}

static struct qz_ax start(uint8_t op)
{
    struct qz_ax e = {0};

    add_byte(&e, op);
    return e;
}

static struct qz_ax bad(void)
{
    return (struct qz_ax){.len = QZ_AX_BAD};
}

/* Operator and one operand; `target`: a null target follows (the result is only a value). */
static struct qz_ax unary(uint8_t op, const struct qz_ax *x, bool target)
{
    struct qz_ax e = start(op);

    add(&e, x);
    if (target)
        add_byte(&e, NULL_TARGET);
    return e;
}

static struct qz_ax binary(uint8_t op, const struct qz_ax *x, const struct qz_ax *y, bool target)
{
    struct qz_ax e = start(op);

    add(&e, x);
    add(&e, y);
    if (target)
        add_byte(&e, NULL_TARGET);
    return e;
}

struct qz_ax qz_ax_int(uint64_t v)
{
    struct qz_ax e = {0};
    uint8_t code[9];

    add_bytes(&e, code, int_encode(v, code));
    return e;
}

struct qz_ax qz_ax_str(const char *s)
{
    struct qz_ax e = start(OP_STRING);
    size_t n = strnlen(s, STRING_MAX + 1);

    if (n > STRING_MAX)
        return (struct qz_ax){.len = QZ_AX_TOO_LONG};
    for (size_t i = 0; i < n; i++)
        if (s[i] & 0x80)
            return bad();
    add_bytes(&e, s, n + 1);
    return e;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

struct qz_ax qz_ax_eisaid(const char *id)
{
    /* §19.3.4: three letters of 5 bits and four hexadecimal digits, most significant byte first. */
    uint32_t v = 0;

    if (strnlen(id, 8) != 7)
        return bad();
    for (int i = 0; i < 3; i++) {
        if (id[i] < 'A' || id[i] > 'Z')
            return bad();
        v = v << 5 | (uint32_t)(id[i] - 'A' + 1);
    }
    for (int i = 3; i < 7; i++) {
        if (hex_digit(id[i]) < 0)
            return bad();
        v = v << 4 | (uint32_t)hex_digit(id[i]);
    }
    return qz_ax_int(__builtin_bswap32(v));
}

struct qz_ax qz_ax_bytes(const void *p, size_t n)
{
    uint8_t size[9], length[4];
    size_t size_len = int_encode(n, size);
    struct qz_ax e = start(OP_BUFFER);

    if (n > BYTES_MAX)
        return (struct qz_ax){.len = QZ_AX_TOO_LONG};
    add_bytes(&e, length, pkg_length_encode(size_len + n, length));
    add_bytes(&e, size, size_len);
    add_bytes(&e, p, n);
    return e;
}

struct qz_ax qz_ax_uuid(const char *uuid)
{
    /* §19.6.142: the first three groups are little-endian. */
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t bytes[16];
    const char *p = uuid;

    if (strnlen(uuid, 37) != 36)
        return bad();
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            if (*p++ != '-')
                return bad();
        if (hex_digit(p[0]) < 0 || hex_digit(p[1]) < 0)
            return bad();
        bytes[order[i]] = (uint8_t)(hex_digit(p[0]) << 4 | hex_digit(p[1]));
        p += 2;
    }
    return qz_ax_bytes(bytes, sizeof(bytes));
}

struct qz_ax qz_ax_name(const char *path)
{
    uint8_t code[NAME_MAX_LEN];
    struct qz_ax e = {0};
    int n = name_encode(path, code);

    if (n < 0)
        return bad();
    add_bytes(&e, code, (size_t)n);
    return e;
}

struct qz_ax qz_ax_local(unsigned n)
{
    return n < 8 ? start((uint8_t)(OP_LOCAL0 + n)) : bad();
}

struct qz_ax qz_ax_arg(unsigned n)
{
    return n < 7 ? start((uint8_t)(OP_ARG0 + n)) : bad();
}

struct qz_ax qz_ax_debug(void)
{
    struct qz_ax e = start(OP_EXT);

    add_byte(&e, EXT_DEBUG);
    return e;
}

struct qz_ax qz_ax_op(enum qz_aml_op op, struct qz_ax x, struct qz_ax y)
{
    return binary((uint8_t)op, &x, &y, true);
}

struct qz_ax qz_ax_divide(struct qz_ax x, struct qz_ax y)
{
    struct qz_ax e = binary(OP_DIVIDE, &x, &y, true); /* the remainder's target */

    add_byte(&e, NULL_TARGET); /* the quotient's */
    return e;
}

#define OPERATOR(name, op)                                                                         \
    struct qz_ax qz_ax_##name(struct qz_ax x, struct qz_ax y)                                      \
    {                                                                                              \
        return binary(op, &x, &y, true);                                                           \
    }
OPERATOR(add, QZ_AML_ADD)
OPERATOR(subtract, QZ_AML_SUBTRACT)
OPERATOR(multiply, QZ_AML_MULTIPLY)
OPERATOR(mod, QZ_AML_MOD)
OPERATOR(and, QZ_AML_AND)
OPERATOR(or, QZ_AML_OR)
OPERATOR(xor, QZ_AML_XOR)
OPERATOR(shift_left, QZ_AML_SHIFT_LEFT)
OPERATOR(shift_right, QZ_AML_SHIFT_RIGHT)
OPERATOR(index, QZ_AML_INDEX)

#define COMPARISON(name, op)                                                                       \
    struct qz_ax qz_ax_##name(struct qz_ax x, struct qz_ax y)                                      \
    {                                                                                              \
        return binary(op, &x, &y, false);                                                          \
    }
COMPARISON(land, OP_LAND)
COMPARISON(lor, OP_LOR)
COMPARISON(equal, OP_LEQUAL)
COMPARISON(less, OP_LLESS)
COMPARISON(greater, OP_LGREATER)

/* AML has no operators for these: they are the negation of the opposite. */
#define NEGATED(name, op)                                                                          \
    struct qz_ax qz_ax_##name(struct qz_ax x, struct qz_ax y)                                      \
    {                                                                                              \
        struct qz_ax e = binary(op, &x, &y, false);                                                \
                                                                                                   \
        return unary(OP_LNOT, &e, false);                                                          \
    }
NEGATED(not_equal, OP_LEQUAL)
NEGATED(less_equal, OP_LGREATER)
NEGATED(greater_equal, OP_LLESS)

#define UNARY(name, op, target)                                                                    \
    struct qz_ax qz_ax_##name(struct qz_ax x)                                                      \
    {                                                                                              \
        return unary(op, &x, target);                                                              \
    }
UNARY(lnot, OP_LNOT, false)
UNARY(not, OP_NOT, true)
UNARY(find_set_left_bit, OP_FIND_SET_LEFT_BIT, true)
UNARY(find_set_right_bit, OP_FIND_SET_RIGHT_BIT, true)
UNARY(size_of, OP_SIZE_OF, false)
UNARY(ref_of, OP_REF_OF, false)
UNARY(deref_of, OP_DEREF_OF, false)
UNARY(to_integer, OP_TO_INTEGER, true)
UNARY(to_buffer, OP_TO_BUFFER, true)
UNARY(increment, OP_INCREMENT, false)
UNARY(decrement, OP_DECREMENT, false)

struct qz_ax qz_ax_cond_ref_of(struct qz_ax x)
{
    struct qz_ax e = start(OP_EXT);

    add_byte(&e, EXT_COND_REF_OF);
    add(&e, &x);
    add_byte(&e, NULL_TARGET);
    return e;
}

struct qz_ax qz_ax_acquire(const char *mutex, uint16_t timeout_ms)
{
    struct qz_ax e = start(OP_EXT), name = qz_ax_name(mutex);
    uint8_t timeout[2];

    qz_store_le16(timeout, timeout_ms);
    add_byte(&e, EXT_ACQUIRE);
    add(&e, &name);
    add_bytes(&e, timeout, sizeof(timeout));
    return e;
}

struct qz_ax qz_ax_call_n(const char *method, const struct qz_ax *args, size_t n)
{
    struct qz_ax e = qz_ax_name(method);

    if (n > 7)
        return bad();
    for (size_t i = 0; i < n; i++)
        add(&e, &args[i]);
    return e;
}

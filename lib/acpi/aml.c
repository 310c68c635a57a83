/*
 * aml.c - AML statements and blocks (ACPI 6.4 §20.2.5).
 *
 * Theory of operation: a block begins with an opcode, then its package length, then its contents,
 * and the length is known only at the end. So opening a block remembers where its length belongs;
 * closing it moves the contents up by the one to four bytes that the length takes and writes it
 * there. Inner blocks close first, so offsets of outer ones never move. Misuse (a name that is
 * none, a field unit outside a field, a block left open) is recorded in the buffer like any other
 * failure.
 */
#include "internal.h"

enum {
    OP_NAME = 0x08,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_EXT = 0x5b,
    OP_STORE = 0x70,
    OP_NOTIFY = 0x86,
    OP_CREATE_DWORD_FIELD = 0x8a,
    OP_CREATE_WORD_FIELD = 0x8b,
    OP_CREATE_BYTE_FIELD = 0x8c,
    OP_CREATE_BIT_FIELD = 0x8d,
    OP_CREATE_QWORD_FIELD = 0x8f,
    OP_CONTINUE = 0x9f,
    OP_IF = 0xa0,
    OP_ELSE = 0xa1,
    OP_WHILE = 0xa2,
    OP_RETURN = 0xa4,
    OP_BREAK = 0xa5,
    EXT_MUTEX = 0x01,
    EXT_STALL = 0x21,
    EXT_SLEEP = 0x22,
    EXT_RELEASE = 0x27,
    EXT_REGION = 0x80,
    EXT_FIELD = 0x81,
    EXT_DEVICE = 0x82,
    EXT_INDEX_FIELD = 0x86,
};

static void put_op(struct qz_aml *a, uint8_t op)
{
    qz_acpi_put8(a->out, op);
}

static void put_ext(struct qz_aml *a, uint8_t op)
{
    qz_acpi_put8(a->out, OP_EXT);
    qz_acpi_put8(a->out, op);
}

static void put_int(struct qz_aml *a, uint64_t v)
{
    uint8_t code[9];

    qz_acpi_put_bytes(a->out, code, int_encode(v, code));
}

static void put_expr(struct qz_aml *a, const struct qz_ax *x)
{
    if (x->len == QZ_AX_TOO_LONG)
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: an expression of more than %zu bytes",
                          sizeof(x->code));
    else if (x->len > sizeof(x->code))
        qz_acpi_blob_fail(a->out, -EINVAL,
                          "AML: an expression holds a bad name, string, id or argument");
    else
        qz_acpi_put_bytes(a->out, x->code, x->len);
}

void aml_put_name(struct qz_aml *a, const char *path)
{
    uint8_t code[NAME_MAX_LEN];
    int n = name_encode(path, code);

    if (n < 0)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: \"%s\" is not a name", path);
    else
        qz_acpi_put_bytes(a->out, code, (size_t)n);
}

static struct qz_aml_frame *top(struct qz_aml *a)
{
    return &a->frame[a->depth - 1];
}

bool aml_in(struct qz_aml *a, enum frame_kind kind, const char *what)
{
    enum frame_kind now;

    if (a->out->error)
        return false;
    if (a->depth == 0) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: %s outside a definition block", what);
        return false;
    }
    now = (enum frame_kind)top(a)->kind;
    if (now == FRAME_IF)
        now = FRAME_TERMS;
    if (now != kind)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: %s cannot stand in this kind of block", what);
    return now == kind;
}

/* Everything that is a term: not inside packages, resource templates and field lists. */
static bool in_terms(struct qz_aml *a, const char *what)
{
    return aml_in(a, FRAME_TERMS, what);
}

void aml_open(struct qz_aml *a, enum frame_kind kind)
{
    if (a->out->error)
        return;
    if (a->depth == QZ_AML_DEPTH_MAX) {
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: blocks nested deeper than %d", QZ_AML_DEPTH_MAX);
        return;
    }
    a->frame[a->depth++] = (struct qz_aml_frame){.start = a->out->len, .kind = (uint8_t)kind};
}

/* Puts n bytes in at offset `at`, moving what follows. */
static void insert(struct qz_acpi_blob *b, size_t at, const uint8_t *bytes, size_t n)
{
    size_t tail = b->len - at;

    if (!qz_acpi_blob_grow(b, n))
        return;
    memmove(b->data + at + n, b->data + at, tail);
    memcpy(b->data + at, bytes, n);
}

static void close_one(struct qz_aml *a)
{
    struct qz_aml_frame *f = top(a);
    uint8_t code[9];
    size_t n;

    if (f->kind == FRAME_RESOURCES) {
        /* The end tag (§6.4.2.9) with checksum zero, which means "not summed"; then the buffer's
         * size before it all. */
        qz_acpi_put8(a->out, 0x79);
        qz_acpi_put8(a->out, 0);
        insert(a->out, f->start, code, int_encode(a->out->len - f->start, code));
    } else if (f->kind == FRAME_PACKAGE) {
        uint8_t count = (uint8_t)f->count;

        if (f->count > 255)
            qz_acpi_blob_fail(a->out, -E2BIG, "AML: a package of %u elements (255 at most)",
                              f->count);
        insert(a->out, f->start, &count, 1);
    }
    n = pkg_length_encode(a->out->len - f->start, code);
    if (n == 0)
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: a block of %zu bytes", a->out->len - f->start);
    insert(a->out, f->start, code, n);
    a->depth--;
}

/* frame[0] is the definition block itself, which finish closes. */
void qz_aml_end(struct qz_aml *a)
{
    bool chained;

    if (a->out->error)
        return;
    do {
        if (a->depth <= 1) {
            qz_acpi_blob_fail(a->out, -EINVAL, "AML: more blocks were ended than opened");
            return;
        }
        close_one(a);
        /* An If inside an Else of its chain: the Else ends with it. */
        chained = !a->out->error && top(a)->chained;
    } while (chained);
}

void qz_aml_begin(struct qz_aml *a, struct qz_acpi_tables *t, const char *signature)
{
    memset(a, 0, sizeof(*a));
    a->tables = t;
    a->out = &t->blob;
    qz_acpi_table_begin(t, signature, 2); /* revision 2: integers have 64 bits */
    aml_open(a, FRAME_TERMS);
}

void qz_aml_finish(struct qz_aml *a)
{
    if (!a->out->error && a->depth != 1)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: %u blocks were not ended", a->depth - 1);
    qz_acpi_table_end(a->tables);
    a->depth = 0;
}

/* ---- name space objects ---------------------------------------------------------------------- */

void qz_aml_scope(struct qz_aml *a, const char *path)
{
    if (!in_terms(a, "Scope"))
        return;
    put_op(a, OP_SCOPE);
    aml_open(a, FRAME_TERMS);
    aml_put_name(a, path);
}

void qz_aml_device(struct qz_aml *a, const char *name)
{
    if (!in_terms(a, "Device"))
        return;
    put_ext(a, EXT_DEVICE);
    aml_open(a, FRAME_TERMS);
    aml_put_name(a, name);
}

void qz_aml_method(struct qz_aml *a, const char *name, unsigned n_args, unsigned flags)
{
    if (!in_terms(a, "Method"))
        return;
    if (n_args > 7)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: method %s with %u arguments", name, n_args);
    put_op(a, OP_METHOD);
    aml_open(a, FRAME_TERMS);
    aml_put_name(a, name);
    qz_acpi_put8(a->out, (uint8_t)(n_args | (flags & QZ_AML_SERIALIZED ? 8 : 0)));
}

static bool name_op(struct qz_aml *a, const char *name)
{
    if (!in_terms(a, "Name"))
        return false;
    put_op(a, OP_NAME);
    aml_put_name(a, name);
    return true;
}

static void open_package(struct qz_aml *a)
{
    put_op(a, OP_PACKAGE);
    aml_open(a, FRAME_PACKAGE);
}

static void open_resources(struct qz_aml *a)
{
    put_op(a, OP_BUFFER);
    aml_open(a, FRAME_RESOURCES);
}

void qz_aml_name(struct qz_aml *a, const char *name, struct qz_ax value)
{
    if (name_op(a, name))
        put_expr(a, &value);
}

void qz_aml_name_package(struct qz_aml *a, const char *name)
{
    if (name_op(a, name))
        open_package(a);
}

void qz_aml_name_resources(struct qz_aml *a, const char *name)
{
    if (name_op(a, name))
        open_resources(a);
}

void qz_aml_name_buffer(struct qz_aml *a, const char *name, const void *p, size_t n)
{
    uint8_t size[9], length[4];
    size_t size_len = int_encode(n, size), length_len;

    if (!name_op(a, name))
        return;
    length_len = n <= a->out->max ? pkg_length_encode(size_len + n, length) : 0;
    if (!length_len)
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: buffer %s of %zu bytes", name, n);
    put_op(a, OP_BUFFER);
    qz_acpi_put_bytes(a->out, length, length_len);
    qz_acpi_put_bytes(a->out, size, size_len);
    qz_acpi_put_bytes(a->out, p, n);
}

void qz_aml_mutex(struct qz_aml *a, const char *name)
{
    if (!in_terms(a, "Mutex"))
        return;
    put_ext(a, EXT_MUTEX);
    aml_put_name(a, name);
    qz_acpi_put8(a->out, 0); /* sync level */
}

void qz_aml_operation_region(struct qz_aml *a, const char *name, unsigned space, uint64_t offset,
                             uint64_t len)
{
    if (!in_terms(a, "OperationRegion"))
        return;
    put_ext(a, EXT_REGION);
    aml_put_name(a, name);
    qz_acpi_put8(a->out, (uint8_t)space);
    put_int(a, offset);
    put_int(a, len);
}

void qz_aml_field(struct qz_aml *a, const char *region, unsigned flags)
{
    if (!in_terms(a, "Field"))
        return;
    put_ext(a, EXT_FIELD);
    aml_open(a, FRAME_FIELD);
    aml_put_name(a, region);
    qz_acpi_put8(a->out, (uint8_t)flags);
}

void qz_aml_index_field(struct qz_aml *a, const char *index, const char *data, unsigned flags)
{
    if (!in_terms(a, "IndexField"))
        return;
    put_ext(a, EXT_INDEX_FIELD);
    aml_open(a, FRAME_FIELD);
    aml_put_name(a, index);
    aml_put_name(a, data);
    qz_acpi_put8(a->out, (uint8_t)flags);
}

/* A width in a field list is written like a package length, but does not count its own bytes. */
static void put_width(struct qz_aml *a, uint32_t bits)
{
    if (bits < 1u << 6) {
        qz_acpi_put8(a->out, (uint8_t)bits);
        return;
    }
    if (bits >= 1u << 28) {
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: a field of %u bits", bits);
        return;
    }
    for (unsigned n = 1; n <= 3; n++)
        if (bits < 1u << (4 + 8 * n)) {
            qz_acpi_put8(a->out, (uint8_t)(n << 6 | (bits & 15)));
            for (unsigned i = 0; i < n; i++)
                qz_acpi_put8(a->out, (uint8_t)(bits >> (4 + 8 * i)));
            return;
        }
}

void qz_aml_field_unit(struct qz_aml *a, const char *name, uint32_t bits)
{
    uint8_t segment[4];

    if (!aml_in(a, FRAME_FIELD, "a field unit"))
        return;
    if (name_segment(name, segment) < 0 || bits == 0) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: field unit \"%s\" of %u bits", name, bits);
        return;
    }
    qz_acpi_put_bytes(a->out, segment, 4);
    put_width(a, bits);
    top(a)->bit += bits;
}

void qz_aml_field_skip(struct qz_aml *a, uint32_t bits)
{
    if (!aml_in(a, FRAME_FIELD, "a field gap"))
        return;
    qz_acpi_put8(a->out, 0); /* ReservedField */
    put_width(a, bits);
    top(a)->bit += bits;
}

void qz_aml_field_offset(struct qz_aml *a, uint32_t byte)
{
    uint64_t to = (uint64_t)byte * 8;

    if (!aml_in(a, FRAME_FIELD, "Offset"))
        return;
    if (to < top(a)->bit || to - top(a)->bit >= 1u << 28)
        qz_acpi_blob_fail(a->out, -EINVAL,
                          "AML: field offset %u is behind the units before it, or too far", byte);
    else if (to > top(a)->bit)
        qz_aml_field_skip(a, (uint32_t)(to - top(a)->bit));
}

void qz_aml_create_field(struct qz_aml *a, struct qz_ax buffer, struct qz_ax index,
                         const char *name, unsigned bits)
{
    uint8_t op = bits == 1    ? OP_CREATE_BIT_FIELD
                 : bits == 8  ? OP_CREATE_BYTE_FIELD
                 : bits == 16 ? OP_CREATE_WORD_FIELD
                 : bits == 32 ? OP_CREATE_DWORD_FIELD
                 : bits == 64 ? OP_CREATE_QWORD_FIELD
                              : 0;

    if (!in_terms(a, "CreateField"))
        return;
    if (!op) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: buffer field %s of %u bits", name, bits);
        return;
    }
    put_op(a, op);
    put_expr(a, &buffer);
    put_expr(a, &index);
    aml_put_name(a, name);
}

/* ---- code ------------------------------------------------------------------------------------ */

void qz_aml_put(struct qz_aml *a, struct qz_ax x)
{
    if (!a->out->error && a->depth && top(a)->kind == FRAME_PACKAGE)
        top(a)->count++;
    else if (!in_terms(a, "an expression"))
        return;
    put_expr(a, &x);
}

void qz_aml_package(struct qz_aml *a)
{
    if (!aml_in(a, FRAME_PACKAGE, "a nested package"))
        return;
    top(a)->count++;
    open_package(a);
}

void qz_aml_store(struct qz_aml *a, struct qz_ax value, struct qz_ax target)
{
    if (!in_terms(a, "Store"))
        return;
    put_op(a, OP_STORE);
    put_expr(a, &value);
    put_expr(a, &target);
}

void qz_aml_return(struct qz_aml *a, struct qz_ax value)
{
    if (!in_terms(a, "Return"))
        return;
    put_op(a, OP_RETURN);
    put_expr(a, &value);
}

void qz_aml_return_package(struct qz_aml *a)
{
    if (!in_terms(a, "Return"))
        return;
    put_op(a, OP_RETURN);
    open_package(a);
}

void qz_aml_return_resources(struct qz_aml *a)
{
    if (!in_terms(a, "Return"))
        return;
    put_op(a, OP_RETURN);
    open_resources(a);
}

void qz_aml_if(struct qz_aml *a, struct qz_ax condition)
{
    if (!in_terms(a, "If"))
        return;
    put_op(a, OP_IF);
    aml_open(a, FRAME_IF);
    put_expr(a, &condition);
}

/* Else follows the package of its If, so the If is closed first. */
static bool begin_else(struct qz_aml *a, bool chained)
{
    if (a->out->error)
        return false;
    if (!a->depth || top(a)->kind != FRAME_IF) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: Else without an open If");
        return false;
    }
    close_one(a);
    put_op(a, OP_ELSE);
    aml_open(a, FRAME_TERMS);
    if (!a->out->error)
        top(a)->chained = chained;
    return !a->out->error;
}

void qz_aml_else(struct qz_aml *a)
{
    begin_else(a, false);
}

void qz_aml_else_if(struct qz_aml *a, struct qz_ax condition)
{
    if (begin_else(a, true))
        qz_aml_if(a, condition);
}

void qz_aml_while(struct qz_aml *a, struct qz_ax condition)
{
    if (!in_terms(a, "While"))
        return;
    put_op(a, OP_WHILE);
    aml_open(a, FRAME_TERMS);
    put_expr(a, &condition);
}

void qz_aml_break(struct qz_aml *a)
{
    if (in_terms(a, "Break"))
        put_op(a, OP_BREAK);
}

void qz_aml_continue(struct qz_aml *a)
{
    if (in_terms(a, "Continue"))
        put_op(a, OP_CONTINUE);
}

void qz_aml_notify(struct qz_aml *a, struct qz_ax object, struct qz_ax value)
{
    if (!in_terms(a, "Notify"))
        return;
    put_op(a, OP_NOTIFY);
    put_expr(a, &object);
    put_expr(a, &value);
}

void qz_aml_sleep(struct qz_aml *a, struct qz_ax ms)
{
    if (!in_terms(a, "Sleep"))
        return;
    put_ext(a, EXT_SLEEP);
    put_expr(a, &ms);
}

void qz_aml_stall(struct qz_aml *a, struct qz_ax us)
{
    if (!in_terms(a, "Stall"))
        return;
    put_ext(a, EXT_STALL);
    put_expr(a, &us);
}

void qz_aml_release(struct qz_aml *a, const char *mutex)
{
    if (!in_terms(a, "Release"))
        return;
    put_ext(a, EXT_RELEASE);
    aml_put_name(a, mutex);
}

/* ---- what every PC needs --------------------------------------------------------------------- */

void qz_aml_sleep_state(struct qz_aml *a, unsigned state, unsigned slp_typ)
{
    char name[5] = "_S0_";

    if (state > 5 || slp_typ > 7) {
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: sleep state %u of type %u", state, slp_typ);
        return;
    }
    name[2] = (char)('0' + state);
    qz_aml_name_package(a, name);
    qz_aml_put(a, qz_ax_int(slp_typ)); /* for PM1a */
    qz_aml_put(a, qz_ax_int(slp_typ)); /* for PM1b */
    qz_aml_put(a, qz_ax_int(0));
    qz_aml_put(a, qz_ax_int(0));
    qz_aml_end(a);
}

void qz_aml_prt_entry(struct qz_aml *a, unsigned slot, unsigned pin, const char *link, uint32_t gsi)
{
    if (slot > 31 || pin > 3)
        qz_acpi_blob_fail(a->out, -EINVAL, "AML: _PRT entry for slot %u, pin %u", slot, pin);
    qz_aml_package(a);
    qz_aml_put(a, qz_ax_int((uint64_t)slot << 16 | 0xffff)); /* §6.2.13: every function */
    qz_aml_put(a, qz_ax_int(pin));
    qz_aml_put(a, link ? qz_ax_name(link) : qz_ax_int(0));
    qz_aml_put(a, qz_ax_int(link ? 0 : gsi));
    qz_aml_end(a);
}

void qz_aml_cpu_devices(struct qz_aml *a, const struct qz_acpi_cpu *cpus, size_t n,
                        bool with_proximity)
{
    if (n > 4096)
        qz_acpi_blob_fail(a->out, -E2BIG, "AML: %zu processors", n);
    for (size_t i = 0; i < n && !a->out->error; i++) {
        char name[5];

        snprintf(name, sizeof(name), "C%03X", (unsigned)i & 0xfff);
        qz_aml_device(a, name);
        qz_aml_name(a, "_HID", qz_ax_str("ACPI0007"));
        qz_aml_name(a, "_UID", qz_ax_int(cpus[i].uid));
        if (with_proximity)
            qz_aml_name(a, "_PXM", qz_ax_int(cpus[i].proximity));
        qz_aml_end(a);
    }
}

/*
 * toml.c - see the header.
 */
#include "toml.h"

enum { NAME_MAX_LEN = 64, STRING_MAX = 256, KEYS_MAX = 256 };

struct reader {
    const char *name, *at, *end, *line_start;
    unsigned line;
    char table[NAME_MAX_LEN], key[NAME_MAX_LEN], string[STRING_MAX];
    /* What was seen, to refuse it twice: "table\nkey", a table alone has an empty key. */
    char seen[KEYS_MAX][2 * NAME_MAX_LEN];
    unsigned seen_count;
    struct qz_error *err;
};

static unsigned column(const struct reader *r, const char *at)
{
    return (unsigned)(at - r->line_start) + 1;
}

static int wrong(const struct reader *r, const char *at, const char *what)
{
    return qz_fail(r->err, -EINVAL, "%s:%u:%u: %s", r->name, r->line, column(r, at), what);
}

static bool more(const struct reader *r)
{
    return r->at < r->end;
}

static void skip_blanks(struct reader *r)
{
    while (more(r) && (*r->at == ' ' || *r->at == '\t'))
        r->at++;
}

static bool bare_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

/* After a value or a table: nothing but a comment until the end of the line. */
static int end_of_line(struct reader *r)
{
    skip_blanks(r);
    if (more(r) && *r->at == '#')
        while (more(r) && *r->at != '\n')
            r->at++;
    if (more(r) && *r->at == '\r' && r->at + 1 < r->end && r->at[1] == '\n')
        r->at++;
    if (!more(r))
        return 0;
    if (*r->at != '\n')
        return wrong(r, r->at, "unexpected text; expected the end of the line");
    r->at++;
    r->line++;
    r->line_start = r->at;
    return 0;
}

/* A bare or dotted key; quoted ones are strings of their own and not needed here. */
static int read_name(struct reader *r, char *to, const char *what)
{
    const char *begin = r->at;
    size_t n = 0;

    while (more(r) && (bare_key_char(*r->at) || (*r->at == '.' && n))) {
        if (n == NAME_MAX_LEN - 1)
            return wrong(r, begin, "the name is too long");
        to[n++] = *r->at++;
    }
    to[n] = 0;
    return n && to[n - 1] != '.' ? 0 : wrong(r, r->at, what);
}

static int remember(struct reader *r, const char *at, const char *key)
{
    char *entry = r->seen[r->seen_count];

    if (r->seen_count == KEYS_MAX)
        return wrong(r, at, "too many keys");
    snprintf(entry, sizeof(r->seen[0]), "%s\n%s", r->table, key);
    for (unsigned i = 0; i < r->seen_count; i++)
        if (!strcmp(r->seen[i], entry))
            return wrong(r, at, *key ? "this key is there twice" : "this table is there twice");
    r->seen_count++;
    return 0;
}

static int read_table(struct reader *r)
{
    const char *begin = r->at++;
    int rc;

    if (more(r) && *r->at == '[')
        return wrong(r, begin, "arrays of tables are not used here");
    skip_blanks(r);
    rc = read_name(r, r->table, "expected the name of a table");
    if (rc < 0)
        return rc;
    skip_blanks(r);
    if (!more(r) || *r->at != ']')
        return wrong(r, r->at, "expected ]");
    r->at++;
    rc = remember(r, begin, "");
    return rc < 0 ? rc : end_of_line(r);
}

static int read_escape(struct reader *r, char *c)
{
    static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
    const char *p = more(r) && *r->at ? strchr(from, *r->at) : NULL;

    if (!p)
        return wrong(r, r->at, "unknown escape in a string");
    *c = to[p - from];
    r->at++;
    return 0;
}

static int read_string(struct reader *r, struct toml_entry *e)
{
    const char *begin = r->at;
    char quote = *r->at++;
    size_t n = 0;

    if (r->end - r->at >= 2 && r->at[0] == quote && r->at[1] == quote)
        return wrong(r, begin, "multi-line strings are not used here");
    for (;;) {
        char c;

        if (!more(r) || *r->at == '\n')
            return wrong(r, begin, "a string without end");
        c = *r->at++;
        if (c == quote)
            break;
        if ((unsigned char)c < 0x20 && c != '\t')
            return wrong(r, r->at - 1, "a control character in a string");
        if (c == '\\' && quote == '"' && read_escape(r, &c) < 0)
            return -EINVAL;
        if (n == STRING_MAX - 1)
            return wrong(r, begin, "the string is too long");
        r->string[n++] = c;
    }
    r->string[n] = 0;
    e->type = TOML_STRING;
    e->string = r->string;
    return 0;
}

static int digit(char c, unsigned base)
{
    int d = c >= '0' && c <= '9'   ? c - '0'
            : c >= 'a' && c <= 'f' ? c - 'a' + 10
            : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                   : 99;

    return d < (int)base ? d : -1;
}

static int read_integer(struct reader *r, struct toml_entry *e)
{
    const char *begin = r->at;
    bool minus = *r->at == '-', sign = minus || *r->at == '+';
    unsigned base = 10, digits = 0;
    uint64_t v = 0, most = minus ? UINT64_C(1) << 63 : INT64_MAX;

    r->at += sign;
    if (!sign && r->end - r->at > 2 && r->at[0] == '0' && strchr("xob", r->at[1]) && r->at[1]) {
        base = r->at[1] == 'x' ? 16 : r->at[1] == 'o' ? 8 : 2;
        r->at += 2;
    }
    const char *first = r->at;

    for (; more(r); r->at++) {
        int d = digit(*r->at, base);

        if (*r->at == '_' && digits && r->at[-1] != '_')
            continue;
        if (d < 0)
            break;
        if (v > (most - (unsigned)d) / base)
            return wrong(r, begin, "the number is too large");
        v = v * base + (unsigned)d;
        digits++;
    }
    if (more(r) && strchr(".:eE-", *r->at) && *r->at)
        return wrong(r, begin, "only whole numbers are used here");
    if (!digits || r->at[-1] == '_' || (base == 10 && digits > 1 && *first == '0'))
        return wrong(r, begin, "expected a number, a string, true or false");
    e->type = TOML_INTEGER;
    e->integer = minus ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

static bool word(struct reader *r, const char *text)
{
    size_t n = strlen(text);

    if ((size_t)(r->end - r->at) < n || memcmp(r->at, text, n) ||
        ((size_t)(r->end - r->at) > n && bare_key_char(r->at[n])))
        return false;
    r->at += n;
    return true;
}

static int read_value(struct reader *r, struct toml_entry *e)
{
    e->line = r->line;
    e->column = column(r, r->at);
    if (!more(r))
        return wrong(r, r->at, "expected a value");
    if (*r->at == '"' || *r->at == '\'')
        return read_string(r, e);
    if (*r->at == '[' || *r->at == '{')
        return wrong(r, r->at, "arrays and inline tables are not used here");
    e->type = TOML_BOOLEAN;
    e->integer = word(r, "true");
    if (e->integer || word(r, "false"))
        return 0;
    return read_integer(r, e);
}

static int read_entry(struct reader *r, struct toml_entry *e)
{
    const char *begin = r->at;
    int rc = read_name(r, r->key, "expected a key, a table or a comment");

    if (rc == 0)
        rc = remember(r, begin, r->key);
    if (rc < 0)
        return rc;
    skip_blanks(r);
    if (!more(r) || *r->at != '=')
        return wrong(r, r->at, "expected = after the key");
    r->at++;
    skip_blanks(r);
    *e = (struct toml_entry){.table = r->table, .key = r->key};
    rc = read_value(r, e);
    return rc < 0 ? rc : end_of_line(r);
}

int toml_read(const char *name, const char *text, size_t len,
              int (*take)(void *arg, const struct toml_entry *e, struct qz_error *err), void *arg,
              struct qz_error *err)
{
    QZ_AUTO_FREE struct reader *r = calloc(1, sizeof(*r));

    if (!r)
        return qz_fail(err, -ENOMEM, "%s: out of memory", name);
    *r = (struct reader){
        .name = name, .at = text, .end = text + len, .line_start = text, .line = 1, .err = err};
    while (more(r)) {
        struct toml_entry e;
        int rc;

        skip_blanks(r);
        if (!more(r) || *r->at == '#' || *r->at == '\n' || *r->at == '\r') {
            rc = end_of_line(r);
        } else if (*r->at == '[') {
            rc = read_table(r);
        } else {
            rc = read_entry(r, &e);
            if (rc == 0)
                rc = take(arg, &e, err);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

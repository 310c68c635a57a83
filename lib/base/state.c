/* state.c - named values, both ways (queztl/state.h). */
#include <queztl/state.h>

enum { NUMBER = 'n', DATA = 'b', GROUP = 'g', END = 'e' };
enum { PATH = QZ_STATE_DEPTH * (QZ_STATE_NAME_MAX + 16) };

struct qz_state {
    bool loading;
    uint8_t *out; /* saving: what was written, of room `room` */
    const uint8_t *in;
    size_t len, room;
    size_t at; /* loading: how much was read */
    unsigned depth;
    unsigned group_at[QZ_STATE_DEPTH]; /* where the name of the group begins in `path` */
    char path[PATH];                   /* the groups that are open, for messages */
    struct qz_error error;
};

static struct qz_state *state_new(bool loading)
{
    struct qz_state *s = calloc(1, sizeof(*s));

    if (s)
        s->loading = loading;
    return s;
}

struct qz_state *qz_state_save(void)
{
    return state_new(false);
}

struct qz_state *qz_state_load(const void *data, size_t len)
{
    struct qz_state *s = state_new(true);

    if (s) {
        s->in = data;
        s->len = len;
    }
    return s;
}

void qz_state_free(struct qz_state *s)
{
    if (!s)
        return;
    free(s->out);
    free(s);
}

bool qz_state_loading(const struct qz_state *s)
{
    return s->loading;
}

bool qz_state_failed(const struct qz_state *s)
{
    return s->error.code != 0;
}

const void *qz_state_bytes(const struct qz_state *s, size_t *len)
{
    *len = s->len;
    return s->out;
}

/* ---- failures ---- */

static void fail_at(struct qz_state *s, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fail_at(struct qz_state *s, const char *name, const char *fmt, ...)
{
    char why[240];
    va_list ap;

    if (s->error.code)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    qz_fail(&s->error, -EINVAL, "%s%s%s: %s", s->path, *s->path && *name ? "." : "", name, why);
}

void qz_state_refuse(struct qz_state *s, const char *fmt, ...)
{
    char why[240];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    fail_at(s, "", "%s", why);
}

int qz_state_finish(struct qz_state *s, struct qz_error *err)
{
    if (!s->error.code && s->loading && s->at != s->len)
        fail_at(s, "", "%zu bytes more than expected, from byte %zu on", s->len - s->at, s->at);
    if (s->error.code && err)
        *err = s->error;
    return s->error.code;
}

/* ---- bytes ---- */

static void put(struct qz_state *s, const void *data, size_t len)
{
    if (s->error.code)
        return;
    if (s->room - s->len < len) {
        const size_t room = QZ_MAX(s->room * 2, s->len + len + 1024);
        uint8_t *grown = realloc(s->out, room);

        if (!grown) {
            qz_fail(&s->error, -ENOMEM, "no memory for %zu bytes of state", room);
            return;
        }
        s->out = grown;
        s->room = room;
    }
    if (len)
        memcpy(s->out + s->len, data, len);
    s->len += len;
}

/* The next len bytes, or NULL after failing. */
static const uint8_t *take(struct qz_state *s, const char *name, size_t len)
{
    const uint8_t *p = s->in + s->at;

    if (s->error.code)
        return NULL;
    if (s->len - s->at < len) {
        fail_at(s, name, "the state ends in it, at byte %zu", s->len);
        return NULL;
    }
    s->at += len;
    return p;
}

/* ---- items ---- */

static void put_head(struct qz_state *s, char kind, const char *name)
{
    const uint8_t head[2] = {(uint8_t)kind, (uint8_t)strlen(name)};

    put(s, head, kind == END ? 1 : 2);
    if (kind != END)
        put(s, name, head[1]);
}

/* Printable, for a message about bytes of somebody else's. */
static void copy_name(char *to, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = from[i] > ' ' && from[i] < 127 ? (char)from[i] : '?';
    to[len] = '\0';
}

static bool take_head(struct qz_state *s, char kind, const char *name)
{
    const size_t began = s->at;
    const uint8_t *head = take(s, name, 1), *length, *found;
    char text[256];

    if (!head)
        return false;
    if (head[0] == END || kind == END) {
        if (head[0] == kind)
            return true;
        if (kind == END)
            fail_at(s, name, "more in it than expected, at byte %zu", began);
        else
            fail_at(s, name, "missing, at byte %zu", began);
        return false;
    }
    length = take(s, name, 1);
    if (!length)
        return false;
    found = take(s, name, *length);
    if (!found)
        return false;
    if (*length != strlen(name) || memcmp(found, name, *length) != 0) {
        copy_name(text, found, *length);
        fail_at(s, name, "missing, there is \"%s\" at byte %zu", text, began);
        return false;
    }
    if (head[0] != kind) {
        fail_at(s, name, "kind %d instead of %d at byte %zu", head[0], kind, began);
        return false;
    }
    return true;
}

static void open_group(struct qz_state *s, const char *name)
{
    const size_t len = strlen(s->path);

    if (s->depth == QZ_STATE_DEPTH) {
        fail_at(s, name, "deeper than %d groups", QZ_STATE_DEPTH);
        return;
    }
    if (s->loading) {
        if (!take_head(s, GROUP, name))
            return;
    } else {
        put_head(s, GROUP, name);
    }
    s->group_at[s->depth++] = (unsigned)len;
    snprintf(s->path + len, sizeof(s->path) - len, "%s%s", len ? "." : "", name);
}

void qz_state_group(struct qz_state *s, const char *name)
{
    if (!s->error.code)
        open_group(s, name);
}

void qz_state_group_at(struct qz_state *s, const char *name, unsigned index)
{
    char numbered[QZ_STATE_NAME_MAX + 1];

    snprintf(numbered, sizeof(numbered), "%s[%u]", name, index);
    qz_state_group(s, numbered);
}

void qz_state_end(struct qz_state *s)
{
    if (s->error.code)
        return;
    if (s->loading) {
        if (!take_head(s, END, ""))
            return;
    } else {
        put_head(s, END, "");
    }
    s->path[s->group_at[--s->depth]] = '\0';
}

static uint64_t unsigned_at(const void *value, unsigned width)
{
    switch (width) {
    case 1:
        return *(const uint8_t *)value;
    case 2:
        return *(const uint16_t *)value;
    case 4:
        return *(const uint32_t *)value;
    default:
        return *(const uint64_t *)value;
    }
}

static void put_at(void *value, unsigned width, uint64_t number)
{
    switch (width) {
    case 1:
        *(uint8_t *)value = (uint8_t)number;
        break;
    case 2:
        *(uint16_t *)value = (uint16_t)number;
        break;
    case 4:
        *(uint32_t *)value = (uint32_t)number;
        break;
    default:
        *(uint64_t *)value = number;
    }
}

/* Extends the sign of a number of `width` bytes, or cuts a longer one down to it. */
static int64_t extended(uint64_t number, unsigned width)
{
    const unsigned spare = 64 - width * 8;

    return (int64_t)(number << spare) >> spare;
}

static void save_number(struct qz_state *s, const char *name, uint64_t number)
{
    uint8_t out[8];

    put_head(s, NUMBER, name);
    qz_store_le64(out, number);
    put(s, out, sizeof(out));
}

static bool load_number(struct qz_state *s, const char *name, uint64_t *number)
{
    const uint8_t *bytes = take_head(s, NUMBER, name) ? take(s, name, 8) : NULL;

    if (bytes)
        *number = qz_load_le64(bytes);
    return bytes;
}

void qz_state_unsigned(struct qz_state *s, const char *name, void *value, unsigned width,
                       uint64_t max)
{
    uint64_t number;

    if (s->error.code)
        return;
    number = unsigned_at(value, width);
    if (s->loading && !load_number(s, name, &number))
        return;
    if (number > max || number > UINT64_MAX >> (64 - width * 8)) {
        fail_at(s, name, "%llu is too large", (unsigned long long)number);
        return;
    }
    if (s->loading)
        put_at(value, width, number);
    else
        save_number(s, name, number);
}

void qz_state_signed(struct qz_state *s, const char *name, void *value, unsigned width, int64_t min,
                     int64_t max)
{
    uint64_t number;

    if (s->error.code)
        return;
    number = (uint64_t)extended(unsigned_at(value, width), width);
    if (s->loading && !load_number(s, name, &number))
        return;
    if ((int64_t)number < min || (int64_t)number > max ||
        extended(number, width) != (int64_t)number) {
        fail_at(s, name, "%lld is out of range", (long long)number);
        return;
    }
    if (s->loading)
        put_at(value, width, number);
    else
        save_number(s, name, number);
}

void qz_state_data_of(struct qz_state *s, const char *name, void *data, size_t *len, size_t max)
{
    const uint8_t *bytes;
    uint8_t out[4];
    uint32_t got;

    if (s->error.code)
        return;
    if (!s->loading) {
        put_head(s, DATA, name);
        qz_store_le32(out, (uint32_t)*len);
        put(s, out, sizeof(out));
        put(s, data, *len);
        return;
    }
    if (!take_head(s, DATA, name))
        return;
    bytes = take(s, name, 4);
    if (!bytes)
        return;
    got = qz_load_le32(bytes);
    if (got > max) {
        fail_at(s, name, "%u bytes, at most %zu are possible", got, max);
        return;
    }
    bytes = take(s, name, got);
    if (!bytes)
        return;
    if (got)
        memcpy(data, bytes, got);
    *len = got;
}

void qz_state_data(struct qz_state *s, const char *name, void *data, size_t len)
{
    size_t got = len;

    qz_state_data_of(s, name, data, &got, len);
    if (!s->error.code && got != len)
        fail_at(s, name, "%zu bytes instead of %zu", got, len);
}

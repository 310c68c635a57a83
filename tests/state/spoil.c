/* spoil.c - changes to a machine's state (spoil.h); the bytes of a section are items
 * (queztl/state.h). */
#include "spoil.h"

enum { CHANGES_MAX = 16, BYTES_MAX = 4096, NUMBER = 8, LENGTH = 4 };

uint64_t choose(struct choices *c, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++, c->at++)
        v |= (uint64_t)(c->at < c->len ? c->data[c->at] : 0) << 8 * i;
    return v;
}

/* ---- sections that may change ---- */

struct sections {
    unsigned count;
    struct section {
        char name[STATE_FILE_NAME];
        uint8_t *data;
        size_t len;
    } section[STATE_FILE_SECTIONS];
};

static bool add_section(struct sections *s, const char *name, const void *data, size_t len)
{
    struct section *to = &s->section[s->count];

    if (s->count == STATE_FILE_SECTIONS)
        return true;
    *to = (struct section){.data = malloc(len + 1), .len = len};
    if (!to->data)
        return false;
    snprintf(to->name, sizeof(to->name), "%s", name);
    memcpy(to->data, data, len);
    s->count++;
    return true;
}

static void drop_section(struct sections *s, unsigned i)
{
    free(s->section[i].data);
    s->count--;
    memmove(&s->section[i], &s->section[i + 1], (s->count - i) * sizeof(s->section[0]));
}

static struct sections *take_apart(const struct state_file *whole)
{
    struct sections *s = calloc(1, sizeof(*s));

    for (unsigned i = 0; s && i < whole->count; i++)
        if (!add_section(s, whole->section[i].name, whole->section[i].data, whole->section[i].len))
            abort();
    return s;
}

static void sections_free(struct sections *s)
{
    while (s && s->count)
        drop_section(s, s->count - 1);
    free(s);
}

/* NULL: they are no file, as when two have one name. */
static void *put_together(const struct sections *s, size_t *len)
{
    QZ_AUTO_FREE struct state_section *to = calloc(STATE_FILE_SECTIONS, sizeof(*to));
    struct qz_error err;
    void *bytes = NULL;

    if (!to)
        return NULL;
    for (unsigned i = 0; i < s->count; i++) {
        memcpy(to[i].name, s->section[i].name, STATE_FILE_NAME);
        to[i].data = s->section[i].data;
        to[i].len = s->section[i].len;
    }
    return state_file_pack(to, s->count, &bytes, len, &err) < 0 ? NULL : bytes;
}

/* The `old` bytes at `at` become `fresh` bytes of *from, or zeroes. */
static void replace(struct section *s, size_t at, size_t old, const void *from, size_t fresh)
{
    uint8_t *to = malloc(s->len - old + fresh + 1);

    if (!to)
        abort();
    memcpy(to, s->data, at);
    if (from)
        memcpy(to + at, from, fresh);
    else
        memset(to + at, 0, fresh);
    memcpy(to + at + fresh, s->data + at + old, s->len - at - old);
    free(s->data);
    s->data = to;
    s->len = s->len - old + fresh;
}

/* ---- items ---- */

struct item {
    uint8_t kind;
    const char *name;
    size_t name_len, at, value, end; /* where it, its value, and the next one begin */
};

/* The item at `at`; false: none begins there. */
static bool item_at(const struct section *s, size_t at, struct item *i)
{
    *i = (struct item){.at = at};
    if (at >= s->len)
        return false;
    i->kind = s->data[at];
    i->value = i->end = at + 1;
    if (i->kind == 'e')
        return true;
    if (s->len - at < 2u + s->data[at + 1])
        return false;
    i->name = (const char *)s->data + at + 2;
    i->name_len = s->data[at + 1];
    i->value = i->end = at + 2 + i->name_len;
    if (i->kind == 'g')
        return true;
    if (i->kind == 'n') {
        i->end += NUMBER;
    } else if (i->kind == 'b' && s->len - i->value >= LENGTH) {
        i->value += LENGTH;
        i->end = i->value + qz_load_le32(s->data + i->value - LENGTH);
    } else {
        return false;
    }
    return i->end <= s->len;
}

static unsigned count_items(const struct section *s, uint8_t kind)
{
    struct item i;
    unsigned n = 0;

    for (size_t at = 0; item_at(s, at, &i); at = i.end)
        n += i.kind == kind;
    return n;
}

static bool nth_item(const struct section *s, uint8_t kind, uint64_t n, struct item *i)
{
    const unsigned count = count_items(s, kind);

    if (!count)
        return false;
    n %= count;
    for (size_t at = 0; item_at(s, at, i); at = i->end)
        if (i->kind == kind && n-- == 0)
            return true;
    return false;
}

/* ---- changes ---- */

static uint64_t strange_number(struct choices *c, uint64_t old)
{
    static const uint64_t edges[] = {
        0,          1,          2,          0x7f,       0x80,          0xff,
        0xfff,      0xffff,     0x7fffffff, 0x80000000, 1 << 20,       1 << 24,
        0xffffffff, 1ull << 32, 1ull << 40, 1ull << 62, INT64_MAX / 4, INT64_MAX,
        1ull << 63, ~0ull};
    const unsigned how = (unsigned)choose(c, 1);

    switch (how % 6) {
    case 0:
        return edges[choose(c, 1) % QZ_ARRAY_LEN(edges)];
    case 1:
        return old ^ QZ_BIT(choose(c, 1) % 64);
    case 2:
        return old ^ QZ_BIT(choose(c, 1) % 8);
    case 3:
        return old + choose(c, 1) - 128;
    case 4:
        return choose(c, 1 + how / 6 % 4);
    default:
        return choose(c, 8);
    }
}

static void change_number(struct section *s, struct choices *c)
{
    struct item i;

    if (nth_item(s, 'n', choose(c, 2), &i))
        qz_store_le64(s->data + i.value, strange_number(c, qz_load_le64(s->data + i.value)));
}

static void change_bytes(struct section *s, struct choices *c)
{
    struct item i;

    if (!nth_item(s, 'b', choose(c, 2), &i) || i.value == i.end)
        return;
    for (unsigned n = 1 + choose(c, 1) % 8; n; n--)
        s->data[i.value + choose(c, 2) % (i.end - i.value)] ^= (uint8_t)choose(c, 1);
}

/* More or fewer of them than there were, and the length is right. */
static void change_length(struct section *s, struct choices *c)
{
    const size_t len = choose(c, 2) % BYTES_MAX;
    struct item i;

    if (!nth_item(s, 'b', choose(c, 2), &i))
        return;
    qz_store_le32(s->data + i.value - LENGTH, (uint32_t)len);
    if (len < i.end - i.value)
        replace(s, i.value + len, i.end - i.value - len, NULL, 0);
    else
        replace(s, i.end, 0, NULL, len - (i.end - i.value));
}

/* An item is twice there, or gone. */
static void change_items(struct section *s, struct choices *c)
{
    static const uint8_t kinds[] = {'n', 'b', 'g', 'e'};
    const unsigned how = (unsigned)choose(c, 1);
    QZ_AUTO_FREE uint8_t *copy = NULL;
    struct item i;

    if (!nth_item(s, kinds[how % 4], choose(c, 2), &i))
        return;
    copy = malloc(i.end - i.at);
    if (!copy)
        abort();
    memcpy(copy, s->data + i.at, i.end - i.at);
    if (how & 4)
        replace(s, i.at, i.end - i.at, NULL, 0);
    else
        replace(s, i.at, 0, copy, i.end - i.at);
}

static void change_raw(struct section *s, struct choices *c)
{
    const unsigned how = (unsigned)choose(c, 1);
    const size_t at = s->len ? choose(c, 3) % s->len : 0;

    if (!s->len)
        return;
    if (how % 8 == 0)
        s->len = at;
    else
        s->data[at] ^= (uint8_t)choose(c, 1);
}

static void change_sections(struct sections *all, unsigned i, struct choices *c)
{
    const unsigned other = (unsigned)choose(c, 2) % all->count;
    struct section *s = &all->section[i];
    char name[STATE_FILE_NAME];

    switch (choose(c, 1) % 4) {
    case 0:
        return drop_section(all, i);
    case 1: /* once more, by a name that nobody asks for */
        snprintf(name, sizeof(name), "x%.20s", s->name);
        if (!add_section(all, name, s->data, s->len))
            abort();
        return;
    case 2: /* another one's name: two of it, or it is foreign */
        memmove(s->name, all->section[other].name, STATE_FILE_NAME);
        return;
    default: { /* another one's bytes */
        const struct section from = all->section[other];

        if (other != i)
            replace(s, 0, s->len, from.data, from.len);
    }
    }
}

static void change(struct sections *all, struct choices *c)
{
    const unsigned what = (unsigned)choose(c, 1);
    unsigned i;

    if (!all->count)
        return;
    i = (unsigned)choose(c, 2) % all->count;
    if (what < 200)
        change_number(&all->section[i], c);
    else if (what < 225)
        change_bytes(&all->section[i], c);
    else if (what < 235)
        change_length(&all->section[i], c);
    else if (what < 242)
        change_items(&all->section[i], c);
    else if (what < 250)
        change_raw(&all->section[i], c);
    else
        change_sections(all, i, c);
}

void *state_spoil(const struct state_file *whole, struct choices *c, size_t *len)
{
    const unsigned how = (unsigned)choose(c, 1);
    struct sections *all = take_apart(whole);
    void *bytes;

    if (!all)
        return NULL;
    for (unsigned n = how >= 240 ? CHANGES_MAX : 1 + how % 3; n; n--)
        change(all, c);
    bytes = put_together(all, len);
    sections_free(all);
    return bytes;
}

void *state_with_number(const struct state_file *whole, const char *section, const char *name,
                        unsigned n, uint64_t value, size_t *len)
{
    struct sections *all = take_apart(whole);
    void *bytes = NULL;

    for (unsigned k = 0; all && k < all->count; k++) {
        struct section *s = &all->section[k];
        struct item i;

        for (size_t at = 0; !bytes && !strcmp(s->name, section) && item_at(s, at, &i); at = i.end)
            if (i.kind == 'n' && i.name_len == strlen(name) && !memcmp(i.name, name, i.name_len) &&
                n-- == 0) {
                qz_store_le64(s->data + i.value, value);
                bytes = put_together(all, len);
            }
    }
    sections_free(all);
    return bytes;
}

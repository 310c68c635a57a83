/* state_fuzz.c - loads a saved state with bytes changed: what is loaded stays within its limits. */
#include <assert.h>

#include <queztl/state.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT = 24 };

struct thing {
    uint8_t small;
    int16_t below;
    uint64_t whole;
    bool flag;
    uint8_t text[TEXT];
    size_t text_len;
    uint32_t count;
    uint16_t entry[4];
};

static void thing_state(struct thing *t, struct qz_state *s)
{
    qz_state_group(s, "thing");
    QZ_STATE(s, "small", t->small, 9);
    QZ_STATE_SIGNED(s, "below", t->below, -5, 5);
    QZ_STATE_ANY(s, "whole", t->whole);
    QZ_STATE(s, "flag", t->flag, 1);
    qz_state_data_of(s, "text", t->text, &t->text_len, TEXT);
    QZ_STATE(s, "count", t->count, 4);
    for (unsigned i = 0; i < t->count && !qz_state_failed(s); i++) {
        qz_state_group_at(s, "entry", i);
        QZ_STATE(s, "value", t->entry[i], 500);
        qz_state_end(s);
    }
    qz_state_end(s);
}

static void check(const struct thing *t)
{
    assert(t->small <= 9);
    assert(t->below >= -5 && t->below <= 5);
    assert(*(const uint8_t *)&t->flag <= 1);
    assert(t->text_len <= TEXT);
    assert(t->count <= 4);
    for (unsigned i = 0; i < t->count; i++)
        assert(t->entry[i] <= 500);
}

/* The input: how many bytes are kept (two bytes), then changes, two bytes of place and one of value
 * each. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct thing from = {.small = 9,
                         .below = -3,
                         .whole = 1ull << 63,
                         .text = "abcdef",
                         .text_len = 6,
                         .count = 4,
                         .entry = {1, 2, 3, 500}};
    struct thing to = {0};
    struct qz_state *saver = qz_state_save(), *loader;
    struct qz_error err;
    const void *bytes;
    uint8_t *copy;
    size_t len;

    assert(saver);
    thing_state(&from, saver);
    assert(qz_state_finish(saver, &err) == 0);
    bytes = qz_state_bytes(saver, &len);
    copy = malloc(len);
    assert(copy);
    memcpy(copy, bytes, len);
    for (size_t i = 2; i + 3 <= size; i += 3)
        copy[qz_load_le16(data + i) % len] = data[i + 2];
    if (size >= 2 && (data[0] & 3) == 0) /* now and then: cut */
        len = qz_load_le16(data) % (len + 1);
    loader = qz_state_load(copy, len);
    assert(loader);
    thing_state(&to, loader);
    qz_state_finish(loader, &err);
    check(&to);
    qz_state_free(loader);
    qz_state_free(saver);
    free(copy);
    return 0;
}

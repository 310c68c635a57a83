/* test_state.c - saving, spoiling and loading a device (test_state.h). */
#include "test_state.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static uint8_t *save(void *device, test_state_fn *state, size_t *len)
{
    struct qz_state *s = qz_state_save();
    struct qz_error err = {0};
    uint8_t *copy;
    const void *bytes;

    assert_non_null(s);
    state(device, s);
    if (qz_state_finish(s, &err) < 0)
        fail_msg("saving: %s", err.text);
    bytes = qz_state_bytes(s, len);
    copy = malloc(*len);
    assert_non_null(copy);
    memcpy(copy, bytes, *len);
    qz_state_free(s);
    return copy;
}

static int load(void *device, test_state_fn *state, const uint8_t *bytes, size_t len,
                struct qz_error *err)
{
    struct qz_state *s = qz_state_load(bytes, len);
    int r;

    assert_non_null(s);
    state(device, s);
    r = qz_state_finish(s, err);
    qz_state_free(s);
    return r;
}

void test_state_kept(void *device, test_state_fn *state, void (*spoil)(void *device))
{
    struct qz_error err = {0};
    size_t len, again_len;
    uint8_t *bytes = save(device, state, &len), *again, *changed = malloc(len);

    assert_non_null(changed);
    spoil(device);
    if (load(device, state, bytes, len, &err) < 0)
        fail_msg("loading: %s", err.text);
    again = save(device, state, &again_len);
    assert_int_equal(again_len, len);
    assert_memory_equal(again, bytes, len);
    free(again);
    for (size_t n = 0; n < len; n += 7)
        assert_int_equal(load(device, state, bytes, n, NULL), -EINVAL);
    for (size_t i = 0; i < len; i++) {
        memcpy(changed, bytes, len);
        changed[i] ^= i & 1 ? 0xff : 0x80 >> (i / 2 & 7);
        load(device, state, changed, len, NULL);
    }
    if (load(device, state, bytes, len, &err) < 0)
        fail_msg("loading after spoilt states: %s", err.text);
    free(changed);
    free(bytes);
}

/*
 * state.h - the state of a thing as named values, written and read by one and the same function.
 *
 * Whoever has state says what it is once:
 *
 *     void pit_state(struct pit *p, struct qz_state *s)
 *     {
 *         QZ_STATE(s, "port_b", p->port_b, 0xff);
 *         QZ_STATE(s, "irq_enabled", p->irq_enabled, 1);
 *     }
 *
 * and it depends on `s` whether that saves or loads. Names and kinds are in the bytes too: a file
 * says what it holds, and a loader that expects something else tells what and where. What is
 * loaded is not trusted: a number that is larger than the one given with it fails, a length is
 * never believed. The first failure stays; after it nothing is written or read any more, so that
 * the caller looks once, at the end (qz_state_finish). Memory beyond what is loaded is not taken.
 *
 * Bytes: items one after the other. An item is a kind (one byte: 'n' number, 'b' bytes, 'g' group,
 * 'e' end of the group), but for 'e' a name (its length in one byte, then the characters), and then
 * for 'n' eight bytes and for 'b' a length of four bytes and so many bytes. Little-endian.
 *
 * One thread at a time.
 */
#ifndef QUEZTL_STATE_H
#define QUEZTL_STATE_H

#include <queztl/base.h>

enum { QZ_STATE_DEPTH = 8, QZ_STATE_NAME_MAX = 63 };

struct qz_state;

/* NULL: no memory. */
struct qz_state *qz_state_save(void);
/* The bytes stay the caller's, and there, until qz_state_free(). NULL: no memory. */
struct qz_state *qz_state_load(const void *data, size_t len);
void qz_state_free(struct qz_state *s);

/* True while the values are taken from bytes. */
bool qz_state_loading(const struct qz_state *s);
/*
 * 0, or what went wrong first: -ENOMEM, -EINVAL (the text names the value and its place). Bytes
 * that nobody asked for are an error too.
 */
int qz_state_finish(struct qz_state *s, struct qz_error *err);
/* What was saved; the state's own, until the next call. */
const void *qz_state_bytes(const struct qz_state *s, size_t *len);

/* Values up to the next end belong to `name`; `index` tells several of one name apart. */
void qz_state_group(struct qz_state *s, const char *name);
void qz_state_group_at(struct qz_state *s, const char *name, unsigned index);
void qz_state_end(struct qz_state *s);

/*
 * An unsigned integer of `width` bytes (1, 2, 4, 8), an enum or a bool at `value`: at most max. A
 * larger one fails: what is saved can be loaded.
 */
void qz_state_unsigned(struct qz_state *s, const char *name, void *value, unsigned width,
                       uint64_t max);
#define QZ_STATE(s, name, value, max)                                                              \
    qz_state_unsigned(s, name, &(value), sizeof(value) + QZ_STATE_CHECK_(value, false), max)
/* Any value of its width. */
#define QZ_STATE_ANY(s, name, value) QZ_STATE(s, name, value, UINT64_MAX)
/* A signed one: from min to max. */
void qz_state_signed(struct qz_state *s, const char *name, void *value, unsigned width, int64_t min,
                     int64_t max);
#define QZ_STATE_SIGNED(s, name, value, min, max)                                                  \
    qz_state_signed(s, name, &(value), sizeof(value) + QZ_STATE_CHECK_(value, true), min, max)
/* 0; does not compile when the value is of the other kind. A bool is unsigned. */
#define QZ_STATE_CHECK_(value, is_signed)                                                          \
    (0 * sizeof(char[((__typeof__(value))-1 < (__typeof__(value))1 &&                              \
                      !__builtin_types_compatible_p(__typeof__(value), bool)) == (is_signed)       \
                         ? 1                                                                       \
                         : -1]))

/* Exactly len bytes. */
void qz_state_data(struct qz_state *s, const char *name, void *data, size_t len);
/*
 * Up to `max` bytes, of which *len count: saved from data, or loaded into it and *len set.
 */
void qz_state_data_of(struct qz_state *s, const char *name, void *data, size_t *len, size_t max);

/* Loading: what was read makes no sense together. The text follows the name of the group. */
void qz_state_refuse(struct qz_state *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Something failed already: values read are not to be used. */
bool qz_state_failed(const struct qz_state *s);

#endif

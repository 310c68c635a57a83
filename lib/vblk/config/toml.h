/*
 * toml.h - reads the part of TOML 1.0 that a configuration of plain values needs: tables, keys,
 * comments, integers, booleans, one-line strings. Arrays, inline tables, dates, floats and
 * multi-line strings are refused by name, with line and column, as is everything malformed.
 */
#ifndef VBLK_TOML_H
#define VBLK_TOML_H

#include <queztl/base.h>

enum toml_type { TOML_INTEGER, TOML_BOOLEAN, TOML_STRING };

struct toml_entry {
    const char *table, *key; /* "" before the first table */
    unsigned line, column;   /* of the value; from 1 */
    enum toml_type type;
    int64_t integer; /* a boolean: 0 or 1 */
    const char *string;
};

/*
 * Calls take(arg, entry, err) for each entry, in order; a negative return ends the reading. name is
 * what errors call the text. A key that comes twice in a table is an error, as TOML has it.
 */
int toml_read(const char *name, const char *text, size_t len,
              int (*take)(void *arg, const struct toml_entry *e, struct qz_error *err), void *arg,
              struct qz_error *err);

#endif

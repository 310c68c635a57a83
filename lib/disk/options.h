/*
 * options.h - "key=value,flag,key=value": how a person describes a disk.
 *
 * A comma inside a value is written twice. A key without a value is a switch that is on. Whoever
 * takes a key marks it; what nobody took is an error, never ignored.
 */
#ifndef DISK_OPTIONS_H
#define DISK_OPTIONS_H

#include <queztl/base.h>

struct option {
    char *key, *value; /* value NULL: a switch */
    bool taken;
};

struct options {
    struct option *list;
    unsigned count;
};

/* first: the key of a first part that has no '='; NULL: none may. */
int options_parse(struct options *o, const char *text, const char *first, struct qz_error *err);
int options_add(struct options *o, const char *key, const char *value);
void options_clear(struct options *o);
/* All options whose key begins with prefix and a dot, without both, moved to *out. */
int options_split(struct options *o, const char *prefix, struct options *out);

/* Not taken by that; NULL: not there. */
struct option *options_find(const struct options *o, const char *key);
/* Whether the key is there and not off; it is not taken by that. */
bool options_has(const struct options *o, const char *key);
/* NULL: not there. A switch is "". */
const char *options_text(struct options *o, const char *key);
/* *value stays as it is when the key is not there. */
int options_switch(struct options *o, const char *key, bool *value, struct qz_error *err);
int options_size(struct options *o, const char *key, uint64_t *value, struct qz_error *err);
int options_number(struct options *o, const char *key, uint64_t min, uint64_t max, uint64_t *value,
                   struct qz_error *err);
/* words ends with NULL; *value: which one. */
int options_word(struct options *o, const char *key, const char *const *words, unsigned *value,
                 struct qz_error *err);

/* -EINVAL and the first key that nobody took. what: "disk a.img". */
int options_check(const struct options *o, const char *what, struct qz_error *err);

#endif

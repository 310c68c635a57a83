/*
 * text.h - JSON into a buffer, without a libc. What does not fit is cut off, and `full` says so.
 */
#ifndef BARE_TEXT_H
#define BARE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *buf;
    size_t size, len;
    bool full, member; /* member: a comma comes before the next one */
};

void text_raw(struct text *t, const char *s);
/* Opens or closes an object or a list: one of { } [ ]. */
void text_bracket(struct text *t, char bracket);
void text_string(struct text *t, const char *key, const char *value);
void text_number(struct text *t, const char *key, uint64_t value);
void text_bool(struct text *t, const char *key, bool value);

#endif

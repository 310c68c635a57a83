/*
 * text.c - see the header. Keys and values are the driver's own words, in which nothing has to be
 * escaped.
 */
#include "text.h"

static void put(struct text *t, char c)
{
    if (t->len < t->size)
        t->buf[t->len++] = c;
    else
        t->full = true;
}

void text_raw(struct text *t, const char *s)
{
    for (; *s; s++)
        put(t, *s);
}

void text_bracket(struct text *t, char bracket)
{
    bool opens = bracket == '{' || bracket == '[';

    if (opens && t->member)
        put(t, ',');
    put(t, bracket);
    t->member = !opens;
}

static void key_of(struct text *t, const char *key)
{
    if (t->member)
        put(t, ',');
    put(t, '"');
    text_raw(t, key);
    text_raw(t, "\":");
    t->member = true;
}

void text_string(struct text *t, const char *key, const char *value)
{
    key_of(t, key);
    put(t, '"');
    text_raw(t, value);
    put(t, '"');
}

void text_number(struct text *t, const char *key, uint64_t value)
{
    char digits[21];
    unsigned i = sizeof(digits) - 1;

    key_of(t, key);
    digits[i] = 0;
    do
        digits[--i] = (char)('0' + value % 10);
    while (value /= 10);
    text_raw(t, digits + i);
}

void text_bool(struct text *t, const char *key, bool value)
{
    key_of(t, key);
    text_raw(t, value ? "true" : "false");
}

/*
 * config_items.h - lists of the kind "item,key=value,key=value", as options of the command line
 * have them. A comma in a value is written twice.
 */
#ifndef VMM_CONFIG_ITEMS_H
#define VMM_CONFIG_ITEMS_H

#include <queztl/base.h>

/* Cuts the next item off, in place; commas written twice stay so. NULL: there is none. */
static inline char *next_item(char **rest)
{
    char *item = *rest, *p = item;

    if (!item)
        return NULL;
    for (; *p && (p[0] != ',' || p[1] == ','); p++)
        p += *p == ',';
    *rest = *p ? p + 1 : NULL;
    *p = '\0';
    return item;
}

/* The value when item is "key=value", else NULL. */
static inline const char *value_of(const char *item, const char *key)
{
    size_t n = strlen(key);

    return !strncmp(item, key, n) && item[n] == '=' ? item + n + 1 : NULL;
}

#endif

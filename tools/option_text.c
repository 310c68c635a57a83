/* option_text.c - commas in values of options (option_text.h). */
#include "option_text.h"

#include <stdlib.h>
#include <string.h>

char *option_text_escape(const char *value)
{
    char *out = malloc(2 * strlen(value) + 1), *p = out;

    for (; out && *value; value++) {
        *p++ = *value;
        if (*value == ',')
            *p++ = ',';
    }
    if (out)
        *p = '\0';
    return out;
}

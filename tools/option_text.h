/* option_text.h - values in lists of options ("file=NAME,format=raw"). */
#ifndef TOOLS_OPTION_TEXT_H
#define TOOLS_OPTION_TEXT_H

/* The value with its commas written twice, as such a list has them; free() it. NULL: no memory. */
char *option_text_escape(const char *value);

#endif

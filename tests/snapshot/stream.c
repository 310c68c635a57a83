/* stream.c - pieces of the counting guest's output (stream.h). */
#include "stream.h"

enum { DIGITS = STREAM_LINE - 3 };

char stream_byte(uint64_t position)
{
    const unsigned column = position % STREAM_LINE;
    uint64_t line = position / STREAM_LINE + 1;

    if (column < 2)
        return "t "[column];
    if (column == STREAM_LINE - 1)
        return '\n';
    for (unsigned i = STREAM_LINE - 2; i > column; i--)
        line /= 10;
    return (char)('0' + line % 10);
}

bool moment_narrow(struct moment *a, struct moment b)
{
    if (b.low > a->low)
        a->low = b.low;
    if (b.high < a->high)
        a->high = b.high;
    return a->low <= a->high;
}

size_t stream_follow(const char *bytes, size_t n, uint64_t position)
{
    size_t i = 0;

    while (i < n && bytes[i] == stream_byte(position + i))
        i++;
    return i;
}

/* Where the line that `text` is begins in the stream. */
static bool parse_line(const char *text, uint64_t *position)
{
    uint64_t line = 0;

    if (text[0] != 't' || text[1] != ' ' || text[STREAM_LINE - 1] != '\n')
        return false;
    for (unsigned i = 2; i < 2 + DIGITS; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        line = 10 * line + (unsigned)(text[i] - '0');
    }
    *position = (line - 1) * STREAM_LINE;
    return line > 0;
}

/* The first whole line at or behind `from`. */
static bool find_line(const char *bytes, size_t n, size_t from, size_t *at, uint64_t *position)
{
    for (*at = from; *at + STREAM_LINE <= n; (*at)++)
        if (parse_line(bytes + *at, position))
            return true;
    return false;
}

bool stream_jump(const char *bytes, size_t n, uint64_t position, struct moment *to, uint64_t *next)
{
    const size_t old = stream_follow(bytes, n, position);
    uint64_t line;
    size_t at, new;

    if (old == n || !find_line(bytes, n, old, &at, &line))
        return false;
    for (new = at; new > 0 && line > 0 && bytes[new - 1] == stream_byte(line - 1); new --)
        line--;
    *to = (struct moment){line, line + (old - new)};
    *next = line + (n - new);
    return new <= old &&stream_follow(bytes + new, n - new, line) == n - new;
}

bool stream_find(const char *bytes, size_t n, uint64_t *position)
{
    uint64_t line;
    size_t at;

    if (!find_line(bytes, n, 0, &at, &line) || line < at)
        return false;
    *position = line - at;
    return stream_follow(bytes, n, *position) == n;
}

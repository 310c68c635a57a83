/* console.c - COM1 without interrupts, and the end of the machine (suite.h). */
#include "suite.h"

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, THR_EMPTY = 0x20 };
/* The PM1 control register where our machine has it, and S5 as its DSDT's \_S5 says. */
enum { PM1_CONTROL = 0x604, SLP_EN = 1 << 13, RESET_COMMAND = 0x64, RESET_PULSE = 0xfe };

void put_char(char c)
{
    while (!(in8(LINE_STATUS) & THR_EMPTY))
        ;
    out8(COM1, (uint8_t)c);
}

void put_text(const char *s)
{
    for (; *s; s++)
        put_char(*s);
}

void put_number(uint64_t v)
{
    char digits[12];
    unsigned n = 0;
    unsigned long rest = (unsigned long)v; /* counts: they fit in a long of either payload */

    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest && n < sizeof(digits));
    while (n)
        put_char(digits[--n]);
}

void put_hex(uint64_t v)
{
    unsigned shift = 60;

    put_text("0x");
    while (shift && !(v >> shift))
        shift -= 4;
    for (;; shift -= 4) {
        put_char("0123456789abcdef"[v >> shift & 15]);
        if (!shift)
            return;
    }
}

_Noreturn void power_off(void)
{
    out16(PM1_CONTROL, SLP_EN);
    out8(RESET_COMMAND, RESET_PULSE);
    for (;;)
        asm volatile("cli; hlt");
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool text_has(const char *text, const char *part)
{
    for (; *text; text++) {
        const char *a = text, *b = part;

        while (*b && *a == *b) {
            a++;
            b++;
        }
        if (!*b)
            return true;
    }
    return !*part;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *start = to;

    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    return start;
}

void *memset(void *to, int byte, size_t n)
{
    void *start = to;

    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

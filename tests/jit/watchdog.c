/* watchdog.c - see watchdog.h. Apart from the rest, whose REG_RIP is not that of signal.h. */
#include "watchdog.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile uint64_t current;

static void on_alarm(int signal)
{
    char text[64];
    const int len =
        snprintf(text, sizeof(text), "hangs: --first %llu\n", (unsigned long long)current);

    (void)signal;
    if (write(STDOUT_FILENO, text, (size_t)len) != len)
        _exit(4);
    _exit(3);
}

void watchdog(uint64_t number, unsigned seconds)
{
    current = number;
    if (number % 256 == 0 || !seconds) { /* alarm() is a system call */
        signal(SIGALRM, on_alarm);
        alarm(seconds);
    }
}

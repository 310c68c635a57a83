/*
 * run-command.c - executes the words of a file, each ended by a zero byte, as one command in a
 * session of its own.
 *
 *     run-command FILE
 *
 * Its standard input becomes the session's terminal, so that Ctrl-C reaches the command. A terminal
 * of size 0 has no person behind it: then nothing is echoed and line ends stay as the command wrote
 * them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "programs.h"

enum { TEXT_MAX = 1 << 20, WORDS_MAX = 4096 };

static void take_terminal(void)
{
    struct winsize size;
    struct termios t;

    setsid();
    if (ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0 || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 ||
        size.ws_col || tcgetattr(STDIN_FILENO, &t) < 0)
        return;
    t.c_oflag &= ~OPOST;
    t.c_lflag &= ~(ECHO | ECHOE | ECHOK);
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

int run_command(int argc, char **argv)
{
    static char text[TEXT_MAX], *word[WORDS_MAX + 1];
    FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0, words = 0;

    if (f)
        fclose(f);
    for (size_t at = 0; at < n && words < WORDS_MAX; at += strlen(text + at) + 1)
        word[words++] = text + at;
    if (!words) {
        fprintf(stderr, "run-command: no command\n");
        return 127;
    }
    take_terminal();
    execvp(word[0], word);
    n = errno;
    fprintf(stderr, "%s: %s\n", word[0], strerror(n));
    return n == ENOENT ? 127 : 126;
}

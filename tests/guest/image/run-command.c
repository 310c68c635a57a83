/* run-command.c - executes the zero-terminated words of a file as one command. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    static char text[1 << 20], *word[4096];
    FILE *f = argc == 2 ? fopen(argv[1], "r") : NULL;
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0, words = 0;

    for (size_t at = 0; at < n && words < 4095; at += strlen(text + at) + 1)
        word[words++] = text + at;
    if (!words) {
        fprintf(stderr, "run-command: no command\n");
        return 127;
    }
    execvp(word[0], word);
    fprintf(stderr, "%s: %s\n", word[0], strerror(errno));
    return errno == ENOENT ? 127 : 126;
}

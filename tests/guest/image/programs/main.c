/* main.c - picks the program by the name it was called by. One file instead of three saves the C
 * library twice over. */
#include <stdio.h>
#include <string.h>

#include "programs.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} programs[] = {{"power-button", power_button}, {"run-command", run_command}, {"vsock", vsock}};

int main(int argc, char **argv)
{
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc ? argv[0] : "";

    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
        if (!strcmp(name, programs[i].name))
            return programs[i].run(argc, argv);
    fprintf(stderr, "guest programs: no program is called \"%s\"\n", name);
    return 127;
}

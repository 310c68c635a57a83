/*
 * snapshot_seed.c - a snapshot for tests of programs: 8 MiB of memory, a machine of 4 vCPUs.
 *
 *     snapshot_seed FOLDER [PARENT] [--zstd] [--differs N] [--wait]
 *
 * differs: the memory's page N has other bytes. wait: all but the last steps are done when a line
 * is printed, and they are when one is read.
 */
#include <fcntl.h>

#include "snapshot/snapshot_dir.h"
#include "snapshot/state_file.h"

enum { MEMORY = 8 << 20, PAGE = 4096 };

static int make_memory(long differs)
{
    const int fd = memfd_create("guest", MFD_CLOEXEC);
    char page[PAGE];

    for (long n = 0; n < MEMORY / PAGE; n += 8) {
        snprintf(page, sizeof(page), "page %ld%s", n, n == differs ? " differs" : "");
        memset(page + strlen(page), (int)n, sizeof(page) - strlen(page));
        if (pwrite(fd, page, sizeof(page), n * PAGE) != PAGE)
            return -1;
    }
    return ftruncate(fd, MEMORY) < 0 ? -1 : fd;
}

static int make_state(void **state, size_t *len, struct qz_error *err)
{
    static const struct state_section section = {"cpu", "its registers", 13};
    const char *name = "snapshot_seed.state";
    QZ_AUTO_FD int here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = state_file_write(here, name, &section, 1, err);

    if (r == 0)
        r = qz_read_file(name, 4096, state, len, err);
    unlink(name);
    return r;
}

static void wait_for_a_line(void *context, double share)
{
    bool *waits = context;

    if (share < 1 || !*waits)
        return;
    puts("waits");
    fflush(stdout);
    *waits = getchar() == EOF;
}

int main(int argc, char **argv)
{
    bool waits = false;
    struct snapshot_options o = {.progress = wait_for_a_line, .context = &waits};
    QZ_AUTO_FREE void *state = NULL;
    struct qz_error err = {0};
    long differs = -1;
    json_t *description =
        json_pack("{s:[s,s,s,s,s,s],s:s}", "options", "--memory=8M", "--cpus", "4,sockets=2",
                  "--disk=a.qcow2", "--disk", "b.qcow2", "accelerator", "jit");
    size_t len = 0;
    int r;

    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--zstd"))
            o.compress = true;
        else if (!strcmp(argv[i], "--wait"))
            waits = true;
        else if (!strcmp(argv[i], "--differs") && i + 1 < argc)
            differs = strtol(argv[++i], NULL, 10);
        else
            o.parent = argv[i];
    r = argc < 2 ? qz_fail(&err, -EINVAL, "usage: snapshot_seed FOLDER [PARENT] [--zstd]")
                 : make_state(&state, &len, &err);
    if (r == 0)
        r = snapshot_dir_write(argv[1], description, state, len, make_memory(differs), MEMORY, &o,
                               &err);
    json_decref(description);
    if (r < 0)
        fprintf(stderr, "snapshot_seed: %s\n", err.text);
    return r < 0;
}

/* snapshot.c - `queztl-hv snapshot`: a running machine's present moment into a folder. */
#include <fcntl.h>
#include <sys/stat.h>

#include "queztl-hv.h"
#include "snapshot/snapshot_dir.h"
#include "snapshot_source.h"

struct config {
    bool compress;
    const char *parent;
};

static int set_compress(void *t, const char *v, struct qz_error *err)
{
    ((struct config *)t)->compress = true;
    return 0;
}

static int set_parent(void *t, const char *v, struct qz_error *err)
{
    ((struct config *)t)->parent = v;
    return 0;
}

const struct qz_option hv_snapshot_options[] = {
    {"compress", NULL, "pack memory by zstd (unpacked it can be mapped as it is)", set_compress},
    {"parent", "DIR", "store only what differs from this earlier snapshot", set_parent},
    {0},
};

static void show(void *context, double share)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %3d %%", (const char *)context, (int)(100 * share));
}

/* The state is small: a machine's CPUs and devices. */
static int write_folder(const char *path, const struct config *c, const struct snapshot_source *s,
                        struct qz_error *err)
{
    const json_int_t memory = json_integer_value(json_object_get(s->description, "memory"));
    const struct snapshot_options o = {
        .compress = c->compress, .parent = c->parent, .progress = show, .context = (void *)path};
    QZ_AUTO_FREE void *state = NULL;
    struct stat st;
    int r;

    if (fstat(s->state, &st) < 0 || !(state = malloc((size_t)st.st_size + 1)) ||
        pread(s->state, state, (size_t)st.st_size, 0) != st.st_size)
        return qz_fail(err, -EIO, "the machine's state cannot be read");
    r = snapshot_dir_write(path, s->description, state, (size_t)st.st_size, s->memory,
                           (uint64_t)memory, &o, err);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    return r;
}

int hv_snapshot(int argc, char **argv)
{
    struct config c = {0};
    struct qz_error err = {0};
    struct snapshot_source s;
    char *operand[2];
    int r = qz_operands_parse(hv_snapshot_options, argc, argv, &c, operand, 2, 2,
                              "name the machine's control socket, and a folder to make", &err);
    char tag[128], *end;
    int64_t began;

    if (r < 0)
        return qz_complain("queztl-hv snapshot", QZ_EXIT_USAGE, &err);
    if (access(operand[1], F_OK) == 0) { /* before the machine is stopped for it */
        qz_fail(&err, -EEXIST, "%s is there already", operand[1]);
        return qz_complain("queztl-hv snapshot", QZ_EXIT_CONFLICT, &err);
    }
    /* Images that the disks go on in are called after the snapshot. */
    for (end = operand[1] + strlen(operand[1]); end > operand[1] + 1 && end[-1] == '/';)
        *--end = '\0';
    end = strrchr(operand[1], '/');
    snprintf(tag, sizeof(tag), "%s", end ? end + 1 : operand[1]);
    if (snapshot_source_freeze(&s, operand[0], tag, &err) < 0)
        return qz_complain("queztl-hv snapshot",
                           err.code == -EREMOTEIO ? QZ_EXIT_REFUSED : QZ_EXIT_UNREACHABLE, &err);
    began = qz_now_ns();
    r = write_folder(operand[1], &c, &s, &err);
    if (r == 0)
        printf("%s: the machine stood for %.1f ms, written in %.0f ms\n", operand[1],
               (double)json_integer_value(json_object_get(s.description, "paused_us")) / 1e3,
               (double)(qz_now_ns() - began) / 1e6);
    snapshot_source_close(&s);
    return r < 0 ? qz_complain("queztl-hv snapshot",
                               r == -EEXIST ? QZ_EXIT_CONFLICT : QZ_EXIT_FAILED, &err)
                 : QZ_EXIT_OK;
}

/*
 * run.c - `queztl-hv run`: decides what was left open (accelerator, firmware, network), says so,
 * and becomes the machine's own process, queztl-vmm.
 */
#include <sys/stat.h>

#include "cpu/accel.h"
#include "firmware_store.h"
#include "machine_identity.h"
#include "queztl-hv.h"
#include "run_identity.h"
#include "snapshot_words.h"

#define OVMF_CODE "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define OVMF_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"

/* Firmware for a disk image, with variables of its own. */
static int prepare_firmware(struct vm_config *c, struct qz_error *err)
{
    char *vars;

    if (access(c->image, R_OK) < 0)
        return qz_fail(err, -errno, "image %s: %s", c->image, strerror(errno));
    c->firmware = OVMF_CODE;
    if (access(OVMF_CODE, R_OK) < 0)
        return qz_fail(err, -ENOENT,
                       "%s is missing: a disk image boots by UEFI firmware (apt install ovmf)",
                       OVMF_CODE);
    if (asprintf(&vars, "%s.vars", c->image) < 0)
        return qz_fail(err, -ENOMEM, "no memory");
    c->firmware_vars = vars;
    return access(vars, F_OK) == 0 ? 0 : firmware_store_copy(OVMF_VARS, vars, err);
}

static int resolve(struct vm_config *c, struct qz_error *err)
{
    const struct accel_ops *ops;
    struct accel_probe probe = {0};
    int r;

    if (c->image && !c->kernel && !c->firmware && (r = prepare_firmware(c, err)) < 0)
        return r;
    if (!c->kernel && !c->firmware && !c->snapshot)
        return qz_fail(err, -ENOENT, "nothing to boot: name a disk image, or --kernel FILE");
    r = vm_config_check_files(c, err);
    if (r < 0)
        return r;
    r = accel_choose(c->accel, &ops, &probe, err);
    if (r < 0)
        return r;
    if (isatty(STDERR_FILENO) || c->verbose)
        fprintf(stderr, "queztl: %s: %s\n", ops->name, probe.reason);
    c->accel = c->accel_given && !strncmp(c->accel_given, "jit", 3) ? c->accel_given : ops->name;
    return 0;
}

static int add_option(struct words *w, const char *name, const char *value)
{
    return value && (words_add(w, name) < 0 || words_add(w, value) < 0) ? -ENOMEM : 0;
}

/* What was typed, then what was decided: a later option wins over an earlier one. */
static int decided_words(struct words *w, const struct vm_config *c, int given, char **argv)
{
    int r = 0;

    for (int i = 1; r == 0 && i < given; i++)
        r = words_add(w, argv[i]);
    if (r == 0 &&
        (add_option(w, "--accel", c->accel) < 0 || add_option(w, "--disk", c->image) < 0 ||
         add_option(w, "--net", c->net_given || c->snapshot ? NULL : "user") < 0 ||
         add_option(w, "--firmware", c->firmware) < 0 ||
         add_option(w, "--firmware-vars", c->firmware_vars) < 0))
        r = -ENOMEM;
    if (r == 0 && c->command)
        r = words_add(w, "--");
    for (char **word = c->command; r == 0 && word && *word; word++)
        r = words_add(w, *word);
    return r;
}

/* The machine's own options, those typed now, and its parts as descriptors. */
static int snapshot_words(struct words *w, const struct vm_config *c, int given, char **argv,
                          const struct snapshot_source *s, const struct overlays *disks,
                          struct qz_error *err)
{
    const char *without[4] = {0};
    const json_t *command = json_object_get(s->description, "command");
    unsigned n = 0;
    int r;

    if (c->net_given)
        without[n++] = "--net";
    if (c->disks)
        without[n++] = "--disk";
    if (c->firmware_vars)
        without[n++] = "--firmware-vars";
    r = words_add_machine(w, json_object_get(s->description, "options"), disks, without);
    if (r == 0)
        r = decided_words(w, c, given, argv);
    if (r == 0)
        r = words_add_snapshot(w, s, disks);
    if (r == 0 && json_array_size(command))
        r = words_add(w, "--") < 0 ? -ENOMEM : words_add_list(w, command);
    if (r == -EINVAL)
        return qz_fail(err, r, "%s: no list of options: it is no machine's snapshot", c->snapshot);
    return r < 0 ? qz_fail(err, r, "no memory") : 0;
}

/* The snapshot, and what is decided for it. A machine is frozen only for one that can begin; while
 * a folder is loaded lazily there are some milliseconds to decide in. */
static int open_snapshot(struct snapshot_source *s, struct vm_config *c, struct qz_error *err)
{
    enum snapshot_load load = SNAPSHOT_LOAD_AUTO;
    struct stat st;
    const bool is_folder = stat(c->snapshot, &st) == 0 && S_ISDIR(st.st_mode);
    int r = c->load ? snapshot_load_parse(c->load, &load, err) : 0;

    if (c->pages.pages == MEMORY_PAGES_TRANSPARENT && load == SNAPSHOT_LOAD_AUTO)
        load = SNAPSHOT_LOAD_EAGER; /* a huge page would come into the file whole, zeros and all */
    if (c->pages.pages == MEMORY_PAGES_TRANSPARENT && load == SNAPSHOT_LOAD_LAZY)
        r = qz_fail(err, -ENOTSUP, "--hugepages transparent goes with --load eager only");

    if (r == 0 && !is_folder)
        r = resolve(c, err);
    if (r == 0)
        r = snapshot_source_open(s, c->snapshot, "run", load, err);
    if (r < 0)
        return r;
    if (*s->how && (isatty(STDERR_FILENO) || c->verbose))
        fprintf(stderr, "queztl: snapshot %s: %s\n", c->snapshot, s->how);
    r = is_folder ? resolve(c, err) : 0;
    if (r < 0)
        snapshot_source_close(s);
    return r;
}

/* What this run writes to firmware variables is gone with it, too, unless it was given a store. It
 * becomes one more of the machine's descriptors. */
static int add_store(struct vm_config *c, const struct snapshot_source *s, int *fds,
                     unsigned *count, struct qz_error *err)
{
    const char *from = option_nth(json_object_get(s->description, "options"), "--firmware-vars", 0);
    char *name;
    int fd;

    if (c->firmware_vars || !from)
        return 0;
    fd = firmware_store_unnamed(from, err);
    if (fd < 0)
        return fd;
    if (asprintf(&name, "/proc/self/fd/%u", HANDED_FIRST + *count) < 0)
        return qz_fail(err, -ENOMEM, "no memory");
    c->firmware_vars = name;
    fds[(*count)++] = fd;
    return 0;
}

static int go_on(struct words *w, struct vm_config *c, const char *name, int given, char **argv,
                 struct qz_error *err)
{
    struct snapshot_source s;
    struct overlays disks;
    int fds[HANDED_MAX], r;
    unsigned count;

    if (c->image || c->command)
        return qz_fail(err, -EINVAL,
                       "a machine that goes on from a snapshot boots no image and takes no "
                       "command: it has its own");
    r = open_snapshot(&s, c, err);
    if (r < 0)
        return r;
    /* What this run writes is gone with it, unless it was given images. */
    disks = (struct overlays){0};
    r = c->disks ? 0 : overlays_unnamed(&disks, json_object_get(s.description, "disks"), err);
    count = snapshot_descriptors(&s, &disks, fds);
    if (r == 0)
        r = add_store(c, &s, fds, &count, err);
    if (r == 0)
        r = snapshot_words(w, c, given, argv, &s, &disks, err);
    if (r == 0)
        r = run_identity(c, name, s.description, err);
    if (r == 0 && (r = place_descriptors(fds, count)) < 0)
        qz_fail(err, r, "no descriptors: %s", strerror(-r));
    if (r < 0)
        snapshot_source_close(&s);
    return r;
}

int hv_run(int argc, char **argv)
{
    struct vm_config c, typed = {0}; /* without defaults */
    struct qz_error err = {0};
    struct words w = {0};
    char vmm[4096];
    int given, r;

    if (vm_config_parse(&c, argc, argv, &err) < 0)
        return qz_complain("queztl-hv run", QZ_EXIT_USAGE, &err);
    given = qz_options_parse(vm_options, argc, argv, &typed, &err);
    if (find_vmm(vmm, sizeof(vmm), &err) < 0 || words_add(&w, vmm) < 0 ||
        (!c.snapshot && resolve(&c, &err) < 0))
        return qz_complain("queztl-hv run",
                           err.code == -ENOENT ? QZ_EXIT_NOT_FOUND : QZ_EXIT_FAILED, &err);
    r = c.snapshot ? go_on(&w, &c, typed.name, given, argv, &err)
                   : decided_words(&w, &c, given, argv);
    if (r == -ENOMEM)
        qz_fail(&err, r, "no memory");
    if (r < 0)
        return qz_complain("queztl-hv run", r == -ENOENT ? QZ_EXIT_NOT_FOUND : QZ_EXIT_FAILED,
                           &err);
    execv(vmm, w.word);
    qz_fail(&err, -errno, "%s: %s", vmm, strerror(errno));
    return qz_complain("queztl-hv run", QZ_EXIT_FAILED, &err);
}

/*
 * hv_run.c - `queztl-hv run`: decides what was left open (accelerator, firmware, network), says so,
 * and becomes the machine's own process, queztl-vmm.
 */
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "cpu/accel.h"
#include "machine_start.h"
#include "queztl-hv.h"

#define OVMF_CODE "/usr/share/OVMF/OVMF_CODE_4M.fd"
#define OVMF_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"

enum { ARGS_ADDED_MAX = 16 };

static int copy_file(const char *from, const char *to, struct qz_error *err)
{
    QZ_AUTO_FD int in = open(from, O_RDONLY | O_CLOEXEC);
    QZ_AUTO_FD int out = -1;
    struct stat st;

    if (in < 0 || fstat(in, &st) < 0)
        return qz_fail(err, -errno, "%s: %s (Debian's package ovmf has it)", from, strerror(errno));
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return qz_fail(err, -errno, "%s: cannot make the firmware's variable store: %s", to,
                       strerror(errno));
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = sendfile(out, in, NULL, left);

        if (n <= 0) {
            int code = n < 0 ? -errno : -EIO;

            unlink(to);
            return qz_fail(err, code, "%s: cannot write: %s", to, strerror(-code));
        }
        left -= n;
    }
    return 0;
}

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
    return access(vars, F_OK) == 0 ? 0 : copy_file(OVMF_VARS, vars, err);
}

static int resolve(struct vm_config *c, struct qz_error *err)
{
    const struct accel_ops *ops;
    struct accel_probe probe = {0};
    int r;

    if (c->image && !c->kernel && !c->firmware && (r = prepare_firmware(c, err)) < 0)
        return r;
    if (!c->kernel && !c->firmware)
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

int hv_run(int argc, char **argv)
{
    struct vm_config c;
    struct qz_error err = {0};
    char vmm[4096];
    char **args;
    int n = 0, given;

    if (vm_config_parse(&c, argc, argv, &err) < 0)
        return qz_complain("queztl-hv run", QZ_EXIT_USAGE, &err);
    if (find_vmm(vmm, sizeof(vmm), &err) < 0 || resolve(&c, &err) < 0)
        return qz_complain("queztl-hv run",
                           err.code == -ENOENT ? QZ_EXIT_NOT_FOUND : QZ_EXIT_FAILED, &err);
    args = calloc(argc + ARGS_ADDED_MAX, sizeof(*args));
    if (!args)
        return QZ_EXIT_FAILED;
    /* What was typed, then what was decided: a later option wins over an earlier one. */
    args[n++] = vmm;
    given = qz_options_parse(vm_options, argc, argv, &(struct vm_config){0}, &err);
    for (int i = 1; i < given; i++)
        args[n++] = argv[i];
    args[n++] = (char *)"--accel";
    args[n++] = (char *)c.accel;
    if (c.image) {
        args[n++] = (char *)"--disk";
        args[n++] = (char *)c.image;
    }
    if (!c.net_given) {
        args[n++] = (char *)"--net";
        args[n++] = (char *)"user";
    }
    if (c.firmware) {
        args[n++] = (char *)"--firmware";
        args[n++] = (char *)c.firmware;
    }
    if (c.firmware_vars) {
        args[n++] = (char *)"--firmware-vars";
        args[n++] = (char *)c.firmware_vars;
    }
    if (c.command) {
        args[n++] = (char *)"--";
        for (char **arg = c.command; *arg; arg++)
            args[n++] = *arg;
    }
    execv(vmm, args);
    qz_fail(&err, -errno, "%s: %s", vmm, strerror(errno));
    return qz_complain("queztl-hv run", QZ_EXIT_FAILED, &err);
}

/*
 * main.c - queztl-vmm: one process, one virtual machine.
 */
#include <queztl/command.h>

#include "vm/vm.h"

static int run(int argc, char **argv)
{
    const char *trap = getenv("QUEZTL_SECCOMP");
    struct qz_error err = {0};
    struct vm_config config;
    struct vm *vm = NULL;
    int code;

    if (vm_config_parse(&config, argc, argv, &err) < 0)
        return qz_complain("queztl-vmm", QZ_EXIT_USAGE, &err);
    if (config.image || (!config.kernel && !config.firmware)) {
        qz_fail(&err, -EINVAL, "--kernel or --firmware is needed (queztl-hv run finds one by itself)");
        return qz_complain("queztl-vmm", QZ_EXIT_USAGE, &err);
    }
    if (config.verbose)
        qz_log_set_level(QZ_LOG_INFO);
    if (vm_config_check_files(&config, &err) == 0 &&
        vm_new(&vm, &config, trap && !strcmp(trap, "trap") ? CONFINE_TRAP : CONFINE_KILL, &err) == 0)
        code = vm_run(vm);
    else
        code = qz_complain("queztl-vmm", vm_exit_code(&err), &err);
    if (vm)
        vm_free(vm);
    return code;
}

static const struct qz_command commands[] = {
    {NULL, "Runs one virtual machine to its end.", "[-- CMD...]",
     "A command after -- is run by the guest image's init; its exit code becomes this program's.\n"
     "QUEZTL_SECCOMP=trap in the environment names a forbidden system call before the process ends.",
     vm_options, run},
    {0},
};

int main(int argc, char **argv)
{
    static const struct qz_program program = {"queztl-vmm", "runs one virtual machine", commands};

    return qz_program_run(&program, argc, argv);
}

/*
 * main.c - queztl-vmm: one process, one virtual machine.
 */
#include <queztl/command.h>

#include <malloc.h>

#include "vm/vm.h"

enum { THREAD_STACK = 512 << 10 };

/*
 * None of our threads goes deep, and a stack of the usual 8 MiB becomes resident by huge pages of 2
 * MiB. One malloc arena for all: nothing hot allocates, and those of other threads open a file in
 * /proc when they shrink, which no filter of ours allows.
 */
static void use_little_memory(void)
{
    pthread_attr_t attr;

    mallopt(M_ARENA_MAX, 1);
    if (pthread_attr_init(&attr))
        return;
    if (pthread_attr_setstacksize(&attr, THREAD_STACK) == 0)
        pthread_setattr_default_np(&attr);
    pthread_attr_destroy(&attr);
}

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
        qz_fail(&err, -EINVAL,
                "--kernel or --firmware is needed (queztl-hv run finds one by itself)");
        return qz_complain("queztl-vmm", QZ_EXIT_USAGE, &err);
    }
    if (config.snapshot && config.snapshot_memory < 0) {
        qz_fail(&err, -EINVAL,
                "--snapshot %s: queztl-hv run takes folders; this program takes "
                "fd:STATE,MEMORY",
                config.snapshot);
        return qz_complain("queztl-vmm", QZ_EXIT_USAGE, &err);
    }
    use_little_memory();
    if (config.verbose)
        qz_log_set_level(QZ_LOG_INFO);
    if (vm_config_check_files(&config, &err) == 0 &&
        vm_new(&vm, &config, trap && !strcmp(trap, "trap") ? CONFINE_TRAP : CONFINE_KILL, &err) ==
            0)
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
     "QUEZTL_SECCOMP=trap in the environment names a forbidden system call before the process "
     "ends.",
     vm_options, run},
    {0},
};

int main(int argc, char **argv)
{
    static const struct qz_program program = {"queztl-vmm", "runs one virtual machine", commands};

    return qz_program_run(&program, argc, argv);
}

/* queztl-hv.c - the command line for virtual machines: its command table. */
#include "queztl-hv.h"

static const struct qz_command commands[] = {
    {"run", "boot a kernel or a disk image in a new machine and stay with it",
     "[IMAGE] [-- CMD...]",
     "IMAGE is a raw disk image that boots by UEFI (Debian's package ovmf); its variables are kept "
     "in IMAGE.vars.\n"
     "CMD is run by the guest image's init instead of a shell, and its exit code becomes this "
     "program's.\n"
     "On a terminal, Ctrl-A x ends the machine.\n\n"
     "Ends with 0 when the guest powers off, 1 when the monitor failed, 3 when the kernel or image "
     "is missing,\n"
     "70 when the guest panicked or triple-faulted, 124 on time-out.",
     vm_options, hv_run},
    {"doctor", "what this host can do, and the cure for what it cannot", NULL, NULL,
     hv_doctor_options, hv_doctor},
    {0},
};

int main(int argc, char **argv)
{
    static const struct qz_program program = {"queztl-hv",
                                              "runs Linux virtual machines on this host", commands};

    return qz_program_run(&program, argc, argv);
}

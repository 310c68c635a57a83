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
    {"snapshot", "freeze a running machine and write its moment to a folder", "SOCKET DIR",
     "SOCKET is what the machine was given by --control. It stands only while its CPUs and devices "
     "are noted;\nmemory is written while it runs on. DIR appears when it is whole.",
     hv_snapshot_options, hv_snapshot},
    {"clone", "begin machines that go on from one moment of another", "SOCKET|DIR",
     "From a running machine (its control socket) or a snapshot's folder. Clones share memory "
     "until "
     "they write to\nit. Prints name, process and control socket of each, and leaves them running.",
     hv_clone_options, hv_clone},
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

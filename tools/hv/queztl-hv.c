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
    {"restore", "send a running machine back to a snapshot", "SOCKET [DIR]",
     "To the last one that was taken of it or that it began from, or to that in DIR. Memory, CPUs, "
     "devices and\ndisks are as they were then, and what it did since is gone; the process, its "
     "network and its console stay.\nDisks can go back to images that they were frozen as since "
     "this process began; to others, begin a machine by\nqueztl-hv run --snapshot DIR.",
     hv_restore_options, hv_restore},
    {"clone", "begin machines that go on from one moment of another", "SOCKET|DIR",
     "From a running machine (its control socket) or a snapshot's folder. Clones share memory "
     "until they write to\nit. Each has MAC addresses, a vsock context id and, through "
     "queztl-agent "
     "in the guest, a host name of its\nown. They are listed by name, process, control socket, MAC "
     "addresses, vsock context id and socket, and what\nthe guest's agent said (ok, none, error), "
     "and left running.",
     hv_clone_options, hv_clone},
    {"doctor", "what this host can do, and the cure for what it cannot", NULL, NULL,
     hv_doctor_options, hv_doctor},
    {"snapshots", "list the snapshots in a folder, or check, flatten or remove them",
     "[FOLDER] | check DIR... | flatten DIR... | rm DIR... | gc FOLDER...",
     "Without a verb, the snapshots in FOLDER (default: the current one) are listed, the oldest "
     "first.\n\n"
     "check reads all of a snapshot and of what it builds upon, and compares every checksum.\n"
     "flatten makes it independent of its parent: it holds all of the memory itself then.\n"
     "rm removes it, unless another one builds upon it or a machine runs from it.\n"
     "gc removes what was left half-written in a folder by a program that is gone.\n\n"
     "Ends with 0, or with what the first failure was: 3 there is none, 4 it is in use, 5 no right "
     "to, 1 anything else.",
     hv_snapshots_options, hv_snapshots},
    {0},
};

int main(int argc, char **argv)
{
    static const struct qz_program program = {"queztl-hv",
                                              "runs Linux virtual machines on this host", commands};

    return qz_program_run(&program, argc, argv);
}

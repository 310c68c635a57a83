/* queztl-disk.c - disk images from the command line: the command table. */
#include "disk_tool.h"

#define IMAGE_HELP                                                                                 \
    "IMAGE is a file or block device, with options behind it, by commas:\n"                        \
    "  vm.qcow2,format=qcow2    format: raw (unless said), qcow2, luks, auto\n"                    \
    "  cache=writeback|none|writethrough|unsafe, readonly, discard=unmap|ignore\n"                 \
    "  backing=FILE|header|none, for an image whose header names a backing file\n"                 \
    "  iops=N, bps=SIZE and more: queztl-disk --man\n"

static const struct qz_command commands[] = {
    {"create", "make an image", "IMAGE [SIZE]",
     IMAGE_HELP "Options of the format are given with it:\n"
                "  queztl-disk create vm.qcow2,format=qcow2,cluster_size=64K 20GiB",
     create_options, disk_create},
    {"info", "tell what an image is", "IMAGE", IMAGE_HELP, info_options, disk_info},
    {"check", "look for damage in an image, and mend it", "IMAGE",
     IMAGE_HELP "Ends with 1 when errors or lost clusters remain.", check_options, disk_check},
    {"convert", "copy a disk into an image of another format", "IMAGE TARGET", IMAGE_HELP,
     convert_options, disk_convert},
    {"resize", "make a disk larger or smaller", "IMAGE [+|-]SIZE", IMAGE_HELP, resize_options,
     disk_resize},
    {"snapshot", "list, make, apply and delete snapshots inside an image", "IMAGE", IMAGE_HELP,
     snapshot_options, disk_snapshot},
    {"map", "tell where the bytes of a disk are stored", "IMAGE", IMAGE_HELP, map_options,
     disk_map},
    {"compare", "tell whether two disks hold the same", "IMAGE IMAGE", IMAGE_HELP, compare_options,
     disk_compare},
    {"serve", "serve a disk to virtual machines and others", "IMAGE",
     IMAGE_HELP "Ends on SIGINT and SIGTERM, once everything in flight is done.", serve_options,
     disk_serve},
    {"bench", "measure a disk", "IMAGE", IMAGE_HELP, bench_options, disk_bench},
    {0},
};

void disk_start_helpers(void)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct qz_error err;

    if (qz_disk_helpers(processors < 1 ? 1 : (unsigned)QZ_MIN(processors, 4l), &err) < 0)
        qz_warn("%s: compressed clusters are unpacked without them", err.text);
}

int main(int argc, char **argv)
{
    static const struct qz_program program = {"queztl-disk",
                                              "makes, looks at and serves disk images", commands};

    return qz_program_run(&program, argc, argv);
}

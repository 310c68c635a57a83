/*
 * boot.h - putting a kernel or firmware into guest memory and the first CPU at its entry.
 *
 * Guest memory layout used for direct kernel boot (all below 1 MiB unless said):
 *   0x00500 GDT   0x07000 zero page (boot_params)   0x08000 PVH start info, modules and memory map
 *   0x09000 page tables (6 pages)   0x20000 command line (64 KiB)   0xe0000 ACPI RSDP   0x100000..
 * kernel initrd as high as it fits below the end of low RAM (and below 2 GiB), the remaining ACPI
 * tables in the last megabyte of low RAM, marked as ACPI data in the e820 map.
 *
 * A compressed kernel is unpacked by the monitor and its ELF segments are put where they were
 * linked to run, so the kernel's own decompressor never runs and with it neither its KASLR nor its
 * relocation.
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "cpu/vcpu_state.h"
#include "machine/memory.h"

#define BOOT_GDT         0x500ull
#define BOOT_ZERO_PAGE   0x7000ull
#define BOOT_PVH_INFO    0x8000ull
#define BOOT_PAGE_TABLE  0x9000ull
#define BOOT_CMDLINE     0x20000ull
#define BOOT_CMDLINE_MAX 0x10000u
#define BOOT_RSDP        0xe0000ull
#define BOOT_KERNEL_MIN  0x100000ull
#define BOOT_ACPI_SIZE   0x100000ull /* reserved at the end of low RAM */

enum boot_protocol { BOOT_LINUX64, BOOT_PVH };

struct e820_entry {
    uint64_t base, size;
    uint32_t type; /* 1 RAM, 2 reserved, 3 ACPI data, 4 ACPI NVS */
};
enum { E820_MAX = 32 };

/*
 * The map every boot path and fw_cfg tell the guest. acpi_reserved: for a kernel, RAM minus
 * EBDA/BIOS area and ACPI, ECAM reserved; otherwise for firmware: the RAM as it is, the firmware
 * reserves for itself what it uses. The page of the generation identifier (vmgenid.h) is reserved
 * in both: no firmware knows it.
 */
unsigned boot_e820(const struct guest_memory *m, bool acpi_reserved,
                   struct e820_entry map[E820_MAX]);

struct boot_kernel {
    const char *kernel_path;
    const char *initrd_path;  /* NULL: none */
    const char *cmdline;      /* at most what the kernel takes; longer is an error, never cut */
    const void *extra_initrd; /* a second cpio archive placed after the initrd, or NULL */
    size_t extra_initrd_size;
    int protocol; /* enum boot_protocol; -1: PVH for an ELF image that has its note, else 64-bit */
};

struct boot_report {      /* for --verbose, info and the bench */
    const char *protocol; /* "linux64", "pvh", "linux64 (own decompressor)" */
    const char
        *compression; /* "lz4", "zstd", "xz", "gzip", "none"; "bzip2", "lzma", "lzo", "unknown" */
    uint64_t kernel_bytes, entry;  /* bytes after unpacking */
    uint64_t initrd, initrd_bytes; /* where it lies; 0 when there is none */
};

/*
 * Loads kernel, initrd and boot data into memory that reads as zeros (pages of zeros are not
 * written) and sets *bsp (already at vcpu_state_reset()) to the entry. Errors name the file and
 * what is wrong with it: -ENOENT missing, -ENOEXEC not a kernel or corrupt, -E2BIG does not fit.
 * Takes a few threads for a few milliseconds; also after confinement (a machine reset), where the
 * paths must stay readable.
 */
int boot_kernel_load(struct guest_memory *m, const struct boot_kernel *kernel,
                     struct vcpu_state *bsp, struct boot_report *report, struct qz_error *err);

#endif

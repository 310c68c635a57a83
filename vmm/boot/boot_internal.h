/*
 * boot_internal.h - what the parts of the kernel loader share: writing to RAM,
 * placing an initrd, and the two entry protocols. Private to vmm/boot.
 */
#ifndef VMM_BOOT_INTERNAL_H
#define VMM_BOOT_INTERNAL_H

#include "boot/boot.h"
#include "boot/kernel_image.h"

/* ---- ram_writer.c
 * -------------------------------------------------------------------------------------- */

#define RAM_CHUNK_SIZE (2ull << 20)

/* Writes large images into low RAM quickly. Several threads may use one. */
struct ram_writer {
    const struct guest_memory *memory;
    uint8_t
        ready[LOW_RAM_MAX / RAM_CHUNK_SIZE]; /* atomic: this chunk was asked to be a huge page */
    int64_t spent_ns;                        /* atomic: on asking */
    unsigned chunks;                         /* atomic: asked for */
    bool stopped;                            /* atomic: huge pages are not to be had here */
};

void ram_writer_init(struct ram_writer *w, const struct guest_memory *m);
/* Gets [a, a+len) of low RAM ready to be written as a whole. Only for speed; never fails. */
void ram_writer_prepare(struct ram_writer *w, uint64_t a, uint64_t len);
/* Copies data to a, leaving out pages of zeros: RAM there must still read as zeros. -EFAULT outside
 * low RAM. Nothing to do when data is the RAM at a itself. */
int ram_writer_copy(struct ram_writer *w, uint64_t a, const uint8_t *data, uint64_t len);

/* ---- initrd.c
 * ------------------------------------------------------------------------------------------ */

struct initrd {
    const char *path;
    int fd;             /* -1: no file */
    uint64_t file_size; /* bytes of the file */
    const void *extra;  /* second archive, at the next multiple of 4 */
    uint64_t extra_size;
    uint64_t gpa, size; /* size 0: no initrd at all */
};

/*
 * Opens the file and decides where it goes: as high as it fits below the ACPI area and at or below
 * address_max (the last byte it may use). kernel_end: first address after the kernel, which it must
 * not reach.
 */
int initrd_open(struct initrd *rd, const struct guest_memory *m, const struct boot_kernel *kernel,
                struct qz_error *err);
int initrd_place(struct initrd *rd, const struct guest_memory *m, uint64_t address_max,
                 struct qz_error *err);
/* After the kernel's extent is known. */
int initrd_check(const struct initrd *rd, const struct guest_memory *m, uint64_t kernel_end,
                 struct qz_error *err);
int initrd_read(const struct initrd *rd, struct ram_writer *w, struct qz_error *err);
void initrd_close(struct initrd *rd);

/* ---- linux64.c, pvh.c
 * ---------------------------------------------------------------------------------- */

/* What an entry protocol tells the kernel. */
struct boot_handover {
    const struct bzimage *bzimage; /* its setup header, or NULL: an ELF image */
    uint64_t entry;
    uint64_t cmdline, cmdline_len; /* already in memory */
    uint64_t initrd, initrd_size;
};

/* Writes zero page, GDT and page tables; sets *bsp to enter in long mode (boot.rst "64-bit Boot
 * Protocol"). */
int boot_enter_linux64(struct guest_memory *m, const struct boot_handover *h,
                       struct vcpu_state *bsp);
/* Writes hvm_start_info and GDT; sets *bsp to enter in 32-bit protected mode (Xen's
 * docs/misc/pvh.pandoc). */
int boot_enter_pvh(struct guest_memory *m, const struct boot_handover *h, struct vcpu_state *bsp);
/* Flat segments at their places in a GDT at BOOT_GDT, shared by both. */
int boot_write_gdt(struct guest_memory *m, unsigned bits, struct vcpu_state *bsp);

/* ---- boot.c
 * -------------------------------------------------------------------------------------------- */

/* boot_kernel_load() for a kernel that is in memory already; kernel->kernel_path only names it in
 * errors. */
int boot_load_image(struct guest_memory *m, const struct boot_kernel *kernel, const uint8_t *image,
                    size_t len, struct vcpu_state *bsp, struct boot_report *report,
                    struct qz_error *err);

#endif

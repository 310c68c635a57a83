/*
 * kernel_image.h - reading the headers of kernel files: bzImage and ELF.
 *
 * Pure functions over bytes. Every field is hostile: what they return was checked against the length of the bytes it
 * came from, and against wrapping. Errors begin with the name given, are -ENOEXEC, and name field and value.
 * Sources: Documentation/arch/x86/boot.rst, ELF-64 Object File Format 1.5, xen/include/public/elfnote.h.
 */
#ifndef VMM_KERNEL_IMAGE_H
#define VMM_KERNEL_IMAGE_H

#include <queztl/base.h>

/* ---- bzImage (boot.rst "The Real-Mode Kernel Header") -------------------------------------------------- */

enum { BZIMAGE_HEADER = 0x1f1, BZIMAGE_HEADER_MAX = 0x90 };

struct bzimage {
    const uint8_t *header; /* setup header from 0x1f1 on */
    size_t header_len;     /* at most BZIMAGE_HEADER_MAX */
    const uint8_t *code;   /* protected-mode code */
    size_t code_len;
    const uint8_t *payload; /* within code: the compressed kernel */
    size_t payload_len;
    uint32_t cmdline_size;    /* longest command line without its final zero */
    uint32_t initrd_addr_max; /* last byte an initrd may use */
    uint32_t alignment, init_size;
    uint64_t pref_address;
};

bool bzimage_is(const uint8_t *data, size_t len);
/* Protocol 2.12 or later with the 64-bit entry, that is Linux 3.8 and later. */
int bzimage_parse(const char *name, const uint8_t *data, size_t len, struct bzimage *out, struct qz_error *err);

/* ---- ELF ------------------------------------------------------------------------------------------------ */

enum {
    ELF_HEAD_MAX = 65536, /* ELF header and program headers lie in the first this many bytes */
    ELF_SEGMENTS_MAX = 32,
    ELF_NOTES_MAX = 8,
    ELF_NOTE_BYTES_MAX = 65536,
};

struct elf_range {
    uint64_t offset, size; /* in the file */
};

struct elf_segment {
    struct elf_range file;
    uint64_t paddr, memsz; /* memsz >= file.size, nothing wraps */
};

struct elf_kernel {
    uint64_t entry;
    unsigned segments, notes;
    struct elf_segment segment[ELF_SEGMENTS_MAX]; /* PT_LOAD with memsz > 0; they overlap nowhere in memory */
    struct elf_range note[ELF_NOTES_MAX];         /* PT_NOTE, each at most ELF_NOTE_BYTES_MAX long */
    uint64_t low, high;                           /* physical addresses: all segments lie in [low, high) */
    uint64_t file_end;                            /* the file must be at least this long */
};

bool elf_is(const uint8_t *data, size_t len);
/* head: the first len (at most ELF_HEAD_MAX are looked at) bytes of the image. x86-64 executables only. */
int elf_kernel_parse(const char *name, const uint8_t *head, size_t len, struct elf_kernel *out, struct qz_error *err);
/* The 32-bit entry of a PVH kernel (XEN_ELFNOTE_PHYS32_ENTRY) among len bytes of notes; false: none. */
bool elf_pvh_entry(const uint8_t *notes, size_t len, uint64_t *entry);

#endif

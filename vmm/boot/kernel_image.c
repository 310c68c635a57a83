/*
 * kernel_image.c - reading the headers of kernel files (kernel_image.h).
 */
#include "boot/kernel_image.h"

#include <elf.h>

/* ---- bzImage -------------------------------------------------------------------------------------------- */

/* Offsets in the file, boot.rst "Details of header fields". */
enum {
    SETUP_SECTS = 0x1f1,
    BOOT_FLAG = 0x1fe,
    JUMP = 0x200,
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADFLAGS = 0x211,
    INITRD_ADDR_MAX = 0x22c,
    KERNEL_ALIGNMENT = 0x230,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END_2_12 = 0x268,
    LOADED_HIGH = 1,
    XLF_KERNEL_64 = 1,
    VERSION_2_12 = 0x20c,
    ENTRY_64_END = 0x201, /* the code reaches its 64-bit entry at 0x200 */
};

bool bzimage_is(const uint8_t *data, size_t len)
{
    return len >= VERSION + 2 && memcmp(data + MAGIC, "HdrS", 4) == 0;
}

int bzimage_parse(const char *name, const uint8_t *data, size_t len, struct bzimage *out, struct qz_error *err)
{
    size_t header_end, setup_len;
    uint32_t offset, length;
    unsigned version;

    if (!bzimage_is(data, len))
        return qz_fail(err, -ENOEXEC, "%s: not a Linux kernel image: no \"HdrS\" at 0x202", name);
    if (qz_load_le16(data + BOOT_FLAG) != 0xaa55)
        return qz_fail(err, -ENOEXEC, "%s: boot_flag is 0x%x instead of 0xaa55", name, qz_load_le16(data + BOOT_FLAG));
    version = qz_load_le16(data + VERSION);
    if (version < VERSION_2_12)
        return qz_fail(err, -ENOEXEC, "%s: boot protocol %u.%02u is too old; 2.12 (Linux 3.8) or later is needed", name,
                       version >> 8, version & 0xff);
    header_end = MAGIC + data[JUMP + 1];
    if (header_end < HEADER_END_2_12 || header_end > len)
        return qz_fail(err, -ENOEXEC, "%s: the setup header ends at 0x%zx, which is %s", name, header_end,
                       header_end > len ? "past the end of the file" : "too short for its version");
    if (!(data[LOADFLAGS] & LOADED_HIGH))
        return qz_fail(err, -ENOEXEC, "%s: a zImage (loadflags 0x%x), only bzImage is supported", name,
                       data[LOADFLAGS]);
    if (!(qz_load_le16(data + XLOADFLAGS) & XLF_KERNEL_64))
        return qz_fail(err, -ENOEXEC, "%s: a 32-bit kernel (xloadflags 0x%x), a 64-bit one is needed", name,
                       qz_load_le16(data + XLOADFLAGS));
    setup_len = ((data[SETUP_SECTS] ? data[SETUP_SECTS] : 4) + 1) * 512;
    if (setup_len >= len || len - setup_len < ENTRY_64_END)
        return qz_fail(err, -ENOEXEC, "%s: cut off: %zu bytes, and its setup code alone (setup_sects) has %zu", name, len,
                       setup_len);
    offset = qz_load_le32(data + PAYLOAD_OFFSET);
    length = qz_load_le32(data + PAYLOAD_LENGTH);
    if (offset > len - setup_len || length > len - setup_len - offset)
        return qz_fail(err, -ENOEXEC,
                       "%s: cut off: the payload (payload_offset 0x%x, payload_length 0x%x) ends behind the file's end", name,
                       offset, length);
    *out = (struct bzimage){
        .header = data + BZIMAGE_HEADER,
        .header_len = QZ_MIN(header_end - BZIMAGE_HEADER, (size_t)BZIMAGE_HEADER_MAX),
        .code = data + setup_len,
        .code_len = len - setup_len,
        .payload = data + setup_len + offset,
        .payload_len = length,
        .cmdline_size = qz_load_le32(data + CMDLINE_SIZE),
        .initrd_addr_max = qz_load_le32(data + INITRD_ADDR_MAX),
        .alignment = qz_load_le32(data + KERNEL_ALIGNMENT),
        .init_size = qz_load_le32(data + INIT_SIZE),
        .pref_address = qz_load_le64(data + PREF_ADDRESS),
    };
    return 0;
}

/* ---- ELF ------------------------------------------------------------------------------------------------ */

enum { XEN_ELFNOTE_PHYS32_ENTRY = 18 };

bool elf_is(const uint8_t *data, size_t len)
{
    return len >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

static int add_load(const char *name, unsigned index, const Elf64_Phdr *ph, struct elf_kernel *out, struct qz_error *err)
{
    uint64_t file_end, end;

    if (ph->p_filesz > ph->p_memsz)
        return qz_fail(err, -ENOEXEC, "%s: program header %u: p_filesz 0x%llx is larger than p_memsz 0x%llx", name, index,
                       (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_memsz);
    if (__builtin_add_overflow(ph->p_offset, ph->p_filesz, &file_end) ||
        __builtin_add_overflow(ph->p_paddr, ph->p_memsz, &end))
        return qz_fail(err, -ENOEXEC, "%s: program header %u: p_offset 0x%llx or p_paddr 0x%llx wraps", name, index,
                       (unsigned long long)ph->p_offset, (unsigned long long)ph->p_paddr);
    if (ph->p_memsz == 0)
        return 0;
    if (out->segments == ELF_SEGMENTS_MAX)
        return qz_fail(err, -ENOEXEC, "%s: more than %d segments to load", name, ELF_SEGMENTS_MAX);
    for (unsigned i = 0; i < out->segments; i++)
        if (ph->p_paddr < out->segment[i].paddr + out->segment[i].memsz && out->segment[i].paddr < end)
            return qz_fail(err, -ENOEXEC, "%s: program header %u: p_paddr 0x%llx overlaps another segment", name, index,
                           (unsigned long long)ph->p_paddr);
    out->segment[out->segments++] =
        (struct elf_segment){{ph->p_offset, ph->p_filesz}, ph->p_paddr, ph->p_memsz};
    out->low = QZ_MIN(out->low, ph->p_paddr);
    out->high = QZ_MAX(out->high, end);
    if (ph->p_filesz)
        out->file_end = QZ_MAX(out->file_end, file_end);
    return 0;
}

static int check_ident(const char *name, const Elf64_Ehdr *eh, struct qz_error *err)
{
    if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
        return qz_fail(err, -ENOEXEC, "%s: an ELF file of another kind (class %u, machine %u), x86-64 is needed", name,
                       eh->e_ident[EI_CLASS], eh->e_machine);
    if (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)
        return qz_fail(err, -ENOEXEC, "%s: ELF type %u, an executable (2) is needed", name, eh->e_type);
    if (eh->e_phentsize != sizeof(Elf64_Phdr))
        return qz_fail(err, -ENOEXEC, "%s: e_phentsize is %u instead of %zu", name, eh->e_phentsize, sizeof(Elf64_Phdr));
    return 0;
}

static int check_entry(const char *name, const struct elf_kernel *k, struct qz_error *err)
{
    for (unsigned i = 0; i < k->segments; i++)
        if (k->entry >= k->segment[i].paddr && k->entry - k->segment[i].paddr < k->segment[i].file.size)
            return 0;
    return qz_fail(err, -ENOEXEC, "%s: the entry 0x%llx (e_entry) lies in no loaded segment", name,
                   (unsigned long long)k->entry);
}

int elf_kernel_parse(const char *name, const uint8_t *head, size_t len, struct elf_kernel *out, struct qz_error *err)
{
    Elf64_Ehdr eh;
    int r;

    len = QZ_MIN(len, (size_t)ELF_HEAD_MAX);
    if (!elf_is(head, len))
        return qz_fail(err, -ENOEXEC, "%s: the unpacked kernel is not an ELF file", name);
    if (len < sizeof(eh))
        return qz_fail(err, -ENOEXEC, "%s: cut off within the ELF header", name);
    memcpy(&eh, head, sizeof(eh));
    r = check_ident(name, &eh, err);
    if (r < 0)
        return r;
    if (eh.e_phoff > len || eh.e_phnum > (len - eh.e_phoff) / sizeof(Elf64_Phdr))
        return qz_fail(err, -ENOEXEC, "%s: %u program headers at 0x%llx (e_phoff) reach past the first %zu bytes", name,
                       eh.e_phnum, (unsigned long long)eh.e_phoff, len);
    *out = (struct elf_kernel){.entry = eh.e_entry, .low = UINT64_MAX};
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, head + eh.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type == PT_LOAD && (r = add_load(name, i, &ph, out, err)) < 0)
            return r;
        /* A note that is absurdly large holds no entry for us: it is left out, not an error. */
        if (ph.p_type == PT_NOTE && ph.p_filesz && ph.p_filesz <= ELF_NOTE_BYTES_MAX && out->notes < ELF_NOTES_MAX &&
            ph.p_offset <= UINT64_MAX - ph.p_filesz)
            out->note[out->notes++] = (struct elf_range){ph.p_offset, ph.p_filesz};
    }
    if (!out->segments)
        return qz_fail(err, -ENOEXEC, "%s: no segment to load", name);
    return check_entry(name, out, err);
}

bool elf_pvh_entry(const uint8_t *notes, size_t len, uint64_t *entry)
{
    Elf64_Nhdr nh;

    /* Name and descriptor are padded to 4 bytes. Sizes are 32 bits, the sums below 64: nothing wraps. */
    for (uint64_t at = 0; at < len && len - at >= sizeof(nh);) {
        uint64_t name = at + sizeof(nh), desc, next;

        memcpy(&nh, notes + at, sizeof(nh));
        desc = name + QZ_ALIGN_UP((uint64_t)nh.n_namesz, 4);
        next = desc + QZ_ALIGN_UP((uint64_t)nh.n_descsz, 4);
        if (desc + nh.n_descsz > len)
            return false;
        if (nh.n_type == XEN_ELFNOTE_PHYS32_ENTRY && nh.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0 &&
            (nh.n_descsz == 4 || nh.n_descsz == 8)) {
            *entry = nh.n_descsz == 4 ? qz_load_le32(notes + desc) : qz_load_le64(notes + desc);
            return true;
        }
        at = next;
    }
    return false;
}

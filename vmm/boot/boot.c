/*
 * boot.c - loads a kernel and its initrd and prepares CPU 0 (boot.h).
 *
 * Theory of operation. The kernel file is mapped. Of a bzImage the payload is unpacked by decompress.c, and the pieces that come out go
 * straight to where the ELF program headers want them: plan_head() reads those from the first bytes, place_piece()
 * copies what lies in a segment, several pieces at a time. The initrd is read beside it by a
 * thread of its own. What was written is memory that no CPU has run yet, so everything may be checked after
 * it was copied, except that each copy stays within RAM.
 *
 * A payload in a format that is not unpacked here leaves it to the kernel's own decompressor, entered at
 * its 64-bit entry; the report says so.
 *
 * A kernel file cut short by someone while it is mapped kills the monitor (SIGBUS); it is the file of the one
 * who starts the machine.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "boot/boot_internal.h"
#include "boot/decompress.h"

QZ_SYSCALLS(main, "openat newfstatat fstat mmap munmap madvise close");

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

enum { VMLINUX_CMDLINE_MAX = 2047, ENTRY_64 = 0x200, INITRD_THREAD_MIN = 256 << 10 };
#define UNPACKED_MAX     (1ull << 30)
#define KERNEL_FILE_MAX  (4ull << 30)
#define IDENTITY_MAX     (4ull << 30)

struct load {
    struct guest_memory *memory;
    const char *name; /* "kernel PATH" */
    struct ram_writer writer;
    struct elf_kernel elf;
    uint8_t *notes; /* the ELF notes one after the other, each at its place in note_at */
    size_t note_at[ELF_NOTES_MAX];
    size_t notes_len;
    uint64_t kernel_end; /* first address after the kernel */
};

/* ---- ELF segments ------------------------------------------------------------------------------------ */

static int check_segments(struct load *l, struct qz_error *err)
{
    const struct elf_kernel *k = &l->elf;
    uint64_t end = l->memory->low_size - BOOT_ACPI_SIZE;
    char need[16], have[16];

    if (k->low < BOOT_KERNEL_MIN)
        return qz_fail(err, -ENOEXEC, "%s: wants to be loaded at 0x%llx (p_paddr); below 1 MiB lie boot data and BIOS area",
                       l->name, (unsigned long long)k->low);
    if (k->high <= end)
        return 0;
    if (k->high > LOW_RAM_MAX - BOOT_ACPI_SIZE)
        return qz_fail(err, -E2BIG, "%s: its segments end at 0x%llx (p_paddr + p_memsz), behind the RAM below 2 GiB", l->name,
                       (unsigned long long)k->high);
    return qz_fail(err, -E2BIG, "%s does not fit in %s of memory: give the machine at least %s", l->name,
                   qz_format_size(l->memory->size, have, sizeof(have)),
                   qz_format_size(QZ_ALIGN_UP(k->high + BOOT_ACPI_SIZE, 2ull << 20), need, sizeof(need)));
}

/* unpack_sink.head */
static int plan_head(void *context, const uint8_t *data, size_t len, struct qz_error *err)
{
    struct load *l = context;
    int r = elf_kernel_parse(l->name, data, len, &l->elf, err);

    if (r < 0 || (r = check_segments(l, err)) < 0)
        return r;
    for (unsigned i = 0; i < l->elf.notes; i++) {
        l->note_at[i] = l->notes_len;
        l->notes_len += l->elf.note[i].size;
    }
    l->notes = calloc(1, l->notes_len + 1);
    return l->notes ? 0 : qz_fail(err, -ENOMEM, "no memory");
}

/* The part of a file range that lies in [offset, offset+len): where it begins in the piece and in the range. */
static uint64_t common(const struct elf_range *range, uint64_t offset, uint64_t len, uint64_t *in_piece, uint64_t *in_range)
{
    uint64_t begin = QZ_MAX(range->offset, offset), end = QZ_MIN(range->offset + range->size, offset + len);

    if (begin >= end)
        return 0;
    *in_piece = begin - offset;
    *in_range = begin - range->offset;
    return end - begin;
}

/* unpack_sink.piece: any thread. Segments do not overlap, so no two threads write to the same bytes. */
static int place_piece(void *context, uint64_t offset, const uint8_t *data, size_t len, struct qz_error *err)
{
    struct load *l = context;
    uint64_t from, to, n;

    for (unsigned i = 0; i < l->elf.segments; i++) {
        n = common(&l->elf.segment[i].file, offset, len, &from, &to);
        if (n && ram_writer_copy(&l->writer, l->elf.segment[i].paddr + to, data + from, n) < 0)
            return qz_fail(err, -E2BIG, "%s: segment %u reaches past the end of RAM", l->name, i);
    }
    for (unsigned i = 0; i < l->elf.notes; i++) {
        n = common(&l->elf.note[i], offset, len, &from, &to);
        if (n)
            memcpy(l->notes + l->note_at[i] + to, data + from, n);
    }
    return 0;
}

static int load_elf(struct load *l, enum compression c, const uint8_t *data, size_t len, uint64_t *total,
                    struct qz_error *err)
{
    const struct unpack_sink sink = {plan_head, place_piece, l};
    /* What lies outside segments (symbols, relocations) may come on top of what fits in RAM. */
    uint64_t limit = c == COMPRESSION_NONE ? KERNEL_FILE_MAX : QZ_MIN(UNPACKED_MAX, l->memory->low_size + (64ull << 20));
    int r = unpack(l->name, c, data, len, limit, &sink, total, err);

    if (r < 0)
        return r;
    if (l->elf.file_end > *total)
        return qz_fail(err, -ENOEXEC, "%s: cut off: its segments end at 0x%llx in the file, which has 0x%llx bytes", l->name,
                       (unsigned long long)l->elf.file_end, (unsigned long long)*total);
    l->kernel_end = l->elf.high;
    return 0;
}

static bool find_pvh_entry(const struct load *l, uint64_t *entry)
{
    for (unsigned i = 0; i < l->elf.notes; i++)
        if (elf_pvh_entry(l->notes + l->note_at[i], l->elf.note[i].size, entry))
            return true;
    return false;
}

static bool in_segment(const struct elf_kernel *k, uint64_t a)
{
    for (unsigned i = 0; i < k->segments; i++)
        if (a >= k->segment[i].paddr && a - k->segment[i].paddr < k->segment[i].file.size)
            return true;
    return false;
}

static int choose_protocol(const struct load *l, int wanted, bool bzimage, struct boot_report *report, struct qz_error *err)
{
    uint64_t pvh = 0;
    bool has_pvh = find_pvh_entry(l, &pvh);

    report->entry = l->elf.entry;
    report->protocol = "linux64";
    if (wanted == BOOT_LINUX64 || (wanted < 0 && (bzimage || !has_pvh)))
        return 0;
    if (!has_pvh)
        return qz_fail(err, -ENOEXEC, "%s: no PVH entry: the kernel was built without CONFIG_PVH", l->name);
    if (pvh > UINT32_MAX || !in_segment(&l->elf, pvh))
        return qz_fail(err, -ENOEXEC, "%s: the PVH entry 0x%llx lies in no loaded segment", l->name,
                       (unsigned long long)pvh);
    report->entry = pvh;
    report->protocol = "pvh";
    return 0;
}

/* ---- a kernel that unpacks itself -------------------------------------------------------------------- */

static int load_own_decompressor(struct load *l, const struct bzimage *bz, int protocol, struct boot_report *report,
                                 struct qz_error *err)
{
    uint64_t at = bz->pref_address, size = QZ_MAX((uint64_t)bz->init_size, bz->code_len), end = l->memory->low_size - BOOT_ACPI_SIZE;
    char need[16], have[16];

    if (protocol == BOOT_PVH)
        return qz_fail(err, -ENOEXEC, "%s: PVH needs the kernel unpacked, and %s is not unpacked here (gzip, xz, zstd, lz4 are)",
                       l->name, report->compression);
    if (at < BOOT_KERNEL_MIN || at > IDENTITY_MAX || (bz->alignment && at % bz->alignment))
        return qz_fail(err, -ENOEXEC, "%s: pref_address 0x%llx is below 1 MiB, above 4 GiB or not aligned to kernel_alignment 0x%x",
                       l->name, (unsigned long long)at, bz->alignment);
    if (at + size > end)
        return qz_fail(err, -E2BIG, "%s does not fit in %s of memory: give the machine at least %s (pref_address + init_size)",
                       l->name, qz_format_size(l->memory->size, have, sizeof(have)),
                       qz_format_size(QZ_ALIGN_UP(at + size + BOOT_ACPI_SIZE, 2ull << 20), need, sizeof(need)));
    if (ram_writer_copy(&l->writer, at, bz->code, bz->code_len) < 0)
        return qz_fail(err, -E2BIG, "%s: reaches past the end of RAM", l->name);
    l->kernel_end = at + size;
    report->kernel_bytes = bz->code_len;
    report->entry = at + ENTRY_64;
    report->protocol = "linux64 (own decompressor)";
    return 0;
}

/* ---- all of it ---------------------------------------------------------------------------------------- */

struct initrd_job {
    struct initrd rd;
    struct ram_writer *writer;
    pthread_t thread;
    bool running;
    int result;
    struct qz_error err;
};

static void *read_initrd(void *context)
{
    struct initrd_job *job = context;

    job->result = initrd_read(&job->rd, job->writer, &job->err);
    return NULL;
}

/* Reads beside the unpacking where that is worth a thread, at once otherwise. */
static void start_initrd(struct initrd_job *job, struct ram_writer *writer)
{
    job->writer = writer;
    job->running =
        job->rd.size >= INITRD_THREAD_MIN && pthread_create(&job->thread, NULL, read_initrd, job) == 0;
    if (!job->running)
        read_initrd(job);
}

static int finish_initrd(struct initrd_job *job, struct qz_error *err)
{
    if (job->running)
        pthread_join(job->thread, NULL);
    job->running = false;
    if (job->result < 0 && err)
        *err = job->err;
    return job->result;
}

static int write_cmdline(struct load *l, const char *cmdline, uint32_t max, struct qz_error *err)
{
    size_t len = strlen(cmdline);

    max = QZ_MIN(max, BOOT_CMDLINE_MAX - 1);
    if (len > max)
        return qz_fail(err, -E2BIG, "the command line has %zu characters, %s takes %u", len, l->name, max);
    return mem_write(l->memory, gpa(BOOT_CMDLINE), cmdline, len + 1) < 0
               ? qz_fail(err, -E2BIG, "no room for the command line")
               : 0;
}

static int load_kernel(struct load *l, const struct bzimage *bz, const uint8_t *image, size_t len, int protocol,
                       struct boot_report *report, struct qz_error *err)
{
    const uint8_t *data = bz ? bz->payload : image;
    enum compression c = bz ? compression_detect(bz->payload, bz->payload_len) : COMPRESSION_NONE;
    int r;

    report->compression = compression_name(c);
    if (!compression_supported(c))
        return load_own_decompressor(l, bz, protocol, report, err);
    r = load_elf(l, c, data, bz ? bz->payload_len : len, &report->kernel_bytes, err);
    return r < 0 ? r : choose_protocol(l, protocol, bz != NULL, report, err);
}

static int load_all(struct load *l, const struct boot_kernel *kernel, const struct bzimage *bz, const uint8_t *image,
                    size_t len, struct initrd_job *job, struct boot_report *report, struct qz_error *err)
{
    int r = write_cmdline(l, kernel->cmdline ? kernel->cmdline : "", bz ? bz->cmdline_size : VMLINUX_CMDLINE_MAX, err), r2;

    if (r == 0)
        r = initrd_open(&job->rd, l->memory, kernel, err);
    if (r == 0)
        r = initrd_place(&job->rd, l->memory, bz ? bz->initrd_addr_max : UINT32_MAX, err);
    if (r < 0)
        return r;
    start_initrd(job, &l->writer);
    r = load_kernel(l, bz, image, len, kernel->protocol, report, err);
    r2 = finish_initrd(job, r < 0 ? NULL : err);
    if (r < 0 || r2 < 0)
        return r < 0 ? r : r2;
    return initrd_check(&job->rd, l->memory, l->kernel_end, err);
}

int boot_load_image(struct guest_memory *m, const struct boot_kernel *kernel, const uint8_t *image, size_t len,
                    struct vcpu_state *bsp, struct boot_report *report, struct qz_error *err)
{
    char name[256];
    struct load l = {.memory = m, .name = name};
    struct initrd_job job = {.rd.fd = -1};
    struct boot_handover h = {.cmdline = BOOT_CMDLINE};
    struct bzimage bz;
    int r = 0;

    snprintf(name, sizeof(name), "kernel %s", kernel->kernel_path);
    *report = (struct boot_report){.protocol = "", .compression = "none"};
    ram_writer_init(&l.writer, m);
    if (!elf_is(image, len))
        r = bzimage_parse(name, image, len, h.bzimage = &bz, err);
    if (r == 0)
        r = load_all(&l, kernel, h.bzimage, image, len, &job, report, err);
    initrd_close(&job.rd);
    free(l.notes);
    if (r < 0)
        return r;
    h.entry = report->entry;
    h.cmdline_len = strlen(kernel->cmdline ? kernel->cmdline : "");
    h.initrd = report->initrd = job.rd.gpa;
    h.initrd_size = report->initrd_bytes = job.rd.size;
    r = strcmp(report->protocol, "pvh") ? boot_enter_linux64(m, &h, bsp) : boot_enter_pvh(m, &h, bsp);
    return r < 0 ? qz_fail(err, r, "%s: no room for the boot data below 1 MiB", name) : 0;
}

int boot_kernel_load(struct guest_memory *m, const struct boot_kernel *kernel, struct vcpu_state *bsp,
                     struct boot_report *report, struct qz_error *err)
{
    const char *path = kernel->kernel_path;
    QZ_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *image;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0)
        return qz_fail(err, -errno, "kernel %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || (uint64_t)st.st_size > KERNEL_FILE_MAX)
        return qz_fail(err, -ENOEXEC, "kernel %s: %s", path,
                       !S_ISREG(st.st_mode) ? "not a regular file" : st.st_size ? "larger than 4 GiB" : "empty");
    image = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (image == MAP_FAILED)
        return qz_fail(err, -errno, "kernel %s: cannot map: %s", path, strerror(errno));
    r = boot_load_image(m, kernel, image, st.st_size, bsp, report, err);
    munmap(image, st.st_size);
    return r;
}

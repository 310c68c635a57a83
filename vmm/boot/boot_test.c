/*
 * boot_test.c - the kernel loader with kernels made here and, where they are installed, with
 * Debian's.
 */
#include <queztl/parallel.h>

#include <asm/bootparam.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "boot/boot_internal.h"
#include "boot/test_images.h"
#include "devices/vmgenid.h"

#define MIB (1ull << 20)

static struct guest_memory memory;
static struct vcpu_state bsp;
static struct boot_report report;
static struct qz_error err;

static const struct test_elf small = {
    .entry = 2 * MIB + 0x40,
    .pvh_entry = 2 * MIB + 0x80,
    .segments = 2,
    .segment = {{2 * MIB, 0x5000, 0x3000, 1, 0x333}, {2 * MIB + 0x8123, 0x2000, 0x1234, 2, 0}},
    .tail = 777,
};

static void open_memory(uint64_t size)
{
    guest_memory_free(&memory);
    assert_int_equal(guest_memory_new(&memory, size, &err), 0);
    vcpu_state_reset(&bsp, true, 0);
    memset(&err, 0, sizeof(err));
}

static int close_memory(void **state)
{
    guest_memory_free(&memory);
    return 0;
}

static int setup(void **state)
{
    memory.fd = -1;
    return 0;
}

static int load(const struct image *i, struct boot_kernel kernel)
{
    kernel.kernel_path = "k";
    return boot_load_image(&memory, &kernel, i->data, i->len, &bsp, &report, &err);
}

static const struct boot_kernel plain = {.cmdline = "console=ttyS0", .protocol = -1};

static const uint8_t *ram(uint64_t a)
{
    return memory.low + a;
}

static void assert_segments(const struct test_elf *e)
{
    for (unsigned i = 0; i < e->segments; i++) {
        const struct test_segment *s = &e->segment[i];

        for (size_t k = 0; k < s->size; k++)
            if (ram(s->paddr)[k] != test_fill(s->fill, k))
                fail_msg("segment %u differs at 0x%zx: 0x%x", i, k, ram(s->paddr)[k]);
        for (size_t k = s->size; k < s->memsz; k++)
            if (ram(s->paddr)[k])
                fail_msg("segment %u: .bss at 0x%zx is not zero", i, k);
    }
}

static void assert_fails(int code, const char *text)
{
    assert_int_equal(err.code, code);
    if (!strstr(err.text, text))
        fail_msg("error \"%s\" does not say \"%s\"", err.text, text);
}

/* What the CPU would make of an address: walks the page tables that the loader wrote. */
static uint64_t translate(uint64_t a)
{
    uint64_t table = bsp.cr3;

    for (int shift = 39; shift >= 21; shift -= 9) {
        uint64_t e = qz_load_le64(ram(table + (a >> shift & 511) * 8));

        if (!(e & 1))
            fail_msg("0x%llx is not mapped", (unsigned long long)a);
        if (e & 0x80)
            return (e & ~(QZ_BIT(shift) - 1)) + (a & (QZ_BIT(shift) - 1));
        table = e & ~0xfffull;
    }
    fail_msg("no large page for 0x%llx", (unsigned long long)a);
    return 0;
}

static void assert_linux64(uint64_t entry)
{
    const struct boot_params *zp = (const void *)ram(BOOT_ZERO_PAGE);
    uint64_t code = qz_load_le64(ram(bsp.gdt.base + bsp.cs.selector)),
             data = qz_load_le64(ram(bsp.gdt.base + bsp.ds.selector));

    assert_string_equal(report.protocol, "linux64");
    assert_int_equal(report.entry, entry);
    assert_int_equal(bsp.rip, entry);
    assert_int_equal(bsp.gpr[RSI], BOOT_ZERO_PAGE);
    assert_int_equal(bsp.rflags, 2);
    assert_true((bsp.cr0 & 0x80000001) == 0x80000001 && bsp.cr4 & 0x20 &&
                (bsp.efer & 0x500) == 0x500);
    assert_true(bsp.cs.attr & SEG_L);
    assert_int_equal(bsp.cs.selector, 0x10);
    assert_int_equal(bsp.ds.selector, 0x18);
    assert_true(bsp.ds.selector + 7 <= bsp.gdt.limit);
    assert_int_equal(code >> 40 & 0xff, 0x9b);
    assert_true(code & QZ_BIT(53));
    assert_int_equal(data >> 40 & 0xff, 0x93);
    for (uint64_t a = 0; a < 4ull << 30; a += 1 << 30 | 0x12345)
        assert_int_equal(translate(a), a);
    assert_int_equal(translate(0xffffffff), 0xffffffff);
    assert_int_equal(zp->hdr.boot_flag, 0xaa55);
    assert_int_equal(zp->hdr.type_of_loader, 0xff);
    assert_int_equal(zp->hdr.cmd_line_ptr, BOOT_CMDLINE);
    assert_int_equal(zp->acpi_rsdp_addr, BOOT_RSDP);
    assert_true(zp->e820_entries >= 6);
}

/* ---- kernels of every kind
 * ----------------------------------------------------------------------------- */

static void every_compression(void **state)
{
    for (enum compression c = COMPRESSION_NONE; c <= COMPRESSION_LZ4; c++) {
        struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, c);

        open_memory(16 * MIB);
        if (load(&bz, plain) < 0)
            fail_msg("%s: %s", compression_name(c), err.text);
        assert_string_equal(report.compression, compression_name(c));
        assert_int_equal(report.kernel_bytes, elf.len);
        assert_segments(&small);
        assert_linux64(small.entry);
        assert_string_equal((const char *)ram(BOOT_CMDLINE), "console=ttyS0");
        /* The setup header was handed over. */
        assert_int_equal(((const struct boot_params *)ram(BOOT_ZERO_PAGE))->hdr.pref_address,
                         0x200000);
        test_image_free(&elf);
        test_image_free(&bz);
    }
}

/* More than one LZ4 block; segments that lie in one, span two, and hold zeros; a block that goes
 * right to its place. */
static void large_image(void **state)
{
    static const struct test_elf big = {
        .entry = 2 * MIB,
        .segments = 4,
        .segment = {{2 * MIB, 19 * MIB, 18 * MIB + 12345, 3, 5 * MIB + 17},
                    {24 * MIB + 0x801, 2 * MIB, MIB + 77, 4, 3},
                    {28 * MIB, 10 * MIB, 9 * MIB, 0, 0},
                    {40 * MIB, 4096, 4000, 5, 100}},
        .tail = 3 * MIB,
    };
    static const enum compression kinds[] = {COMPRESSION_NONE, COMPRESSION_ZSTD, COMPRESSION_LZ4};

    for (size_t i = 0; i < QZ_ARRAY_LEN(kinds); i++) {
        struct image elf = test_elf_make(&big), bz = test_bzimage_make(&elf, kinds[i]);

        open_memory(64 * MIB);
        if (load(&bz, plain) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(report.kernel_bytes, elf.len);
        assert_segments(&big);
        test_image_free(&elf);
        test_image_free(&bz);
    }
}

static void elf_enters_by_pvh(void **state)
{
    struct image elf = test_elf_make(&small);
    const uint8_t *info, *module;
    struct boot_kernel kernel = plain;

    kernel.extra_initrd = "initrd";
    kernel.extra_initrd_size = 6;
    open_memory(16 * MIB);
    assert_int_equal(load(&elf, kernel), 0);
    assert_string_equal(report.protocol, "pvh");
    assert_int_equal(bsp.rip, small.pvh_entry);
    assert_int_equal(bsp.cr0 & 0x80000001, 1);
    assert_int_equal(bsp.cr4 | bsp.efer, 0);
    assert_true(bsp.cs.attr & SEG_DB && !(bsp.cs.attr & SEG_L));
    assert_int_equal(bsp.gpr[RBX], BOOT_PVH_INFO);
    info = ram(bsp.gpr[RBX]);
    assert_int_equal(qz_load_le32(info), 0x336ec578);
    assert_int_equal(qz_load_le32(info + 4), 1);
    assert_int_equal(qz_load_le32(info + 12), 1);
    module = ram(qz_load_le64(info + 16));
    assert_int_equal(qz_load_le64(module), report.initrd);
    assert_int_equal(qz_load_le64(module + 8), 6);
    assert_memory_equal(ram(report.initrd), "initrd", 6);
    assert_string_equal((const char *)ram(qz_load_le64(info + 24)), "console=ttyS0");
    assert_int_equal(qz_load_le64(info + 32), BOOT_RSDP);
    assert_true(qz_load_le32(info + 48) >= 6);
    assert_int_equal(qz_load_le64(ram(qz_load_le64(info + 40)) + 8), 0x9fc00);
    assert_segments(&small);

    kernel.protocol = BOOT_LINUX64;
    open_memory(16 * MIB);
    assert_int_equal(load(&elf, kernel), 0);
    assert_linux64(small.entry);
    test_image_free(&elf);
}

static void protocol_can_be_forced(void **state)
{
    struct test_elf without = small;
    struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, COMPRESSION_LZ4), bare,
                 bare_bz;
    struct boot_kernel kernel = plain;

    kernel.protocol = BOOT_PVH;
    open_memory(16 * MIB);
    assert_int_equal(load(&bz, kernel), 0);
    assert_string_equal(report.protocol, "pvh");
    assert_int_equal(bsp.rip, small.pvh_entry);

    without.pvh_entry = 0;
    bare = test_elf_make(&without);
    bare_bz = test_bzimage_make(&bare, COMPRESSION_GZIP);
    open_memory(16 * MIB);
    assert_true(load(&bare_bz, kernel) < 0);
    assert_fails(-ENOEXEC, "CONFIG_PVH");
    open_memory(16 * MIB);
    assert_int_equal(load(&bare, plain), 0); /* an ELF image without the note */
    assert_linux64(small.entry);
    test_image_free(&elf);
    test_image_free(&bz);
    test_image_free(&bare);
    test_image_free(&bare_bz);
}

static void own_decompressor(void **state)
{
    for (enum compression c = COMPRESSION_BZIP2; c <= COMPRESSION_UNKNOWN; c++) {
        struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, c);
        struct boot_kernel kernel = plain;

        open_memory(16 * MIB);
        assert_int_equal(load(&bz, plain), 0);
        assert_string_equal(report.protocol, "linux64 (own decompressor)");
        assert_string_equal(report.compression, compression_name(c));
        assert_int_equal(bsp.rip, 0x200000 + 0x200);
        assert_memory_equal(ram(0x200000), bz.data + 1024, bz.len - 1024);
        kernel.protocol = BOOT_PVH;
        assert_true(load(&bz, kernel) < 0);
        assert_fails(-ENOEXEC, "is not unpacked here");
        test_image_free(&elf);
        test_image_free(&bz);
    }
}

/* ---- memory map, command line, initrd
 * ------------------------------------------------------------------- */

static void memory_map(void **state)
{
    struct e820_entry map[E820_MAX];
    const struct guest_memory m = {
        .size = 5ull << 30, .low_size = LOW_RAM_MAX, .high_size = 3ull << 30};
    unsigned n = boot_e820(&m, true, map);
    uint64_t ram_bytes = 0;
    bool rsdp_reserved = false, acpi = false, identifier = false;

    for (unsigned i = 0; i < n; i++) {
        if (i)
            assert_true(map[i].base >= map[i - 1].base + map[i - 1].size); /* sorted, no overlap */
        if (map[i].type == 1)
            ram_bytes += map[i].size;
        rsdp_reserved |= map[i].type == 2 && map[i].base <= BOOT_RSDP &&
                         map[i].base + map[i].size >= BOOT_RSDP + 36;
        acpi |= map[i].type == 3 && map[i].base == LOW_RAM_MAX - BOOT_ACPI_SIZE &&
                map[i].size == BOOT_ACPI_SIZE;
        identifier |=
            map[i].type == 2 && map[i].base == VMGENID_BASE && map[i].size == VMGENID_PAGE;
    }
    assert_true(rsdp_reserved && acpi && identifier);
    assert_int_equal(ram_bytes, m.size - BOOT_ACPI_SIZE - (MIB - 0x9fc00));
    assert_int_equal(boot_e820(&m, false, map), 3);
    assert_int_equal(map[0].size, LOW_RAM_MAX);
    assert_int_equal(map[1].base, VMGENID_BASE);
    assert_int_equal(map[1].size, VMGENID_PAGE);
    assert_int_equal(map[1].type, 2);
    assert_int_equal(map[2].base, HIGH_RAM);
    assert_int_equal(map[2].size, m.high_size);
}

static void command_line_is_never_cut(void **state)
{
    struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, COMPRESSION_LZ4);
    char line[2049];
    struct boot_kernel kernel = plain;

    memset(line, 'x', sizeof(line));
    line[2048] = '\0';
    kernel.cmdline = line;
    open_memory(16 * MIB);
    assert_true(load(&bz, kernel) < 0);
    assert_fails(-E2BIG, "2048 characters");
    line[2047] = '\0';
    assert_int_equal(load(&bz, kernel), 0);
    assert_string_equal((const char *)ram(BOOT_CMDLINE), line);
    test_image_free(&elf);
    test_image_free(&bz);
}

static void make_file(char *path, const void *data, size_t len)
{
    int fd;

    strcpy(path, "/tmp/queztl-boot-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, data, len) == (ssize_t)len);
    close(fd);
}

static void initrd_and_second_archive(void **state)
{
    static uint8_t archive[3 * MIB + 5];
    struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, COMPRESSION_LZ4);
    const struct boot_params *zp;
    struct boot_kernel kernel = plain;
    char path[64];

    for (size_t i = 0; i < sizeof(archive); i++)
        archive[i] = test_fill(9, i);
    make_file(path, archive, sizeof(archive));
    kernel.initrd_path = path;
    kernel.extra_initrd = "second archive";
    kernel.extra_initrd_size = 14;
    open_memory(16 * MIB);
    assert_int_equal(load(&bz, kernel), 0);
    zp = (const void *)ram(BOOT_ZERO_PAGE);
    assert_int_equal(zp->hdr.ramdisk_image, report.initrd);
    assert_int_equal(zp->hdr.ramdisk_size, 3 * MIB + 8 + 14);
    assert_int_equal(report.initrd % 4096, 0);
    assert_true(report.initrd + report.initrd_bytes <= 15 * MIB &&
                report.initrd + report.initrd_bytes > 15 * MIB - 4096);
    assert_memory_equal(ram(report.initrd), archive, sizeof(archive));
    assert_memory_equal(ram(report.initrd) + sizeof(archive), "\0\0\0second archive", 17);

    /* initrd_addr_max is the last byte that may be used. */
    qz_store_le32(bz.data + 0x22c, 0x7fffff);
    open_memory(16 * MIB);
    assert_int_equal(load(&bz, kernel), 0);
    assert_true(report.initrd + report.initrd_bytes <= 8 * MIB &&
                report.initrd + report.initrd_bytes > 8 * MIB - 4096);
    assert_memory_equal(ram(report.initrd), archive, sizeof(archive));

    /* Between kernel and ACPI tables is not enough room. */
    qz_store_le32(bz.data + 0x22c, 0x7fffffff);
    open_memory(6 * MIB);
    assert_true(load(&bz, kernel) < 0);
    assert_fails(-E2BIG, "give the machine at least 8 MiB");
    assert_non_null(strstr(err.text, path));
    open_memory(8 * MIB);
    assert_int_equal(load(&bz, kernel), 0);

    unlink(path);
    assert_true(load(&bz, kernel) < 0);
    assert_fails(-ENOENT, path);
    test_image_free(&elf);
    test_image_free(&bz);
}

static void initrd_of_absurd_size(void **state)
{
    struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, COMPRESSION_LZ4);
    struct boot_kernel kernel = plain;
    char path[64];

    make_file(path, "", 0);
    assert_int_equal(truncate(path, 900 * MIB), 0);
    kernel.initrd_path = path;
    open_memory(512 * MIB);
    assert_true(load(&bz, kernel) < 0);
    assert_fails(-E2BIG, "(900 MiB) does not fit in 512 MiB of memory");
    assert_int_equal(truncate(path, 1ll << 40), 0);
    assert_true(load(&bz, kernel) < 0);
    assert_fails(-E2BIG, "too large");
    unlink(path);
    test_image_free(&elf);
    test_image_free(&bz);
}

/* ---- what is no kernel, or a broken one
 * ------------------------------------------------------------------ */

static void truncated_anywhere(void **state)
{
    for (enum compression c = COMPRESSION_NONE; c <= COMPRESSION_LZ4; c++) {
        struct image elf = test_elf_make(&small), bz = test_bzimage_make(&elf, c);

        open_memory(16 * MIB);
        for (size_t len = 0; len < bz.len; len += len < 0x280 ? 1 : 97) {
            struct image cut = {malloc(len + 1),
                                len}; /* its own allocation: a sanitizer sees a read past it */

            memcpy(cut.data, bz.data, len);
            memset(&err, 0, sizeof(err));
            if (load(&cut, plain) >= 0)
                fail_msg("%s cut to %zu of %zu bytes was taken", compression_name(c), len, bz.len);
            assert_int_equal(err.code, -ENOEXEC);
            test_image_free(&cut);
        }
        /* The header still says less than is there: the compressed data itself is cut. */
        for (uint32_t len = 0; len < bz.len - 1024 - 0x240 - 900; len += 61) {
            struct image cut = {malloc(bz.len), bz.len};

            memcpy(cut.data, bz.data, bz.len);
            qz_store_le32(cut.data + 0x24c, len);
            memset(&err, 0, sizeof(err));
            if (len >= 8 && load(&cut, plain) >= 0)
                fail_msg("%s with %u of %zu bytes was taken", compression_name(c), len, bz.len);
            test_image_free(&cut);
        }
        test_image_free(&elf);
        test_image_free(&bz);
    }
}

static void broken_headers(void **state)
{
    static const struct {
        unsigned at, width;
        uint64_t value;
        const char *says;
    } cases[] = {
        {0x1fe, 2, 0, "boot_flag"},
        {0x202, 1, 'X', "HdrS"},
        {0x206, 2, 0x20b, "2.11 is too old"},
        {0x201, 1, 0x10, "setup header"},
        {0x211, 1, 0, "zImage"},
        {0x236, 2, 0, "32-bit"},
        {0x1f1, 1, 255, "cut off"},
        {0x248, 4, 0xffffffff, "payload_offset"},
        {0x24c, 4, 0xffffffff, "payload_length"},
    };
    struct image elf = test_elf_make(&small);

    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        struct image bz = test_bzimage_make(&elf, COMPRESSION_LZ4);
        uint8_t value[8];

        qz_store_le64(value, cases[i].value);
        memcpy(bz.data + cases[i].at, value, cases[i].width);
        open_memory(16 * MIB);
        assert_true(load(&bz, plain) < 0);
        assert_fails(-ENOEXEC, cases[i].says);
        test_image_free(&bz);
    }
    test_image_free(&elf);
}

static void broken_segments(void **state)
{
    static const struct {
        struct test_segment second;
        uint64_t entry;
        int code;
        const char *says;
    } cases[] = {
        {{4 * MIB, 0x100, 0x200, 1, 0}, 2 * MIB, -ENOEXEC, "p_filesz"},
        {{0x9000, 0x1000, 0x1000, 1, 0}, 2 * MIB, -ENOEXEC, "below 1 MiB"},
        {{2 * MIB + 0x800, 0x1000, 0x1000, 1, 0}, 2 * MIB, -ENOEXEC, "overlaps"},
        {{UINT64_MAX - 10, 0x1000, 0x1000, 1, 0}, 2 * MIB, -ENOEXEC, "wraps"},
        {{15 * MIB - 0x800, 0x1000, 0x1000, 1, 0},
         2 * MIB,
         -E2BIG,
         "give the machine at least 18 MiB"},
        {{14 * MIB, 64 * MIB, 0x1000, 1, 0}, 2 * MIB, -E2BIG, "give the machine at least 80 MiB"},
        {{4ull << 30, 0x1000, 0x1000, 1, 0}, 2 * MIB, -E2BIG, "2 GiB"},
        {{4 * MIB, 0x1000, 0x1000, 1, 0}, 2 * MIB + 0x1000, -ENOEXEC, "entry"},
        {{4 * MIB, 0x1000, 0x1000, 1, 0}, 3, -ENOEXEC, "entry"},
    };

    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        const struct test_elf e = {.entry = cases[i].entry,
                                   .segments = 2,
                                   .segment = {{2 * MIB, 0x1000, 0x1000, 1, 0}, cases[i].second}};
        struct image elf = test_elf_make(&e), bz = test_bzimage_make(&elf, COMPRESSION_LZ4);

        open_memory(16 * MIB);
        assert_true(load(&bz, plain) < 0);
        assert_fails(cases[i].code, cases[i].says);
        memset(&err, 0, sizeof(err));
        assert_true(load(&elf, plain) < 0);
        assert_fails(cases[i].code, cases[i].says);
        test_image_free(&elf);
        test_image_free(&bz);
    }
}

static void no_kernel_file(void **state)
{
    const struct boot_kernel missing = {
        .kernel_path = "/nonexistent/vmlinuz", .cmdline = "", .protocol = -1};
    const struct boot_kernel folder = {.kernel_path = "/tmp", .cmdline = "", .protocol = -1};
    struct boot_kernel file = {.cmdline = "", .protocol = -1};
    char path[64];

    open_memory(16 * MIB);
    assert_int_equal(boot_kernel_load(&memory, &missing, &bsp, &report, &err), -ENOENT);
    assert_fails(-ENOENT, "/nonexistent/vmlinuz");
    assert_int_equal(boot_kernel_load(&memory, &folder, &bsp, &report, &err), -ENOEXEC);
    make_file(path, "", 0);
    file.kernel_path = path;
    assert_int_equal(boot_kernel_load(&memory, &file, &bsp, &report, &err), -ENOEXEC);
    assert_fails(-ENOEXEC, "empty");
    unlink(path);
    make_file(path, "#!/bin/sh\n", 10);
    assert_int_equal(boot_kernel_load(&memory, &file, &bsp, &report, &err), -ENOEXEC);
    assert_fails(-ENOEXEC, "not a Linux kernel image");
    unlink(path);
}

static void notes(void **state)
{
    uint8_t n[64] = {0};
    uint64_t entry = 0;

    qz_store_le32(n, 4);
    qz_store_le32(n + 4, 5);
    qz_store_le32(n + 8, 6); /* another note, its descriptor padded to 8 bytes */
    memcpy(n + 12, "Xen", 4);
    qz_store_le32(n + 24, 4);
    qz_store_le32(n + 28, 4);
    qz_store_le32(n + 32, 18);
    memcpy(n + 36, "Xen", 4);
    qz_store_le32(n + 40, 0x1234);
    assert_true(elf_pvh_entry(n, 44, &entry));
    assert_int_equal(entry, 0x1234);
    for (size_t len = 0; len < 44; len++)
        assert_false(elf_pvh_entry(n, len, &entry));
    qz_store_le32(n + 4, 0xffffffff);
    assert_false(elf_pvh_entry(n, 44, &entry));
}

/* ---- Debian's kernels
 * ------------------------------------------------------------------------------------ */

static void installed_kernels(void **state)
{
    struct boot_kernel kernel = plain;
    glob_t files;

    if (glob("/boot/vmlinuz-*-amd64", 0, NULL, &files) != 0) {
        print_message("skipped: no Debian kernel in /boot (apt install linux-image-cloud-amd64)\n");
        skip();
    }
    for (size_t i = 0; i < files.gl_pathc; i++) {
        uint64_t entry;

        kernel.kernel_path = files.gl_pathv[i];
        if (access(kernel.kernel_path, R_OK) < 0)
            continue; /* some installations keep them from everyone but root */
        kernel.protocol = -1;
        open_memory(256 * MIB);
        if (boot_kernel_load(&memory, &kernel, &bsp, &report, &err) < 0)
            fail_msg("%s", err.text);
        assert_linux64(report.entry);
        entry = report.entry;
        assert_int_equal(entry % (2 * MIB), 0); /* startup_64, at the beginning of the image */
        kernel.protocol = BOOT_PVH;
        open_memory(256 * MIB);
        if (boot_kernel_load(&memory, &kernel, &bsp, &report, &err) < 0)
            fail_msg("%s", err.text);
        assert_true(report.entry > entry && report.entry < entry + 64 * MIB);
        assert_int_equal(*ram(report.entry), 0xfc); /* pvh_start_xen begins with CLD */
    }
    globfree(&files);
}

/* ---- parallel jobs
 * ------------------------------------------------------------------------------------- */

static int count_job(void *context, unsigned worker, uint64_t i, struct qz_error *e)
{
    unsigned *seen = context;

    __atomic_fetch_add(&seen[i], 1, __ATOMIC_RELAXED);
    return i == 70 ? qz_fail(e, -EIO, "job %u", (unsigned)i) : 0;
}

static void jobs_run_once(void **state)
{
    unsigned seen[100] = {0};

    assert_int_equal(qz_parallel(64, count_job, seen, NULL, NULL, &err), 0);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(qz_parallel(0, count_job, seen, NULL, NULL, &err), 0);
    assert_int_equal(qz_parallel(100, count_job, seen, NULL, NULL, &err), -EIO);
    assert_string_equal(err.text, "job 70");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_compression),
        cmocka_unit_test(large_image),
        cmocka_unit_test(elf_enters_by_pvh),
        cmocka_unit_test(protocol_can_be_forced),
        cmocka_unit_test(own_decompressor),
        cmocka_unit_test(memory_map),
        cmocka_unit_test(command_line_is_never_cut),
        cmocka_unit_test(initrd_and_second_archive),
        cmocka_unit_test(initrd_of_absurd_size),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(broken_headers),
        cmocka_unit_test(broken_segments),
        cmocka_unit_test(no_kernel_file),
        cmocka_unit_test(notes),
        cmocka_unit_test(installed_kernels),
        cmocka_unit_test(jobs_run_once),
    };

    return cmocka_run_group_tests_name("boot", tests, setup, close_memory);
}

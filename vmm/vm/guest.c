/*
 * guest.c - what the machine boots (guest.h).
 *
 * A command after "--" reaches the guest as one more cpio archive behind the initial RAM disk: the
 * file /queztl/command with the arguments, each ended by a zero byte. The guest image's init runs
 * it and reports its exit code through the console port org.queztl.exit.
 */
#include "vm/guest.h"

#include "devices/fw_cfg.h"
#include "devices/pci.h"
#include "vm/acpi_tables.h"

struct guest_source {
    const struct vm_config *config;
    const char *cmdline;
    uint8_t *archive;
    size_t archive_len;
    bool files_added; /* firmware: fw_cfg keeps its files across resets */
};

/* ---- the command archive (cpio "newc": 110 bytes of hexadecimal header, name, data, each padded
 * to 4) ---- */

static void cpio_entry(FILE *f, const char *name, unsigned mode, const void *data, size_t len)
{
    static const char zeros[4];
    size_t name_len = strlen(name) + 1;

    fprintf(f, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", 0, mode, 0, 0, 1, 0,
            len, 0, 0, 0, 0, name_len, 0);
    fwrite(name, 1, name_len, f);
    fwrite(zeros, 1, -(110 + name_len) & 3, f);
    if (len)
        fwrite(data, 1, len, f);
    fwrite(zeros, 1, -len & 3, f);
}

static int make_archive(struct guest_source *g, char **command, struct qz_error *err)
{
    QZ_AUTO_FREE char *arguments = NULL;
    char *archive = NULL;
    size_t len = 0, archive_len = 0;
    FILE *f = open_memstream(&arguments, &len);
    int failed;

    if (!f)
        return qz_fail(err, -ENOMEM, "no memory");
    for (char **arg = command; *arg; arg++)
        fwrite(*arg, 1, strlen(*arg) + 1, f);
    failed = fclose(f);
    f = failed ? NULL : open_memstream(&archive, &archive_len);
    if (!f)
        return qz_fail(err, -ENOMEM, "no memory");
    cpio_entry(f, "queztl", 040755, NULL, 0);
    cpio_entry(f, "queztl/command", 0100644, arguments, len);
    cpio_entry(f, "TRAILER!!!", 0, NULL, 0);
    if (fclose(f))
        return qz_fail(err, -ENOMEM, "no memory");
    g->archive = (uint8_t *)archive;
    g->archive_len = archive_len;
    return 0;
}

static int check_readable(const char *what, const char *path, struct qz_error *err)
{
    if (path && access(path, R_OK) < 0)
        return qz_fail(err, -errno, "%s %s: %s", what, path, strerror(errno));
    return 0;
}

int guest_source_new(struct guest_source **out, const struct vm_config *config,
                     struct qz_error *err)
{
    struct guest_source *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return qz_fail(err, -ENOMEM, "no memory");
    *out = g;
    g->config = config;
    g->cmdline = config->append ? config->append : "console=ttyS0 panic=-1";
    if ((r = check_readable("kernel", config->kernel, err)) < 0 ||
        (r = check_readable("initial RAM disk", config->initrd, err)) < 0)
        return r;
    return config->command ? make_archive(g, config->command, err) : 0;
}

void guest_source_free(struct guest_source *g)
{
    if (!g)
        return;
    free(g->archive);
    free(g);
}

unsigned guest_source_paths(const struct guest_source *g, struct confine_path *paths, unsigned max)
{
    const char *files[] = {g->config->kernel, g->config->initrd};
    unsigned n = 0;

    for (size_t i = 0; i < QZ_ARRAY_LEN(files) && n < max; i++)
        if (files[i])
            paths[n++] = (struct confine_path){files[i], false};
    return n;
}

/* ---- direct kernel boot
 * --------------------------------------------------------------------------------- */

static int place_acpi(struct machine *m, struct qz_error *err)
{
    uint64_t tables_gpa = m->memory.low_size - BOOT_ACPI_SIZE;
    uint8_t rsdp[QZ_ACPI_RSDP_SIZE];
    struct qz_acpi_tables t;
    struct qz_acpi_blob out;
    int r;

    acpi_tables_build(&t, m);
    qz_acpi_blob_init(&out, BOOT_ACPI_SIZE);
    r = qz_acpi_place(&t, BOOT_RSDP, tables_gpa, rsdp, &out, err);
    if (r >= 0)
        r = mem_write(&m->memory, gpa(BOOT_RSDP), rsdp, sizeof(rsdp));
    if (r >= 0)
        r = mem_write(&m->memory, gpa(tables_gpa), out.data, out.len);
    qz_acpi_blob_fini(&out);
    qz_acpi_tables_fini(&t);
    return r < 0 ? r : 0;
}

static int load_kernel(struct guest_source *g, struct machine *m, struct vcpu_state *bsp,
                       struct boot_report *report, struct qz_error *err)
{
    const struct boot_kernel kernel = {
        .kernel_path = g->config->kernel,
        .initrd_path = g->config->initrd,
        .cmdline = g->cmdline,
        .extra_initrd = g->archive,
        .extra_initrd_size = g->archive_len,
        .protocol = g->config->protocol,
    };
    int r;

    pci_assign_resources(m->pci); /* there is no firmware to do it */
    r = boot_kernel_load(&m->memory, &kernel, bsp, report, err);
    return r < 0 ? r : place_acpi(m, err);
}

/* ---- firmware
 * -----------------------------------------------------------------------------------------------
 */

/* The e820 file of fw_cfg: 20 byte entries, RAM and reserved ranges. */
static int add_e820(struct machine *m, struct fw_cfg *fw)
{
    struct e820_entry map[E820_MAX];
    unsigned n = boot_e820(&m->memory, false, map);
    uint8_t file[E820_MAX * 20];

    for (unsigned i = 0; i < n; i++) {
        qz_store_le64(file + i * 20, map[i].base);
        qz_store_le64(file + i * 20 + 8, map[i].size);
        qz_store_le32(file + i * 20 + 16, map[i].type);
    }
    return fw_cfg_add_file(fw, "etc/e820", file, n * 20);
}

static int add_firmware_files(struct machine *m, struct fw_cfg *fw, struct qz_error *err)
{
    struct qz_acpi_blob rsdp, tables, loader;
    struct qz_acpi_tables t;
    int r;

    acpi_tables_build(&t, m);
    qz_acpi_blob_init(&rsdp, 4096);
    qz_acpi_blob_init(&tables, QZ_ACPI_BYTES_MAX);
    qz_acpi_blob_init(&loader, 1 << 20);
    r = qz_acpi_export(&t, &rsdp, &tables, &loader, err);
    if (r >= 0 && ((r = fw_cfg_add_file(fw, QZ_ACPI_FILE_RSDP, rsdp.data, rsdp.len)) < 0 ||
                   (r = fw_cfg_add_file(fw, QZ_ACPI_FILE_TABLES, tables.data, tables.len)) < 0 ||
                   (r = fw_cfg_add_file(fw, QZ_ACPI_FILE_LOADER, loader.data, loader.len)) < 0 ||
                   (r = add_e820(m, fw)) < 0))
        qz_fail(err, r, "fw_cfg: cannot add a file: %s", strerror(-r));
    qz_acpi_blob_fini(&rsdp);
    qz_acpi_blob_fini(&tables);
    qz_acpi_blob_fini(&loader);
    qz_acpi_tables_fini(&t);
    return r < 0 ? r : 0;
}

int guest_prepare(struct guest_source *g, struct machine *m, struct pc *pc, struct qz_error *err)
{
    int r;

    if (g->config->kernel || g->files_added)
        return 0;
    r = add_firmware_files(m, pc->fw_cfg, err);
    g->files_added = r == 0;
    return r;
}

int guest_load(struct guest_source *g, struct machine *m, struct pc *pc, struct vcpu_state *bsp,
               struct boot_report *report, struct qz_error *err)
{
    if (g->config->kernel)
        return load_kernel(g, m, bsp, report, err);
    /* *bsp stays at the reset vector, in the firmware */
    *report = (struct boot_report){.protocol = "firmware", .compression = "none"};
    return guest_prepare(g, m, pc, err);
}

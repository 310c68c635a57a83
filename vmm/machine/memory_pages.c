/*
 * memory_pages.c - memory of other pages than the usual ones (memory.h): equal ones that machines
 * share, and huge ones.
 *
 * Merging (KSM) looks at private pages only, so such memory is private from its beginning. It is
 * asked for by madvise() on guest memory alone; prctl(PR_SET_MEMORY_MERGE) would take everything
 * that this process has, the keys of its disks included, and who shares a page can tell by the time
 * that writing takes what is in it.
 *
 * Reserved huge pages are a file of hugetlbfs. The whole reservation is made by mapping it, so that
 * a touch never finds none (which would be SIGBUS, the machine's end). For the same reason no page
 * of it is given back: a hole in the file has no reservation any more.
 */
#include <linux/memfd.h>

#include "machine/memory_internal.h"

QZ_SYSCALLS(main, "mincore");

enum { PAGE = 4096, LOOK_PAGES = 65536 };

static const struct {
    uint64_t size;
    const char *name, *folder;
    unsigned memfd;
} kinds[] = {
    [MEMORY_PAGES_USUAL] = {PAGE, "off", NULL, 0},
    [MEMORY_PAGES_TRANSPARENT] = {PAGE, "transparent", NULL, 0},
    [MEMORY_PAGES_2MIB] = {2ull << 20, "2MiB", "/sys/kernel/mm/hugepages/hugepages-2048kB",
                           MFD_HUGETLB | MFD_HUGE_2MB},
    [MEMORY_PAGES_1GIB] = {1ull << 30, "1GiB", "/sys/kernel/mm/hugepages/hugepages-1048576kB",
                           MFD_HUGETLB | MFD_HUGE_1GB},
};

uint64_t memory_page_size(enum memory_pages pages)
{
    return kinds[pages].size;
}

const char *memory_pages_name(enum memory_pages pages)
{
    return kinds[pages].name;
}

/* ---- what the host has */

/* A number, or -1. */
static long long read_number(const char *folder, const char *name)
{
    char path[128];
    long long v;
    int n;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    QZ_AUTO_FILE FILE *f = fopen(path, "re");
    n = f ? fscanf(f, "%lld", &v) : 0;
    return n == 1 ? v : -1;
}

/* The chosen word of "always [madvise] never" into `word`; false: there is no such file. */
static bool read_choice(const char *path, char word[32])
{
    QZ_AUTO_FILE FILE *f = fopen(path, "re");
    char line[128] = "";
    const char *at = f && fgets(line, sizeof(line), f) ? strchr(line, '[') : NULL;

    return at && sscanf(at, "[%31[^]]", word) == 1;
}

static int check_merge(struct qz_error *err)
{
    const long long run = read_number("/sys/kernel/mm/ksm", "run");

    if (run < 0)
        return qz_fail(err, -ENOTSUP,
                       "--merge on: this kernel cannot merge pages (no /sys/kernel/mm/ksm): boot "
                       "one with CONFIG_KSM, or leave it out");
    if (run != 1)
        qz_warn("--merge on: the kernel is not looking for equal pages (ksm/run is %lld): echo 1 "
                ">/sys/kernel/mm/ksm/run",
                run);
    return 0;
}

/* Files in memory have a switch of their own, and so may have pages of 2 MiB. */
static int check_transparent(const struct memory_options *o, struct qz_error *err)
{
    static const char folder[] = "/sys/kernel/mm/transparent_hugepage";
    const char *name = o->merge ? "enabled" : "shmem_enabled";
    char path[128], word[32];

    snprintf(path, sizeof(path), "%s/hugepages-2048kB/%s", folder, name);
    if (!read_choice(path, word) || !strcmp(word, "inherit")) {
        snprintf(path, sizeof(path), "%s/%s", folder, name);
        if (!read_choice(path, word))
            return qz_fail(err, -ENOTSUP,
                           "--hugepages transparent: this kernel has none (%s is missing): boot "
                           "one with CONFIG_TRANSPARENT_HUGEPAGE, or leave it out",
                           path);
    }
    if (!strcmp(word, "never") || !strcmp(word, "deny"))
        return qz_fail(err, -ENOTSUP, "--hugepages transparent: they are switched off: echo %s >%s",
                       o->merge ? "madvise" : "advise", path);
    return 0;
}

static int check_reserved(const struct memory_options *o, uint64_t size, struct qz_error *err)
{
    if (o->merge || size % kinds[o->pages].size)
        return qz_fail(err, -EINVAL,
                       "memory: reserved pages of %s are never merged, and are taken as a whole",
                       kinds[o->pages].name);
    if (read_number(kinds[o->pages].folder, "nr_hugepages") < 0)
        return qz_fail(err, -ENOTSUP,
                       "--hugepages %s: this host has no such pages (%s is missing): choose "
                       "another size",
                       kinds[o->pages].name, kinds[o->pages].folder);
    return 0;
}

int memory_check_options(const struct memory_options *o, uint64_t size, struct qz_error *err)
{
    int r = 0;

    if (o->pages >= MEMORY_PAGES_2MIB)
        r = check_reserved(o, size, err);
    if (r == 0 && o->merge)
        r = check_merge(err);
    if (r == 0 && o->pages == MEMORY_PAGES_TRANSPARENT)
        r = check_transparent(o, err);
    return r;
}

int memory_too_few_pages(uint64_t size, enum memory_pages pages, struct qz_error *err)
{
    const char *folder = kinds[pages].folder;
    const long long all = read_number(folder, "nr_hugepages"),
                    reserved = read_number(folder, "resv_hugepages"),
                    unused = QZ_MAX(read_number(folder, "free_hugepages") - reserved, 0ll),
                    needed = (long long)(size / kinds[pages].size);

    return qz_fail(err, -ENOMEM,
                   "--hugepages %s: the machine needs %lld pages and %lld are free: echo %lld "
                   ">%s/nr_hugepages%s",
                   kinds[pages].name, needed, unused, all + QZ_MAX(needed - unused, 1ll), folder,
                   pages == MEMORY_PAGES_1GIB ? ", early after the host's boot" : "");
}

/* ---- memory of that kind */

int memory_file_new(uint64_t size, enum memory_pages pages)
{
    if (pages < MEMORY_PAGES_2MIB)
        return ram_file_new(size);
    QZ_AUTO_FD int fd =
        memfd_create("queztl-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING | kinds[pages].memfd);

    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return -errno;
    return QZ_TAKE_FD(fd);
}

int memory_advise(const struct guest_memory *m, uint8_t *at, uint64_t len)
{
    if (m->options.merge && madvise(at, len, MADV_MERGEABLE) < 0)
        return -errno;
    if (m->options.pages == MEMORY_PAGES_TRANSPARENT && madvise(at, len, MADV_HUGEPAGE) < 0)
        return -errno;
    return 0;
}

/* A file for the lowest layer, of which it has nothing: whoever goes on finds one at least. */
static struct memory_layers *empty_layers(uint64_t size)
{
    QZ_AUTO_FD int fd = ram_file_new(size);
    struct memory_layers *l = fd >= 0 && ram_file_seal(fd) == 0 ? layers_new(size) : NULL;

    if (l)
        layers_add(l, QZ_TAKE_FD(fd));
    return l;
}

int memory_begin_private(struct guest_memory *m)
{
    struct memory_layers *l = empty_layers(m->size);
    int r = l ? memory_map_zeroes(m, m->low, m->low_size) : -ENOMEM;

    if (r == 0 && m->high)
        r = memory_map_zeroes(m, m->high, m->high_size);
    if (r < 0) {
        layers_drop(l);
        return r;
    }
    layers_drop(m->layers);
    m->layers = l;
    memset(m->changed, CHUNK_AS_FROZEN, l->chunks);
    return 0;
}

/* Pages that were never touched are not brought by this. */
static int zero_part(uint8_t *at, uint64_t len, uint64_t page)
{
    uint8_t present[LOOK_PAGES];

    for (uint64_t done = 0; done < len;) {
        const uint64_t part = QZ_MIN(len - done, (uint64_t)LOOK_PAGES * PAGE);

        if (mincore(at + done, part, present) < 0)
            return -errno;
        for (uint64_t i = 0; i < part; i += QZ_MIN(page, part))
            if (present[i / PAGE] & 1)
                memset(at + done + i, 0, QZ_MIN(page, part));
        done += part;
    }
    return 0;
}

int memory_zero_in_place(const struct guest_memory *m)
{
    const uint64_t page = memory_page_size(m->options.pages);
    const int r = zero_part(m->low, m->low_size, page);

    return r < 0 || !m->high ? r : zero_part(m->high, m->high_size, page);
}

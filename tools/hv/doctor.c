/*
 * doctor.c - `queztl-hv doctor`: what this host can do. Every line is found out by trying or
 * reading, and what is missing comes with its cure.
 */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/landlock.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "cpu/accel.h"
#include "queztl-hv.h"
#include "snapshot/userfault.h"

enum level { GOOD, PARTLY, MISSING };

struct finding {
    const char *topic;
    enum level level;
    char found[240];
    char cure[240]; /* empty when nothing is to be done */
};

enum { FINDINGS_MAX = 16 };

struct report {
    struct finding finding[FINDINGS_MAX];
    unsigned count;
};

static struct finding *add(struct report *r, const char *topic, enum level level)
{
    struct finding *f = &r->finding[r->count++];

    f->topic = topic;
    f->level = level;
    return f;
}

#define SAY(field, ...) snprintf(field, sizeof(field), __VA_ARGS__)

static long read_number(const char *path)
{
    QZ_AUTO_FILE FILE *f = fopen(path, "re");
    long v;

    return f && fscanf(f, "%ld", &v) == 1 ? v : -1;
}

/* Entries of a directory that do not begin with a dot, -1 when it is not there. */
static int count_entries(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int n = 0;

    if (!d)
        return -1;
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void check_cpu(struct report *r)
{
    const struct accel_ops *ops;
    struct accel_probe probe = {0};
    struct qz_error err = {0};
    struct finding *f;
    bool ok = accel_choose("auto", &ops, &probe, &err) == 0;

    f = add(r, "CPU back end", ok ? GOOD : MISSING);
    SAY(f->found, "%s%s%s", ok ? ops->name : "", ok ? ": " : "",
        probe.reason[0] ? probe.reason : err.text);
    if (!ok)
        SAY(f->cure,
            "a host with VT-x or SVM (nested virtualization switched on, if this is a VM itself)");
}

static void check_io_uring(struct report *r)
{
    struct finding *f;
    long fd = syscall(SYS_io_uring_setup, 1, &(char[256]){0});

    if (fd >= 0) {
        close(fd);
        f = add(r, "io_uring", GOOD);
        SAY(f->found, "available to this user");
        return;
    }
    f = add(r, "io_uring", MISSING);
    SAY(f->found, "io_uring_setup: %s", strerror(errno));
    SAY(f->cure, errno == ENOSYS
                     ? "Linux 5.10 or newer"
                     : "sysctl kernel.io_uring_disabled=0, or a looser container profile");
}

static void check_landlock(struct report *r)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct finding *f = add(r, "Landlock", abi > 0 ? GOOD : MISSING);

    if (abi > 0) {
        SAY(f->found, "ABI %ld: machines see only their own files", abi);
    } else {
        SAY(f->found, "%s", strerror(errno));
        SAY(f->cure, "boot the kernel with lsm=landlock,... (Linux 5.13 or newer)");
    }
}

static void check_huge_pages(struct report *r)
{
    long total = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    long unused = read_number("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    struct finding *f = add(r, "huge pages", total > 0 ? GOOD : total == 0 ? PARTLY : MISSING);

    if (total >= 0)
        SAY(f->found, "%ld pages of 2 MiB reserved, %ld free", total, unused);
    else
        SAY(f->found, "the kernel has none");
    if (total <= 0)
        SAY(f->cure, "sysctl vm.nr_hugepages=N reserves N pages of 2 MiB");
}

/* The chosen word of "always [madvise] never"; "" when there is no such file. */
static void read_choice(const char *path, char word[32])
{
    QZ_AUTO_FILE FILE *f = fopen(path, "re");
    char line[128] = "";
    const char *at = f && fgets(line, sizeof(line), f) ? strchr(line, '[') : NULL;

    if (!at || sscanf(at, "[%31[^]]", word) != 1)
        word[0] = '\0';
}

static void check_transparent(struct report *r)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    char word[32];
    bool on;
    struct finding *f;

    read_choice(path, word);
    on = word[0] && strcmp(word, "never") && strcmp(word, "deny");
    f = add(r, "transparent", on ? GOOD : word[0] ? PARTLY : MISSING);
    SAY(f->found, "huge pages for memory of machines: %s", word[0] ? word : "the kernel has none");
    if (word[0] && !on)
        SAY(f->cure, "for --hugepages transparent: echo advise >%s", path);
}

static void check_merging(struct report *r)
{
    long run = read_number("/sys/kernel/mm/ksm/run");
    struct finding *f = add(r, "equal pages", run == 1 ? GOOD : run >= 0 ? PARTLY : MISSING);

    SAY(f->found, "KSM %s",
        run == 1   ? "looks for them"
        : run >= 0 ? "is switched off"
                   : "is not in this kernel (CONFIG_KSM)");
    if (run >= 0 && run != 1)
        SAY(f->cure, "for --merge on: echo 1 >/sys/kernel/mm/ksm/run");
}

static void check_pressure(struct report *r)
{
    QZ_AUTO_FD int fd = open("/proc/pressure/memory", O_RDONLY | O_CLOEXEC);
    char text[128] = "";
    bool told = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0;
    struct finding *f = add(r, "memory pressure", told ? GOOD : MISSING);

    if (told) {
        text[strcspn(text, "\n")] = '\0';
        SAY(f->found, "%s", text);
    } else {
        SAY(f->found, "/proc/pressure/memory: %s", strerror(errno));
        SAY(f->cure, "for --balloon auto: boot the kernel with psi=1 (CONFIG_PSI)");
    }
}

static void check_cgroups(struct report *r)
{
    QZ_AUTO_FILE FILE *list = fopen("/sys/fs/cgroup/cgroup.controllers", "re");
    struct finding *f = add(r, "cgroups", list ? GOOD : MISSING);
    char controllers[160] = "";

    if (list && fgets(controllers, sizeof(controllers), list)) {
        controllers[strcspn(controllers, "\n")] = '\0';
        SAY(f->found, "version 2: %s", controllers);
    } else {
        SAY(f->found, "no version 2 hierarchy at /sys/fs/cgroup");
        SAY(f->cure, "mount -t cgroup2 none /sys/fs/cgroup, or boot with "
                     "systemd.unified_cgroup_hierarchy=1");
    }
}

static void check_tap(struct report *r)
{
    QZ_AUTO_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct finding *f = add(r, "TAP networking", fd >= 0 ? GOOD : PARTLY);

    if (fd >= 0) {
        SAY(f->found, "/dev/net/tun opens");
    } else {
        SAY(f->found, "/dev/net/tun: %s; --net user works without it", strerror(errno));
        SAY(f->cure, "modprobe tun, then ip tuntap add NAME mode tap user %s",
            getenv("USER") ? getenv("USER") : "YOU");
    }
}

static void check_firmware(struct report *r)
{
    bool there = access("/usr/share/OVMF/OVMF_CODE_4M.fd", R_OK) == 0;
    struct finding *f = add(r, "UEFI firmware", there ? GOOD : MISSING);

    SAY(f->found, "/usr/share/OVMF/OVMF_CODE_4M.fd%s",
        there ? "" : " is missing: disk images cannot boot");
    if (!there)
        SAY(f->cure, "apt install ovmf");
}

/* What fails is told as "what: cure". */
static void check_userfaultfd(struct report *r)
{
    struct qz_error err = {0};
    const bool can = userfault_check(&err) == 0;
    struct finding *f = add(r, "lazy restore", can ? GOOD : PARTLY);
    char *colon = strchr(err.text, ':');

    if (can) {
        SAY(f->found, "memory of snapshots is loaded while machines run (userfaultfd)");
        return;
    }
    SAY(f->found, "%.*s; memory of snapshots is loaded before machines begin",
        colon ? (int)(colon - err.text) : (int)strlen(err.text), err.text);
    if (colon)
        SAY(f->cure, "%.200s", colon + 2);
}

/* Hardware of which a host has some or none. */
static void check_devices(struct report *r, const char *topic, const char *dir, const char *what,
                          const char *cure)
{
    int n = count_entries(dir);
    struct finding *f = add(r, topic, n > 0 ? GOOD : MISSING);

    SAY(f->found, "%d %s in %s", n > 0 ? n : 0, what, dir);
    if (n <= 0)
        SAY(f->cure, "%s", cure);
}

static void print_table(const struct report *r, FILE *out)
{
    static const char *const marks[] = {"yes", "partly", "no"};
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");

    for (unsigned i = 0; i < r->count; i++) {
        const struct finding *f = &r->finding[i];

        fprintf(out, "%s%-7s%s %-16s %s\n", colour ? colours[f->level] : "", marks[f->level],
                colour ? "\033[0m" : "", f->topic, f->found);
        if (f->cure[0])
            fprintf(out, "%25scure: %s\n", "", f->cure);
    }
}

static json_t *to_json(const struct report *r)
{
    static const char *const levels[] = {"yes", "partly", "no"};
    json_t *list = json_array();

    for (unsigned i = 0; i < r->count; i++) {
        const struct finding *f = &r->finding[i];
        json_t *o = json_pack("{s:s,s:s,s:s}", "topic", f->topic, "works", levels[f->level],
                              "found", f->found);

        if (f->cure[0])
            json_object_set_new(o, "cure", json_string(f->cure));
        json_array_append_new(list, o);
    }
    return list;
}

/* A JSON string is a YAML scalar, so quoting is settled. */
static void print_yaml(json_t *list, FILE *out)
{
    size_t i;
    json_t *item, *value;
    const char *key;

    json_array_foreach(list, i, item)
    {
        const char *lead = "- ";

        json_object_foreach(item, key, value)
        {
            QZ_AUTO_FREE char *text = json_dumps(value, JSON_ENCODE_ANY);

            fprintf(out, "%s%s: %s\n", lead, key, text ? text : "");
            lead = "  ";
        }
    }
}

struct doctor_config {
    const char *format;
};

static int set_format(void *target, const char *value, struct qz_error *err)
{
    struct doctor_config *c = target;

    c->format = value;
    if (strcmp(value, "table") && strcmp(value, "json") && strcmp(value, "yaml"))
        return qz_fail(err, -EINVAL, "\"%s\": choose table, json or yaml", value);
    return 0;
}

const struct qz_option hv_doctor_options[] = {
    {"format", "table|json|yaml", "how to print (default table)", set_format},
    {NULL, NULL, NULL, NULL},
};

int hv_doctor(int argc, char **argv)
{
    struct doctor_config config = {"table"};
    struct qz_error err;
    struct report r = {0};
    int used = qz_options_parse(hv_doctor_options, argc, argv, &config, &err);

    if (used >= 0 && used < argc)
        used = qz_fail(&err, -EINVAL, "\"%s\" is too much", argv[used]);
    if (used < 0)
        return qz_complain("queztl-hv doctor", QZ_EXIT_USAGE, &err);
    check_cpu(&r);
    check_io_uring(&r);
    check_landlock(&r);
    check_huge_pages(&r);
    check_transparent(&r);
    check_merging(&r);
    check_pressure(&r);
    check_cgroups(&r);
    check_tap(&r);
    check_firmware(&r);
    check_userfaultfd(&r);
    check_devices(&r, "NVMe", "/sys/class/nvme", "controllers",
                  "none needed unless you pass NVMe devices through");
    check_devices(
        &r, "VFIO", "/sys/kernel/iommu_groups", "IOMMU groups",
        "switch the IOMMU on in firmware, and intel_iommu=on on the kernel command line for Intel");
    check_devices(&r, "RDMA", "/sys/class/infiniband", "devices",
                  "an RDMA card, or soft RoCE: rdma link add rxe0 type rxe netdev DEV");
    if (!strcmp(config.format, "table")) {
        print_table(&r, stdout);
    } else {
        json_t *list = to_json(&r);

        if (!strcmp(config.format, "json")) {
            json_dumpf(list, stdout, JSON_INDENT(2));
            printf("\n");
        } else {
            print_yaml(list, stdout);
        }
        json_decref(list);
    }
    return r.finding[0].level == GOOD ? QZ_EXIT_OK : QZ_EXIT_FAILED;
}

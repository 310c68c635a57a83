/* config.c - the options of a virtual machine and what makes sense together (config.h). */
#include "vm/config.h"

#include <ctype.h>

#include "boot/boot.h"
#include "cpu/accel.h"
#include "devices/virtio/devices.h"
#include "machine/memory.h"
#include "vm/config_items.h"
#include "vm/config_parts.h"

static int set_jit(struct vm_config *c, const char *v, struct qz_error *err)
{
    QZ_AUTO_FREE char *copy = strdup(v);
    char *rest = copy, *item;
    bool seeded = false;

    while ((item = next_item(&rest))) {
        const char *seed = value_of(item, "seed");

        if (!strcmp(item, "interpret"))
            c->interpret = true;
        else if (!strcmp(item, "deterministic"))
            c->deterministic = true;
        else if (!seed)
            return qz_fail(
                err, -EINVAL,
                "\"%s\": the software CPU knows interpret, deterministic and seed=", item);
        else if (qz_parse_u64(seed, "seed", 0, UINT64_MAX, &c->seed, err) < 0)
            return err->code;
        seeded |= seed != NULL;
    }
    if (seeded && !c->deterministic)
        return qz_fail(err, -EINVAL, "seed= belongs to jit,deterministic");
    return 0;
}

static int set_accel(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    char known[128] = "auto";
    bool found = !strcmp(v, "auto");

    c->accel_given = v;
    c->interpret = c->deterministic = false;
    c->seed = 0;
    c->accel = v;
    if (!strncmp(v, "jit,", 4)) {
        c->accel = "jit";
        return set_jit(c, v + 4, err);
    }
    for (unsigned i = 0; accel_all[i]; i++) {
        size_t used = strlen(known);

        found |= !strcmp(c->accel, accel_all[i]->name);
        snprintf(known + used, sizeof(known) - used, ", %s", accel_all[i]->name);
    }
    return found
               ? 0
               : qz_fail(err, -EINVAL, "\"%s\" is not an accelerator of this build: %s", v, known);
}

static int set_cpu_model(void *t, const char *v, struct qz_error *err)
{
    return cpu_model_parse(v, &((struct vm_config *)t)->model, err);
}

static int set_cpus(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    QZ_AUTO_FREE char *copy = strdup(v);
    char *rest = copy, *item = next_item(&rest);
    uint64_t n;
    int r = qz_parse_u64(item, "number of vCPUs", 1, VM_CPUS_MAX, &n, err);

    c->cpus = n;
    while (r == 0 && (item = next_item(&rest))) {
        const char *s = value_of(item, "sockets"), *k = value_of(item, "cores"),
                   *h = value_of(item, "threads");

        if (!s && !k && !h)
            return qz_fail(err, -EINVAL, "unknown key in \"%s\" (sockets, cores, threads)", item);
        r = qz_parse_u64(s   ? s
                         : k ? k
                             : h,
                         s   ? "sockets"
                         : k ? "cores"
                             : "threads",
                         1, VM_CPUS_MAX, &n, err);
        *(s ? &c->topology.sockets : k ? &c->topology.cores : &c->topology.threads) = n;
    }
    return r;
}

static int set_kernel(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->kernel = v;
    return 0;
}
static int set_initrd(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->initrd = v;
    return 0;
}
static int set_append(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->append = v;
    return 0;
}
static int set_firmware(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->firmware = v;
    return 0;
}
static int set_firmware_vars(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->firmware_vars = v;
    return 0;
}
static int set_protocol(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;

    if (!strcmp(v, "auto"))
        c->protocol = -1;
    else if (!strcmp(v, "linux64"))
        c->protocol = BOOT_LINUX64;
    else if (!strcmp(v, "pvh"))
        c->protocol = BOOT_PVH;
    else
        return qz_fail(err, -EINVAL, "\"%s\" is not a boot protocol (auto, linux64, pvh)", v);
    return 0;
}

static int set_console(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->console = v;
    return 0;
}
static int set_control(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->control = v;
    return 0;
}

static int set_gdb(void *t, const char *v, struct qz_error *err)
{
    return gdb_address_parse(v, &((struct vm_config *)t)->gdb, err);
}

static int set_name(void *t, const char *v, struct qz_error *err)
{
    for (const char *p = v; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return qz_fail(err, -EINVAL, "\"%s\": letters, digits, '-', '_' and '.' only", v);
    if (!*v || strlen(v) > 63)
        return qz_fail(err, -EINVAL, "a name has 1 to 63 characters");
    ((struct vm_config *)t)->name = v;
    return 0;
}

static int set_debug_log(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->debug_log = v;
    return 0;
}
static int set_state_log(void *t, const char *v, struct qz_error *err)
{
    struct state_log_config *c = &((struct vm_config *)t)->state_log;
    char *copy = strdup(v), *rest = copy, *item = next_item(&rest);

    *c = (struct state_log_config){.path = item}; /* the copy stays */
    if (!copy || !*copy)
        return qz_fail(err, -EINVAL, "\"%s\": write FILE,every=N", v);
    while ((item = next_item(&rest))) {
        static const struct {
            const char *key;
            size_t offset;
        } keys[] = {{"every", offsetof(struct state_log_config, every)},
                    {"also", offsetof(struct state_log_config, also)},
                    {"dense", offsetof(struct state_log_config, dense)}};
        int r = -ENOENT;

        for (unsigned i = 0; i < QZ_ARRAY_LEN(keys); i++) {
            const char *n = value_of(item, keys[i].key);

            if (n)
                r = qz_parse_u64(n, keys[i].key, 1, INT64_MAX / 4,
                                 (uint64_t *)((char *)c + keys[i].offset), err);
        }
        if (r == -ENOENT)
            return qz_fail(err, -EINVAL, "\"%s\" is neither every=, also= nor dense=", item);
        if (r < 0)
            return r;
    }
    if (!c->every && !c->also && !c->dense)
        return qz_fail(err, -EINVAL, "\"%s\": say when, with every=N", v);
    return 0;
}

static int set_snapshot(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    int end = 0;

    c->snapshot = v;
    if (strncmp(v, "fd:", 3))
        return 0;
    if (sscanf(v, "fd:%d,%d%n,%d%n", &c->snapshot_state, &c->snapshot_memory, &end,
               &c->snapshot_pager, &end) < 2 ||
        v[end] || c->snapshot_state < 3 || c->snapshot_memory < 3 ||
        c->snapshot_state == c->snapshot_memory ||
        (c->snapshot_pager >= 0 && c->snapshot_pager < 3) ||
        c->snapshot_pager == c->snapshot_state || c->snapshot_pager == c->snapshot_memory)
        return qz_fail(err, -EINVAL,
                       "\"%s\": write fd:STATE,MEMORY or fd:STATE,MEMORY,PAGER, open descriptors",
                       v);
    return 0;
}

static int set_load(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->load = v;
    return strcmp(v, "auto") && strcmp(v, "lazy") && strcmp(v, "eager")
               ? qz_fail(err, -EINVAL, "\"%s\": choose auto, lazy or eager", v)
               : 0;
}

static int set_timeout(void *t, const char *v, struct qz_error *err)
{
    return qz_parse_u64(v, "seconds", 1, 1000000000, &((struct vm_config *)t)->timeout_s, err);
}

static int set_irqchip(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;

    c->own_lapic = !strcmp(v, "user");
    if (!c->own_lapic && strcmp(v, "split"))
        return qz_fail(err, -EINVAL,
                       "\"%s\": choose split (local APICs in the kernel) or user (all ours)", v);
    return 0;
}

static int set_trace_start(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->trace_start = true;
    return 0;
}
static int set_verbose(void *t, const char *v, struct qz_error *err)
{
    ((struct vm_config *)t)->verbose = true;
    return 0;
}

const struct qz_option vm_options[] = {
    {"accel", "auto|kvm|jit",
     "what executes guest code (default auto: the best that works here);\njit,interpret: the "
     "software CPU without translation; jit,deterministic[,seed=N]: the same input\ngives the same "
     "run, instruction for instruction",
     set_accel},
    {"cpu", "MODEL", "portable (x86-64-v2, default), v3, or host", set_cpu_model},
    {"cpus", "N[,sockets=,cores=,threads=]", "vCPUs, 1 to 256 (default 1)", set_cpus},
    {"memory", "SIZE", "guest memory, such as 512M or 2GiB (default 512M)", config_set_memory},
    {"balloon", "manual|auto[,min=SIZE][,pressure=N]",
     "who decides what the guest gives back: the control socket (default), or the host's memory\n"
     "pressure: while tasks stand for memory N percent of the time (default 5), unused memory\n"
     "is taken; SIZE is always left (default: a quarter)",
     config_set_balloon},
    {"merge", "on|off",
     "memory pages that are equal to those of other machines are kept once (KSM; default off):\n"
     "guests can find out by timing what others have (docs/security.md)",
     config_set_merge},
    {"hugepages", "off|transparent|2MiB|1GiB",
     "pages of the host under guest memory: 4 KiB (default), larger ones where there are\n"
     "some, or all of memory reserved in pages of this size",
     config_set_hugepages},
    {"kernel", "FILE", "a bzImage or ELF vmlinux to boot directly", set_kernel},
    {"initrd", "FILE", "initial RAM disk for --kernel", set_initrd},
    {"append", "TEXT", "kernel command line", set_append},
    {"protocol", "auto|linux64|pvh", "how --kernel is entered (default auto)", set_protocol},
    {"firmware", "FILE", "UEFI firmware, such as OVMF_CODE_4M.fd", set_firmware},
    {"firmware-vars", "FILE",
     "this machine's variable store, written to; without it variables\nlast until the machine ends",
     set_firmware_vars},
    {"disk", "FILE[,KEY=VALUE]...",
     "a disk image or block device; keys: format=raw|qcow2, readonly, iops=N, bps=SIZE,\n"
     "cache=writeback|none|writethrough|unsafe and others of queztl-disk; queues=N,\n"
     "iothreads=N, on-error=report|stop|ignore, packed=on|off, serial=TEXT,\n"
     "bus=virtio; repeatable",
     vm_config_add_disk},
    {"net", "user|tap:NAME|none",
     "a network device; keys mac=, and for user forward=HOSTPORT:GUESTPORT;\nrepeatable (default "
     "user)",
     config_set_net},
    {"vsock", "CID,PATH",
     "a vsock device: guest port P is the unix socket PATH_P, and PATH takes\n\"CONNECT P\" from "
     "the host",
     config_set_vsock},
    {"console", "stdio|FILE|none", "where the guest's console goes (default stdio)", set_console},
    {"control", "PATH", "make a control socket there (JSON lines)", set_control},
    {"gdb", "unix:PATH|tcp:HOST:PORT[,wait]",
     "a debugger may connect there (gdb: target remote PATH or HOST:PORT) and own\nthe guest; "
     "wait: the machine starts when it says so",
     set_gdb},
    {"name", "NAME", "a name for messages and info", set_name},
    {"timeout", "SECONDS", "end the machine after this long, with exit code 124", set_timeout},
    {"snapshot", "DIR|fd:STATE,MEMORY",
     "go on from a snapshot instead of booting: its folder (queztl-hv snapshot makes one), or\n"
     "open descriptors of its parts, with the options of the machine that it is of",
     set_snapshot},
    {"load", "auto|lazy|eager",
     "memory of a snapshot's folder: as the guest needs it, or before it goes on (default auto:\n"
     "lazily where that is quicker and the host can)",
     set_load},
    {"irqchip", "split|user", "local APICs in the kernel (default) or our own", set_irqchip},
    {"debug-log", "FILE", "what firmware writes to port 0x402", set_debug_log},
    {"state-log", "FILE,every=N[,also=N][,dense=N]",
     "with jit,deterministic: registers and a hash of memory at each Nth nanosecond of\nvirtual "
     "time, also at one more, and densely at each from one on",
     set_state_log},
    {"trace-start", NULL, "say on standard error how long the start took, by phases",
     set_trace_start},
    {"verbose", NULL, "say what happens", set_verbose},
    {NULL, NULL, NULL, NULL},
};

static int check_topology(struct vm_config *c, struct qz_error *err)
{
    struct cpu_topology *t = &c->topology;

    if (!t->sockets && !t->cores && !t->threads) {
        *t = (struct cpu_topology){1, c->cpus, 1};
        return 0;
    }
    t->sockets = t->sockets ? t->sockets : 1;
    t->threads = t->threads ? t->threads : 1;
    t->cores = t->cores ? t->cores : QZ_MAX(c->cpus / (t->sockets * t->threads), 1u);
    if ((uint64_t)t->sockets * t->cores * t->threads != c->cpus)
        return qz_fail(err, -EINVAL,
                       "--cpus: %u sockets x %u cores x %u threads make %llu vCPUs, not %u",
                       t->sockets, t->cores, t->threads,
                       (unsigned long long)t->sockets * t->cores * t->threads, c->cpus);
    return 0;
}

int vm_config_parse(struct vm_config *c, int argc, char **argv, struct qz_error *err)
{
    int i;

    *c = (struct vm_config){
        .accel = "auto",
        .model = CPU_MODEL_PORTABLE,
        .cpus = 1,
        .memory = 512ull << 20,
        .protocol = -1,
        .console = "stdio",
        .name = "vm",
        .snapshot_state = -1,
        .snapshot_memory = -1,
        .snapshot_pager = -1,
        .balloon.pressure = BALLOON_PRESSURE,
    };
    i = qz_options_parse(vm_options, argc, argv, c, err);
    if (i < 0)
        return i;
    if (i < argc && strcmp(argv[i], "--"))
        c->image = argv[i++];
    if (i < argc && strcmp(argv[i], "--"))
        return qz_fail(err, -EINVAL,
                       "one image at most; \"%s\" is too much (a command goes after --)", argv[i]);
    if (i + 1 < argc)
        c->command = argv + i + 1;
    if (c->memory < GUEST_RAM_MIN || c->memory > GUEST_RAM_MAX || c->memory % 4096)
        return qz_fail(
            err, -EINVAL,
            "--memory: %llu bytes are not possible: from 2M to 512G, in whole pages of 4 KiB",
            (unsigned long long)c->memory);
    if (c->state_log.path && !c->deterministic)
        return qz_fail(err, -EINVAL, "--state-log needs --accel jit,deterministic");
    if (c->initrd && !c->kernel)
        return qz_fail(err, -EINVAL, "--initrd needs --kernel");
    if (c->kernel && c->firmware)
        return qz_fail(err, -EINVAL, "--kernel and --firmware exclude each other");
    if (c->firmware_vars && !c->firmware)
        return qz_fail(err, -EINVAL, "--firmware-vars needs --firmware");
    if (c->command && c->firmware)
        return qz_fail(err, -EINVAL, "a command after -- needs a machine booted by --kernel");
    for (unsigned n = 0; n < c->disks; n++)
        if (c->disk[n].on_error == VIRTIO_BLK_STOP && !c->control)
            return qz_fail(err, -EINVAL,
                           "disk %s: on-error=stop needs --control PATH: only \"resume\" lets the "
                           "machine go on",
                           c->disk[n].path);
    if (config_check_pages(c, err) < 0 || config_check_balloon(c, err) < 0)
        return -EINVAL;
    return check_topology(c, err);
}

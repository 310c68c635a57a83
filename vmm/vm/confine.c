/* confine.c - no_new_privs, capabilities, Landlock and seccomp (confine.h). */
#include "vm/confine.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "seccomp_filters.h"

/* What libc needs on every thread: memory, locks, ending. mmap and mprotect are narrowed to never
 * executable. */
QZ_SYSCALLS(all,
            "mmap munmap mremap mprotect madvise brk futex close exit exit_group rt_sigreturn "
            "rt_sigprocmask "
            "rt_sigaction sigaltstack gettid getpid tgkill sched_yield restart_syscall getrandom");
/* A main thread that ends waits for its threads; a reset may load a kernel again, on several
 * threads. */
QZ_SYSCALLS(
    main,
    "wait4 clone set_robust_list rseq openat pread64 fstat newfstatat statx lseek fcntl prctl");

static const struct {
    const char *name;
    const struct sock_filter *code;
    size_t len;
} filters[] = {
    [CONFINE_MAIN] = {"main", seccomp_main_filter, QZ_ARRAY_LEN(seccomp_main_filter)},
    [CONFINE_IO] = {"io", seccomp_io_filter, QZ_ARRAY_LEN(seccomp_io_filter)},
    [CONFINE_VCPU] = {"vcpu", seccomp_vcpu_filter, QZ_ARRAY_LEN(seccomp_vcpu_filter)},
    [CONFINE_CLOCK] = {"clock", seccomp_clock_filter, QZ_ARRAY_LEN(seccomp_clock_filter)},
    [CONFINE_LOADING] = {"loading", seccomp_loading_filter, QZ_ARRAY_LEN(seccomp_loading_filter)},
};

/* ---- capabilities ---------------------------------------------------------------------------- */

static int drop_capabilities(struct qz_error *err)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};

    /* Without CAP_SETPCAP the bounding set cannot shrink; no_new_privs makes it moot, so that is no
     * error. */
    for (int cap = 0; cap <= 63; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            break;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) < 0)
        return qz_fail(err, -errno, "confinement: cannot drop capabilities: %s", strerror(errno));
    return 0;
}

/* ---- Landlock -------------------------------------------------------------------------------- */

/* Attributes as of ABI 6; older kernels take a shorter size. */
struct landlock_attr {
    uint64_t fs, net, scoped;
};
enum { LANDLOCK_ABI_TRUNCATE = 3, LANDLOCK_ABI_IOCTL = 5, LANDLOCK_ABI_SCOPE = 6 };
#define FS_REFER       (1ull << 13)
#define FS_TRUNCATE    (1ull << 14)
#define FS_IOCTL_DEV   (1ull << 15)
#define FS_V1          ((1ull << 13) - 1)
#define SCOPE_SIGNAL   (1ull << 1)
#define FS_READ_FILE   (1ull << 2)
#define FS_REMOVE_FILE (1ull << 5)

static int allow_path(int ruleset, const struct confine_path *p, struct qz_error *err)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = p->remove_entries ? FS_REMOVE_FILE
                                                                                  : FS_READ_FILE};
    QZ_AUTO_FD int fd = open(p->path, O_PATH | O_CLOEXEC);

    rule.parent_fd = fd;
    if (fd < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
        return qz_fail(err, -errno, "confinement: cannot allow %s: %s", p->path, strerror(errno));
    return 0;
}

static int restrict_files(const struct confine_path *paths, unsigned count, int *abi,
                          struct qz_error *err)
{
    struct landlock_attr attr = {.fs = FS_V1 | FS_REFER};
    size_t size = sizeof(attr.fs);
    QZ_AUTO_FD int ruleset = -1;

    *abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (*abi < 0) {
        *abi = 0;
        qz_warn(
            "this kernel has no Landlock: file access is confined by seccomp and capabilities only "
            "(boot with lsm=landlock,... to have it)");
        return 0;
    }
    if (*abi < 2)
        attr.fs &= ~FS_REFER;
    if (*abi >= LANDLOCK_ABI_TRUNCATE)
        attr.fs |= FS_TRUNCATE;
    if (*abi >= LANDLOCK_ABI_IOCTL)
        attr.fs |= FS_IOCTL_DEV;
    if (*abi >= LANDLOCK_ABI_SCOPE) {
        attr.scoped = SCOPE_SIGNAL;
        size = sizeof(attr);
    }
    ruleset = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0)
        return qz_fail(err, -errno, "confinement: Landlock: %s", strerror(errno));
    for (unsigned i = 0; i < count; i++) {
        int r = allow_path(ruleset, &paths[i], err);

        if (r < 0)
            return r;
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        return qz_fail(err, -errno, "confinement: Landlock: %s", strerror(errno));
    return 0;
}

int confine_process(const struct confine_path *paths, unsigned count, int *landlock_abi,
                    struct qz_error *err)
{
    struct rlimit no_core = {0, 0};
    int r;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return qz_fail(err, -errno, "confinement: no_new_privs: %s", strerror(errno));
    setrlimit(RLIMIT_CORE, &no_core); /* guest memory does not belong into a core file */
    r = drop_capabilities(err);
    return r < 0 ? r : restrict_files(paths, count, landlock_abi, err);
}

/* ---- seccomp --------------------------------------------------------------------------------- */

static __thread const char *thread_name = "?";

/* Names the call and ends. Runs on the offending thread, with only async-signal-safe calls, all of
 * them allowed. */
static void on_sigsys(int sig, siginfo_t *info, void *context)
{
    char text[128];
    int n = snprintf(text, sizeof(text),
                     "queztl: forbidden system call %d on a thread of type %s (see QZ_SYSCALLS)\n",
                     info->si_syscall, thread_name);

    _exit(write(STDERR_FILENO, text, n) == n ? 1 : 2);
}

int confine_thread(enum confine_thread type, enum confine_mode mode, struct qz_error *err)
{
    struct sock_filter code[BPF_MAXINSNS];
    struct sock_fprog program = {.len = filters[type].len, .filter = code};

    thread_name = filters[type].name;
    memcpy(code, filters[type].code, filters[type].len * sizeof(code[0]));
    if (mode == CONFINE_TRAP) {
        struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

        sigaction(SIGSYS, &sa, NULL);
        for (size_t i = 0; i < filters[type].len; i++)
            if (BPF_CLASS(code[i].code) == BPF_RET && code[i].k == SECCOMP_RET_KILL_PROCESS)
                code[i].k = SECCOMP_RET_TRAP;
    }
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return qz_fail(err, -errno, "confinement: seccomp: %s", strerror(errno));
    return 0;
}

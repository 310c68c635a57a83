/*
 * seccomp_gen.c - build tool: gathers the system calls that sources declare and writes the filters.
 *
 *     seccomp_gen OUTPUT.h DIRECTORY...
 *
 * Every QZ_SYSCALLS(thread, "names") in the .c files below the directories (tests and fuzz targets
 * aside) adds to the filter of that thread type; "all" adds to every one. Some calls are narrowed
 * by their arguments here, see `narrowed`. The output is BPF as C arrays, so a starting monitor
 * compiles nothing; it is rewritten only when it changes.
 */
#include <dirent.h>
#include <linux/filter.h>
#include <queztl/base.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static const char *const thread_types[] = {"main", "io", "vcpu", "clock", "loading"};
enum { TYPES = QZ_ARRAY_LEN(thread_types), NAMES_MAX = 256, NAME_LEN = 40 };

static struct {
    char name[NAMES_MAX][NAME_LEN];
    unsigned count;
} wanted[TYPES];

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "seccomp_gen: %s: %s\n", what, detail);
    exit(1);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void want(unsigned type, const char *name, const char *file)
{
    for (unsigned i = 0; i < wanted[type].count; i++)
        if (!strcmp(wanted[type].name[i], name))
            return;
    if (wanted[type].count == NAMES_MAX || strlen(name) >= NAME_LEN)
        die(file, "too many or too long system call names");
    if (seccomp_syscall_resolve_name(name) == __NR_SCMP_ERROR) {
        /* A name this libseccomp is too old for would be denied without a word: say it now. */
        die(file, name);
    }
    strcpy(wanted[type].name[wanted[type].count++], name);
}

/* p points behind "QZ_SYSCALLS(". */
static void declaration(char *p, const char *file)
{
    char *comma = strchr(p, ','), *open = comma ? strchr(comma, '"') : NULL, *close, *save, *word;
    QZ_AUTO_FREE char *words = NULL;
    char type[16] = "";

    if (!open || sscanf(p, " %15[a-z]", type) != 1)
        return; /* the macro's own definition, or a mention of it */
    /* Adjacent string literals up to the closing parenthesis. */
    close = strchr(open, ')');
    if (!close)
        die(file, "QZ_SYSCALLS without an end");
    /* A copy is cut up: another declaration may follow in the file. */
    words = strndup(open, (size_t)(close - open));
    if (!words)
        die(file, "no memory");
    for (char *c = words; *c; c++)
        if (*c == '"' || *c == '\n')
            *c = ' ';
    for (word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        bool known = !strcmp(type, "all");

        for (unsigned t = 0; t < TYPES; t++)
            if (known || !strcmp(type, thread_types[t]))
                want(t, word, file);
        for (unsigned t = 0; t < TYPES; t++)
            known |= !strcmp(type, thread_types[t]);
        if (!known)
            die(file, "unknown thread type in QZ_SYSCALLS (main, io, vcpu, clock, loading, all)");
    }
}

static bool ends_with(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);

    return a >= b && !strcmp(s + a - b, end);
}

static void scan(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    if (!d)
        die(dir, strerror(errno));
    while ((e = readdir(d))) {
        char path[4096];
        struct stat st;
        struct qz_error err;
        void *text;
        size_t len;

        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            scan(path);
            continue;
        }
        if (!ends_with(path, ".c") || ends_with(path, "_test.c") || ends_with(path, "_fuzz.c") ||
            ends_with(path, "seccomp_gen.c"))
            continue;
        if (qz_read_file(path, 16 << 20, &text, &len, &err) < 0)
            die(path, err.text);
        for (char *p = text; (p = strstr(p, "QZ_SYSCALLS("));)
            declaration(p += strlen("QZ_SYSCALLS("), path);
        free(text);
    }
    closedir(d);
}

/* Calls that are allowed only with certain arguments. */
static int narrowed(scmp_filter_ctx ctx, int nr, const char *name, bool *done)
{
    *done = true;
    if (!strcmp(name, "mmap") || !strcmp(name, "mprotect"))
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (!strcmp(name, "clone"))
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
                                SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (!strcmp(name, "prctl"))
        return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    *done = false;
    return 0;
}

static void emit(FILE *out, unsigned type)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    struct sock_filter insn;

    if (!ctx || fd < 0)
        die("libseccomp", "cannot start a filter");
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE,
                     2); /* a binary tree: few steps for every call */
    qsort(wanted[type].name, wanted[type].count, NAME_LEN, by_name);
    for (unsigned i = 0; i < wanted[type].count; i++) {
        const char *name = wanted[type].name[i];
        int nr = seccomp_syscall_resolve_name(name);
        bool done;

        if (nr < 0)
            continue; /* exists on other architectures only */
        if (narrowed(ctx, nr, name, &done) < 0 ||
            (!done && seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0) < 0))
            die("rule refused", name);
    }
    /* glibc falls back from clone3 to clone when told that it does not exist; clone3 hides its
     * flags in memory. */
    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (seccomp_export_bpf(ctx, fd) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        die("libseccomp", "cannot export a filter");
    fprintf(out, "static const char *const seccomp_%s_calls[] = {", thread_types[type]);
    for (unsigned i = 0; i < wanted[type].count; i++)
        fprintf(out, "\"%s\", ", wanted[type].name[i]);
    fprintf(out, "NULL};\nstatic const struct sock_filter seccomp_%s_filter[] = {\n",
            thread_types[type]);
    while (read(fd, &insn, sizeof(insn)) == sizeof(insn))
        fprintf(out, "    {0x%04x, %u, %u, 0x%08x},\n", insn.code, insn.jt, insn.jf, insn.k);
    fprintf(out, "};\n\n");
    close(fd);
    seccomp_release(ctx);
}

int main(int argc, char **argv)
{
    char *text = NULL;
    size_t len = 0, old_len = 0;
    void *old = NULL;
    FILE *out = open_memstream(&text, &len);
    struct qz_error err;

    if (argc < 3 || !out)
        die("usage", "seccomp_gen OUTPUT.h DIRECTORY...");
    for (int i = 2; i < argc; i++)
        scan(argv[i]);
    fprintf(out, "/* Made by seccomp_gen from the QZ_SYSCALLS declarations in the sources. */\n"
                 "#include <linux/filter.h>\n#include <stddef.h>\n\n");
    for (unsigned t = 0; t < TYPES; t++)
        emit(out, t);
    fclose(out);
    if (qz_read_file(argv[1], 16 << 20, &old, &old_len, &err) < 0 || old_len != len ||
        memcmp(old, text, len)) {
        QZ_AUTO_FILE FILE *f = fopen(argv[1], "w");

        if (!f || fwrite(text, 1, len, f) != len)
            die(argv[1], strerror(errno));
    }
    free(old);
    free(text);
    return 0;
}

/*
 * snapshots.c - `queztl-hv snapshots`: what snapshots there are in a folder; checking,
 * flattening and removing them, and clearing away what was never finished.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "queztl-hv.h"
#include "snapshot/snapshot_family.h"

static const char program[] = "queztl-hv snapshots";

/* One line for one failure; the exit code that fits it. */
static int failed(const struct qz_error *err)
{
    qz_complain(program, QZ_EXIT_FAILED, err);
    switch (-err->code) {
    case ENOENT:
        return QZ_EXIT_NOT_FOUND;
    case EBUSY:
    case EEXIST:
        return QZ_EXIT_CONFLICT;
    case EPERM:
    case EACCES:
        return QZ_EXIT_REFUSED;
    }
    return QZ_EXIT_FAILED;
}

/* ---- the list */

struct entry {
    char *path;
    json_t *description; /* NULL: it cannot be read */
    struct qz_error err;
    uint64_t stored; /* bytes on the medium */
};

struct list {
    struct entry *entry;
    size_t count, unfinished;
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static uint64_t stored_bytes(const char *path)
{
    static const char *const files[] = {"snapshot.json", "state", "memory", "memory.index"};
    uint64_t sum = 0;

    for (size_t i = 0; i < QZ_ARRAY_LEN(files); i++) {
        QZ_AUTO_FREE char *file = NULL;
        struct stat st;

        if (asprintf(&file, "%s/%s", path, files[i]) >= 0 && lstat(file, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

/* path: taken. A folder without snapshot.json is something else, and passed by. */
static int take(struct list *l, char *path, struct qz_error *err)
{
    struct entry e = {.path = path}, *grown;
    const int r = snapshot_describe(path, &e.description, &e.err);

    if (r == -ENOENT || r == -ENOTDIR) {
        free(path);
        return 0;
    }
    grown = reallocarray(l->entry, l->count + 1, sizeof(e));
    if (!grown) {
        free(path);
        json_decref(e.description);
        return qz_fail(err, -ENOMEM, "no memory for a list of %zu snapshots", l->count);
    }
    e.stored = stored_bytes(path);
    l->entry = grown;
    l->entry[l->count++] = e;
    return 0;
}

static int take_all(struct list *l, const char *folder, struct qz_error *err)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int r = 0;

    if (!d)
        return qz_fail(err, -errno, "%s: %s", folder, strerror(errno));
    while (r == 0 && (e = readdir(d))) {
        char *path = NULL;

        if (snapshot_is_unfinished(e->d_name))
            l->unfinished++;
        else if (e->d_name[0] != '.' &&
                 asprintf(&path, strcmp(folder, ".") != 0 ? "%s/%s" : "%.0s%s", folder, e->d_name) <
                     0)
            r = qz_fail(err, -ENOMEM, "no memory");
        else if (path)
            r = take(l, path, err);
    }
    closedir(d);
    return r;
}

static int older_first(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    const int by_time =
        strcmp(text_of(x->description, "created"), text_of(y->description, "created"));

    return by_time ? by_time : strcmp(x->path, y->path);
}

static void free_list(struct list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->entry[i].path);
        json_decref(l->entry[i].description);
    }
    free(l->entry);
}

/* ---- printing it */

/* Another's words on a terminal: no character that it might obey. */
static void put_text(const char *text, int width)
{
    int put = 0;

    for (; *text; text++, put++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
    for (; put < width; put++)
        putchar(' ');
    putchar(' ');
}

/* An option in a machine's command line, which may be anything: how often it is there, and the last
 * value. */
static unsigned find_option(const json_t *options, const char *name, const char **value)
{
    const size_t len = strlen(name);
    unsigned n = 0;

    for (size_t i = 0; i < json_array_size(options); i++) {
        const char *word = json_string_value(json_array_get(options, i)),
                   *next = json_string_value(json_array_get(options, i + 1));
        const bool joined = word && !strncmp(word, name, len) && word[len] == '=';

        if (!joined && !(word && next && !strcmp(word, name)))
            continue;
        *value = joined ? word + len + 1 : next;
        n++;
    }
    return n;
}

static void print_machine(const json_t *d)
{
    const json_t *options = json_object_get(d, "options");
    const char *cpus = "1", *disk;
    const unsigned disks = find_option(options, "--disk", &disk);
    char text[128];

    if (!json_is_array(options))
        return;
    find_option(options, "--cpus", &cpus);
    snprintf(text, sizeof(text), "%.*s vCPUs, %u disks%s%s", (int)strcspn(cpus, ","), cpus, disks,
             *text_of(d, "accelerator") ? ", " : "", text_of(d, "accelerator"));
    put_text(text, 0);
}

static void print_entry(const struct entry *e)
{
    const json_t *d = e->description;
    char memory[32], stored[32];

    put_text(e->path, 24);
    if (!d) {
        put_text("damaged:", 0);
        put_text(e->err.text, 0);
        putchar('\n');
        return;
    }
    put_text(text_of(d, "created"), 20);
    put_text(qz_format_size((uint64_t)json_integer_value(
                                json_object_get(json_object_get(d, "memory"), "size")),
                            memory, sizeof(memory)),
             10);
    put_text(qz_format_size(e->stored, stored, sizeof(stored)), 10);
    put_text(*text_of(d, "parent") ? text_of(d, "parent") : "-", 20);
    print_machine(d);
    putchar('\n');
}

static void print_table(const struct list *l, const char *folder)
{
    if (l->count)
        printf("%-24s %-20s %-10s %-10s %-20s %s\n", "NAME", "CREATED", "MEMORY", "STORED",
               "PARENT", "MACHINE");
    for (size_t i = 0; i < l->count; i++)
        print_entry(&l->entry[i]);
    fflush(stdout);
    if (l->unfinished)
        fprintf(stderr, "%zu unfinished, here or still being written; clear away with: %s gc %s\n",
                l->unfinished, program, folder);
}

static void print_json(const struct list *l)
{
    json_t *array = json_array();

    for (size_t i = 0; i < l->count; i++) {
        const struct entry *e = &l->entry[i];
        json_t *o = json_pack("{s:s,s:I}", "path", e->path, "stored_bytes", (json_int_t)e->stored);

        if (e->description)
            json_object_set(o, "snapshot", e->description);
        else
            json_object_set_new(o, "error", json_string(e->err.text));
        json_array_append_new(array, o);
    }
    json_dumpf(array, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    printf("\n");
    json_decref(array);
}

static int list_folder(const char *folder, bool json)
{
    struct list l = {0};
    struct qz_error err = {0};
    char *itself = strdup(folder);
    int r = itself ? take(&l, itself, &err) : qz_fail(&err, -ENOMEM, "no memory");

    if (r == 0 && l.count == 0) /* the folder itself is none */
        r = take_all(&l, folder, &err);
    if (r == 0 && l.count)
        qsort(l.entry, l.count, sizeof(*l.entry), older_first);
    if (r == 0 && json)
        print_json(&l);
    else if (r == 0)
        print_table(&l, folder);
    free_list(&l);
    return r < 0 ? failed(&err) : QZ_EXIT_OK;
}

/* ---- the others */

struct bar {
    const char *what;
    int shown; /* percent */
};

static void show(void *context, double share)
{
    struct bar *b = context;
    const int percent = (int)(share * 100);

    if (percent == b->shown)
        return;
    b->shown = percent;
    fprintf(stderr, "\r%s: %d %%%s", b->what, percent, percent == 100 ? "\r\033[K" : "");
}

static int check(const char *path, const struct snapshot_options *o, struct qz_error *err)
{
    const int r = snapshot_verify(path, o, err);

    if (r == 0)
        printf("%s: no errors\n", path);
    return r;
}

static int flatten(const char *path, const struct snapshot_options *o, struct qz_error *err)
{
    json_t *d = NULL;
    int r = snapshot_describe(path, &d, err);

    if (r == 0 && !json_object_get(d, "parent"))
        printf("%s: has no parent\n", path);
    else if (r == 0)
        r = snapshot_flatten(path, o, err);
    json_decref(d);
    return r;
}

static int rm(const char *path, const struct snapshot_options *o, struct qz_error *err)
{
    return snapshot_remove(path, err);
}

static int gc(const char *folder, const struct snapshot_options *o, struct qz_error *err)
{
    unsigned removed;
    const int r = snapshot_collect(folder, &removed, err);

    if (removed)
        printf("%s: %u unfinished removed\n", folder, removed);
    return r;
}

static const struct verb {
    const char *name;
    int (*run)(const char *path, const struct snapshot_options *o, struct qz_error *err);
} verbs[] = {{"check", check}, {"flatten", flatten}, {"rm", rm}, {"gc", gc}};

/* On each operand; the first failure's exit code, after the others had their turn. */
static int run_verb(const struct verb *v, int count, char **paths)
{
    int code = QZ_EXIT_OK;

    for (int i = 0; i < count; i++) {
        struct bar bar = {.what = paths[i], .shown = -1};
        const struct snapshot_options o = {.progress = isatty(STDERR_FILENO) ? show : NULL,
                                           .context = &bar};
        struct qz_error err = {0};

        if (v->run(paths[i], &o, &err) < 0) {
            const int c = failed(&err);

            code = code ? code : c;
        }
    }
    return code;
}

static int set_json(void *target, const char *value, struct qz_error *err)
{
    *(bool *)target = true;
    return 0;
}

const struct qz_option hv_snapshots_options[] = {
    {"json", NULL, "print the list as JSON", set_json},
    {0},
};

int hv_snapshots(int argc, char **argv)
{
    struct qz_error err = {0};
    bool json = false;
    int i = qz_options_parse(hv_snapshots_options, argc, argv, &json, &err), left = argc - i;

    if (i < 0)
        return qz_complain(program, QZ_EXIT_USAGE, &err);
    for (size_t v = 0; left && v < QZ_ARRAY_LEN(verbs); v++) {
        if (strcmp(argv[i], verbs[v].name) != 0)
            continue;
        if (left == 1)
            qz_fail(&err, -EINVAL, "%s what? Name a folder", argv[i]);
        else if (json)
            qz_fail(&err, -EINVAL, "--json is for the list, not for %s", argv[i]);
        else
            return run_verb(&verbs[v], left - 1, argv + i + 1);
        return qz_complain(program, QZ_EXIT_USAGE, &err);
    }
    if (left > 1) {
        qz_fail(&err, -EINVAL,
                "\"%s\" is too much: name one folder, or one of check, flatten, rm, gc",
                argv[i + 1]);
        return qz_complain(program, QZ_EXIT_USAGE, &err);
    }
    return list_folder(left ? argv[i] : ".", json);
}

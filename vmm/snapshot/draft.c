/*
 * draft.c - a snapshot that is being written: PATH.partial-XXXXXX, which becomes PATH at one moment
 * or never (draft.h).
 */
#include "snapshot/draft.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { BEGIN_TRIES = 3 };

/* ---- names */

/* PATH is FOLDER/NAME; both are allocated. */
static int split(const char *path, char **folder, char **name, struct qz_error *err)
{
    size_t len = strlen(path), slash;

    while (len > 1 && path[len - 1] == '/')
        len--;
    for (slash = len; slash > 0 && path[slash - 1] != '/';)
        slash--;
    *name = strndup(path + slash, len - slash);
    *folder = slash ? strndup(path, slash) : strdup(".");
    if (!*name || !*folder)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", path);
    if (!**name || !strcmp(*name, ".") || !strcmp(*name, ".."))
        return qz_fail(err, -EINVAL, "snapshot \"%s\": name the folder that is to be made", path);
    if (strstr(*name, SNAPSHOT_PARTIAL))
        return qz_fail(err, -EINVAL, "snapshot %s: \"%s\" in a name is for unfinished ones", path,
                       SNAPSHOT_PARTIAL);
    return 0;
}

/* ---- begin */

/* A new empty folder with a shared lock. Whoever clears unfinished ones away takes the exclusive
 * lock; between making and locking that may happen, and another one is made. */
static int make_partial(struct draft *d, struct qz_error *err)
{
    for (unsigned i = 0; i < BEGIN_TRIES; i++) {
        QZ_AUTO_FREE char *path = NULL;
        struct stat st;

        if (asprintf(&path, "%s/%s%sXXXXXX", d->where, d->name, SNAPSHOT_PARTIAL) < 0)
            return qz_fail(err, -ENOMEM, "snapshot %s: no memory", d->path);
        if (!mkdtemp(path))
            return qz_fail(err, -errno, "snapshot %s: its folder cannot be made: %s", d->path,
                           strerror(errno));
        d->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (d->folder >= 0 && flock(d->folder, LOCK_SH) == 0 && fstat(d->folder, &st) == 0 &&
            st.st_nlink > 0) {
            d->partial = strdup(strrchr(path, '/') + 1);
            return d->partial ? 0 : qz_fail(err, -ENOMEM, "snapshot %s: no memory", d->path);
        }
        if (d->folder >= 0)
            close(d->folder);
        d->folder = -1;
        rmdir(path);
    }
    return qz_fail(err, -EBUSY, "snapshot %s: its folder cannot be locked", d->path);
}

int draft_begin(struct draft *d, const char *path, struct qz_error *err)
{
    int r;

    *d = (struct draft){.path = path, .in = -1, .folder = -1};
    r = split(path, &d->where, &d->name, err);
    if (r < 0)
        return r;
    d->in = open(d->where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->in < 0)
        return qz_fail(err, -errno, "snapshot %s: %s: %s", path, d->where, strerror(errno));
    return make_partial(d, err);
}

/* ---- fill */

static json_t *describe_memory(const struct memory_index *index)
{
    char id[SNAPSHOT_ID_TEXT];
    uint64_t stored = 0;

    for (uint64_t i = 0; i < index->chunks; i++)
        stored += index->chunk[i].stored;
    id_to_text(index->id, id);
    return json_pack("{s:I,s:I,s:s,s:I,s:s}", "size", (json_int_t)index->size, "chunk_size",
                     (json_int_t)index->chunk_size, "compression",
                     index->in_place ? "none" : "zstd", "stored", (json_int_t)stored, "id", id);
}

static int write_description(const struct draft *d, json_t *description,
                             const struct memory_index *index, struct qz_error *err)
{
    QZ_AUTO_FREE char *text = NULL;

    if (json_object_set_new(description, "memory", describe_memory(index)) < 0 ||
        !(text = json_dumps(description, JSON_INDENT(2) | JSON_ENSURE_ASCII)))
        return qz_fail(err, -EINVAL, "%s: the description cannot be written as JSON",
                       SNAPSHOT_JSON);
    if (strlen(text) > SNAPSHOT_JSON_MAX)
        return qz_fail(err, -E2BIG, "%s: a description of %zu bytes, at most %d are possible",
                       SNAPSHOT_JSON, strlen(text), SNAPSHOT_JSON_MAX);
    return write_file(d->folder, SNAPSHOT_JSON, text, strlen(text), err);
}

static int write_memory(const struct draft *d, const struct memory_source *from,
                        struct memory_index *index, const struct snapshot_dir *parent,
                        const struct snapshot_options *o, struct qz_error *err)
{
    QZ_AUTO_FD int memory = openat(d->folder, SNAPSHOT_MEMORY,
                                   O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r;

    if (memory < 0)
        return qz_fail(err, -errno, "%s: cannot be created: %s", SNAPSHOT_MEMORY, strerror(errno));
    r = memory_write(memory, from, index, parent, o, err);
    if (r == 0 && fsync(memory) < 0)
        r = qz_fail(err, -errno, "%s: cannot be written: %s", SNAPSHOT_MEMORY, strerror(errno));
    return r == 0 ? memory_index_write(d->folder, index, err) : r;
}

int draft_fill(struct draft *d, json_t *description, const void *state, size_t state_len,
               const struct memory_source *from, struct memory_index *index,
               const struct snapshot_dir *parent, const struct snapshot_options *o,
               struct qz_error *err)
{
    int r;

    index->chunk = calloc(index->chunks, sizeof(*index->chunk));
    if (!index->chunk)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", d->path);
    r = write_memory(d, from, index, parent, o, err);
    if (r == 0)
        r = write_file(d->folder, SNAPSHOT_STATE, state, state_len, err);
    if (r == 0)
        r = write_description(d, description, index, err);
    free(index->chunk);
    index->chunk = NULL;
    if (r == 0 && fsync(d->folder) < 0)
        r = qz_fail(err, -errno, "its folder: %s", strerror(errno));
    if (r < 0)
        qz_error_prefix(err, "snapshot %s", d->path);
    return r;
}

/* ---- end */

/* Without renameat2 (some network file systems), rename(2) does it: it never replaces a folder
 * that has anything in it, and an empty one is no snapshot. */
static int rename_new(int in, const char *from, const char *to)
{
    if (renameat2(in, from, in, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno == EINVAL && renameat(in, from, in, to) == 0)
        return 0;
    return errno == ENOTEMPTY || errno == ENOTDIR ? -EEXIST : -errno;
}

char *draft_absolute_path(const struct draft *d)
{
    QZ_AUTO_FREE char *where = realpath(d->where, NULL);
    char *path;

    return where && asprintf(&path, "%s/%s", where, d->name) >= 0 ? path : NULL;
}

static int sync_place(const struct draft *d, struct qz_error *err)
{
    return fsync(d->in) < 0 ? qz_fail(err, -errno, "snapshot %s: the folder that it is in: %s",
                                      d->path, strerror(errno))
                            : 0;
}

int draft_commit(struct draft *d, struct qz_error *err)
{
    const int r = rename_new(d->in, d->partial, d->name);

    if (r == -EEXIST)
        return qz_fail(err, r, "snapshot %s: there is one; remove it or choose another name",
                       d->path);
    if (r < 0)
        return qz_fail(err, r, "snapshot %s: cannot be renamed: %s", d->path, strerror(-r));
    free(QZ_TAKE_PTR(d->partial));
    return sync_place(d, err);
}

int draft_exchange(struct draft *d, struct qz_error *err)
{
    if (renameat2(d->in, d->partial, d->in, d->name, RENAME_EXCHANGE) < 0)
        return qz_fail(err, -errno, "snapshot %s: cannot be replaced: %s%s", d->path,
                       strerror(errno),
                       errno == EINVAL ? ": this file system cannot exchange two folders; copy it "
                                         "to another one"
                                       : "");
    return sync_place(d, err);
}

int draft_displace(struct draft *d, struct qz_error *err)
{
    if (renameat(d->in, d->name, d->in, d->partial) < 0)
        return qz_fail(err, -errno, "snapshot %s: cannot be removed: %s", d->path, strerror(errno));
    return sync_place(d, err);
}

void draft_end(struct draft *d)
{
    if (d->partial)
        remove_snapshot_files(d->in, d->partial);
    if (d->folder >= 0)
        close(d->folder);
    if (d->in >= 0)
        close(d->in);
    free(d->partial);
    free(d->name);
    free(d->where);
}

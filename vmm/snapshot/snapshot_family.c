/* snapshot_family.c - removing, flattening and clearing away (snapshot_family.h). */
#include "snapshot/snapshot_family.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "snapshot/children.h"
#include "snapshot/draft.h"
#include "snapshot/state_file.h"
#include "snapshot/working_set.h"

int snapshot_describe(const char *path, json_t **description, struct qz_error *err)
{
    QZ_AUTO_FD int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r;

    *description = NULL;
    if (folder < 0)
        return qz_fail(err, -errno, "snapshot %s: %s%s", path, strerror(errno),
                       errno == ENOTDIR ? " (a snapshot is a folder)" : "");
    r = snapshot_json_read(folder, description, err);
    if (r < 0)
        qz_error_prefix(err, "snapshot %s", path);
    return r;
}

/* ---- verify */

static int check_state(struct snapshot_dir *s, struct qz_error *err)
{
    QZ_AUTO_FREE struct state_file *f = malloc(sizeof(*f));
    QZ_AUTO_FREE void *bytes = NULL;
    size_t len = 0;
    int r = f ? snapshot_dir_read_state(s, &bytes, &len, err)
              : qz_fail(err, -ENOMEM, "snapshot %s: no memory", s->layer[0].path);

    if (r == 0 && (r = state_file_parse(bytes, len, f, err)) < 0)
        qz_error_prefix(err, "snapshot %s: %s", s->layer[0].path, SNAPSHOT_STATE);
    return r;
}

int snapshot_verify(const char *path, const struct snapshot_options *o, struct qz_error *err)
{
    struct snapshot_dir *s = NULL;
    int r = snapshot_dir_open(&s, path, err);

    if (r == 0)
        r = check_state(s, err);
    if (r == 0)
        r = memory_check(s, o, err);
    snapshot_dir_close(s);
    return r;
}

/* ---- remove */

static const char *id_of(const json_t *description)
{
    return json_string_value(json_object_get(json_object_get(description, "memory"), "id"));
}

static int check_own_files(int folder, struct qz_error *err)
{
    const int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    int r = 0;

    if (!d) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return qz_fail(err, r, "cannot be listed: %s", strerror(-r));
    }
    while (r == 0 && (e = readdir(d)))
        if (!is_snapshot_file(e->d_name))
            r = qz_fail(err, -ENOTEMPTY, "%s in it is not a snapshot's; move it away first",
                        e->d_name);
    closedir(d);
    return r;
}

static int check_removable(int folder, const struct draft *d, struct qz_error *err)
{
    QZ_AUTO_FREE char *child = NULL;
    int r;

    if (faccessat(folder, SNAPSHOT_JSON, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return qz_fail(err, -ENOENT, "there is no %s: not a snapshot", SNAPSHOT_JSON);
    r = check_own_files(folder, err);
    if (r == 0)
        r = child_find(folder, d->where, &child, err);
    if (r == 0 && child)
        r = qz_fail(err, -EBUSY, "%s builds upon it; flatten or remove that one first", child);
    return r;
}

/* Nothing but a note is lost when the parent cannot be reached, or cannot be written: -1. */
static int open_parent_of(const char *path, const json_t *description)
{
    QZ_AUTO_FREE char *parent = description ? snapshot_parent_path(path, description) : NULL;

    return parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static int remove_locked(const char *path, int folder, struct qz_error *err)
{
    QZ_AUTO_FD int parent = -1;
    json_t *description = NULL;
    struct draft d;
    int r = draft_begin(&d, path, err);

    if (r == 0 && (r = check_removable(folder, &d, err)) < 0)
        qz_error_prefix(err, "snapshot %s", path);
    if (r == 0) {
        snapshot_json_read(folder, &description, NULL); /* a damaged one may go, too */
        parent = open_parent_of(path, description);
        r = draft_displace(&d, err);
    }
    draft_end(&d);
    if (r == 0 && parent >= 0)
        child_unregister(parent, id_of(description), path);
    json_decref(description);
    return r;
}

/* Through a link to what it leads to: that is what has a place. */
static char *real_path(const char *path, struct qz_error *err)
{
    char *real = realpath(path, NULL);

    if (!real)
        qz_fail(err, -errno, "snapshot %s: %s", path, strerror(errno));
    return real;
}

int snapshot_remove(const char *path, struct qz_error *err)
{
    struct qz_error why;
    QZ_AUTO_FREE char *real = real_path(path, &why);
    QZ_AUTO_FD int folder = real ? snapshot_folder_open(real, true, &why) : why.code;
    const int r = folder < 0 ? folder : remove_locked(real, folder, &why);

    if (r < 0 && err)
        *err = why;
    return r;
}

/* ---- flatten */

/* A hint: without it all is as right as with it. */
static void copy_working_set(struct snapshot_dir *s, struct draft *d)
{
    struct snapshot_dir to = {.layer = {{.folder = d->folder}}, .index = s->index};
    struct working_set w;

    if (working_set_read(s, &w, NULL) == 0)
        working_set_write(&to, &w, NULL);
    working_set_free(&w);
}

static int fill_flat(struct draft *d, struct snapshot_dir *s, const struct snapshot_options *o,
                     struct qz_error *err)
{
    const struct memory_source from = {.fd = -1, .snapshot = s};
    struct memory_index index = s->index;
    QZ_AUTO_FREE void *state = NULL;
    json_t *description = json_deep_copy(s->description);
    size_t len = 0;
    int r = snapshot_dir_read_state(s, &state, &len, err);

    json_object_del(description, "parent");
    memset(index.parent_id, 0, SNAPSHOT_ID);
    if (r == 0)
        r = draft_fill(d, description, state, len, &from, &index, NULL, o, err);
    if (r == 0)
        copy_working_set(s, d);
    if (r == 0 && (r = children_copy(s->layer[0].folder, d->folder, err)) < 0)
        qz_error_prefix(err, "snapshot %s", d->path);
    json_decref(description);
    return r;
}

static int flatten_open(struct snapshot_dir *s, const char *path, const struct snapshot_options *o,
                        struct qz_error *err)
{
    struct draft d;
    int r;

    if (!s->index.has_parent)
        return 0;
    if (flock(s->layer[0].folder, LOCK_EX | LOCK_NB) < 0)
        return qz_fail(err, -EBUSY,
                       "snapshot %s: it is in use: a machine runs from it, or a snapshot is made "
                       "upon it; try again later",
                       path);
    r = draft_begin(&d, path, err);
    if (r == 0)
        r = fill_flat(&d, s, o, err);
    if (r == 0)
        r = draft_exchange(&d, err);
    draft_end(&d);
    if (r == 0)
        child_unregister(s->layer[1].folder, id_of(s->description), path);
    return r;
}

int snapshot_flatten(const char *path, const struct snapshot_options *o, struct qz_error *err)
{
    struct snapshot_dir *s = NULL;
    struct qz_error why = {0};
    QZ_AUTO_FREE char *real = real_path(path, &why);
    int r = real ? snapshot_dir_open(&s, real, &why) : why.code;

    if (r == 0)
        r = flatten_open(s, real, o, &why);
    snapshot_dir_close(s);
    if (r < 0 && err)
        *err = why;
    return r;
}

/* ---- collect */

bool snapshot_is_unfinished(const char *name)
{
    const size_t len = strlen(name), tail = strlen(SNAPSHOT_PARTIAL) + 6;

    return len > tail && !strncmp(name + len - tail, SNAPSHOT_PARTIAL, strlen(SNAPSHOT_PARTIAL));
}

/* 1: it was there, its writer was gone, and it is removed. */
static int collect_one(int in, const char *name)
{
    QZ_AUTO_FD int folder = openat(in, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int r;

    if (folder < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -errno;
    if (flock(folder, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? 0 : -errno;
    r = remove_snapshot_files(in, name);
    return r < 0 ? r : 1;
}

int snapshot_collect(const char *path, unsigned *removed, struct qz_error *err)
{
    DIR *d = opendir(path);
    const struct dirent *e;
    int r = 0;

    *removed = 0;
    if (!d)
        return qz_fail(err, -errno, "%s: %s", path, strerror(errno));
    while (r >= 0 && (e = readdir(d))) {
        if (!snapshot_is_unfinished(e->d_name))
            continue;
        r = collect_one(dirfd(d), e->d_name);
        *removed += r == 1;
        if (r < 0)
            qz_fail(err, r, "%s/%s: cannot be removed: %s", path, e->d_name, strerror(-r));
    }
    closedir(d);
    return QZ_MIN(r, 0);
}

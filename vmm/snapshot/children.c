/* children.c - the folder `children`: notes of who was made upon a snapshot. */
#include "snapshot/children.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

static int open_children(int parent)
{
    return openat(parent, SNAPSHOT_CHILDREN, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static int note(int parent, const char *id, const char *path, struct qz_error *err)
{
    QZ_AUTO_FD int folder = -1;
    int r;

    if (mkdirat(parent, SNAPSHOT_CHILDREN, 0700) < 0 && errno != EEXIST)
        return qz_fail(err, -errno, "%s: cannot be made: %s", SNAPSHOT_CHILDREN, strerror(errno));
    folder = open_children(parent);
    if (folder < 0)
        return qz_fail(err, -errno, "%s: %s", SNAPSHOT_CHILDREN, strerror(errno));
    r = write_file(folder, id, path, strlen(path), err);
    if (r == 0 && (fsync(folder) < 0 || fsync(parent) < 0))
        r = qz_fail(err, -errno, "cannot be written: %s", strerror(errno));
    if (r < 0)
        qz_error_prefix(err, "%s", SNAPSHOT_CHILDREN);
    return r;
}

int child_register(int parent, const uint8_t id[SNAPSHOT_ID], const char *path,
                   struct qz_error *err)
{
    char name[SNAPSHOT_ID_TEXT];

    id_to_text(id, name);
    return note(parent, name, path, err);
}

void child_unregister(int parent, const char *id, const char *path)
{
    QZ_AUTO_FD int folder = open_children(parent);
    QZ_AUTO_FREE void *noted = NULL;
    size_t len;

    /* The id and the parent are a file's words: they might be another child's. */
    if (folder >= 0 && is_id_text(id) && read_file(folder, id, PATH_MAX, &noted, &len, NULL) == 0 &&
        !strcmp(noted, path))
        unlinkat(folder, id, 0);
}

static bool same_folder(int folder, const char *path)
{
    struct stat a, b;

    return fstat(folder, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* 1: there is a snapshot at the path (with this id, if one is given) whose parent is this folder.
 * 0: there is not. -errno: that cannot be told. */
static int builds_upon(const char *path, const char *id, int parent)
{
    QZ_AUTO_FD int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    QZ_AUTO_FREE char *named = NULL;
    json_t *d = NULL;
    int r = folder < 0 ? -errno : snapshot_json_read(folder, &d, NULL);

    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    if (!id || !strcmp(id, json_string_value(json_object_get(json_object_get(d, "memory"), "id"))))
        named = snapshot_parent_path(path, d);
    r = named && same_folder(parent, named);
    json_decref(d);
    return r;
}

/* ---- looking for them */

/* Calls each(context, folder, name) until that is not 0, which is returned; -errno if the folder
 * cannot be listed. */
static int for_each_name(int folder, int (*each)(void *context, int folder, const char *name),
                         void *context)
{
    const int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    int r = 0;

    if (!d) {
        r = -errno;
        if (fd >= 0)
            close(fd);
        return r;
    }
    while (r == 0 && (errno = 0, e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = each(context, folder, e->d_name);
    if (r == 0)
        r = -errno;
    closedir(d);
    return r;
}

struct search {
    int parent;
    const char *where;
    char *found;
};

/* A child that cannot be looked at (a right that is missing, a damaged file) counts. */
static int look_at_note(void *context, int folder, const char *name)
{
    struct search *s = context;
    QZ_AUTO_FREE void *path = NULL;
    size_t len;

    if (!is_id_text(name) || read_file(folder, name, PATH_MAX, &path, &len, NULL) < 0 ||
        strlen(path) != len || builds_upon(path, name, s->parent) == 0)
        return 0;
    s->found = QZ_TAKE_PTR(path);
    return 1;
}

static int look_at_sibling(void *context, int folder, const char *name)
{
    struct search *s = context;
    QZ_AUTO_FREE char *path = NULL;

    if (strstr(name, SNAPSHOT_PARTIAL) || asprintf(&path, "%s/%s", s->where, name) < 0 ||
        builds_upon(path, NULL, s->parent) <= 0)
        return 0;
    s->found = QZ_TAKE_PTR(path);
    return 1;
}

int child_find(int parent, const char *where, char **path, struct qz_error *err)
{
    struct search s = {.parent = parent, .where = where};
    QZ_AUTO_FD int notes = open_children(parent);
    QZ_AUTO_FD int around = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = 0;

    if (notes < 0 && errno != ENOENT)
        return qz_fail(err, -errno, "%s: %s", SNAPSHOT_CHILDREN, strerror(errno));
    if (notes >= 0)
        r = for_each_name(notes, look_at_note, &s);
    if (r == 0)
        r = around < 0 ? -errno : for_each_name(around, look_at_sibling, &s);
    *path = s.found;
    return r < 0 ? qz_fail(err, r, "who builds upon it cannot be found out: %s", strerror(-r)) : 0;
}

/* ---- for a snapshot that takes another one's place */

struct copy {
    int from, to;
    struct qz_error *err;
};

static int copy_note(void *context, int folder, const char *name)
{
    struct copy *c = context;
    struct search s = {.parent = c->from};
    int r = 0;

    if (look_at_note(&s, folder, name) == 1)
        r = note(c->to, name, s.found, c->err);
    free(s.found);
    return r;
}

int children_copy(int from, int to, struct qz_error *err)
{
    struct copy c = {from, to, err};
    QZ_AUTO_FD int notes = open_children(from);

    return notes < 0 ? 0 : for_each_name(notes, copy_note, &c);
}

/* snapshot_dir.c - opening a snapshot and what it was built upon (snapshot_dir.h). */
#include "snapshot/snapshot_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "snapshot/snapshot_internal.h"
#include "snapshot/state_file.h"

enum { OPEN_TRIES = 3 };

/* ---- one folder */

/* The folder is still what its name leads to: nobody replaced it before the lock was there. */
static bool still_there(int folder, const char *path)
{
    struct stat mine, now;

    return fstat(folder, &mine) == 0 && stat(path, &now) == 0 && mine.st_dev == now.st_dev &&
           mine.st_ino == now.st_ino;
}

int snapshot_folder_open(const char *path, bool exclusive, struct qz_error *err)
{
    for (unsigned i = 0; i < OPEN_TRIES; i++) {
        QZ_AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0)
            return qz_fail(err, -errno, "snapshot %s: %s%s", path, strerror(errno),
                           errno == ENOTDIR ? " (a snapshot is a folder)" : "");
        if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) {
            if (still_there(fd, path))
                return QZ_TAKE_FD(fd);
        } else if (errno != EWOULDBLOCK) {
            return qz_fail(err, -errno, "snapshot %s: cannot be locked: %s", path, strerror(errno));
        }
    }
    return qz_fail(err, -EBUSY, "snapshot %s: %s; try again later", path,
                   exclusive ? "it is in use: a machine runs from it, or a snapshot is made upon it"
                             : "it is being removed or replaced just now");
}

/* Characters that a message can show: it is another file's word. */
static bool is_plain(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return false;
    return true;
}

static int check_json(const json_t *d, struct qz_error *err)
{
    const json_t *format = json_object_get(d, "format"), *version = json_object_get(d, "version"),
                 *memory = json_object_get(d, "memory"), *parent = json_object_get(d, "parent");

    if (!json_is_string(format) || strcmp(json_string_value(format), SNAPSHOT_FORMAT) != 0)
        return qz_fail(err, -EINVAL, "no \"format\": \"%s\": it describes something else",
                       SNAPSHOT_FORMAT);
    if (!json_is_integer(version) || json_integer_value(version) != SNAPSHOT_VERSION)
        return qz_fail(err, -ENOTSUP,
                       "\"version\" is not %d, which this program reads; a newer one may have "
                       "written it",
                       SNAPSHOT_VERSION);
    if (!json_is_object(memory) || !json_is_string(json_object_get(memory, "id")) ||
        !json_is_integer(json_object_get(memory, "size")))
        return qz_fail(err, -EINVAL, "no \"memory\" with \"id\" and \"size\"");
    if (parent && (!json_is_string(parent) || !*json_string_value(parent) ||
                   !is_plain(json_string_value(parent))))
        return qz_fail(err, -EINVAL, "\"parent\" is not the path of a snapshot");
    return 0;
}

int snapshot_json_read(int folder, json_t **description, struct qz_error *err)
{
    QZ_AUTO_FREE void *text = NULL;
    json_error_t at;
    size_t len = 0;
    int r = read_file(folder, SNAPSHOT_JSON, SNAPSHOT_JSON_MAX, &text, &len, err);

    if (r < 0)
        return r == -ENOENT ? qz_fail(err, r, "there is no %s: not a snapshot", SNAPSHOT_JSON) : r;
    *description = json_loadb(text, len, JSON_REJECT_DUPLICATES, &at);
    if (!*description)
        return qz_fail(err, -EINVAL, "%s: line %d: %s", SNAPSHOT_JSON, at.line, at.text);
    r = check_json(*description, err);
    if (r < 0) {
        json_decref(*description);
        *description = NULL;
        qz_error_prefix(err, "%s", SNAPSHOT_JSON);
    }
    return r;
}

/* The description and the index were written together. */
static int check_together(const json_t *d, const struct memory_index *index, struct qz_error *err)
{
    const json_t *memory = json_object_get(d, "memory");
    char id[SNAPSHOT_ID_TEXT];

    id_to_text(index->id, id);
    if (strcmp(json_string_value(json_object_get(memory, "id")), id) != 0)
        return qz_fail(err, -EINVAL, "%s and %s are of different snapshots", SNAPSHOT_JSON,
                       SNAPSHOT_INDEX);
    if ((uint64_t)json_integer_value(json_object_get(memory, "size")) != index->size)
        return qz_fail(err, -EINVAL, "%s has another size of memory than %s", SNAPSHOT_JSON,
                       SNAPSHOT_INDEX);
    if (index->has_parent != (json_object_get(d, "parent") != NULL))
        return qz_fail(err, -EINVAL, "%s names %s parent, %s %s", SNAPSHOT_JSON,
                       index->has_parent ? "no" : "a", SNAPSHOT_INDEX,
                       index->has_parent ? "needs one" : "has none");
    return 0;
}

static int read_layer(struct layer *l, json_t **description, struct memory_index *index,
                      struct qz_error *err)
{
    uint64_t size = 0;
    int r = snapshot_json_read(l->folder, description, err);

    if (r < 0)
        return r;
    l->memory = open_regular(l->folder, SNAPSHOT_MEMORY, &size);
    if (l->memory < 0)
        return qz_fail(err, l->memory, "%s: not a file that can be read: %s", SNAPSHOT_MEMORY,
                       strerror(-l->memory));
    r = memory_index_read(l->folder, size, index, err);
    if (r < 0)
        return r;
    memcpy(l->id, index->id, SNAPSHOT_ID);
    return check_together(*description, index, err);
}

/* ---- the chain */

/* The next layer, its description and its index; what they hold is the caller's even when this
 * fails. */
static int open_layer(struct snapshot_dir *s, const char *path, json_t **description,
                      struct memory_index *index, struct qz_error *err)
{
    struct layer *l = &s->layer[s->layers];
    int r;

    *l = (struct layer){.path = strdup(path), .folder = -1, .memory = -1};
    s->layers++;
    if (!l->path)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", path);
    l->folder = snapshot_folder_open(path, false, err);
    if (l->folder < 0)
        return l->folder;
    r = read_layer(l, description, index, err);
    if (r < 0)
        qz_error_prefix(err, "snapshot %s", path);
    return r;
}

static int check_parent(const struct snapshot_dir *s, const struct memory_index *index,
                        const uint8_t expected[SNAPSHOT_ID], struct qz_error *err)
{
    const struct layer *l = &s->layer[s->layers - 1], *child = l - 1;

    for (unsigned i = 0; i + 1 < s->layers; i++)
        if (!memcmp(s->layer[i].id, l->id, SNAPSHOT_ID))
            return qz_fail(err, -ELOOP, "snapshot %s: its parents lead back to %s", child->path,
                           s->layer[i].path);
    if (memcmp(l->id, expected, SNAPSHOT_ID) != 0)
        return qz_fail(err, -ESTALE,
                       "snapshot %s: its parent %s is another snapshot than it was made upon; put "
                       "that one back",
                       child->path, l->path);
    if (index->size != s->index.size || index->chunk_size != s->index.chunk_size)
        return qz_fail(err, -EINVAL,
                       "snapshot %s: its parent %s has another size of memory or of chunks",
                       child->path, l->path);
    return 0;
}

/* Chunks that were left to this layer come from here, or from further down. */
static int resolve(struct snapshot_dir *s, const struct memory_index *index, struct qz_error *err)
{
    const unsigned depth = s->layers - 1;

    for (uint64_t i = 0; i < index->chunks; i++) {
        struct chunk *c = &s->index.chunk[i];
        const struct chunk *from = &index->chunk[i];

        if (c->kind != CHUNK_PARENT)
            continue;
        if (from->kind == CHUNK_ZERO || from->crc != c->crc)
            return qz_fail(err, -ESTALE,
                           "snapshot %s: chunk %llu is not in its parent %s any more; put the "
                           "parent back that it was made upon",
                           s->layer[depth - 1].path, (unsigned long long)i, s->layer[depth].path);
        *c = *from;
        s->chunk_layer[i] = (uint8_t)depth;
    }
    return 0;
}

/* Characters of the path before its last name; -1: what is before it cannot be told from the path,
 * because the name is a link, "." or "..". */
static int folder_length(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    struct stat st;

    if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || lstat(path, &st) < 0 ||
        S_ISLNK(st.st_mode))
        return -1;
    return (int)(name - path);
}

char *snapshot_parent_path(const char *path, const json_t *description)
{
    const char *parent = json_string_value(json_object_get(description, "parent"));
    const int folder = folder_length(path);
    char *joined = NULL;

    if (!parent || *parent == '/')
        return parent ? strdup(parent) : NULL;
    /* Beside it: "a/../b" is "b", for who reads a message. */
    if (folder >= 0 && !strncmp(parent, "../", 3))
        return asprintf(&joined, "%.*s%s", folder, path, parent + 3) < 0 ? NULL : joined;
    return asprintf(&joined, "%s/%s", path, parent) < 0 ? NULL : joined;
}

/* The parent of the last layer, whose description this is; *expected: the parent's id, then that
 * of the parent's parent. *more: there is one. */
static int open_parent(struct snapshot_dir *s, json_t **description, uint8_t expected[SNAPSHOT_ID],
                       bool *more, struct qz_error *err)
{
    const char *child = s->layer[s->layers - 1].path;
    QZ_AUTO_FREE char *path = snapshot_parent_path(child, *description);
    struct memory_index index = {0};
    json_t *next = NULL;
    int r;

    if (!path)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", child);
    if (s->layers == SNAPSHOT_CHAIN_MAX)
        return qz_fail(err, -EMLINK,
                       "snapshot %s: more than %d snapshots one upon the other; flatten one of "
                       "them (queztl-hv snapshots flatten)",
                       s->layer[0].path, SNAPSHOT_CHAIN_MAX);
    r = open_layer(s, path, &next, &index, err);
    if (r < 0)
        qz_error_prefix(err, "snapshot %s: its parent cannot be used", child);
    if (r == 0)
        r = check_parent(s, &index, expected, err);
    if (r == 0)
        r = resolve(s, &index, err);
    free(index.chunk);
    json_decref(*description);
    *description = next;
    *more = index.has_parent;
    memcpy(expected, index.parent_id, SNAPSHOT_ID);
    return r;
}

static int open_parents(struct snapshot_dir *s, struct qz_error *err)
{
    json_t *description = json_incref(s->description);
    uint8_t expected[SNAPSHOT_ID];
    bool more = s->index.has_parent;
    int r = 0;

    memcpy(expected, s->index.parent_id, SNAPSHOT_ID);
    while (r == 0 && more)
        r = open_parent(s, &description, expected, &more, err);
    json_decref(description);
    return r;
}

static int open_whole(struct snapshot_dir *s, const char *path, struct qz_error *err)
{
    int r = open_layer(s, path, &s->description, &s->index, err);

    if (r < 0)
        return r;
    s->chunk_layer = calloc(s->index.chunks, 1);
    if (!s->chunk_layer)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", path);
    return open_parents(s, err);
}

int snapshot_dir_open(struct snapshot_dir **out, const char *path, struct qz_error *err)
{
    struct snapshot_dir *s = calloc(1, sizeof(*s));
    int r;

    *out = NULL;
    if (!s)
        return qz_fail(err, -ENOMEM, "snapshot %s: no memory", path);
    r = open_whole(s, path, err);
    if (r < 0) {
        snapshot_dir_close(s);
        return r;
    }
    *out = s;
    return 0;
}

void snapshot_dir_close(struct snapshot_dir *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->layers; i++) {
        free(s->layer[i].path);
        if (s->layer[i].folder >= 0)
            close(s->layer[i].folder);
        if (s->layer[i].memory >= 0)
            close(s->layer[i].memory);
    }
    json_decref(s->description);
    free(s->index.chunk);
    free(s->chunk_layer);
    free(s);
}

/* ---- what is in it */

const json_t *snapshot_dir_description(const struct snapshot_dir *s)
{
    return s->description;
}

uint64_t snapshot_dir_memory_size(const struct snapshot_dir *s)
{
    return s->index.size;
}

uint32_t snapshot_dir_chunk_size(const struct snapshot_dir *s)
{
    return s->index.chunk_size;
}

int snapshot_dir_mappable(const struct snapshot_dir *s)
{
    return s->index.in_place && !s->index.has_parent ? s->layer[0].memory : -1;
}

unsigned snapshot_dir_descriptors(const struct snapshot_dir *s, int fds[SNAPSHOT_DESCRIPTORS_MAX])
{
    unsigned count = 0;

    for (unsigned i = 0; i < s->layers; i++) {
        fds[count++] = s->layer[i].folder;
        fds[count++] = s->layer[i].memory;
    }
    return count;
}

bool snapshot_dir_is_writable(const struct snapshot_dir *s)
{
    return faccessat(s->layer[0].folder, ".", W_OK, AT_EACCESS) == 0;
}

uint64_t snapshot_dir_memory_used(const struct snapshot_dir *s)
{
    uint64_t used = 0;

    for (uint64_t i = 0; i < s->index.chunks; i++)
        used += snapshot_dir_chunk_is_zero(s, i) ? 0 : chunk_length(&s->index, i);
    return used;
}

int snapshot_dir_read_state(struct snapshot_dir *s, void **bytes, size_t *len, struct qz_error *err)
{
    const int r = read_file(s->layer[0].folder, SNAPSHOT_STATE, STATE_FILE_MAX, bytes, len, err);

    if (r < 0)
        qz_error_prefix(err, "snapshot %s", s->layer[0].path);
    return r;
}

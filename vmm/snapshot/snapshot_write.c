/* snapshot_write.c - snapshot_dir_write: a machine into a new folder. */
#include <fcntl.h>
#include <limits.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "snapshot/children.h"
#include "snapshot/draft.h"
#include "snapshot/state_file.h"

/* RFC 3339, in UTC. */
static json_t *time_now(void)
{
    char text[sizeof("2026-01-01T00:00:00Z") + 8] = "";
    const time_t now = time(NULL);
    struct tm tm;

    if (gmtime_r(&now, &tm))
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

/* What the child calls its parent: "../NAME" beside it, so that both may be moved together; an
 * absolute path elsewhere. */
static int parent_name(const struct draft *d, const char *parent, char name[PATH_MAX + 4],
                       struct qz_error *err)
{
    char real[PATH_MAX], where[PATH_MAX], *slash;

    if (!realpath(parent, real) || !realpath(d->where, where))
        return qz_fail(err, -errno, "snapshot %s: its parent %s: %s", d->path, parent,
                       strerror(errno));
    slash = strrchr(real, '/');
    if (slash > real && (size_t)(slash - real) == strlen(where) &&
        !strncmp(real, where, strlen(where)))
        snprintf(name, PATH_MAX + 4, "..%s", slash);
    else
        snprintf(name, PATH_MAX + 4, "%s", real);
    return 0;
}

static int describe(const struct draft *d, const json_t *given, const char *parent, json_t **out,
                    struct qz_error *err)
{
    json_t *o = json_pack("{s:s,s:i,s:o}", "format", SNAPSHOT_FORMAT, "version", SNAPSHOT_VERSION,
                          "created", time_now()),
           *kept = given ? json_deep_copy(given) : json_object();
    char name[PATH_MAX + 4];
    int r = 0;

    json_object_del(kept, "parent");
    json_object_del(kept, "memory");
    if (!json_is_string(json_object_get(kept, "name")))
        json_object_set_new(o, "name", json_string(d->name));
    if (parent && (r = parent_name(d, parent, name, err)) == 0 &&
        json_object_set_new(o, "parent", json_string(name)) < 0)
        r = qz_fail(err, -EINVAL, "snapshot %s: the path of its parent is not UTF-8", d->path);
    if (r == 0 && json_object_update_missing(o, kept) < 0)
        r = qz_fail(err, -EINVAL, "snapshot %s: its description is no object", d->path);
    json_decref(kept);
    *out = o;
    return r;
}

static int make_index(struct memory_index *index, uint64_t size, const struct snapshot_dir *parent,
                      const struct snapshot_options *o, struct qz_error *err)
{
    *index = (struct memory_index){
        .size = size, .chunk_size = chunk_size_for(size), .in_place = !o->compress};
    if (!index->chunk_size || !size)
        return qz_fail(err, -EINVAL, "%llu bytes of memory: 1 byte to 1 TiB is possible",
                       (unsigned long long)size);
    index->chunks = (size + index->chunk_size - 1) / index->chunk_size;
    if (getrandom(index->id, SNAPSHOT_ID, 0) != SNAPSHOT_ID)
        return qz_fail(err, -errno, "no random number: %s", strerror(errno));
    if (!parent)
        return 0;
    if (parent->index.size != size || parent->index.chunk_size != index->chunk_size)
        return qz_fail(err, -EINVAL,
                       "its parent %s has %llu bytes of memory, not %llu; write it without parent",
                       parent->layer[0].path, (unsigned long long)parent->index.size,
                       (unsigned long long)size);
    if (parent->layers == SNAPSHOT_CHAIN_MAX)
        return qz_fail(err, -EMLINK,
                       "its parent %s is already the last of %d that build upon each other; "
                       "flatten that one (queztl-hv snapshots flatten)",
                       parent->layer[0].path, SNAPSHOT_CHAIN_MAX);
    memcpy(index->parent_id, parent->layer[0].id, SNAPSHOT_ID);
    return 0;
}

/* The parent knows of it first: at no time is there a child that nobody knows of. */
static int commit_upon(struct draft *d, const struct snapshot_dir *parent,
                       const uint8_t id[SNAPSHOT_ID], struct qz_error *err)
{
    QZ_AUTO_FREE char *path = draft_absolute_path(d);
    char text[SNAPSHOT_ID_TEXT];
    int r = path ? 0 : qz_fail(err, -ENOMEM, "snapshot %s: no memory", d->path);

    id_to_text(id, text);
    if (r == 0 && (r = child_register(parent->layer[0].folder, id, path, err)) < 0)
        qz_error_prefix(err, "snapshot %s: its parent %s", d->path, parent->layer[0].path);
    if (r == 0)
        r = draft_commit(d, err);
    if (r < 0 && path && d->partial) /* it is not there */
        child_unregister(parent->layer[0].folder, text, path);
    return r;
}

static int write_draft(struct draft *d, const json_t *given, const void *state, size_t state_len,
                       const struct memory_source *from, struct memory_index *index,
                       const struct snapshot_dir *parent, const struct snapshot_options *o,
                       struct qz_error *err)
{
    json_t *description = NULL;
    int r = describe(d, given, o->parent, &description, err);

    if (r == 0)
        r = draft_fill(d, description, state, state_len, from, index, parent, o, err);
    if (r == 0)
        r = parent ? commit_upon(d, parent, index->id, err) : draft_commit(d, err);
    json_decref(description);
    return r;
}

/* Before anything is written; draft_commit finds out for certain. */
static int check_absent(const struct draft *d, struct qz_error *err)
{
    struct stat st;

    if (fstatat(d->in, d->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return qz_fail(err, -EEXIST, "snapshot %s: there is one; remove it or choose another name",
                       d->path);
    return 0;
}

/* Behind the end of a file there are no zeros. */
static int check_source(const char *path, int memory_fd, uint64_t memory_size, size_t state_len,
                        struct qz_error *err)
{
    struct stat st;

    if (fstat(memory_fd, &st) < 0)
        return qz_fail(err, -errno, "snapshot %s: the guest's memory: %s", path, strerror(errno));
    if ((uint64_t)st.st_size < memory_size)
        return qz_fail(err, -EINVAL,
                       "snapshot %s: %llu bytes of memory, of which the file has %lld", path,
                       (unsigned long long)memory_size, (long long)st.st_size);
    if (state_len > STATE_FILE_MAX)
        return qz_fail(err, -EFBIG, "snapshot %s: %zu bytes of state, at most %d are possible",
                       path, state_len, STATE_FILE_MAX);
    return 0;
}

int snapshot_dir_write(const char *path, const json_t *description, const void *state,
                       size_t state_len, int memory_fd, uint64_t memory_size,
                       const struct snapshot_options *o, struct qz_error *err)
{
    const struct memory_source from = {.fd = memory_fd};
    struct snapshot_dir *parent = NULL;
    struct memory_index index;
    struct draft d;
    int r = draft_begin(&d, path, err);

    if (r == 0)
        r = check_absent(&d, err);
    if (r == 0)
        r = check_source(path, memory_fd, memory_size, state_len, err);
    if (r == 0 && o->parent)
        r = snapshot_dir_open(&parent, o->parent, err);
    if (r == 0 && (r = make_index(&index, memory_size, parent, o, err)) < 0)
        qz_error_prefix(err, "snapshot %s", path);
    if (r == 0)
        r = write_draft(&d, description, state, state_len, &from, &index, parent, o, err);
    draft_end(&d);
    snapshot_dir_close(parent); /* not removed until now: its lock is shared */
    return r;
}

/*
 * working_set.c - the file `working-set` (working_set.h): a state_file.h with the sections
 *     memory  id of the snapshot (16 bytes), chunk size (4), 4 of zeros
 *     chunks  4 bytes for each, their numbers in order; little-endian
 */
#include "snapshot/working_set.h"

#include "snapshot/snapshot_internal.h"
#include "snapshot/state_file.h"

enum { HEAD = SNAPSHOT_ID + 8, ENTRY = 4 };

static int check_head(const struct snapshot_dir *s, const struct state_section *head,
                      struct qz_error *err)
{
    const uint8_t *p = head->data;

    if (head->len != HEAD || qz_load_le32(p + SNAPSHOT_ID + 4))
        return qz_fail(err, -EINVAL, "section memory is of no kind that this program knows");
    if (memcmp(p, s->index.id, SNAPSHOT_ID) != 0 ||
        qz_load_le32(p + SNAPSHOT_ID) != s->index.chunk_size)
        return qz_fail(err, -ESTALE, "it was recorded from another snapshot");
    return 0;
}

/* What is allocated is no more than what was read. */
static int take_chunks(const struct snapshot_dir *s, const struct state_section *from,
                       struct working_set *w, struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *seen = calloc(s->index.chunks, 1);
    const uint8_t *p = from->data;

    if (from->len % ENTRY || from->len / ENTRY > s->index.chunks)
        return qz_fail(err, -EINVAL, "%zu bytes of chunks, of a snapshot that has %llu chunks",
                       from->len, (unsigned long long)s->index.chunks);
    w->chunk = malloc(from->len + 1);
    if (!w->chunk || !seen)
        return qz_fail(err, -ENOMEM, "no memory for %zu bytes", from->len);
    for (; w->count < from->len / ENTRY; w->count++, p += ENTRY) {
        const uint32_t n = qz_load_le32(p);

        if (snapshot_dir_chunk_is_zero(s, n) || seen[n])
            return qz_fail(err, -EINVAL, "chunk %u is there twice, or has nothing to load", n);
        seen[n] = 1;
        w->chunk[w->count] = n;
    }
    return 0;
}

static int parse(const struct snapshot_dir *s, const struct state_file *f, struct working_set *w,
                 struct qz_error *err)
{
    const struct state_section *head = state_file_find(f, "memory"),
                               *chunks = state_file_find(f, "chunks");
    int r;

    if (!head || !chunks)
        return qz_fail(err, -EINVAL, "it has no section %s", head ? "chunks" : "memory");
    r = check_head(s, head, err);
    return r < 0 ? r : take_chunks(s, chunks, w, err);
}

int working_set_read(const struct snapshot_dir *s, struct working_set *w, struct qz_error *err)
{
    QZ_AUTO_FREE struct state_file *f = malloc(sizeof(*f));
    int r;

    *w = (struct working_set){0};
    if (!f)
        return qz_fail(err, -ENOMEM, "%s: no memory", SNAPSHOT_WORKING_SET);
    r = state_file_read(s->layer[0].folder, SNAPSHOT_WORKING_SET, f, err);
    if (r < 0)
        return r;
    r = parse(s, f, w, err);
    state_file_free(f);
    if (r < 0) {
        working_set_free(w);
        qz_error_prefix(err, "%s", SNAPSHOT_WORKING_SET);
    }
    return r;
}

int working_set_write(const struct snapshot_dir *s, const struct working_set *w,
                      struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *chunks = malloc(w->count * ENTRY + 1);
    uint8_t head[HEAD] = {0};
    const struct state_section sections[] = {{"memory", head, HEAD},
                                             {"chunks", chunks, w->count * ENTRY}};

    if (!chunks)
        return qz_fail(err, -ENOMEM, "%s: no memory", SNAPSHOT_WORKING_SET);
    memcpy(head, s->index.id, SNAPSHOT_ID);
    qz_store_le32(head + SNAPSHOT_ID, s->index.chunk_size);
    for (size_t i = 0; i < w->count; i++)
        qz_store_le32(chunks + i * ENTRY, w->chunk[i]);
    return state_file_write(s->layer[0].folder, SNAPSHOT_WORKING_SET, sections,
                            QZ_ARRAY_LEN(sections), err);
}

void working_set_free(struct working_set *w)
{
    free(w->chunk);
    *w = (struct working_set){0};
}

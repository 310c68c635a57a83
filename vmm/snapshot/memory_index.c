/* memory_index.c - the file memory.index (snapshot_internal.h). */
#include "snapshot/snapshot_internal.h"
#include "snapshot/state_file.h"

enum {
    HEAD = 16 + 2 * SNAPSHOT_ID,
    ENTRY = 16,
    IN_PLACE = 1, /* flag */
    OFFSET_BITS = 56,
};

uint32_t chunk_size_for(uint64_t memory_size)
{
    for (uint32_t size = CHUNK_SIZE_MIN; size <= CHUNK_SIZE_MAX; size *= 2)
        if (memory_size <= (uint64_t)size * SNAPSHOT_CHUNKS_MAX)
            return size;
    return 0;
}

uint32_t chunk_length(const struct memory_index *index, uint64_t n)
{
    return (uint32_t)QZ_MIN((uint64_t)index->chunk_size, index->size - n * index->chunk_size);
}

void id_to_text(const uint8_t id[SNAPSHOT_ID], char text[SNAPSHOT_ID_TEXT])
{
    for (unsigned i = 0; i < SNAPSHOT_ID; i++)
        snprintf(text + 2 * i, 3, "%02x", id[i]);
}

bool is_id_text(const char *text)
{
    return strlen(text) == SNAPSHOT_ID_TEXT - 1 &&
           strspn(text, "0123456789abcdef") == SNAPSHOT_ID_TEXT - 1;
}

/* ---- writing */

static void put_head(uint8_t *p, const struct memory_index *index)
{
    qz_store_le64(p, index->size);
    qz_store_le32(p + 8, index->chunk_size);
    qz_store_le32(p + 12, index->in_place ? IN_PLACE : 0);
    memcpy(p + 16, index->id, SNAPSHOT_ID);
    memcpy(p + 16 + SNAPSHOT_ID, index->parent_id, SNAPSHOT_ID);
}

int memory_index_write(int folder, const struct memory_index *index, struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *chunks = malloc(index->chunks * ENTRY + 1);
    uint8_t head[HEAD];
    const struct state_section sections[] = {{"memory", head, HEAD},
                                             {"chunks", chunks, index->chunks * ENTRY}};

    if (!chunks)
        return qz_fail(err, -ENOMEM, "%s: no memory for %llu chunks", SNAPSHOT_INDEX,
                       (unsigned long long)index->chunks);
    put_head(head, index);
    for (uint64_t i = 0; i < index->chunks; i++) {
        const struct chunk *c = &index->chunk[i];

        qz_store_le64(chunks + i * ENTRY, (uint64_t)c->kind << OFFSET_BITS | c->offset);
        qz_store_le32(chunks + i * ENTRY + 8, c->stored);
        qz_store_le32(chunks + i * ENTRY + 12, c->crc);
    }
    return state_file_write(folder, SNAPSHOT_INDEX, sections, QZ_ARRAY_LEN(sections), err);
}

/* ---- reading */

static int take_head(const uint8_t *p, size_t len, uint64_t file_size, struct memory_index *index,
                     struct qz_error *err)
{
    static const uint8_t none[SNAPSHOT_ID];
    uint32_t flags;

    if (len != HEAD)
        return qz_fail(err, -EINVAL, "section memory has %zu bytes, not %d", len, HEAD);
    index->size = qz_load_le64(p);
    index->chunk_size = qz_load_le32(p + 8);
    flags = qz_load_le32(p + 12);
    memcpy(index->id, p + 16, SNAPSHOT_ID);
    memcpy(index->parent_id, p + 16 + SNAPSHOT_ID, SNAPSHOT_ID);
    index->has_parent = memcmp(index->parent_id, none, SNAPSHOT_ID) != 0;
    index->in_place = flags & IN_PLACE;
    if (flags & ~(uint32_t)IN_PLACE)
        return qz_fail(err, -ENOTSUP, "flags 0x%x: a newer program wrote it", flags);
    if (index->chunk_size < CHUNK_SIZE_MIN || index->chunk_size > CHUNK_SIZE_MAX ||
        index->chunk_size & (index->chunk_size - 1))
        return qz_fail(err, -EINVAL, "chunks of %u bytes: a power of two from %d to %d is possible",
                       index->chunk_size, CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
    if (index->size == 0 || index->size > (uint64_t)index->chunk_size * SNAPSHOT_CHUNKS_MAX)
        return qz_fail(err, -EINVAL, "%llu bytes of memory in chunks of %u, at most %d of them",
                       (unsigned long long)index->size, index->chunk_size, SNAPSHOT_CHUNKS_MAX);
    index->chunks = (index->size + index->chunk_size - 1) / index->chunk_size;
    if (index->in_place && index->size != file_size)
        return qz_fail(err, -EINVAL, "the file memory has %llu bytes, not %llu: it is not whole",
                       (unsigned long long)file_size, (unsigned long long)index->size);
    return 0;
}

/* Why chunk n cannot be what the index says; NULL: it can. */
static const char *wrong_chunk(const struct memory_index *index, uint64_t n, unsigned kind,
                               uint64_t file_size)
{
    const struct chunk *c = &index->chunk[n];

    switch (kind) {
    case CHUNK_ZERO:
        return c->offset || c->stored || c->crc ? "zeros with a place in the file" : NULL;
    case CHUNK_PARENT:
        if (!index->has_parent)
            return "in a parent that there is not";
        return c->offset || c->stored ? "in the parent and in the file" : NULL;
    case CHUNK_RAW:
        if (c->stored != chunk_length(index, n))
            return "not of its length";
        break;
    case CHUNK_ZSTD:
        if (c->stored == 0 || c->stored >= chunk_length(index, n))
            return "compressed to more than it is";
        if (index->in_place)
            return "compressed in a file that can be mapped";
        break;
    default:
        return "of a kind that this program does not know";
    }
    if (c->offset > file_size || c->stored > file_size - c->offset)
        return "behind the end of the file memory: it is cut short";
    if (index->in_place && c->offset != n * index->chunk_size)
        return "out of its place";
    return NULL;
}

static int take_chunks(const uint8_t *p, uint64_t file_size, struct memory_index *index,
                       struct qz_error *err)
{
    for (uint64_t i = 0; i < index->chunks; i++, p += ENTRY) {
        const uint64_t place = qz_load_le64(p);
        struct chunk *c = &index->chunk[i];
        const char *wrong;

        c->offset = place & (QZ_BIT(OFFSET_BITS) - 1);
        c->kind = place >> OFFSET_BITS;
        c->stored = qz_load_le32(p + 8);
        c->crc = qz_load_le32(p + 12);
        wrong = wrong_chunk(index, i, c->kind, file_size);
        if (wrong)
            return qz_fail(err, -EINVAL, "chunk %llu (%u bytes at %llu) is %s",
                           (unsigned long long)i, c->stored, (unsigned long long)c->offset, wrong);
    }
    return 0;
}

int memory_index_parse(const uint8_t *head, size_t head_len, const uint8_t *chunks,
                       size_t chunks_len, uint64_t file_size, struct memory_index *index,
                       struct qz_error *err)
{
    int r = take_head(head, head_len, file_size, index, err);

    index->chunk = NULL;
    if (r < 0)
        return r;
    /* What is allocated is no more than what was read. */
    if (chunks_len != index->chunks * ENTRY)
        return qz_fail(err, -EINVAL, "section chunks has %zu bytes, not %llu", chunks_len,
                       (unsigned long long)(index->chunks * ENTRY));
    index->chunk = calloc(index->chunks, sizeof(*index->chunk));
    if (!index->chunk)
        return qz_fail(err, -ENOMEM, "no memory for %llu chunks",
                       (unsigned long long)index->chunks);
    r = take_chunks(chunks, file_size, index, err);
    if (r < 0) {
        free(index->chunk);
        index->chunk = NULL;
    }
    return r;
}

static int parse_sections(const struct state_file *f, uint64_t file_size,
                          struct memory_index *index, struct qz_error *err)
{
    const struct state_section *head = state_file_find(f, "memory"),
                               *chunks = state_file_find(f, "chunks");
    int r;

    if (!head || !chunks)
        return qz_fail(err, -EINVAL, "%s: it has no section %s", SNAPSHOT_INDEX,
                       head ? "chunks" : "memory");
    r = memory_index_parse(head->data, head->len, chunks->data, chunks->len, file_size, index, err);
    if (r < 0)
        qz_error_prefix(err, "%s", SNAPSHOT_INDEX);
    return r;
}

int memory_index_read(int folder, uint64_t file_size, struct memory_index *index,
                      struct qz_error *err)
{
    QZ_AUTO_FREE struct state_file *f = malloc(sizeof(*f));
    int r;

    index->chunk = NULL;
    if (!f)
        return qz_fail(err, -ENOMEM, "%s: no memory", SNAPSHOT_INDEX);
    r = state_file_read(folder, SNAPSHOT_INDEX, f, err);
    if (r < 0)
        return r;
    r = parse_sections(f, file_size, index, err);
    state_file_free(f);
    return r;
}

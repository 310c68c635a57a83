/*
 * snapshot_internal.h - what the files of snapshot_dir.h share.
 *
 * memory.index is a file of state_file.h with the sections
 *     memory  size (8 bytes), chunk size (4), flags (4), id (16), id of the parent (16, or zeros)
 *     chunks  16 bytes for each: offset in `memory` (7) and kind (1), stored length (4), CRC-32C of
 *             the guest's bytes (4); all little-endian. A chunk of zeros is 16 zeros.
 * A chunk in the parent has offset and length 0 and the checksum that the parent's has: a parent
 * that is not the same any more is noticed when the chain is opened.
 */
#ifndef VMM_SNAPSHOT_INTERNAL_H
#define VMM_SNAPSHOT_INTERNAL_H

#include "snapshot/files.h"
#include "snapshot/snapshot_dir.h"

enum {
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_ID = 16,
    SNAPSHOT_ID_TEXT = 2 * SNAPSHOT_ID + 1,
    CHUNK_SIZE_MIN = 64 << 10,
    CHUNK_SIZE_MAX = 1 << 20,
};

#define SNAPSHOT_FORMAT      "queztl-snapshot"
#define SNAPSHOT_JSON        "snapshot.json"
#define SNAPSHOT_STATE       "state"
#define SNAPSHOT_MEMORY      "memory"
#define SNAPSHOT_INDEX       "memory.index"
#define SNAPSHOT_CHILDREN    "children"
#define SNAPSHOT_WORKING_SET "working-set"
#define SNAPSHOT_PARTIAL     ".partial-"

enum chunk_kind { CHUNK_ZERO, CHUNK_RAW, CHUNK_ZSTD, CHUNK_PARENT, CHUNK_KINDS };

struct chunk {
    uint64_t offset : 56;
    uint64_t kind : 8;
    uint32_t stored; /* bytes in the file */
    uint32_t crc;
};

/* What memory.index says. */
struct memory_index {
    uint64_t size;
    uint32_t chunk_size;
    bool in_place; /* a chunk's offset is its address in the guest: byte n is byte n */
    bool has_parent;
    uint8_t id[SNAPSHOT_ID], parent_id[SNAPSHOT_ID];
    uint64_t chunks;
    struct chunk *chunk; /* owned */
};

/* The chunk size that memory of this size is written with; 0: too much of it. */
uint32_t chunk_size_for(uint64_t memory_size);
/* Bytes of chunk n. */
uint32_t chunk_length(const struct memory_index *index, uint64_t n);
int memory_index_write(int folder, const struct memory_index *index, struct qz_error *err);
/* file_size: of `memory`. */
int memory_index_read(int folder, uint64_t file_size, struct memory_index *index,
                      struct qz_error *err);
/* The same for the two sections in memory. */
int memory_index_parse(const uint8_t *head, size_t head_len, const uint8_t *chunks,
                       size_t chunks_len, uint64_t file_size, struct memory_index *index,
                       struct qz_error *err);

void id_to_text(const uint8_t id[SNAPSHOT_ID], char text[SNAPSHOT_ID_TEXT]);
bool is_id_text(const char *text);

/* One folder of the chain. */
struct layer {
    char *path; /* as messages name it */
    int folder; /* with a shared flock */
    int memory; /* the file */
    uint8_t id[SNAPSHOT_ID];
};

struct snapshot_dir {
    struct layer layer[SNAPSHOT_CHAIN_MAX]; /* 0: the snapshot itself */
    unsigned layers;
    json_t *description;
    struct memory_index index; /* with no CHUNK_PARENT left: */
    uint8_t *chunk_layer;      /* which layer's file each chunk is in */
};

/* One thread's buffers for reading chunks. */
struct chunk_reader {
    void *stored; /* chunk_size bytes */
    void *decompressor;
};
int chunk_reader_init(struct chunk_reader *r, uint32_t chunk_size, struct qz_error *err);
void chunk_reader_free(struct chunk_reader *r);
/* Chunk n, which is not all zeros, checked. */
int chunk_read(const struct snapshot_dir *s, struct chunk_reader *r, uint64_t n, void *to,
               struct qz_error *err);

/* snapshot.json, with the keys that this program relies on; the caller's to release. */
int snapshot_json_read(int folder, json_t **description, struct qz_error *err);
/* The path of the parent that the snapshot at `path` names, the caller's to free; NULL: it has
 * none, or no memory. A relative one begins in the child's own folder. */
char *snapshot_parent_path(const char *path, const json_t *description);
/* The folder with a shared flock, or an exclusive one; -EBUSY: somebody has the other kind. */
int snapshot_folder_open(const char *path, bool exclusive, struct qz_error *err);

/* Reads all of memory for its checksums. */
int memory_check(const struct snapshot_dir *s, const struct snapshot_options *o,
                 struct qz_error *err);

/* ---- memory_writer.c */

/* A file of the guest's memory, or a snapshot. */
struct memory_source {
    int fd;
    const struct snapshot_dir *snapshot; /* NULL: fd */
};

/* Fills the file memory (empty) and index->chunk from `from`; index has its sizes, in_place and
 * zeroed chunks. parent: NULL, or what equal chunks are left to. */
int memory_write(int memory, const struct memory_source *from, struct memory_index *index,
                 const struct snapshot_dir *parent, const struct snapshot_options *o,
                 struct qz_error *err);

#endif

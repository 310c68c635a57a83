/*
 * snapshot_dir.h - a machine's snapshot on disk: a folder that appears whole or not at all.
 *
 *     snapshot.json   what it is, for people and programs; the machine's description
 *     state           CPU and devices (state_file.h)
 *     memory          the guest's memory in chunks; sparse and mappable, or compressed
 *     memory.index    where each chunk is, and its CRC-32C (state_file.h; snapshot_internal.h)
 *     children/       one file for each snapshot that was made upon this one
 *
 * A snapshot with a parent stores only the chunks that differ from it. README.md has the format.
 *
 * Whoever has a snapshot open, or writes one upon it, holds a shared flock on its folder; whoever
 * removes or replaces it (snapshot_family.h) needs the exclusive one.
 *
 * Files may be anybody's: every number is checked before use, work is bounded by the sizes here,
 * nothing is mapped, no file that is a symbolic link or no regular file is opened.
 */
#ifndef VMM_SNAPSHOT_DIR_H
#define VMM_SNAPSHOT_DIR_H

#include <jansson.h>
#include <queztl/base.h>

enum {
    SNAPSHOT_CHAIN_MAX = 16,       /* a snapshot, its parent, ... */
    SNAPSHOT_JSON_MAX = 1 << 20,   /* bytes of snapshot.json */
    SNAPSHOT_CHUNKS_MAX = 1 << 20, /* of 64 KiB to 1 MiB each: 1 TiB of memory */
};

struct snapshot_options {
    bool compress;      /* zstd; otherwise byte n of the guest's memory is byte n of the file */
    const char *parent; /* folder of the snapshot to build upon, or NULL */
    /* From the calling thread; share of the memory that is written, 0 to 1. May be NULL. */
    void (*progress)(void *context, double share);
    void *context;
};

/*
 * Writes the folder `path`, which must not exist (-EEXIST). All of it goes to PATH.partial-XXXXXX
 * first, onto the medium, and is renamed then: whoever looks finds no snapshot or a whole one.
 *
 * description: an object (or NULL) whose keys are kept, except format, version, created, memory and
 * parent, which are written here; its "name" is the folder's, if it has none. It stays the
 * caller's. memory_fd: memory_size bytes that do not change meanwhile; holes are zeros and stay
 * holes. Its file position moves.
 */
int snapshot_dir_write(const char *path, const json_t *description, const void *state,
                       size_t state_len, int memory_fd, uint64_t memory_size,
                       const struct snapshot_options *o, struct qz_error *err);

/*
 * Opens it and all it was built upon, and checks everything but the chunks' bytes, which are
 * checked as they are read. -EBUSY: somebody removes or replaces one of them just now.
 */
struct snapshot_dir;
int snapshot_dir_open(struct snapshot_dir **s, const char *path, struct qz_error *err);
void snapshot_dir_close(struct snapshot_dir *s); /* NULL is nothing */

/* Valid until it is closed. */
const json_t *snapshot_dir_description(const struct snapshot_dir *s);
uint64_t snapshot_dir_memory_size(const struct snapshot_dir *s);
uint32_t snapshot_dir_chunk_size(const struct snapshot_dir *s);
/* The guest's memory as it is, to map privately: when nothing in it is compressed or in a parent,
 * -1 otherwise. What is read through it is not checked, and who shortens it ends who maps it. */
int snapshot_dir_mappable(const struct snapshot_dir *s);

/* Its open files, which this process needs as long as it reads from it; how many. */
enum { SNAPSHOT_DESCRIPTORS_MAX = 2 * SNAPSHOT_CHAIN_MAX };
unsigned snapshot_dir_descriptors(const struct snapshot_dir *s, int fds[SNAPSHOT_DESCRIPTORS_MAX]);
/* Whether this user may put files into its folder. */
bool snapshot_dir_is_writable(const struct snapshot_dir *s);
/* Bytes of memory that are not zeros, in whole chunks. */
uint64_t snapshot_dir_memory_used(const struct snapshot_dir *s);

/* The file `state`; *bytes is the caller's to free. */
int snapshot_dir_read_state(struct snapshot_dir *s, void **bytes, size_t *len,
                            struct qz_error *err);
/* All of memory into `to`: memory_size bytes of zeros, where chunks of zeros are not touched. By
 * several threads. After a failure `to` holds anything. */
int snapshot_dir_read_memory(struct snapshot_dir *s, void *to, struct qz_error *err);
/* Chunk n, chunk_size bytes (the last one: what is left of memory_size). Any thread. */
int snapshot_dir_read_chunk(const struct snapshot_dir *s, uint64_t n, void *to,
                            struct qz_error *err);
/* Whether chunk n is all zeros, without reading it. */
bool snapshot_dir_chunk_is_zero(const struct snapshot_dir *s, uint64_t n);

#endif

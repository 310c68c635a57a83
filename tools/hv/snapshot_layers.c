/* snapshot_layers.c - one file out of a machine's layers (snapshot_layers.h). */
#include "snapshot_layers.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "machine/memory.h"
#include "machine/memory_fold.h"

static int check_file(int fd, uint64_t size, struct qz_error *err)
{
    struct stat st;

    return ram_file_is_sealed(fd) && fstat(fd, &st) == 0 && (uint64_t)st.st_size == size
               ? 0
               : qz_fail(err, -EREMOTEIO,
                         "a file of the machine's memory is none, or of another "
                         "size than it says");
}

static int read_table(struct memory_layers *l, int fd, struct qz_error *err)
{
    if (pread(fd, l->table, l->chunks, 0) != (ssize_t)l->chunks)
        return qz_fail(err, -EREMOTEIO, "the table of the machine's memory is too short");
    for (size_t i = 0; i < l->chunks; i++)
        if (l->table[i] != LAYER_ZERO && l->table[i] >= l->count)
            return qz_fail(err, -EREMOTEIO, "the table of the machine's memory names file %u of %u",
                           l->table[i], l->count);
    return 0;
}

static int take_layers(struct memory_layers *l, const int *fd, unsigned fds, struct qz_error *err)
{
    for (unsigned i = 0; i + 1 < fds; i++) {
        int r = check_file(fd[i], l->size, err);

        if (r < 0)
            return r;
        r = layers_add_again(l, fd[i]);
        if (r < 0)
            return qz_fail(err, r, "no descriptor: %s", strerror(-r));
    }
    return read_table(l, fd[fds - 1], err);
}

static int fold_all(struct memory_layers *l, struct qz_error *err)
{
    struct memory_fold *f = fold_new(l, 0);
    int r = f ? fold_step(f, UINT64_MAX) : -ENOMEM;
    int fd = -1;

    if (r == 0 && (fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3)) < 0)
        r = -errno;
    fold_free(f);
    return r < 0 ? qz_fail(err, r, "the machine's memory cannot be put together: %s", strerror(-r))
                 : fd;
}

int snapshot_layers_join(const int *fd, unsigned fds, uint64_t size, uint64_t chunk,
                         struct qz_error *err)
{
    struct memory_layers *l;
    int r;

    if (fds == 0 || fds > LAYERS_MAX + 1 || size < GUEST_RAM_MIN || size > GUEST_RAM_MAX ||
        size % 4096)
        return qz_fail(err, -EREMOTEIO, "the machine's answer has %u files of memory of %llu bytes",
                       fds, (unsigned long long)size);
    if (fds == 1) {
        r = fcntl(fd[0], F_DUPFD_CLOEXEC, 3);
        return r < 0 ? qz_fail(err, -errno, "no descriptor: %s", strerror(errno)) : r;
    }
    if (chunk != layers_chunk(size))
        return qz_fail(err, -EREMOTEIO,
                       "the machine's memory has chunks of %llu bytes, not %llu: it is run by "
                       "another version",
                       (unsigned long long)chunk, (unsigned long long)layers_chunk(size));
    l = layers_new(size);
    if (!l)
        return qz_fail(err, -ENOMEM, "no memory for a table of the machine's memory");
    r = take_layers(l, fd, fds, err);
    if (r == 0)
        r = fold_all(l, err);
    layers_drop(l);
    return r;
}

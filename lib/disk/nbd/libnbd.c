/* libnbd.c - finding libnbd's functions (libnbd.h). */
#include "libnbd.h"

#include "library.h"

#define LIBNBD "libnbd.so.0"

struct libnbd nbd;

static const struct library_function functions[] = {
    {LIBNBD, "nbd_create", (void **)&nbd.create},
    {LIBNBD, "nbd_close", (void **)&nbd.close},
    {LIBNBD, "nbd_get_error", (void **)&nbd.get_error},
    {LIBNBD, "nbd_get_errno", (void **)&nbd.get_errno},
    {LIBNBD, "nbd_set_uri_allow_transports", (void **)&nbd.set_uri_allow_transports},
    {LIBNBD, "nbd_set_uri_allow_tls", (void **)&nbd.set_uri_allow_tls},
    {LIBNBD, "nbd_set_uri_allow_local_file", (void **)&nbd.set_uri_allow_local_file},
    {LIBNBD, "nbd_connect_uri", (void **)&nbd.connect_uri},
    {LIBNBD, "nbd_get_export_name", (void **)&nbd.get_export_name},
    {LIBNBD, "nbd_set_export_name", (void **)&nbd.set_export_name},
    {LIBNBD, "nbd_get_size", (void **)&nbd.get_size},
    {LIBNBD, "nbd_get_block_size", (void **)&nbd.get_block_size},
    {LIBNBD, "nbd_is_read_only", (void **)&nbd.is_read_only},
    {LIBNBD, "nbd_is_rotational", (void **)&nbd.is_rotational},
    {LIBNBD, "nbd_can_flush", (void **)&nbd.can_flush},
    {LIBNBD, "nbd_can_fua", (void **)&nbd.can_fua},
    {LIBNBD, "nbd_can_trim", (void **)&nbd.can_trim},
    {LIBNBD, "nbd_can_zero", (void **)&nbd.can_zero},
    {LIBNBD, "nbd_can_multi_conn", (void **)&nbd.can_multi_conn},
    {LIBNBD, "nbd_aio_connect", (void **)&nbd.aio_connect},
    {LIBNBD, "nbd_aio_get_fd", (void **)&nbd.aio_get_fd},
    {LIBNBD, "nbd_aio_get_direction", (void **)&nbd.aio_get_direction},
    {LIBNBD, "nbd_aio_notify_read", (void **)&nbd.aio_notify_read},
    {LIBNBD, "nbd_aio_notify_write", (void **)&nbd.aio_notify_write},
    {LIBNBD, "nbd_aio_is_ready", (void **)&nbd.aio_is_ready},
    {LIBNBD, "nbd_aio_is_processing", (void **)&nbd.aio_is_processing},
    {LIBNBD, "nbd_aio_is_dead", (void **)&nbd.aio_is_dead},
    {LIBNBD, "nbd_aio_is_closed", (void **)&nbd.aio_is_closed},
    {LIBNBD, "nbd_aio_pread", (void **)&nbd.aio_pread},
    {LIBNBD, "nbd_aio_pwrite", (void **)&nbd.aio_pwrite},
    {LIBNBD, "nbd_aio_flush", (void **)&nbd.aio_flush},
    {LIBNBD, "nbd_aio_trim", (void **)&nbd.aio_trim},
    {LIBNBD, "nbd_aio_zero", (void **)&nbd.aio_zero},
};

int libnbd_load(struct qz_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool loaded;
    int r = 0;
    QZ_LOCKED(&lock);

    if (!loaded)
        r = library_open(LIBNBD, "libnbd0", functions, QZ_ARRAY_LEN(functions), err);
    loaded |= r == 0;
    return r;
}

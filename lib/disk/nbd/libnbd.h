/* libnbd.h - libnbd's functions, from a library that is opened by the first disk on a server
 * (library.h). */
#ifndef DISK_NBD_LIBNBD_H
#define DISK_NBD_LIBNBD_H

#include <libnbd.h>
#include <queztl/base.h>

/* As nbd_NAME() in libnbd(3). */
struct libnbd {
    __typeof__(nbd_create) *create;
    __typeof__(nbd_close) *close;
    __typeof__(nbd_get_error) *get_error;
    __typeof__(nbd_get_errno) *get_errno;
    __typeof__(nbd_set_uri_allow_transports) *set_uri_allow_transports;
    __typeof__(nbd_set_uri_allow_tls) *set_uri_allow_tls;
    __typeof__(nbd_set_uri_allow_local_file) *set_uri_allow_local_file;
    __typeof__(nbd_connect_uri) *connect_uri;
    __typeof__(nbd_get_export_name) *get_export_name;
    __typeof__(nbd_set_export_name) *set_export_name;
    __typeof__(nbd_get_size) *get_size;
    __typeof__(nbd_get_block_size) *get_block_size;
    __typeof__(nbd_is_read_only) *is_read_only;
    __typeof__(nbd_is_rotational) *is_rotational;
    __typeof__(nbd_can_flush) *can_flush;
    __typeof__(nbd_can_fua) *can_fua;
    __typeof__(nbd_can_trim) *can_trim;
    __typeof__(nbd_can_zero) *can_zero;
    __typeof__(nbd_can_multi_conn) *can_multi_conn;
    __typeof__(nbd_aio_connect) *aio_connect;
    __typeof__(nbd_aio_get_fd) *aio_get_fd;
    __typeof__(nbd_aio_get_direction) *aio_get_direction;
    __typeof__(nbd_aio_notify_read) *aio_notify_read;
    __typeof__(nbd_aio_notify_write) *aio_notify_write;
    __typeof__(nbd_aio_is_ready) *aio_is_ready;
    __typeof__(nbd_aio_is_processing) *aio_is_processing;
    __typeof__(nbd_aio_is_dead) *aio_is_dead;
    __typeof__(nbd_aio_is_closed) *aio_is_closed;
    __typeof__(nbd_aio_pread) *aio_pread;
    __typeof__(nbd_aio_pwrite) *aio_pwrite;
    __typeof__(nbd_aio_flush) *aio_flush;
    __typeof__(nbd_aio_trim) *aio_trim;
    __typeof__(nbd_aio_zero) *aio_zero;
};

/* Filled by libnbd_load(). */
extern struct libnbd nbd;

int libnbd_load(struct qz_error *err);

#endif

/*
 * address.h - where a debugger connects: unix:PATH or tcp:HOST:PORT.
 */
#ifndef VMM_GDB_ADDRESS_H
#define VMM_GDB_ADDRESS_H

#include <sys/socket.h>
#include <sys/un.h>

#include <queztl/base.h>

struct gdb_address {
    union {
        struct sockaddr any;
        struct sockaddr_un local;
        struct sockaddr_storage storage;
    };
    socklen_t len; /* 0: no debugger */
    bool wait;     /* the machine starts when a debugger says so */
};

/* HOST is "localhost" or a number, of IPv6 in brackets; ",wait" may follow. -EINVAL, -ENAMETOOLONG.
 */
int gdb_address_parse(const char *text, struct gdb_address *a, struct qz_error *err);
/* The path of a unix socket, NULL for TCP and for none. */
const char *gdb_address_path(const struct gdb_address *a);

#endif

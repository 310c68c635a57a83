/* server.h - what runs behind a struct qz_disk_server. */
#ifndef DISK_SERVER_H
#define DISK_SERVER_H

#include <queztl/disk.h>

struct qz_disk_server {
    /* Ends connections and threads, and frees the server. */
    void (*stop)(struct qz_disk_server *s);
};

#endif

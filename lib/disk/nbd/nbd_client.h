/* nbd_client.h - the protocol layer over an NBD server. */
#ifndef DISK_NBD_NBD_CLIENT_H
#define DISK_NBD_NBD_CLIENT_H

#include "layer.h"

struct nbd_client_options {
    const char *uri; /* nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH */
    bool readonly, unsafe, no_discard;
    unsigned connections; /* at most, where the server can do more than one; up to 16 */
    unsigned reconnect_s; /* how long a server that vanished is looked for before requests fail */
};

/* [task] Connects; holds the thread meanwhile. */
int nbd_client_open(struct layer **l, const struct nbd_client_options *o, struct qz_error *err);

#endif

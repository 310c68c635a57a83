/*
 * machine_identity.h - what a machine that begins from a snapshot has of its own: addresses, vsock,
 * a name.
 */
#ifndef TOOLS_MACHINE_IDENTITY_H
#define TOOLS_MACHINE_IDENTITY_H

#include <jansson.h>

#include "own_mac.h"
#include "vm/config.h"

struct machine_identity {
    char hostname[64];      /* empty: the guest keeps its own */
    char *net[VM_NETS_MAX]; /* values of --net */
    char mac[VM_NETS_MAX][MAC_TEXT];
    unsigned nets;
    uint64_t cid; /* 0: no vsock */
    char *vsock;  /* the socket's path */
    int id_lock;  /* vsock_ids.h; -1: none */
};

/* The value of the nth option of this name in a machine's list of options; NULL: there are not so
 * many. */
const char *option_nth(const json_t *options, const char *name, unsigned nth);
/* The socket's path in the value of --vsock. */
const char *vsock_path(const char *value);
/*
 * The value of --net for clone `number`: %d is replaced by that, and mac= by this one. The caller's
 * to free; NULL: no memory.
 */
char *net_option(const char *value, unsigned number, const char *mac);
/* A machine's name as a host name: other characters than letters, digits, '-' and '.' become '-'.
 */
void hostname_from(char *to, size_t size, const char *name);
/*
 * The line that gives a guest this identity. nets: the addresses that its devices had, a list of
 * texts; NULL: unknown, then they stay. NULL: nothing is to be changed, or no memory. The caller's
 * to free.
 */
char *identity_request(const struct machine_identity *i, const json_t *nets);
void machine_identity_free(struct machine_identity *i);

#endif

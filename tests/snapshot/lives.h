/*
 * lives.h - judges what counting guests send (tests/guest/snapshot/datagram.h), by what each
 * datagram says and the port of the host that it comes from, which is its monitor's own.
 *
 * A life has a generation identifier that no other one has, and counts up. A machine that goes on
 * from a snapshot sends at first what was on its way in that moment, which says that it is of the
 * life before; so much as its ring holds, and then it lives a life of its own. A life goes on in
 * the process that it began in, until that is sent back or ends.
 *
 * Datagrams may be lost; none comes twice, and none is torn. One thread at a time.
 */
#ifndef SNAPSHOT_LIVES_H
#define SNAPSHOT_LIVES_H

#include <stddef.h>

#include "../guest/snapshot/datagram.h"

enum { LIVES_PORTS = 64, LIVES_TEXT = 240 };

struct life {
    uint64_t generation[2];
    uint64_t first, last;          /* counts */
    uint64_t first_echoes, echoes; /* that it had at first, and has by now */
    uint16_t port;
    bool over; /* it may be heard of again only as what was on its way */
};

struct life_port {
    uint16_t port;
    size_t life;        /* that it lives; LIFE_NONE: not yet one of its own */
    bool sent_back;     /* and may begin another one */
    unsigned in_flight; /* datagrams of a life before */
    uint64_t last;      /* of them */
};
#define LIFE_NONE ((size_t)-1)

struct lives {
    struct life *life;
    size_t count, room;
    struct life_port port[LIVES_PORTS];
    unsigned ports;
    uint64_t datagrams, in_flight;
    char wrong[LIVES_TEXT]; /* empty: nothing is */
};

/* False: something is wrong, and stays so. */
bool lives_take(struct lives *l, uint16_t port, const struct datagram *d);
/* The process behind the port is about to be sent back to a snapshot; or not, after all. */
void lives_send_back(struct lives *l, uint16_t port, bool on);
/* It has ended, and everything that it sent was taken. */
void lives_end(struct lives *l, uint16_t port);
void lives_free(struct lives *l);

#endif

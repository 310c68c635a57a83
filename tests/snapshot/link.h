/*
 * link.h - the host's end of what counting guests send: a port of 127.0.0.1, which is libslirp's
 * 10.0.2.2. A thread sends everything back, and judges it (lives.h).
 *
 * The functions that wait end the program when something was wrong, or nothing comes.
 */
#ifndef SNAPSHOT_LINK_H
#define SNAPSHOT_LINK_H

#include "lives.h"
#include "machine.h"

struct link {
    int fd;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    struct lives lives;
    uint64_t fence; /* the last one that came by */
};

void link_open(struct link *l);
/* Lives so far; the next one has this number. */
size_t link_lives(struct link *l);
/* Waits until there are `count` more lives than the `known` first ones, and each of them has sent
 * something and got it back. */
void link_expect(struct link *l, size_t known, unsigned count);
/* Says how much there was. */
void link_sum(struct link *l);
/* The first line (of the stream) that belongs to this life. */
uint64_t link_first_line(struct link *l, size_t life);
/* Waits until the life has sent, and got back, something more. */
void link_goes_on(struct link *l, size_t life);
/* The machine of this life is about to be sent back; or not, after all. */
void link_send_back(struct link *l, size_t life, bool on);

/* ---- the end of processes */

enum { LINK_PORTS = 8 };
struct link_ports {
    uint16_t port[LINK_PORTS];
    unsigned count;
};
/* The UDP ports that a process has. */
struct link_ports link_ports_of(pid_t pid);
/* It has ended: from now on there is nothing from them. */
void link_ended(struct link *l, const struct link_ports *ports);
/* All processes but the one of this life have. */
void link_only(struct link *l, size_t life);

#endif

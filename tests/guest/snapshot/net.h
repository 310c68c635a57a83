/* net.h - the counting guest's datagrams to its host (datagram.h). */
#ifndef SNAPSHOT_NET_H
#define SNAPSHOT_NET_H

#include <stdint.h>

/* The word net=PORT of the command line: datagrams go to that port of 10.0.2.2 (libslirp's host).
 * Without it there are none; without a network device it is a failure. */
void net_start(void);
/* The datagrams that belong to a line, before it is said; and what came is looked at. */
void net_line(uint64_t line);

#endif

/* own_mac.h - MAC addresses for machines that are made by one program at a time. */
#ifndef TOOLS_OWN_MAC_H
#define TOOLS_OWN_MAC_H

#include <queztl/base.h>

enum { MAC_TEXT = 18 };

/* Locally administered, random, and counted at the end: no two of one source are the same. */
struct own_macs {
    uint8_t random[3];
    uint16_t next;
};

int own_macs_init(struct own_macs *m, struct qz_error *err);
void own_mac_next(struct own_macs *m, char text[MAC_TEXT]);

#endif

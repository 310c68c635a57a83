/* own_mac.c - see own_mac.h. */
#include "own_mac.h"

#include <sys/random.h>

int own_macs_init(struct own_macs *m, struct qz_error *err)
{
    if (getrandom(m, sizeof(*m), 0) != (ssize_t)sizeof(*m))
        return qz_fail(err, -errno, "no random bytes for addresses: %s", strerror(errno));
    return 0;
}

void own_mac_next(struct own_macs *m, char text[MAC_TEXT])
{
    const uint16_t n = m->next++;

    snprintf(text, MAC_TEXT, "52:%02x:%02x:%02x:%02x:%02x", m->random[0], m->random[1],
             m->random[2], n >> 8, n & 0xff);
}

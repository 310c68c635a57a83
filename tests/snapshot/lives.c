/* lives.c - whose datagram it is, and whether it may come now (lives.h). */
#include "lives.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is on its way is in the ring, but for those that the guest was just making. */
enum { IN_FLIGHT_MAX = DATAGRAMS_IN_FLIGHT + DATAGRAMS_PER_LINE };

static bool is_wrong(struct lives *l, uint16_t port, const struct datagram *d, const char *what)
{
    if (!l->wrong[0])
        snprintf(l->wrong, sizeof(l->wrong),
                 "port %u, generation %016" PRIx64 ", count %" PRIu64 ": %s", port,
                 d->generation[0], d->count, what);
    return false;
}

static struct life_port *find_port(struct lives *l, uint16_t port)
{
    for (unsigned i = 0; i < l->ports; i++)
        if (l->port[i].port == port)
            return &l->port[i];
    return NULL;
}

static struct life_port *learn_port(struct lives *l, uint16_t port)
{
    struct life_port *p = find_port(l, port);

    if (p || l->ports == LIVES_PORTS)
        return p;
    p = &l->port[l->ports++];
    *p = (struct life_port){.port = port, .life = LIFE_NONE};
    return p;
}

/* The latest lives are the likeliest. */
static size_t find_life(const struct lives *l, const struct datagram *d)
{
    for (size_t i = l->count; i > 0; i--)
        if (!memcmp(l->life[i - 1].generation, d->generation, sizeof(d->generation)))
            return i - 1;
    return LIFE_NONE;
}

static bool begin_life(struct lives *l, struct life_port *p, const struct datagram *d)
{
    struct life *life;

    if (p->life != LIFE_NONE && !p->sent_back)
        return is_wrong(l, p->port, d, "another life in a process that was not sent back");
    if (l->count == l->room) {
        const size_t room = l->room ? 2 * l->room : 64;
        struct life *more = realloc(l->life, room * sizeof(*more));

        if (!more)
            return is_wrong(l, p->port, d, "no memory");
        l->life = more;
        l->room = room;
    }
    if (p->life != LIFE_NONE)
        l->life[p->life].over = true;
    life = &l->life[l->count];
    *life = (struct life){.first = d->count,
                          .last = d->count,
                          .first_echoes = d->echoes,
                          .echoes = d->echoes,
                          .port = p->port};
    memcpy(life->generation, d->generation, sizeof(d->generation));
    *p = (struct life_port){.port = p->port, .life = l->count++};
    return true;
}

/* Of a life that is not, or no longer, this process's own. */
static bool was_in_flight(struct lives *l, struct life_port *p, const struct life *life,
                          const struct datagram *d)
{
    if (p->life != LIFE_NONE && !p->sent_back)
        return is_wrong(l, p->port, d, life->over ? "of a life that is over" : "of another's life");
    if (++p->in_flight > IN_FLIGHT_MAX)
        return is_wrong(l, p->port, d, "two live one life");
    if (p->in_flight > 1 && d->count <= p->last)
        return is_wrong(l, p->port, d, "it counts back, of what was in flight");
    if (d->count > life->last + IN_FLIGHT_MAX)
        return is_wrong(l, p->port, d, "of a life before, which never came so far");
    p->last = d->count;
    l->in_flight++;
    return true;
}

bool lives_take(struct lives *l, uint16_t port, const struct datagram *d)
{
    struct life_port *p = learn_port(l, port);
    const size_t of = find_life(l, d);
    struct life *life;

    if (l->wrong[0])
        return false;
    if (!p)
        return is_wrong(l, port, d, "too many ports");
    if (!datagram_is_whole(d))
        return is_wrong(l, port, d, "the datagram is torn");
    l->datagrams++;
    if (of == LIFE_NONE)
        return begin_life(l, p, d);
    life = &l->life[of];
    if (of != p->life || (d->count <= life->last && p->sent_back))
        return was_in_flight(l, p, life, d);
    if (d->count <= life->last)
        return is_wrong(l, port, d, "it counts back");
    if (d->echoes < life->echoes)
        return is_wrong(l, port, d, "it has lost echoes");
    life->last = d->count;
    life->echoes = d->echoes;
    return true;
}

void lives_send_back(struct lives *l, uint16_t port, bool on)
{
    struct life_port *p = find_port(l, port);

    if (!p)
        return;
    p->sent_back = on;
    p->in_flight = 0;
}

void lives_end(struct lives *l, uint16_t port)
{
    struct life_port *p = find_port(l, port);

    if (!p)
        return;
    if (p->life != LIFE_NONE)
        l->life[p->life].over = true;
    *p = l->port[--l->ports];
}

void lives_free(struct lives *l)
{
    free(l->life);
    *l = (struct lives){0};
}

/* link.c - the socket, its thread, and whose ports they are (link.h). */
#include "link.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <sys/socket.h>

enum { STEP_NS = 300000, ROOM = 8 << 20, FENCE_AGAIN = 32 };

static void judge(struct link *l, uint16_t from, const struct datagram *d, size_t n)
{
    QZ_LOCKED(&l->lock);

    if (from == l->port && n == sizeof(l->fence))
        memcpy(&l->fence, d, sizeof(l->fence));
    else if (n != sizeof(*d) && !l->lives.wrong[0])
        snprintf(l->lives.wrong, LIVES_TEXT, "port %u: a datagram of %zu bytes", from, n);
    else if (n == sizeof(*d))
        lives_take(&l->lives, from, d);
}

static void *serve(void *link)
{
    struct link *l = link;

    for (;;) {
        union {
            struct datagram d;
            uint8_t bytes[2048];
        } got;
        struct sockaddr_in from;
        socklen_t room = sizeof(from);
        const ssize_t n = recvfrom(l->fd, &got, sizeof(got), 0, (struct sockaddr *)&from, &room);

        if (n < 0)
            continue; /* that somebody whom it was sent back to is gone */
        judge(l, ntohs(from.sin_port), &got.d, (size_t)n);
        if (ntohs(from.sin_port) != l->port &&
            sendto(l->fd, &got, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, room) < 0)
            continue; /* it is lost, as datagrams may be */
    }
    return NULL;
}

void link_open(struct link *l)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    const int room = ROOM;

    *l = (struct link){.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    pthread_mutex_init(&l->lock, NULL);
    if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&at, len) < 0 ||
        getsockname(l->fd, (struct sockaddr *)&at, &len) < 0)
        fail("a port of the host: %s", strerror(errno));
    if (setsockopt(l->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 &&
        setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) < 0)
        fail("a port's room: %s", strerror(errno));
    l->port = ntohs(at.sin_port);
    if (pthread_create(&l->thread, NULL, serve, l))
        fail("no thread for the network");
}

/* ---- waiting ---- */

static void check(struct link *l)
{
    QZ_LOCKED(&l->lock);

    if (l->lives.wrong[0])
        fail("network: %s", l->lives.wrong);
}

static void wait_more(struct link *l, int64_t limit, const char *what)
{
    check(l);
    if (qz_now_ns() > limit)
        fail("network: %s: nothing comes", what);
    pause_ns(STEP_NS);
}

size_t link_lives(struct link *l)
{
    check(l);
    QZ_LOCKED(&l->lock);

    return l->lives.count;
}

static bool answered(struct link *l, size_t known, unsigned count)
{
    QZ_LOCKED(&l->lock);

    if (l->lives.count < known + count)
        return false;
    for (size_t i = known; i < known + count; i++)
        if (l->lives.life[i].echoes == l->lives.life[i].first_echoes)
            return false;
    return true;
}

void link_expect(struct link *l, size_t known, unsigned count)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;

    while (!answered(l, known, count))
        wait_more(l, limit, "a machine that began");
}

void link_sum(struct link *l)
{
    check(l);
    QZ_LOCKED(&l->lock);

    printf("network: %zu lives, %llu datagrams, of them %llu on their way in a snapshot\n",
           l->lives.count, (unsigned long long)l->lives.datagrams,
           (unsigned long long)l->lives.in_flight);
}

uint64_t link_first_line(struct link *l, size_t life)
{
    QZ_LOCKED(&l->lock);

    return l->lives.life[life].first / DATAGRAMS_PER_LINE;
}

static uint64_t echoes_of(struct link *l, size_t life)
{
    QZ_LOCKED(&l->lock);

    return l->lives.life[life].echoes;
}

void link_goes_on(struct link *l, size_t life)
{
    const int64_t limit = qz_now_ns() + PATIENCE_NS;
    const uint64_t before = echoes_of(l, life);

    while (echoes_of(l, life) == before)
        wait_more(l, limit, "a machine that runs");
}

void link_send_back(struct link *l, size_t life, bool on)
{
    QZ_LOCKED(&l->lock);

    lives_send_back(&l->lives, l->lives.life[life].port, on);
}

/* ---- the end of processes ---- */

/* Everything that was sent before this is called was judged when it returns: it is one queue. */
static void fence(struct link *l)
{
    const struct sockaddr_in own = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                    .sin_port = htons(l->port)};
    const int64_t limit = qz_now_ns() + PATIENCE_NS;
    uint64_t number, seen;

    pthread_mutex_lock(&l->lock);
    number = l->fence + 1;
    pthread_mutex_unlock(&l->lock);
    for (unsigned i = 0;; i++) {
        if (i % FENCE_AGAIN == 0 && sendto(l->fd, &number, sizeof(number), 0,
                                           (const struct sockaddr *)&own, sizeof(own)) < 0)
            fail("a datagram to ourselves: %s", strerror(errno));
        pthread_mutex_lock(&l->lock);
        seen = l->fence;
        pthread_mutex_unlock(&l->lock);
        if (seen >= number)
            return;
        wait_more(l, limit, "a datagram to ourselves");
    }
}

/* The port of the UDP socket with this number in /proc; 0: it is none. */
static uint16_t port_of(unsigned long inode)
{
    FILE *f = fopen("/proc/net/udp", "re");
    unsigned long other;
    unsigned port, found = 0;
    char line[256];

    while (f && !found && fgets(line, sizeof(line), f))
        if (sscanf(line, "%*d: %*x:%x %*s %*s %*s %*s %*s %*s %*s %lu", &port, &other) == 2 &&
            other == inode)
            found = port;
    if (f)
        fclose(f);
    return (uint16_t)found;
}

struct link_ports link_ports_of(pid_t pid)
{
    struct link_ports all = {0};
    char path[320], name[64];
    const struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    d = opendir(path);
    while (d && all.count < LINK_PORTS && (e = readdir(d))) {
        unsigned long inode;
        ssize_t n;

        snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, e->d_name);
        n = readlink(path, name, sizeof(name) - 1);
        name[n < 0 ? 0 : n] = '\0';
        if (sscanf(name, "socket:[%lu]", &inode) == 1 && port_of(inode))
            all.port[all.count++] = port_of(inode);
    }
    if (d)
        closedir(d);
    return all;
}

void link_ended(struct link *l, const struct link_ports *ports)
{
    fence(l);
    QZ_LOCKED(&l->lock);

    for (unsigned i = 0; i < ports->count; i++)
        lives_end(&l->lives, ports->port[i]);
}

void link_only(struct link *l, size_t life)
{
    fence(l);
    QZ_LOCKED(&l->lock);

    for (unsigned i = l->lives.ports; i > 0; i--)
        if (l->lives.port[i - 1].port != l->lives.life[life].port)
            lives_end(&l->lives, l->lives.port[i - 1].port);
}

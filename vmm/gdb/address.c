/* address.c - the option's text (address.h). No name service: it would need the network's files. */
#include "gdb/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static int parse_path(const char *path, struct gdb_address *a, struct qz_error *err)
{
    if (!*path)
        return qz_fail(err, -EINVAL, "unix: needs a path");
    if (strlen(path) >= sizeof(a->local.sun_path))
        return qz_fail(err, -ENAMETOOLONG, "%s: a path of at most %zu characters is needed", path,
                       sizeof(a->local.sun_path) - 1);
    a->local.sun_family = AF_UNIX;
    strcpy(a->local.sun_path, path);
    a->len = sizeof(a->local);
    return 0;
}

/* host: without brackets */
static int parse_host(const char *host, uint16_t port, struct gdb_address *a, struct qz_error *err)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->storage;

    if (!strcmp(host, "localhost") || !*host)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        a->len = sizeof(*v4);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        a->len = sizeof(*v6);
        return 0;
    }
    return qz_fail(err, -EINVAL, "\"%s\" is neither localhost nor an IP address", host);
}

static int parse_tcp(char *text, struct gdb_address *a, struct qz_error *err)
{
    char *colon = strrchr(text, ':');
    uint64_t port;
    int r;

    if (!colon)
        return qz_fail(err, -EINVAL, "tcp: needs HOST:PORT, such as tcp:localhost:1234");
    *colon = '\0';
    r = qz_parse_u64(colon + 1, "port", 1, 65535, &port, err);
    if (r < 0)
        return r;
    if (*text == '[' && colon[-1] == ']') {
        colon[-1] = '\0';
        text++;
    }
    return parse_host(text, (uint16_t)port, a, err);
}

int gdb_address_parse(const char *text, struct gdb_address *a, struct qz_error *err)
{
    QZ_AUTO_FREE char *copy = strdup(text);
    const size_t len = strlen(text), suffix = strlen(",wait");

    memset(a, 0, sizeof(*a));
    if (!copy)
        return qz_fail(err, -ENOMEM, "no memory");
    a->wait = len > suffix && !strcmp(text + len - suffix, ",wait");
    if (a->wait)
        copy[len - suffix] = '\0';
    if (!strncmp(copy, "unix:", 5))
        return parse_path(copy + 5, a, err);
    if (!strncmp(copy, "tcp:", 4))
        return parse_tcp(copy + 4, a, err);
    return qz_fail(err, -EINVAL, "\"%s\": write unix:PATH or tcp:HOST:PORT, and ,wait behind it",
                   text);
}

const char *gdb_address_path(const struct gdb_address *a)
{
    return a->len && a->any.sa_family == AF_UNIX ? a->local.sun_path : NULL;
}

/* request_fuzz.c - any bytes as a line of a client, alone and where values of a request stand. */
#include <assert.h>

#include "request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was taken can be done: a name of allowed characters, addresses of one station each. */
static void look(const char *line, size_t len)
{
    struct request r;
    struct qz_error err;

    if (request_parse(&r, line, len, &err) < 0)
        return;
    assert(r.identity.interfaces <= QZ_AGENT_INTERFACES_MAX);
    assert(strlen(r.identity.hostname) <= QZ_AGENT_HOSTNAME_MAX);
    assert(!r.identity.hostname[strspn(r.identity.hostname,
                                       "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789-.")]);
    for (unsigned i = 0; i < r.identity.interfaces; i++)
        assert(!(r.identity.interface[i].mac[0] & 1) && !(r.identity.interface[i].was[0] & 1));
}

static void look_between(const char *before, const uint8_t *data, size_t size, const char *behind)
{
    const size_t room = size + strlen(before) + strlen(behind) + 1;
    char *line = malloc(room);

    assert(line);
    strcpy(line, before);
    memcpy(line + strlen(before), data, size);
    strcpy(line + strlen(before) + size, behind);
    look(line, room - 1);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    look((const char *)data, size);
    look_between("{\"cmd\":\"identity\",\"hostname\":\"", data, size, "\"}");
    look_between("{\"cmd\":\"identity\",\"interfaces\":[{\"was\":\"52:54:00:12:34:56\",\"mac\":\"",
                 data, QZ_MIN(size, (size_t)17), "\"}]}");
    look_between("{\"cmd\":\"identity\",\"interfaces\":", data, size, "}");
    return 0;
}

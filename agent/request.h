/*
 * request.h - one line of a client, as what it asks for (<queztl/agent.h>). The line may hold
 * anything.
 */
#ifndef AGENT_REQUEST_H
#define AGENT_REQUEST_H

#include <queztl/agent.h>
#include <queztl/base.h>

struct identity {
    char hostname[QZ_AGENT_HOSTNAME_MAX + 1]; /* empty: stays */
    struct identity_interface {
        uint8_t was[6], mac[6];
    } interface[QZ_AGENT_INTERFACES_MAX];
    unsigned interfaces;
};

struct request {
    enum request_verb { REQUEST_PING, REQUEST_IDENTITY } verb;
    struct identity identity; /* REQUEST_IDENTITY */
};

enum { MAC_TEXT = 18 };

/* -EINVAL: err says what is wrong with it. */
int request_parse(struct request *r, const char *line, size_t len, struct qz_error *err);
void mac_text(const uint8_t mac[6], char text[MAC_TEXT]);

#endif

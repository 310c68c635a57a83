/* request.c - lines of JSON, checked (request.h). */
#include "request.h"

#include <ctype.h>
#include <jansson.h>

/* Labels of letters, digits and '-', which is neither first nor last (RFC 1123 §2.1). */
static bool hostname_valid(const char *name)
{
    const size_t len = strlen(name);
    char before = '.';

    for (const char *p = name; *p; before = *p++) {
        const bool edge = before == '.' || p[1] == '.' || !p[1];

        if (*p == '.' ? before == '.' : !isalnum((unsigned char)*p) && (*p != '-' || edge))
            return false;
    }
    return len && len <= QZ_AGENT_HOSTNAME_MAX && before != '.';
}

static int parse_hostname(struct identity *i, const json_t *value, struct qz_error *err)
{
    const char *name = json_string_value(value);

    if (!value)
        return 0;
    if (!name || json_string_length(value) != strlen(name) || !hostname_valid(name))
        return qz_fail(err, -EINVAL, "\"hostname\" is no host name");
    snprintf(i->hostname, sizeof(i->hostname), "%s", name);
    return 0;
}

/* An address that one station can have. */
static bool parse_mac(const json_t *value, uint8_t mac[6])
{
    const char *text = json_string_value(value);
    unsigned b[6], any = 0;
    int end = 0;

    if (!text || json_string_length(value) != MAC_TEXT - 1 ||
        strspn(text, "0123456789abcdefABCDEF:") != MAC_TEXT - 1 ||
        sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            6 ||
        end != MAC_TEXT - 1)
        return false;
    for (int i = 0; i < 6; i++) {
        mac[i] = (uint8_t)b[i];
        any |= b[i];
    }
    return any && !(mac[0] & 1);
}

static int parse_interfaces(struct identity *i, const json_t *list, struct qz_error *err)
{
    if (list && !json_is_array(list))
        return qz_fail(err, -EINVAL, "\"interfaces\" is no list");
    if (json_array_size(list) > QZ_AGENT_INTERFACES_MAX)
        return qz_fail(err, -EINVAL, "more than %d interfaces", QZ_AGENT_INTERFACES_MAX);
    for (; i->interfaces < json_array_size(list); i->interfaces++) {
        const json_t *item = json_array_get(list, i->interfaces);
        struct identity_interface *to = &i->interface[i->interfaces];

        if (!parse_mac(json_object_get(item, "was"), to->was) ||
            !parse_mac(json_object_get(item, "mac"), to->mac))
            return qz_fail(err, -EINVAL,
                           "interface %u: \"was\" and \"mac\" are addresses such as "
                           "52:54:00:12:34:56",
                           i->interfaces);
    }
    return 0;
}

static int take(struct request *r, const json_t *line, struct qz_error *err)
{
    const char *verb = json_string_value(json_object_get(line, "cmd"));
    int e;

    if (verb && !strcmp(verb, "ping")) {
        r->verb = REQUEST_PING;
        return 0;
    }
    if (!verb || strcmp(verb, "identity"))
        return qz_fail(err, -EINVAL, "\"cmd\" is neither ping nor identity");
    r->verb = REQUEST_IDENTITY;
    e = parse_hostname(&r->identity, json_object_get(line, "hostname"), err);
    return e < 0 ? e : parse_interfaces(&r->identity, json_object_get(line, "interfaces"), err);
}

int request_parse(struct request *r, const char *line, size_t len, struct qz_error *err)
{
    json_error_t error;
    json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
    int e;

    memset(r, 0, sizeof(*r));
    if (!json)
        return qz_fail(err, -EINVAL, "no JSON: %s", error.text);
    e = take(r, json, err);
    json_decref(json);
    return e;
}

void mac_text(const uint8_t mac[6], char text[MAC_TEXT])
{
    snprintf(text, MAC_TEXT, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
             mac[4], mac[5]);
}

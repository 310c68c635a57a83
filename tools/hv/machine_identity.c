/* machine_identity.c - see machine_identity.h. */
#include "machine_identity.h"

#include <ctype.h>

const char *option_nth(const json_t *options, const char *name, unsigned nth)
{
    for (size_t i = 0; i + 1 < json_array_size(options); i += 2) {
        const char *text = json_string_value(json_array_get(options, i));

        if (text && !strcmp(text, name) && nth-- == 0)
            return json_string_value(json_array_get(options, i + 1));
    }
    return NULL;
}

const char *vsock_path(const char *value)
{
    const char *comma = value ? strchr(value, ',') : NULL;

    return comma ? comma + 1 : NULL;
}

/* With its comma before it, the number in place of %d. */
static void put_item(FILE *f, const char *item, size_t len, unsigned number)
{
    if (ftell(f))
        fputc(',', f);
    for (const char *p = item; p < item + len; p++)
        if (p[0] == '%' && p + 1 < item + len && p[1] == 'd') {
            fprintf(f, "%u", number);
            p++;
        } else {
            fputc(*p, f);
        }
}

char *net_option(const char *value, unsigned number, const char *mac)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return NULL;
    for (const char *item = value; *item;) {
        const size_t len = strcspn(item, ",");

        if (!mac || strncmp(item, "mac=", 4))
            put_item(f, item, len, number);
        item += len + (item[len] == ',');
    }
    if (mac)
        fprintf(f, ",mac=%s", mac);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

void hostname_from(char *to, size_t size, const char *name)
{
    size_t n = 0;

    for (const char *p = name; *p && n + 1 < size; p++) {
        const bool plain = isalnum((unsigned char)*p) || *p == '.';

        if (plain ? *p != '.' || (n && isalnum((unsigned char)to[n - 1]))
                  : n && to[n - 1] != '.') /* no label begins or ends with anything else */
            to[n++] = plain ? *p : '-';
    }
    while (n && !isalnum((unsigned char)to[n - 1]))
        n--;
    to[n] = '\0';
}

static json_t *changed_interfaces(const struct machine_identity *i, const json_t *nets)
{
    json_t *list = json_array();

    for (unsigned k = 0; k < i->nets; k++) {
        const char *was = json_string_value(json_array_get(nets, k));

        if (was && *i->mac[k] && strcasecmp(was, i->mac[k]))
            json_array_append_new(list, json_pack("{s:s,s:s}", "was", was, "mac", i->mac[k]));
    }
    return list;
}

char *identity_request(const struct machine_identity *i, const json_t *nets)
{
    json_t *request = json_pack("{s:s}", "cmd", "identity"), *list = changed_interfaces(i, nets);
    char *text = NULL, *line = NULL;

    if (*i->hostname)
        json_object_set_new(request, "hostname", json_string(i->hostname));
    if (*i->hostname || json_array_size(list)) {
        json_object_set(request, "interfaces", list);
        text = json_dumps(request, JSON_COMPACT);
    }
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    json_decref(list);
    json_decref(request);
    return line;
}

void machine_identity_free(struct machine_identity *i)
{
    for (unsigned k = 0; k < i->nets; k++)
        free(i->net[k]);
    free(i->vsock);
    if (i->id_lock >= 0)
        close(i->id_lock);
    *i = (struct machine_identity){.id_lock = -1};
}

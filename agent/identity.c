/* identity.c - see identity.h. */
#include "identity.h"

#include <limits.h>

#include "hooks.h"
#include "hostname.h"
#include "interfaces.h"

enum { INTERFACES_TEXT = QZ_AGENT_INTERFACES_MAX * (IF_NAMESIZE + MAC_TEXT + 1) };

struct taking {
    bool changed, complete;
    char interfaces[INTERFACES_TEXT + sizeof("QUEZTL_INTERFACES=")];
};

/* The word for what came of it; text: room for a failure. */
static json_t *done(struct taking *t, int r, const struct qz_error *err)
{
    t->changed |= r == CHANGE_DONE;
    t->complete &= r >= 0;
    if (r < 0)
        return json_sprintf("failed: %s", err->text);
    return json_string(r == CHANGE_DONE ? "changed" : "already");
}

static json_t *take_interface(struct taking *t, const struct identity_interface *i)
{
    const size_t used = strlen(t->interfaces);
    char name[IF_NAMESIZE], mac[MAC_TEXT];
    struct qz_error err = {0};
    const int r = interface_change(i, name, &err);

    mac_text(i->mac, mac);
    if (r >= 0)
        snprintf(t->interfaces + used, sizeof(t->interfaces) - used, "%s%s=%s",
                 strchr(t->interfaces, '=')[1] ? " " : "", name, mac);
    return json_pack("{s:s,s:s,s:o}", "mac", mac, "name", name, "done", done(t, r, &err));
}

static json_t *run_hooks(struct taking *t, const struct identity_places *at)
{
    char now[HOST_NAME_MAX + 1] = "", hostname[sizeof(now) + sizeof("QUEZTL_HOSTNAME=")];
    char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    char *const environment[] = {path, hostname, t->interfaces, NULL};
    json_t *list;
    size_t i;
    json_t *hook;

    gethostname(now, sizeof(now) - 1);
    snprintf(hostname, sizeof(hostname), "QUEZTL_HOSTNAME=%s", now);
    list = hooks_run(at->hooks, environment, at->hooks_limit_ns);
    json_array_foreach(list, i, hook)
    {
        const char *word = json_string_value(json_object_get(hook, "done"));

        t->complete &= word && !strcmp(word, "ok");
    }
    return list;
}

json_t *identity_take(const struct identity *i, const struct identity_places *at)
{
    struct taking t = {.complete = true, .interfaces = "QUEZTL_INTERFACES="};
    json_t *data = json_object(), *interfaces = json_array();
    struct qz_error err = {0};

    if (*i->hostname)
        json_object_set_new(data, "hostname",
                            done(&t, hostname_change(i->hostname, at->hostname_file, &err), &err));
    for (unsigned k = 0; k < i->interfaces; k++)
        json_array_append_new(interfaces, take_interface(&t, &i->interface[k]));
    json_object_set_new(data, "interfaces", interfaces);
    if (t.changed)
        json_object_set_new(data, "hooks", run_hooks(&t, at));
    json_object_set_new(data, "complete", json_boolean(t.complete));
    return data;
}

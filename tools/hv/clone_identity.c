/* clone_identity.c - see clone_identity.h. */
#include "clone_identity.h"

#include "vsock_ids.h"

/* The address that was typed in a value of --net. */
static bool typed_mac(const char *value, char mac[MAC_TEXT])
{
    const char *at = strstr(value, ",mac=");

    if (at)
        snprintf(mac, MAC_TEXT, "%.*s", (int)strcspn(at + 5, ","), at + 5);
    return at;
}

/* What several machines cannot have together. */
static int check_net(const struct clone_plan *p, const char *value, bool typed,
                     struct qz_error *err)
{
    char mac[MAC_TEXT];

    if (p->count == 1)
        return 0;
    if (!strncmp(value, "tap:", 4) && !strstr(value, "%d"))
        return qz_fail(err, -EINVAL,
                       "network %.60s: each clone needs a TAP of its own: give --net tap:NAME%%d, "
                       "where %%d is the clone's number",
                       value);
    if (typed && typed_mac(value, mac))
        return qz_fail(err, -EINVAL,
                       "--net %.60s: %u clones cannot have one address: leave mac= out, and each "
                       "is given its own",
                       value, p->count);
    return 0;
}

int clone_plan_complete(struct clone_plan *p, const json_t *options, struct qz_error *err)
{
    const bool typed = p->nets;
    const char *value;
    int r = own_macs_init(&p->macs, err);

    p->next_id = VSOCK_IDS_FIRST;
    while (!typed && p->nets < VM_NETS_MAX && (value = option_nth(options, "--net", p->nets)))
        p->net[p->nets++] = value;
    for (unsigned k = 0; r == 0 && k < p->nets; k++)
        r = check_net(p, p->net[k], typed, err);
    return r;
}

/* Typed for this machine, or another one than any machine has. */
static void choose_mac(struct clone_plan *p, const json_t *options, unsigned k, char mac[MAC_TEXT])
{
    const char *had = option_nth(options, "--net", k);

    if (!typed_mac(p->net[k], mac) || p->net[k] == had)
        own_mac_next(&p->macs, mac);
}

static int choose_nets(struct machine_identity *i, struct clone_plan *p, const json_t *options,
                       unsigned number)
{
    for (unsigned k = 0; k < p->nets; k++) {
        const bool none = !strcmp(p->net[k], "none");

        if (!none)
            choose_mac(p, options, k, i->mac[k]);
        i->net[k] = net_option(p->net[k], number, none ? NULL : i->mac[k]);
        if (!i->net[k])
            return -ENOMEM;
        i->nets++;
    }
    return 0;
}

static int choose_vsock(struct machine_identity *i, struct clone_plan *p, const char *folder,
                        const char *name, struct qz_error *err)
{
    i->id_lock = vsock_id_take(&p->next_id, err);
    if (i->id_lock < 0)
        return i->id_lock;
    i->cid = p->next_id++;
    return asprintf(&i->vsock, "%s/%s.vsock", folder, name) < 0 ? qz_fail(err, -ENOMEM, "no memory")
                                                                : 0;
}

int clone_identity(struct machine_identity *i, struct clone_plan *p, const json_t *options,
                   unsigned number, const char *name, const char *folder, struct qz_error *err)
{
    *i = (struct machine_identity){.id_lock = -1};
    hostname_from(i->hostname, sizeof(i->hostname), name);
    if (choose_nets(i, p, options, number) < 0)
        return qz_fail(err, -ENOMEM, "no memory");
    return option_nth(options, "--vsock", 0) ? choose_vsock(i, p, folder, name, err) : 0;
}

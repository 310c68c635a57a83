/* config_net.c - what --net and --vsock say (config_parts.h). */
#include "vm/config_items.h"
#include "vm/config_parts.h"

static int parse_mac(const char *v, uint8_t mac[6], struct qz_error *err)
{
    unsigned b[6];
    int end = 0;

    if (sscanf(v, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &end) !=
            6 ||
        v[end])
        return qz_fail(err, -EINVAL, "\"%s\" is not a MAC address such as 52:54:00:12:34:56", v);
    if (b[0] & 1)
        return qz_fail(err, -EINVAL, "MAC address %s is a multicast address", v);
    for (int i = 0; i < 6; i++)
        mac[i] = b[i];
    return 0;
}

static int net_item(struct vm_net_config *n, const char *item, struct qz_error *err)
{
    const char *v;

    if ((v = value_of(item, "mac"))) {
        n->has_mac = true;
        return parse_mac(v, n->mac, err);
    }
    if ((v = value_of(item, "forward")) && n->kind == VM_NET_USER) {
        unsigned host, guest;
        int end = 0;

        if (sscanf(v, "%u:%u%n", &host, &guest, &end) != 2 || v[end] || host > 65535 ||
            guest > 65535 || !guest)
            return qz_fail(err, -EINVAL, "forward=%s: write forward=HOSTPORT:GUESTPORT", v);
        if (n->forwards == VM_FORWARDS_MAX)
            return qz_fail(err, -EINVAL, "more than %d forwarded ports", VM_FORWARDS_MAX);
        n->forward[n->forwards++] = (struct vm_forward){host, guest};
        return 0;
    }
    return qz_fail(err, -EINVAL, "unknown key \"%s\" (mac%s)", item,
                   n->kind == VM_NET_USER ? ", forward" : "");
}

int config_set_net(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    struct vm_net_config *n = &c->net[c->nets];
    char *rest, *item;

    c->net_given = true;
    if (!strcmp(v, "none")) {
        c->nets = 0;
        return 0;
    }
    n->text = v;
    if (c->nets == VM_NETS_MAX)
        return qz_fail(err, -EINVAL, "more than %d network devices", VM_NETS_MAX);
    rest = strdup(v);
    if (!rest)
        return qz_fail(err, -ENOMEM, "no memory");
    item = next_item(&rest);
    if (!strcmp(item, "user")) {
        n->kind = VM_NET_USER;
    } else if (!strncmp(item, "tap:", 4) && item[4]) {
        n->kind = VM_NET_TAP;
        n->tap = item + 4;
    } else {
        return qz_fail(err, -EINVAL, "\"%s\": choose user, tap:NAME or none", item);
    }
    while ((item = next_item(&rest))) {
        int r = net_item(n, item, err);

        if (r < 0)
            return r;
    }
    c->nets++;
    return 0;
}

int config_set_vsock(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    const char *comma = strchr(v, ',');
    QZ_AUTO_FREE char *cid = comma ? strndup(v, comma - v) : NULL;

    if (!cid || !comma[1])
        return qz_fail(err, -EINVAL, "\"%s\": write CID,PATH", v);
    c->vsock_path = comma + 1;
    return qz_parse_u64(cid, "context id", 3, 0xfffffffe, &c->vsock_cid, err);
}

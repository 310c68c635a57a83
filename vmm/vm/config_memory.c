/* config_memory.c - what --memory, --merge, --hugepages and --balloon say (config_parts.h). */
#include "machine/memory.h"
#include "vm/config_items.h"
#include "vm/config_parts.h"

int config_set_memory(void *t, const char *v, struct qz_error *err)
{
    return qz_parse_size(v, &((struct vm_config *)t)->memory, err);
}

int config_set_merge(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;

    c->pages.merge = !strcmp(v, "on");
    return c->pages.merge || !strcmp(v, "off")
               ? 0
               : qz_fail(err, -EINVAL, "\"%s\": choose on or off", v);
}

int config_set_hugepages(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;

    for (int i = 0; i <= MEMORY_PAGES_1GIB; i++)
        if (!strcmp(v, memory_pages_name((enum memory_pages)i))) {
            c->pages.pages = (enum memory_pages)i;
            return 0;
        }
    return qz_fail(err, -EINVAL, "\"%s\": choose off, transparent, 2MiB or 1GiB", v);
}

static int balloon_item(struct vm_config *c, const char *item, struct qz_error *err)
{
    const char *min = value_of(item, "min"), *pressure = value_of(item, "pressure");
    uint64_t n = c->balloon.pressure;
    int r;

    if (!min && !pressure)
        return qz_fail(err, -EINVAL, "unknown key in \"%s\" (min, pressure)", item);
    r = min ? qz_parse_size(min, &c->balloon.min, err)
            : qz_parse_u64(pressure, "percent of time under pressure", 1, 100, &n, err);
    c->balloon.pressure = (unsigned)n;
    return r;
}

int config_set_balloon(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    QZ_AUTO_FREE char *copy = strdup(v);
    char *rest = copy, *item = next_item(&rest);
    int r = 0;

    c->balloon.text = v;
    c->balloon.min = 0;
    c->balloon.pressure = BALLOON_PRESSURE;
    c->balloon.automatic = item && !strcmp(item, "auto");
    if (!c->balloon.automatic && strcmp(v, "manual"))
        return qz_fail(err, -EINVAL, "\"%s\": choose manual or auto[,min=SIZE][,pressure=N]", v);
    while (r == 0 && (item = next_item(&rest)))
        r = balloon_item(c, item, err);
    return r;
}

int config_check_balloon(struct vm_config *c, struct qz_error *err)
{
    if (!c->balloon.automatic)
        return 0;
    if (c->deterministic)
        return qz_fail(err, -EINVAL,
                       "--balloon auto follows the host, which is never twice the same: a "
                       "deterministic machine cannot have it");
    if (c->pages.pages >= MEMORY_PAGES_2MIB)
        return qz_fail(err, -EINVAL,
                       "--balloon auto and --hugepages %s: reserved pages do not come back: choose "
                       "--hugepages transparent",
                       memory_pages_name(c->pages.pages));
    if (c->snapshot && c->snapshot_memory < 0) /* how much memory it has is not known here */
        return 0;
    if (!c->balloon.min)
        c->balloon.min = QZ_MAX(c->memory / 4, (uint64_t)GUEST_RAM_MIN);
    if (c->balloon.min < GUEST_RAM_MIN || c->balloon.min > c->memory)
        return qz_fail(err, -EINVAL,
                       "--balloon min=: %llu bytes: from 2M up to the machine's own memory",
                       (unsigned long long)c->balloon.min);
    return 0;
}

int config_check_pages(const struct vm_config *c, struct qz_error *err)
{
    const char *name = memory_pages_name(c->pages.pages);

    if (c->pages.pages < MEMORY_PAGES_2MIB)
        return 0;
    if (c->pages.merge)
        return qz_fail(err, -EINVAL,
                       "--merge on and --hugepages %s: reserved pages are never merged: choose one",
                       name);
    if (c->memory % memory_page_size(c->pages.pages))
        return qz_fail(err, -EINVAL, "--hugepages %s: --memory is no multiple of that", name);
    return c->snapshot ? qz_fail(err, -EINVAL,
                                 "--hugepages %s: memory of a snapshot is shared with others and "
                                 "copied when it is written: choose transparent",
                                 name)
                       : 0;
}

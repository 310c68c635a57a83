/*
 * config_disk.c - what --disk says (config.h).
 *
 * Keys of the machine's own device are read here; all others are the disk engine's, which checks
 * them now, before anything is built.
 */
#include <queztl/disk.h>

#include "devices/virtio/devices.h"
#include "vm/config.h"
#include "vm/config_items.h"

/* ",," becomes ",", in place. */
static char *unescape(char *text)
{
    char *to = text;

    for (const char *p = text; *p; p++) {
        *to++ = *p;
        p += p[0] == ',' && p[1] == ',';
    }
    *to = '\0';
    return text;
}

/* One more option for the disk engine. */
static int add_option(struct vm_disk_config *d, const char *item, struct qz_error *err)
{
    char *text;

    if (asprintf(&text, "%s%s%s", d->options ? d->options : "file=", d->options ? "," : "", item) <
        0)
        return qz_fail(err, -ENOMEM, "no memory");
    free(d->options);
    d->options = text;
    return 0;
}

static int set_packed(struct vm_disk_config *d, const char *v, struct qz_error *err)
{
    if (strcmp(v, "on") && strcmp(v, "off"))
        return qz_fail(err, -EINVAL, "packed: \"%s\" is neither on nor off", v);
    d->no_packed = !strcmp(v, "off");
    return 0;
}

static int set_on_error(struct vm_disk_config *d, const char *v, struct qz_error *err)
{
    static const char *const words[] = {
        [VIRTIO_BLK_REPORT] = "report", [VIRTIO_BLK_STOP] = "stop", [VIRTIO_BLK_IGNORE] = "ignore"};

    for (unsigned i = 0; i < QZ_ARRAY_LEN(words); i++)
        if (!strcmp(v, words[i])) {
            d->on_error = (int)i;
            return 0;
        }
    return qz_fail(err, -EINVAL,
                   "on-error: \"%s\" is none of report (the guest is told), stop (the machine "
                   "pauses), ignore (writes count as "
                   "done, reads are reported)",
                   v);
}

static int disk_item(struct vm_disk_config *d, const char *item, struct qz_error *err)
{
    const char *v;
    uint64_t n;

    if (!*item)
        return qz_fail(err, -EINVAL,
                       "disk %s: an empty option (a comma in a name is written twice)", d->path);
    if ((v = value_of(item, "bus")))
        return strcmp(v, "virtio")
                   ? qz_fail(err, -EINVAL, "bus \"%s\" is not built in: only virtio is", v)
                   : 0;
    if ((v = value_of(item, "packed")))
        return set_packed(d, v, err);
    if ((v = value_of(item, "queues"))) {
        int r = qz_parse_u64(v, "queues", 1, 16, &n, err);

        d->queues = n;
        return r;
    }
    if ((v = value_of(item, "iothreads"))) {
        int r = qz_parse_u64(v, "iothreads", 1, VM_IOTHREADS_MAX, &n, err);

        d->iothreads = n;
        return r;
    }
    if ((v = value_of(item, "on-error")))
        return set_on_error(d, v, err);
    if ((v = value_of(item, "serial"))) {
        if (strlen(v) >= sizeof(d->serial))
            return qz_fail(err, -EINVAL, "serial \"%s\" is longer than 20 characters", v);
        strcpy(d->serial, v);
        return 0;
    }
    d->by_descriptor |= value_of(item, "fd") != NULL;
    return add_option(d, item, err);
}

int vm_config_add_disk(void *t, const char *v, struct qz_error *err)
{
    struct vm_config *c = t;
    struct vm_disk_config *d = &c->disk[c->disks];
    char *rest, *item;
    int r;

    if (c->disks == VM_DISKS_MAX)
        return qz_fail(err, -EINVAL, "more than %d disks", VM_DISKS_MAX);
    rest = strdup(v); /* lives as long as the process: the path points into it */
    if (!rest)
        return qz_fail(err, -ENOMEM, "no memory");
    item = next_item(&rest);
    if (!*item)
        return qz_fail(err, -EINVAL, "a disk needs a file: --disk FILE[,readonly]");
    if ((r = add_option(d, item, err)) < 0)
        return r;
    d->text = v;
    d->path = unescape(item);
    while (r == 0 && (item = next_item(&rest)))
        r = disk_item(d, item, err);
    if (r == 0)
        r = qz_disk_check_options(d->options, err);
    if (r < 0)
        return r;
    if (d->queues && d->iothreads > d->queues)
        return qz_fail(err, -EINVAL,
                       "disk %s: iothreads=%u are more than queues=%u, which they serve", d->path,
                       d->iothreads, d->queues);
    c->disks++;
    return 0;
}

/* config_options.c - what was typed, to be typed again elsewhere (config_options.h). */
#include "vm/config_options.h"

#include <limits.h>
#include <queztl/disk.h>

#include "boot/boot.h"

static void add(json_t *list, const char *option, const char *value)
{
    char *name;

    if (!value || asprintf(&name, "--%s", option) < 0)
        return;
    json_array_append_new(list, json_string(name));
    json_array_append_new(list, json_string(value));
    free(name);
}

__attribute__((format(printf, 3, 4))) static void add_text(json_t *list, const char *option,
                                                           const char *fmt, ...)
{
    char *value;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&value, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    add(list, option, value);
    free(value);
}

/* The file need not be there. */
static void absolute_path(char *to, size_t size, const char *path)
{
    if (*path == '/' || !getcwd(to, size))
        *to = '\0';
    snprintf(to + strlen(to), size - strlen(to), "%s%s", *to ? "/" : "", path);
}

static void add_vsock(json_t *list, const struct vm_config *c)
{
    char path[PATH_MAX];

    absolute_path(path, sizeof(path), c->vsock_path);
    add_text(list, "vsock", "%llu,%s", (unsigned long long)c->vsock_cid, path);
}

static void add_file(json_t *list, const char *option, const char *path)
{
    char absolute[PATH_MAX];

    add(list, option, path && realpath(path, absolute) ? absolute : path);
}

/* A comma in a name is written twice. */
static void escape(char *to, size_t size, const char *from)
{
    size_t n = 0;

    for (; *from && n + 3 < size; from++) {
        to[n++] = *from;
        if (*from == ',')
            to[n++] = ',';
    }
    to[n] = '\0';
}

/* What follows the name, its comma included. */
static const char *behind_name(const char *text)
{
    for (; *text && (text[0] != ',' || text[1] == ','); text++)
        text += *text == ',';
    return text;
}

static void add_disk(json_t *list, const struct vm_disk_config *d)
{
    char absolute[PATH_MAX], escaped[2 * PATH_MAX];

    if (!qz_disk_is_local_file(d->path) || !realpath(d->path, absolute))
        return add(list, "disk", d->text);
    escape(escaped, sizeof(escaped), absolute);
    add_text(list, "disk", "%s%s", escaped, behind_name(d->text));
}

json_t *vm_config_options(const struct vm_config *c)
{
    json_t *list = json_array();

    add(list, "name", c->name);
    add(list, "cpu", cpu_model_name(c->model));
    add_text(list, "cpus", "%u,sockets=%u,cores=%u,threads=%u", c->cpus, c->topology.sockets,
             c->topology.cores, c->topology.threads);
    add_text(list, "memory", "%lluB", (unsigned long long)c->memory);
    add(list, "balloon", c->balloon.text);
    add(list, "merge", c->pages.merge ? "on" : "off");
    add(list, "hugepages", memory_pages_name(c->pages.pages));
    add_file(list, "kernel", c->kernel);
    add_file(list, "initrd", c->initrd);
    add(list, "append", c->append);
    if (c->protocol >= 0)
        add(list, "protocol", c->protocol == BOOT_PVH ? "pvh" : "linux64");
    add_file(list, "firmware", c->firmware);
    add_file(list, "firmware-vars", c->firmware_vars);
    for (unsigned i = 0; i < c->disks; i++)
        add_disk(list, &c->disk[i]);
    for (unsigned i = 0; i < c->nets; i++)
        add(list, "net", c->net[i].text);
    if (!c->nets)
        add(list, "net", "none");
    if (c->vsock_path)
        add_vsock(list, c);
    return list;
}

json_t *vm_config_command(const struct vm_config *c)
{
    json_t *list = json_array();

    for (char **word = c->command; word && *word; word++)
        json_array_append_new(list, json_string(*word));
    return list;
}

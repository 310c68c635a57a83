/* snapshot_words.c - the words and descriptors of a machine that goes on (snapshot_words.h). */
#include "snapshot_words.h"

enum { OVERLAYS_FROM = 2 }; /* behind state and memory */

static bool is_among(const char *name, const char *const *names)
{
    for (; names && *names; names++)
        if (!strcmp(name, *names))
            return true;
    return false;
}

/* The overlay of the disk of this position, and its place; NULL: it has none. */
static const struct overlay *overlay_of(const struct overlays *o, unsigned disk, int *fd)
{
    for (unsigned i = 0; i < o->count; i++)
        if (o->item[i].disk == disk) {
            *fd = HANDED_FIRST + OVERLAYS_FROM + (int)i;
            return &o->item[i];
        }
    return NULL;
}

static int add_disk(struct words *w, const char *value, const struct overlay *o, int fd)
{
    QZ_AUTO_FREE char *changed = o ? overlay_option(o, value, fd) : NULL;

    if (o && !changed)
        return -ENOMEM;
    return words_add(w, o ? changed : value);
}

int words_add_machine(struct words *w, const json_t *options, const struct overlays *disks,
                      const char *const *without)
{
    unsigned disk = 0;
    int r = json_is_array(options) && json_array_size(options) % 2 == 0 ? 0 : -EINVAL;

    for (size_t i = 0; r == 0 && i < json_array_size(options); i += 2) {
        const char *name = json_string_value(json_array_get(options, i)),
                   *value = json_string_value(json_array_get(options, i + 1));
        const bool is_disk = name && !strcmp(name, "--disk");
        int fd = -1;
        const struct overlay *o = is_disk ? overlay_of(disks, disk++, &fd) : NULL;

        if (!name || !value)
            return -EINVAL;
        if (is_among(name, without))
            continue;
        r = words_add(w, name);
        if (r == 0)
            r = is_disk ? add_disk(w, value, o, fd) : words_add(w, value);
    }
    return r;
}

unsigned snapshot_descriptors(const struct snapshot_source *s, const struct overlays *disks,
                              int *fds)
{
    fds[0] = s->state;
    fds[1] = s->memory;
    for (unsigned i = 0; i < disks->count; i++)
        fds[OVERLAYS_FROM + i] = disks->item[i].fd;
    if (s->pager < 0)
        return OVERLAYS_FROM + disks->count;
    fds[OVERLAYS_FROM + disks->count] = s->pager;
    return OVERLAYS_FROM + disks->count + 1;
}

int words_add_snapshot(struct words *w, const struct snapshot_source *s,
                       const struct overlays *disks)
{
    char text[64];

    if (s->pager < 0)
        snprintf(text, sizeof(text), "fd:%d,%d", HANDED_FIRST, HANDED_FIRST + 1);
    else
        snprintf(text, sizeof(text), "fd:%d,%d,%u", HANDED_FIRST, HANDED_FIRST + 1,
                 HANDED_FIRST + OVERLAYS_FROM + disks->count);
    return words_add(w, "--snapshot") < 0 || words_add(w, text) < 0 ? -ENOMEM : 0;
}

/* kept.c - the snapshots that are kept (torture.h). */
#include <dirent.h>

#include "torture.h"

static bool has_child(const struct torture *t, const struct kept *k)
{
    for (unsigned i = 0; i < t->kept_count; i++)
        if (t->kept[i].parent == k->serial)
            return true;
    return false;
}

static void verb(struct torture *t, int wanted, const char *verb, const char *folder)
{
    pagers_end(false); /* of machines that are gone, or have all of their memory */
    program_run(wanted, "verb.log",
                (char *[]){(char *)t->hv, "snapshots", (char *)verb, (char *)folder, NULL});
}

void kept_check(struct torture *t, const char *folder)
{
    verb(t, 0, "check", folder);
}

void kept_make_room(struct torture *t)
{
    unsigned i = 0;

    if (t->kept_count < KEPT_MAX)
        return;
    if (has_child(t, &t->kept[0])) {
        verb(t, QZ_EXIT_CONFLICT, "rm", t->kept[0].folder); /* it is in use */
        for (i = 1; t->kept[i].parent != t->kept[0].serial; i++)
            ;
        verb(t, 0, "flatten", t->kept[i].folder);
        verb(t, 0, "check", t->kept[i].folder);
        t->kept[i].parent = 0;
        for (i = 0; has_child(t, &t->kept[i]); i++)
            ;
    }
    verb(t, 0, "rm", t->kept[i].folder);
    memmove(&t->kept[i], &t->kept[i + 1], (KEPT_MAX - 1 - i) * sizeof(t->kept[0]));
    t->kept_count--;
}

struct kept *kept_add(struct torture *t, const char *folder, unsigned parent, struct moment at)
{
    struct kept *k;

    kept_check(t, folder);
    kept_make_room(t);
    k = &t->kept[t->kept_count++];
    *k = (struct kept){.serial = ++t->serial, .parent = parent, .at = at};
    snprintf(k->folder, sizeof(k->folder), "%s", folder);
    return k;
}

struct kept *kept_any(struct torture *t)
{
    return t->kept_count ? &t->kept[torture_random(t, t->kept_count)] : NULL;
}

void kept_began_at(struct torture *t, struct kept *k, uint64_t position)
{
    if (!moment_narrow(&k->at, (struct moment){position, position}))
        fail("%s: a machine began at position %llu, which was not its moment", k->folder,
             (unsigned long long)position);
    if (t->has_last && t->last_serial == k->serial)
        t->last = k->at;
}

void kept_collect(struct torture *t)
{
    const struct dirent *e;
    DIR *d;

    verb(t, 0, "gc", ".");
    d = opendir(".");
    while (d && (e = readdir(d)))
        if (strstr(e->d_name, ".partial"))
            fail("%s is left over", e->d_name);
    if (d)
        closedir(d);
}

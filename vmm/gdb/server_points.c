/*
 * server_points.c - breakpoints and watchpoints: Z and z.
 *
 * Where the accelerator wants it (target.patches), a breakpoint is an INT3 in guest memory, at the
 * physical address that its linear one had when it was set; the debugger never sees it there. The
 * guest may have overwritten it meanwhile: it is taken out only where it still stands.
 */
#include "gdb/server_internal.h"

enum { INT3 = 0xcc };

static bool is_patch(const struct gdb_server *s, unsigned n)
{
    return s->target.patches && s->point[n].kind == POINT_EXECUTE && !s->point[n].hardware;
}

static int physical(struct gdb_server *s, uint64_t gpa, uint8_t *byte, bool write)
{
    return s->target.ops->physical(s->target.context, gpa, byte, 1, write);
}

/* ---- INT3 in memory ----------------------------------------------------------------------------
 */

static unsigned patches_at(const struct gdb_server *s, uint64_t gpa)
{
    unsigned found = 0;

    for (unsigned i = 0; i < s->points; i++)
        found += is_patch(s, i) && s->patch[i].gpa == gpa;
    return found;
}

/* Point n is the last one and not yet counted. A byte may hold several, by other addresses. */
static int put_patch(struct gdb_server *s, unsigned n)
{
    const struct vcpu_state *state = gdb_state(s, s->cpu);
    struct gdb_patch *p = &s->patch[n];
    uint8_t byte = INT3;
    int r = state ? gdb_translate(&s->target, state, s->point[n].address, &p->gpa) : -EIO;

    if (r == 0)
        r = physical(s, p->gpa, &p->original, false);
    for (unsigned i = 0; r == 0 && i < n; i++)
        if (is_patch(s, i) && s->patch[i].gpa == p->gpa)
            p->original = s->patch[i].original;
    return r == 0 ? physical(s, p->gpa, &byte, true) : r;
}

/* Point n is still counted. */
static void take_patch(struct gdb_server *s, unsigned n)
{
    struct gdb_patch *p = &s->patch[n];
    uint8_t byte;

    if (patches_at(s, p->gpa) == 1 && physical(s, p->gpa, &byte, false) == 0 && byte == INT3)
        physical(s, p->gpa, &p->original, true);
}

/* Offset of patch n in the range, or -1. */
static int64_t place_in(struct gdb_server *s, unsigned n, const struct vcpu_state *state,
                        uint64_t address, size_t len)
{
    for (size_t at = 0; at < len;) {
        const size_t piece = QZ_MIN(len - at, (size_t)(4096 - ((address + at) & 4095)));
        uint64_t gpa = address + at;

        if ((!state || gdb_translate(&s->target, state, address + at, &gpa) == 0) &&
            s->patch[n].gpa - gpa < piece)
            return (int64_t)(at + (s->patch[n].gpa - gpa));
        at += piece;
    }
    return -1;
}

void gdb_hide_patches(struct gdb_server *s, const struct vcpu_state *state, uint64_t address,
                      uint8_t *data, size_t len)
{
    for (unsigned i = 0; i < s->points; i++) {
        const int64_t at = is_patch(s, i) ? place_in(s, i, state, address, len) : -1;

        if (at >= 0 && data[at] == INT3)
            data[at] = s->patch[i].original;
    }
}

void gdb_write_through_patches(struct gdb_server *s, const struct vcpu_state *state,
                               uint64_t address, uint8_t *data, size_t len)
{
    for (unsigned i = 0; i < s->points; i++) {
        const int64_t at = is_patch(s, i) ? place_in(s, i, state, address, len) : -1;

        if (at >= 0)
            s->patch[i].original = data[at];
    }
    for (unsigned i = 0; i < s->points; i++) {
        const int64_t at = is_patch(s, i) ? place_in(s, i, state, address, len) : -1;

        if (at >= 0)
            data[at] = INT3;
    }
}

/* ---- points ------------------------------------------------------------------------------------
 */

static int tell(struct gdb_server *s)
{
    return s->target.ops->set_points(s->target.context, s->point, s->points);
}

static int add(struct gdb_server *s, const struct accel_point *point)
{
    const unsigned n = s->points;
    int r = 0;

    if (n == ACCEL_POINTS_MAX)
        return -ENOSPC;
    s->point[n] = *point;
    if (is_patch(s, n))
        r = put_patch(s, n);
    if (r < 0)
        return r;
    s->points++;
    r = tell(s);
    if (r < 0) {
        if (is_patch(s, n))
            take_patch(s, n);
        s->points--;
        tell(s);
    }
    return r;
}

static void drop(struct gdb_server *s, unsigned n)
{
    if (is_patch(s, n))
        take_patch(s, n);
    s->points--;
    memmove(&s->point[n], &s->point[n + 1], (s->points - n) * sizeof(s->point[0]));
    memmove(&s->patch[n], &s->patch[n + 1], (s->points - n) * sizeof(s->patch[0]));
}

void gdb_remove_all_points(struct gdb_server *s)
{
    while (s->points > 0)
        drop(s, s->points - 1);
    tell(s);
}

/* type,address,kind; conditions and commands (;...) are not among what we said we can. */
static int get_point(struct gdb_scan *a, struct accel_point *p)
{
    static const enum accel_point_kind kinds[] = {POINT_EXECUTE, POINT_EXECUTE, POINT_WRITE,
                                                  POINT_READ, POINT_ACCESS};
    uint64_t type;

    if (!gdb_get_number(a, &type) || !gdb_get_char(a, ',') || !gdb_get_number(a, &p->address) ||
        !gdb_get_char(a, ',') || !gdb_get_number(a, &p->len) || !gdb_at_end(a))
        return -EINVAL;
    if (type >= QZ_ARRAY_LEN(kinds))
        return -EOPNOTSUPP;
    p->kind = kinds[type];
    p->hardware = type == 1;
    if (p->kind == POINT_EXECUTE)
        p->len = 1; /* its kind is the size of the breakpoint instruction */
    if (p->len < 1 || p->len > ACCEL_POINT_BYTES_MAX || p->address + (p->len - 1) < p->address)
        return -EINVAL;
    return 0;
}

static unsigned find(const struct gdb_server *s, const struct accel_point *p)
{
    unsigned i = 0;

    while (i < s->points && (s->point[i].kind != p->kind || s->point[i].hardware != p->hardware ||
                             s->point[i].address != p->address || s->point[i].len != p->len))
        i++;
    return i;
}

/* Both are idempotent: an answer may have been lost. */
void gdb_insert_point(struct gdb_server *s, struct gdb_scan *a)
{
    struct accel_point p = {0};
    int r = get_point(a, &p);

    if (r == 0 && find(s, &p) == s->points)
        r = add(s, &p);
    gdb_answer(s, r);
}

void gdb_remove_point(struct gdb_server *s, struct gdb_scan *a)
{
    struct accel_point p = {0};
    int r = get_point(a, &p);

    if (r == 0 && find(s, &p) < s->points) {
        drop(s, find(s, &p));
        r = tell(s);
    }
    gdb_answer(s, r);
}

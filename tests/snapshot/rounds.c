/* rounds.c - snapshot, restore, clone, revert (torture.h). */
#include <sys/stat.h>

#include "torture.h"

enum { CLONES_MAX = 4, LINES = 4 };

void remove_files(const struct machine *m)
{
    unlink(m->console);
    unlink(m->socket);
    unlink(m->log);
}

/* ---- network */

size_t net_lives(struct torture *t)
{
    return t->net ? link_lives(&t->link) : 0;
}

/* What was said on the network is of lines that the console says, too. */
void net_begins(struct torture *t, struct machine *m, size_t known, uint64_t low)
{
    uint64_t first;

    if (!t->net)
        return;
    link_expect(&t->link, known, 1);
    machine_goes_on(m, 2);
    first = link_first_line(&t->link, known);
    if (first <= low / STREAM_LINE || first > m->position / STREAM_LINE + 1)
        fail("%s: its first datagram is of line %llu, it began behind line %llu and is at %llu",
             m->console, (unsigned long long)first, (unsigned long long)(low / STREAM_LINE),
             (unsigned long long)(m->position / STREAM_LINE));
}

void end_machine(struct torture *t, struct machine *m, bool in_order)
{
    struct link_ports ports = {0};

    machine_judge(m);
    if (t->net)
        ports = link_ports_of(m->pid);
    if (in_order)
        machine_stop(m);
    else
        program_kill(m->pid);
    if (t->net)
        link_ended(&t->link, &ports);
    remove_files(m);
}

/* ---- snapshot */

pid_t begin_snapshot(struct torture *t, const char *folder, const char *parent, bool compress)
{
    char *words[10] = {(char *)t->hv, "snapshot"};
    unsigned n = 2;

    if (parent) {
        words[n++] = "--parent";
        words[n++] = (char *)parent;
    }
    if (compress)
        words[n++] = "--compress";
    words[n++] = t->origin.socket;
    words[n++] = (char *)folder;
    t->snapshots_of_origin++;
    return program_start(words, "snapshot.log");
}

void round_snapshot(struct torture *t)
{
    const unsigned how = (unsigned)torture_random(t, 3);
    char folder[PATH_ROOM];
    const struct kept *parent;
    struct moment at;
    struct kept *k;
    int64_t began;
    int code;

    kept_make_room(t); /* before a parent is chosen, which could be what goes */
    torture_name(t, folder, "snapshot");
    parent = how == 1 ? kept_any(t) : NULL;
    machine_judge(&t->origin);
    at.low = t->origin.position;
    began = qz_now_ns();
    code = program_end(begin_snapshot(t, folder, parent ? parent->folder : NULL, how == 2));
    if (code)
        fail("queztl-hv snapshot ended with %d (snapshot.log)", code);
    t->snapshot_ns = qz_now_ns() - began;
    machine_goes_on(&t->origin, 2);
    at.high = t->origin.position;
    k = kept_add(t, folder, parent ? parent->serial : 0, at);
    t->last = at;
    t->last_serial = k->serial;
    t->has_last = true;
}

/* ---- restore */

void start_from(struct torture *t, struct machine *m, const struct kept *k, const char *what,
                const char *load)
{
    char name[PATH_ROOM];

    torture_name(t, name, what);
    *m = (struct machine){0};
    snprintf(m->console, sizeof(m->console), "%.200s.console", name);
    snprintf(m->socket, sizeof(m->socket), "%.200s.sock", name);
    snprintf(m->log, sizeof(m->log), "%.200s.log", name);
    m->pid = program_start((char *[]){(char *)t->hv, "run", "--snapshot", (char *)k->folder,
                                      "--accel", (char *)torture_accel(t), "--console", m->console,
                                      "--control", m->socket, "--load", (char *)load, NULL},
                           m->log);
}

void begin_from(struct torture *t, struct machine *m, struct kept *k, const char *what)
{
    const size_t known = net_lives(t);

    start_from(t, m, k, what, torture_load(t));
    machine_begins(m);
    kept_began_at(t, k, m->position - m->judged);
    net_begins(t, m, known, k->at.low);
}

void round_restore(struct torture *t)
{
    struct kept *k = kept_any(t);
    struct machine m;

    if (!k) {
        round_snapshot(t);
        return;
    }
    begin_from(t, &m, k, "restored");
    machine_goes_on(&m, LINES);
    end_machine(t, &m, torture_random(t, 2));
    machine_goes_on(&t->origin, 1);
}

/* ---- clone */

/* NAME, process and control socket of each, as `queztl-hv clone` prints them. */
static unsigned read_list(const char *folder, struct machine *clones)
{
    FILE *f = fopen("clone.log", "re");
    char line[PATH_ROOM], name[64], socket[128];
    unsigned n = 0;
    int pid;

    while (f && n < CLONES_MAX && fgets(line, sizeof(line), f)) {
        struct machine *m = &clones[n];

        if (sscanf(line, "%63s %d %127s", name, &pid, socket) != 3)
            continue; /* what it says to people */
        n++;
        *m = (struct machine){.pid = pid};
        snprintf(m->socket, sizeof(m->socket), "%s", socket);
        snprintf(m->console, sizeof(m->console), "%.60s/%s.console", folder, name);
        snprintf(m->log, sizeof(m->log), "%.60s/%s.log", folder, name);
    }
    if (f)
        fclose(f);
    return n;
}

/* All of them begin at the same byte: which. */
static uint64_t clones_begin(struct machine *clones, unsigned n)
{
    uint64_t first = 0;

    for (unsigned i = 0; i < n; i++) {
        machine_begins(&clones[i]);
        if (i == 0)
            first = clones[i].position - clones[i].judged;
        else if (clones[i].position - clones[i].judged != first)
            fail("%s begins at %llu, the first clone at %llu", clones[i].console,
                 (unsigned long long)(clones[i].position - clones[i].judged),
                 (unsigned long long)first);
    }
    return first;
}

/* On the network, too. */
static void clones_speak(struct torture *t, size_t known, unsigned n, uint64_t first)
{
    if (!t->net)
        return;
    link_expect(&t->link, known, n);
    for (unsigned i = 0; i < n; i++)
        if (link_first_line(&t->link, known + i) <= first / STREAM_LINE)
            fail("a clone's first datagram is of line %llu, it began behind line %llu",
                 (unsigned long long)link_first_line(&t->link, known + i),
                 (unsigned long long)(first / STREAM_LINE));
}

/* They write beside each other; one may die, which is nothing to the others. */
static void clones_live(struct torture *t, struct machine *clones, unsigned n)
{
    const unsigned dies = (unsigned)torture_random(t, 2 * n);

    for (unsigned i = 0; i < n; i++) {
        machine_goes_on(&clones[i], LINES);
        if (i == dies)
            end_machine(t, &clones[i], false);
    }
    for (unsigned i = 0; i < n; i++) {
        if (i == dies)
            continue;
        machine_goes_on(&clones[i], LINES);
        end_machine(t, &clones[i], true);
    }
}

void round_clone(struct torture *t)
{
    struct kept *k = torture_random(t, 3) ? NULL : kept_any(t);
    struct machine clones[CLONES_MAX];
    char folder[PATH_ROOM], count[8];
    const unsigned n = 1 + (unsigned)torture_random(t, CLONES_MAX);
    const size_t known = net_lives(t);
    struct moment at;
    uint64_t first;
    int64_t began;

    torture_name(t, folder, "clones");
    if (mkdir(folder, 0700) < 0)
        fail("%s: %s", folder, strerror(errno));
    snprintf(count, sizeof(count), "%u", n);
    machine_judge(&t->origin);
    at.low = t->origin.position;
    began = qz_now_ns();
    program_run(0, "clone.log",
                (char *[]){(char *)t->hv, "clone", "--count", count, "--folder", folder, "--load",
                           (char *)torture_load(t), k ? k->folder : t->origin.socket, NULL});
    t->clone_ns = qz_now_ns() - began;
    if (read_list(folder, clones) != n)
        fail("queztl-hv clone did not list %u machines", n);
    first = clones_begin(clones, n);
    clones_speak(t, known, n, first);
    machine_goes_on(&t->origin, 2);
    at.high = t->origin.position;
    if (k) {
        kept_began_at(t, k, first);
    } else {
        t->snapshots_of_origin++;
        if (!moment_narrow(&at, (struct moment){first, first}))
            fail("the clones in %s begin at %llu, not between %llu and %llu", folder,
                 (unsigned long long)first, (unsigned long long)at.low,
                 (unsigned long long)at.high);
        t->last = at;
        t->last_serial = 0;
        t->has_last = true;
    }
    clones_live(t, clones, n);
    remove_tree(folder);
}

/* ---- revert */

/* Disks that are written need new images, which the monitor itself cannot make. */
static int ask_to_go_back(struct torture *t)
{
    if (!t->disk)
        return machine_ask(&t->origin, "restore");
    return program_code("restore.log", (char *[]){(char *)t->hv, "restore", t->origin.socket, NULL})
               ? -EREMOTEIO
               : 0;
}

int send_back(struct torture *t, struct moment *to)
{
    const size_t known = net_lives(t);
    int r;

    if (t->net)
        link_send_back(&t->link, t->life, true);
    r = ask_to_go_back(t);
    if (r < 0) {
        if (t->net)
            link_send_back(&t->link, t->life, false);
        return r;
    }
    *to = machine_jumps(&t->origin);
    net_begins(t, &t->origin, known, to->low);
    t->life = known;
    return 0;
}

void round_revert(struct torture *t)
{
    struct moment to;
    int r;

    if (!t->has_last) {
        round_restore(t);
        return;
    }
    r = send_back(t, &to);
    if (r < 0)
        fail("revert: %s", strerror(-r));
    if (!moment_narrow(&t->last, to))
        fail("sent back, the machine was at %llu to %llu, not at its last snapshot (%llu to %llu)",
             (unsigned long long)to.low, (unsigned long long)to.high,
             (unsigned long long)t->last.low, (unsigned long long)t->last.high);
    machine_goes_on(&t->origin, 2);
}

/*
 * kills.c - kill -9 in the middle (torture.h): afterwards there is the old or the new, never a
 * broken one, and who was not killed goes on.
 */
#include <sys/stat.h>

#include "torture.h"

enum { LOADING_NS = 60000000 }; /* about as long as a pager needs for the guest that counts */

/* Some time within what the thing takes as a rule, and a little beyond. */
static void wait_a_part(struct torture *t, int64_t usual_ns)
{
    pause_ns((int64_t)torture_random(t, (uint64_t)(usual_ns + usual_ns / 4 + 1000000)));
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

/*
 * It cannot be told whether the machine was frozen by a program that was killed: it is sent back,
 * to that moment or to the one before.
 */
static void settle_last(struct torture *t, struct moment maybe)
{
    struct moment to, last = t->last;
    int r;

    r = send_back(t, &to);
    if (r == -EREMOTEIO && !t->has_last)
        return;
    if (r < 0)
        fail("revert: %s", strerror(-r));
    if (moment_narrow(&maybe, to)) {
        t->last = maybe;
        t->last_serial = 0;
    } else if (!t->has_last || !moment_narrow(&last, to)) {
        fail("sent back, the machine was at %llu to %llu: at no snapshot",
             (unsigned long long)to.low, (unsigned long long)to.high);
    }
    t->has_last = true;
}

void round_kill_snapshot(struct torture *t)
{
    const bool compress = torture_random(t, 2);
    char folder[PATH_ROOM];
    struct moment at;
    pid_t pid;

    torture_name(t, folder, "killed");
    machine_judge(&t->origin);
    at.low = t->origin.position;
    pid = begin_snapshot(t, folder, NULL, compress);
    wait_a_part(t, t->snapshot_ns);
    program_kill(pid);
    machine_answers(&t->origin); /* whatever was asked is done */
    machine_goes_on(&t->origin, 2);
    at.high = t->origin.position;
    kept_collect(t);
    if (is_there(folder)) {
        t->last_serial = kept_add(t, folder, 0, at)->serial;
        t->last = at;
        t->has_last = true;
    } else {
        settle_last(t, at);
    }
}

void round_kill_monitor(struct torture *t)
{
    const uint64_t low = (machine_judge(&t->origin), t->origin.position);
    char folder[PATH_ROOM];
    struct kept *k;
    size_t known;
    pid_t pid;
    int code;

    torture_name(t, folder, "orphan");
    pid = begin_snapshot(t, folder, NULL, false);
    wait_a_part(t, t->snapshot_ns);
    end_machine(t, &t->origin, false);
    code = program_end(pid);
    if (is_there(folder))
        kept_add(t, folder, 0, (struct moment){low, t->origin.position + 4096});
    else if (code == 0)
        fail("queztl-hv snapshot said that it made %s, which is not there", folder);
    kept_collect(t);
    k = kept_any(t);
    if (!k || t->disk) {
        torture_boot(t);
        return;
    }
    known = net_lives(t);
    begin_from(t, &t->origin, k, "origin");
    pagers_end(false); /* later rounds kill such, but not the origin's */
    t->life = known;
    machine_answers(&t->origin);
    t->last = k->at;
    t->last_serial = k->serial;
    t->has_last = true;
}

void round_kill_flatten(struct torture *t)
{
    char folder[PATH_ROOM];
    struct kept *parent;
    struct moment at;
    int64_t began;
    pid_t pid;
    int code;

    kept_make_room(t);
    parent = kept_any(t);
    if (!parent) {
        round_snapshot(t);
        return;
    }
    torture_name(t, folder, "flattened");
    machine_judge(&t->origin);
    at.low = t->origin.position;
    code = program_end(begin_snapshot(t, folder, parent->folder, false));
    if (code)
        fail("queztl-hv snapshot --parent ended with %d (snapshot.log)", code);
    machine_goes_on(&t->origin, 2);
    at.high = t->origin.position;
    pid = program_start((char *[]){(char *)t->hv, "snapshots", "flatten", folder, NULL},
                        "flatten.log");
    wait_a_part(t, t->flatten_ns ? t->flatten_ns : t->snapshot_ns);
    program_kill(pid);
    kept_collect(t);
    kept_check(t, folder); /* as it was, or whole by itself */
    began = qz_now_ns();
    program_run(0, "verb.log", (char *[]){(char *)t->hv, "snapshots", "flatten", folder, NULL});
    t->flatten_ns = qz_now_ns() - began;
    t->last_serial = kept_add(t, folder, 0, at)->serial;
    t->last = at;
    t->has_last = true;
}

/* The program that begins clones dies with the clones that it began. */
void round_kill_clone(struct torture *t)
{
    char folder[PATH_ROOM];
    struct moment at;
    pid_t pid;

    torture_name(t, folder, "killed-clones");
    if (mkdir(folder, 0700) < 0)
        fail("%s: %s", folder, strerror(errno));
    machine_judge(&t->origin);
    at.low = t->origin.position;
    t->snapshots_of_origin++;
    pid = program_start((char *[]){(char *)t->hv, "clone", "--count", "3", "--folder", folder,
                                   t->origin.socket, NULL},
                        "clone.log");
    wait_a_part(t, t->clone_ns);
    program_kill(pid);
    kill_orphans(t->origin.pid);
    if (t->net)
        link_only(&t->link, t->life);
    machine_answers(&t->origin); /* whatever was asked is done */
    machine_goes_on(&t->origin, 2);
    at.high = t->origin.position;
    remove_tree(folder);
    settle_last(t, at);
}

/* Who loads a machine's memory dies: the machine has all of it, or ends. */
void round_kill_pager(struct torture *t)
{
    struct kept *k = kept_any(t);
    struct machine m;

    if (!k) {
        round_snapshot(t);
        return;
    }
    start_from(t, &m, k, "orphaned", "lazy");
    wait_a_part(t, LOADING_NS);
    pagers_end(true);
    if (machine_survives(&m)) {
        machine_begins(&m);
        kept_began_at(t, k, m.position - m.judged);
        machine_goes_on(&m, 2);
        end_machine(t, &m, true);
    }
    if (t->net)
        link_only(&t->link, t->life);
    remove_files(&m);
    machine_goes_on(&t->origin, 1);
}

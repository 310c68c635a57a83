/* torture.h - what the rounds of a torture share: the machine that is tortured, and its snapshots
 * that are kept. */
#ifndef SNAPSHOT_TORTURE_H
#define SNAPSHOT_TORTURE_H

#include "link.h"
#include "machine.h"

enum { KEPT_MAX = 6, ACCELS_MAX = 4 };

/* A snapshot in a folder. */
struct kept {
    char folder[PATH_ROOM];
    unsigned serial, parent; /* parent's serial, 0: none */
    struct moment at;
};

struct torture {
    const char *hv, *guest, *accel[ACCELS_MAX];
    unsigned accels, cpus, snapshots_of_origin;
    bool disk, net;
    uint64_t random;
    struct link link; /* with net */
    size_t life;      /* the origin's there */

    struct machine origin;
    struct moment last; /* what the origin can be sent back to */
    unsigned last_serial;
    bool has_last;
    struct kept kept[KEPT_MAX];
    unsigned kept_count, serial;
    int64_t snapshot_ns, clone_ns, flatten_ns; /* what they took the last time */
};

uint64_t torture_random(struct torture *t, uint64_t below);
const char *torture_accel(struct torture *t);
/* For --load. */
const char *torture_load(struct torture *t);
/* A name that was not there yet: WHAT-SERIAL. */
void torture_name(struct torture *t, char name[PATH_ROOM], const char *what);
/* The origin anew: booted. */
void torture_boot(struct torture *t);
void remove_tree(const char *path);

/* ---- kept snapshots (kept.c) */

/* Room for one more: the first that nothing builds upon goes, or becomes independent first. */
void kept_make_room(struct torture *t);
/* `folder` is whole (`snapshots check`), and of this moment. */
struct kept *kept_add(struct torture *t, const char *folder, unsigned parent, struct moment at);
struct kept *kept_any(struct torture *t); /* NULL: there is none */
/* A machine began from it, at exactly this position. */
void kept_began_at(struct torture *t, struct kept *k, uint64_t position);
void kept_check(struct torture *t, const char *folder);
/* What programs that were killed left over goes, and nothing is left then. */
void kept_collect(struct torture *t);

/* ---- rounds (rounds.c, kills.c) */

void round_snapshot(struct torture *t);
void round_restore(struct torture *t);
void round_clone(struct torture *t);
void round_revert(struct torture *t);
void round_kill_snapshot(struct torture *t);
void round_kill_monitor(struct torture *t);
void round_kill_flatten(struct torture *t);
void round_kill_clone(struct torture *t);
void round_kill_pager(struct torture *t);

/* The origin back to its last snapshot; `to` is where it was then. A negative errno: it refuses. */
int send_back(struct torture *t, struct moment *to);
/* Lives on the network so far, 0 without one; and `m`'s, which are one more since, and began at or
 * behind this position of the stream. */
size_t net_lives(struct torture *t);
void net_begins(struct torture *t, struct machine *m, size_t known, uint64_t low);
/* Starts a machine from a folder. Named `what` and a number. */
void start_from(struct torture *t, struct machine *m, const struct kept *k, const char *what,
                const char *load);
/* The same; it has begun when this returns. */
void begin_from(struct torture *t, struct machine *m, struct kept *k, const char *what);
/* Its console, socket and messages. */
void remove_files(const struct machine *m);
/* Stops or kills it, and removes its files. */
void end_machine(struct torture *t, struct machine *m, bool in_order);
/* `queztl-hv snapshot` of the origin into a folder, begun. */
pid_t begin_snapshot(struct torture *t, const char *folder, const char *parent, bool compress);

#endif

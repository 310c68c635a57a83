/*
 * torture.c - a machine that counts is frozen, gone on from, cloned, sent back and killed, again
 * and again, and nothing it says may be torn, lost or said twice.
 *
 * torture --hv PROGRAM --guest FILE --folder DIR [--rounds N] [--seconds N] [--cpus 1|2|4] [--disk]
 * [--net] [--accel NAME]... [--seed N]
 *
 * Works in DIR, which it fills and empties. Ends with 0 after N rounds, or when the seconds are
 * over; the last line says how many rounds of each kind there were. A seed gives the same choices;
 * the moments are other ones.
 */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#include "torture.h"

enum { DISK_SIZE = 1 << 20, DISK_CHAIN = 8, WEIGHTS = 22 };

static const struct kind {
    const char *name;
    void (*round)(struct torture *t);
    unsigned weight; /* of WEIGHTS */
} kinds[] = {
    {"snapshots", round_snapshot, 3},
    {"restores", round_restore, 4},
    {"clones", round_clone, 3},
    {"reverts", round_revert, 4},
    {"snapshots killed", round_kill_snapshot, 2},
    {"monitors killed", round_kill_monitor, 1},
    {"flattenings killed", round_kill_flatten, 1},
    {"clonings killed", round_kill_clone, 2},
    {"pagers killed", round_kill_pager, 2},
};

struct options {
    const char *folder;
    unsigned rounds, seconds;
};

/* xorshift64* */
uint64_t torture_random(struct torture *t, uint64_t below)
{
    t->random ^= t->random >> 12;
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return (t->random * UINT64_C(0x2545f4914f6cdd1d) >> 16) % below;
}

const char *torture_accel(struct torture *t)
{
    return t->accel[torture_random(t, t->accels)];
}

const char *torture_load(struct torture *t)
{
    static const char *const ways[] = {"auto", "lazy", "lazy", "eager"};

    return ways[torture_random(t, QZ_ARRAY_LEN(ways))];
}

void torture_name(struct torture *t, char name[PATH_ROOM], const char *what)
{
    snprintf(name, PATH_ROOM, "%s-%u", what, ++t->serial);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_disk(const char *path)
{
    QZ_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0)
        fail("%s: %s", path, strerror(errno));
}

void torture_boot(struct torture *t)
{
    struct machine *m = &t->origin;
    char cpus[8], words[32], disk[PATH_ROOM + 16], image[PATH_ROOM];
    char *command[] = {(char *)t->hv,
                       "run",
                       "--kernel",
                       (char *)t->guest,
                       "--memory",
                       "64M",
                       "--net",
                       t->net ? "user" : "none",
                       "--cpus",
                       cpus,
                       "--append",
                       words,
                       "--accel",
                       (char *)torture_accel(t),
                       "--console",
                       m->console,
                       "--control",
                       m->socket,
                       "--name",
                       "origin",
                       t->disk ? "--disk" : NULL,
                       disk,
                       NULL};

    const size_t known = net_lives(t);

    *m = (struct machine){0};
    torture_name(t, image, "origin");
    snprintf(m->console, sizeof(m->console), "%.200s.console", image);
    snprintf(m->socket, sizeof(m->socket), "%.200s.sock", image);
    snprintf(m->log, sizeof(m->log), "%.200s.log", image);
    snprintf(cpus, sizeof(cpus), "%u", t->cpus);
    snprintf(words, sizeof(words), "cpus=%u net=%u", t->cpus, t->net ? t->link.port : 0);
    strcat(image, ".img");
    snprintf(disk, sizeof(disk), "%s,format=raw", image);
    if (t->disk)
        make_disk(image);
    m->pid = program_start(command, m->log);
    machine_answers(m);
    machine_goes_on(m, 4);
    net_begins(t, m, known, 0);
    t->life = known;
    t->has_last = false;
    t->snapshots_of_origin = 0;
}

/* The whole folder, so that chains of overlays end. */
static void begin_anew(struct torture *t)
{
    end_machine(t, &t->origin, true);
    t->kept_count = 0;
    remove_tree(".");
    torture_boot(t);
}

static const struct kind *choose(struct torture *t, unsigned *index)
{
    unsigned at = (unsigned)torture_random(t, WEIGHTS);

    for (*index = 0; at >= kinds[*index].weight; (*index)++)
        at -= kinds[*index].weight;
    return &kinds[*index];
}

static void torture(struct torture *t, const struct options *o)
{
    const int64_t end = qz_now_ns() + o->seconds * INT64_C(1000000000);
    unsigned count[QZ_ARRAY_LEN(kinds)] = {0}, rounds = 0, index;

    torture_boot(t);
    round_snapshot(t);
    for (; rounds < o->rounds && (!o->seconds || qz_now_ns() < end); rounds++) {
        const struct kind *k = choose(t, &index);

        if (t->disk && t->snapshots_of_origin >= DISK_CHAIN)
            begin_anew(t);
        k->round(t);
        machine_judge(&t->origin);
        if (t->net)
            link_goes_on(&t->link, t->life);
        count[index]++;
    }
    end_machine(t, &t->origin, true);
    if (t->net)
        link_sum(&t->link);
    printf("%u rounds, %u CPUs%s%s:", rounds, t->cpus, t->disk ? ", disk" : "",
           t->net ? ", network" : "");
    for (index = 0; index < QZ_ARRAY_LEN(kinds); index++)
        printf(" %u %s%s", count[index], kinds[index].name,
               index + 1 < QZ_ARRAY_LEN(kinds) ? "," : "\n");
}

static bool parse(int argc, char **argv, struct torture *t, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];

        if (!strcmp(name, "--disk")) {
            t->disk = true;
            continue;
        }
        if (!strcmp(name, "--net")) {
            t->net = true;
            continue;
        }
        if (++i == argc)
            return false;
        if (!strcmp(name, "--hv"))
            t->hv = realpath(argv[i], NULL); /* the folder is entered */
        else if (!strcmp(name, "--guest"))
            t->guest = realpath(argv[i], NULL);
        else if (!strcmp(name, "--folder"))
            o->folder = argv[i];
        else if (!strcmp(name, "--rounds"))
            o->rounds = (unsigned)atoi(argv[i]);
        else if (!strcmp(name, "--seconds"))
            o->seconds = (unsigned)atoi(argv[i]);
        else if (!strcmp(name, "--cpus"))
            t->cpus = (unsigned)atoi(argv[i]);
        else if (!strcmp(name, "--seed"))
            t->random = strtoull(argv[i], NULL, 0) * 2 + 1;
        else if (!strcmp(name, "--accel") && t->accels < ACCELS_MAX)
            t->accel[t->accels++] = argv[i];
        else
            return false;
    }
    return t->hv && t->guest && o->folder && (t->cpus == 1 || t->cpus == 2 || t->cpus == 4);
}

int main(int argc, char **argv)
{
    struct torture t = {.cpus = 1, .random = 1};
    struct options o = {.rounds = 1000};

    if (!parse(argc, argv, &t, &o)) {
        fprintf(stderr, "usage: torture --hv PROGRAM --guest FILE --folder DIR [--rounds N] "
                        "[--seconds N] [--cpus 1|2|4] [--disk] [--net] [--accel NAME]... "
                        "[--seed N]\n");
        return QZ_EXIT_USAGE;
    }
    if (!t.accels)
        t.accel[t.accels++] = "auto";
    if (chdir(o.folder) < 0) {
        perror(o.folder);
        return 1;
    }
    adopt_orphans();
    if (t.net)
        link_open(&t.link);
    torture(&t, &o);
    kill_all();
    return 0;
}

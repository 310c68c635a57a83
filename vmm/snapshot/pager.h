/*
 * pager.h - loading a snapshot's memory lazily: a process that reads the folder for all machines
 * which go on from it, and what it and they say to each other.
 *
 * Theory of operation. The pager (tools/hv/snapshot_pager.h starts it) has the folder and, mapped
 * shared, the memfd that machines map privately. A machine knocks at its door, a SOCK_SEQPACKET
 * socket that all of them have: it sends a struct pager_hello with two descriptors, a userfaultfd
 * of its own and one end of a channel (SOCK_SEQPACKET) on which the two speak from then on. The
 * pager makes the kernel stop that machine where chunks are to come, says PAGER_READY, and the
 * machine may touch its memory. Whoever is stopped waits until the pager has loaded the chunk.
 * Between faults it loads, in this order, what an earlier machine needed first (working_set.h), and
 * the rest; if nothing was recorded yet, the rest waits until nobody has needed anything for a
 * while. Then all of them hear PAGER_DONE and close
 * their userfaultfd: what they have is an ordinary file of frozen memory.
 *
 * A machine that hears PAGER_FAILED, or nothing more before PAGER_DONE, cannot go on: bytes that it
 * needs are nowhere. While it has its userfaultfd open nobody in it goes on with zeros.
 */
#ifndef VMM_PAGER_H
#define VMM_PAGER_H

#include "snapshot/snapshot_dir.h"
#include "snapshot/working_set.h"

enum { PAGER_VERSION = 1, PAGER_HELLO_FDS = 2 /* userfaultfd, channel */ };

/* Where a machine has mapped its memory; high is behind low in the file. */
struct pager_hello {
    uint32_t version, reserved;
    uint64_t low, low_size, high, high_size;
};

/* A machine's first words; both descriptors stay its own. -errno: nobody is there. */
int pager_knock(int door, const struct pager_hello *hello, int userfault, int channel);

enum pager_word { PAGER_READY = 1, PAGER_LOADING, PAGER_DONE, PAGER_FAILED };

struct pager_report {
    uint32_t word;
    int32_t pid;                 /* the pager's */
    uint64_t done, of;           /* bytes loaded, and that there are to load */
    uint64_t faults, longest_ns; /* of this machine; how long one of them waited at most */
    char text[480];              /* PAGER_READY: the snapshot; PAGER_FAILED: what, where, cure */
};

/* What a machine says on its channel, a byte: it waits for PAGER_DONE. */
enum { PAGER_HURRY = 'h' };

struct pager_job {
    struct snapshot_dir *snapshot;
    const char *path;          /* of it, for messages */
    void *memory;              /* mapped shared */
    struct working_set *first; /* what to load first; empty: record it, if the folder takes it */
    bool record;
};

/*
 * Serves machines until the door is closed by all who had it and the last machine that knocked has
 * all of its memory, or is gone. What fails is told to the machines. A process of its own, one
 * thread; takes `door` over.
 */
void pager_run(const struct pager_job *job, int door);

#endif

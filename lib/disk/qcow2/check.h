/* check.h - what the two halves of the check share: finding (check) and mending (repair). */
#ifndef DISK_QCOW2_CHECK_H
#define DISK_QCOW2_CHECK_H

#include "image.h"

/* A table entry that says something else than it should. */
struct qcow2_flaw {
    uint64_t where; /* offset in the file */
    uint64_t value; /* what it should be */
};

struct qcow2_checking {
    struct qcow2 *i;
    struct disk_queue *q;
    struct format_check *c;
    uint16_t *counts;   /* how often each cluster is mentioned; stays at the most it can say */
    uint64_t clusters;  /* of the file */
    unsigned tables;    /* L1 tables gone through, with the one under way */
    bool active;        /* it is the one in use */
    bool bad_refcounts; /* table or blocks cannot be used: they must be made anew */
    bool outside;       /* something past the end of the file is named that cannot be let go */
    struct qcow2_flaw *flaws;
    unsigned flaw_count, flaw_room;
    uint64_t last_host; /* for fragmentation */
};

void qcow2_say(struct qcow2_checking *k, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Counts the clusters of [offset, offset + length); an error is said when they are not there. */
bool qcow2_count(struct qcow2_checking *k, uint64_t offset, uint64_t length, const char *what);
/* The same, for what may be let go when it is not there: the entry at `where` becomes `instead`. */
bool qcow2_count_entry(struct qcow2_checking *k, uint64_t offset, uint64_t length, const char *what,
                       uint64_t where, uint64_t instead);
/* All of it, from counting to mending. */
int qcow2_check_walk(struct qcow2_checking *k);
int qcow2_count_bitmaps(struct qcow2_checking *k);
int qcow2_compare(struct qcow2_checking *k);
int qcow2_mend(struct qcow2_checking *k);

#endif

/* pager_machine.h - one machine that a pager serves (pager.h). */
#ifndef VMM_PAGER_MACHINE_H
#define VMM_PAGER_MACHINE_H

#include <queztl/loop.h>

#include "snapshot/lazy_memory.h"
#include "snapshot/pager.h"

struct pager;

struct pager_machine {
    struct pager *pager;
    struct pager_machine *next;
    struct pager_hello where;
    struct qz_watch faults, channel; /* descriptors are this machine's */
    uint64_t served;
    int64_t longest_ns;
    bool gone; /* to be freed when nobody looks at it */
};

/* Takes both descriptors over. NULL: no memory, or they are not what they must be. */
struct pager_machine *pager_machine_new(struct pager *p, const struct pager_hello *hello,
                                        int userfault, int channel);
void pager_machine_free(struct pager_machine *m);
/* The kernel stops it from now on where a range has no pages. */
int pager_machine_stop_at(struct pager_machine *m, const struct lazy_range *range, size_t count);
/* Those that wait for [offset, offset + len) of memory go on. */
int pager_machine_wake(struct pager_machine *m, uint64_t offset, uint64_t len);
/* Where in memory a host address is; UINT64_MAX: nowhere. */
uint64_t pager_machine_offset(const struct pager_machine *m, uint64_t address);
/* -EAGAIN: it does not listen just now. */
int pager_machine_say(struct pager_machine *m, enum pager_word word, const struct lazy_memory *l,
                      const char *text);

#endif

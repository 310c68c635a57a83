/*
 * vm_loading.h - a machine whose memory comes while it runs: its end of snapshot/pager.h.
 *
 * A thread of its own listens to the pager, because each other one may wait for a page. When the
 * pager fails or is gone, pages will never come and whoever waits for one cannot be told: the
 * process ends at once.
 */
#ifndef VMM_VM_LOADING_H
#define VMM_VM_LOADING_H

#include <jansson.h>
#include <queztl/base.h>

#include "machine/memory.h"
#include "vm/confine.h"

struct vm_loading;
struct host_console;

/* door: the pager's; taken over. Memory was not touched yet; afterwards it may be. */
int vm_loading_begin(struct vm_loading **l, int door, const struct guest_memory *memory,
                     struct qz_error *err);
/* Starts to listen. The console is put back in order if the process has to end at once. */
int vm_loading_listen(struct vm_loading *l, enum confine_mode mode, struct host_console *console,
                      struct qz_error *err);
/* NULL is fine. No thread touches guest memory any more. */
void vm_loading_free(struct vm_loading *l);

/* Until all of memory is there: before it is frozen, or mapped anew. Bounded by what is left to
 * load. NULL is fine. */
void vm_loading_wait(struct vm_loading *l);
/* For "info", NULL: it is all there; and for "metrics", NULL: it was loaded before. */
json_t *vm_loading_info(struct vm_loading *l);
json_t *vm_loading_metrics(struct vm_loading *l);

#endif

/*
 * host_pressure.h - how much tasks of the host stand still for memory: pressure stall information
 * (Linux Documentation/accounting/psi.rst), of the whole host and of the control group that this
 * process is in, whichever is worse.
 *
 * While nobody asks it costs nothing: the kernel itself watches for the threshold and wakes the
 * loop. All on the loop's thread, or before it runs.
 */
#ifndef VMM_HOST_PRESSURE_H
#define VMM_HOST_PRESSURE_H

#include <queztl/loop.h>

struct host_pressure;

/*
 * Opens what there is; before confinement. threshold: 1/10000 of the time; `risen` is called when
 * there was so much within two seconds, again and again while it lasts. -ENOTSUP: the host does not
 * tell.
 */
int host_pressure_new(struct host_pressure **out, struct qz_loop *loop, uint32_t threshold,
                      void (*risen)(void *context), void *context, struct qz_error *err);
void host_pressure_free(struct host_pressure *h); /* NULL is fine */
/* The share of the time since the last call that some tasks stood for memory, in 1/10000. After a
 * long while without calls it is the threshold when that was exceeded just now, or else 0. */
uint32_t host_pressure_read(struct host_pressure *h);
/* Whether `risen` can be relied on for all that is watched; else somebody has to read now and then.
 */
bool host_pressure_tells(const struct host_pressure *h);

/* The microseconds that some task stood, out of such a file; -EINVAL. */
int host_pressure_parse(const char *text, uint64_t *total_us);
/* Where a control group's memory.pressure is, of /proc/self/cgroup and /proc/self/mountinfo;
 * -ENOENT: there is no version 2 hierarchy. */
int host_pressure_path(const char *cgroup, const char *mountinfo, char *path, size_t size);

#endif

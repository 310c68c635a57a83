/* vm_restore.c - going on from a moment (vm_restore.h). */
#include "vm/vm_restore.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "devices/vmgenid.h"
#include "snapshot/state_file.h"
#include "vm/machine_state.h"
#include "vm/vm_snapshot.h"
#include "vm/vm_standstill.h"

QZ_SYSCALLS(main, "fcntl pread64");

/* ---- a moment's state becomes the machine's ---- */

/*
 * The loops stand, and memory is the snapshot's. Others may go on from the same moment, or have
 * done so: the guest is told not to draw the same random numbers as they.
 */
static int load(struct vm *vm, const void *state, size_t len, struct qz_error *err)
{
    struct machine *m = &vm->machine;
    int r;

    machine_written(m, m->memory.low, m->memory.low_size);
    machine_written(m, m->memory.high, m->memory.high_size);
    r = machine_state_load(vm, state, len, err);
    return r < 0 ? r : vmgenid_renew(vm->pc.vmgenid, err);
}

/* All of a file, which may be anybody's; the caller's to free. */
static int read_state(int fd, void **bytes, size_t *len, struct qz_error *err)
{
    struct stat st;
    uint8_t *to;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
        st.st_size > STATE_FILE_MAX)
        return qz_fail(err, -EINVAL, "descriptor %d is no state of a machine", fd);
    *len = (size_t)st.st_size;
    *bytes = to = malloc(*len);
    if (!to)
        return qz_fail(err, -ENOMEM, "no memory for %zu bytes of state", *len);
    for (size_t done = 0; done < *len;) {
        const ssize_t n = pread(fd, to + done, *len - done, (off_t)done);

        if (n <= 0)
            return qz_fail(err, n < 0 ? -errno : -EIO, "the state: cannot be read: %s",
                           n < 0 ? strerror(errno) : "it is shorter than it was");
        done += (size_t)n;
    }
    return 0;
}

int vm_begin_from_snapshot(struct vm *vm, struct qz_error *err)
{
    struct standstill loops;
    void *state = NULL;
    size_t len = 0;
    int r = read_state(vm->config.snapshot_state, &state, &len, err);

    close(vm->config.snapshot_state);
    if (r == 0)
        r = guest_prepare(vm->guest, &vm->machine, &vm->pc, err);
    if (r == 0) {
        stop_loops(vm, &loops);
        r = load(vm, state, len, err);
        start_loops(&loops);
    }
    if (r == 0 && vm->machine.memory.layers) {
        vm_snapshot_keep(vm, NULL, state, len);
        return 0;
    }
    free(state);
    return r < 0 ? qz_error_prefix(err, "snapshot") : 0;
}

/* ---- sent back ---- */

/* Where a machine is sent back to. */
struct target {
    void *state;
    size_t len;
    struct memory_layers *memory; /* a reference */
    bool is_last;                 /* vm->last has it, and keeps it */
};

static int find_last(struct vm *vm, struct target *t, struct qz_error *err)
{
    if (!vm->last.state)
        return qz_fail(err, -ENOENT, "there is no snapshot to go back to: take one first");
    *t = (struct target){vm->last.state, vm->last.len, layers_hold(vm->last.memory), true};
    return 0;
}

static int open_given(struct vm *vm, const struct vm_moment *to, struct target *t,
                      struct qz_error *err)
{
    int r = read_state(to->state, &t->state, &t->len, err);

    if (r == 0)
        r = machine_state_check(vm, t->state, t->len, err);
    if (r == 0)
        r = guest_memory_layers_of(&vm->machine.memory, to->memory, &t->memory, err);
    if (r < 0)
        free(t->state);
    return r;
}

static int find_target(struct vm *vm, const struct vm_moment *to, struct target *t,
                       struct qz_error *err)
{
    *t = (struct target){0};
    return to ? open_given(vm, to, t, err) : find_last(vm, t, err);
}

/* `reached`: the machine is there, and can be sent there again. */
static void leave_target(struct vm *vm, struct target *t, bool reached)
{
    layers_drop(t->memory);
    if (t->is_last)
        return;
    if (reached)
        vm_snapshot_keep(vm, NULL, t->state, t->len);
    else
        free(t->state);
}

static int reset_devices(struct vm *vm, struct qz_error *err)
{
    const int64_t limit = qz_now_ns() + DRAIN_LIMIT_NS;

    irq_fabric_reset(vm->machine.irq);
    pc_reset(&vm->pc);
    while (!pc_idle(&vm->pc)) {
        if (qz_now_ns() > limit)
            return qz_fail(err, -ETIMEDOUT, "a device does not end its reset");
        drain_step();
    }
    return 0;
}

/* vCPUs, clocks and disks stand. What fails here leaves nothing that could run. */
static int go_back(struct vm *vm, const struct target *t, struct qz_error *err)
{
    struct standstill loops;
    int r = reset_devices(vm, err);

    if (r < 0)
        return r;
    stop_loops(vm, &loops);
    r = guest_memory_revert(&vm->machine.memory, t->memory);
    if (r < 0)
        qz_fail(err, r, "memory: %s", strerror(-r));
    else
        r = load(vm, t->state, t->len, err);
    start_loops(&loops);
    return r;
}

/* The disks first: what is wrong with the images made for them changes nothing yet. */
static int rewind_disks(struct vm *vm, struct vm_overlay *overlays, unsigned count, bool *torn,
                        struct qz_error *err)
{
    struct standstill loops;
    int r;

    stop_loops(vm, &loops);
    r = vm_disks_rewind(vm, overlays, count, torn, err);
    start_loops(&loops);
    return r;
}

/* Nothing is in flight. */
static int replace_all(struct vm *vm, const struct target *t, struct vm_overlay *overlays,
                       unsigned count, struct qz_error *err)
{
    bool torn = false;
    int r = rewind_disks(vm, overlays, count, &torn, err);

    if (r == 0) {
        torn = true;
        r = go_back(vm, t, err);
    }
    if (r < 0 && torn) {
        qz_log(QZ_LOG_ERROR, "going back to the snapshot: %s", err->text);
        vm_end(vm, QZ_EXIT_FAILED);
    }
    return r;
}

int vm_restore(struct vm *vm, const struct vm_moment *to, struct vm_overlay *overlays,
               unsigned count, struct qz_error *err)
{
    const bool running = vm->state == VM_RUNNING;
    struct target t;
    int r = vm_snapshot_check_moment(vm, err);

    if (r == 0)
        r = vm_disks_check_rewind(vm, overlays, count, err);
    if (r < 0 || (r = find_target(vm, to, &t, err)) < 0)
        return r;
    vm_loading_wait(vm->loading);
    if (running)
        vm_stop_running(vm);
    hold_devices(vm, true);
    r = drain_devices(vm, err);
    if (r == 0)
        r = replace_all(vm, &t, overlays, count, err);
    hold_devices(vm, false);
    leave_target(vm, &t, r == 0);
    if (running && vm->state == VM_PAUSED)
        vm_start_running(vm, NULL);
    vm_snapshot_tidy(vm);
    return r;
}

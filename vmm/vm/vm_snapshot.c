/*
 * vm_snapshot.c - freezing a machine (vm_snapshot.h).
 *
 * Theory of operation. One moment for everything, in this order: vCPUs park and the clocks stand;
 * what they were in the middle of is finished; devices take nothing new from their rings, and what
 * disks have in flight ends; then the threads that serve devices stand too, and nothing moves any
 * more. The state is written, memory becomes layers that nobody writes (memory_base.c), and all of
 * it goes on in the opposite order. What need not be done while the guest stands is done in small
 * pieces on the main loop afterwards.
 */
#include "vm/vm_snapshot.h"

#include <fcntl.h>

#include "vm/machine_state.h"
#include "vm/vm_disks.h"
#include "vm/vm_standstill.h"

QZ_SYSCALLS(main, "memfd_create fcntl pwrite64");

/* ---- taking one ---- */

/* Bytes as a file in memory that stays as it is. */
static int sealed_file(const void *bytes, size_t len)
{
    QZ_AUTO_FD int fd = memfd_create("queztl-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    for (size_t done = 0; fd >= 0 && done < len;) {
        const ssize_t n = pwrite(fd, (const uint8_t *)bytes + done, len - done, (off_t)done);

        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    if (fd < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return -errno;
    return QZ_TAKE_FD(fd);
}

/* Takes the file over; a negative errno is in its place. */
static int hand_file(struct vm_snapshot *s, int fd, const char *what, struct qz_error *err)
{
    if (fd < 0)
        return qz_fail(err, fd, "no file in memory for %s: %s", what, strerror(-fd));
    s->fd[s->fds++] = fd;
    return 0;
}

static int hand_out(struct vm *vm, struct vm_snapshot *s, struct qz_error *err)
{
    const struct memory_layers *l = vm->last.memory;
    int r = hand_file(s, sealed_file(vm->last.state, vm->last.len), "the state", err);

    for (unsigned i = 0; r == 0 && i < l->count; i++) {
        const int fd = fcntl(l->fd[i], F_DUPFD_CLOEXEC, 3);

        r = hand_file(s, fd < 0 ? -errno : fd, "memory", err);
    }
    if (r == 0 && l->count > 1)
        r = hand_file(s, sealed_file(l->table, l->chunks), "the table of memory", err);
    while (r < 0 && s->fds)
        close(s->fd[--s->fds]);
    return r;
}

void vm_snapshot_keep(struct vm *vm, json_t *disks, void *state, size_t len)
{
    vm_snapshot_forget(vm);
    vm->last.disks = disks;
    vm->last.state = state;
    vm->last.len = len;
    vm->last.memory = layers_hold(vm->machine.memory.layers);
}

void vm_snapshot_forget(struct vm *vm)
{
    if (!vm->last.state)
        return;
    json_decref(vm->last.disks);
    free(vm->last.state);
    layers_drop(vm->last.memory);
    vm->last.state = NULL;
}

static void tidy(struct qz_work *w)
{
    struct vm *vm = QZ_CONTAINER_OF(w, struct vm, tidy);

    if (guest_memory_tidy(&vm->machine.memory))
        qz_loop_post(vm->machine.main_loop, w, tidy);
}

void vm_snapshot_tidy(struct vm *vm)
{
    qz_loop_post(vm->machine.main_loop, &vm->tidy, tidy);
}

static void share(void *lender, void (*job)(void *context, unsigned part), void *context,
                  unsigned parts)
{
    share_job(lender, job, context, parts);
}

/* Nothing moves. */
static int freeze(struct vm *vm, struct standstill *loops, struct vm_overlay *overlays,
                  unsigned count, struct qz_error *err)
{
    const struct memory_threads threads = {share, loops};
    json_t *disks = vm_disks_images(vm);
    void *state = NULL;
    size_t len;
    int r = machine_state_save(vm, &state, &len, err);

    if (r == 0)
        r = vm_disks_overlay(vm, overlays, count, err);
    if (r == 0)
        r = guest_memory_freeze(&vm->machine.memory, &threads, err);
    if (r < 0) {
        free(state);
        json_decref(disks);
        return r;
    }
    vm_snapshot_keep(vm, disks, state, len);
    return 0;
}

/* A vCPU waits for what it asked for; who goes on from here would never get it. */
static int check_asked(const struct vm *vm, struct qz_error *err)
{
    return __atomic_load_n(&vm->pending, __ATOMIC_SEQ_CST)
               ? qz_fail(err, -EBUSY, "the guest asks for a reset or its end just now")
               : 0;
}

int vm_snapshot_check_moment(struct vm *vm, struct qz_error *err)
{
    char text[200];
    const char *kept = pc_disk_kept(&vm->pc, text, sizeof(text));

    if (vm->held)
        return qz_fail(err, -EBUSY, "a debugger has stopped the machine: let it go on first");
    if (vm->state != VM_RUNNING && vm->state != VM_PAUSED)
        return qz_fail(err, -EBUSY, "the machine is resetting or has ended");
    if (kept)
        return qz_fail(err, -EBUSY, "%s keeps a request that failed (%s): resume first", kept,
                       text);
    return check_asked(vm, err);
}

static int check_kind(struct vm *vm, const struct vm_overlay *overlays, unsigned count,
                      struct qz_error *err)
{
    if (vm->machine.gate)
        return qz_fail(err, -ENOTSUP,
                       "a deterministic machine has no snapshots: it can be run again");
    if (guest_memory_is_reserved(&vm->machine.memory))
        return qz_fail(err, -ENOTSUP,
                       "a machine on reserved huge pages (--hugepages %s) has no snapshots: a page "
                       "written after one needs another, and where none is left the machine would "
                       "end; --hugepages transparent has them",
                       memory_pages_name(vm->config.pages.pages));
    return vm_disks_check(vm, overlays, count, err);
}

/* Parked vCPUs and clocks that stand. */
static int take(struct vm *vm, struct vm_overlay *overlays, unsigned count, struct qz_error *err)
{
    struct standstill loops;
    int r;

    if (!vm->clock_stands)
        return qz_fail(err, -ENOTSUP,
                       "this host cannot stop the guest's clocks (Linux 5.16 can): it "
                       "would not wake up in the same moment");
    r = vcpu_group_settle(vm->vcpus);
    if (r < 0)
        return qz_fail(err, r, "a vCPU cannot finish its instruction: %s", strerror(-r));
    r = check_asked(vm, err); /* since vm_snapshot_check_moment() */
    if (r < 0)
        return r;
    hold_devices(vm, true);
    r = drain_devices(vm, err);
    if (r == 0) {
        stop_loops(vm, &loops);
        r = freeze(vm, &loops, overlays, count, err);
        start_loops(&loops);
    }
    hold_devices(vm, false);
    return r;
}

int vm_snapshot(struct vm *vm, struct vm_overlay *overlays, unsigned count, struct vm_snapshot *s,
                struct qz_error *err)
{
    const bool running = vm->state == VM_RUNNING;
    int64_t began;
    int r = vm_snapshot_check_moment(vm, err);

    *s = (struct vm_snapshot){0};
    if (r < 0 || (r = check_kind(vm, overlays, count, err)) < 0)
        return r;
    r = vm_disks_flush(vm, err);
    if (r < 0)
        return r;
    vm_loading_wait(vm->loading);
    guest_memory_foresee(&vm->machine.memory);
    began = qz_now_ns();
    if (running)
        vm_stop_running(vm);
    r = take(vm, overlays, count, err);
    if (running)
        vm_start_running(vm, NULL);
    s->paused_ns = qz_now_ns() - began;
    vm_snapshot_tidy(vm);
    return r < 0 ? r : hand_out(vm, s, err);
}

/*
 * vm_snapshot.c - freezing a machine, and going on from there (vm_snapshot.h).
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
#include <sys/stat.h>
#include <time.h>

#include "devices/vmgenid.h"
#include "snapshot/state_file.h"
#include "vm/machine_state.h"
#include "vm/vm_disks.h"

QZ_SYSCALLS(main, "memfd_create fcntl pread64 pwrite64 clock_nanosleep");

enum { DRAIN_STEP_NS = 100000 };
#define DRAIN_LIMIT_NS INT64_C(30000000000)

/* ---- the device loops stand ---- */

struct standstill {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned standing;
    bool over;
    struct standing_loop {
        struct standstill *all;
        struct qz_work work;
    } loop[IO_LOOPS_MAX];
};

static void stand(struct qz_work *w)
{
    struct standstill *all = QZ_CONTAINER_OF(w, struct standing_loop, work)->all;
    QZ_LOCKED(&all->lock);

    all->standing++;
    pthread_cond_broadcast(&all->changed);
    while (!all->over)
        pthread_cond_wait(&all->changed, &all->lock);
    all->standing--;
    pthread_cond_broadcast(&all->changed);
}

static void stop_loops(struct vm *vm, struct standstill *all)
{
    *all =
        (struct standstill){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    for (unsigned i = 0; i < vm->io_loops; i++) {
        all->loop[i].all = all;
        qz_loop_post(vm->io[i].loop, &all->loop[i].work, stand);
    }
    QZ_LOCKED(&all->lock);

    while (all->standing < vm->io_loops)
        pthread_cond_wait(&all->changed, &all->lock);
}

static void start_loops(struct standstill *all)
{
    QZ_LOCKED(&all->lock);

    all->over = true;
    pthread_cond_broadcast(&all->changed);
    while (all->standing)
        pthread_cond_wait(&all->changed, &all->lock);
}

/* ---- nothing in flight ---- */

static void hold_devices(struct vm *vm, bool hold)
{
    for (unsigned i = 0; i < vm->pc.virtio_count; i++)
        virtio_pci_hold(vm->pc.virtio[i].transport, hold);
}

static const char *busy_device(struct vm *vm)
{
    for (unsigned i = 0; i < vm->pc.virtio_count; i++)
        if (!virtio_pci_quiet(vm->pc.virtio[i].transport))
            return vm->pc.virtio[i].device->label ? vm->pc.virtio[i].device->label
                                                  : vm->pc.virtio[i].kind;
    return NULL;
}

static void step(void)
{
    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = DRAIN_STEP_NS}, NULL);
}

/* Completions come on the devices' own threads; the guest stands meanwhile. */
static int drain(struct vm *vm, struct qz_error *err)
{
    const int64_t limit = qz_now_ns() + DRAIN_LIMIT_NS;
    const char *busy;

    while ((busy = busy_device(vm))) {
        if (qz_now_ns() > limit)
            return qz_fail(err, -ETIMEDOUT,
                           "%s still has requests in flight after %lld s: is its medium "
                           "alive?",
                           busy, (long long)(DRAIN_LIMIT_NS / 1000000000));
        step();
    }
    return 0;
}

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

/* The machine can be sent back to this: its memory is frozen. Takes `state` and `disks` over. */
static void keep(struct vm *vm, json_t *disks, void *state, size_t len)
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

/* Nothing moves. */
static int freeze(struct vm *vm, struct vm_overlay *overlays, unsigned count, struct qz_error *err)
{
    json_t *disks = vm_disks_images(vm);
    void *state = NULL;
    size_t len;
    int r = machine_state_save(vm, &state, &len, err);

    if (r == 0)
        r = vm_disks_overlay(vm, overlays, count, err);
    if (r == 0)
        r = guest_memory_freeze(&vm->machine.memory, err);
    if (r < 0) {
        free(state);
        json_decref(disks);
        return r;
    }
    keep(vm, disks, state, len);
    return 0;
}

/* A vCPU waits for what it asked for; who goes on from here would never get it. */
static int check_asked(const struct vm *vm, struct qz_error *err)
{
    return __atomic_load_n(&vm->pending, __ATOMIC_SEQ_CST)
               ? qz_fail(err, -EBUSY, "the guest asks for a reset or its end just now")
               : 0;
}

static int check_moment(struct vm *vm, struct qz_error *err)
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
    r = check_asked(vm, err); /* since check_moment() */
    if (r < 0)
        return r;
    hold_devices(vm, true);
    r = drain(vm, err);
    if (r == 0) {
        stop_loops(vm, &loops);
        r = freeze(vm, overlays, count, err);
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
    int r = check_moment(vm, err);

    *s = (struct vm_snapshot){0};
    if (r < 0 || (r = check_kind(vm, overlays, count, err)) < 0)
        return r;
    r = vm_disks_flush(vm, err);
    if (r < 0)
        return r;
    began = qz_now_ns();
    if (running)
        vm_stop_running(vm);
    r = take(vm, overlays, count, err);
    if (running)
        vm_start_running(vm, NULL);
    s->paused_ns = qz_now_ns() - began;
    qz_loop_post(vm->machine.main_loop, &vm->tidy, tidy);
    return r < 0 ? r : hand_out(vm, s, err);
}

/* ---- going on from one ---- */

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
        keep(vm, NULL, state, len);
        return 0;
    }
    free(state);
    return r < 0 ? qz_error_prefix(err, "snapshot") : 0;
}

static int reset_devices(struct vm *vm, struct qz_error *err)
{
    const int64_t limit = qz_now_ns() + DRAIN_LIMIT_NS;

    irq_fabric_reset(vm->machine.irq);
    pc_reset(&vm->pc);
    while (!pc_idle(&vm->pc)) {
        if (qz_now_ns() > limit)
            return qz_fail(err, -ETIMEDOUT, "a device does not end its reset");
        step();
    }
    return 0;
}

/* vCPUs and clocks stand. What fails here leaves nothing that could run. */
static int go_back(struct vm *vm, struct qz_error *err)
{
    struct standstill loops;
    int r = reset_devices(vm, err);

    if (r < 0)
        return r;
    stop_loops(vm, &loops);
    r = guest_memory_revert(&vm->machine.memory, vm->last.memory);
    if (r < 0)
        qz_fail(err, r, "memory: %s", strerror(-r));
    else
        r = load(vm, vm->last.state, vm->last.len, err);
    start_loops(&loops);
    return r;
}

int vm_revert(struct vm *vm, struct qz_error *err)
{
    const bool running = vm->state == VM_RUNNING;
    int r = check_moment(vm, err);

    if (r < 0)
        return r;
    for (unsigned i = 0; pc_disk(&vm->pc, i); i++)
        if (!virtio_blk_readonly(pc_disk(&vm->pc, i)))
            return qz_fail(err, -ENOTSUP,
                           "disk %u can be written, and disks are not sent back yet: begin a "
                           "machine from the snapshot instead",
                           i);
    if (!vm->last.state)
        return qz_fail(err, -ENOENT, "there is no snapshot to go back to: take one first");
    if (running)
        vm_stop_running(vm);
    hold_devices(vm, true);
    r = drain(vm, err);
    if (r == 0 && (r = go_back(vm, err)) < 0) {
        qz_log(QZ_LOG_ERROR, "going back to the snapshot: %s", err->text);
        vm_end(vm, QZ_EXIT_FAILED);
    }
    hold_devices(vm, false);
    if (running && vm->state == VM_PAUSED)
        vm_start_running(vm, NULL);
    qz_loop_post(vm->machine.main_loop, &vm->tidy, tidy);
    return r;
}

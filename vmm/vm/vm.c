/*
 * vm.c - the life of one virtual machine (vm.h).
 *
 * Theory of operation. Everything that changes the machine as a whole happens on the main thread's
 * loop. A request from elsewhere (a device, a vCPU) is a bit in `pending` plus posted work. A reset
 * parks the vCPUs, resets the devices, waits until those with I/O in flight have drained, loads the
 * guest again and resumes: the process, its threads and its descriptors stay.
 *
 * Threads: main (this loop), clock (timers), I/O loops (one or more for storage, one for other
 * devices), one for each vCPU.
 */
#include "vm/vm_internal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "devices/acpi_pm.h"

QZ_SYSCALLS(main, "read fallocate");

enum { DRAIN_STEP_NS = 1000000, DRAIN_LIMIT_STEPS = 30000 };

enum {
    ASK_RESET = 1,
    ASK_POWEROFF = 2,
    ASK_PANIC = 4,
    ASK_FAIL = 8,
    ASK_TRIPLE_FAULT = 16,
    ASK_PAUSE = 32
};

/* ---- requests from other threads ----------------------------------------------------------------
 */

static void serve_pending(struct qz_work *w);

static void ask(struct vm *vm, unsigned bit)
{
    __atomic_or_fetch(&vm->pending, bit, __ATOMIC_SEQ_CST);
    qz_loop_post(vm->machine.main_loop, &vm->pending_work, serve_pending);
}

void vm_on_request(struct machine *m, enum machine_request what)
{
    static const unsigned bits[] = {[MACHINE_RESET] = ASK_RESET,
                                    [MACHINE_POWEROFF] = ASK_POWEROFF,
                                    [MACHINE_PANIC] = ASK_PANIC};
    struct vm *vm = QZ_CONTAINER_OF(m, struct vm, machine);

    /* Nothing runs after it: a kernel that outlives its reset tries the next way, a triple fault at
     * last. */
    vcpu_group_ask_park(vm->vcpus);
    ask(vm, bits[what]);
}

void vm_on_triple_fault(void *context, unsigned cpu, const char *where)
{
    struct vm *vm = context;

    pthread_mutex_lock(&vm->lock);
    vm->crashed_cpu = cpu;
    snprintf(vm->crash_place, sizeof(vm->crash_place), "%s", where);
    pthread_mutex_unlock(&vm->lock);
    ask(vm, ASK_TRIPLE_FAULT);
}

bool vm_on_debug(void *context, unsigned cpu, const struct vcpu_exit *exit)
{
    return debugger_on_exit(((struct vm *)context)->debugger, cpu, exit);
}

void vm_on_failure(void *context, unsigned cpu, const char *text)
{
    struct vm *vm = context;

    pthread_mutex_lock(&vm->lock);
    if (!vm->failure[0])
        snprintf(vm->failure, sizeof(vm->failure), "vCPU %u: %s", cpu, text);
    pthread_mutex_unlock(&vm->lock);
    ask(vm, ASK_FAIL);
}

void vm_on_disk_stopped(void *context, struct virtio_device *d)
{
    ask(context, ASK_PAUSE);
}

void vm_on_first_exit(void *context)
{
    struct vm *vm = context;

    vm->first_exit_ns = qz_now_ns();
    if (vm->config.trace_start)
        qz_log(QZ_LOG_WARN,
               "first exit of the guest after %lld us: devices built %lld, confined %lld, loaded "
               "%lld, entered %lld",
               (long long)(vm->first_exit_ns - vm->born_ns) / 1000,
               (long long)(vm->built_ns - vm->born_ns) / 1000,
               (long long)(vm->confined_ns - vm->born_ns) / 1000,
               (long long)(vm->loaded_ns - vm->born_ns) / 1000,
               (long long)(vm->resumed_ns - vm->born_ns) / 1000);
}

void vm_on_exit_status(void *context, const void *data, size_t len)
{
    struct vm *vm = context;
    QZ_LOCKED(&vm->lock);

    len = QZ_MIN(len, sizeof(vm->exit_text) - 1 - vm->exit_text_len);
    memcpy(vm->exit_text + vm->exit_text_len, data, len);
    vm->exit_text_len += len;
}

/* The guest command's own exit code, 0 when none was reported. */
static int reported_status(struct vm *vm)
{
    uint64_t code;
    QZ_LOCKED(&vm->lock);

    vm->exit_text[strcspn(vm->exit_text, "\r\n")] = '\0';
    if (!vm->config.command)
        return QZ_EXIT_OK;
    if (qz_parse_u64(vm->exit_text, "status", 0, 255, &code, NULL) == 0)
        return (int)code;
    qz_log(QZ_LOG_ERROR, "the guest powered off without reporting how its command ended");
    return QZ_EXIT_FAILED;
}

/* ---- ending, resetting
 * ---------------------------------------------------------------------------- */

void vm_end(struct vm *vm, int code)
{
    if (vm->state == VM_ENDED)
        return;
    vm->state = VM_ENDED;
    debugger_exited(vm->debugger, code);
    qz_loop_stop(vm->machine.main_loop, code);
}

void vm_start_running(struct vm *vm, const bool *stay)
{
    struct accel_vm *accel = vm->machine.accel;

    if (vm->clock_stands && accel->ops->clock_start(accel) < 0)
        qz_log(QZ_LOG_WARN, "the guest's clocks ran on while it stood: KVM did not set them back");
    vm->clock_stands = false;
    vcpu_group_clock_started(vm->vcpus);
    vm_clock_resume(vm->machine.clock);
    vcpu_group_resume(vm->vcpus, stay);
    vm->state = VM_RUNNING;
    pc_disks_retry(&vm->pc);
    balloon_auto_resumed(vm->balloon);
}

void vm_stop_running(struct vm *vm)
{
    struct accel_vm *accel = vm->machine.accel;

    vcpu_group_park(vm->vcpus);
    vm->clock_stands = accel->ops->clock_stop(accel) == 0;
    if (!vm->clock_stands)
        qz_log(QZ_LOG_WARN, "the guest's clocks run on while it stands: this host cannot stop them "
                            "(Linux 5.16 can)");
    vm_clock_pause(vm->machine.clock);
    vm->state = VM_PAUSED;
}

int vm_load_guest(struct vm *vm, struct qz_error *err)
{
    struct vcpu_state *bsp;
    int r;

    if (posix_memalign((void **)&bsp, 64, sizeof(*bsp)))
        return qz_fail(err, -ENOMEM, "no memory");
    vcpu_state_reset(bsp, true, 0);
    r = guest_load(vm->guest, &vm->machine, &vm->pc, bsp, &vm->boot, err);
    machine_written(&vm->machine, vm->machine.memory.low, vm->machine.memory.low_size);
    machine_written(&vm->machine, vm->machine.memory.high, vm->machine.memory.high_size);
    if (r == 0 && vm->vcpus)
        r = vcpu_group_reset(vm->vcpus, bsp, err);
    /* Where the clocks do not stand, this one runs on over a reset, as real ones may. */
    if (r == 0)
        vm->machine.accel->ops->pv_clock_set(vm->machine.accel, 0);
    free(bsp);
    return r;
}

static void finish_reset(struct vm *vm)
{
    struct qz_error err = {0};
    int r = guest_memory_clear(&vm->machine.memory);

    /* What the last boot left behind went back to the host; the guest starts on zeroed memory. */
    if (r < 0)
        qz_fail(&err, r, "memory: %s", strerror(-r));
    if (r < 0 || vm_load_guest(vm, &err) < 0) {
        qz_log(QZ_LOG_ERROR, "reset: %s", err.text);
        return vm_end(vm, QZ_EXIT_FAILED);
    }
    vm->resets++;
    balloon_auto_reset(vm->balloon);
    debugger_machine_reset(vm->debugger);
    vm->state = VM_PAUSED;
    if (vm->resume_after_reset)
        vm_start_running(vm, NULL);
}

static void wait_for_drain(struct qz_timer *t)
{
    struct vm *vm = QZ_CONTAINER_OF(t, struct vm, drain);

    if (pc_idle(&vm->pc))
        return finish_reset(vm);
    if (++vm->drain_steps > DRAIN_LIMIT_STEPS) {
        qz_log(QZ_LOG_ERROR, "reset: a device still has I/O in flight after %d s",
               DRAIN_LIMIT_STEPS / 1000);
        return vm_end(vm, QZ_EXIT_FAILED);
    }
    qz_timer_arm(vm->machine.main_loop, &vm->drain, qz_now_ns() + DRAIN_STEP_NS, wait_for_drain);
}

static void begin_reset(struct vm *vm)
{
    if (vm->state == VM_RESETTING || vm->state == VM_ENDED)
        return;
    vm->resume_after_reset = vm->state == VM_RUNNING;
    if (vm->state == VM_RUNNING)
        vm_stop_running(vm);
    vm->state = VM_RESETTING;
    /* What several vCPUs asked for meanwhile is granted with this. */
    __atomic_and_fetch(&vm->pending, ASK_FAIL, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&vm->lock);
    vm->exit_text_len = 0;
    memset(vm->exit_text, 0, sizeof(vm->exit_text));
    pthread_mutex_unlock(&vm->lock);
    irq_fabric_reset(vm->machine.irq);
    pc_reset(&vm->pc);
    vm->drain_steps = 0;
    wait_for_drain(&vm->drain);
}

static void serve_crash(struct vm *vm)
{
    unsigned cpu;
    char place[sizeof(vm->crash_place)];
    bool looked_at;

    pthread_mutex_lock(&vm->lock);
    cpu = vm->crashed_cpu;
    memcpy(place, vm->crash_place, sizeof(place));
    pthread_mutex_unlock(&vm->lock);
    looked_at = debugger_look_at(vm->debugger, GDB_STOP_CRASH, cpu);
    qz_log(QZ_LOG_ERROR,
           "the guest crashed: a fault within a double fault (triple fault) on CPU %u%s%s", cpu,
           place, looked_at ? "; the debugger looks at it" : "");
    if (!looked_at)
        vm_end(vm, QZ_EXIT_GUEST_PANIC);
}

/* A disk keeps a request; a reset in between has dropped it, and there is nothing to wait for. */
static void pause_for_disk(struct vm *vm)
{
    if (!pc_disk_kept(&vm->pc, NULL, 0))
        return;
    vm->run_when_released = false;
    if (vm->state == VM_RUNNING)
        vm_stop_running(vm);
}

static void serve_pending(struct qz_work *w)
{
    struct vm *vm = QZ_CONTAINER_OF(w, struct vm, pending_work);
    unsigned bits = __atomic_exchange_n(&vm->pending, 0, __ATOMIC_SEQ_CST);

    if (bits & ASK_FAIL) {
        pthread_mutex_lock(&vm->lock);
        qz_log(QZ_LOG_ERROR, "%s", vm->failure);
        pthread_mutex_unlock(&vm->lock);
        vm_end(vm, QZ_EXIT_FAILED);
    } else if ((bits & ASK_PANIC) && debugger_look_at(vm->debugger, GDB_STOP_PANIC, 0)) {
        qz_log(QZ_LOG_ERROR, "the guest panicked; the debugger looks at it");
    } else if (bits & ASK_PANIC) {
        qz_log(QZ_LOG_ERROR, "the guest panicked");
        vm_end(vm, QZ_EXIT_GUEST_PANIC);
    } else if (bits & ASK_TRIPLE_FAULT) {
        serve_crash(vm);
    } else if (bits & ASK_POWEROFF) {
        vm_end(vm, reported_status(vm));
    } else if (bits & ASK_RESET) {
        begin_reset(vm);
    } else if (bits & ASK_PAUSE) {
        pause_for_disk(vm);
    }
}

static void on_timeout(struct qz_timer *t)
{
    struct vm *vm = QZ_CONTAINER_OF(t, struct vm, timeout);

    qz_log(QZ_LOG_ERROR, "time-out: the machine did not end within %llu s",
           (unsigned long long)vm->config.timeout_s);
    vm_end(vm, QZ_EXIT_TIMEOUT);
}

void vm_on_quit(void *context)
{
    struct vm *vm = context;

    vm_end(vm, QZ_EXIT_OK);
}

void vm_on_signal(struct qz_watch *w, uint32_t events)
{
    struct vm *vm = QZ_CONTAINER_OF(w, struct vm, signals);
    struct signalfd_siginfo info;

    if (read(w->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        host_console_resized(vm->console, vm->pc.console);
        return;
    }
    vm_end(vm, 128 + (int)info.ssi_signo);
}
int vm_run(struct vm *vm)
{
    if (vm->config.timeout_s)
        qz_timer_arm(vm->machine.main_loop, &vm->timeout,
                     vm->born_ns + (int64_t)vm->config.timeout_s * 1000000000, on_timeout);
    vm->resumed_ns = qz_now_ns();
    if (vm->config.gdb.wait) {
        vm->held = vm->run_when_released = true;
        qz_log(QZ_LOG_WARN, "the machine waits for a debugger to let it start");
    } else {
        vm_start_running(vm, NULL);
    }
    return qz_loop_run(vm->machine.main_loop);
}
int vm_exit_code(const struct qz_error *err)
{
    return err->code == -ENOENT ? QZ_EXIT_NOT_FOUND : QZ_EXIT_FAILED;
}
/* ---- control
 * ----------------------------------------------------------------------------------------- */

void vm_hold(struct vm *vm)
{
    if (vm->held || vm->state == VM_ENDED)
        return;
    vm->held = true;
    vm->run_when_released =
        vm->state == VM_RUNNING || (vm->state == VM_RESETTING && vm->resume_after_reset);
    vm->resume_after_reset = false;
    if (vm->state == VM_RUNNING)
        vm_stop_running(vm);
}

void vm_release(struct vm *vm, const bool *stay)
{
    if (!vm->held)
        return;
    vm->held = false;
    if (vm->state == VM_RESETTING)
        vm->resume_after_reset = vm->run_when_released;
    else if (vm->state == VM_PAUSED && vm->run_when_released)
        vm_start_running(vm, stay);
}

static int held_by_debugger(struct qz_error *err)
{
    return qz_fail(err, -EBUSY, "a debugger has stopped the machine: it decides when it goes on");
}

int vm_pause(struct vm *vm, struct qz_error *err)
{
    if (vm->held)
        return held_by_debugger(err);
    if (vm->state != VM_RUNNING)
        return vm->state == VM_PAUSED
                   ? 0
                   : qz_fail(err, -EBUSY, "the machine is resetting or has ended");
    vm_stop_running(vm);
    return 0;
}

int vm_resume(struct vm *vm, struct qz_error *err)
{
    if (vm->held)
        return held_by_debugger(err);
    if (vm->state != VM_PAUSED)
        return vm->state == VM_RUNNING
                   ? 0
                   : qz_fail(err, -EBUSY, "the machine is resetting or has ended");
    vm_start_running(vm, NULL);
    return 0;
}

void vm_stop(struct vm *vm)
{
    vm_end(vm, QZ_EXIT_OK);
}

int vm_powerdown(struct vm *vm, struct qz_error *err)
{
    if (!acpi_pm_power_button(vm->pc.pm))
        return qz_fail(
            err, -ENOTCONN,
            "the guest does not listen to its power button (yet): \"stop\" ends it anyway");
    return 0;
}

int vm_reset(struct vm *vm, struct qz_error *err)
{
    begin_reset(vm);
    return 0;
}

int vm_resize_disk(struct vm *vm, const char *name, uint64_t size, struct qz_error *err)
{
    return pc_disk_resize(&vm->pc, name, size, err);
}

int vm_set_memory_target(struct vm *vm, uint64_t target, struct qz_error *err)
{
    uint64_t size = vm->machine.memory.size;

    if (vm->balloon)
        return qz_fail(err, -EBUSY,
                       "balloon: the host's memory pressure decides (--balloon auto); start the "
                       "machine with --balloon manual to do it from here");
    if (guest_memory_is_reserved(&vm->machine.memory))
        return qz_fail(err, -ENOTSUP,
                       "balloon: reserved huge pages (--hugepages %s) do not come back: start the "
                       "machine with --hugepages transparent",
                       memory_pages_name(vm->config.pages.pages));
    if (target > size || target < GUEST_RAM_MIN)
        return qz_fail(err, -ERANGE,
                       "balloon: the target lies between %u MiB and the machine's %llu MiB",
                       (unsigned)(GUEST_RAM_MIN >> 20), (unsigned long long)size >> 20);
    return virtio_balloon_set_target(vm->pc.balloon, size - target);
}

const struct guest_memory *vm_memory(const struct vm *vm)
{
    return &vm->machine.memory;
}

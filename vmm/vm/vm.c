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
#include "vm/vm.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "devices/acpi_pm.h"
#include "machine/io_gate.h"
#include "vm/control.h"
#include "vm/debugger.h"
#include "vm/guest.h"
#include "vm/host_console.h"
#include "vm/pc.h"
#include "vm/vcpu.h"

QZ_SYSCALLS(main, "read pread64 fallocate");

enum { IO_DEVICES = 0, IO_STORAGE = 1, IO_LOOPS_MAX = IO_STORAGE + VM_IOTHREADS_MAX };
enum { DRAIN_STEP_NS = 1000000, DRAIN_LIMIT_STEPS = 30000 };

enum {
    ASK_RESET = 1,
    ASK_POWEROFF = 2,
    ASK_PANIC = 4,
    ASK_FAIL = 8,
    ASK_TRIPLE_FAULT = 16,
    ASK_PAUSE = 32
};

struct io_thread {
    struct qz_loop *loop;
    pthread_t thread;
    bool started;
    enum confine_mode confine;
    struct vm *vm;
    const char *name;
};

struct vm {
    struct machine machine;
    struct vm_config config;
    enum vm_state state;
    enum confine_mode confine;
    struct vcpu_group *vcpus;
    struct pc pc;
    struct io_thread io[IO_LOOPS_MAX];
    unsigned io_loops;
    pthread_t clock_thread;
    bool clock_started;
    struct host_console *console;
    struct control *control;
    struct debugger *debugger; /* NULL: no --gdb */
    bool held;                 /* by the debugger */
    bool run_when_released;
    struct guest_source *guest;
    struct state_log *log; /* NULL: none */

    unsigned pending; /* ASK_ bits, atomic */
    struct qz_work pending_work;
    struct qz_timer timeout, drain;
    unsigned drain_steps;
    bool resume_after_reset;
    struct qz_watch signals;
    int statm_fd;

    pthread_mutex_t lock; /* guards what other threads leave here */
    char failure[240];
    unsigned crashed_cpu; /* for ASK_TRIPLE_FAULT */
    char crash_place[160];
    char exit_text[16]; /* from org.queztl.exit */
    size_t exit_text_len;

    bool clock_stands; /* the accelerator's clocks were stopped with the vCPUs */
    int landlock_abi;
    unsigned resets;
    int64_t born_ns, built_ns, loaded_ns, confined_ns, resumed_ns, first_exit_ns;
    struct boot_report boot;
};

/* ---- requests from other threads ----------------------------------------------------------------
 */

static void serve_pending(struct qz_work *w);

static void ask(struct vm *vm, unsigned bit)
{
    __atomic_or_fetch(&vm->pending, bit, __ATOMIC_SEQ_CST);
    qz_loop_post(vm->machine.main_loop, &vm->pending_work, serve_pending);
}

static void machine_request(struct machine *m, enum machine_request what)
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

static void on_triple_fault(void *context, unsigned cpu, const char *where)
{
    struct vm *vm = context;

    pthread_mutex_lock(&vm->lock);
    vm->crashed_cpu = cpu;
    snprintf(vm->crash_place, sizeof(vm->crash_place), "%s", where);
    pthread_mutex_unlock(&vm->lock);
    ask(vm, ASK_TRIPLE_FAULT);
}

static bool on_debug(void *context, unsigned cpu, const struct vcpu_exit *exit)
{
    return debugger_on_exit(((struct vm *)context)->debugger, cpu, exit);
}

static void on_failure(void *context, unsigned cpu, const char *text)
{
    struct vm *vm = context;

    pthread_mutex_lock(&vm->lock);
    if (!vm->failure[0])
        snprintf(vm->failure, sizeof(vm->failure), "vCPU %u: %s", cpu, text);
    pthread_mutex_unlock(&vm->lock);
    ask(vm, ASK_FAIL);
}

static void on_disk_stopped(void *context, struct virtio_device *d)
{
    ask(context, ASK_PAUSE);
}

static void on_first_exit(void *context)
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

static void on_exit_status(void *context, const void *data, size_t len)
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

static void end(struct vm *vm, int code)
{
    if (vm->state == VM_ENDED)
        return;
    vm->state = VM_ENDED;
    debugger_exited(vm->debugger, code);
    qz_loop_stop(vm->machine.main_loop, code);
}

/* stay: as for vcpu_group_resume() */
static void start_running(struct vm *vm, const bool *stay)
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
}

static void stop_running(struct vm *vm)
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

/* Kernel or firmware into memory, CPU 0 at its entry. vCPUs parked. */
static int load_guest(struct vm *vm, struct qz_error *err)
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
    free(bsp);
    return r;
}

static void finish_reset(struct vm *vm)
{
    struct qz_error err = {0};
    struct guest_memory *mem = &vm->machine.memory;

    /* What the last boot left behind goes back to the host; the guest starts on zeroed memory. */
    mem_discard(mem, gpa(0), mem->low_size);
    if (mem->high_size)
        mem_discard(mem, gpa(HIGH_RAM), mem->high_size);
    if (load_guest(vm, &err) < 0) {
        qz_log(QZ_LOG_ERROR, "reset: %s", err.text);
        return end(vm, QZ_EXIT_FAILED);
    }
    vm->resets++;
    debugger_machine_reset(vm->debugger);
    vm->state = VM_PAUSED;
    if (vm->resume_after_reset)
        start_running(vm, NULL);
}

static void wait_for_drain(struct qz_timer *t)
{
    struct vm *vm = QZ_CONTAINER_OF(t, struct vm, drain);

    if (pc_idle(&vm->pc))
        return finish_reset(vm);
    if (++vm->drain_steps > DRAIN_LIMIT_STEPS) {
        qz_log(QZ_LOG_ERROR, "reset: a device still has I/O in flight after %d s",
               DRAIN_LIMIT_STEPS / 1000);
        return end(vm, QZ_EXIT_FAILED);
    }
    qz_timer_arm(vm->machine.main_loop, &vm->drain, qz_now_ns() + DRAIN_STEP_NS, wait_for_drain);
}

static void begin_reset(struct vm *vm)
{
    if (vm->state == VM_RESETTING || vm->state == VM_ENDED)
        return;
    vm->resume_after_reset = vm->state == VM_RUNNING;
    if (vm->state == VM_RUNNING)
        stop_running(vm);
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
        end(vm, QZ_EXIT_GUEST_PANIC);
}

/* A disk keeps a request; a reset in between has dropped it, and there is nothing to wait for. */
static void pause_for_disk(struct vm *vm)
{
    if (!pc_disk_kept(&vm->pc, NULL, 0))
        return;
    vm->run_when_released = false;
    if (vm->state == VM_RUNNING)
        stop_running(vm);
}

static void serve_pending(struct qz_work *w)
{
    struct vm *vm = QZ_CONTAINER_OF(w, struct vm, pending_work);
    unsigned bits = __atomic_exchange_n(&vm->pending, 0, __ATOMIC_SEQ_CST);

    if (bits & ASK_FAIL) {
        pthread_mutex_lock(&vm->lock);
        qz_log(QZ_LOG_ERROR, "%s", vm->failure);
        pthread_mutex_unlock(&vm->lock);
        end(vm, QZ_EXIT_FAILED);
    } else if ((bits & ASK_PANIC) && debugger_look_at(vm->debugger, GDB_STOP_PANIC, 0)) {
        qz_log(QZ_LOG_ERROR, "the guest panicked; the debugger looks at it");
    } else if (bits & ASK_PANIC) {
        qz_log(QZ_LOG_ERROR, "the guest panicked");
        end(vm, QZ_EXIT_GUEST_PANIC);
    } else if (bits & ASK_TRIPLE_FAULT) {
        serve_crash(vm);
    } else if (bits & ASK_POWEROFF) {
        end(vm, reported_status(vm));
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
    end(vm, QZ_EXIT_TIMEOUT);
}

static void on_quit(void *context)
{
    struct vm *vm = context;

    end(vm, QZ_EXIT_OK);
}

static void on_signal(struct qz_watch *w, uint32_t events)
{
    struct vm *vm = QZ_CONTAINER_OF(w, struct vm, signals);
    struct signalfd_siginfo info;

    if (read(w->fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        host_console_resized(vm->console, vm->pc.console);
        return;
    }
    end(vm, 128 + (int)info.ssi_signo);
}

/* ---- building
 * ------------------------------------------------------------------------------------- */

static void *io_main(void *arg)
{
    struct io_thread *t = arg;
    struct qz_error err;

    pthread_setname_np(pthread_self(), t->name);
    if (confine_thread(CONFINE_IO, t->confine, &err) < 0) {
        on_failure(t->vm, 0, err.text);
        return NULL;
    }
    qz_loop_run(t->loop);
    return NULL;
}

static void *clock_main(void *arg)
{
    struct vm *vm = arg;
    struct qz_error err;

    pthread_setname_np(pthread_self(), "clock");
    if (confine_thread(CONFINE_CLOCK, vm->confine, &err) < 0) {
        on_failure(vm, 0, err.text);
        return NULL;
    }
    vm_clock_thread(vm->machine.clock);
    return NULL;
}

static int build_core(struct vm *vm, struct qz_error *err)
{
    struct machine *m = &vm->machine;
    struct accel_config accel_config = {
        .vcpus = vm->config.cpus,
        .own_lapic = vm->config.own_lapic,
        .interpret = vm->config.interpret,
        .deterministic = vm->config.deterministic,
        .seed = vm->config.seed,
        .epoch = DETERMINISTIC_EPOCH,
        .model = vm->config.model,
        .topology = vm->config.topology,
        .serve = vcpu_serve,
        .serve_context = &vm->vcpus,
    };
    const struct accel_ops *ops;
    struct accel_probe probe;
    int r;

    m->cpus = vm->config.cpus;
    m->request = machine_request;
    if ((r = guest_memory_new(&m->memory, vm->config.memory, err)) < 0 ||
        (r = accel_choose(vm->config.accel, &ops, &probe, err)) < 0)
        return r;
    qz_info("accelerator %s: %s", ops->name, probe.reason);
    if (ops->no_lapic)
        accel_config.own_lapic = vm->config.own_lapic = true;
    if ((r = ops->vm_new(&accel_config, &m->accel, err)) < 0)
        return r;
    r = ops->memory_map(m->accel, 0, m->memory.low_size, m->memory.low, false);
    if (r == 0 && m->memory.high_size)
        r = ops->memory_map(m->accel, HIGH_RAM, m->memory.high_size, m->memory.high, false);
    if (r < 0)
        return qz_fail(err, r, "%s: cannot map guest memory: %s", ops->name, strerror(-r));
    if ((r = qz_loop_new(&m->main_loop, err)) < 0 || (r = vm_clock_new(&m->clock, err)) < 0)
        return r;
    if (vm->config.deterministic) {
        vm_clock_make_virtual(m->clock);
        m->random = vm->config.seed;
        if ((r = io_gate_new(&m->gate, m->clock, err)) < 0)
            return r;
    }
    if ((r = bus_new(&m->pio, 0x10000)) < 0 || (r = bus_new(&m->mmio, 0)) < 0)
        return qz_fail(err, r, "buses: %s", strerror(-r));
    return irq_fabric_new(&m->irq, m->accel, m->cpus, m->pio, m->mmio, m->clock, &vcpu_irq_ops,
                          &vm->vcpus, err);
}

static int build_devices(struct vm *vm, struct qz_error *err)
{
    struct pc_host host = {
        .exit_status = on_exit_status, .disk_stopped = on_disk_stopped, .context = vm};
    struct qz_loop *storage[VM_IOTHREADS_MAX];
    int r;

    host.storage_loop_count = 1;
    /* A deterministic machine's devices work one after the other. */
    for (unsigned i = 0; !vm->config.deterministic && i < vm->config.disks; i++)
        host.storage_loop_count = QZ_MAX(host.storage_loop_count, vm->config.disk[i].iothreads);
    vm->io_loops = IO_STORAGE + host.storage_loop_count;
    for (unsigned i = 0; i < vm->io_loops; i++)
        if ((r = qz_loop_new(&vm->io[i].loop, err)) < 0)
            return r;
    if ((r = host_console_open(&vm->console, vm->machine.main_loop, vm->config.console, on_quit, vm,
                               err)) < 0)
        return r;
    host.terminal = host_console_terminal(vm->console);
    if (vm->config.deterministic && host.terminal)
        terminal_wait_for_reader(host.terminal, true);
    for (unsigned i = 0; i < host.storage_loop_count; i++)
        storage[i] = vm->io[IO_STORAGE + i].loop;
    host.storage_loops = storage;
    host.device_loop = vm->io[IO_DEVICES].loop;
    if ((r = pc_new(&vm->pc, &vm->machine, &vm->config, &host, err)) < 0)
        return r;
    if (vm->config.control &&
        (r = control_new(&vm->control, vm->machine.main_loop, vm, vm->config.control, err)) < 0)
        return r;
    if (vm->config.gdb.len &&
        (r = debugger_new(&vm->debugger, vm, &vm->machine, &vm->vcpus, &vm->config.gdb, err)) < 0)
        return r;
    if (vm->config.state_log.path &&
        (r = state_log_new(&vm->log, &vm->machine, &vm->config.state_log, err)) < 0)
        return r;
    return guest_source_new(&vm->guest, &vm->config, err);
}

static int confine(struct vm *vm, struct qz_error *err)
{
    struct confine_path paths[8];
    unsigned n = guest_source_paths(vm->guest, paths, 4);
    const char *const sockets[] = {vm->config.control, vm->config.vsock_path,
                                   gdb_address_path(&vm->config.gdb)};
    char *dirs[QZ_ARRAY_LEN(sockets)] = {0};
    int r;

    vm->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(sockets); i++) {
        const char *socket_path = sockets[i];

        if (!socket_path)
            continue;
        const char *slash = strrchr(socket_path, '/');

        dirs[i] =
            slash ? strndup(socket_path, QZ_MAX(slash - socket_path, (ptrdiff_t)1)) : strdup(".");
        if (!dirs[i])
            return qz_fail(err, -ENOMEM, "no memory");
        paths[n++] = (struct confine_path){dirs[i], true};
    }
    for (unsigned i = 0; i < vm->config.nets; i++)
        if (vm->config.net[i].kind ==
            VM_NET_USER) { /* the guest's name server asks whom the host asks */
            paths[n++] = (struct confine_path){"/etc/resolv.conf", false};
            break;
        }
    r = confine_process(paths, n, &vm->landlock_abi, err);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(dirs); i++)
        free(dirs[i]);
    return r;
}

static int start_threads(struct vm *vm, struct qz_error *err)
{
    const struct vcpu_events events = {.triple_fault = on_triple_fault,
                                       .failed = on_failure,
                                       .debug = vm->debugger ? on_debug : NULL,
                                       .first_exit = on_first_exit,
                                       .context = vm};
    int r;

    for (unsigned i = 0; i < vm->io_loops; i++) {
        struct io_thread *t = &vm->io[i];

        t->vm = vm;
        t->confine = vm->confine;
        t->name = i == IO_DEVICES ? "io-devices" : "io-storage";
        if ((r = pthread_create(&t->thread, NULL, io_main, t)))
            return qz_fail(err, -r, "cannot start a thread: %s", strerror(r));
        t->started = true;
    }
    if ((r = pthread_create(&vm->clock_thread, NULL, clock_main, vm)))
        return qz_fail(err, -r, "cannot start a thread: %s", strerror(r));
    vm->clock_started = true;
    return vcpu_group_new(&vm->vcpus, &vm->machine, &events, vm->confine, vm->log, err);
}

/* SIGTERM and friends come through a descriptor; threads inherit the mask, so none is hit
 * elsewhere. */
static int watch_signals(struct vm *vm, struct qz_error *err)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0 || qz_loop_add(vm->machine.main_loop, &vm->signals, fd, EPOLLIN, on_signal) < 0)
        return qz_fail(err, -errno, "signals: %s", strerror(errno));
    return 0;
}

int vm_new(struct vm **out, const struct vm_config *config, enum confine_mode mode,
           struct qz_error *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int r;

    if (!vm)
        return qz_fail(err, -ENOMEM, "no memory");
    *out = vm;
    vm->born_ns = qz_now_ns();
    vm->config = *config;
    vm->confine = mode;
    vm->statm_fd = vm->machine.memory.fd = vm->pc.debug_fd = vm->signals.fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    if ((r = build_core(vm, err)) < 0 || (r = watch_signals(vm, err)) < 0 ||
        (r = build_devices(vm, err)) < 0)
        return r;
    vm->built_ns = qz_now_ns();
    if ((r = confine(vm, err)) < 0 || (r = start_threads(vm, err)) < 0)
        return r;
    vm->confined_ns = qz_now_ns();
    /* All vCPUs are given the same counter, to start with together. */
    vm->clock_stands = vm->machine.accel->ops->clock_stop(vm->machine.accel) == 0;
    if ((r = load_guest(vm, err)) < 0)
        return r;
    vm->loaded_ns = qz_now_ns();
    return confine_thread(CONFINE_MAIN, mode, err);
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
        start_running(vm, NULL);
    }
    return qz_loop_run(vm->machine.main_loop);
}

void vm_free(struct vm *vm)
{
    struct machine *m = &vm->machine;
    struct terminal *terminal = vm->console ? host_console_terminal(vm->console) : NULL;

    /* No vCPU waits for a reader any more. */
    if (terminal)
        terminal_wait_for_reader(terminal, false);
    state_log_stop(vm->log);
    vcpu_group_free(vm->vcpus);
    vm->vcpus = NULL;
    debugger_free(vm->debugger);
    state_log_free(vm->log);
    for (unsigned i = 0; i < vm->io_loops; i++)
        if (vm->io[i].started) {
            qz_loop_stop(vm->io[i].loop, 0);
            pthread_join(vm->io[i].thread, NULL);
        }
    if (vm->clock_started) {
        vm_clock_stop(m->clock);
        pthread_join(vm->clock_thread, NULL);
    }
    control_free(vm->control);
    pc_free(&vm->pc);
    guest_source_free(vm->guest);
    host_console_free(vm->console);
    irq_fabric_free(m->irq);
    bus_free(m->pio);
    bus_free(m->mmio);
    io_gate_free(m->gate);
    vm_clock_free(m->clock);
    if (vm->signals.fd >= 0)
        close(vm->signals.fd);
    for (unsigned i = 0; i < vm->io_loops; i++)
        qz_loop_free(vm->io[i].loop);
    qz_loop_free(m->main_loop);
    if (m->accel)
        m->accel->ops->vm_free(m->accel);
    if (m->memory.fd >= 0)
        guest_memory_free(&m->memory);
    if (vm->statm_fd >= 0)
        close(vm->statm_fd);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
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
        stop_running(vm);
}

void vm_release(struct vm *vm, const bool *stay)
{
    if (!vm->held)
        return;
    vm->held = false;
    if (vm->state == VM_RESETTING)
        vm->resume_after_reset = vm->run_when_released;
    else if (vm->state == VM_PAUSED && vm->run_when_released)
        start_running(vm, stay);
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
    stop_running(vm);
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
    start_running(vm, NULL);
    return 0;
}

void vm_stop(struct vm *vm)
{
    end(vm, QZ_EXIT_OK);
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

static const char *state_name(enum vm_state s)
{
    static const char *const names[] = {"paused", "running", "resetting", "ended"};

    return names[s];
}

json_t *vm_info(struct vm *vm)
{
    json_t *o = json_object();
    char buf[32], kept[200];
    const char *disk = pc_disk_kept(&vm->pc, kept, sizeof(kept));

    json_object_set_new(o, "name", json_string(vm->config.name));
    json_object_set_new(o, "version", json_string(QUEZTL_VERSION));
    json_object_set_new(o, "pid", json_integer(getpid()));
    json_object_set_new(o, "state", json_string(state_name(vm->state)));
    if (vm->state == VM_PAUSED && disk)
        json_object_set_new(
            o, "paused_by",
            json_pack("{s:s,s:s,s:s}", "cause", "disk", "disk", disk, "error", kept));
    json_object_set_new(o, "accel", json_string(vm->machine.accel->ops->name));
    json_object_set_new(o, "cpu_model", json_string(cpu_model_name(vm->config.model)));
    json_object_set_new(o, "irqchip", json_string(vm->config.own_lapic ? "user" : "split"));
    json_object_set_new(o, "cpus", json_integer(vm->machine.cpus));
    json_object_set_new(o, "memory_bytes", json_integer(vm->machine.memory.size));
    json_object_set_new(o, "memory",
                        json_string(qz_format_size(vm->machine.memory.size, buf, sizeof(buf))));
    json_object_set_new(o, "resets", json_integer(vm->resets));
    json_object_set_new(o, "landlock_abi", json_integer(vm->landlock_abi));
    if (vm->boot.protocol)
        json_object_set_new(o, "boot",
                            json_pack("{s:s,s:s,s:I}", "protocol", vm->boot.protocol, "compression",
                                      vm->boot.compression, "kernel_bytes",
                                      (json_int_t)vm->boot.kernel_bytes));
    json_object_set_new(
        o, "phases_us",
        json_pack("{s:I,s:I,s:I,s:I,s:I}", "built", (json_int_t)(vm->built_ns - vm->born_ns) / 1000,
                  "confined", (json_int_t)(vm->confined_ns - vm->born_ns) / 1000, "loaded",
                  (json_int_t)(vm->loaded_ns - vm->born_ns) / 1000, "resumed",
                  (json_int_t)(vm->resumed_ns - vm->born_ns) / 1000, "first_exit",
                  (json_int_t)(vm->first_exit_ns ? vm->first_exit_ns - vm->born_ns : 0) / 1000));
    json_object_set_new(o, "devices", pc_info(&vm->pc));
    return o;
}

json_t *vm_metrics(struct vm *vm)
{
    static const char *const kinds[EXIT_KINDS] = {
        [EXIT_PIO] = "pio",
        [EXIT_MMIO] = "mmio",
        [EXIT_HALT] = "halt",
        [EXIT_KICKED] = "kicked",
        [EXIT_IRQ_WINDOW] = "irq_window",
        [EXIT_RDMSR] = "rdmsr",
        [EXIT_WRMSR] = "wrmsr",
        [EXIT_IOAPIC_EOI] = "ioapic_eoi",
        [EXIT_SHUTDOWN] = "shutdown",
        [EXIT_DEBUG] = "debug",
        [EXIT_FAIL] = "fail",
    };
    json_t *o = pc_metrics(&vm->pc), *exits = json_object();
    uint64_t count[EXIT_KINDS];
    unsigned long long pages = 0;
    char text[128] = "";

    vcpu_group_exits(vm->vcpus, count);
    for (int i = 0; i < EXIT_KINDS; i++)
        json_object_set_new(exits, kinds[i], json_integer(count[i]));
    json_object_set_new(o, "exits", exits);
    if (pread(vm->statm_fd, text, sizeof(text) - 1, 0) > 0 && sscanf(text, "%*u %llu", &pages) == 1)
        json_object_set_new(o, "resident_bytes", json_integer(pages * 4096));
    json_object_set_new(o, "uptime_ns", json_integer(vm_clock_now(vm->machine.clock)));
    return o;
}

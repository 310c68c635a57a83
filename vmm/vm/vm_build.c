/*
 * vm_build.c - making one virtual machine and taking it apart (vm_internal.h): the parts in the
 * order in which they need each other, confinement, the threads, and then the guest's code.
 */
#include "vm/vm_internal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "machine/io_gate.h"
#include "vm/config_options.h"
#include "vm/vm_disks.h"
#include "vm/vm_restore.h"

static void *io_main(void *arg)
{
    struct io_thread *t = arg;
    struct qz_error err;

    pthread_setname_np(pthread_self(), t->name);
    if (confine_thread(CONFINE_IO, t->confine, &err) < 0) {
        vm_on_failure(t->vm, 0, err.text);
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
        vm_on_failure(vm, 0, err.text);
        return NULL;
    }
    vm_clock_thread(vm->machine.clock);
    return NULL;
}

static int build_memory(struct vm *vm, struct qz_error *err)
{
    struct guest_memory *m = &vm->machine.memory;
    const struct memory_options *pages = &vm->config.pages;
    const int frozen = vm->config.snapshot_memory, pager = vm->config.snapshot_pager;
    int r = frozen >= 0 ? guest_memory_over_as(m, frozen, vm->config.memory, pages, err)
                        : guest_memory_new_as(m, vm->config.memory, pages, err);

    return r < 0 || pager < 0 ? r : vm_loading_begin(&vm->loading, pager, m, err);
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
    m->request = vm_on_request;
    if ((r = build_memory(vm, err)) < 0 ||
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

static int build_balloon(struct vm *vm, struct qz_error *err)
{
    const struct balloon_auto_options options = {.memory = vm->config.memory,
                                                 .min = vm->config.balloon.min,
                                                 .pressure = vm->config.balloon.pressure};

    return vm->config.balloon.automatic ? balloon_auto_new(&vm->balloon, vm->machine.main_loop,
                                                           vm->pc.balloon, &options, err)
                                        : 0;
}

static int build_devices(struct vm *vm, struct qz_error *err)
{
    struct pc_host host = {
        .exit_status = vm_on_exit_status, .disk_stopped = vm_on_disk_stopped, .context = vm};
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
    if ((r = host_console_open(&vm->console, vm->machine.main_loop, vm->config.console, vm_on_quit,
                               vm, err)) < 0)
        return r;
    host.terminal = host_console_terminal(vm->console);
    if (vm->config.deterministic && host.terminal)
        terminal_wait_for_reader(host.terminal, true);
    for (unsigned i = 0; i < host.storage_loop_count; i++)
        storage[i] = vm->io[IO_STORAGE + i].loop;
    host.storage_loops = storage;
    host.device_loop = vm->io[IO_DEVICES].loop;
    if ((r = pc_new(&vm->pc, &vm->machine, &vm->config, &host, err)) < 0 ||
        (r = build_balloon(vm, err)) < 0)
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
    if (vm->config.pages.merge) {
        vm->merging_fd = open("/proc/self/ksm_merging_pages", O_RDONLY | O_CLOEXEC);
        vm->ksm_stat_fd = open("/proc/self/ksm_stat", O_RDONLY | O_CLOEXEC);
    }
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
    const struct vcpu_events events = {.triple_fault = vm_on_triple_fault,
                                       .failed = vm_on_failure,
                                       .debug = vm->debugger ? vm_on_debug : NULL,
                                       .first_exit = vm_on_first_exit,
                                       .context = vm};
    int r;

    if (vm->loading && (r = vm_loading_listen(vm->loading, vm->confine, vm->console, err)) < 0)
        return r;
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
    if (fd < 0 || qz_loop_add(vm->machine.main_loop, &vm->signals, fd, EPOLLIN, vm_on_signal) < 0)
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
    vm->options = vm_config_options(config);
    vm->command = vm_config_command(config);
    vm->statm_fd = vm->merging_fd = vm->ksm_stat_fd = vm->machine.memory.fd = vm->pc.debug_fd =
        vm->signals.fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    if ((r = build_core(vm, err)) < 0 || (r = watch_signals(vm, err)) < 0 ||
        (r = build_devices(vm, err)) < 0)
        return r;
    vm_disks_learn(vm);
    vm->built_ns = qz_now_ns();
    if ((r = confine(vm, err)) < 0 || (r = start_threads(vm, err)) < 0)
        return r;
    vm->confined_ns = qz_now_ns();
    /* All vCPUs are given the same counter, to start with together. */
    vm->clock_stands = vm->machine.accel->ops->clock_stop(vm->machine.accel) == 0;
    r = vm->config.snapshot ? vm_begin_from_snapshot(vm, err) : vm_load_guest(vm, err);
    if (r < 0)
        return r;
    vm->loaded_ns = qz_now_ns();
    return confine_thread(CONFINE_MAIN, mode, err);
}

void vm_free(struct vm *vm)
{
    struct machine *m = &vm->machine;
    struct terminal *terminal = vm->console ? host_console_terminal(vm->console) : NULL;

    /* No vCPU waits for a reader any more. */
    if (terminal)
        terminal_wait_for_reader(terminal, false);
    state_log_stop(vm->log);
    vcpu_group_stop(vm->vcpus);
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
    vm_snapshot_forget(vm);
    /* No timer and no device is left to wake a vCPU. */
    vcpu_group_free(vm->vcpus);
    vm->vcpus = NULL;
    control_free(vm->control);
    balloon_auto_free(vm->balloon);
    pc_free(&vm->pc);
    guest_source_free(vm->guest);
    vm_loading_free(vm->loading);
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
    guest_memory_free(&m->memory);
    if (vm->statm_fd >= 0)
        close(vm->statm_fd);
    if (vm->merging_fd >= 0)
        close(vm->merging_fd);
    if (vm->ksm_stat_fd >= 0)
        close(vm->ksm_stat_fd);
    vm_disks_free(vm);
    json_decref(vm->options);
    json_decref(vm->command);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

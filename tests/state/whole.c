/*
 * whole.c - a whole machine in a test's process (whole.h).
 *
 * The machine is sent back (vm_restore), and what it is sent back to is first replaced by the state
 * in question: that is the way of states into machines that run, with everything that stands
 * around machine_state_load(). The memory is always that of the beginning.
 */
#include "whole.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "vm/vm_internal.h"
#include "vm/vm_restore.h"

enum { BEGIN_EXITS = 400, PATIENCE_S = 60, DISK_SIZE = 1 << 20 };
#define BEGIN_NS INT64_C(20000000)

struct whole {
    struct vm *vm;
    struct state_file state;      /* its bytes are here */
    struct memory_layers *memory; /* of the beginning */
    char folder[32], disk[40];
};

/* What the options say lives as long as the program. */
static struct vm_config config;

void __wrap_qz_log(enum qz_log_level level, const char *fmt, ...);
/* In the place of qz_log(): the monitor says each time why it refuses a state, thousands of lines
 * that nobody reads. QZ_VERBOSE shows them. */
void __wrap_qz_log(enum qz_log_level level, const char *fmt, ...)
{
    va_list arguments;

    if (!getenv("QZ_VERBOSE"))
        return;
    va_start(arguments, fmt);
    vfprintf(stderr, fmt, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static _Noreturn void give_up(const char *what, const struct qz_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    abort();
}

static void on_alarm(int number)
{
    static const char text[] = "a machine does not come to a stand\n";

    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(2);
    abort();
}

/* One that can be written would need a new image for each state that is taken. */
static void make_disk(struct whole *w)
{
    QZ_AUTO_FD int fd = -1;

    snprintf(w->disk, sizeof(w->disk), "%s/disk", w->folder);
    fd = open(w->disk, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, DISK_SIZE) < 0)
        abort();
}

static void build(struct whole *w, const char *accel, unsigned cpus)
{
    char count[8], words[32], vsock[64], disk[80];
    char *words_of[] = {"queztl-vmm",  "--kernel", getenv("QZ_GUEST"),
                        "--append",    words,      "--accel",
                        (char *)accel, "--cpus",   count,
                        "--memory",    "64M",      "--disk",
                        disk,          "--net",    "user",
                        "--vsock",     vsock,      "--console",
                        "none"};
    struct qz_error err = {0};

    snprintf(count, sizeof(count), "%u", cpus);
    snprintf(words, sizeof(words), "cpus=%u", cpus);
    make_disk(w);
    snprintf(disk, sizeof(disk), "%s,format=raw,readonly=on", w->disk);
    snprintf(vsock, sizeof(vsock), "3,%s/vsock", w->folder);
    if (vm_config_parse(&config, QZ_ARRAY_LEN(words_of), words_of, &err) < 0 ||
        vm_new(&w->vm, &config, CONFINE_KILL, &err) < 0)
        give_up("the machine cannot be built", &err);
}

uint64_t whole_exits(const struct whole *w)
{
    uint64_t exits[EXIT_KINDS], sum = 0;

    vcpu_group_exits(w->vm->vcpus, exits);
    for (unsigned i = 0; i < EXIT_KINDS; i++)
        sum += exits[i];
    return sum;
}

/* A reset that was begun ends first. */
static void stand(struct vm *vm)
{
    while (vm->state == VM_RESETTING)
        qz_loop_once(vm->machine.main_loop, 1);
    if (vm->state != VM_PAUSED)
        vm_stop_running(vm);
    while (guest_memory_tidy(&vm->machine.memory))
        ;
    __atomic_store_n(&vm->pending, 0, __ATOMIC_SEQ_CST);
}

bool whole_run(struct whole *w, int64_t ns)
{
    struct vm *vm = w->vm;
    const int64_t end = qz_now_ns() + ns;
    bool ended;

    alarm(PATIENCE_S);
    vm_start_running(vm, NULL);
    do
        qz_loop_once(vm->machine.main_loop, 1);
    while (vm->state != VM_ENDED && qz_now_ns() < end);
    ended = vm->state == VM_ENDED;
    stand(vm);
    alarm(0);
    return !ended;
}

void whole_read_registers(struct whole *w)
{
    static const struct {
        uint64_t base;
        unsigned count, size;
        bool memory;
    } ranges[] = {{0x20, 2, 1, false},     {0x40, 4, 1, false},  {0x61, 1, 1, false},
                  {0xa0, 2, 1, false},     {0x3f8, 8, 1, false}, {0x510, 2, 1, false},
                  {0xcf8, 2, 4, false},    {0x600, 8, 4, false}, {0xfed00000, 0x70, 4, true},
                  {0xfec00000, 5, 4, true}};
    struct machine *m = &w->vm->machine;
    uint64_t got;

    for (unsigned i = 0; i < QZ_ARRAY_LEN(ranges); i++)
        for (unsigned n = 0; n < ranges[i].count; n++)
            bus_read(ranges[i].memory ? m->mmio : m->pio,
                     ranges[i].base + (uint64_t)n * ranges[i].size, &got, ranges[i].size);
    for (uint8_t i = 0; i < 128; i++) { /* RTC */
        bus_write(m->pio, 0x70, &i, 1);
        bus_read(m->pio, 0x71, &got, 1);
    }
}

/* What the machine is sent back to. Takes `bytes` over. */
static void set_last(struct whole *w, void *bytes, size_t len)
{
    vm_snapshot_forget(w->vm);
    w->vm->last.disks = NULL;
    w->vm->last.state = bytes;
    w->vm->last.len = len;
    w->vm->last.memory = layers_hold(w->memory);
}

static void take_first(struct whole *w)
{
    struct vm_snapshot s;
    struct qz_error err = {0};
    void *bytes;

    if (vm_snapshot(w->vm, NULL, 0, &s, &err) < 0)
        give_up("the machine has no state", &err);
    while (s.fds)
        close(s.fd[--s.fds]);
    w->memory = layers_hold(w->vm->last.memory);
    bytes = malloc(w->vm->last.len);
    if (!bytes)
        abort();
    memcpy(bytes, w->vm->last.state, w->vm->last.len);
    if (state_file_parse(bytes, w->vm->last.len, &w->state, &err) < 0)
        give_up("the machine's own state", &err);
    w->state.bytes = bytes;
}

struct whole *whole_new(const char *accel, unsigned cpus)
{
    struct whole *w = calloc(1, sizeof(*w));
    struct qz_error err = {0};

    if (!w)
        abort();
    strcpy(w->folder, "/tmp/queztl-whole-XXXXXX");
    if (!mkdtemp(w->folder) || !getenv("QZ_GUEST")) {
        qz_fail(&err, -ENOENT, "QZ_GUEST names the kernel of its guest");
        give_up("the machine cannot be built", &err);
    }
    signal(SIGALRM, on_alarm);
    build(w, accel, cpus);
    while (whole_exits(w) < BEGIN_EXITS)
        if (!whole_run(w, BEGIN_NS)) {
            qz_fail(&err, -EIO, "it has ended");
            give_up("the guest does not run", &err);
        }
    take_first(w);
    return w;
}

void whole_free(struct whole *w)
{
    vm_free(w->vm);
    layers_drop(w->memory);
    state_file_free(&w->state);
    unlink(w->disk);
    rmdir(w->folder);
    free(w);
}

const struct state_file *whole_state(const struct whole *w)
{
    return &w->state;
}

int whole_load(struct whole *w, const void *bytes, size_t len, struct qz_error *err)
{
    void *copy = malloc(len);
    int r;

    if (!copy)
        abort();
    memcpy(copy, bytes, len);
    set_last(w, copy, len);
    alarm(PATIENCE_S);
    r = vm_restore(w->vm, NULL, NULL, 0, err);
    alarm(0);
    w->vm->state = VM_PAUSED; /* a machine that cannot go on has ended: the next one begins here */
    return r;
}

int whole_save(struct whole *w, struct qz_error *err)
{
    struct vm_snapshot s;
    int r;

    alarm(PATIENCE_S);
    r = vm_snapshot(w->vm, NULL, 0, &s, err);
    if (r == 0) {
        while (s.fds)
            close(s.fd[--s.fds]);
        r = vm_restore(w->vm, NULL, NULL, 0, err);
        if (r < 0)
            give_up("a machine does not take its own state", err);
    }
    alarm(0);
    return r;
}

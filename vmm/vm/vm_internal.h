/*
 * vm_internal.h - the parts of a machine's life: vm.c (running, ending, resetting, what others ask
 * for), vm_build.c (making and taking apart), vm_report.c (what it says of itself).
 */
#ifndef VMM_VM_INTERNAL_H
#define VMM_VM_INTERNAL_H

#include "vm/balloon_auto.h"
#include "vm/control.h"
#include "vm/debugger.h"
#include "vm/guest.h"
#include "vm/host_console.h"
#include "vm/pc.h"
#include "vm/vcpu.h"
#include "vm/vm.h"
#include "vm/vm_loading.h"
#include "vm/vm_snapshot.h"

enum { IO_DEVICES = 0, IO_STORAGE = 1, IO_LOOPS_MAX = IO_STORAGE + VM_IOTHREADS_MAX };

struct io_thread {
    struct qz_loop *loop;
    pthread_t thread;
    bool started;
    enum confine_mode confine;
    struct vm *vm;
    const char *name;
};

/* A disk's images. */
struct vm_disk {
    char *origin; /* absolute names: the image that the machine was given, */
    char *file;   /* and the one that is written; NULL: it cannot be found again */
    json_t *base; /* what it was when the machine was last frozen or began from a snapshot: {"file":
                     ..., "format": ..., "size": bytes}; NULL: it cannot go back */
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
    struct balloon_auto *balloon; /* NULL: --balloon manual */
    struct debugger *debugger;    /* NULL: no --gdb */
    bool held;                    /* by the debugger */
    bool run_when_released;
    struct guest_source *guest;
    struct vm_loading *loading; /* NULL: all of memory was there from the beginning */
    struct state_log *log;      /* NULL: none */

    unsigned pending; /* ASK_ bits, atomic */
    struct qz_work pending_work;
    struct qz_timer timeout, drain;
    unsigned drain_steps;
    bool resume_after_reset;
    struct qz_watch signals;
    int statm_fd, merging_fd, ksm_stat_fd;

    pthread_mutex_t lock; /* guards what other threads leave here */
    char failure[240];
    unsigned crashed_cpu; /* for ASK_TRIPLE_FAULT */
    char crash_place[160];
    char exit_text[16]; /* from org.queztl.exit */
    size_t exit_text_len;

    struct {
        json_t *disks; /* the images that it has frozen */
        void *state;   /* bytes; NULL: there is none */
        size_t len;
        struct memory_layers *memory;
    } last;                            /* the snapshot taken last, or begun from (vm_snapshot.c) */
    struct vm_disk disk[VM_DISKS_MAX]; /* vm_disks.c */
    struct qz_work tidy;               /* of memory, after it was frozen (vm_snapshot.c) */
    json_t *options, *command;         /* that make the same machine again */
    bool clock_stands;                 /* the accelerator's clocks were stopped with the vCPUs */
    int landlock_abi;
    unsigned resets;
    int64_t born_ns, built_ns, loaded_ns, confined_ns, resumed_ns, first_exit_ns;
    struct boot_report boot;
};

/* ---- vm.c: what devices, vCPUs and the outside tell; context is the machine. Any thread. */
void vm_on_request(struct machine *m, enum machine_request what);
void vm_on_triple_fault(void *context, unsigned cpu, const char *where);
bool vm_on_debug(void *context, unsigned cpu, const struct vcpu_exit *exit);
void vm_on_failure(void *context, unsigned cpu, const char *text);
void vm_on_disk_stopped(void *context, struct virtio_device *d);
void vm_on_first_exit(void *context);
void vm_on_exit_status(void *context, const void *data, size_t len);
/* Main loop only. */
void vm_on_quit(void *context);
void vm_on_signal(struct qz_watch *w, uint32_t events);

/* vCPUs and clocks; stay: as for vcpu_group_resume(). Main loop only. */
void vm_start_running(struct vm *vm, const bool *stay);
void vm_stop_running(struct vm *vm);
void vm_end(struct vm *vm, int code);

/* Kernel or firmware into memory, CPU 0 at its entry. vCPUs parked. */
int vm_load_guest(struct vm *vm, struct qz_error *err);

#endif

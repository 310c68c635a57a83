/*
 * config.h - everything a virtual machine is told at its start, and the options that say it.
 *
 * queztl-vmm and `queztl-hv run` share one option table. A configuration owns nothing: its strings
 * point into argv or into static text.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include <queztl/command.h>

#include "cpu/cpu_model.h"
#include "gdb/address.h"
#include "machine/memory.h"

enum {
    VM_DISKS_MAX = 16,
    VM_NETS_MAX = 8,
    VM_CPUS_MAX = 256,
    VM_FORWARDS_MAX = 16,
    VM_IOTHREADS_MAX = 8
};

struct vm_disk_config {
    const char *text; /* as it was typed */
    const char *path;
    bool by_descriptor; /* fd=: its path need not be there any more */
    char *options;      /* for the disk engine: the path and all keys that are not ours */
    bool no_packed;
    unsigned queues;    /* 0: one for each vCPU, up to 4, and at least one for each thread */
    unsigned iothreads; /* the queues are spread over so many */
    int on_error;       /* enum virtio_blk_on_error */
    char serial[21];
};

enum vm_net_kind { VM_NET_USER, VM_NET_TAP };

struct vm_net_config {
    const char *text; /* as it was typed */
    enum vm_net_kind kind;
    const char *tap;
    uint8_t mac[6];
    bool has_mac;
    struct vm_forward {
        uint16_t host_port, guest_port;
    } forward[VM_FORWARDS_MAX];
    unsigned forwards;
};

struct state_log_config {
    const char *path; /* NULL: none */
    /* ns, which are instructions where no vCPU slept; 0: not */
    uint64_t every; /* at its multiples */
    uint64_t also;  /* once */
    uint64_t dense; /* from then on at each one */
};

struct vm_config {
    const char *accel;       /* "auto", "kvm", "jit" */
    const char *accel_given; /* as it was typed, NULL: it was not */
    bool interpret;          /* jit: translates nothing */
    bool deterministic;      /* jit: the same input gives the same run */
    uint64_t seed;           /* deterministic: of all random numbers */
    enum cpu_model model;
    unsigned cpus;
    struct cpu_topology topology; /* all 0: one socket with `cpus` cores */
    uint64_t memory;
    struct memory_options pages;
    struct {
        const char *text; /* as it was typed, NULL: it was not */
        bool automatic;
        uint64_t min;      /* 0: a quarter of memory */
        unsigned pressure; /* percent */
    } balloon;
    const char *kernel, *initrd, *append, *firmware, *firmware_vars;
    int protocol; /* enum boot_protocol, -1 automatic */
    struct vm_disk_config disk[VM_DISKS_MAX];
    unsigned disks;
    struct vm_net_config net[VM_NETS_MAX];
    unsigned nets;
    bool net_given; /* --net none counts too */
    uint64_t vsock_cid;
    const char *vsock_path;
    const char *console;               /* "stdio", "none" or a file */
    const char *control;               /* path of the control socket, NULL: none */
    struct gdb_address gdb;            /* where a debugger connects; .len 0: nowhere */
    struct state_log_config state_log; /* deterministic machines only */
    const char *name;
    const char *debug_log; /* firmware's debug port goes to this file */
    uint64_t timeout_s;    /* 0: none */
    bool own_lapic;        /* --irqchip user */
    bool trace_start, verbose;
    /* What the machine begins from instead of a boot: a snapshot's folder, or two descriptors that
     * the control socket's "snapshot" gave. */
    const char *snapshot;
    const char *load; /* when the folder's memory is read: queztl-hv's affair; NULL: as it likes */
    int snapshot_state, snapshot_memory; /* -1: none */
    int snapshot_pager;                  /* that loads the latter (snapshot/pager.h); -1: none */
    const char *image;                   /* operand: a disk image to boot */
    char **command;                      /* after "--", NULL-terminated; NULL when none was given */
};

extern const struct qz_option vm_options[];

/* Defaults, then argv. -EINVAL: usage, err says what. Checks everything that needs no file to be
 * opened. */
int vm_config_parse(struct vm_config *c, int argc, char **argv, struct qz_error *err);
/* One --disk (config_disk.c); the engine's options are checked, no file is looked at. */
int vm_config_add_disk(void *config, const char *text, struct qz_error *err);
/*
 * Whether the files it names are there and look like what they shall be; opens nothing for good and
 * needs no accelerator. -ENOENT: one is missing.
 */
int vm_config_check_files(const struct vm_config *c, struct qz_error *err);

#endif

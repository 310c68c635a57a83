/*
 * state_log.h - deterministic machines: the state at chosen moments of virtual time, into a file.
 *
 * Two runs that are the same have the same file. tests/jit/lockstep reads it through a pipe. A
 * record is struct state_record as this host lays it out; the file is no archive.
 */
#ifndef VMM_STATE_LOG_H
#define VMM_STATE_LOG_H

#include "machine/machine.h"
#include "vm/config.h"

enum { STATE_CODE_BYTES = 16 };

struct state_record {
    uint64_t time;   /* ns */
    uint64_t memory; /* accel_ops.memory_hash */
    uint64_t states; /* of the whole state of every vCPU but what FXSAVE says about addresses */
    uint64_t gpr[GPR_COUNT];
    uint64_t rip, rflags, cr0, cr2, cr3, cr4, fs_base, gs_base, xmm; /* xmm: x87 and vectors */
    uint64_t rest;                  /* everything else of this vCPU */
    uint8_t code[STATE_CODE_BYTES]; /* at rip, as far as it is in RAM */
    uint32_t code_len;
    uint32_t cpu; /* whose turn it is, and whose registers these are */
};

struct state_log;

/* Before confinement: the file is opened. */
int state_log_new(struct state_log **log, struct machine *m, const struct state_log_config *config,
                  struct qz_error *err);
void state_log_free(struct state_log *log);
/* Nobody waits for its reader any more; log may be NULL. Any thread. */
void state_log_stop(struct state_log *log);

/* The next moment. */
int64_t state_log_next(const struct state_log *log);
/* Writes a record; no vCPU runs. cpus: all of them. */
void state_log_write(struct state_log *log, struct accel_vcpu *const *vcpus, unsigned cpu);

#endif

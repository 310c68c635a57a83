/*
 * system_fake.h - what surrounds the system instructions, for their tests: a flat memory of 1 MiB
 * with rights for each page, and exceptions that come back as values.
 */
#ifndef VMM_JIT_SYSTEM_FAKE_H
#define VMM_JIT_SYSTEM_FAKE_H

#include "cpu/jit/event.h"
#include "cpu/jit/exec.h"
#include "cpu/jit/msr.h"

enum { FAKE_MEMORY = 1 << 20, FAKE_PAGES = FAKE_MEMORY / 4096 };
enum { FAKE_PRESENT = 1, FAKE_WRITE = 2, FAKE_USER = 4 };

struct fake {
    struct jit_cpu cpu;
    struct jit_vm vm;
    struct jit_msrs msrs;
    uint8_t memory[FAKE_MEMORY];
    uint8_t rights[FAKE_PAGES]; /* change them with fake_rights() */
    bool bad_pdptes;
    unsigned flushes, invlpgs, invpcids;
    uint32_t machine_msr; /* last one that the machine was asked for */
    uint64_t machine_value;
    bool machine_fault;
};

/* 64-bit ring 0, everything mapped for everybody, GDT and IDT empty. */
struct fake *fake_new(void);
void fake_free(struct fake *f);
void fake_rights(struct fake *f, uint64_t linear, uint8_t rights);

uint64_t fake_load(struct fake *f, uint64_t at, unsigned size);
void fake_store(struct fake *f, uint64_t at, unsigned size, uint64_t value);

enum { FAKE_OK = -1 };
/* Executes the instruction; FAKE_OK, or the vector that it raised, which is then pending. */
int fake_execute(struct fake *f, const struct insn *i);
/* Calls what may raise. */
int fake_try(struct fake *f, void (*call)(struct jit_cpu *cpu, const void *arg), const void *arg);
/* Delivers what is pending as the run loop does, until nothing is. */
void fake_deliver(struct fake *f);

#endif

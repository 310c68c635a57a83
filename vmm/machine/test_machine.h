/*
 * test_machine.h - a machine without devices or CPUs for tests: buses, test_clock and an interrupt
 * fabric on a fake accelerator that writes down what it is told.
 */
#ifndef VMM_TEST_MACHINE_H
#define VMM_TEST_MACHINE_H

#include "machine/machine.h"
#include "machine/test_clock.h"

enum { TEST_MESSAGES = 64, TEST_CPUS = 256 };

struct test_machine {
    struct machine m;
    struct accel_vm accel;
    /* What the accelerator was told (split mode). */
    unsigned messages;
    struct {
        uint64_t address;
        uint32_t data;
    } message[TEST_MESSAGES]; /* the last ones, message i at i % TEST_MESSAGES */
    struct {
        uint64_t address;
        uint32_t data;
        bool masked;
        unsigned count;
    } route[IOAPIC_PINS];
    /* What the vCPUs were told. */
    unsigned wakes[TEST_CPUS], nmis[TEST_CPUS], inits[TEST_CPUS], sipis[TEST_CPUS];
    uint8_t sipi_vector[TEST_CPUS];
};

/* Aborts when it cannot be built: the caller is a test. */
struct test_machine *test_machine_new(unsigned cpus, bool own_lapic);
void test_machine_free(struct test_machine *t);

uint8_t test_in(struct test_machine *t, uint16_t port);
void test_out(struct test_machine *t, uint16_t port, uint8_t value);
uint64_t test_load(struct test_machine *t, uint64_t address, unsigned len);
void test_store(struct test_machine *t, uint64_t address, unsigned len, uint64_t value);

uint32_t test_ioapic_read(struct test_machine *t, uint8_t reg);
void test_ioapic_write(struct test_machine *t, uint8_t reg, uint32_t value);
/* Writes both halves of a redirection entry, the upper one first. */
void test_ioapic_route(struct test_machine *t, unsigned pin, uint64_t entry);

/* The PICs as Linux sets them up (init_8259A), all inputs open: vectors 0x30 to 0x3f. */
void test_pic_setup(struct test_machine *t);

#endif

/*
 * machine_state_fuzz.c - a whole machine is sent back to a state in which things are changed, and
 * if it takes it, it runs, is frozen, and must take its own state back.
 *
 * QZ_ACCEL and QZ_CPUS say which machine; QZ_VERBOSE shows what the monitor says.
 */
#include "spoil.h"
#include "whole.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RUN_NS INT64_C(1000000)

static struct whole *machine;
static unsigned inputs, taken, ended, saved;
static uint64_t exits;

static void say_sum(void)
{
    printf("%u states: %u taken; of them %u ended the machine, %u were saved again; %llu exits\n",
           inputs, taken, ended, saved, (unsigned long long)exits);
    exits = 0;
    whole_free(machine);
}

static void begin(void)
{
    const char *accel = getenv("QZ_ACCEL"), *cpus = getenv("QZ_CPUS");

    machine = whole_new(accel ? accel : "jit,interpret", cpus ? (unsigned)atoi(cpus) : 2);
    atexit(say_sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct choices c = {data, size, 0};
    struct qz_error err = {0};
    uint64_t before;
    size_t len;

    if (!machine)
        begin();
    inputs++;
    QZ_AUTO_FREE void *bytes = state_spoil(whole_state(machine), &c, &len);

    if (!bytes || whole_load(machine, bytes, len, &err) < 0)
        return 0;
    taken++;
    whole_read_registers(machine);
    before = whole_exits(machine);
    if (!whole_run(machine, RUN_NS))
        ended++;
    else if (whole_save(machine, &err) == 0)
        saved++;
    exits += whole_exits(machine) - before;
    return 0;
}

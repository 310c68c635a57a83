/*
 * slots.h - the guest-physical map: which host memory stands behind which address.
 *
 * It changes only while the world stands (world.h), so a running vCPU reads it without a lock;
 * other threads hold slots_lock for reading.
 */
#ifndef VMM_JIT_SLOTS_H
#define VMM_JIT_SLOTS_H

#include "cpu/jit/cpu.h"

int slots_map(struct jit_vm *vm, uint64_t gpa, uint64_t size, void *host, bool readonly);
int slots_unmap(struct jit_vm *vm, uint64_t gpa, uint64_t size);
void slots_free(struct jit_vm *vm);

/* The slot that holds gpa, or NULL. Slots are page aligned: a page lies in one slot or in none. */
struct jit_slot *slot_find(struct jit_vm *vm, uint64_t gpa);

static inline uint8_t *slot_host(const struct jit_slot *s, uint64_t gpa)
{
    return s->host + (gpa - s->gpa);
}

static inline bool slot_has_code(const struct jit_slot *s, uint64_t gpa)
{
    const uint64_t page = (gpa - s->gpa) >> 12;

    return __atomic_load_n(&s->code[page / 64], __ATOMIC_SEQ_CST) >> (page & 63) & 1;
}

#endif

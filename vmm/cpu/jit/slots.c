/*
 * slots.c - the guest-physical map (slots.h).
 */
#include "cpu/jit/slots.h"

#include "cpu/jit/block.h"
#include "cpu/jit/memory_hash.h"
#include "cpu/jit/world.h"

struct jit_slot *slot_find(struct jit_vm *vm, uint64_t gpa)
{
    unsigned low = 0, high = vm->slots;

    while (low < high) {
        const unsigned middle = (low + high) / 2;
        struct jit_slot *s = &vm->slot[middle];

        if (gpa < s->gpa)
            high = middle;
        else if (gpa - s->gpa >= s->size)
            low = middle + 1;
        else
            return s;
    }
    return NULL;
}

static int insert(struct jit_vm *vm, const struct jit_slot *new)
{
    unsigned at = 0;

    while (at < vm->slots && vm->slot[at].gpa < new->gpa)
        at++;
    if ((at < vm->slots && vm->slot[at].gpa - new->gpa < new->size) ||
        (at > 0 && new->gpa - vm->slot[at - 1].gpa < vm->slot[at - 1].size))
        return -EEXIST;
    if (vm->slots == JIT_SLOTS_MAX)
        return -ENOSPC;
    memmove(&vm->slot[at + 1], &vm->slot[at], (vm->slots - at) * sizeof(vm->slot[0]));
    vm->slot[at] = *new;
    vm->slots++;
    return 0;
}

int slots_map(struct jit_vm *vm, uint64_t gpa, uint64_t size, void *host, bool readonly)
{
    struct jit_slot new = {.gpa = gpa, .size = size, .host = host, .readonly = readonly};
    int r;

    if (size == 0 || (gpa | size | (uintptr_t)host) & 4095 || gpa + size - 1 < gpa)
        return -EINVAL;
    new.code = calloc(((size >> 12) + 63) / 64, sizeof(*new.code));
    if (!new.code)
        return -ENOMEM;
    world_stop(vm);
    pthread_rwlock_wrlock(&vm->slots_lock);
    r = insert(vm, &new);
    pthread_rwlock_unlock(&vm->slots_lock);
    world_alert(vm, ATTENTION_FLUSH); /* before they look at memory again */
    world_go(vm);
    if (r < 0)
        free(new.code);
    return r;
}

int slots_unmap(struct jit_vm *vm, uint64_t gpa, uint64_t size)
{
    int r = -ENOENT;

    world_stop(vm);
    blocks_written(vm, gpa, size); /* what was made from its bytes goes with them */
    pthread_rwlock_wrlock(&vm->slots_lock);
    for (unsigned i = 0; i < vm->slots; i++) {
        if (vm->slot[i].gpa != gpa || vm->slot[i].size != size)
            continue;
        free(vm->slot[i].code);
        memory_hash_free(&vm->slot[i]);
        memmove(&vm->slot[i], &vm->slot[i + 1], (vm->slots - i - 1) * sizeof(vm->slot[0]));
        vm->slots--;
        r = 0;
        break;
    }
    pthread_rwlock_unlock(&vm->slots_lock);
    world_alert(vm, ATTENTION_FLUSH); /* before they look at memory again */
    world_go(vm);
    return r;
}

void slots_free(struct jit_vm *vm)
{
    for (unsigned i = 0; i < vm->slots; i++) {
        free(vm->slot[i].code);
        memory_hash_free(&vm->slot[i]);
    }
    vm->slots = 0;
}

/*
 * world.c - stopping all vCPUs (world.h).
 *
 * Theory of operation. `stopped` says that somebody is alone or waits to be; `running` counts the
 * vCPUs between enter and leave. A stopper takes `stopped`, tells the running ones by
 * ATTENTION_EXCLUSIVE, and waits until none runs. They look at their attention between
 * instructions. A vCPU that wants to be alone in the middle of an instruction leaves first, so two
 * of them cannot wait for each other.
 */
#include "cpu/jit/world.h"

#include "cpu/jit/mmu.h"

QZ_SYSCALLS(all, "futex");

struct jit_world {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopped;
    unsigned running;
};

int world_new(struct jit_vm *vm)
{
    struct jit_world *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    vm->world = w;
    return 0;
}

void world_free(struct jit_vm *vm)
{
    if (!vm->world)
        return;
    pthread_mutex_destroy(&vm->world->lock);
    pthread_cond_destroy(&vm->world->changed);
    free(vm->world);
    vm->world = NULL;
}

static void enter_locked(struct jit_cpu *cpu)
{
    struct jit_world *w = cpu->vm->world;

    while (w->stopped)
        pthread_cond_wait(&w->changed, &w->lock);
    jit_attention_clear(cpu, ATTENTION_EXCLUSIVE);
    cpu->running = true;
    w->running++;
}

static void leave_locked(struct jit_cpu *cpu)
{
    struct jit_world *w = cpu->vm->world;

    cpu->running = false;
    if (--w->running == 0 && w->stopped)
        pthread_cond_broadcast(&w->changed);
}

static void flush_if_asked(struct jit_cpu *cpu)
{
    if (__atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST) & ATTENTION_FLUSH) {
        jit_attention_clear(cpu, ATTENTION_FLUSH);
        mmu_flush_all(cpu);
    }
}

void world_enter(struct jit_cpu *cpu)
{
    pthread_mutex_lock(&cpu->vm->world->lock);
    enter_locked(cpu);
    pthread_mutex_unlock(&cpu->vm->world->lock);
    flush_if_asked(cpu);
}

void world_leave(struct jit_cpu *cpu)
{
    QZ_LOCKED(&cpu->vm->world->lock);

    leave_locked(cpu);
}

void world_yield(struct jit_cpu *cpu)
{
    world_leave(cpu);
    world_enter(cpu);
}

/* The lock is held. The array of vCPUs does not change while it is. */
static void stop_locked(struct jit_vm *vm)
{
    struct jit_world *w = vm->world;

    while (w->stopped)
        pthread_cond_wait(&w->changed, &w->lock);
    w->stopped = true;
    if (w->running > 0)
        for (unsigned i = 0; i < vm->config.vcpus; i++)
            if (vm->cpus[i] && vm->cpus[i]->running)
                jit_attention_set(vm->cpus[i], ATTENTION_EXCLUSIVE);
    while (w->running > 0)
        pthread_cond_wait(&w->changed, &w->lock);
}

static void go_locked(struct jit_world *w)
{
    w->stopped = false;
    pthread_cond_broadcast(&w->changed);
}

void world_alert(struct jit_vm *vm, unsigned bits)
{
    QZ_LOCKED(&vm->world->lock);

    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            jit_attention_set(vm->cpus[i], bits);
}

void world_set_cpu(struct jit_vm *vm, unsigned id, struct jit_cpu *cpu)
{
    QZ_LOCKED(&vm->world->lock);

    stop_locked(vm);
    vm->cpus[id] = cpu;
    go_locked(vm->world);
}

void world_stop(struct jit_vm *vm)
{
    QZ_LOCKED(&vm->world->lock);

    stop_locked(vm);
}

void world_go(struct jit_vm *vm)
{
    QZ_LOCKED(&vm->world->lock);

    go_locked(vm->world);
}

void jit_exclusive_begin(struct jit_cpu *cpu)
{
    if (cpu->alone)
        return;
    pthread_mutex_lock(&cpu->vm->world->lock);
    leave_locked(cpu);
    stop_locked(cpu->vm);
    pthread_mutex_unlock(&cpu->vm->world->lock);
    cpu->alone = true;
    flush_if_asked(cpu);
}

void jit_exclusive_end(struct jit_cpu *cpu)
{
    if (!cpu->alone)
        return;
    cpu->alone = false;
    pthread_mutex_lock(&cpu->vm->world->lock);
    go_locked(cpu->vm->world);
    /* Before anybody else stops the world again: this vCPU is in the middle of something. */
    cpu->running = true;
    cpu->vm->world->running++;
    pthread_mutex_unlock(&cpu->vm->world->lock);
}

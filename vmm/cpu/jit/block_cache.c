/*
 * block_cache.c - all blocks of a machine: found by address, dropped when their bytes change,
 * evicted when there are too many.
 *
 * How no stale block survives
 * ---------------------------
 * A page's `code` bit (slots.h) makes every store to it go the slow way: store, then
 * blocks_written(). The bit is set while the world stands, and every vCPU's write entries for the
 * page are dropped then, so from the first byte that is decoded on all stores of vCPUs are seen.
 * Devices store, then call blocks_written(). Decoding and inserting happen under one lock which
 * blocks_written() takes too: a store either came before the bytes were read, or finds the block.
 *
 * How no block is freed under somebody's feet
 * -------------------------------------------
 * Memory (block_store.h) is only taken from blocks while the world stands. A vCPU that stopped in
 * the middle of an instruction still reads its block when it goes on: what is somebody's current
 * block stays.
 */
#include "cpu/jit/block_cache.h"
#include "cpu/jit/block_build.h"
#include "cpu/jit/block_store.h"
#include "cpu/jit/memory_hash.h"
#include "cpu/jit/slots.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/world.h"

enum {
    HASH_BITS = 16,
    PAGE_HASH_BITS = 12,
    LINE_SHIFT = 6, /* 64 lines of 64 bytes in a page */
};
/* Decoded instructions: all that a guest executes often, or, beside the translator, what is not yet
 * worth translating. */
#define DECODED_BYTES            (64ull << 20)
#define DECODED_BYTES_TRANSLATED (6ull << 20)

struct code_page {
    uint64_t gpa;
    uint64_t lines; /* that hold bytes of a block */
    struct jit_block *blocks;
    struct code_page *next;
};

struct jit_smc {
    pthread_mutex_t lock;
    struct jit_block *hash[1 << HASH_BITS];
    struct code_page *page[1 << PAGE_HASH_BITS];
    struct block_store store;
};

/* ---- look-up
 * -----------------------------------------------------------------------------------------------
 */

static struct jit_block **hash_slot(struct jit_smc *smc, uint64_t gpa, uint32_t mode)
{
    const uint64_t mixed = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

    return &smc->hash[mixed >> (64 - HASH_BITS)];
}

static struct jit_block *find(struct jit_smc *smc, uint64_t gpa, uint32_t mode)
{
    struct jit_block *b = *hash_slot(smc, gpa, mode);

    while (b && (b->gpa != gpa || b->mode != mode))
        b = b->hash_next;
    return b;
}

static struct code_page **page_slot(struct jit_smc *smc, uint64_t gpa)
{
    const uint64_t mixed = (gpa >> 12) * 0x9e3779b97f4a7c15ull;
    struct code_page **p = &smc->page[mixed >> (64 - PAGE_HASH_BITS)];

    while (*p && (*p)->gpa != gpa)
        p = &(*p)->next;
    return p;
}

static uint64_t lines_of(uint64_t gpa, uint64_t len)
{
    const unsigned first = (gpa & 4095) >> LINE_SHIFT;
    const unsigned last = ((gpa & 4095) + len - 1) >> LINE_SHIFT;

    return (last == 63 ? ~0ull : (1ull << (last + 1)) - 1) & ~((1ull << first) - 1);
}

/* ---- code pages
 * -------------------------------------------------------------------------------------------- */

static void set_code_bit(struct jit_slot *s, uint64_t gpa, bool on)
{
    const uint64_t page = (gpa - s->gpa) >> 12, bit = 1ull << (page & 63);

    if (on)
        __atomic_or_fetch(&s->code[page / 64], bit, __ATOMIC_SEQ_CST);
    else
        __atomic_and_fetch(&s->code[page / 64], ~bit, __ATOMIC_SEQ_CST);
}

void mmu_code_page_changed(struct jit_vm *vm, uint64_t gpa)
{
    struct jit_slot *s = slot_find(vm, gpa);
    const uint8_t *host = slot_host(s, gpa & ~0xfffull);

    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            tlb_drop_writes(vm->cpus[i], host);
}

/* Stores to the page are seen from now on. The map may have changed by the time the world stands.
 */
static void page_becomes_code(struct jit_cpu *cpu, uint64_t gpa)
{
    struct jit_slot *s;

    jit_exclusive_begin(cpu);
    s = slot_find(cpu->vm, gpa);
    if (s) {
        set_code_bit(s, gpa, true);
        mmu_code_page_changed(cpu->vm, gpa);
    }
    jit_exclusive_end(cpu);
}

/* ---- insertion and removal; the lock is held
 * ---------------------------------------------------------------- */

static bool insert(struct jit_smc *smc, struct jit_block *b)
{
    struct jit_block **h = hash_slot(smc, b->gpa, b->mode);
    struct code_page **slot = page_slot(smc, b->gpa & ~0xfffull), *p = *slot;

    if (!p) {
        p = calloc(1, sizeof(*p));
        if (!p)
            return false;
        p->gpa = b->gpa & ~0xfffull;
        *slot = p;
    }
    p->lines |= lines_of(b->gpa, b->bytes);
    b->page_next = p->blocks;
    p->blocks = b;
    b->hash_next = *h;
    *h = b;
    return true;
}

static void remove_from_hash(struct jit_smc *smc, struct jit_block *b)
{
    struct jit_block **h = hash_slot(smc, b->gpa, b->mode);

    while (*h != b)
        h = &(*h)->hash_next;
    *h = b->hash_next;
    __atomic_store_n(&b->valid, false, __ATOMIC_RELEASE);
    translate_forget(b);
    block_store_bury(&smc->store, b);
}

static bool depends_on(const struct jit_block *b, uint64_t from, uint64_t len)
{
    if (len == 0)
        return false;
    return (b->gpa < from + len && from < b->gpa + b->bytes) ||
           (b->looked_at & lines_of(from, len));
}

/* Removes the blocks with a byte of [from, from + len) from the page; the page itself when none is
 * left. */
static bool remove_blocks(struct jit_vm *vm, struct code_page **slot, uint64_t from, uint64_t len)
{
    struct code_page *p = *slot;
    bool any = false;

    p->lines = 0;
    for (struct jit_block **at = &p->blocks; *at;) {
        struct jit_block *b = *at;

        if (depends_on(b, from, len)) {
            *at = b->page_next;
            remove_from_hash(vm->smc, b);
            any = true;
        } else {
            p->lines |= lines_of(b->gpa, b->bytes) | b->looked_at;
            at = &b->page_next;
        }
    }
    if (!p->blocks) {
        struct jit_slot *s = slot_find(vm, p->gpa);

        if (s)
            set_code_bit(s, p->gpa, false);
        *slot = p->next;
        free(p);
    }
    return any;
}

/* ---- writes
 * ------------------------------------------------------------------------------------------------
 */

static bool page_written(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    struct jit_smc *smc = vm->smc;
    struct code_page **slot;
    QZ_LOCKED(&smc->lock);

    slot = page_slot(smc, gpa & ~0xfffull);
    if (!*slot || !((*slot)->lines & lines_of(gpa, len)))
        return false;
    return remove_blocks(vm, slot, gpa, len);
}

/* slots_lock is held for reading, or the caller is a running vCPU or has stopped the world. */
static bool range_written(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    bool any = false;

    while (len > 0) {
        const uint64_t piece = QZ_MIN(len, 4096 - (gpa & 4095));
        struct jit_slot *s = slot_find(vm, gpa);

        if (!s)
            return any;
        memory_hash_note(s, gpa, piece);
        if (slot_has_code(s, gpa))
            any |= page_written(vm, gpa, piece);
        gpa += piece;
        len -= piece;
    }
    return any;
}

bool blocks_written(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    bool any;

    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the store, then the look at the code bit */
    pthread_rwlock_rdlock(&vm->slots_lock);
    any = range_written(vm, gpa, len);
    pthread_rwlock_unlock(&vm->slots_lock);
    if (any)
        world_alert(vm, ATTENTION_BLOCKS);
    return any;
}

bool blocks_in_page(struct jit_vm *vm, uint64_t gpa)
{
    const struct jit_slot *s = slot_find(vm, gpa);

    return s && slot_has_code(s, gpa);
}

/* ---- memory
 * ------------------------------------------------------------------------------------------------
 */

/* What block_store asks while the world stands: `self` is between instructions. */
static bool is_current(void *context, const struct jit_block *b)
{
    const struct jit_cpu *self = context;

    for (unsigned i = 0; i < self->vm->config.vcpus; i++) {
        const struct jit_cpu *cpu = self->vm->cpus[i];

        if (cpu && cpu != self && cpu->blocks->current == b)
            return true;
    }
    return false;
}

static bool has_current(void *context, const uint8_t *base, size_t size)
{
    const struct jit_cpu *self = context;

    for (unsigned i = 0; i < self->vm->config.vcpus; i++) {
        const struct jit_cpu *cpu = self->vm->cpus[i];
        const struct jit_block *b = cpu && cpu != self ? cpu->blocks->current : NULL;

        if (b && (uintptr_t)b->insn >= (uintptr_t)base &&
            (uintptr_t)b->insn - (uintptr_t)base < size)
            return true;
    }
    return false;
}

static void remove_one(struct jit_vm *vm, struct jit_block *b)
{
    struct code_page **slot = page_slot(vm->smc, b->gpa & ~0xfffull);
    struct jit_block **at = &(*slot)->blocks;

    while (*at != b)
        at = &(*at)->page_next;
    *at = b->page_next;
    remove_from_hash(vm->smc, b);
    remove_blocks(vm, slot, 0, 0); /* what lines are left; the page, if none */
}

static void lose_body(void *context, struct jit_block *b)
{
    struct jit_cpu *self = context;

    if (b->code)
        b->insn = NULL;
    else if (b->valid)
        remove_one(self->vm, b);
}

/* Links name blocks, which may become others. */
static void forget_links(struct jit_vm *vm)
{
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            vm->cpus[i]->exit_link = NULL;
}

/* The caller is between instructions. */
static void evict(struct jit_cpu *cpu)
{
    struct jit_smc *smc = cpu->vm->smc;

    jit_exclusive_begin(cpu);
    pthread_mutex_lock(&smc->lock);
    block_store_empty_next(&smc->store, has_current, lose_body, cpu);
    block_store_sweep(&smc->store, is_current, cpu);
    forget_links(cpu->vm);
    pthread_mutex_unlock(&smc->lock);
    jit_exclusive_end(cpu);
}

/* ---- making
 * ------------------------------------------------------------------------------------------------
 */

enum making { MADE, STORE_FULL, NOT_MARKED };

/* Decodes what is at code.gpa, once the page is marked. *out NULL: it needs a block of its own. */
static enum making make(struct jit_cpu *cpu, const struct jit_slot *s, struct mmu_code code,
                        bool decoded, struct jit_block **out)
{
    struct jit_smc *smc = cpu->vm->smc;
    const uint32_t mode = block_mode(cpu);
    struct insn insn[JIT_BLOCK_MAX];
    struct jit_block *known, *b;
    unsigned count, bytes;
    QZ_LOCKED(&smc->lock);

    *out = known = find(smc, code.gpa, mode);
    if (known && (known->insn || !decoded))
        return MADE;
    if (!slot_has_code(s, code.gpa))
        return NOT_MARKED;
    count = block_decode(cpu, code, insn, &bytes);
    if (count == 0)
        return MADE;
    b = known ? known : block_store_header(&smc->store);
    if (!b)
        return STORE_FULL;
    b->gpa = code.gpa;
    b->mode = mode;
    b->bytes = bytes;
    b->count = count;
    if (!block_store_body(&smc->store, b, insn)) {
        if (!known)
            block_store_bury(&smc->store, b);
        return STORE_FULL;
    }
    *out = b;
    if (known)
        return MADE;
    b->valid = true;
    if (!insert(smc, b)) { /* no memory for a page: this instruction goes alone */
        b->valid = false;
        block_store_bury(&smc->store, b);
        *out = NULL;
    }
    return MADE;
}

/* ---- translation
 * ------------------------------------------------------------------------------------------- */

enum {
    INTERPRETED_FIRST = 8
}; /* most blocks run fewer times than that, and translating costs as much */

/* No vCPU returns into code that is gone: translate_execute() looks at the generation. */
static void drop_code(struct jit_cpu *cpu)
{
    struct jit_vm *vm = cpu->vm;
    struct jit_smc *smc = vm->smc;

    jit_exclusive_begin(cpu);
    pthread_mutex_lock(&smc->lock);
    for (unsigned i = 0; i < QZ_ARRAY_LEN(smc->hash); i++)
        for (struct jit_block *b = smc->hash[i], *next; b; b = next) {
            next = b->hash_next;
            b->code = NULL;
            if (!b->insn)
                remove_one(vm, b);
        }
    translator_reset(vm->translator);
    forget_links(vm);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            jump_cache_flush(vm->cpus[i]);
    pthread_mutex_unlock(&smc->lock);
    jit_exclusive_end(cpu);
}

bool block_translate(struct jit_cpu *cpu, struct jit_block *b)
{
    struct jit_smc *smc = cpu->vm->smc;
    struct mmu_code code;
    bool shared, done;

    if (!translate_wanted(cpu, b) || b->executions++ < INTERPRETED_FIRST)
        return false;
    code = mmu_code(cpu, cpu->rip);
    pthread_mutex_lock(&smc->lock);
    shared = b->valid && find(smc, b->gpa, b->mode) == b && code.host && code.gpa == b->gpa;
    done = shared &&
           (b->code || translate_block(cpu->vm->translator, b, code.host - (b->gpa & 4095), cpu));
    if (done)
        (*page_slot(smc, b->gpa & ~0xfffull))->lines |= b->looked_at;
    pthread_mutex_unlock(&smc->lock);
    if (shared && !done)
        drop_code(cpu);
    return done;
}

void block_link(struct jit_cpu *cpu, struct jit_link *link, struct jit_block *b)
{
    QZ_LOCKED(&cpu->vm->smc->lock);

    if (link->from->valid && b->valid && link->from->mode == b->mode &&
        link->from->gpa >> 12 == b->gpa >> 12 && link->target == (b->gpa & 4095))
        translate_link(link, b);
}

struct jit_block *block_lookup(struct jit_cpu *cpu, bool decoded)
{
    const uint64_t linear = block_linear(cpu);
    struct jit_block *b = NULL;

    block_check_fetch(cpu);
    for (;;) { /* what stops the world looks everything up again */
        const struct mmu_code code = mmu_code(cpu, linear);
        enum making made;

        if (!code.host)
            return block_lone(cpu, linear);
        b = block_lone_known(cpu, linear, code);
        if (b)
            return b;
        made = make(cpu, slot_find(cpu->vm, code.gpa), code, decoded, &b);
        if (made == MADE)
            break;
        if (made == NOT_MARKED)
            page_becomes_code(cpu, code.gpa);
        else
            evict(cpu);
    }
    if (!b)
        return block_lone(cpu, linear);
    *block_jump(cpu, linear) = b;
    return b;
}

/* ---- life
 * --------------------------------------------------------------------------------------------------
 */

int blocks_new(struct jit_vm *vm)
{
    struct jit_smc *smc = calloc(1, sizeof(*smc));

    if (!smc)
        return -ENOMEM;
    vm->smc = smc;
    pthread_mutex_init(&smc->lock, NULL);
    if (block_store_new(&smc->store,
                        vm->config.interpret ? DECODED_BYTES : DECODED_BYTES_TRANSLATED,
                        vm->config.vcpus) < 0) {
        blocks_free(vm);
        return -ENOMEM;
    }
    return 0;
}

void blocks_free(struct jit_vm *vm)
{
    struct jit_smc *smc = vm->smc;

    if (!smc)
        return;
    for (unsigned i = 0; i < QZ_ARRAY_LEN(smc->page); i++)
        while (smc->page[i]) {
            struct code_page *p = smc->page[i];

            smc->page[i] = p->next;
            free(p);
        }
    block_store_free(&smc->store);
    pthread_mutex_destroy(&smc->lock);
    free(smc);
    vm->smc = NULL;
}

int blocks_cpu_new(struct jit_cpu *cpu)
{
    cpu->blocks = calloc(1, sizeof(*cpu->blocks));
    if (!cpu->blocks)
        return -ENOMEM;
    cpu->blocks->entered_at = NOT_ENTERED;
    return 0;
}

void blocks_cpu_free(struct jit_cpu *cpu)
{
    free(cpu->blocks);
    cpu->blocks = NULL;
}

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
 * Blocks live in regions, filled one after the other; the oldest is emptied as a whole while the
 * world stands. A vCPU that stopped in the middle of an instruction still reads its block when it
 * goes on, so a region with somebody's current block is passed over. There are more regions than
 * vCPUs.
 */
#include <sys/mman.h>

#include "cpu/jit/block_build.h"
#include "cpu/jit/block_cache.h"
#include "cpu/jit/slots.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/world.h"

enum {
    HASH_BITS = 16,
    PAGE_HASH_BITS = 12,
    REGIONS_MIN = 32,
    LINE_SHIFT = 6, /* 64 lines of 64 bytes in a page */
};
#define CACHE_BYTES (96ull << 20)

struct code_page {
    uint64_t gpa;
    uint64_t lines; /* that hold bytes of a block */
    struct jit_block *blocks;
    struct code_page *next;
};

struct region {
    uint8_t *base;
    size_t used;
};

struct jit_smc {
    pthread_mutex_t lock;
    struct jit_block *hash[1 << HASH_BITS];
    struct code_page *page[1 << PAGE_HASH_BITS];
    uint8_t *memory;
    size_t region_size;
    unsigned regions, filling;
    struct region *region;
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
}

/* Removes the blocks that `gone` names from the page; the page itself when none is left. */
static bool remove_blocks(struct jit_vm *vm, struct code_page **slot,
                          bool (*gone)(const struct jit_block *, uint64_t, uint64_t), uint64_t from,
                          uint64_t len)
{
    struct code_page *p = *slot;
    bool any = false;

    p->lines = 0;
    for (struct jit_block **at = &p->blocks; *at;) {
        struct jit_block *b = *at;

        if (gone(b, from, len)) {
            *at = b->page_next;
            remove_from_hash(vm->smc, b);
            any = true;
        } else {
            p->lines |= lines_of(b->gpa, b->bytes);
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

static bool overlaps(const struct jit_block *b, uint64_t gpa, uint64_t len)
{
    return b->gpa < gpa + len && gpa < b->gpa + b->bytes;
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
    return remove_blocks(vm, slot, overlaps, gpa, len);
}

/* slots_lock is held for reading, or the caller is a running vCPU or has stopped the world. */
static bool range_written(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    bool any = false;

    while (len > 0) {
        const uint64_t piece = QZ_MIN(len, 4096 - (gpa & 4095));
        const struct jit_slot *s = slot_find(vm, gpa);

        if (!s)
            return any;
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

static size_t block_size(unsigned count)
{
    const size_t each = sizeof(struct insn) + sizeof(jit_handler *);

    return QZ_ALIGN_UP(sizeof(struct jit_block) + count * each, (size_t)64); /* a cache line's */
}

/* NULL: the region is full. */
static struct jit_block *allocate(struct jit_smc *smc, unsigned count)
{
    struct region *r = &smc->region[smc->filling];
    struct jit_block *b;

    if (r->used + block_size(count) > smc->region_size)
        return NULL;
    b = (struct jit_block *)(r->base + r->used);
    r->used += block_size(count);
    return b;
}

static bool in_region(const struct jit_smc *smc, unsigned region, const void *p)
{
    const uint8_t *base = smc->region[region].base;

    return (const uint8_t *)p >= base && (const uint8_t *)p < base + smc->region_size;
}

static bool in_use(struct jit_vm *vm, const struct jit_cpu *self, unsigned region)
{
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i] && vm->cpus[i] != self &&
            in_region(vm->smc, region, vm->cpus[i]->blocks->current))
            return true;
    return false;
}

static bool lies_in(const struct jit_block *b, uint64_t base, uint64_t size)
{
    return (uintptr_t)b >= base && (uintptr_t)b - base < size;
}

static void empty_region(struct jit_vm *vm, unsigned region)
{
    struct jit_smc *smc = vm->smc;
    struct region *r = &smc->region[region];

    for (size_t at = 0; at < r->used;) {
        struct jit_block *b = (struct jit_block *)(r->base + at);

        at += block_size(b->count);
        if (b->valid)
            remove_blocks(vm, page_slot(smc, b->gpa & ~0xfffull), lies_in, (uintptr_t)r->base,
                          smc->region_size);
    }
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        for (unsigned k = 0; vm->cpus[i] && k < JUMPS; k++)
            if (in_region(smc, region, vm->cpus[i]->blocks->jump[k]))
                vm->cpus[i]->blocks->jump[k] = NULL;
    r->used = 0;
}

/* The caller is between instructions. */
static void evict(struct jit_cpu *cpu)
{
    struct jit_smc *smc = cpu->vm->smc;
    unsigned next;

    jit_exclusive_begin(cpu);
    pthread_mutex_lock(&smc->lock);
    next = smc->filling;
    do
        next = (next + 1) % smc->regions;
    while (in_use(cpu->vm, cpu, next));
    empty_region(cpu->vm, next);
    smc->filling = next;
    pthread_mutex_unlock(&smc->lock);
    jit_exclusive_end(cpu);
}

/* ---- making
 * ------------------------------------------------------------------------------------------------
 */

enum making { MADE, REGION_FULL, NOT_MARKED };

/* Decodes what is at code.gpa, once the page is marked. *b NULL: it needs a block of its own. */
static enum making make(struct jit_cpu *cpu, const struct jit_slot *s, struct mmu_code code,
                        struct jit_block **out)
{
    struct jit_smc *smc = cpu->vm->smc;
    const uint32_t mode = block_mode(cpu);
    struct insn insn[JIT_BLOCK_MAX];
    struct jit_block *b;
    unsigned count, bytes;
    QZ_LOCKED(&smc->lock);

    *out = find(smc, code.gpa, mode);
    if (*out)
        return MADE;
    if (!slot_has_code(s, code.gpa))
        return NOT_MARKED;
    count = block_decode(cpu, code, insn, &bytes);
    if (count == 0)
        return MADE;
    b = allocate(smc, count);
    if (!b)
        return REGION_FULL;
    memset(b, 0, sizeof(*b));
    b->gpa = code.gpa;
    b->mode = mode;
    b->bytes = bytes;
    b->count = count;
    b->insn = (struct insn *)(b + 1);
    memcpy(b->insn, insn, count * sizeof(insn[0]));
    b->handler = (jit_handler **)(b->insn + count);
    for (unsigned i = 0; i < count; i++)
        b->handler[i] = jit_handler_for(&insn[i]);
    b->valid = true;
    if (insert(smc, b))
        *out = b;
    else
        b->valid = false; /* no memory for a page: this instruction goes alone */
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
        for (struct jit_block *b = smc->hash[i]; b; b = b->hash_next)
            b->code = NULL;
    translator_reset(vm->translator);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i]) {
            vm->cpus[i]->exit_link = NULL;
            jump_cache_flush(vm->cpus[i]);
        }
    pthread_mutex_unlock(&smc->lock);
    jit_exclusive_end(cpu);
}

bool block_translate(struct jit_cpu *cpu, struct jit_block *b)
{
    bool shared, done;

    if (!translate_wanted(cpu, b) || b->executions++ < INTERPRETED_FIRST)
        return false;
    pthread_mutex_lock(&cpu->vm->smc->lock);
    shared = b->valid && find(cpu->vm->smc, b->gpa, b->mode) == b;
    done = shared && (b->code || translate_block(cpu->vm->translator, b, cpu));
    pthread_mutex_unlock(&cpu->vm->smc->lock);
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

struct jit_block *block_lookup(struct jit_cpu *cpu)
{
    const uint64_t linear = block_linear(cpu);
    struct jit_block *b = NULL;

    block_check_fetch(cpu);
    for (;;) { /* what stops the world looks everything up again */
        const struct mmu_code code = mmu_code(cpu, linear);
        enum making made;

        if (!code.host)
            return block_lone(cpu, linear);
        made = make(cpu, slot_find(cpu->vm, code.gpa), code, &b);
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
    smc->regions = QZ_MAX((unsigned)REGIONS_MIN, vm->config.vcpus + 2);
    smc->region_size = QZ_ALIGN_DOWN(CACHE_BYTES / smc->regions, 4096ull);
    smc->region = calloc(smc->regions, sizeof(smc->region[0]));
    smc->memory = mmap(NULL, smc->region_size * smc->regions, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!smc->region || smc->memory == MAP_FAILED) {
        smc->memory = smc->memory == MAP_FAILED ? NULL : smc->memory;
        blocks_free(vm);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < smc->regions; i++)
        smc->region[i].base = smc->memory + i * smc->region_size;
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
    if (smc->memory)
        munmap(smc->memory, smc->region_size * smc->regions);
    free(smc->region);
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

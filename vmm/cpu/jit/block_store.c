/*
 * block_store.c - the memory of blocks (block_store.h).
 */
#include "cpu/jit/block_store.h"

#include <sys/mman.h>

enum {
    HEADERS_MAX = 1 << 19, /* as many as the code cache can have code for, and the decoded ones */
    REGIONS_MIN = 32,
};

/* Before the instructions; the handlers follow them. */
struct block_body {
    struct jit_block *block; /* whose it was when it was made */
    size_t size;             /* bytes, this structure included */
    struct insn insn[];
};

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int block_store_new(struct block_store *s, size_t bytes, unsigned vcpus)
{
    s->regions = QZ_MAX((unsigned)REGIONS_MIN, vcpus + 2);
    s->region_size = QZ_ALIGN_DOWN(bytes / s->regions, (size_t)4096);
    s->used = calloc(s->regions, sizeof(s->used[0]));
    s->bodies = reserve(s->region_size * s->regions);
    s->headers = reserve(HEADERS_MAX * sizeof(s->headers[0]));
    return s->used && s->bodies && s->headers ? 0 : -ENOMEM;
}

void block_store_free(struct block_store *s)
{
    if (s->bodies)
        munmap(s->bodies, s->region_size * s->regions);
    if (s->headers)
        munmap(s->headers, HEADERS_MAX * sizeof(s->headers[0]));
    free(s->used);
    *s = (struct block_store){.regions = 0};
}

struct jit_block *block_store_header(struct block_store *s)
{
    struct jit_block *b = s->free;

    if (b)
        s->free = b->hash_next;
    else if (s->headers_used < HEADERS_MAX)
        b = &s->headers[s->headers_used++];
    if (b)
        memset(b, 0, sizeof(*b));
    return b;
}

bool block_store_body(struct block_store *s, struct jit_block *b, const struct insn *insn)
{
    const size_t each = sizeof(struct insn) + sizeof(jit_handler *);
    const size_t size = QZ_ALIGN_UP(sizeof(struct block_body) + b->count * each, (size_t)64);
    struct block_body *body =
        (void *)(s->bodies + s->filling * s->region_size + s->used[s->filling]);

    if (s->used[s->filling] + size > s->region_size)
        return false;
    s->used[s->filling] += size;
    body->block = b;
    body->size = size;
    memcpy(body->insn, insn, b->count * sizeof(insn[0]));
    b->handler = (jit_handler **)(body->insn + b->count);
    for (unsigned i = 0; i < b->count; i++)
        b->handler[i] = jit_handler_for(&insn[i]);
    __atomic_store_n(&b->insn, body->insn, __ATOMIC_RELEASE); /* block_to_interpret() */
    return true;
}

void block_store_bury(struct block_store *s, struct jit_block *b)
{
    b->hash_next = s->dead;
    s->dead = b;
}

void block_store_sweep(struct block_store *s, bool (*in_use)(void *, const struct jit_block *),
                       void *context)
{
    for (struct jit_block **at = &s->dead; *at;) {
        struct jit_block *b = *at;

        if (in_use(context, b)) {
            at = &b->hash_next;
            continue;
        }
        *at = b->hash_next;
        b->insn = NULL;
        b->hash_next = s->free;
        s->free = b;
    }
}

void block_store_empty_next(struct block_store *s,
                            bool (*in_use)(void *, const uint8_t *base, size_t size),
                            void (*gone)(void *, struct jit_block *), void *context)
{
    uint8_t *base;

    do {
        s->filling = (s->filling + 1) % s->regions;
        base = s->bodies + s->filling * s->region_size;
    } while (in_use(context, base, s->region_size));
    for (size_t at = 0; at < s->used[s->filling];) {
        struct block_body *body = (struct block_body *)(base + at);

        at += body->size;
        /* Else the block is gone, or its header is another one's by now. */
        if (body->block->insn == body->insn)
            gone(context, body->block);
    }
    s->used[s->filling] = 0;
}

/*
 * mmu_bytes.c - accesses larger than a register: operands of some instructions, atomic ones, and
 * the runs of string instructions.
 */
#include "cpu/jit/block.h"
#include "cpu/jit/mmu_internal.h"

enum { PIECES_MAX = 2 }; /* at most 4096 bytes touch two pages */

struct piece {
    struct mmu_page page;
    uint64_t linear;
    unsigned len;
};

/* Translates all of it, or raises. */
static unsigned pieces(struct jit_cpu *cpu, uint64_t linear, unsigned len, unsigned access,
                       struct piece piece[PIECES_MAX])
{
    unsigned n = 0;

    while (len > 0 && n < PIECES_MAX) {
        struct piece *p = &piece[n++];

        p->linear = mmu_wrap(cpu, linear);
        p->len = QZ_MIN(len, 4096 - (unsigned)(linear & 4095));
        p->page = mmu_page(cpu, p->linear, access);
        linear += p->len;
        len -= p->len;
    }
    return n;
}

void mmu_load_bytes(struct jit_cpu *cpu, uint64_t linear, void *buf, unsigned len)
{
    const unsigned set = cpu->tlb.data_set;
    const void *hit = mmu_hit(cpu, linear, len, set, TLB_READ);
    struct piece piece[PIECES_MAX];
    unsigned n;
    uint8_t *to = buf;

    if (hit) {
        memcpy(buf, hit, len);
        return;
    }
    n = pieces(cpu, linear, len, mmu_set_access(set), piece);
    for (unsigned i = 0; i < n; to += piece[i++].len) {
        tlb_fill(cpu, set, TLB_READ, piece[i].linear, &piece[i].page);
        mmu_read_page(cpu, &piece[i].page, piece[i].linear, to, piece[i].len);
    }
}

void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len)
{
    const unsigned set = cpu->tlb.data_set;
    void *hit = mmu_hit(cpu, linear, len, set, TLB_WRITE);
    struct piece piece[PIECES_MAX];
    unsigned n;
    const uint8_t *from = buf;

    if (hit) {
        memcpy(hit, buf, len);
        return;
    }
    n = pieces(cpu, linear, len, mmu_set_access(set) | PF_WRITE, piece);
    for (unsigned i = 0; i < n; from += piece[i++].len) {
        tlb_fill(cpu, set, TLB_WRITE, piece[i].linear, &piece[i].page);
        mmu_write_page(cpu, &piece[i].page, piece[i].linear, from, piece[i].len);
    }
}

void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    struct piece piece[PIECES_MAX];

    pieces(cpu, linear, len, mmu_set_access(cpu->tlb.data_set) | (write ? PF_WRITE : 0), piece);
}

void *mmu_atomic(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    const unsigned set = cpu->tlb.data_set;
    void *hit = mmu_hit(cpu, linear, size, set, TLB_WRITE);
    struct piece piece[PIECES_MAX];
    unsigned n;

    if (hit)
        return hit;
    if (set == TLB_USER_STRICT && (linear & (size - 1)))
        jit_raise_code(cpu, VECTOR_AC, 0);
    n = pieces(cpu, linear, size, mmu_set_access(set) | PF_WRITE, piece);
    if (n != 1 || !piece[0].page.host || piece[0].page.readonly || piece[0].page.writes_slow ||
        mmu_watched(cpu, linear, size))
        return NULL;
    tlb_fill(cpu, set, TLB_WRITE, piece[0].linear, &piece[0].page);
    return piece[0].page.host + (piece[0].linear & 4095);
}

const void *mmu_run_read(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got)
{
    const unsigned set = cpu->tlb.data_set;
    const void *hit = mmu_hit(cpu, linear, 1, set, TLB_READ);
    struct mmu_page page;

    *got = QZ_MIN(len, 4096 - (linear & 4095));
    if (hit)
        return hit;
    linear = mmu_wrap(cpu, linear);
    page = mmu_page(cpu, linear, mmu_set_access(set));
    if (!page.host || set == TLB_USER_STRICT || mmu_watched(cpu, linear, *got))
        return NULL;
    tlb_fill(cpu, set, TLB_READ, linear, &page);
    return page.host + (linear & 4095);
}

/* Long enough to be worth forgetting all code of the page: it is being reused. */
enum { RUN_RECYCLES_PAGE = 256 };

void *mmu_run_write(struct jit_cpu *cpu, uint64_t linear, uint64_t len, uint64_t *got)
{
    const unsigned set = cpu->tlb.data_set;
    void *hit = mmu_hit(cpu, linear, 1, set, TLB_WRITE);
    struct mmu_page page;

    *got = QZ_MIN(len, 4096 - (linear & 4095));
    if (hit)
        return hit;
    linear = mmu_wrap(cpu, linear);
    page = mmu_page(cpu, linear, mmu_set_access(set) | PF_WRITE);
    if (page.writes_slow && *got >= RUN_RECYCLES_PAGE) {
        blocks_written(cpu->vm, page.gpa, 4096);
        page = mmu_page(cpu, linear, mmu_set_access(set) | PF_WRITE);
    }
    if (!page.host || page.readonly || page.writes_slow || set == TLB_USER_STRICT ||
        mmu_watched(cpu, linear, *got))
        return NULL;
    tlb_fill(cpu, set, TLB_WRITE, linear, &page);
    return page.host + (linear & 4095);
}

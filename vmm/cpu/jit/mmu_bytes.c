/*
 * mmu_bytes.c - accesses larger than a register: operands of some instructions, atomic ones, and
 * the runs of string instructions.
 */
#include "cpu/jit/block.h"
#include "cpu/jit/mmu_internal.h"

void mmu_load_bytes(struct jit_cpu *cpu, uint64_t linear, void *buf, unsigned len)
{
    const unsigned set = cpu->tlb.data_set;
    const void *hit = mmu_hit(cpu, linear, len, set, TLB_READ);
    struct mmu_piece piece[MMU_PIECES];
    unsigned n;

    if (hit) {
        memcpy(buf, hit, len);
        return;
    }
    n = mmu_pieces(cpu, linear, len, mmu_set_access(set), piece);
    for (unsigned i = 0; i < n; i++)
        tlb_fill(cpu, set, TLB_READ, piece[i].linear, &piece[i].page);
    mmu_read_pieces(cpu, piece, n, buf);
}

void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len)
{
    const unsigned set = cpu->tlb.data_set;
    void *hit = mmu_hit(cpu, linear, len, set, TLB_WRITE);
    struct mmu_piece piece[MMU_PIECES];
    unsigned n;

    if (hit) {
        memcpy(hit, buf, len);
        return;
    }
    n = mmu_pieces(cpu, linear, len, mmu_set_access(set) | PF_WRITE, piece);
    for (unsigned i = 0; i < n; i++)
        tlb_fill(cpu, set, TLB_WRITE, piece[i].linear, &piece[i].page);
    mmu_write_pieces(cpu, piece, n, buf);
}

void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    struct mmu_piece piece[MMU_PIECES];

    mmu_pieces(cpu, linear, len, mmu_set_access(cpu->tlb.data_set) | (write ? PF_WRITE : 0), piece);
}

void *mmu_atomic(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    const unsigned set = cpu->tlb.data_set;
    void *hit = mmu_hit(cpu, linear, size, set, TLB_WRITE);
    struct mmu_piece piece[MMU_PIECES];
    unsigned n;

    if (hit)
        return hit;
    if (set == TLB_USER_STRICT && (linear & (size - 1)))
        jit_raise_code(cpu, VECTOR_AC, 0);
    n = mmu_pieces(cpu, linear, size, mmu_set_access(set) | PF_WRITE, piece);
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
    if (set == TLB_USER_STRICT) /* #AC comes before #PF */
        return NULL;
    linear = mmu_wrap(cpu, linear);
    page = mmu_page(cpu, linear, mmu_set_access(set));
    if (!page.host || mmu_watched(cpu, linear, *got))
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
    if (set == TLB_USER_STRICT)
        return NULL;
    linear = mmu_wrap(cpu, linear);
    page = mmu_page(cpu, linear, mmu_set_access(set) | PF_WRITE);
    if (page.writes_slow && *got >= RUN_RECYCLES_PAGE) {
        blocks_written(cpu->vm, page.gpa, 4096);
        page = mmu_page(cpu, linear, mmu_set_access(set) | PF_WRITE);
    }
    if (!page.host || page.readonly || page.writes_slow || mmu_watched(cpu, linear, *got))
        return NULL;
    tlb_fill(cpu, set, TLB_WRITE, linear, &page);
    return page.host + (linear & 4095);
}

/*
 * paging.c - the walk over the guest's page tables (paging.h).
 *
 * Theory of operation. One loop serves the three formats: 32-bit with PSE (§4.3), PAE (§4.4) and
 * 4-level (§4.5). It gathers rights on the way down and remembers where each entry lies. Only when
 * the access is allowed are accessed and dirty flags set, from the top, each by a locked
 * compare-and-exchange against the entry as it was read; when one changed meanwhile, the walk
 * starts again, as a processor's would see the new tables. The tables are guest memory like any
 * other and may lie in a page that holds code.
 */
#include "cpu/jit/paging.h"

#include "cpu/jit/block.h"
#include "cpu/jit/memory_hash.h"
#include "cpu/jit/slots.h"

enum { LEVELS_MAX = 4, RESTARTS_MAX = 64 };

struct entry {
    uint64_t gpa;
    uint64_t value;
};

struct walk {
    unsigned levels;   /* read so far */
    unsigned size;     /* bytes of an entry: 4 or 8 */
    uint64_t reserved; /* bits that must be 0 in every entry */
    unsigned bits;     /* of the page's offset */
    struct entry entry[LEVELS_MAX];
};

/* ---- entries in guest memory
 * ------------------------------------------------------------------------------- */

/* The bus answers all ones where no memory is. */
static uint64_t read_entry(struct jit_cpu *cpu, uint64_t gpa, unsigned size)
{
    const struct jit_slot *s = slot_find(cpu->vm, gpa);

    if (!s)
        return size == 4 ? UINT32_MAX : UINT64_MAX;
    if (size == 4)
        return *(const volatile uint32_t *)slot_host(s, gpa);
    return *(const volatile uint64_t *)slot_host(s, gpa);
}

/* False: the entry is no longer what it was. Flags in a ROM stay as they are. */
static bool mark_entry(struct jit_cpu *cpu, const struct entry *e, unsigned size, uint64_t bits)
{
    struct jit_slot *s = slot_find(cpu->vm, e->gpa);
    uint8_t *host;
    bool same;

    if (!s || s->readonly)
        return true;
    host = slot_host(s, e->gpa);
    if (size == 4) {
        uint32_t was = e->value;

        same = __atomic_compare_exchange_n((uint32_t *)host, &was, was | (uint32_t)bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        uint64_t was = e->value;

        same = __atomic_compare_exchange_n((uint64_t *)host, &was, was | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    memory_hash_note(s, e->gpa, size);
    if (same && slot_has_code(s, e->gpa))
        blocks_written(cpu->vm, e->gpa, size);
    return same;
}

/* ---- rights
 * ------------------------------------------------------------------------------------------------
 */

bool paging_allows(const struct jit_cpu *cpu, unsigned flags, unsigned access)
{
    if (access & PF_USER) { /* §4.6.1, user-mode accesses */
        if (!(flags & PAGE_USER))
            return false;
        if ((access & PF_WRITE) && !(flags & PAGE_WRITABLE))
            return false;
    } else {
        if ((access & PF_WRITE) && !(flags & PAGE_WRITABLE) && (cpu->cr0 & CR0_WP))
            return false;
        if (flags & PAGE_USER) {
            if (access & PF_FETCH) {
                if (cpu->cr4 & CR4_SMEP)
                    return false;
            } else if ((cpu->cr4 & CR4_SMAP) && !(access & PAGING_SMAP_OFF)) {
                return false;
            }
        }
    }
    return !((access & PF_FETCH) && (flags & PAGE_NX));
}

uint32_t paging_error(const struct jit_cpu *cpu, unsigned access, uint32_t bits)
{
    bits |= access & (PF_WRITE | PF_USER);
    /* §4.7: the fetch bit is told only where fetches can be forbidden. */
    if ((access & PF_FETCH) &&
        ((cpu->cr4 & CR4_SMEP) || ((cpu->cr4 & CR4_PAE) && (cpu->efer & EFER_NXE))))
        bits |= PF_FETCH;
    return bits;
}

/* ---- the three formats
 * ----------------------------------------------------------------------------------- */

static uint64_t physical_mask(const struct jit_cpu *cpu)
{
    return (1ull << cpu->physical_bits) - 1;
}

static uint64_t reserved_in_64bit_entries(const struct jit_cpu *cpu)
{
    uint64_t reserved = PTE_ADDRESS & ~physical_mask(cpu);

    if (!(cpu->efer & EFER_NXE))
        reserved |= PTE_NX;
    if (!(cpu->efer & EFER_LMA)) /* PAE: up to bit 62 (table 4-9 and the following) */
        reserved |= 0x7ff0000000000000ull;
    return reserved;
}

/* A page of 2^bits bytes: what must be 0 below its address. */
static uint64_t reserved_in_large(unsigned bits)
{
    return ((1ull << bits) - 1) & ~0x1fffull; /* bit 12 is PAT */
}

/*
 * Reads entries from `table` down, the first indexed from `shift`. 0, or the bits of the fault.
 * Large pages are at most as large as `large` bits.
 */
static uint32_t descend(struct jit_cpu *cpu, struct walk *w, uint64_t table, uint64_t linear,
                        unsigned shift, unsigned index_bits, unsigned large)
{
    for (;; shift -= index_bits) {
        const uint64_t index = linear >> shift & ((1u << index_bits) - 1);
        struct entry *e = &w->entry[w->levels++];

        e->gpa = table + index * w->size;
        e->value = read_entry(cpu, e->gpa, w->size);
        if (!(e->value & PTE_P))
            return UINT32_MAX; /* not present: no bit is set */
        if (e->value & w->reserved)
            return PF_PRESENT | PF_RESERVED;
        if (shift == 12) {
            w->bits = 12;
            return 0;
        }
        if (e->value & PTE_PS) {
            if (shift <= large) {
                w->bits = shift;
                if (w->size == 8 && (e->value & reserved_in_large(shift)))
                    return PF_PRESENT | PF_RESERVED;
                return 0;
            }
            if (w->size == 8)
                return PF_PRESENT | PF_RESERVED; /* a size that this processor does not have */
        }
        table = e->value & PTE_ADDRESS;
    }
}

static uint32_t walk_4level(struct jit_cpu *cpu, struct walk *w, uint64_t linear)
{
    w->size = 8;
    w->reserved = reserved_in_64bit_entries(cpu);
    return descend(cpu, w, cpu->cr3 & PTE_ADDRESS & physical_mask(cpu), linear, 39, 9,
                   cpu->huge_pages ? 30 : 21);
}

static uint32_t walk_pae(struct jit_cpu *cpu, struct walk *w, uint64_t linear)
{
    const uint64_t pdpte = cpu->pdpte[linear >> 30 & 3];

    if (!(pdpte & PTE_P))
        return UINT32_MAX;
    w->size = 8;
    w->reserved = reserved_in_64bit_entries(cpu);
    return descend(cpu, w, pdpte & PTE_ADDRESS, linear, 21, 9, 21);
}

static uint32_t walk_32(struct jit_cpu *cpu, struct walk *w, uint64_t linear)
{
    uint32_t r;

    w->size = 4;
    r = descend(cpu, w, cpu->cr3 & 0xfffff000, linear, 22, 10, cpu->cr4 & CR4_PSE ? 22 : 0);
    /* 4 MiB pages: bits 20:13 are address bits 39:32, bit 21 is reserved (table 4-4). */
    if (r == 0 && w->bits == 22) {
        const uint64_t high = w->entry[w->levels - 1].value >> 13 & 0xff;

        if ((w->entry[w->levels - 1].value & 1 << 21) || (high << 32 & ~physical_mask(cpu)))
            return PF_PRESENT | PF_RESERVED;
    }
    return r;
}

static uint64_t page_address(const struct walk *w, uint64_t linear)
{
    const uint64_t value = w->entry[w->levels - 1].value;
    const uint64_t inside = ((1ull << w->bits) - 1) & ~0xfffull;

    if (w->size == 4 && w->bits == 22)
        return (value & 0xffc00000) | (value >> 13 & 0xff) << 32 | (linear & inside);
    return (value & PTE_ADDRESS & ~inside) | (linear & inside);
}

static unsigned gather_flags(const struct jit_cpu *cpu, const struct walk *w)
{
    const uint64_t last = w->entry[w->levels - 1].value;
    unsigned flags = PAGE_USER | PAGE_WRITABLE;

    for (unsigned i = 0; i < w->levels; i++) {
        if (!(w->entry[i].value & PTE_U))
            flags &= ~PAGE_USER;
        if (!(w->entry[i].value & PTE_W))
            flags &= ~PAGE_WRITABLE;
        if (w->entry[i].value & PTE_NX)
            flags |= PAGE_NX;
    }
    if (last & PTE_D)
        flags |= PAGE_DIRTY;
    if ((last & PTE_G) && (cpu->cr4 & CR4_PGE))
        flags |= PAGE_GLOBAL;
    if (w->bits > 12)
        flags |= PAGE_LARGE;
    if (w->bits == 30)
        flags |= PAGE_HUGE;
    return flags;
}

static bool mark_used(struct jit_cpu *cpu, const struct walk *w, bool write)
{
    for (unsigned i = 0; i < w->levels; i++) {
        const bool leaf = i + 1 == w->levels;
        const uint64_t bits = PTE_A | (leaf && write ? PTE_D : 0);

        if ((w->entry[i].value & bits) != bits && !mark_entry(cpu, &w->entry[i], w->size, bits))
            return false;
    }
    return true;
}

bool paging_walk(struct jit_cpu *cpu, uint64_t linear, unsigned access, struct paging_page *page,
                 uint32_t *error)
{
    const bool write = access & PF_WRITE;

    if (!(cpu->cr0 & CR0_PG)) {
        *page = (struct paging_page){linear & ~0xfffull & physical_mask(cpu),
                                     PAGE_USER | PAGE_WRITABLE | PAGE_DIRTY};
        return true;
    }
    /* A guest that changes its entries in a tight loop on another vCPU cannot hold this one here:
     * after so many rounds the fault it may have deserved once is what it gets. */
    for (unsigned round = 0; round < RESTARTS_MAX; round++) {
        struct walk w = {0};
        uint32_t r;

        if (cpu->efer & EFER_LMA)
            r = walk_4level(cpu, &w, linear);
        else if (cpu->cr4 & CR4_PAE)
            r = walk_pae(cpu, &w, linear);
        else
            r = walk_32(cpu, &w, linear);
        if (r != 0) {
            *error = paging_error(cpu, access, r == UINT32_MAX ? 0 : r);
            return false;
        }
        page->gpa = page_address(&w, linear);
        page->flags = gather_flags(cpu, &w);
        if (!paging_allows(cpu, page->flags, access)) {
            *error = paging_error(cpu, access, PF_PRESENT);
            return false;
        }
        if (mark_used(cpu, &w, write)) {
            page->flags |= write ? PAGE_DIRTY : 0;
            return true;
        }
    }
    *error = paging_error(cpu, access, 0);
    return false;
}

bool paging_load_pdptes(struct jit_cpu *cpu, uint64_t cr3)
{
    /* Table 4-8: bits 2:1, 8:5 and those above the physical address. */
    const uint64_t reserved = 0x1e6 | (PTE_ADDRESS & ~physical_mask(cpu)) | 0xfff0000000000000ull;
    uint64_t pdpte[4];

    for (unsigned i = 0; i < 4; i++) {
        pdpte[i] = read_entry(cpu, (cr3 & 0xffffffe0) + i * 8, 8);
        if ((pdpte[i] & PTE_P) && (pdpte[i] & reserved))
            return false;
    }
    memcpy(cpu->pdpte, pdpte, sizeof(pdpte));
    return true;
}

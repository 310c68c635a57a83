/* memory.c - the page-table walk and accesses by it (memory.h; SDM vol 3 §4). */
#include "gdb/memory.h"

#include "cpu/x86.h"

enum { PAGE = 4096 };
#define CR3_PAE_BASE 0xffffffe0ull

static int read_entry(const struct gdb_target *t, uint64_t gpa, unsigned size, uint64_t *entry)
{
    uint8_t bytes[8] = {0};
    const int r = t->ops->physical(t->context, gpa, bytes, size, false);

    *entry = qz_load_le64(bytes);
    if (r < 0)
        return r;
    return *entry & PTE_P ? 0 : -EFAULT;
}

/* 32-bit paging (§4.3). */
static int walk_32(const struct gdb_target *t, const struct vcpu_state *s, uint64_t linear,
                   uint64_t *gpa)
{
    uint64_t e;
    int r = read_entry(t, (s->cr3 & 0xfffff000) + (linear >> 22 & 1023) * 4, 4, &e);

    if (r < 0)
        return r;
    if ((e & PTE_PS) && (s->cr4 & CR4_PSE)) { /* PSE-36: bits 39:32 lie in 20:13 */
        *gpa = (e & 0xffc00000) | (e >> 13 & 0xff) << 32 | (linear & 0x3fffff);
        return 0;
    }
    r = read_entry(t, (e & 0xfffff000) + (linear >> 12 & 1023) * 4, 4, &e);
    *gpa = (e & 0xfffff000) | (linear & (PAGE - 1));
    return r;
}

/* The three kinds of paging with 8-byte entries (§4.4, §4.5). */
static int walk_64(const struct gdb_target *t, const struct vcpu_state *s, uint64_t linear,
                   uint64_t *gpa)
{
    const bool pae = !(s->efer & EFER_LMA);
    const int levels = pae ? 3 : s->cr4 & CR4_LA57 ? 5 : 4;
    uint64_t table = s->cr3 & (pae ? CR3_PAE_BASE : PTE_ADDRESS);

    for (int level = levels; level > 0; level--) {
        const unsigned shift = 12 + 9 * (unsigned)(level - 1);
        const uint64_t index = linear >> shift & (pae && level == 3 ? 3 : 511);
        const uint64_t within = (1ull << shift) - 1;
        uint64_t e;
        const int r = read_entry(t, table + index * 8, 8, &e);

        if (r < 0)
            return r;
        if (level == 1 || ((e & PTE_PS) && (level == 2 || (level == 3 && !pae)))) {
            *gpa = (e & PTE_ADDRESS & ~within) | (linear & within);
            return 0;
        }
        table = e & PTE_ADDRESS;
    }
    return -EFAULT;
}

static bool is_canonical(const struct vcpu_state *s, uint64_t linear)
{
    const unsigned unused = s->cr4 & CR4_LA57 ? 7 : 16;

    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

int gdb_translate(const struct gdb_target *t, const struct vcpu_state *s, uint64_t linear,
                  uint64_t *gpa)
{
    if (s->efer & EFER_LMA) {
        if (!is_canonical(s, linear))
            return -EFAULT;
    } else {
        linear = (uint32_t)linear;
    }
    *gpa = linear;
    if (!(s->cr0 & CR0_PG))
        return 0;
    return s->cr4 & CR4_PAE ? walk_64(t, s, linear, gpa) : walk_32(t, s, linear, gpa);
}

int64_t gdb_memory(const struct gdb_target *t, const struct vcpu_state *s, uint64_t address,
                   void *data, size_t len, bool write)
{
    size_t done = 0;

    while (done < len) {
        const size_t piece = QZ_MIN(len - done, (size_t)(PAGE - (address & (PAGE - 1))));
        uint64_t gpa = address;

        if ((s && gdb_translate(t, s, address, &gpa) < 0) ||
            t->ops->physical(t->context, gpa, (uint8_t *)data + done, piece, write) < 0)
            return done ? (int64_t)done : -EFAULT;
        done += piece;
        address += piece;
    }
    return (int64_t)done;
}

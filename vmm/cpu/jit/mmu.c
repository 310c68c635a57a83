/*
 * mmu.c - the slow ends of memory accesses: misses of the first-level cache, page crossings, ports
 * to devices, pages with code, watched addresses, alignment checks.
 */
#include "cpu/jit/block.h"
#include "cpu/jit/guest_debug.h"
#include "cpu/jit/mmu_internal.h"

enum { DR7_ENABLED = 0xff, DR_TYPE_WRITE = 1, DR_TYPE_READ_WRITE = 3 };

unsigned mmu_set_access(unsigned set)
{
    static const unsigned access[TLB_SETS] = {
        [TLB_USER] = PF_USER, [TLB_USER_STRICT] = PF_USER, [TLB_KERNEL_AC] = PAGING_SMAP_OFF};

    return access[set];
}

void mmu_set_changed(struct jit_cpu *cpu)
{
    const bool ac = cpu->rflags & RFLAGS_AC;

    if (cpu->cpl == 3)
        cpu->tlb.data_set = ac && (cpu->cr0 & CR0_AM) ? TLB_USER_STRICT : TLB_USER;
    else
        cpu->tlb.data_set = ac && (cpu->cr4 & CR4_SMAP) ? TLB_KERNEL_AC : TLB_KERNEL;
}

/* ---- watched addresses
 * ------------------------------------------------------------------------------------- */

/* Bits of DR6 for the data breakpoints that the range meets (SDM vol 3 §17.2.5). */
static uint8_t breakpoints_met(const struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    static const uint8_t lengths[] = {1, 2, 8, 4};
    uint8_t met = 0;

    for (unsigned i = 0; i < 4; i++) {
        const unsigned type = cpu->dr7 >> (16 + 4 * i) & 3;
        const unsigned size = lengths[cpu->dr7 >> (18 + 4 * i) & 3];
        const uint64_t at = cpu->dr[i] & ~(uint64_t)(size - 1);

        if (!(cpu->dr7 >> (2 * i) & 3) ||
            !(type == DR_TYPE_READ_WRITE || (type == DR_TYPE_WRITE && write)))
            continue;
        if (linear < at + size && at < linear + len)
            met |= 1 << i;
    }
    return met;
}

bool mmu_watched(const struct jit_cpu *cpu, uint64_t linear, unsigned len)
{
    return ((cpu->dr7 & DR7_ENABLED) && breakpoints_met(cpu, linear, len, true)) ||
           guest_debug_watches(cpu, linear, len);
}

static void note_watch(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    if (cpu->dr7 & DR7_ENABLED)
        cpu->watch_hits |= breakpoints_met(cpu, linear, len, write);
    guest_debug_access(cpu, linear, len, write);
}

/* ---- one page
 * ---------------------------------------------------------------------------------------------- */

struct mmu_page mmu_page(struct jit_cpu *cpu, uint64_t linear, unsigned access)
{
    struct mmu_page page;
    uint32_t error;

    if (!mmu_is_canonical(cpu, linear)) /* the rest of something that began below */
        jit_raise_code(cpu, VECTOR_GP, 0);
    if (!tlb_translate(cpu, linear, access, &page, &error))
        jit_raise_page_fault(cpu, linear, error);
    return page;
}

/* The machine's answer, in pieces that a bus knows: 1, 2, 4 or 8 bytes. */
static void ask_machine(struct jit_cpu *cpu, uint64_t gpa, uint8_t *data, unsigned len, bool write)
{
    while (len > 0) {
        const unsigned piece = len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
        struct vcpu_exit exit = {.kind = EXIT_MMIO, .mmio = {gpa, piece, write, data}};

        jit_serve(cpu, &exit);
        gpa += piece;
        data += piece;
        len -= piece;
    }
}

/* Sizes that one access covers are one access: others may look at the same time. */
static bool is_one_access(unsigned len)
{
    return len <= 8 && (len & (len - 1)) == 0 && len != 0;
}

static void copy_in(void *to, const uint8_t *from, unsigned len)
{
    uint64_t value;

    if (!is_one_access(len)) {
        memcpy(to, from, len);
        return;
    }
    value = host_load(from, len);
    memcpy(to, &value, len);
}

static void copy_out(uint8_t *to, const void *from, unsigned len)
{
    uint64_t value = 0;

    if (!is_one_access(len)) {
        memcpy(to, from, len);
        return;
    }
    memcpy(&value, from, len);
    host_store(to, len, value);
}

unsigned mmu_pieces(struct jit_cpu *cpu, uint64_t linear, unsigned len, unsigned access,
                    struct mmu_piece piece[MMU_PIECES])
{
    unsigned n = 0, done = 0;

    while (done < len && n < MMU_PIECES) {
        struct mmu_piece *p = &piece[n++];

        p->linear = mmu_wrap(cpu, linear + done);
        p->at = done;
        p->len = QZ_MIN(len - done, 4096 - (unsigned)(p->linear & 4095));
        p->page = mmu_page(cpu, p->linear, access);
        done += p->len;
    }
    return n;
}

/* Memory first: while the machine answers for a device, a piece's host memory may go away. */
void mmu_read_pieces(struct jit_cpu *cpu, const struct mmu_piece piece[], unsigned n, void *buf)
{
    uint8_t *to = buf;

    for (unsigned i = 0; i < n; i++) {
        note_watch(cpu, piece[i].linear, piece[i].len, false);
        if (piece[i].page.host)
            copy_in(to + piece[i].at, piece[i].page.host + (piece[i].linear & 4095), piece[i].len);
    }
    for (unsigned i = 0; i < n; i++)
        if (!piece[i].page.host)
            ask_machine(cpu, piece[i].page.gpa + (piece[i].linear & 4095), to + piece[i].at,
                        piece[i].len, false);
}

static void write_device(struct jit_cpu *cpu, const struct mmu_piece *p, const uint8_t *from)
{
    const uint64_t gpa = p->page.gpa + (p->linear & 4095);
    uint8_t data[8]; /* the machine takes what it could also write to */

    for (unsigned done = 0; done < p->len; done += sizeof(data)) {
        const unsigned len = QZ_MIN(p->len - done, (unsigned)sizeof(data));

        memcpy(data, from + done, len);
        ask_machine(cpu, gpa + done, data, len, true);
    }
}

static bool is_memory(const struct mmu_page *page)
{
    return page->host && !page->readonly;
}

void mmu_write_pieces(struct jit_cpu *cpu, const struct mmu_piece piece[], unsigned n,
                      const void *buf)
{
    const uint8_t *from = buf;

    for (unsigned i = 0; i < n; i++) {
        const struct mmu_piece *p = &piece[i];

        note_watch(cpu, p->linear, p->len, true);
        if (!is_memory(&p->page))
            continue;
        copy_out(p->page.host + (p->linear & 4095), from + p->at, p->len);
        if (p->page.writes_slow) /* after the store: see block_cache.c */
            blocks_written(cpu->vm, p->page.gpa + (p->linear & 4095), p->len);
    }
    for (unsigned i = 0; i < n; i++)
        if (!is_memory(&piece[i].page))
            write_device(cpu, &piece[i], from + piece[i].at);
}

/* ---- single values
 * ------------------------------------------------------------------------------------------ */

static void check_alignment(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    if (set == TLB_USER_STRICT && (linear & (size - 1)))
        jit_raise_code(cpu, VECTOR_AC, 0);
}

uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    struct mmu_piece piece[MMU_PIECES];
    uint64_t value = 0;
    unsigned n;

    check_alignment(cpu, linear, size, set);
    n = mmu_pieces(cpu, linear, size, mmu_set_access(set), piece);
    if (n == 1)
        tlb_fill(cpu, set, TLB_READ, piece[0].linear, &piece[0].page);
    mmu_read_pieces(cpu, piece, n, &value);
    return value;
}

void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set)
{
    struct mmu_piece piece[MMU_PIECES];
    unsigned n;

    check_alignment(cpu, linear, size, set);
    n = mmu_pieces(cpu, linear, size, mmu_set_access(set) | PF_WRITE, piece);
    if (n == 1)
        tlb_fill(cpu, set, TLB_WRITE, piece[0].linear, &piece[0].page);
    mmu_write_pieces(cpu, piece, n, &value);
}

uint64_t mmu_load_system(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    return mmu_load_in(cpu, linear, size, TLB_KERNEL);
}

void mmu_store_system(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    mmu_store_in(cpu, linear, size, value, TLB_KERNEL);
}

uint64_t mmu_load_as(struct jit_cpu *cpu, uint64_t linear, unsigned size, bool user)
{
    return mmu_load_in(cpu, linear, size, user ? TLB_USER : TLB_KERNEL);
}

void mmu_store_as(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value, bool user)
{
    mmu_store_in(cpu, linear, size, value, user ? TLB_USER : TLB_KERNEL);
}

/* ---- instruction fetch
 * -------------------------------------------------------------------------------------- */

struct mmu_code mmu_code(struct jit_cpu *cpu, uint64_t linear)
{
    const struct tlb_code *c;
    unsigned offset;

    linear = mmu_wrap(cpu, linear);
    offset = linear & 4095;
    c = tlb_code_find(cpu, linear);
    if (!c) {
        const struct mmu_page page =
            mmu_page(cpu, linear, PF_FETCH | (cpu->cpl == 3 ? PF_USER : 0));

        tlb_code_fill(cpu, linear, &page);
        return (struct mmu_code){page.gpa + offset, page.host ? page.host + offset : NULL};
    }
    return (struct mmu_code){c->gpa + offset, c->host ? c->host + offset : NULL};
}

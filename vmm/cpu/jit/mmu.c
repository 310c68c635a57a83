/*
 * mmu.c - the slow ends of memory accesses: misses of the first-level cache, page crossings, ports
 * to devices, pages with code, watched addresses, alignment checks.
 */
#include "cpu/jit/block.h"
#include "cpu/jit/mmu_internal.h"

enum { DR7_ENABLED = 0xff, DR_TYPE_WRITE = 1, DR_TYPE_READ_WRITE = 3 };

unsigned mmu_set_access(unsigned set)
{
    static const unsigned access[TLB_SETS] = {[TLB_USER] = PF_USER,
                                              [TLB_USER_STRICT] = PF_USER,
                                              [TLB_KERNEL_AC] = PAGING_SMAP_OFF};

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
    return (cpu->dr7 & DR7_ENABLED) && breakpoints_met(cpu, linear, len, true);
}

static void note_watch(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    if (cpu->dr7 & DR7_ENABLED)
        cpu->watch_hits |= breakpoints_met(cpu, linear, len, write);
}

/* ---- one page
 * ---------------------------------------------------------------------------------------------- */

struct mmu_page mmu_page(struct jit_cpu *cpu, uint64_t linear, unsigned access)
{
    struct mmu_page page;
    uint32_t error;

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
static void copy_in(void *to, const uint8_t *from, unsigned len)
{
    switch (len) {
    case 1:
        *(uint8_t *)to = *(const volatile uint8_t *)from;
        break;
    case 2:
        *(uint16_t *)to = *(const volatile uint16_t *)from;
        break;
    case 4:
        *(uint32_t *)to = *(const volatile uint32_t *)from;
        break;
    case 8:
        *(uint64_t *)to = *(const volatile uint64_t *)from;
        break;
    default:
        memcpy(to, from, len);
    }
}

static void copy_out(uint8_t *to, const void *from, unsigned len)
{
    switch (len) {
    case 1:
        *(volatile uint8_t *)to = *(const uint8_t *)from;
        break;
    case 2:
        *(volatile uint16_t *)to = *(const uint16_t *)from;
        break;
    case 4:
        *(volatile uint32_t *)to = *(const uint32_t *)from;
        break;
    case 8:
        *(volatile uint64_t *)to = *(const uint64_t *)from;
        break;
    default:
        memcpy(to, from, len);
    }
}

void mmu_read_page(struct jit_cpu *cpu, const struct mmu_page *page, uint64_t linear, void *buf,
                   unsigned len)
{
    note_watch(cpu, linear, len, false);
    if (page->host)
        copy_in(buf, page->host + (linear & 4095), len);
    else
        ask_machine(cpu, page->gpa + (linear & 4095), buf, len, false);
}

void mmu_write_page(struct jit_cpu *cpu, const struct mmu_page *page, uint64_t linear,
                    const void *buf, unsigned len)
{
    const uint64_t gpa = page->gpa + (linear & 4095);

    note_watch(cpu, linear, len, true);
    if (!page->host || page->readonly) {
        uint8_t data[8];

        for (unsigned done = 0; done < len; done += sizeof(data)) {
            const unsigned piece = QZ_MIN(len - done, (unsigned)sizeof(data));

            memcpy(data, (const uint8_t *)buf + done, piece);
            ask_machine(cpu, gpa + done, data, piece, true);
        }
        return;
    }
    copy_out(page->host + (linear & 4095), buf, len);
    if (page->writes_slow)
        blocks_written(cpu->vm, gpa, len); /* after the store: see block_cache.c */
}

/* ---- single values
 * ------------------------------------------------------------------------------------------ */

static void check_alignment(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    if (set == TLB_USER_STRICT && (linear & (size - 1)))
        jit_raise_code(cpu, VECTOR_AC, 0);
}

static unsigned bytes_in_page(uint64_t linear, unsigned len)
{
    return QZ_MIN(len, 4096 - (unsigned)(linear & 4095));
}

uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    const unsigned access = mmu_set_access(set);
    struct mmu_page page, second;
    uint64_t value = 0;
    unsigned first;

    linear = mmu_wrap(cpu, linear);
    check_alignment(cpu, linear, size, set);
    first = bytes_in_page(linear, size);
    page = mmu_page(cpu, linear, access);
    if (first == size) {
        tlb_fill(cpu, set, TLB_READ, linear, &page);
        mmu_read_page(cpu, &page, linear, &value, size);
        return value;
    }
    second = mmu_page(cpu, mmu_wrap(cpu, linear + first), access);
    mmu_read_page(cpu, &page, linear, &value, first);
    mmu_read_page(cpu, &second, mmu_wrap(cpu, linear + first), (uint8_t *)&value + first,
                  size - first);
    return value;
}

void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set)
{
    const unsigned access = mmu_set_access(set) | PF_WRITE;
    struct mmu_page page, second;
    unsigned first;

    linear = mmu_wrap(cpu, linear);
    check_alignment(cpu, linear, size, set);
    first = bytes_in_page(linear, size);
    page = mmu_page(cpu, linear, access);
    if (first == size) {
        tlb_fill(cpu, set, TLB_WRITE, linear, &page);
        mmu_write_page(cpu, &page, linear, &value, size);
        return;
    }
    second = mmu_page(cpu, mmu_wrap(cpu, linear + first), access);
    mmu_write_page(cpu, &page, linear, &value, first);
    mmu_write_page(cpu, &second, mmu_wrap(cpu, linear + first), (uint8_t *)&value + first,
                   size - first);
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

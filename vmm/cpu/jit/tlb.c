/*
 * tlb.c - caches of translations.
 *
 * Theory of operation. The first level (tlb.h) is what every access looks into; it knows neither
 * address spaces nor rights, so it is emptied of what is not global at each change of address
 * space: only entries that were filled since are touched, by a bitmap of them. The second level
 * holds translations with their rights, keyed by page and PCID, or as global. A PCID is emptied by
 * giving it a new generation. Pages larger than 4 KiB enter in pieces; INVLPG then has to remove
 * all pieces, so a set of regions that were seen large makes it empty the whole address space
 * (SDM vol 3 §4.10.4.1 allows that).
 */
#include "cpu/jit/block.h"
#include "cpu/jit/memory_hash.h"
#include "cpu/jit/mmu_internal.h"
#include "cpu/jit/slots.h"
#include "cpu/jit/translate.h"

/* ---- first level
 * ------------------------------------------------------------------------------------------- */

void tlb_fill(struct jit_cpu *cpu, unsigned set, unsigned kind, uint64_t linear,
              const struct mmu_page *page)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const unsigned i = tlb_index(linear);

    if (set == TLB_USER_STRICT || !page->host ||
        (kind == TLB_WRITE && (page->readonly || page->writes_slow)) ||
        mmu_watched(cpu, linear & ~0xfffull, 4096))
        return;
    cpu->tlb.entry[set][kind][i] = (struct tlb_entry){linear & ~0xfffull, page->host};
    if (page->flags & PAGE_GLOBAL)
        l->filled[set][kind][i / 64] &= ~(1ull << (i & 63));
    else
        l->filled[set][kind][i / 64] |= 1ull << (i & 63);
}

#define CODE_EMPTY 1 /* no page address */

static void empty_code(struct jit_cpu *cpu)
{
    for (unsigned u = 0; u < 2; u++)
        for (unsigned i = 0; i < TLB_CODE_ENTRIES; i++)
            cpu->tlb.level2->code[u][i].tag = CODE_EMPTY;
    memset(cpu->tlb.level2->code_filled, 0, sizeof(cpu->tlb.level2->code_filled));
}

static void empty_code_local(struct jit_tlb_level2 *l)
{
    for (unsigned u = 0; u < 2; u++)
        for (unsigned word = 0; word < TLB_CODE_ENTRIES / 64; word++) {
            for (uint64_t bits = l->code_filled[u][word]; bits; bits &= bits - 1)
                l->code[u][word * 64 + (unsigned)__builtin_ctzll(bits)].tag = CODE_EMPTY;
            l->code_filled[u][word] = 0;
        }
}

void tlb_flush_level1(struct jit_cpu *cpu)
{
    jump_cache_flush(cpu);
    for (unsigned set = 0; set < TLB_SETS; set++)
        for (unsigned kind = 0; kind < TLB_KINDS; kind++)
            for (unsigned i = 0; i < TLB_ENTRIES; i++)
                cpu->tlb.entry[set][kind][i].tag = tlb_empty_tag(i);
    memset(cpu->tlb.level2->filled, 0, sizeof(cpu->tlb.level2->filled));
    empty_code(cpu);
}

static void flush_level1_local(struct jit_cpu *cpu)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;

    jump_cache_flush_local(cpu);
    for (unsigned set = 0; set < TLB_SETS; set++)
        for (unsigned kind = 0; kind < TLB_KINDS; kind++)
            for (unsigned word = 0; word < TLB_ENTRIES / 64; word++) {
                uint64_t bits = l->filled[set][kind][word];

                for (; bits; bits &= bits - 1) {
                    const unsigned i = word * 64 + (unsigned)__builtin_ctzll(bits);

                    cpu->tlb.entry[set][kind][i].tag = tlb_empty_tag(i);
                }
                l->filled[set][kind][word] = 0;
            }
    empty_code_local(l);
}

static void drop_level1(struct jit_cpu *cpu, uint64_t linear)
{
    struct tlb_code *code;

    jump_cache_flush_page(cpu, linear);
    for (unsigned set = 0; set < TLB_SETS; set++)
        for (unsigned kind = 0; kind < TLB_KINDS; kind++)
            cpu->tlb.entry[set][kind][tlb_index(linear)].tag = tlb_empty_tag(tlb_index(linear));
    for (unsigned u = 0; u < 2; u++) {
        code = &cpu->tlb.level2->code[u][linear >> 12 & (TLB_CODE_ENTRIES - 1)];
        code->tag = CODE_EMPTY;
    }
}

void tlb_drop_writes(struct jit_cpu *cpu, const uint8_t *host)
{
    for (unsigned set = 0; set < TLB_USER_STRICT; set++)
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            if (cpu->tlb.entry[set][TLB_WRITE][i].host == host)
                cpu->tlb.entry[set][TLB_WRITE][i].tag = tlb_empty_tag(i);
}

void tlb_drop_all_writes(struct jit_cpu *cpu)
{
    for (unsigned set = 0; set < TLB_USER_STRICT; set++)
        for (unsigned i = 0; i < TLB_ENTRIES; i++)
            cpu->tlb.entry[set][TLB_WRITE][i].tag = tlb_empty_tag(i);
}

void tlb_code_fill(struct jit_cpu *cpu, uint64_t linear, const struct mmu_page *page)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const unsigned user = cpu->cpl == 3, i = linear >> 12 & (TLB_CODE_ENTRIES - 1);
    const bool global = page->flags & PAGE_GLOBAL;

    l->code[user][i] = (struct tlb_code){linear & ~0xfffull, page->gpa, page->host, global};
    if (global)
        l->code_filled[user][i / 64] &= ~(1ull << (i & 63));
    else
        l->code_filled[user][i / 64] |= 1ull << (i & 63);
}

/* ---- second level
 * ------------------------------------------------------------------------------------------ */

static unsigned current_pcid(const struct jit_cpu *cpu)
{
    return cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
}

static unsigned slot_of(uint64_t key)
{
    return (key >> 12 ^ key >> (12 + LEVEL2_BITS) ^ key << 5) & (LEVEL2_ENTRIES - 1);
}

static uint64_t *region_word(struct jit_tlb_level2 *l, unsigned huge, uint64_t linear,
                             uint64_t *bit)
{
    const uint64_t region = linear >> (huge ? 30 : 21);
    const unsigned hash = (region ^ region >> REGION_BITS) & ((1 << REGION_BITS) - 1);

    *bit = 1ull << (hash & 63);
    return &l->large[huge][hash / 64];
}

static void note_large(struct jit_tlb_level2 *l, uint64_t linear, unsigned flags)
{
    uint64_t bit, *word;

    if (!(flags & PAGE_LARGE))
        return;
    word = region_word(l, !!(flags & PAGE_HUGE), linear, &bit);
    *word |= bit;
}

static bool seen_large(struct jit_tlb_level2 *l, uint64_t linear)
{
    uint64_t bit, *word;

    /* 4 MiB pages of 32-bit paging were noted by the half that was used. */
    for (unsigned half = 0; half < 2; half++) {
        word =
            region_word(l, 0, (linear & ~(3ull << 21)) | (linear & 2ull << 21) | half << 21, &bit);
        if (*word & bit)
            return true;
    }
    word = region_word(l, 1, linear, &bit);
    return *word & bit;
}

static struct level2_entry *level2_find(struct jit_cpu *cpu, uint64_t linear)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const unsigned pcid = current_pcid(cpu);
    const uint64_t key = (linear & KEY_LINEAR) | pcid;
    const uint64_t global = (linear & KEY_LINEAR) | KEY_GLOBAL;
    struct level2_entry *e = &l->entry[slot_of(key)];

    if (e->key == key && e->generation == l->generation[pcid])
        return e;
    e = &l->entry[slot_of(global)];
    return e->key == global && e->generation == l->global_generation ? e : NULL;
}

static void level2_fill(struct jit_cpu *cpu, uint64_t linear, const struct mmu_page *page)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const bool global = page->flags & PAGE_GLOBAL;
    const unsigned pcid = current_pcid(cpu);
    const uint64_t key = (linear & KEY_LINEAR) | (global ? KEY_GLOBAL : pcid);

    l->entry[slot_of(key)] = (struct level2_entry){
        .key = key,
        .gpa = page->gpa,
        .host = page->host,
        .generation = global ? l->global_generation : l->generation[pcid],
        .flags = page->flags | (page->readonly ? ENTRY_READONLY : 0),
    };
    note_large(l, linear, page->flags);
}

/* What holds code may change from one access to the next, so it is not cached. */
static void look_for_code(struct jit_cpu *cpu, struct mmu_page *page, unsigned access)
{
    struct jit_slot *s;

    if (!(access & PF_WRITE) || !page->host || page->readonly)
        return;
    s = slot_find(cpu->vm, page->gpa);
    page->writes_slow = s && slot_has_code(s, page->gpa);
    if (s)
        memory_hash_note(s, page->gpa, 1);
}

bool tlb_translate(struct jit_cpu *cpu, uint64_t linear, unsigned access, struct mmu_page *page,
                   uint32_t *error)
{
    const struct level2_entry *e = level2_find(cpu, linear);
    struct paging_page found;
    const struct jit_slot *s;

    if (e && paging_allows(cpu, e->flags, access) &&
        (!(access & PF_WRITE) || (e->flags & PAGE_DIRTY))) {
        *page = (struct mmu_page){.gpa = e->gpa,
                                  .host = e->host,
                                  .readonly = !!(e->flags & ENTRY_READONLY),
                                  .flags = e->flags};
        look_for_code(cpu, page, access);
        return true;
    }
    if (!paging_walk(cpu, linear, access, &found, error)) {
        if (cpu->cr0 & CR0_PG) /* §4.10.4.1: a page fault removes what it was about */
            mmu_invlpg(cpu, linear);
        return false;
    }
    s = slot_find(cpu->vm, found.gpa);
    *page = (struct mmu_page){.gpa = found.gpa,
                              .host = s ? slot_host(s, found.gpa) : NULL,
                              .readonly = s && s->readonly,
                              .flags = found.flags};
    level2_fill(cpu, linear, page);
    look_for_code(cpu, page, access);
    return true;
}

/* ---- control
 * -----------------------------------------------------------------------------------------------
 */

static void level2_empty(struct jit_tlb_level2 *l)
{
    for (unsigned i = 0; i < LEVEL2_ENTRIES; i++)
        l->entry[i].key = KEY_EMPTY;
}

/* Before any generation changes: one that comes round again would revive what it once stood for. */
static void generations_change(struct jit_tlb_level2 *l)
{
    if (++l->changes == 0)
        level2_empty(l);
}

static void forget_pcid(struct jit_tlb_level2 *l, unsigned pcid)
{
    generations_change(l);
    l->generation[pcid]++;
}

static void forget_global(struct jit_tlb_level2 *l)
{
    generations_change(l);
    l->global_generation++;
}

static void forget_all_pcids(struct jit_tlb_level2 *l)
{
    generations_change(l);
    for (unsigned i = 0; i < PCIDS; i++)
        l->generation[i]++;
}

void mmu_flush_all(struct jit_cpu *cpu)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;

    tlb_flush_level1(cpu);
    forget_all_pcids(l);
    forget_global(l);
    memset(l->large, 0, sizeof(l->large));
}

void mmu_flush_local(struct jit_cpu *cpu)
{
    forget_pcid(cpu->tlb.level2, current_pcid(cpu));
    flush_level1_local(cpu);
}

void mmu_cr3_write(struct jit_cpu *cpu, uint64_t cr3)
{
    const bool keep = (cpu->cr4 & CR4_PCIDE) && cr3 >> 63;

    cr3 &= ~(1ull << 63);
    if (paging_is_pae(cpu->cr0, cpu->cr4, cpu->efer) && !paging_load_pdptes(cpu, cr3))
        jit_raise_code(cpu, VECTOR_GP, 0);
    cpu->cr3 = cr3;
    if (!keep)
        forget_pcid(cpu->tlb.level2, current_pcid(cpu));
    flush_level1_local(cpu);
}

void mmu_invlpg(struct jit_cpu *cpu, uint64_t linear)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const unsigned pcid = current_pcid(cpu);
    struct level2_entry *e;

    if (seen_large(l, linear)) {
        forget_pcid(l, pcid);
        forget_global(l);
        tlb_flush_level1(cpu);
        return;
    }
    e = &l->entry[slot_of((linear & KEY_LINEAR) | pcid)];
    if (e->key == ((linear & KEY_LINEAR) | pcid))
        e->key = KEY_EMPTY;
    e = &l->entry[slot_of((linear & KEY_LINEAR) | KEY_GLOBAL)];
    if (e->key == ((linear & KEY_LINEAR) | KEY_GLOBAL))
        e->key = KEY_EMPTY;
    drop_level1(cpu, linear);
}

static void invlpg_in(struct jit_cpu *cpu, unsigned pcid, uint64_t linear)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;
    const uint64_t key = (linear & KEY_LINEAR) | pcid;

    if (seen_large(l, linear))
        forget_pcid(l, pcid);
    else if (l->entry[slot_of(key)].key == key)
        l->entry[slot_of(key)].key = KEY_EMPTY;
}

void mmu_invpcid(struct jit_cpu *cpu, unsigned type, uint64_t pcid, uint64_t linear)
{
    struct jit_tlb_level2 *l = cpu->tlb.level2;

    switch (type) {
    case 0: /* one address, not global */
        invlpg_in(cpu, pcid & 0xfff, linear);
        break;
    case 1: /* one PCID, not global */
        forget_pcid(l, pcid & 0xfff);
        break;
    case 2: /* everything */
        mmu_flush_all(cpu);
        return;
    default: /* everything but global pages */
        forget_all_pcids(l);
        break;
    }
    flush_level1_local(cpu);
}

void mmu_paging_changed(struct jit_cpu *cpu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer)
{
    const uint64_t cr0 = CR0_PG | CR0_WP | CR0_PE;
    const uint64_t cr4 = CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP;
    const uint64_t efer = EFER_NXE | EFER_LMA;

    /* More than §4.10.4.1 asks for; none of these changes is frequent. */
    if (((cpu->cr0 ^ old_cr0) & cr0) || ((cpu->cr4 ^ old_cr4) & cr4) ||
        ((cpu->efer ^ old_efer) & efer))
        mmu_flush_all(cpu);
    mmu_set_changed(cpu);
}

int mmu_restore(struct jit_cpu *cpu)
{
    mmu_flush_all(cpu);
    mmu_set_changed(cpu);
    return paging_is_pae(cpu->cr0, cpu->cr4, cpu->efer) && !paging_load_pdptes(cpu, cpu->cr3)
               ? -EINVAL
               : 0;
}

int mmu_new(struct jit_cpu *cpu)
{
    cpu->tlb.level2 = calloc(1, sizeof(*cpu->tlb.level2));
    if (!cpu->tlb.level2)
        return -ENOMEM;
    level2_empty(cpu->tlb.level2);
    tlb_flush_level1(cpu);
    return 0;
}

void mmu_free(struct jit_cpu *cpu)
{
    free(cpu->tlb.level2);
    cpu->tlb.level2 = NULL;
}

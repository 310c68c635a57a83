/*
 * mmu_test.c - paging, translations, the physical map and the block cache, without instructions:
 * the decoder knows one-byte ones only, and events stop the test's vCPU.
 */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "cpu/jit/block_cache.h"
#include "cpu/jit/event.h"
#include "cpu/jit/exec.h"
#include "cpu/jit/paging.h"
#include "cpu/jit/slots.h"
#include "cpu/jit/translate.h"
#include "cpu/jit/world.h"

enum { MEMORY = 8 << 20, TABLES = 0x100000, PAGE = 0x200000, OTHER = 0x300000, ROM = 0x1000000 };
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define NX     (1ull << 63)
#define LINEAR 0x0000123456789000ull

/* ---- what other rooms do
 * ------------------------------------------------------------------------------------ */

static _Thread_local unsigned decoded;

enum decode_result insn_decode(struct insn *i, const uint8_t *bytes, unsigned available,
                               enum code_width width, uint64_t features)
{
    if (bytes[0] == 0x66 && available < 2) /* two bytes: what may cross */
        return DECODE_SHORT;
    decoded++;
    *i = (struct insn){.op = bytes[0] == 0xf4 ? OP_HLT : OP_NOP, .len = bytes[0] == 0x66 ? 2 : 1};
    return DECODE_OK;
}

jit_handler *jit_handler_for(const struct insn *i)
{
    return NULL; /* nothing is executed */
}

/* Nothing is translated here. */
bool translate_wanted(const struct jit_cpu *cpu, const struct jit_block *b)
{
    return false;
}
bool translate_block(struct translator *t, struct jit_block *b, const uint8_t *page,
                     struct jit_cpu *cpu)
{
    return false;
}
void translate_forget(struct jit_block *b) {}
void translate_link(struct jit_link *link, struct jit_block *to) {}
void translator_reset(struct translator *t) {}
void jump_cache_flush(struct jit_cpu *cpu) {}
void jump_cache_flush_local(struct jit_cpu *cpu) {}
void jump_cache_flush_page(struct jit_cpu *cpu, uint64_t linear) {}

_Noreturn void jit_raise(struct jit_cpu *cpu, uint8_t vector)
{
    cpu->exception.vector = vector;
    __builtin_longjmp(cpu->unwind, 1);
}
_Noreturn void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code)
{
    cpu->exception.code = code;
    jit_raise(cpu, vector);
}
_Noreturn void jit_raise_page_fault(struct jit_cpu *cpu, uint64_t linear, uint32_t code)
{
    cpu->exception.address = linear;
    jit_raise_code(cpu, VECTOR_PF, code);
}

static struct vcpu_exit served;
static uint64_t served_data;
static unsigned serves;

void jit_serve(struct jit_cpu *cpu, struct vcpu_exit *exit)
{
    served = *exit;
    serves++;
    if (exit->mmio.write) {
        served_data = 0;
        memcpy(&served_data, exit->mmio.data, exit->mmio.len);
    } else {
        memset(exit->mmio.data, 0xab, exit->mmio.len);
    }
}

/* ---- the machine
 * --------------------------------------------------------------------------------------------- */

struct fixture {
    struct jit_vm vm;
    struct jit_cpu *cpu[2];
    uint8_t *memory, *rom;
    struct jit_cpu *cpus[2];
};

static struct jit_cpu *new_cpu(struct fixture *f, unsigned id)
{
    struct jit_cpu *cpu = aligned_alloc(64, QZ_ALIGN_UP(sizeof(*cpu), 64ul));

    assert_non_null(cpu);
    memset(cpu, 0, sizeof(*cpu));
    cpu->vm = &f->vm;
    cpu->accel.id = id;
    cpu->physical_bits = 40;
    cpu->huge_pages = true;
    assert_int_equal(mmu_new(cpu), 0);
    assert_int_equal(blocks_cpu_new(cpu), 0);
    f->vm.cpus[id] = cpu;
    return cpu;
}

static void four_level(struct jit_cpu *cpu)
{
    cpu->cr0 = CR0_PE | CR0_PG | CR0_WP;
    cpu->cr4 = CR4_PAE | CR4_PGE;
    cpu->efer = EFER_LMA | EFER_LME | EFER_NXE;
    cpu->cr3 = TABLES;
    cpu->long_mode = true;
    cpu->code_width = CODE_64;
    mmu_flush_all(cpu);
    mmu_set_changed(cpu);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->vm.config.vcpus = 2;
    f->vm.cpus = f->cpus;
    pthread_rwlock_init(&f->vm.slots_lock, NULL);
    assert_int_equal(world_new(&f->vm), 0);
    assert_int_equal(blocks_new(&f->vm), 0);
    f->memory =
        mmap(NULL, MEMORY + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->rom = f->memory + MEMORY;
    assert_int_equal(slots_map(&f->vm, 0, MEMORY, f->memory, false), 0);
    assert_int_equal(slots_map(&f->vm, ROM, 4096, f->rom, true), 0);
    f->cpu[0] = new_cpu(f, 0);
    f->cpu[1] = new_cpu(f, 1);
    four_level(f->cpu[0]);
    four_level(f->cpu[1]);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        mmu_free(f->cpu[i]);
        blocks_cpu_free(f->cpu[i]);
        free(f->cpu[i]);
    }
    slots_free(&f->vm);
    blocks_free(&f->vm);
    world_free(&f->vm);
    munmap(f->memory, MEMORY + 4096);
    free(f);
    return 0;
}

static uint64_t *entry(struct fixture *f, uint64_t table, unsigned index)
{
    return (uint64_t *)(f->memory + table) + index;
}

/* One table for each level, at TABLES; the last level's entry is returned. */
static uint64_t *map(struct fixture *f, uint64_t linear, uint64_t page, uint64_t flags)
{
    uint64_t table = TABLES;

    for (unsigned level = 4; level > 1; level--) {
        uint64_t *e = entry(f, table, linear >> (12 + 9 * (level - 1)) & 511);

        table += 4096;
        *e |= table | P | W | U;
    }
    *entry(f, table, linear >> 12 & 511) = page | flags;
    return entry(f, table, linear >> 12 & 511);
}

/* ---- doing what may raise
 * ----------------------------------------------------------------------------------- */

enum what { LOAD, STORE, FETCH, ATOMIC, BLOCK };

static _Thread_local uint64_t result;

static __attribute__((noinline)) void act(struct jit_cpu *cpu, enum what what, uint64_t linear,
                                          unsigned size, uint64_t value)
{
    switch (what) {
    case LOAD:
        result = mmu_load(cpu, linear, size);
        break;
    case STORE:
        mmu_store(cpu, linear, size, value);
        break;
    case FETCH:
        result = mmu_code(cpu, linear).gpa;
        break;
    case ATOMIC:
        result = (uintptr_t)mmu_atomic(cpu, linear, size);
        break;
    case BLOCK:
        cpu->rip = linear;
        result = (uintptr_t)block_at_hand(cpu);
        break;
    }
}

/* The vector raised, or -1. */
static __attribute__((noinline)) int attempt(struct jit_cpu *cpu, enum what what, uint64_t linear,
                                             unsigned size, uint64_t value)
{
    if (__builtin_setjmp(cpu->unwind))
        return cpu->exception.vector;
    act(cpu, what, linear, size, value);
    return -1;
}

static void expect_fault(struct jit_cpu *cpu, enum what what, uint64_t linear, uint32_t code)
{
    assert_int_equal(attempt(cpu, what, linear, 4, 0), VECTOR_PF);
    assert_int_equal(cpu->exception.code, code);
    assert_int_equal(cpu->exception.address, linear);
}

static void expect_fine(struct jit_cpu *cpu, enum what what, uint64_t linear)
{
    assert_int_equal(attempt(cpu, what, linear, 4, 0x11223344), -1);
}

static void privilege(struct jit_cpu *cpu, unsigned cpl)
{
    cpu->cpl = cpl;
    mmu_set_changed(cpu);
}

/* ---- rights and error codes
 * ---------------------------------------------------------------------------------- */

static void test_not_present(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    expect_fault(cpu, LOAD, LINEAR, 0);
    expect_fault(cpu, STORE, LINEAR, PF_WRITE);
    expect_fault(cpu, FETCH, LINEAR, PF_FETCH);
    privilege(cpu, 3);
    expect_fault(cpu, STORE, LINEAR, PF_WRITE | PF_USER);
    cpu->efer &= ~EFER_NXE;
    expect_fault(cpu, FETCH, LINEAR, PF_USER);
}

static void test_rights(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    map(f, LINEAR, PAGE, P | U);
    expect_fault(cpu, STORE, LINEAR, PF_PRESENT | PF_WRITE);
    expect_fine(cpu, LOAD, LINEAR);
    cpu->cr0 &= ~(uint64_t)CR0_WP;
    mmu_paging_changed(cpu, cpu->cr0 | CR0_WP, cpu->cr4, cpu->efer);
    expect_fine(cpu, STORE, LINEAR);
    cpu->cr0 |= CR0_WP;
    mmu_paging_changed(cpu, cpu->cr0 & ~(uint64_t)CR0_WP, cpu->cr4, cpu->efer);
    expect_fault(cpu, STORE, LINEAR, PF_PRESENT | PF_WRITE);

    map(f, LINEAR, PAGE, P | W | NX);
    mmu_flush_all(cpu);
    expect_fine(cpu, STORE, LINEAR);
    expect_fault(cpu, FETCH, LINEAR, PF_PRESENT | PF_FETCH);
    privilege(cpu, 3);
    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT | PF_USER);
}

static void test_smep_and_smap(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    map(f, LINEAR, PAGE, P | W | U);
    expect_fine(cpu, FETCH, LINEAR);
    expect_fine(cpu, STORE, LINEAR);
    cpu->cr4 |= CR4_SMEP | CR4_SMAP;
    mmu_paging_changed(cpu, cpu->cr0, CR4_PAE | CR4_PGE, cpu->efer);
    expect_fault(cpu, FETCH, LINEAR, PF_PRESENT | PF_FETCH);
    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT);
    cpu->rflags |= RFLAGS_AC;
    mmu_set_changed(cpu);
    expect_fine(cpu, STORE, LINEAR);
    cpu->rflags &= ~(uint64_t)RFLAGS_AC;
    mmu_set_changed(cpu);
    expect_fault(cpu, STORE, LINEAR, PF_PRESENT | PF_WRITE);
    privilege(cpu, 3);
    expect_fine(cpu, STORE, LINEAR);
}

static void test_reserved(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pte = map(f, LINEAR, PAGE, P | W | 1ull << 40);
    uint64_t *pde = entry(f, TABLES + 0x2000, LINEAR >> 21 & 511);
    uint64_t *pml4e = entry(f, TABLES, LINEAR >> 39 & 511);

    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT | PF_RESERVED);
    *pte = PAGE | P | W;
    *pml4e |= PS;
    expect_fault(cpu, STORE, LINEAR, PF_PRESENT | PF_RESERVED | PF_WRITE);
    *pml4e &= ~(uint64_t)PS;
    *pde = PAGE | P | W | PS | 1 << 13;
    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT | PF_RESERVED);
    *pde = PAGE | P | W | PS;
    expect_fine(cpu, LOAD, LINEAR);
    *pde = PAGE | P | W | NX | PS;
    cpu->efer &= ~EFER_NXE;
    mmu_flush_all(cpu);
    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT | PF_RESERVED);
}

static void test_accessed_and_dirty(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pte = map(f, LINEAR, PAGE, P | W);
    uint64_t *pml4e = entry(f, TABLES, LINEAR >> 39 & 511);

    privilege(cpu, 3);
    expect_fault(cpu, LOAD, LINEAR, PF_PRESENT | PF_USER);
    assert_false(*pte & A);
    privilege(cpu, 0);
    expect_fine(cpu, LOAD, LINEAR);
    assert_int_equal(*pte & (A | D), A);
    assert_true(*pml4e & A);
    expect_fine(cpu, STORE, LINEAR + 8);
    assert_int_equal(*pte & (A | D), A | D);
    assert_false(*pml4e & D);
    assert_int_equal(*(uint32_t *)(f->memory + PAGE + 8), 0x11223344);
}

static void test_32_bit(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint32_t *pd = (uint32_t *)(f->memory + TABLES), *pt = (uint32_t *)(f->memory + 0x101000);

    cpu->cr4 = CR4_PSE;
    cpu->efer = 0;
    cpu->long_mode = false;
    mmu_flush_all(cpu);
    pd[1] = 0x101000 | P | W;
    pt[2] = PAGE | P | W;
    pd[2] = 0 | P | W | PS;
    pd[3] = P | W | PS | 1 << 21;
    expect_fine(cpu, STORE, 0x402000);
    assert_int_equal(pt[2] & (A | D), A | D);
    expect_fine(cpu, LOAD, 0x800000 + PAGE);
    assert_int_equal(result, 0x11223344);
    expect_fault(cpu, LOAD, 0xc00000, PF_PRESENT | PF_RESERVED);
    pd[0x3ff] = 0x101000 | P | W;
    pt[0x3ff] = PAGE | P | W;
    pd[0] = 0x102000 | P | W;
    ((uint32_t *)(f->memory + 0x102000))[0] = OTHER | P | W;
    expect_fine(cpu, STORE, 0xfffffffe); /* goes on at 0 */
    assert_int_equal(*(uint16_t *)(f->memory + PAGE + 0xffe), 0x3344);
    assert_int_equal(*(uint16_t *)(f->memory + OTHER), 0x1122);
}

static void test_pae(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    cpu->efer = EFER_NXE;
    cpu->long_mode = false;
    *entry(f, TABLES, 3) = 0x101000 | P;
    *entry(f, 0x101000, 0) = 0x102000 | P | W | U;
    *entry(f, 0x102000, 1) = PAGE | P | W;
    *entry(f, 0x101000, 1) = PAGE | P | PS;
    mmu_cr3_write(cpu, TABLES);
    expect_fine(cpu, STORE, 0xc0001000);
    expect_fine(cpu, LOAD, 0xc0200000);
    assert_int_equal(result, 0x11223344);
    expect_fault(cpu, STORE, 0xc0200000, PF_PRESENT | PF_WRITE);
    expect_fault(cpu, LOAD, 0x1000, 0);
    *entry(f, TABLES, 2) = 0x101000 | P | W; /* R/W is reserved there */
    if (__builtin_setjmp(cpu->unwind) == 0) {
        mmu_cr3_write(cpu, TABLES);
        fail();
    }
    assert_int_equal(cpu->exception.vector, VECTOR_GP);
}

/* ---- coherence
 * ---------------------------------------------------------------------------------------------- */

static void test_invlpg(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pte = map(f, LINEAR, PAGE, P | W | G);

    f->memory[PAGE] = 1;
    f->memory[OTHER] = 2;
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 1);
    *pte = OTHER | P | W | G;
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 1); /* still cached */
    mmu_flush_local(cpu);
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 1); /* global */
    mmu_invlpg(cpu, LINEAR);
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 2);
}

static void test_invlpg_of_a_large_page(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pde, linear = LINEAR & ~0x1fffffull;

    map(f, linear, 0, 0);
    pde = entry(f, TABLES + 0x2000, linear >> 21 & 511);
    *pde = PAGE | P | W | PS;
    expect_fine(cpu, LOAD, linear);
    expect_fine(cpu, STORE, linear + 0x5000);
    *pde = 0;
    mmu_invlpg(cpu, linear + 0x9000); /* another address of the same page */
    expect_fault(cpu, LOAD, linear, 0);
    expect_fault(cpu, STORE, linear + 0x5000, PF_WRITE);
}

static void test_pcid(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pte = map(f, LINEAR, PAGE, P | W);

    cpu->cr4 |= CR4_PCIDE;
    mmu_cr3_write(cpu, TABLES | 1);
    expect_fine(cpu, LOAD, LINEAR);
    *pte = 0;
    mmu_cr3_write(cpu, TABLES | 2); /* another space: not cached there */
    expect_fault(cpu, LOAD, LINEAR, 0);
    mmu_cr3_write(cpu, TABLES | 1 | 1ull << 63); /* kept */
    expect_fine(cpu, LOAD, LINEAR);
    mmu_invpcid(cpu, 0, 2, LINEAR);
    expect_fine(cpu, LOAD, LINEAR);
    mmu_invpcid(cpu, 0, 1, LINEAR);
    expect_fault(cpu, LOAD, LINEAR, 0);
    *pte = PAGE | P | W;
    expect_fine(cpu, LOAD, LINEAR);
    *pte = 0;
    mmu_cr3_write(cpu, TABLES | 1); /* not kept */
    expect_fault(cpu, LOAD, LINEAR, 0);
}

/* ---- devices, crossings, alignment
 * ------------------------------------------------------------------------------ */

static void test_devices(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    map(f, LINEAR, PAGE, P | W);
    map(f, LINEAR + 4096, 0xfec00000, P | W);
    map(f, LINEAR + 8192, ROM, P | W);
    serves = 0;
    expect_fine(cpu, LOAD, LINEAR + 4096 + 16);
    assert_int_equal(result, 0xabababab);
    assert_int_equal(served.mmio.gpa, 0xfec00010);
    assert_int_equal(attempt(cpu, STORE, LINEAR + 4094, 8, 0x8877665544332211), -1);
    assert_int_equal(serves, 3); /* 4 and 2 bytes */
    assert_int_equal(served.mmio.gpa, 0xfec00004);
    assert_int_equal(served_data, 0x8877);
    assert_int_equal(*(uint16_t *)(f->memory + PAGE + 4094), 0x2211);
    f->rom[4] = 7;
    assert_int_equal(attempt(cpu, LOAD, LINEAR + 8192 + 4, 1, 0), -1);
    assert_int_equal(result, 7);
    expect_fine(cpu, STORE, LINEAR + 8192 + 4);
    assert_int_equal(served.mmio.gpa, ROM + 4);
    assert_int_equal(f->rom[4], 7);
    expect_fine(cpu, ATOMIC, LINEAR + 4096);
    assert_null((void *)result);
}

static void test_crossing(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *second;

    map(f, LINEAR, PAGE, P | W);
    second = map(f, LINEAR + 4096, OTHER, P);
    assert_int_equal(attempt(cpu, STORE, LINEAR + 4093, 4, 0), VECTOR_PF);
    assert_int_equal(cpu->exception.address, LINEAR + 4096);
    assert_int_equal(f->memory[PAGE + 4093], 0); /* nothing was written */
    *second |= W;
    expect_fine(cpu, STORE, LINEAR + 4093);
    expect_fine(cpu, LOAD, LINEAR + 4093);
    assert_int_equal(result, 0x11223344);
    expect_fine(cpu, ATOMIC, LINEAR + 4093);
    assert_null((void *)result);
    expect_fine(cpu, ATOMIC, LINEAR + 4091);
    assert_ptr_equal((void *)result, f->memory + PAGE + 4091);
}

static void test_alignment_check(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];

    map(f, LINEAR, PAGE, P | W | U);
    cpu->cr0 |= CR0_AM;
    cpu->rflags |= RFLAGS_AC;
    privilege(cpu, 3);
    expect_fine(cpu, STORE, LINEAR + 4);
    assert_int_equal(attempt(cpu, LOAD, LINEAR + 2, 4, 0), VECTOR_AC);
    assert_int_equal(cpu->exception.code, 0);
    expect_fine(cpu, LOAD, LINEAR + 4);
    cpu->rflags = 0;
    mmu_set_changed(cpu);
    expect_fine(cpu, LOAD, LINEAR + 2);
}

static void test_map_changes(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    static uint8_t page[4096] __attribute__((aligned(4096)));

    map(f, LINEAR, 0x40000000, P | W);
    assert_int_equal(slots_map(&f->vm, MEMORY - 4096, 8192, page, false), -EEXIST);
    assert_int_equal(slots_map(&f->vm, 0x40000000, 4096, page, false), 0);
    page[0] = 9;
    world_enter(cpu);
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 9);
    world_leave(cpu);
    assert_int_equal(slots_unmap(&f->vm, 0x40000000, 4096), 0);
    world_enter(cpu);
    assert_int_equal(attempt(cpu, LOAD, LINEAR, 1, 0), -1);
    assert_int_equal(result, 0xab);
    world_leave(cpu);
    assert_int_equal(slots_unmap(&f->vm, 0x40000000, 4096), -ENOENT);
}

/* ---- blocks
 * -------------------------------------------------------------------------------------------------
 */

static struct jit_block *block(struct jit_cpu *cpu, uint64_t linear)
{
    assert_int_equal(attempt(cpu, BLOCK, linear, 0, 0), -1);
    return (struct jit_block *)result;
}

static void test_writes_through_an_alias(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0], *other = f->cpu[1];
    struct jit_block *b;

    map(f, LINEAR, PAGE, P | W);
    map(f, LINEAR + 4096, PAGE, P | W);
    f->memory[PAGE + 100] = 0xf4;
    world_enter(cpu);
    expect_fine(cpu, STORE, LINEAR + 4096); /* a write entry from before it was code */
    expect_fine(other, STORE, LINEAR + 4096);
    b = block(cpu, LINEAR + 90);
    assert_int_equal(b->count, 11);
    assert_ptr_equal(block(cpu, LINEAR + 90), b);
    expect_fine(cpu, STORE, LINEAR + 4096 + 192); /* another line */
    assert_ptr_equal(block(cpu, LINEAR + 90), b);
    assert_int_equal(attempt(other, STORE, LINEAR + 4096 + 92, 1, 0xf4), -1);
    assert_false(b->valid);
    assert_true(cpu->attention & ATTENTION_BLOCKS);
    b = block(cpu, LINEAR + 90);
    assert_int_equal(b->count, 3);
    f->memory[PAGE + 91] = 0xf4;
    blocks_written(&f->vm, PAGE + 91, 1); /* a device */
    assert_int_equal(block(cpu, LINEAR + 90)->count, 2);
    blocks_written(&f->vm, 0, MEMORY);
    assert_false(blocks_in_page(&f->vm, PAGE));
    world_leave(cpu);
}

static void test_a_moved_page(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    uint64_t *pte = map(f, LINEAR, PAGE, P | W);
    struct jit_block *b;

    f->memory[PAGE + 3] = f->memory[OTHER + 5] = 0xf4;
    world_enter(cpu);
    b = block(cpu, LINEAR);
    assert_int_equal(b->count, 4);
    *pte = OTHER | P;
    assert_ptr_equal(block(cpu, LINEAR), b);
    mmu_invlpg(cpu, LINEAR);
    assert_int_equal(block(cpu, LINEAR)->count, 6);
    *pte = PAGE | P;
    mmu_invlpg(cpu, LINEAR);
    assert_ptr_equal(block(cpu, LINEAR), b);
    *pte = 0;
    mmu_invlpg(cpu, LINEAR);
    assert_int_equal(attempt(cpu, BLOCK, LINEAR, 0, 0), VECTOR_PF);
    assert_int_equal(cpu->exception.code, PF_FETCH);
    world_leave(cpu);
}

static void test_a_crossing_instruction(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    struct jit_block *b;
    uint64_t *second;
    unsigned before;

    map(f, LINEAR, PAGE, P | W);
    second = map(f, LINEAR + 4096, OTHER, 0);
    f->memory[PAGE + 4095] = 0x66;
    world_enter(cpu);
    assert_int_equal(block(cpu, LINEAR + 4090)->count, 5); /* not the one that crosses */
    assert_int_equal(attempt(cpu, BLOCK, LINEAR + 4095, 0, 0), VECTOR_PF);
    assert_int_equal(cpu->exception.address, LINEAR + 4096);
    *second |= P;
    b = block(cpu, LINEAR + 4095);
    assert_int_equal(b->count, 1);
    assert_int_equal(b->bytes, 2);
    before = decoded;
    assert_ptr_equal(block(cpu, LINEAR + 4095), b);
    assert_int_equal(decoded, before);
    f->memory[OTHER] = 1; /* a byte of it changes in the second page */
    block(cpu, LINEAR + 4095);
    assert_true(decoded > before);
    *second = 0;
    mmu_invlpg(cpu, LINEAR + 4096);
    assert_int_equal(attempt(cpu, BLOCK, LINEAR + 4095, 0, 0), VECTOR_PF);
    world_leave(cpu);
}

static void test_eviction(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    struct jit_block *first, *b = NULL;

    /* Every address of a page of one-byte instructions begins a block of its own; rewritten again
     * and again they fill the cache several times over. */
    map(f, LINEAR, PAGE, P | W);
    world_enter(cpu);
    first = block(cpu, LINEAR);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned at = 0; at < 4096; at++) {
            b = block(cpu, LINEAR + at);
            assert_true(b->valid);
            assert_int_equal(b->count, QZ_MIN(4096 - at, (unsigned)JIT_BLOCK_MAX));
        }
        blocks_written(&f->vm, PAGE, 4096);
        assert_false(b->valid);
    }
    assert_non_null(first);
    assert_int_equal(block(cpu, LINEAR)->count, JIT_BLOCK_MAX);
    world_leave(cpu);
}

/* One vCPU writes code and the other executes it, in turns; every look-up stops the world again,
 * since a write that leaves no block makes the page an ordinary one. */
struct turns {
    struct fixture *f;
    unsigned turn; /* atomic: even the writer's, odd the reader's */
};

enum { TURNS = 2000 };

static void wait_for_turn(struct jit_cpu *cpu, struct turns *t, unsigned turn)
{
    while (__atomic_load_n(&t->turn, __ATOMIC_SEQ_CST) != turn) {
        if (__atomic_load_n(&cpu->attention, __ATOMIC_SEQ_CST) & ATTENTION_EXCLUSIVE)
            world_yield(cpu);
        sched_yield();
    }
}

static void *write_code(void *arg)
{
    struct turns *t = arg;
    struct jit_cpu *cpu = t->f->cpu[1];

    world_enter(cpu);
    for (unsigned turn = 0; turn < TURNS; turn += 2) {
        wait_for_turn(cpu, t, turn);
        attempt(cpu, STORE, LINEAR + 4096 + 4, 1, turn & 2 ? 0xf4 : 0x90);
        __atomic_store_n(&t->turn, turn + 1, __ATOMIC_SEQ_CST);
    }
    world_leave(cpu);
    return NULL;
}

static void test_two_vcpus(void **state)
{
    struct fixture *f = *state;
    struct jit_cpu *cpu = f->cpu[0];
    struct turns t = {.f = f};
    unsigned wrong = 0;
    pthread_t writer;

    map(f, LINEAR, PAGE, P | W | D | A);
    map(f, LINEAR + 4096, PAGE, P | W | D | A);
    assert_int_equal(pthread_create(&writer, NULL, write_code, &t), 0);
    world_enter(cpu);
    for (unsigned turn = 1; turn < TURNS; turn += 2) {
        wait_for_turn(cpu, &t, turn);
        wrong += block(cpu, LINEAR)->count != (turn & 2 ? 5 : JIT_BLOCK_MAX);
        __atomic_store_n(&t.turn, turn + 1, __ATOMIC_SEQ_CST);
    }
    world_leave(cpu);
    pthread_join(writer, NULL);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_not_present, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_smep_and_smap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_accessed_and_dirty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_32_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pae, setup, teardown),
        cmocka_unit_test_setup_teardown(test_invlpg, setup, teardown),
        cmocka_unit_test_setup_teardown(test_invlpg_of_a_large_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pcid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_devices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crossing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alignment_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writes_through_an_alias, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_moved_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_crossing_instruction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eviction, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_vcpus, setup, teardown),
    };

    return cmocka_run_group_tests_name("mmu", tests, NULL, NULL);
}

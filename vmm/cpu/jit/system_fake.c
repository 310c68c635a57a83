/*
 * system_fake.c - see system_fake.h. Lower and upper half of the address space show the same
 * memory.
 */
#include "cpu/jit/system_fake.h"

#include "cpu/jit/block.h"
#include "cpu/jit/segment.h"

static struct fake *fake_of(struct jit_cpu *cpu)
{
    return QZ_CONTAINER_OF(cpu, struct fake, cpu);
}

/* --- Exceptions --------------------------------------------------------------------------------
 */

static _Noreturn void raise_fault(struct jit_cpu *cpu, uint8_t vector, bool has_code, uint32_t code)
{
    cpu->exception.pending = true;
    cpu->exception.vector = vector;
    cpu->exception.has_code = has_code;
    cpu->exception.code = code;
    __builtin_longjmp(cpu->unwind, 1);
}

_Noreturn void jit_raise(struct jit_cpu *cpu, uint8_t vector)
{
    raise_fault(cpu, vector, false, 0);
}

_Noreturn void jit_raise_code(struct jit_cpu *cpu, uint8_t vector, uint32_t code)
{
    raise_fault(cpu, vector, true, code);
}

_Noreturn void jit_raise_page_fault(struct jit_cpu *cpu, uint64_t linear, uint32_t code)
{
    cpu->exception.address = linear;
    raise_fault(cpu, VECTOR_PF, true, code);
}

_Noreturn void jit_raise_debug(struct jit_cpu *cpu, uint64_t dr6_bits)
{
    cpu->exception.dr6 = dr6_bits;
    raise_fault(cpu, VECTOR_DB, false, 0);
}

/* noinline: __builtin_setjmp wants a frame that stays. */
__attribute__((noinline)) int
fake_try(struct fake *f, void (*call)(struct jit_cpu *cpu, const void *arg), const void *arg)
{
    f->cpu.exception.pending = false;
    if (__builtin_setjmp(f->cpu.unwind) == 0)
        call(&f->cpu, arg);
    return f->cpu.exception.pending ? f->cpu.exception.vector : FAKE_OK;
}

static void execute(struct jit_cpu *cpu, const void *arg)
{
    const struct insn *i = arg;
    const struct jit_handler_entry *const tables[] = {jit_exec_system, jit_exec_segment};

    cpu->next_rip = cpu->rip + i->len;
    if (!cpu->long_mode)
        cpu->next_rip = (uint32_t)cpu->next_rip;
    for (unsigned t = 0; t < QZ_ARRAY_LEN(tables); t++)
        for (const struct jit_handler_entry *e = tables[t]; e->handler; e++)
            if (e->op == i->op) {
                e->handler(cpu, i);
                cpu->rip = cpu->next_rip;
                return;
            }
    jit_raise(cpu, VECTOR_UD);
}

int fake_execute(struct fake *f, const struct insn *i)
{
    return fake_try(f, execute, i);
}

__attribute__((noinline)) void fake_deliver(struct fake *f)
{
    __builtin_setjmp(f->cpu.unwind); /* a fault on the way comes back here, pending */
    if (f->cpu.exception.pending && !f->cpu.shutdown)
        event_deliver_pending(&f->cpu);
}

/* --- Memory ------------------------------------------------------------------------------------
 */

static uint8_t *at(struct fake *f, uint64_t linear, unsigned set, bool write)
{
    const bool wide = f->cpu.efer & EFER_LMA, user = set == TLB_USER || set == TLB_USER_STRICT;
    const uint64_t low = wide ? linear & 0x7fffffffffff : (uint32_t)linear;
    uint32_t code = (write ? PF_WRITE : 0) | (user ? PF_USER : 0);
    uint8_t rights;

    if (wide && !is_canonical(linear))
        jit_raise_code(&f->cpu, VECTOR_GP, 0);
    if (low >= FAKE_MEMORY || !((rights = f->rights[low >> 12]) & FAKE_PRESENT))
        jit_raise_page_fault(&f->cpu, linear, code);
    if ((write && !(rights & FAKE_WRITE)) || (user && !(rights & FAKE_USER)))
        jit_raise_page_fault(&f->cpu, linear, code | PF_PRESENT);
    if (set != TLB_USER_STRICT)
        f->cpu.tlb.entry[set][write ? TLB_WRITE : TLB_READ][tlb_index(linear)] =
            (struct tlb_entry){linear & ~0xfffull, f->memory + (low & ~0xfffull)};
    return f->memory + low;
}

uint64_t mmu_load_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned set)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)*at(fake_of(cpu), linear + i, set, false) << i * 8;
    return value;
}

void mmu_store_slow(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value,
                    unsigned set)
{
    for (unsigned i = 0; i < size; i++)
        at(fake_of(cpu), linear + i, set, true);
    for (unsigned i = 0; i < size; i++)
        *at(fake_of(cpu), linear + i, set, true) = (uint8_t)(value >> i * 8);
}

uint64_t mmu_load_system(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    return mmu_load_in(cpu, linear, size, TLB_KERNEL);
}

void mmu_store_system(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    mmu_store_in(cpu, linear, size, value, TLB_KERNEL);
}

void mmu_store_bytes(struct jit_cpu *cpu, uint64_t linear, const void *buf, unsigned len)
{
    const uint8_t *from = buf;

    for (unsigned i = 0; i < len; i++)
        at(fake_of(cpu), linear + i, cpu->tlb.data_set, true);
    for (unsigned i = 0; i < len; i++)
        *at(fake_of(cpu), linear + i, cpu->tlb.data_set, true) = from[i];
}

void mmu_probe(struct jit_cpu *cpu, uint64_t linear, unsigned len, bool write)
{
    for (unsigned i = 0; i < len; i++)
        at(fake_of(cpu), linear + i, cpu->tlb.data_set, write);
}

static void empty_tlb(struct jit_cpu *cpu)
{
    for (unsigned set = 0; set < TLB_SETS; set++)
        for (unsigned kind = 0; kind < TLB_KINDS; kind++)
            for (unsigned i = 0; i < TLB_ENTRIES; i++)
                cpu->tlb.entry[set][kind][i].tag = tlb_empty_tag(i);
}

void mmu_set_changed(struct jit_cpu *cpu)
{
    cpu->tlb.data_set = cpu->cpl == 3 ? TLB_USER : TLB_KERNEL;
}

void mmu_cr3_write(struct jit_cpu *cpu, uint64_t cr3)
{
    empty_tlb(cpu);
    fake_of(cpu)->flushes += !(cr3 >> 63);
    cpu->cr3 = cr3 & ~(1ull << 63);
}

void mmu_invlpg(struct jit_cpu *cpu, uint64_t linear)
{
    fake_of(cpu)->invlpgs++;
}

void mmu_invpcid(struct jit_cpu *cpu, unsigned type, uint64_t pcid, uint64_t linear)
{
    fake_of(cpu)->invpcids++;
}

void mmu_paging_changed(struct jit_cpu *cpu, uint64_t old_cr0, uint64_t old_cr4, uint64_t old_efer)
{
    empty_tlb(cpu);
    mmu_set_changed(cpu);
}

bool paging_load_pdptes(struct jit_cpu *cpu, uint64_t cr3)
{
    return !fake_of(cpu)->bad_pdptes;
}

bool blocks_written(struct jit_vm *vm, uint64_t gpa, uint64_t len)
{
    return false;
}

void jit_serve(struct jit_cpu *cpu, struct vcpu_exit *exit)
{
    struct fake *f = fake_of(cpu);

    f->machine_msr = exit->msr.index;
    if (exit->kind == EXIT_WRMSR)
        f->machine_value = exit->msr.value;
    else
        exit->msr.value = f->machine_value;
    exit->msr.fault = f->machine_fault;
}

/* --- Operands ----------------------------------------------------------------------------------
 */

uint64_t jit_effective_address(const struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t ea = (int64_t)i->disp;

    if (i->base < GPR_COUNT)
        ea += cpu->gpr[i->base];
    return i->asize == 8 ? ea : i->asize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

uint64_t jit_linear(struct jit_cpu *cpu, unsigned seg, uint64_t offset, unsigned size, bool write)
{
    if (cpu->long_mode) {
        const uint64_t linear = offset + (seg >= SEG_FS ? cpu->seg[seg].base : 0);

        if (!is_canonical(linear) || !is_canonical(linear + size - 1))
            jit_raise_code(cpu, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
        return linear;
    }
    if ((cpu->seg[seg].attr & SEG_UNUSABLE) || offset + size - 1 > cpu->seg[seg].limit)
        jit_raise_code(cpu, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
    return (uint32_t)(cpu->seg[seg].base + offset);
}

uint64_t jit_read_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size)
{
    return i->mem ? mmu_load(cpu, jit_operand_linear(cpu, i, size, false), size)
                  : jit_get_reg(cpu, i->rm, size);
}

void jit_write_rm(struct jit_cpu *cpu, const struct insn *i, unsigned size, uint64_t value)
{
    if (i->mem)
        mmu_store(cpu, jit_operand_linear(cpu, i, size, true), size, value);
    else
        jit_set_reg(cpu, i->rm, size, value);
}

void jit_push(struct jit_cpu *cpu, unsigned size, uint64_t value)
{
    struct stack s = stack_current(cpu);

    stack_write(cpu, &s, size, value);
    stack_commit(cpu, &s);
}

/* --- The machine -------------------------------------------------------------------------------
 */

void fake_rights(struct fake *f, uint64_t linear, uint8_t rights)
{
    f->rights[linear >> 12] = rights;
    empty_tlb(&f->cpu);
}

uint64_t fake_load(struct fake *f, uint64_t where, unsigned size)
{
    uint64_t value = 0;

    memcpy(&value, f->memory + where, size);
    return value;
}

void fake_store(struct fake *f, uint64_t where, unsigned size, uint64_t value)
{
    memcpy(f->memory + where, &value, size);
}

struct fake *fake_new(void)
{
    const uint16_t data = SEG_P | SEG_S | SEG_G | SEG_DB | TYPE_READ_WRITE | TYPE_ACCESSED;
    struct jit_cpu *cpu;
    struct fake *f;

    if (posix_memalign((void **)&f, 64, sizeof(*f)))
        abort();
    memset(f, 0, sizeof(*f));
    memset(f->rights, FAKE_PRESENT | FAKE_WRITE | FAKE_USER, sizeof(f->rights));
    cpu = &f->cpu;
    f->vm.tsc_khz = 2500000;
    f->vm.slot[0] = (struct jit_slot){.size = FAKE_MEMORY, .host = f->memory};
    f->vm.slots = 1;
    cpu->vm = &f->vm;
    cpu->msrs = &f->msrs;
    cpu->physical_bits = 40;
    cpu->features = ~0ull;
    cpu->rflags = RFLAGS_FIXED;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA | EFER_SCE;
    cpu->dr6 = 0xffff0ff0;
    cpu->dr7 = 0x400;
    for (unsigned i = 0; i < SEG_COUNT; i++)
        cpu->seg[i] = (struct segment){.limit = 0xffffffff, .selector = 0x10, .attr = data};
    cpu->seg[SEG_CS].attr = SEG_P | SEG_S | SEG_G | SEG_L | TYPE_CODE | TYPE_ACCESSED;
    cpu->seg[SEG_CS].selector = 0x08;
    cpu->ldt.attr = SEG_UNUSABLE;
    cpu->tr.attr = SEG_P | TYPE_TSS_BUSY;
    empty_tlb(cpu);
    jit_mode_changed(cpu);
    return f;
}

void fake_free(struct fake *f)
{
    free(f);
}

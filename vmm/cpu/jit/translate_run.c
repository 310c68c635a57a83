/*
 * translate_run.c - translated code and C meeting at run time: entering it, the jump cache, and
 * what its routines call.
 */
#include "cpu/jit/block_cache.h"
#include "cpu/jit/counted.h"
#include "cpu/jit/jit_run.h"
#include "cpu/jit/operand.h"
#include "cpu/jit/translate_internal.h"

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

QZ_SYSCALLS(vcpu, "arch_prctl");

enum {
    MXCSR_MASKS = 0x1f80, /* also its value after reset: all exceptions masked */
    X87_MASKS = 0x3f,
    X87_ERROR = 1 << 7, /* of the status word: an unmasked exception is pending */
    FLAGS_LAHF = FLAGS_ARITH & 0xff,
    KEY_MODE_SHIFT = 48,
    KEY_GENERATION_SHIFT = 56,
};

/* ---- state
 * -------------------------------------------------------------------------------------------------
 */

void translate_enter_state(struct jit_cpu *cpu)
{
    cpu->host_flags = (uint16_t)((cpu->rflags & FLAGS_LAHF) << 8 | (cpu->rflags >> 11 & 1));
}

void translate_leave_state(struct jit_cpu *cpu)
{
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (cpu->host_flags >> 8 & FLAGS_LAHF) |
                  (cpu->host_flags & 1u) << 11;
}

/* Vector code in the host's registers needs what makes no exception there. */
static bool vectors_can_be_native(const struct jit_cpu *cpu)
{
    return !(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->cr4 & CR4_OSFXSR) &&
           (cpu->fpu.mxcsr & MXCSR_MASKS) == MXCSR_MASKS;
}

/* The same for the x87's: nothing pending, nothing unmasked (SDM vol 1 §8.1.3, §8.1.5). */
static bool x87_can_be_native(const struct jit_cpu *cpu)
{
    return !(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->fpu.fcw & X87_MASKS) == X87_MASKS &&
           !(cpu->fpu.fsw & X87_ERROR) && vectors_can_be_native(cpu);
}

static void look_at_fpu(struct jit_cpu *cpu)
{
    cpu->vectors_native = vectors_can_be_native(cpu);
    cpu->x87_native = x87_can_be_native(cpu);
}

bool translate_wanted(const struct jit_cpu *cpu, const struct jit_block *b)
{
    return cpu->long_mode && b->insn != NULL;
}

static void use_gs(struct jit_cpu *cpu)
{
    if (cpu->gs_set)
        return;
    syscall(SYS_arch_prctl, ARCH_SET_GS, cpu);
    cpu->gs_set = true;
    cpu->self = cpu;
}

void translate_run(struct translator *t, struct jit_cpu *cpu, struct jit_block *b)
{
    const struct jit_code *code = b->code;

    use_gs(cpu);
    cpu->exit_link = NULL;
    cpu->interpret = false;
    cpu->code_base = cpu->rip & ~0xfffull;
    look_at_fpu(cpu);
    cpu->host_mxcsr = MXCSR_MASKS;
    jump_cache_mode(cpu);
    translate_enter_state(cpu);
    t->routines.enter(cpu, code->entry);
    translate_leave_state(cpu);
    counted_give_back(cpu);
}

/* ---- the jump cache
 * ---------------------------------------------------------------------------------------- */

enum { LEVEL_USER, LEVEL_SUPERVISOR };

static unsigned level(const struct jit_cpu *cpu)
{
    return cpu->cpl == 3 ? LEVEL_USER : LEVEL_SUPERVISOR;
}

/*
 * The key's upper byte is a generation, so that the cache is emptied by counting; the byte below is
 * the block mode. A canonical address has all ones or all zeros there, so no two meet. The kernel's
 * code stays where it is when the address space changes, so it has a generation of its own.
 */
void jump_cache_mode(struct jit_cpu *cpu)
{
    cpu->jump_key = (uint64_t)cpu->jump_generation[level(cpu)] << KEY_GENERATION_SHIFT |
                    (uint64_t)(block_mode(cpu) & 0x7f) << KEY_MODE_SHIFT;
}

static unsigned page_bit(uint64_t linear)
{
    return linear >> 12 & (JIT_JUMP_PAGES - 1);
}

void jump_cache_flush_page(struct jit_cpu *cpu, uint64_t linear)
{
    if (!(cpu->jump_pages[page_bit(linear) / 64] >> (page_bit(linear) % 64) & 1))
        return;
    if ((int64_t)linear < 0)
        jump_cache_flush(cpu);
    else
        jump_cache_flush_local(cpu);
}

static void next_generation(struct jit_cpu *cpu, unsigned of)
{
    if (++cpu->jump_generation[of] == 0) {
        memset(cpu->jump, 0, sizeof(cpu->jump));
        cpu->jump_generation[of] = 1;
    }
}

void jump_cache_flush(struct jit_cpu *cpu)
{
    memset(cpu->jump_pages, 0, sizeof(cpu->jump_pages));
    cpu->jump_local = false;
    next_generation(cpu, LEVEL_USER);
    next_generation(cpu, LEVEL_SUPERVISOR);
    jump_cache_mode(cpu);
}

void jump_cache_flush_local(struct jit_cpu *cpu)
{
    next_generation(cpu, LEVEL_USER);
    if (cpu->jump_local)
        next_generation(cpu, LEVEL_SUPERVISOR);
    cpu->jump_local = false;
    jump_cache_mode(cpu);
}

static bool stays(const struct jit_cpu *cpu, uint64_t rip)
{
    const struct tlb_code *page = tlb_code_find(cpu, rip);

    return (int64_t)rip < 0 && page && page->global;
}

void jump_cache_add(struct jit_cpu *cpu, uint64_t rip, const struct jit_block *b)
{
    const struct jit_code *code = b->code;
    struct jit_jump *j = &cpu->jump[rip >> 1 & (JIT_JUMPS - 1)];

    j->tag = rip ^ cpu->jump_key;
    j->code = code->entry;
    if (level(cpu) == LEVEL_SUPERVISOR && !stays(cpu, rip))
        cpu->jump_local = true;
    cpu->jump_pages[page_bit(rip) / 64] |= 1ull << (page_bit(rip) % 64);
}

/* ---- called from routines
 * ------------------------------------------------------------------------------------- */

/* Where the guest is, for exceptions and the interpreter. */
static void arrive(struct jit_cpu *cpu, unsigned offset)
{
    cpu->rip = cpu->code_base + offset;
    translate_leave_state(cpu);
}

void *translate_fill_read(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned offset)
{
    uint64_t got = 0;
    const void *p;

    arrive(cpu, offset);
    if (!linear_is_canonical(linear, size))
        return NULL; /* #GP or #SS: the interpreter knows which */
    p = mmu_run_read(cpu, linear, size, &got);
    if (got != size)
        return NULL;
    counted_go_on(cpu);
    return (void *)p;
}

void *translate_fill_write(struct jit_cpu *cpu, uint64_t linear, unsigned size, unsigned offset)
{
    uint64_t got = 0;
    void *p;

    arrive(cpu, offset);
    if (!linear_is_canonical(linear, size))
        return NULL;
    p = mmu_run_write(cpu, linear, size, &got);
    if (got != size)
        return NULL;
    counted_go_on(cpu);
    return p;
}

/* Not 0: translated code cannot go on. */
static unsigned execute(struct jit_cpu *cpu, const struct insn *i)
{
    const struct translator *t = cpu->vm->translator;
    const unsigned generation = t->generation;

    cpu->next_rip = cpu->rip + i->len;
    jit_handlers[i->op](cpu, i);
    cpu->rip = cpu->next_rip;
    counted_behind(cpu);
    if (t->generation != generation)
        jit_resume(cpu); /* while a device answered, the code that called was dropped */
    translate_enter_state(cpu);
    return __atomic_load_n(&cpu->attention, __ATOMIC_RELAXED) != 0;
}

/* Not 0: the block is left. */
static unsigned in_block(struct jit_cpu *cpu, unsigned result)
{
    if (!result)
        counted_go_on(cpu);
    return result;
}

unsigned translate_execute(struct jit_cpu *cpu, const struct insn *i)
{
    arrive(cpu, i->page_offset);
    return in_block(cpu, execute(cpu, i));
}

/*
 * The instruction in these bytes. What translated code leaves to the interpreter comes again and
 * again, so that the last ones are kept by their bytes. NULL: they are none.
 */
static const struct insn *decode(struct jit_cpu *cpu, const uint8_t *bytes, unsigned available)
{
    const uint64_t first = available == INSN_BYTES_MAX ? qz_load_le64(bytes) : 0;
    const uint64_t last = available == INSN_BYTES_MAX ? qz_load_le64(bytes + 7) : 0;
    struct jit_decoded *d =
        &cpu->decoded[(first ^ last << 1) * 0x9e3779b97f4a7c15ull >> (64 - JIT_DECODED_BITS)];

    if (first && d->first == first && d->last == last && d->width == cpu->code_width &&
        d->features == cpu->features)
        return &d->insn;
    if (insn_decode(&d->insn, bytes, available, cpu->code_width, cpu->features) != DECODE_OK) {
        d->first = 0;
        return NULL;
    }
    d->first = first;
    d->last = last;
    d->width = cpu->code_width;
    d->features = cpu->features;
    return &d->insn;
}

static unsigned execute_at(struct jit_cpu *cpu, unsigned at)
{
    const unsigned available = QZ_MIN(4096 - INSN_AT_OFFSET(at), (unsigned)INSN_BYTES_MAX);
    struct mmu_code code;
    uint8_t bytes[INSN_BYTES_MAX];
    const struct insn *i;

    arrive(cpu, INSN_AT_OFFSET(at));
    code = mmu_code(cpu, cpu->rip);
    if (!code.host)
        jit_resume(cpu); /* the page is gone: whatever is there now is executed */
    memcpy(bytes, code.host, available);
    i = decode(cpu, bytes, available);
    if (!i)
        jit_resume(cpu); /* somebody changes it at this moment */
    return execute(cpu, i) | (i->len != INSN_AT_LEN(at));
}

unsigned translate_execute_at(struct jit_cpu *cpu, unsigned at)
{
    return in_block(cpu, execute_at(cpu, at));
}

/* Where translated code goes on after an instruction that ended a block; NULL: in the run loop. */
static const uint8_t *go_on(struct jit_cpu *cpu)
{
    const struct jit_jump *j = &cpu->jump[cpu->rip >> 1 & (JIT_JUMPS - 1)];

    counted_give_back(cpu); /* the instruction may have ended the block early */
    if (!jit_is_quiet(cpu) || !cpu->long_mode)
        return NULL;
    jump_cache_mode(cpu);
    if (j->tag != (cpu->rip ^ cpu->jump_key))
        return NULL;
    cpu->code_base = cpu->rip & ~0xfffull;
    look_at_fpu(cpu);
    translate_enter_state(cpu);
    return j->code;
}

const uint8_t *translate_execute_end(struct jit_cpu *cpu, const struct insn *i)
{
    arrive(cpu, i->page_offset);
    execute(cpu, i);
    return go_on(cpu);
}

const uint8_t *translate_execute_at_end(struct jit_cpu *cpu, unsigned at)
{
    execute_at(cpu, at);
    return go_on(cpu);
}

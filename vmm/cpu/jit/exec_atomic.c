/*
 * exec_atomic.c - what is one step for all CPUs: LOCK, XCHG with memory, CMPXCHG8B, CMPXCHG16B.
 *
 * In plain memory the host's locked instructions do it. An operand that crosses a cache line would
 * be a split lock there, which hosts slow down or kill for; it goes the way of MMIO and page
 * crossings: every other vCPU stands still meanwhile (mmu.h, jit_exclusive_begin).
 */
#include "cpu/jit/alu.h"
#include "cpu/jit/exec_internal.h"

enum { CACHE_LINE = 64 };

/* Host memory for a locked access, or NULL. Permissions are checked in either case. */
static void *atomic_host(struct jit_cpu *cpu, uint64_t linear, unsigned size)
{
    void *host = mmu_atomic(cpu, linear, size);

    return (linear & (CACHE_LINE - 1)) + size <= CACHE_LINE ? host : NULL;
}

#define HOST_CAS(type, suffix)                                                                     \
    static bool host_cas_##suffix(void *p, uint64_t *expected, uint64_t desired)                   \
    {                                                                                              \
        type old = (type)*expected;                                                                \
        bool done;                                                                                 \
                                                                                                   \
        __asm__ volatile("lock cmpxchg" #suffix " %3, %1"                                          \
                         : "=@ccz"(done), "+m"(*(volatile host_##suffix *)p), "+a"(old)            \
                         : "r"((type)desired)                                                      \
                         : "memory");                                                              \
        *expected = old;                                                                           \
        return done;                                                                               \
    }
typedef uint8_t host_b;
typedef host_u16 host_w;
typedef host_u32 host_l;
typedef host_u64 host_q;
HOST_CAS(uint8_t, b)
HOST_CAS(uint16_t, w)
HOST_CAS(uint32_t, l)
HOST_CAS(uint64_t, q)

static bool host_cas(void *p, unsigned size, uint64_t *expected, uint64_t desired)
{
    switch (size) {
    case 1:
        return host_cas_b(p, expected, desired);
    case 2:
        return host_cas_w(p, expected, desired);
    case 4:
        return host_cas_l(p, expected, desired);
    default:
        return host_cas_q(p, expected, desired);
    }
}

uint64_t atomic_update(struct jit_cpu *cpu, uint64_t linear, unsigned size, atomic_fn *fn,
                       uint64_t operand, uint64_t *rflags)
{
    void *host = atomic_host(cpu, linear, size);
    const uint64_t before = *rflags;
    uint64_t old;

    if (host) {
        uint64_t new;

        old = host_load(host, size);
        do {
            *rflags = before;
            new = fn(old, operand, rflags);
        } while (!host_cas(host, size, &old, new));
        return old;
    }
    jit_exclusive_begin(cpu);
    old = mmu_load(cpu, linear, size);
    mmu_store(cpu, linear, size, fn(old, operand, rflags));
    jit_exclusive_end(cpu);
    return old;
}

static uint64_t replace(uint64_t old, uint64_t operand, uint64_t *rflags)
{
    return operand;
}

/* With memory it locks, prefix or not (SDM vol 3 §9.1.2.1). */
void exec_xchg(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t value = jit_get_reg(cpu, i->reg, i->size), old;
    uint64_t rflags = cpu->rflags;

    if (i->mem) {
        old = atomic_update(cpu, operand_linear(cpu, i, i->size, true), i->size, replace, value,
                            &rflags);
    } else {
        old = jit_get_reg(cpu, i->rm, i->size);
        jit_set_reg(cpu, i->rm, i->size, value);
    }
    jit_set_reg(cpu, i->reg, i->size, old);
}

void exec_xadd(struct jit_cpu *cpu, const struct insn *i)
{
    atomic_fn *add = alu_atomic_fn(OP_ADD, i->size);
    uint64_t value = jit_get_reg(cpu, i->reg, i->size), rflags = cpu->rflags, old, sum;

    if (!i->mem) {
        old = jit_get_reg(cpu, i->rm, i->size);
        sum = add(old, value, &rflags);
        jit_set_reg(cpu, i->reg, i->size, old);
        jit_set_reg(cpu, i->rm, i->size, sum); /* the sum wins where both are one register */
    } else if (i->prefix & PREFIX_LOCK) {
        old =
            atomic_update(cpu, operand_linear(cpu, i, i->size, true), i->size, add, value, &rflags);
        jit_set_reg(cpu, i->reg, i->size, old);
    } else {
        struct update u;

        old = update_begin(cpu, &u, i, i->size);
        update_end(cpu, &u, i->size, add(old, value, &rflags));
        jit_set_reg(cpu, i->reg, i->size, old);
    }
    cpu->rflags = rflags;
}

/* --- Compare and exchange -------------------------------------------------------------------- */

static bool cmpxchg_locked(struct jit_cpu *cpu, uint64_t linear, unsigned size, uint64_t *expected,
                           uint64_t desired)
{
    void *host = atomic_host(cpu, linear, size);
    uint64_t old;
    bool equal;

    if (host)
        return host_cas(host, size, expected, desired);
    jit_exclusive_begin(cpu);
    old = mmu_load(cpu, linear, size);
    equal = old == *expected;
    mmu_store(cpu, linear, size, equal ? desired : old);
    jit_exclusive_end(cpu);
    *expected = old;
    return equal;
}

/* The destination is written in any case, so that it must be writable (SDM vol 2, CMPXCHG). A
 * register that did not compare equal stays whole, upper half included. */
void exec_cmpxchg(struct jit_cpu *cpu, const struct insn *i)
{
    const unsigned size = i->size;
    const uint64_t accumulator = jit_get_reg(cpu, RAX, size);
    const uint64_t value = jit_get_reg(cpu, i->reg, size);
    uint64_t old = accumulator, rflags = cpu->rflags;

    if (!i->mem) {
        old = jit_get_reg(cpu, i->rm, size);
        if (old == accumulator)
            jit_set_reg(cpu, i->rm, size, value);
    } else if (i->prefix & PREFIX_LOCK) {
        cmpxchg_locked(cpu, operand_linear(cpu, i, size, true), size, &old, value);
    } else {
        struct update u;

        old = update_begin(cpu, &u, i, size);
        update_end(cpu, &u, size, old == accumulator ? value : old);
    }
    alu_atomic_fn(OP_CMP, size)(accumulator, old, &rflags);
    cpu->rflags = rflags;
    if (old != accumulator)
        jit_set_reg(cpu, RAX, size, old);
}

static void set_zf(struct jit_cpu *cpu, bool on)
{
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAG_ZF) | (on ? FLAG_ZF : 0);
}

/* The CPU asserts LOCK for the pair only with the prefix; doing it always is allowed and one way.
 */
void exec_cmpxchg8b(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = operand_linear(cpu, i, 8, true);
    uint64_t expected = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
    uint64_t desired = (uint32_t)cpu->gpr[RBX] | cpu->gpr[RCX] << 32;
    bool equal = cmpxchg_locked(cpu, linear, 8, &expected, desired);

    if (!equal) {
        cpu->gpr[RAX] = (uint32_t)expected;
        cpu->gpr[RDX] = expected >> 32;
    }
    set_zf(cpu, equal);
}

static bool host_cas_16(void *p, uint64_t expected[2], uint64_t low, uint64_t high)
{
    bool done;

    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*(volatile unsigned __int128 *)p), "+a"(expected[0]),
                       "+d"(expected[1])
                     : "b"(low), "c"(high)
                     : "memory");
    return done;
}

/* SDM vol 2, CMPXCHG8B/CMPXCHG16B: #GP(0) where the operand is not aligned to 16 bytes. */
void exec_cmpxchg16b(struct jit_cpu *cpu, const struct insn *i)
{
    uint64_t linear = operand_linear(cpu, i, 16, true);
    uint64_t expected[2] = {cpu->gpr[RAX], cpu->gpr[RDX]};
    bool equal;
    void *host;

    if (linear & 15)
        jit_raise_code(cpu, VECTOR_GP, 0);
    host = mmu_atomic(cpu, linear, 16);
    if (host) {
        equal = host_cas_16(host, expected, cpu->gpr[RBX], cpu->gpr[RCX]);
    } else {
        uint64_t old[2];

        jit_exclusive_begin(cpu);
        old[0] = mmu_load(cpu, linear, 8);
        old[1] = mmu_load(cpu, linear + 8, 8);
        equal = old[0] == expected[0] && old[1] == expected[1];
        mmu_store(cpu, linear, 8, equal ? cpu->gpr[RBX] : old[0]);
        mmu_store(cpu, linear + 8, 8, equal ? cpu->gpr[RCX] : old[1]);
        jit_exclusive_end(cpu);
        expected[0] = old[0];
        expected[1] = old[1];
    }
    if (!equal) {
        cpu->gpr[RAX] = expected[0];
        cpu->gpr[RDX] = expected[1];
    }
    set_zf(cpu, equal);
}

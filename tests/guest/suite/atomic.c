/*
 * atomic.c - LOCK and memory order between two CPUs (SDM vol 3 §8.1, §8.2; APM vol 2 §7.2, §7.3).
 *
 * The litmus tests run over arrays: both CPUs meet at a barrier, then each goes through its side of
 * some hundred instances without waiting, so that the two come to meet each other in every offset.
 */
#include "cpu.h"
#include "tests64.h"

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x4567890000;

static bool two_cpus(void)
{
    if (cpus_started() >= 2)
        return true;
    skip("needs two CPUs");
    return false;
}

/* ---- counters ----------------------------------------------------------------------------------
 */

enum { COUNTS = 20000 };

struct counter {
    void (*step)(volatile uint64_t *at);
    volatile uint64_t *at;
    unsigned counts;
};

static void count(void *argument)
{
    const struct counter *c = argument;

    for (unsigned i = 0; i < c->counts; i++)
        c->step(c->at);
}

static void step_inc(volatile uint64_t *at)
{
    asm volatile("lock incq %0" : "+m"(*at) : : "memory", "cc");
}
static void step_add(volatile uint64_t *at)
{
    asm volatile("lock addq $1, %0" : "+m"(*at) : : "memory", "cc");
}
static void step_sub(volatile uint64_t *at)
{
    asm volatile("lock subq $-1, %0" : "+m"(*at) : : "memory", "cc");
}
static void step_xadd(volatile uint64_t *at)
{
    uint64_t one = 1;

    asm volatile("lock xaddq %1, %0" : "+m"(*at), "+r"(one) : : "memory", "cc");
}
static void step_adc(volatile uint64_t *at)
{
    asm volatile("stc; lock adcq $0, %0" : "+m"(*at) : : "memory", "cc");
}
static void step_cmpxchg(volatile uint64_t *at)
{
    uint64_t was = *at, next;
    bool done;

    do {
        next = was + 1;
        asm volatile("lock cmpxchgq %3, %1"
                     : "=@ccz"(done), "+m"(*at), "+a"(was)
                     : "r"(next)
                     : "memory");
    } while (!done);
}
/* The low half counts, the high half must always be its complement. */
static void step_cmpxchg16b(volatile uint64_t *at)
{
    uint64_t low = at[0], high = at[1], next_low, next_high;
    bool done;

    do {
        next_low = low + 1;
        next_high = high - 1;
        asm volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*(volatile unsigned __int128 *)at), "+a"(low), "+d"(high)
                     : "b"(next_low), "c"(next_high)
                     : "memory");
    } while (!done);
}
/* A lock by BTS and BTR around a plain counter. */
static void step_bts(volatile uint64_t *at)
{
    volatile uint32_t *lock = (volatile uint32_t *)(at + 1);
    bool was;

    do
        asm volatile("lock btsl $5, %1" : "=@ccc"(was), "+m"(*lock) : : "memory");
    while (was);
    ++*at;
    asm volatile("lock btrl $5, %0" : "+m"(*lock) : : "memory", "cc");
}
/* A lock by XCHG, given back by a plain store. */
static void step_xchg(volatile uint64_t *at)
{
    volatile uint32_t *lock = (volatile uint32_t *)(at + 1);
    uint32_t one;

    do {
        one = 1;
        asm volatile("xchgl %0, %1" : "+r"(one), "+m"(*lock) : : "memory");
    } while (one);
    ++*at;
    asm volatile("" : : : "memory");
    *lock = 0;
}

static void count_together(void (*step)(volatile uint64_t *), uint64_t at, unsigned counts)
{
    struct counter c = {step, (volatile uint64_t *)at, counts};

    *c.at = 0;
    cpu_call(1, count, &c);
    count(&c);
    cpu_wait(1);
    check("the count", 2 * counts, *c.at);
}

static void counters(void)
{
    static void (*const steps[])(volatile uint64_t *) = {
        step_inc, step_add, step_sub, step_xadd, step_adc, step_cmpxchg, step_bts, step_xchg};

    if (!two_cpus())
        return;
    page_map(va, page_new(), OPEN);
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        count_together(steps[i], va + 64 * i, COUNTS);
}

static void counter_16_bytes(void)
{
    if (!two_cpus())
        return;
    if (!has_feature(1, 2, 13)) {
        skip("CMPXCHG16B is not offered");
        return;
    }
    page_map(va, page_new(), OPEN);
    count_together(step_cmpxchg16b, va, COUNTS);
    check("the other half", -2ull * COUNTS, *(uint64_t *)(va + 8));
}

/* Two counters of four bytes in one word of eight, each CPU its own, by plain and locked steps. */
static void low_half(void *argument)
{
    for (unsigned i = 0; i < COUNTS; i++)
        asm volatile("lock incl %0" : "+m"(*(volatile uint32_t *)argument) : : "memory", "cc");
}

static void neighbours(void)
{
    volatile uint32_t *halves = (volatile uint32_t *)va;

    if (!two_cpus())
        return;
    page_map(va, page_new(), OPEN);
    cpu_call(1, low_half, (void *)va);
    for (unsigned i = 0; i < COUNTS; i++)
        halves[1]++;
    cpu_wait(1);
    check("the locked half", COUNTS, halves[0]);
    check("the plain half", COUNTS, halves[1]);
}

/* Split locks (§8.1.2.2: LOCK holds over cache lines and pages alike). */
static void split_line(void)
{
    if (!two_cpus())
        return;
    page_map(va, page_new(), OPEN);
    for (unsigned offset = 57; offset < 64; offset += 3) {
        count_together(step_xadd, va + offset, 2000);
        count_together(step_cmpxchg, va + offset, 2000);
    }
}

static void split_page(void)
{
    if (!two_cpus())
        return;
    page_map(va, page_new(), OPEN);
    page_map(va + 4096, page_new(), OPEN);
    for (unsigned before = 1; before < 8; before += 3) {
        count_together(step_inc, va + 4096 - before, 1000);
        count_together(step_xadd, va + 4096 - before, 1000);
        count_together(step_cmpxchg, va + 4096 - before, 1000);
    }
}

/* ---- litmus ------------------------------------------------------------------------------------
 */

enum { INSTANCES = 256, ROUNDS = 40 };

struct instance {
    volatile uint64_t x, pad0[7], y, pad1[7];
    uint64_t r[2], pad2[6];
};

struct litmus {
    void (*side[2])(struct instance *);
    struct instance *instances;
    volatile uint32_t arrived, left;
};

static void meet(volatile uint32_t *count, uint32_t target)
{
    asm volatile("lock incl %0" : "+m"(*count) : : "memory", "cc");
    wait_for(count, target);
}

static void litmus_side(struct litmus *l, unsigned side)
{
    meet(&l->arrived, 2);
    for (unsigned i = 0; i < INSTANCES; i++)
        l->side[side](&l->instances[i]);
    meet(&l->left, 2);
}

static void litmus_other(void *argument)
{
    litmus_side(argument, 1);
}

/* How often `forbidden` was seen. */
static void litmus(void (*a)(struct instance *), void (*b)(struct instance *),
                   bool (*forbidden)(const struct instance *))
{
    static struct instance instances[INSTANCES] __attribute__((aligned(64)));
    unsigned seen = 0;

    if (!two_cpus())
        return;
    for (unsigned round = 0; round < ROUNDS && !test_failed(); round++) {
        struct litmus l = {{a, b}, instances, 0, 0};

        memset(instances, 0, sizeof(instances));
        cpu_call(1, litmus_other, &l);
        litmus_side(&l, 0);
        cpu_wait(1);
        for (unsigned i = 0; i < INSTANCES; i++)
            seen += forbidden(&instances[i]);
    }
    check("forbidden outcomes", 0, seen);
}

static void store_x_fence_load_y(struct instance *i)
{
    i->x = 1;
    asm volatile("mfence" : : : "memory");
    i->r[0] = i->y;
}
static void store_y_fence_load_x(struct instance *i)
{
    i->y = 1;
    asm volatile("mfence" : : : "memory");
    i->r[1] = i->x;
}
static void xchg_x_load_y(struct instance *i)
{
    uint64_t one = 1;

    asm volatile("xchg %0, %1" : "+r"(one), "+m"(i->x) : : "memory");
    i->r[0] = i->y;
}
static void add_y_load_x(struct instance *i)
{
    asm volatile("lock addq $1, %0" : "+m"(i->y) : : "memory", "cc");
    i->r[1] = i->x;
}
static bool both_zero(const struct instance *i)
{
    return i->r[0] == 0 && i->r[1] == 0;
}

static void store_x_store_y(struct instance *i)
{
    i->x = 1;
    i->y = 1;
}
static void load_y_load_x(struct instance *i)
{
    i->r[0] = i->y;
    i->r[1] = i->x;
}
static bool flag_without_data(const struct instance *i)
{
    return i->r[0] == 1 && i->r[1] == 0;
}

static void load_x_store_y(struct instance *i)
{
    i->r[0] = i->x;
    i->y = 1;
}
static void load_y_store_x(struct instance *i)
{
    i->r[1] = i->y;
    i->x = 1;
}
static bool both_one(const struct instance *i)
{
    return i->r[0] == 1 && i->r[1] == 1;
}

static void store_x_twice(struct instance *i)
{
    i->x = 1;
    i->x = 2;
}
static void load_x_twice(struct instance *i)
{
    i->r[0] = i->x;
    i->r[1] = i->x;
}
static bool went_back(const struct instance *i)
{
    return i->r[0] > i->r[1];
}

/* A word of 8 bytes is written and read at once, also unaligned within a cache line (§8.1.1). */
static void store_all_ones(struct instance *i)
{
    *(volatile uint64_t *)((uintptr_t)i + 3) = ~0ull;
}
static void load_torn(struct instance *i)
{
    i->r[0] = *(volatile uint64_t *)((uintptr_t)i + 3);
}
static bool torn(const struct instance *i)
{
    return i->r[0] != 0 && i->r[0] != ~0ull;
}

static void store_buffering_fence(void)
{
    litmus(store_x_fence_load_y, store_y_fence_load_x, both_zero);
}
static void store_buffering_lock(void)
{
    litmus(xchg_x_load_y, add_y_load_x, both_zero);
}
static void message_passing(void)
{
    litmus(store_x_store_y, load_y_load_x, flag_without_data);
}
static void load_buffering(void)
{
    litmus(load_x_store_y, load_y_store_x, both_one);
}
static void coherence(void)
{
    litmus(store_x_twice, load_x_twice, went_back);
}
static void not_torn(void)
{
    litmus(store_all_ones, load_torn, torn);
}

/* Own stores are seen by the storing CPU first (§8.2.3.5). */
static void forwarding(void)
{
    volatile uint64_t *x = (volatile uint64_t *)va;

    page_map(va, page_new(), OPEN);
    for (uint64_t i = 0; i < 1000; i++) {
        *x = i;
        check("what was just stored", i, *x);
        *(volatile uint8_t *)(va + 3) = 0xab;
        check("a byte within", i | 0xab000000, *x);
    }
}

/* ---- what LOCK refuses (SDM vol 2A LOCK)
 * --------------------------------------------------------- */

static void lock_refused(void)
{
    struct trap t;

    CODE(lock_mov, ".byte 0xf0; mov %rax, (%rdi); ret");
    CODE(lock_register, ".byte 0xf0; add %rax, %rax; ret");
    CODE(lock_load, ".byte 0xf0; add (%rdi), %rax; ret");
    CODE(lock_cmp, ".byte 0xf0; cmp %rax, (%rdi); ret");
    CODE(lock_nop, ".byte 0xf0; nop; ret");
    if (skip_on_tcg("QEMU's TCG takes LOCK where it is refused"))
        return;
    page_map(va, page_new(), OPEN);
    t = probe(lock_mov, va, 0);
    check_trap_at(&t, VECTOR_UD, 0, lock_mov);
    t = probe(lock_register, va, 0);
    check_trap_at(&t, VECTOR_UD, 0, lock_register);
    t = probe(lock_load, va, 0);
    check_trap_at(&t, VECTOR_UD, 0, lock_load);
    t = probe(lock_cmp, va, 0);
    check_trap_at(&t, VECTOR_UD, 0, lock_cmp);
    t = probe(lock_nop, va, 0);
    check_trap_at(&t, VECTOR_UD, 0, lock_nop);
}

static void misaligned_16(void)
{
    struct trap t;

    CODE(cmpxchg16b, "lock cmpxchg16b (%rdi); ret");
    if (!has_feature(1, 2, 13)) {
        skip("CMPXCHG16B is not offered");
        return;
    }
    page_map(va, page_new(), OPEN);
    t = probe(cmpxchg16b, va + 8, 0);
    check_trap_at(&t, VECTOR_GP, 0, cmpxchg16b);
}

static const struct test tests[] = {
    {"LOCK: counters of all kinds", counters},
    {"LOCK: CMPXCHG16B", counter_16_bytes},
    {"LOCK: neighbours in one word", neighbours},
    {"LOCK: over a cache line", split_line},
    {"LOCK: over a page", split_page},
    {"order: store buffering, MFENCE", store_buffering_fence},
    {"order: store buffering, LOCK", store_buffering_lock},
    {"order: message passing", message_passing},
    {"order: load buffering", load_buffering},
    {"order: coherence", coherence},
    {"order: no torn words", not_torn},
    {"order: own stores first", forwarding},
    {"LOCK: refused", lock_refused},
    {"LOCK: CMPXCHG16B unaligned", misaligned_16},
};

void atomic_tests(void)
{
    TESTS(tests);
}

/*
 * smc.c - code that is written while it runs: by itself, through another address, over page
 * borders, from another CPU (SDM vol 3 §8.1.3, §11.6; APM vol 2 §7.6.1).
 */
#include "cpu.h"
#include "tests64.h"

enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x3456789000, alias = TEST_BASE + 0x7777777000;

typedef uint32_t code(void);

/* mov $value, %eax; ret */
static void put_code(uint64_t at, uint32_t value)
{
    volatile uint8_t *p = (volatile uint8_t *)at;

    p[0] = 0xb8;
    for (unsigned i = 0; i < 4; i++)
        p[1 + i] = (uint8_t)(value >> i * 8);
    p[5] = 0xc3;
}

static uint32_t call(uint64_t at)
{
    return ((code *)at)();
}

static void put_value(uint64_t at, uint32_t value)
{
    *(volatile uint32_t *)(at + 1) = value;
}

static uint64_t code_page(uint64_t at)
{
    const uint64_t page = page_new();

    page_map(at, page, OPEN);
    return page;
}

/* ---- by the same CPU
 * ----------------------------------------------------------------------------- */

static void direct(void)
{
    code_page(va);
    put_code(va, 1);
    for (uint32_t i = 0; i < 5000; i++) {
        put_value(va, i);
        if (call(va) != i) {
            check("the value", i, call(va));
            return;
        }
    }
}

static void through_alias(void)
{
    const uint64_t page = code_page(va);

    page_map(alias, page, OPEN);
    put_code(va, 1);
    check("before", 1, call(va));
    put_value(alias, 2);
    check("through the alias", 2, call(va));
    put_value(page, 3);
    check("through the identity map", 3, call(va));
    check("called through the alias", 3, call(alias));
    put_value(va, 4);
    check("the alias runs the new code", 4, call(alias));
}

static void one_page_two_addresses(void)
{
    static const uint8_t lea_rip[] = {0x48, 0x8d, 0x05, 0,
                                      0,    0,    0,    0xc3}; /* lea 0(%rip), %rax; ret */
    const uint64_t page = code_page(va);

    page_map(alias, page, OPEN);
    memcpy((void *)page, lea_rip, sizeof(lea_rip));
    for (unsigned i = 0; i < 100; i++) {
        check("rip here", va + 7, ((uint64_t(*)(void))va)());
        check("rip there", alias + 7, ((uint64_t(*)(void))alias)());
    }
}

static void remapped(void)
{
    uint64_t pages[2];

    for (unsigned i = 0; i < 2; i++) {
        pages[i] = page_new();
        put_code(pages[i], i + 10);
    }
    for (unsigned i = 0; i < 200; i++) {
        page_map(va, pages[i % 2], OPEN);
        check("the page that is mapped", i % 2 + 10, call(va));
    }
}

/* Tables in which ring 3 sees the first GiB at its own addresses, for code of 32 bits. */
static uint64_t low_root(void)
{
    const uint64_t root = page_new_root();

    ((uint64_t *)root)[0] = 0;
    for (unsigned i = 0; i < 512; i++)
        *page_entry_in(root, (uint64_t)i << 21, 2) = (uint64_t)i << 21 | OPEN | PTE_PS;
    return root;
}

/* The same bytes are other instructions in another mode: 48 ff c0 is INC RAX, or DEC EAX and INC
 * EAX. */
static void two_modes(void)
{
    static const uint8_t bytes[] = {0x31, 0xc0, 0x48, 0xff, 0xc0, 0xcd, 0x80};
    struct probe p = probe_user_setup(NULL, 0, 0);

    p.code = page_new();
    p.rsp -= USER_BASE;
    memcpy((void *)p.code, bytes, sizeof(bytes));
    write_cr3(low_root());
    for (unsigned i = 0; i < 40; i++) {
        struct trap t;

        p.cs = i % 2 ? SEL_USER32 : SEL_USER;
        t = probe_run(&p);
        check_left(&t);
        check("rax", i % 2 ? 0 : 1, t.rax);
    }
}

/* The store changes the instruction right behind it. */
static void next_instruction(void)
{
    static const uint8_t text[] = {
        0x89, 0x3d, 1,    0,    0,    0, /* mov %edi, 1(%rip): the operand of the next */
        0xb8, 0x11, 0x11, 0x11, 0x11,    /* mov $.., %eax */
        0xc3,
    };

    code_page(va);
    memcpy((void *)va, text, sizeof(text));
    for (uint32_t i = 1; i < 100; i++)
        check("the new operand", i, ((uint32_t(*)(uint32_t))va)(i));
}

/* A loop that rewrites its own body each time round. */
static void loop_changes_itself(void)
{
    static const uint8_t text[] = {
        0x31, 0xc0,                   /* xor %eax, %eax */
        0xb9, 100,  0,    0,    0,    /* mov $100, %ecx */
        0x05, 0,    0,    0,    0,    /* 1: add $0, %eax: the operand changes */
        0x89, 0x0d, 0xf6, 0xff, 0xff, /* mov %ecx, -10(%rip): that operand */
        0xff, 0xff, 0xc9,             /* (end of the mov) dec %ecx */
        0x75, 0xf1,                   /* jnz 1b */
        0xc3,
    };

    code_page(va);
    memcpy((void *)va, text, sizeof(text));
    /* 0 + 100 + 99 + .. + 2 */
    check("the sum", 100 * 101 / 2 - 1, call(va));
}

static void over_border(void)
{
    const uint64_t border = va + 4096;

    for (unsigned before = 1; before <= 4; before++) { /* bytes of the MOV in the first page */
        code_page(va);
        code_page(border);
        put_code(border - before, 0x01010101);
        check("before", 0x01010101, call(border - before));
        *(volatile uint8_t *)(border - before + 4) = 0x02; /* in the second page */
        check("the second page changed", 0x02010101, call(border - before));
        *(volatile uint8_t *)(border - before + 1) = 0x03;
        check("the byte behind the opcode changed", 0x02010103, call(border - before));
        page_map(alias, *page_entry(border, 1) & PTE_ADDRESS, OPEN);
        *(volatile uint8_t *)(alias + 4 - before) = 0x05;
        check("through an alias of the second page", 0x05010103, call(border - before));
    }
}

/* The second page is exchanged, not written. */
static void border_remapped(void)
{
    const uint64_t border = va + 4096;
    uint64_t second[2];

    code_page(va);
    for (unsigned i = 0; i < 2; i++) {
        second[i] = page_new();
        page_map(border, second[i], OPEN);
        put_code(border - 2, i << 8);
    }
    for (unsigned i = 0; i < 50; i++) {
        page_map(border, second[i % 2], OPEN);
        check("the second page that is mapped", (i % 2) << 8, call(border - 2));
    }
    *page_entry(border, 1) = 0;
    invlpg(border);
    {
        const struct trap t = probe((void *)(border - 2), 0, 0);

        check_page_fault(&t, PF_FETCH, border);
        check("rip", border - 2, t.rip);
    }
}

static void store_over_border(void)
{
    const uint64_t border = va + 4096;

    code_page(va);
    code_page(border);
    put_code(border, 1);
    check("before", 1, call(border));
    *(volatile uint64_t *)(border - 6) = 0x02b8ull
                                         << 48; /* the opcode and the first byte of its operand */
    check("after", 2, call(border));
}

static void by_string(void)
{
    uint8_t text[6];

    code_page(va);
    put_code(va, 1);
    put_code((uint64_t)text, 7);
    check("before", 1, call(va));
    memcpy((void *)va, text, 6);
    check("REP MOVSB", 7, call(va));
    memset((void *)(va + 1), 3, 4);
    check("REP STOSB", 0x03030303, call(va));
}

static void by_other_stores(void)
{
    struct trap t;

    CODE(smc_push, "xchg %rdi, %rsp; push %rsi; xchg %rdi, %rsp; ret");
    CODE(smc_xadd, "lock xadd %esi, (%rdi); ret");
    CODE(smc_movups, "movq %rsi, %xmm0; movq %xmm0, (%rdi); ret");
    CODE(smc_fistp, "push %rsi; fildll (%rsp); fistpl (%rdi); pop %rsi; ret");
    CODE(smc_cmpxchg, "mov (%rdi), %eax; lock cmpxchg %esi, (%rdi); ret");
    code_page(va);
    put_code(va, 1);
    check("before", 1, call(va));
    t = probe(smc_push, va + 8, 0xc3000000aab8);
    check_no_trap(&t);
    check("PUSH", 0xaa, call(va));
    t = probe(smc_xadd, va + 1, 1);
    check("LOCK XADD", 0xab, call(va));
    t = probe(smc_movups, va, 0xc3000000bbb8);
    check("MOVQ", 0xbb, call(va));
    t = probe(smc_fistp, va + 1, 0xcc);
    check("FISTP", 0xcc, call(va));
    t = probe(smc_cmpxchg, va + 1, 0xdd);
    check("LOCK CMPXCHG", 0xdd, call(va));
}

/* A page holds code and data that changes all the time, as kernels' do. */
static void data_beside_code(void)
{
    volatile uint64_t *data = (volatile uint64_t *)(va + 2048);

    code_page(va);
    put_code(va, 5);
    for (unsigned i = 0; i < 2000; i++) {
        ++*data;
        check("the code", 5, call(va));
    }
    check("the data", 2000, *data);
}

/* ---- from another CPU (§8.1.3: the executing CPU serializes)
 * ---------------------------------------- */

struct shared {
    volatile uint32_t step;
    uint32_t rounds, wrong;
};

static void runner(void *argument)
{
    struct shared *s = argument;

    for (uint32_t i = 1; i <= s->rounds; i++) {
        if (!wait_for(&s->step, 2 * i - 1))
            return;
        cpuid(0, 0);
        if (call(va) != i)
            s->wrong++;
        s->step = 2 * i;
    }
}

static void write_and_let_run(uint64_t at)
{
    struct shared s = {.rounds = 300};

    put_code(at, 0);
    check("before", 0, call(va));
    cpu_call(1, runner, &s);
    for (uint32_t i = 1; i <= s.rounds; i++) {
        put_value(at, i);
        s.step = 2 * i - 1;
        if (!wait_for(&s.step, 2 * i))
            break;
    }
    cpu_wait(1);
    check("old code that ran", 0, s.wrong);
}

static bool two_cpus(void)
{
    if (cpus_started() >= 2)
        return true;
    skip("needs two CPUs");
    return false;
}

static void from_other_cpu(void)
{
    if (!two_cpus())
        return;
    code_page(va);
    write_and_let_run(va);
}

static void from_other_cpu_alias(void)
{
    if (!two_cpus())
        return;
    page_map(alias, code_page(va), OPEN);
    write_and_let_run(alias);
}

/* The other CPU runs the code all the time while an aligned operand changes (§8.1.3 asks for more;
 * what processors do is old or new, never anything else), and at the end sees the last one. */
static void endless(void *argument)
{
    struct shared *s = argument;

    for (uint32_t last = 0; last != s->rounds;) {
        const uint32_t got = call(va + 3); /* the operand is at a multiple of 4 */

        cpuid(0, 0);
        if (got < last || got > s->rounds)
            s->wrong++;
        last = got;
        if (s->wrong)
            break;
    }
}

static void changing_under_other_cpu(void)
{
    struct shared s = {.rounds = 500};

    if (!two_cpus())
        return;
    code_page(va);
    put_code(va + 3, 0);
    cpu_call(1, endless, &s);
    for (uint32_t i = 1; i <= s.rounds; i++) {
        put_value(va + 3, i);
        for (unsigned k = 0; k < 50; k++)
            asm volatile("pause");
    }
    cpu_wait(1);
    check("values out of order", 0, s.wrong);
}

static const struct test tests[] = {
    {"SMC: direct", direct},
    {"SMC: through an alias", through_alias},
    {"SMC: one page at two addresses", one_page_two_addresses},
    {"SMC: the page is remapped", remapped},
    {"SMC: one page in two modes", two_modes},
    {"SMC: the next instruction", next_instruction},
    {"SMC: a loop changes itself", loop_changes_itself},
    {"SMC: an instruction over a border", over_border},
    {"SMC: over a border, remapped", border_remapped},
    {"SMC: a store over a border", store_over_border},
    {"SMC: string instructions", by_string},
    {"SMC: stores of other kinds", by_other_stores},
    {"SMC: data beside code", data_beside_code},
    {"SMC: from another CPU", from_other_cpu},
    {"SMC: from another CPU through an alias", from_other_cpu_alias},
    {"SMC: changing under another CPU", changing_under_other_cpu},
};

void smc_tests(void)
{
    TESTS(tests);
}

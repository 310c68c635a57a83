/*
 * segment.c - what is left of segments in 64-bit mode, and what ring 3 may not do: far transfers,
 * call gates, loads of segment registers, FS and GS bases, I/O permission, privileged instructions,
 * addresses that are not canonical, #AC (SDM vol 3 §3.4.4, §5.8, §6.15; vol 1 §19.5).
 */
#include "cpu.h"
#include "tests64.h"

#define NOT_CANONICAL      0x0000800000000000ull
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
enum { OPEN = PTE_P | PTE_W | PTE_U };
static const uint64_t va = TEST_BASE + 0x5678901000;

/* ---- addresses
 * ------------------------------------------------------------------------------------- */

CODE(seg_load, "mov (%rdi), %rax; ret");
CODE(seg_load_stack, "xchg %rdi, %rbp; 1: mov (%rbp), %rax; xchg %rdi, %rbp; ret");
CODE(seg_push, "xchg %rdi, %rsp; 1: push %rax; xchg %rdi, %rsp; ret");
CODE(seg_call_indirect, "call *%rdi; ret");
CODE(seg_jump, "jmp *%rdi");
CODE(user_seg_load, "mov (%rdi), %rax; int $0x80");

static void not_canonical(void)
{
    struct trap t = probe(seg_load, NOT_CANONICAL, 0);

    check_trap_at(&t, VECTOR_GP, 0, seg_load);
    t = probe(seg_load, 0x0000fffffffffff9 + 8, 0);
    check_trap(&t, VECTOR_GP, 0);
    t = probe(seg_load, 0x00007ffffffffffc,
              0); /* its end is not; QEMU's TCG sees that after paging */
    check("vector over the border", option("tcg") ? VECTOR_PF : VECTOR_GP, t.vector);
    t = probe_user(user_seg_load, 1ull << 55, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_seg_load);
    if (option("tcg")) /* QEMU's TCG knows no #SS there */
        return;
    t = probe(seg_load_stack, NOT_CANONICAL, 0); /* addresses from RBP and RSP: #SS */
    check_trap(&t, VECTOR_SS, 0);
    t = probe(seg_push, NOT_CANONICAL + 0x100, 0);
    check_trap(&t, VECTOR_SS, 0);
}

static void branch_not_canonical(void)
{
    struct trap t = probe(seg_jump, NOT_CANONICAL, 0);

    check_trap(&t, VECTOR_GP, 0);
    if (!is_amd() && !option("tcg"))
        check("rip: the branch faults", (uint64_t)seg_jump, t.rip);
    t = probe(seg_call_indirect, 0xfff7ffffffffffff, 0);
    check_trap(&t, VECTOR_GP, 0);
}

static void wrap_of_4_gib(void)
{
    struct trap t;

    CODE(address_32, "mov $0xffffffff, %edi; movl $0x5a, 0x1001(%rsi); addr32 mov 0x1001(%edi, "
                     "%esi), %eax; ret");
    t = probe(address_32, 0, page_new() - 0x1000); /* 32-bit addresses wrap: -1 + page + 1 */
    check_no_trap(&t);
    t = probe(seg_load, ~7ull,
              0); /* the end of the address space does not: page 0 of nothing is mapped there */
    check_page_fault(&t, 0, ~7ull);
}

/* ---- FS and GS
 * ------------------------------------------------------------------------------------- */

static void bases(void)
{
    struct trap t;

    CODE(load_fs, "mov %fs:8, %rax; ret");
    CODE(load_gs, "mov %gs:8, %rax; ret");
    CODE(swap_gs, "swapgs; mov %gs:8, %rax; swapgs; ret");
    CODE(user_swapgs, "swapgs");
    CODE(load_ds, "mov %ds:8(%rdi), %rax; ret");
    const uint64_t a = page_new(), b = page_new();

    *(volatile uint64_t *)(a + 8) = 1;
    *(volatile uint64_t *)(b + 8) = 2;
    wrmsr(MSR_FS_BASE, a);
    wrmsr(MSR_GS_BASE, b);
    wrmsr(MSR_KERNEL_GS_BASE, a);
    t = probe(load_fs, 0, 0);
    check("FS", 1, t.rax);
    t = probe(load_gs, 0, 0);
    check("GS", 2, t.rax);
    t = probe(swap_gs, 0, 0);
    check("SWAPGS", 1, t.rax);
    check("swapped back", b, rdmsr(MSR_GS_BASE));
    t = probe_user(user_swapgs, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_swapgs);
    wrmsr(MSR_FS_BASE, va + 0x1000);
    t = probe(load_fs, 0, 0);
    check_page_fault(&t, 0, va + 0x1008);
    gdt_set(SEL_FREE,
            0x00cf93000000ffff | 0x230000ull << 16); /* a base that DS has not in 64-bit mode */
    asm volatile("mov %0, %%ds" : : "r"((uint32_t)SEL_FREE));
    t = probe(load_ds, a, 0);
    check("DS", 1, t.rax);
    asm volatile("mov %0, %%fs" : : "r"((uint32_t)SEL_FREE)); /* but FS takes its 32 bits */
    check("FS's base of a descriptor", 0x230000, rdmsr(MSR_FS_BASE));
}

static void null_segments(void)
{
    struct trap t;

    CODE(load_null, "xor %eax, %eax; mov %eax, %ds; mov %eax, %es; mov (%rdi), %rax; ret");
    CODE(null_ss,
         "xor %eax, %eax; mov %eax, %ss; mov $0x10, %ecx; mov %ecx, %ss; mov $7, %eax; ret");
    CODE(user_null_ss, "xor %eax, %eax; mov %eax, %ss; int $0x80");
    t = probe(load_null, page_new(), 0);
    check_no_trap(&t);
    t = probe(null_ss, 0, 0); /* ring 0 of 64-bit mode may */
    check_no_trap(&t);
    t = probe_user(user_null_ss, 0, 0);
    check_trap(&t, VECTOR_GP, 0);
}

static void segment_loads(void)
{
    struct trap t;

    CODE(load_ds_of, "mov %edi, %ds; ret");
    CODE(load_ss_of, "mov %edi, %ss; ret");
    CODE(user_load_ds_of, "mov %edi, %ds; int $0x80");
    CODE(load_cs_of, ".byte 0x8e, 0xcf; ret"); /* mov %edi, %cs */
    CODE(load_6_of, ".byte 0x8e, 0xf7; ret");  /* mov %edi, segment register 6 */
    t = probe(load_ds_of, 0xfff8, 0);
    check_trap_at(&t, VECTOR_GP, 0xfff8, load_ds_of);
    t = probe(load_ds_of, 4, 0); /* the LDT, which is not there */
    check_trap(&t, VECTOR_GP, 4);
    t = probe(load_ss_of, SEL_CODE, 0);
    check_trap_at(&t, VECTOR_GP, SEL_CODE, load_ss_of);
    t = probe(load_ss_of, SEL_USER_DATA, 0); /* another ring's */
    check_trap(&t, VECTOR_GP, SEL_USER_DATA & ~3);
    t = probe_user(user_load_ds_of, SEL_DATA, 0); /* DPL 0 */
    check_trap_at(&t, VECTOR_GP, SEL_DATA, user_load_ds_of);
    t = probe(load_ds_of, SEL_TSS, 0); /* a system segment */
    check_trap(&t, VECTOR_GP, SEL_TSS);
    gdt_set(SEL_FREE, gdt_get(SEL_DATA) & ~(1ull << 47));
    t = probe(load_ds_of, SEL_FREE, 0);
    check_trap(&t, VECTOR_NP, SEL_FREE);
    t = probe(load_ss_of, SEL_FREE, 0);
    check_trap(&t, VECTOR_SS, SEL_FREE);
    gdt_set(SEL_FREE, 0x00cf99000000ffff); /* code that may not be read */
    t = probe(load_ds_of, SEL_FREE, 0);
    check_trap(&t, VECTOR_GP, SEL_FREE);
    if (option("tcg")) /* QEMU 10's TCG takes the two below a hypervisor */
        return;
    t = probe(load_cs_of, SEL_CODE, 0);
    check_trap_at(&t, VECTOR_UD, 0, load_cs_of);
    t = probe(load_6_of, SEL_DATA, 0);
    check_trap_at(&t, VECTOR_UD, 0, load_6_of);
}

static void accessed_bit(void)
{
    gdt_set(SEL_FREE, gdt_get(SEL_DATA) & ~(1ull << 40));
    asm volatile("mov %0, %%es" : : "r"((uint32_t)SEL_FREE));
    check("set by a load", 1, gdt_get(SEL_FREE) >> 40 & 1);
}

/* ---- far transfers
 * --------------------------------------------------------------------------------- */

static struct far_pointer {
    uint64_t offset;
    uint16_t selector;
} __attribute__((packed)) target;

CODE(far_jump, ".byte 0x48; ljmp *(%rdi)");
CODE(far_call, ".byte 0x48; lcall *(%rdi); ret");
CODE(far_end, "int $0x81");
CODE(far_return, "mov $7, %eax; lretq");

static void far_transfers(void)
{
    struct trap t;

    target = (struct far_pointer){(uint64_t)far_return, SEL_CODE};
    t = probe(far_call, (uint64_t)&target, 0);
    if (is_amd())
        return; /* AMD's have no 64-bit offset there: REX.W is ignored, and the selector lies
                   elsewhere */
    check_no_trap(&t);
    check("rax", 7, t.rax);
    target.selector = SEL_DATA;
    t = probe(far_jump, (uint64_t)&target, 0);
    check_trap_at(&t, VECTOR_GP, SEL_DATA, far_jump);
    target.selector = 0;
    t = probe(far_jump, (uint64_t)&target, 0);
    check_trap(&t, VECTOR_GP, 0);
}

/* A call gate of 64-bit mode: 16 bytes. */
static void call_gate(unsigned selector, uint64_t to, unsigned dpl)
{
    gdt_set(selector, (to & 0xffff) | (uint64_t)SEL_CODE << 16 | (uint64_t)(0x8c | dpl << 5) << 40 |
                          (to >> 16 & 0xffff) << 48);
    gdt_set(selector + 8, to >> 32);
}

CODE(user_gate_call, "lcall *(%rdi); int $0x80");
CODE(gate_body, "mov %cs, %eax; mov %rsp, %rbx; lretq");

static struct {
    uint32_t offset;
    uint16_t selector;
} gate_pointer;

static void call_gates(void)
{
    struct trap t;

    gate_pointer.selector = SEL_FREE | 3;
    call_gate(SEL_FREE, (uint64_t)gate_body, 3);
    t = probe_user(user_gate_call, user_address(&gate_pointer), 0);
    check_left(&t);
    check("cs in the gate's code", SEL_CODE, t.rax);
    check("its stack: RSP0 less the frame", cpu_tss()->rsp[0] - 32, t.rbx);
    check("cs again", SEL_USER, t.cs);
    call_gate(SEL_FREE, (uint64_t)gate_body, 0);
    t = probe_user(user_gate_call, user_address(&gate_pointer), 0);
    check_trap_at(&t, VECTOR_GP, SEL_FREE, user_gate_call);
    call_gate(SEL_FREE, (uint64_t)gate_body, 3);
    gdt_set(SEL_FREE, gdt_get(SEL_FREE) & ~(1ull << 47));
    t = probe_user(user_gate_call, user_address(&gate_pointer), 0);
    check_trap(&t, VECTOR_NP, SEL_FREE);
    call_gate(SEL_FREE, NOT_CANONICAL, 3);
    t = probe_user(user_gate_call, user_address(&gate_pointer), 0);
    check_trap(&t, VECTOR_GP, 0);
}

/* ---- I/O permission (vol 1 §19.5.2)
 * ----------------------------------------------------------------- */

CODE(user_in, "mov %edi, %edx; in %dx, %al; int $0x80");
CODE(user_in_4, "mov %edi, %edx; in %dx, %eax; int $0x80");
CODE(user_cli, "cli; int $0x80");

static void io_permission(void)
{
    struct tss *t = cpu_tss();
    struct trap r;
    struct probe p;

    r = probe_user(user_in, 0x80, 0);
    check_trap(&r, VECTOR_GP, 0); /* no bitmap */
    memset(t->io, 0xff, sizeof(t->io));
    t->io_map = TSS_IO_MAP;
    t->io[0x80 / 8] = 0xfe; /* port 0x80 only */
    t->io[0x90 / 8] = 0xf0; /* 0x90 to 0x93 */
    tss_set_size(TSS_IO_MAP + 0x100 / 8 + 1);
    r = probe_user(user_in, 0x80, 0);
    check_left(&r);
    r = probe_user(user_in, 0x81, 0);
    check_trap(&r, VECTOR_GP, 0);
    r = probe_user(user_in_4, 0x80, 0);
    check_trap(&r, VECTOR_GP, 0);
    r = probe_user(user_in_4, 0x90, 0);
    check_left(&r);
    r = probe_user(user_in_4, 0x91, 0);
    check_trap(&r, VECTOR_GP, 0);
    t->io[0x100 / 8] = 0; /* the last byte that the limit covers; two are read at once */
    r = probe_user(user_in, 0x100, 0);
    check_trap(&r, VECTOR_GP, 0);
    p = probe_user_setup(user_in, 0x81, 0);
    p.rflags |= RFLAGS_IOPL;
    r = probe_run(&p);
    check_left(&r);
}

static void iopl(void)
{
    struct trap t = probe_user(user_cli, 0, 0);
    struct probe p = probe_user_setup(user_cli, 0, 0);

    check_trap_at(&t, VECTOR_GP, 0, user_cli);
    p.rflags |= RFLAGS_IOPL;
    t = probe_run(&p);
    check_left(&t);
}

/* ---- privileged instructions
 * ------------------------------------------------------------------------ */

CODE(user_hlt, "hlt");
CODE(user_rdmsr, "rdmsr");
CODE(user_wrmsr, "wrmsr");
CODE(user_lgdt, "lgdt (%rdi)");
CODE(user_lidt, "lidt (%rdi)");
CODE(user_lldt, "lldt %di");
CODE(user_ltr, "ltr %di");
CODE(user_mov_cr0, "mov %cr0, %rax");
CODE(user_set_cr0, "mov %rax, %cr0");
CODE(user_mov_cr8, "mov %cr8, %rax");
CODE(user_clts, "clts");
CODE(user_lmsw, "lmsw %ax");
CODE(user_invlpg, "invlpg (%rdi)");
CODE(user_invd, "invd");
CODE(user_wbinvd, "wbinvd");
CODE(user_int3, "int3");
CODE(user_sgdt, "sgdt -16(%rsp); int $0x80");

static void check_refused_in_ring_3(const char *code)
{
    const struct trap t = probe_user(code, 0, 0);

    check_trap_at(&t, VECTOR_GP, 0, code);
}

static void privileged(void)
{
    static const char *const all[] = {
        user_hlt,     user_rdmsr,   user_wrmsr,   user_lgdt, user_lidt, user_lldt,  user_ltr,
        user_mov_cr0, user_set_cr0, user_mov_cr8, user_clts, user_lmsw, user_invlpg};

    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        check_refused_in_ring_3(all[i]);
    if (option("tcg")) /* QEMU 10's TCG asks the hypervisor before it looks at the ring */
        return;
    check_refused_in_ring_3(user_invd);
    check_refused_in_ring_3(user_wbinvd);
}

static void umip(void)
{
    struct trap t = probe_user(user_sgdt, 0, 0);

    check_left(&t);
    if (!has_feature(7, 2, 2)) {
        skip("UMIP is not offered");
        return;
    }
    write_cr4(read_cr4() | CR4_UMIP);
    t = probe_user(user_sgdt, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_sgdt);
}

static void tsd(void)
{
    struct trap t;

    CODE(user_rdtsc, "rdtsc; int $0x80");
    CODE(user_rdtscp, "rdtscp; int $0x80");
    CODE(kernel_rdtsc, "rdtsc; ret");
    t = probe_user(user_rdtsc, 0, 0);
    check_left(&t);
    write_cr4(read_cr4() | CR4_TSD);
    t = probe_user(user_rdtsc, 0, 0);
    check_trap_at(&t, VECTOR_GP, 0, user_rdtsc);
    if (has_feature(0x80000001, 3, 27)) {
        t = probe_user(user_rdtscp, 0, 0);
        check_trap_at(&t, VECTOR_GP, 0, user_rdtscp);
    }
    t = probe(kernel_rdtsc, 0, 0);
    check_no_trap(&t);
}

/* ---- #AC (§6.15, vector 17)
 * ------------------------------------------------------------------------- */

static void alignment_check(void)
{
    const uint64_t page = page_new();
    struct probe p;
    struct trap t;

    if (skip_on_tcg("QEMU's TCG checks no alignment"))
        return;
    page_map(va, page, OPEN);
    p = probe_user_setup(user_seg_load, va + 1, 0);
    p.rflags |= RFLAGS_AC;
    t = probe_run(&p);
    check_left(&t); /* CR0.AM is clear */
    write_cr0(read_cr0() | CR0_AM);
    t = probe_run(&p);
    check_trap_at(&t, VECTOR_AC, 0, user_seg_load);
    p.a = va + 8;
    t = probe_run(&p);
    check_left(&t);
    p.a = va + 4; /* 8 bytes want 8 */
    t = probe_run(&p);
    check_trap(&t, VECTOR_AC, 0);
    p.rflags &= ~(uint64_t)RFLAGS_AC;
    t = probe_run(&p);
    check_left(&t);
    p.rflags |= RFLAGS_AC;
    p.a = va + 4095; /* the second page is missing: the page fault... */
    t = probe_run(&p);
    check("vector: alignment before paging", VECTOR_AC, t.vector);
    t = probe(seg_load, va + 1, 0); /* never in ring 0 */
    check_no_trap(&t);
}

static const struct test tests[] = {
    {"address: not canonical", not_canonical},
    {"address: branch to one that is not canonical", branch_not_canonical},
    {"address: 32-bit addresses wrap", wrap_of_4_gib},
    {"segment: bases of FS and GS", bases},
    {"segment: null selectors", null_segments},
    {"segment: loads that are refused", segment_loads},
    {"segment: the accessed bit", accessed_bit},
    {"segment: far jumps and calls", far_transfers},
    {"segment: call gates", call_gates},
    {"I/O: permission bitmap", io_permission},
    {"I/O: IOPL", iopl},
    {"ring 3: privileged instructions", privileged},
    {"ring 3: UMIP", umip},
    {"ring 3: RDTSC with TSD", tsd},
    {"ring 3: alignment check", alignment_check},
};

void segment_tests(void)
{
    TESTS(tests);
}

/*
 * task32.c - hardware task switches (SDM vol 3 chapter 7; APM vol 2 chapter 12): by JMP, CALL, IRET
 * and task gates; what they save, mark and refuse.
 */
#include "cpu32.h"
#include "tests32.h"

enum {
    TASK = SEL_FREE,
    GATE = SEL_FREE + 8,
    LDT = SEL_FREE + 16,
    BAD = SEL_FREE + 24,
    TSS_DESCRIPTOR = DESC_P | DESC_TSS
};

static struct tss task;
static uint8_t task_stack[1024] __attribute__((aligned(16)));

CODE(task_jump, "mov %esi, %ebx; ljmp *(%edi); ret");
CODE(task_call, "mov %esi, %ebx; lcall *(%edi); mov $0x77, %eax; ret");
CODE(user_task_call, "lcall *(%edi); int $0x80");
/* Ends the probe inside the new task. */
CODE(task_end, "int $0x81");
/* Returns to the old one, and starts behind it the next time. */
CODE(task_iret, "1: mov $0x5a5a, %edx; iret; mov $0xa5a5, %edx; iret; jmp 1b");
static struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) target;

static void task_set_up(const void *code)
{
    task = (struct tss){
        .eip = (uint32_t)code,
        .eflags = RFLAGS_FIXED | RFLAGS_CF,
        .eax = 0xa1,
        .ecx = 0xc1,
        .edx = 0xd1,
        .ebx = 0xb1,
        .esp = (uint32_t)task_stack + sizeof(task_stack),
        .ebp = 0xe1,
        .esi = 0x51,
        .edi = 0xf1,
        .cs = SEL_CODE,
        .ss = SEL_DATA,
        .ds = SEL_DATA,
        .es = SEL_DATA,
        .fs = SEL_DATA,
        .gs = SEL_USER_DATA,
        .ss0 = SEL_DATA,
        .esp0 = main_tss.esp0,
        .io_map = sizeof(task),
    };
    gdt_set(TASK, descriptor((uint32_t)&task, TSS_SIZE - 1, TSS_DESCRIPTOR));
}

static struct trap switch_to(const char *code, uint16_t selector, uint32_t b)
{
    target.offset = 0xdeadbeef; /* no meaning */
    target.selector = selector;
    return probe(code, (uint32_t)&target, b);
}

static bool is_busy(unsigned selector)
{
    return gdt_get(selector) >> 41 & 1;
}

/* ---- JMP
 * ------------------------------------------------------------------------------------------- */

static void jump(void)
{
    struct trap t;

    task_set_up(task_end);
    t = switch_to(task_jump, TASK, 0xbeef);
    check("vector", 0x81, t.vector);
    check("eax", 0xa1, t.eax);
    check("ecx", 0xc1, t.ecx);
    check("edx", 0xd1, t.edx);
    check("ebx", 0xb1, t.ebx);
    check("ebp", 0xe1, t.ebp);
    check("esi", 0x51, t.esi);
    check("edi", 0xf1, t.edi);
    check("gs", SEL_USER_DATA, t.gs & 0xffff);
    check("eflags: no NT", RFLAGS_FIXED | RFLAGS_CF, t.eflags);
    check("its stack", (uint32_t)task_stack + sizeof(task_stack) - 12, t.frame + 4);
    check("TR", TASK, t.tr);
    check_true("the new one is busy", is_busy(TASK));
    check_true("the old one is not", !is_busy(SEL_TSS));
    check("saved eip: behind JMP", (uint32_t)task_jump + 4, main_tss.eip);
    check("saved ebx", 0xbeef, main_tss.ebx);
    check("saved cs", SEL_CODE, main_tss.cs & 0xffff);
    check("saved ss", SEL_DATA, main_tss.ss & 0xffff);
    check("no link", 0, task.link & 0xffff);
    check("CR0.TS", CR0_TS, read_cr0() & CR0_TS);
}

/* ---- CALL and IRET
 * ---------------------------------------------------------------------------------- */

static void call_and_return(void)
{
    struct trap t;

    task_set_up(task_iret);
    t = switch_to(task_call, TASK, 1);
    check_no_trap(&t);
    check("came back", 0x77, t.eax);
    check("TR", SEL_TSS, read_tr());
    check("the link", SEL_TSS, task.link & 0xffff);
    check_true("the old one is busy", is_busy(SEL_TSS));
    check_true("the new one no longer is", !is_busy(TASK));
    check("edx in the task", 0x5a5a, task.edx);
    check("saved eip: behind IRET", (uint32_t)task_iret + 6, task.eip);
    check("saved eflags: without NT", 0, task.eflags & RFLAGS_NT);
    asm volatile("clts");
    t = switch_to(task_call, TASK, 1); /* goes on where it was */
    check_no_trap(&t);
    check("edx in the task, again", 0xa5a5, task.edx);
}

static void call_sets_nt(void)
{
    struct trap t;

    task_set_up(task_end);
    t = switch_to(task_call, TASK, 1);
    check("vector", 0x81, t.vector);
    check("NT", RFLAGS_NT, t.eflags & RFLAGS_NT);
    check_true("both are busy", is_busy(TASK) && is_busy(SEL_TSS));
    check("NT was not saved in the old one", 0, main_tss.eflags & RFLAGS_NT);
}

/* ---- task gates
 * --------------------------------------------------------------------------------------- */

static void gate_in_the_gdt(void)
{
    struct trap t;

    task_set_up(task_iret);
    gdt_set(GATE, call_gate(TASK, 0, 0, DESC_P | DESC_TASK_GATE | DESC_DPL3));
    t = switch_to(task_call, GATE, 1);
    check_no_trap(&t);
    check("came back", 0x77, t.eax);
    target.selector = GATE | 3;
    t = probe_user(user_task_call, (uint32_t)&target, 0); /* the TSS's own DPL does not count */
    check_left(&t);
    check("cs", SEL_USER, t.cs);
    target.selector = TASK;
    t = probe_user(user_task_call, (uint32_t)&target, 0);
    check_trap_at(&t, VECTOR_GP, TASK, user_task_call);
}

static void gate_in_the_idt(void)
{
    struct trap t;

    CODE(int_70, "int $0x70; mov $0x77, %eax; ret");
    task_set_up(task_iret);
    gate_set(0x70, 0, TASK, GATE_TASK, 0);
    t = probe(int_70, 0, 0);
    check_no_trap(&t);
    check("came back", 0x77, t.eax);
    check("the link", SEL_TSS, task.link & 0xffff);
    check("saved eip: behind INT", (uint32_t)int_70 + 2, main_tss.eip);
    check("TR", SEL_TSS, read_tr());
}

static void gate_for_a_fault(void)
{
    struct trap t;

    CODE(bad_load, "mov $0x1ff8, %ecx; mov %ecx, %fs; ret");
    task_set_up(task_end);
    gate_set(VECTOR_GP, 0, TASK, GATE_TASK, 0);
    t = probe(bad_load, 0, 0);
    check("vector", 0x81, t.vector);
    check("the error code on its stack", 0x1ff8, *(uint32_t *)(t.frame + 16));
    check("saved eip: at the load", (uint32_t)bad_load + 5, main_tss.eip);
    check("saved ecx", 0x1ff8, main_tss.ecx);
    check("NT", RFLAGS_NT, t.eflags & RFLAGS_NT);
}

/* A double fault leaves a ring 0 without a stack by way of a task. */
static void double_fault(void)
{
    struct trap t;

    CODE(push_nowhere, "mov %edi, %ss; xor %esp, %esp; push %eax");
    if (skip_on_tcg("QEMU's TCG checks no limits"))
        return;
    task_set_up(task_end);
    gate_set(VECTOR_DF, 0, TASK, GATE_TASK, 0);
    gdt_set(BAD, descriptor(0x1000, 15, DESC_P | DESC_32 | DESC_DATA)); /* a stack of 16 bytes */
    t = probe(push_nowhere, BAD, 0); /* #SS, whose frame does not fit either */
    check("vector", 0x81, t.vector);
    check("the error code on its stack", (uint32_t)task_stack + sizeof(task_stack) - 4 - 12,
          t.frame + 4);
    check("saved eip: at PUSH", (uint32_t)push_nowhere + 4, main_tss.eip);
    check("saved ss", BAD, main_tss.ss & 0xffff);
    check("saved esp", 0, main_tss.esp);
    check("the link", SEL_TSS, task.link & 0xffff);
}

/* ---- what is refused (table 7-1)
 * ------------------------------------------------------------------------ */

static void refused(void)
{
    struct trap t;

    task_set_up(task_end);
    t = switch_to(task_jump, SEL_TSS, 0); /* busy */
    check_trap(&t, VECTOR_GP, SEL_TSS);
    gdt_set(TASK, descriptor((uint32_t)&task, TSS_SIZE - 1, TSS_DESCRIPTOR & ~DESC_P));
    t = switch_to(task_jump, TASK, 0);
    check_trap(&t, VECTOR_NP, TASK);
    check("TR", SEL_TSS, read_tr());
    gdt_set(TASK, descriptor((uint32_t)&task, TSS_SIZE - 2, TSS_DESCRIPTOR));
    t = switch_to(task_jump, TASK, 0);
    check_trap(&t, VECTOR_TS, TASK);
    check("eip: still in the old task", (uint32_t)task_jump + 2, t.eip);
    gdt_set(TASK, descriptor((uint32_t)&task, TSS_SIZE - 1, TSS_DESCRIPTOR));
    t = switch_to(task_jump, TASK | 4, 0); /* a TSS in the LDT */
    check_trap(&t, VECTOR_GP, TASK | 4);
    check_true("nobody became busy", !is_busy(TASK));
}

/* Segments are loaded when the switch has been made: their faults are the new task's. */
static void refused_segments(void)
{
    static const struct {
        const char *name;
        uint16_t cs, ss, ds, vector, error;
    } cases[] = {
        {"cs: null", 0, SEL_DATA, SEL_DATA, VECTOR_TS, 0},
        {"cs: data", SEL_DATA, SEL_DATA, SEL_DATA, VECTOR_TS, SEL_DATA},
        {"ss: null", SEL_CODE, 0, SEL_DATA, VECTOR_TS, 0},
        {"ss: code", SEL_CODE, SEL_CODE, SEL_DATA, VECTOR_TS, SEL_CODE},
        {"ds: beyond the GDT", SEL_CODE, SEL_DATA, 0xff0, VECTOR_TS, 0xff0},
        {"ds: not present", SEL_CODE, SEL_DATA, BAD, VECTOR_NP, BAD},
        {"ss: not present", SEL_CODE, BAD, SEL_DATA, VECTOR_SS, BAD},
    };

    if (skip_on_tcg("QEMU's TCG and KVM's task switch differ in which task faults"))
        return;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static struct tss taker;
        struct trap t;

        cpu_reset();
        task_set_up(task_end);
        gdt_set(BAD, descriptor(0, 0xfffff, (DESC_32 | DESC_4K) | DESC_DATA));
        task.cs = cases[i].cs;
        task.ss = cases[i].ss;
        task.ds = cases[i].ds;
        /* A task of its own takes the fault: the new one's stack may be what is broken. */
        taker = task;
        taker.cs = SEL_CODE;
        taker.ss = taker.ds = SEL_DATA;
        taker.eip = (uint32_t)task_end;
        gdt_set(GATE, descriptor((uint32_t)&taker, TSS_SIZE - 1, TSS_DESCRIPTOR));
        gate_set(cases[i].vector, 0, GATE, GATE_TASK, 0);
        t = switch_to(task_jump, TASK, 0);
        check(cases[i].name, 0x81, t.vector);
        check(cases[i].name, cases[i].error, *(uint32_t *)(t.frame + 16));
        check(cases[i].name, TASK, taker.link & 0xffff);
        check(cases[i].name, (uint32_t)task_end, task.eip);
    }
}

/* ---- the T bit (§17.3.1.5), the LDT, NT without a link
 * ----------------------------------------------------- */

static void debug_trap(void)
{
    struct trap t;

    if (skip_on_tcg("KVM's task switch makes no such trap"))
        return;
    task_set_up(task_end);
    task.trap = 1;
    write_dr6(0);
    t = switch_to(task_jump, TASK, 0);
    check_trap(&t, VECTOR_DB, 0);
    check("eip: before the new task's first instruction", (uint32_t)task_end, t.eip);
    check("dr6: BT", 1 << 15, t.dr6 & 0xe00f);
}

static void local_table(void)
{
    static uint64_t ldt[2] __attribute__((aligned(8)));
    struct trap t;

    task_set_up(task_end);
    ldt[1] = descriptor(0, 0xfffff, DESC_P | DESC_32 | DESC_4K | DESC_DATA);
    gdt_set(LDT, descriptor((uint32_t)ldt, sizeof(ldt) - 1, DESC_P | DESC_LDT));
    task.ldt = LDT;
    task.fs = 8 | 4;
    t = switch_to(task_jump, TASK, 0);
    check("vector", 0x81, t.vector);
    check("fs", 8 | 4, t.fs & 0xffff);
}

static void return_to_task_not_busy(void)
{
    struct trap t;

    CODE(iret_nt, "pushf; orl $0x4000, (%esp); popf; 1: iret");
    task_set_up(task_end);
    main_tss.link = TASK; /* not busy: #TS */
    t = probe(iret_nt, 0, 0);
    check_trap(&t, VECTOR_TS, TASK);
    main_tss.link = SEL_DATA;
    t = probe(iret_nt, 0, 0);
    check_trap(&t, VECTOR_TS, SEL_DATA);
}

static const struct test tests[] = {
    {"task: JMP", jump},
    {"task: CALL and IRET", call_and_return},
    {"task: CALL sets NT", call_sets_nt},
    {"task: gate in the GDT", gate_in_the_gdt},
    {"task: gate in the IDT", gate_in_the_idt},
    {"task: a fault by a task gate", gate_for_a_fault},
    {"task: double fault without a stack", double_fault},
    {"task: TSS that are refused", refused},
    {"task: segments that are refused", refused_segments},
    {"task: the T bit", debug_trap},
    {"task: LDT", local_table},
    {"task: IRET to a task that is not busy", return_to_task_not_busy},
};

void task32_tests(void)
{
    TESTS(tests);
}

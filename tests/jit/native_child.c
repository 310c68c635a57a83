/*
 * native_child.c - the program that executes sequences on the host's CPU (native.h).
 *
 * It has no libc and after its start no memory but the window, the control page and its own image
 * at an address that no sequence knows. A sequence is entered by returning from a signal and ends
 * with the next signal, so the kernel loads and stores all registers exactly, and tells the
 * exception. System calls are only possible from here: the filter looks at the address.
 */
#include <asm/prctl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "window.h"

#define ADDRESS_END 0x7ffffffff000ull

extern uint8_t __executable_start[], _end[];
void child_main(void);
void on_signal(int signal, siginfo_t *info, ucontext_t *context);
extern void signal_entry(void), signal_return(void);
extern const uint8_t syscall_end[];

/*
 * The kernel leaves AC as the sequence had it, which C here expects clear, and the return from a
 * signal leaves NT and ID as they are: the next sequence finds them clear.
 */
__asm__(".globl _start, signal_entry, signal_return, raw_syscall, syscall_end\n"
        "_start: lea start_stack_end(%rip), %rsp\n"
        "call child_main\n"
        "signal_entry: pushfq\n"
        "andl $~0x244000, (%rsp)\n"
        "popfq\n"
        "jmp on_signal\n"
        "signal_return: mov $15, %eax\n"
        "syscall\n"
        "raw_syscall: mov %rdi, %rax\n"
        "mov %rsi, %rdi\n"
        "mov %rdx, %rsi\n"
        "mov %rcx, %rdx\n"
        "mov %r8, %r10\n"
        "mov %r9, %r8\n"
        "mov 8(%rsp), %r9\n"
        "syscall\n"
        "syscall_end: ret\n"
        ".bss\n"
        ".balign 16\n"
        ".skip 16384\n"
        "start_stack_end: .text\n");
long raw_syscall(long number, long a, long b, long c, long d, long e, long f);

/* What gcc may call. */
void *memcpy(void *to, const void *from, size_t len)
{
    void *start = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
    return start;
}

void *memset(void *to, int value, size_t len)
{
    void *start = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(value) : "memory");
    return start;
}

static _Noreturn void stop(int code)
{
    for (;;)
        raw_syscall(SYS_exit_group, code, 0, 0, 0, 0, 0);
}

static long must(long result, int step)
{
    if (result < 0 && result > -4096)
        stop(step);
    return result;
}

/* ---- one sequence after the other */

static struct control *const control = (struct control *)CHILD_CONTROL;
static uint64_t first_frame; /* the first signal ends no sequence */

/* As the kernel orders them, in the order of instructions. */
static const uint8_t greg_order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15};

static void take(struct outcome *out, int signal, const ucontext_t *context)
{
    const greg_t *g = context->uc_mcontext.gregs;
    struct registers *r = &out->regs;

    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = (uint64_t)g[greg_order[n]];
    r->rip = (uint64_t)g[REG_RIP];
    r->rflags = (uint64_t)g[REG_EFL];
    r->cs = (uint16_t)g[REG_CSGSFS];
    r->ss = (uint16_t)(g[REG_CSGSFS] >> 48);
    __asm__("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
            : "=m"(r->ds), "=m"(r->es), "=m"(r->fs), "=m"(r->gs));
    raw_syscall(SYS_arch_prctl, ARCH_GET_FS, (long)&r->fs_base, 0, 0, 0, 0);
    raw_syscall(SYS_arch_prctl, ARCH_GET_GS, (long)&r->gs_base, 0, 0, 0, 0);
    memcpy(r->fx, context->uc_mcontext.fpregs, sizeof(r->fx));
    out->vector = signal == SIGALRM ? VECTOR_ENDLESS : (uint32_t)g[REG_TRAPNO];
    out->code = (uint64_t)g[REG_ERR];
    out->address = (uint64_t)g[REG_CR2];
}

static void give(const struct registers *r, ucontext_t *context)
{
    enum { EXTENDED_MAGIC_AT = 464, HEADER_AT = 512 }; /* struct _fpx_sw_bytes, XSTATE_BV */
    greg_t *g = context->uc_mcontext.gregs;
    uint8_t *fx = (uint8_t *)context->uc_mcontext.fpregs;
    uint32_t magic;

    for (unsigned n = 0; n < 16; n++)
        g[greg_order[n]] = (greg_t)r->gpr[n];
    g[REG_RIP] = (greg_t)r->rip;
    g[REG_EFL] = (greg_t)r->rflags;
    g[REG_CSGSFS] = (greg_t)(r->cs | (uint64_t)r->ss << 48);
    __asm__ volatile("mov %0, %%ds; mov %1, %%es; mov %2, %%fs; mov %3, %%gs"
                     :
                     : "r"(r->ds), "r"(r->es), "r"(r->fs), "r"(r->gs));
    raw_syscall(SYS_arch_prctl, ARCH_SET_FS, (long)r->fs_base, 0, 0, 0, 0);
    raw_syscall(SYS_arch_prctl, ARCH_SET_GS, (long)r->gs_base, 0, 0, 0, 0);
    memcpy(fx, r->fx, EXTENDED_MAGIC_AT - 48); /* what is reserved stays the kernel's */
    memcpy(&magic, fx + EXTENDED_MAGIC_AT, sizeof(magic));
    if (magic == FP_XSTATE_MAGIC1)
        *(uint64_t *)(fx + HEADER_AT) |= 3; /* x87 and SSE are what the frame says */
}

void on_signal(int signal, siginfo_t *info, ucontext_t *context)
{
    unsigned unused;

    (void)info;
    if (first_frame)
        take(&control->out, signal, context);
    first_frame = 1;
    __atomic_store_n(&control->turn, TURN_PARENT, __ATOMIC_RELEASE);
    raw_syscall(SYS_futex, (long)&control->turn, FUTEX_WAKE, 1, 0, 0, 0);
    while (__atomic_load_n(&control->turn, __ATOMIC_ACQUIRE) != TURN_CHILD)
        raw_syscall(SYS_futex, (long)&control->turn, FUTEX_WAIT, TURN_PARENT, 0, 0, 0);
    give(&control->in, context);
    /* The parent wrote the code: SDM vol 3 §8.1.3 wants a serializing instruction here. */
    __asm__ volatile("cpuid" : "=a"(unused) : "a"(0) : "rbx", "rcx", "rdx", "memory");
}

/* ---- start */

static void forget_everything_else(void)
{
    const uint64_t start = (uint64_t)__executable_start & ~(uint64_t)(PAGE - 1);
    const uint64_t end = ((uint64_t)_end + PAGE - 1) & ~(uint64_t)(PAGE - 1);

    must(raw_syscall(SYS_munmap, 0, (long)start, 0, 0, 0, 0), 11);
    must(raw_syscall(SYS_munmap, (long)end, (long)(ADDRESS_END - end), 0, 0, 0, 0), 12);
}

static void map(uint64_t at, uint64_t offset, int protection)
{
    must(raw_syscall(SYS_mmap, (long)at, PAGE, protection,
                     MAP_SHARED | MAP_FIXED | MAP_POPULATE | MAP_LOCKED, CHILD_FILE, (long)offset),
         13);
}

static void map_window(uint64_t at)
{
    static const int protection[] = {
        [PAGE_EXECUTABLE] = PROT_READ | PROT_EXEC,
        [PAGE_MODIFIABLE] = PROT_READ | PROT_WRITE | PROT_EXEC,
        [PAGE_WRITABLE] = PROT_READ | PROT_WRITE,
        [PAGE_READABLE] = PROT_READ,
    };

    for (unsigned page = 0; page < PAGE_END; page++)
        if (page_kind(page) != PAGE_ABSENT)
            map(at + page * PAGE, page * PAGE, protection[page_kind(page)]);
}

/* The kernel's structure, which libc's is not. */
struct kernel_sigaction {
    void (*handler)(void);
    unsigned long flags;
    void (*restorer)(void);
    unsigned long mask;
};

static void catch_signals(void)
{
    enum { RESTORER = 0x04000000 };
    static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGALRM};
    static uint8_t stack_memory[32768] __attribute__((aligned(64)));
    const stack_t stack = {.ss_sp = stack_memory, .ss_size = sizeof(stack_memory)};
    const struct kernel_sigaction action = {
        .handler = signal_entry,
        .flags = SA_SIGINFO | SA_ONSTACK | RESTORER,
        .restorer = signal_return,
        .mask = 1ul << (SIGALRM - 1), /* once it ended, it is too late to stop it */
    };

    must(raw_syscall(SYS_sigaltstack, (long)&stack, 0, 0, 0, 0, 0), 14);
    for (unsigned n = 0; n < sizeof(caught) / sizeof(caught[0]); n++)
        must(raw_syscall(SYS_rt_sigaction, caught[n], (long)&action, 0, 8, 0, 0), 15);
}

/* Everything of the kernel is refused unless the call comes from signal_return or raw_syscall. */
static void confine(void)
{
    const uint64_t from = (uint64_t)signal_entry, to = (uint64_t)syscall_end;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(from >> 32), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)from, 0, 1),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (uint32_t)to, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    must(raw_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0), 16);
    must(raw_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0, 0, 0), 17);
}

void child_main(void)
{
    raw_syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0, 0);
    forget_everything_else();
    map(CHILD_CONTROL, FILE_CONTROL, PROT_READ | PROT_WRITE);
    map_window(WINDOW);
    map_window(WINDOW_HIGH);
    must(raw_syscall(SYS_close, CHILD_FILE, 0, 0, 0, 0, 0), 18);
    catch_signals();
    confine();
    __builtin_trap();
}

/*
 * fpu_test_native.c - see the header. Apart from fpu_test_fake.c because <signal.h> has names of
 * its own for registers.
 */
#include "cpu/jit/fpu_test_native.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define NATIVE __attribute__((used))
NATIVE uint8_t native_fpu[512] __attribute__((aligned(64)));
NATIVE uint64_t native_gpr[16], native_flags;
NATIVE uint64_t native_rsp;
NATIVE void *native_code;
void native_enter(void);
void native_abort(void);

static int native_vector;

#define EACH_GPR(op)                                                                               \
    op("0", "rax") op("8", "rcx") op("16", "rdx") op("24", "rbx") op("40", "rbp") op("48", "rsi")  \
        op("56", "rdi") op("64", "r8") op("72", "r9") op("80", "r10") op("88", "r11")              \
            op("96", "r12") op("104", "r13") op("112", "r14") op("120", "r15")
#define GPR_IN(at, reg)  "mov native_gpr+" at "(%rip), %" reg "\n"
#define GPR_OUT(at, reg) "mov %" reg ", native_gpr+" at "(%rip)\n"

__asm__(".text\n.globl native_enter\n.hidden native_enter\nnative_enter:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "sub $8, %rsp\nstmxcsr (%rsp)\nmov %rsp, native_rsp(%rip)\n"
        "fxrstor64 native_fpu(%rip)\n" EACH_GPR(GPR_IN) //
        "pushq native_flags(%rip)\npopfq\ncall *native_code(%rip)\n"
        "pushfq\npopq native_flags(%rip)\n" EACH_GPR(GPR_OUT) //
        "fxsave64 native_fpu(%rip)\n"
        ".globl native_abort\n.hidden native_abort\nnative_abort:\n"
        "fninit\nmov native_rsp(%rip), %rsp\nldmxcsr (%rsp)\nadd $8, %rsp\ncld\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

/* The state at the fault is the instruction's. */
static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t *u = context;

    memcpy(&native_fpu, u->uc_mcontext.fpregs, sizeof(native_fpu));
    native_vector = signal == SIGILL                         ? 6
                    : signal == SIGSEGV                      ? 13
                    : u->uc_mcontext.gregs[REG_TRAPNO] == 19 ? 19
                                                             : 16;
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)native_abort;
}

void native_setup(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};

    sigaction(SIGFPE, &action, NULL);
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    if (native_code)
        return;
    native_code =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (native_code == MAP_FAILED)
        abort();
}

int native_run(const uint8_t *code, unsigned len)
{
    memcpy(native_code, code, len);
    ((uint8_t *)native_code)[len] = 0xc3;
    native_vector = -1;
    native_enter();
    return native_vector;
}

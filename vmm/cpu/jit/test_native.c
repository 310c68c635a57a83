/* test_native.c - see test_native.h. The frame around the instruction is assembled here by hand. */
#include "cpu/jit/test_native.h"

#include <signal.h>
#include <ucontext.h>

enum { PAGE = 4096, INSN_AT = 512, EPILOGUE_AT = 1024 };

struct context { /* addressed by 32-bit absolute addresses */
    uint64_t in[GPR_COUNT], in_flags;
    uint64_t out[GPR_COUNT], out_flags;
    uint64_t host_rsp;
};

static struct {
    uint8_t *code;
    uint16_t cs; /* of 64-bit code: a fault may come from 32-bit code */
    struct context *context;
    uint8_t *alternate_stack;
    struct sigaction old[32];
    struct native_result *result; /* of the run in progress */
} native;

static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

static void on_signal(int signal, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

    if (!native.result || native.result->vector != NATIVE_NONE)
        abort(); /* not the instruction's */
    native.result->vector = (int)regs[REG_TRAPNO];
    native.result->code = (uint64_t)regs[REG_ERR];
    native.result->rip = (uint64_t)regs[REG_RIP];
    regs[REG_RIP] = (greg_t)(native.code + EPILOGUE_AT);
    regs[REG_CSGSFS] = (regs[REG_CSGSFS] & ~0xffffll) | native.cs;
}

static uint8_t *bytes(uint8_t *p, const char *code, unsigned len)
{
    memcpy(p, code, len);
    return p + len;
}

static uint8_t *absolute(uint8_t *p, const void *address)
{
    uint32_t a = (uint32_t)(uintptr_t)address;

    memcpy(p, &a, 4);
    return p + 4;
}

/* mov reg, [absolute] (8b) or mov [absolute], reg (89) */
static uint8_t *mov(uint8_t *p, uint8_t opcode, unsigned reg, const void *address)
{
    *p++ = 0x48 | (reg & 8) >> 1;
    *p++ = opcode;
    *p++ = (uint8_t)(0x04 | (reg & 7) << 3);
    *p++ = 0x25;
    return absolute(p, address);
}

static uint8_t *jump(uint8_t *p, const uint8_t *target)
{
    int32_t distance = (int32_t)(target - (p + 5));

    *p++ = 0xe9;
    memcpy(p, &distance, 4);
    return p + 4;
}

static void assemble(void)
{
    struct context *c = native.context;
    uint8_t *p = native.code;

    p = bytes(p, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57", 10); /* push rbx rbp r12 to r15 */
    p = mov(p, 0x89, RSP, &c->host_rsp);
    p = absolute(bytes(p, "\xff\x34\x25", 3), &c->in_flags); /* push qword [in_flags] */
    *p++ = 0x9d;                                             /* popfq */
    for (unsigned reg = RAX; reg < GPR_COUNT; reg++)
        p = mov(p, 0x8b, reg, &c->in[reg]);
    jump(p, native.code + INSN_AT);

    p = native.code + EPILOGUE_AT;
    for (unsigned reg = RAX; reg < GPR_COUNT; reg++)
        p = mov(p, 0x89, reg, &c->out[reg]);
    p = mov(p, 0x8b, RSP, &c->host_rsp);
    *p++ = 0x9c;                                              /* pushfq */
    p = absolute(bytes(p, "\x8f\x04\x25", 3), &c->out_flags); /* pop qword [out_flags] */
    p = bytes(p, "\xfc\x41\x5f\x41\x5e\x41\x5d\x41\x5c\x5d\x5b\xc3", 12); /* cld, pops, ret */
}

int native_open(void)
{
    const struct sigaction action = {.sa_sigaction = on_signal,
                                     .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    void *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    stack_t stack = {.ss_size = 1 << 16};

    if (code == MAP_FAILED)
        return -errno;
    native.code = code;
    __asm__("mov %%cs, %0" : "=r"(native.cs));
    native.context = (struct context *)native_pages(1);
    native.alternate_stack = malloc(stack.ss_size);
    stack.ss_sp = native.alternate_stack;
    sigaltstack(&stack, NULL);
    for (unsigned n = 0; n < sizeof(caught) / sizeof(caught[0]); n++)
        sigaction(caught[n], &action, &native.old[n]);
    assemble();
    return 0;
}

void native_close(void)
{
    const stack_t off = {.ss_flags = SS_DISABLE};

    for (unsigned n = 0; n < sizeof(caught) / sizeof(caught[0]); n++)
        sigaction(caught[n], &native.old[n], NULL);
    sigaltstack(&off, NULL);
    free(native.alternate_stack);
    native_pages_free((uint8_t *)native.context, 1);
    munmap(native.code, PAGE);
}

uint64_t native_rip(void)
{
    return (uintptr_t)native.code + INSN_AT;
}

/* The frame does not keep what the sanitizers expect of a function: it is called as plain code. */
void native_run(const uint8_t *code, unsigned len, const struct native_state *in,
                struct native_result *out)
{
    void (*run)(void) = (void (*)(void))(uintptr_t)native.code;

    memcpy(native.code + INSN_AT, code, len);
    jump(native.code + INSN_AT + len, native.code + EPILOGUE_AT);
    memcpy(native.context->in, in->gpr, sizeof(in->gpr));
    native.context->in_flags = in->rflags;
    *out = (struct native_result){.vector = NATIVE_NONE};
    native.result = out;
    run();
    native.result = NULL;
    memcpy(out->state.gpr, native.context->out, sizeof(out->state.gpr));
    out->state.rflags = native.context->out_flags;
}

uint8_t *native_pages(unsigned pages)
{
    size_t size = (pages + 2ul) * PAGE;
    uint8_t *p =
        mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED || mprotect(p + PAGE, pages * (size_t)PAGE, PROT_READ | PROT_WRITE))
        abort();
    return p + PAGE;
}

void native_pages_free(uint8_t *p, unsigned pages)
{
    munmap(p - PAGE, (pages + 2ul) * PAGE);
}

/*
 * context.c - switching stacks (context.h).
 *
 * On x86-64 a switch saves what the ABI makes a callee keep (SysV AMD64 ABI §3.2.1) and nothing
 * more: a dozen instructions, no system call. MXCSR and the x87 control word are the same in all
 * code of a thread here and stay. Elsewhere libc's swapcontext does it.
 */
#include "context.h"

#ifdef CONTEXT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CONTEXT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

static _Thread_local struct context *switched_from;

#if defined(__x86_64__)

void context_swap_stacks(void **save, void *load);
void context_first(void);

__asm__(".text\n"
        ".globl context_swap_stacks\n"
        ".hidden context_swap_stacks\n"
        ".type context_swap_stacks, @function\n"
        "context_swap_stacks:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size context_swap_stacks, . - context_swap_stacks\n"
        /* Where a fresh stack returns to: r12 is the function, r13 its argument. */
        ".globl context_first\n"
        ".hidden context_first\n"
        ".type context_first, @function\n"
        "context_first:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n" /* unwinders stop here */
        "    mov %r13, %rdi\n"
        "    call *%r12\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size context_first, . - context_first\n");

static void make_registers(struct context *c, void (*fn)(void *), void *argument)
{
    /* Popped from sp up: r15 r14 r13 r12 rbx rbp and the return address. What is left then is a
     * multiple of 16, as a call instruction wants it. */
    void **top = (void **)(QZ_ALIGN_DOWN((uintptr_t)c->stack + c->stack_size, 16)), **sp = top - 7;

    memset(sp, 0, 7 * sizeof(*sp));
    sp[2] = argument;
    sp[3] = (void *)(uintptr_t)fn;
    sp[6] = (void *)(uintptr_t)context_first;
    c->sp = sp;
}

static void swap_registers(struct context *from, struct context *to)
{
    context_swap_stacks(&from->sp, to->sp);
}

#else

/* makecontext passes ints: the pointers travel in halves. */
static void trampoline(unsigned fn_high, unsigned fn_low, unsigned arg_high, unsigned arg_low)
{
    void (*fn)(void *) = (void (*)(void *))(uintptr_t)((uint64_t)fn_high << 32 | fn_low);

    fn((void *)(uintptr_t)((uint64_t)arg_high << 32 | arg_low));
}

static void make_registers(struct context *c, void (*fn)(void *), void *argument)
{
    uint64_t f = (uintptr_t)fn, a = (uintptr_t)argument;

    getcontext(&c->registers);
    c->registers.uc_stack.ss_sp = c->stack;
    c->registers.uc_stack.ss_size = c->stack_size;
    c->registers.uc_link = NULL;
    makecontext(&c->registers, (void (*)(void))trampoline, 4, (unsigned)(f >> 32), (unsigned)f,
                (unsigned)(a >> 32), (unsigned)a);
}

static void swap_registers(struct context *from, struct context *to)
{
    swapcontext(&from->registers, &to->registers);
}

#endif

void context_make(struct context *c, void *stack, size_t size, void (*fn)(void *), void *argument)
{
    memset(c, 0, sizeof(*c));
    c->stack = stack;
    c->stack_size = size;
    make_registers(c, fn, argument);
#ifdef CONTEXT_TSAN
    c->fiber = __tsan_create_fiber(0);
#endif
}

void context_free(struct context *c)
{
#ifdef CONTEXT_TSAN
    if (c->fiber)
        __tsan_destroy_fiber(c->fiber);
#endif
#ifdef CONTEXT_ASAN
    /* The addresses are mapped again by others, who must not meet this stack's red zones. */
    __asan_unpoison_memory_region(c->stack, c->stack_size);
#endif
    (void)c;
}

void context_entered(struct context *self)
{
#ifdef CONTEXT_ASAN
    const void *bottom;
    size_t size;

    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
    switched_from->stack = (void *)(uintptr_t)bottom;
    switched_from->stack_size = size;
#endif
    (void)self;
}

void context_switch(struct context *from, struct context *to)
{
    switched_from = from;
#ifdef CONTEXT_TSAN
    if (!from->fiber)
        from->fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
#ifdef CONTEXT_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_size);
#endif
    swap_registers(from, to);
    context_entered(from);
}

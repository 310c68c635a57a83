/*
 * context.h - a stack and the registers of code that stopped in the middle; switching between them.
 *
 * Known to the sanitizers, which must be told that the stack under them changes.
 */
#ifndef DISK_CONTEXT_H
#define DISK_CONTEXT_H

#include <queztl/base.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CONTEXT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CONTEXT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CONTEXT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CONTEXT_TSAN 1
#endif
#endif

struct context {
#if defined(__x86_64__)
    void *sp;
#else
    ucontext_t registers;
#endif
    void *stack; /* lowest usable byte; of a thread's own stack, known once it was switched from */
    size_t stack_size;
#ifdef CONTEXT_ASAN
    void *fake_stack;
#endif
#ifdef CONTEXT_TSAN
    void *fiber;
#endif
};

/* A fresh context on the stack given, which will run fn(argument); fn never returns. */
void context_make(struct context *c, void *stack, size_t size, void (*fn)(void *), void *argument);
void context_free(struct context *c); /* the stack stays its owner's */

/* Saves the running code in *from (on its first time: a thread's own, zero-filled) and goes on with
 * *to. */
void context_switch(struct context *from, struct context *to);
/* The first thing that a fresh context's function calls. */
void context_entered(struct context *self);

#endif

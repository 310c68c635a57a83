/*
 * window.h - what the three CPUs that are compared share: the addresses that a sequence sees, and
 * what it begins and ends with.
 *
 * The window is a run of pages, some of which are missing, at the same linear addresses on the
 * host's CPU and in the guests, and at a second place above 4 GiB. Nothing else is there for user
 * code. The child that runs sequences on the host's CPU includes this file, too: no libc types.
 */
#ifndef TESTS_JIT_WINDOW_H
#define TESTS_JIT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW      0x20000000ull     /* reached by 32-bit addresses */
#define WINDOW_HIGH 0x712340000000ull /* the same pages again */

enum {
    PAGE = 4096,
    PAGE_CODE = 1,   /* readable, executable; the last of them also writable */
    PAGE_DATA = 5,   /* writable */
    PAGE_CONST = 9,  /* only readable, directly behind the data */
    PAGE_STACK = 11, /* writable */
    PAGE_SAVE = 14,  /* writable: what FXSAVE and its kind write, see slots below */
    PAGE_COUNT = 16, /* writable: the counter that bounds loops, touched by nothing else */
    PAGE_END = 17,
    CODE_PAGES = 3,
    DATA_PAGES = 4,
    STACK_PAGES = 2,
};

enum { PAGE_MODIFIED = PAGE_CODE + CODE_PAGES - 1 };

enum page_kind { PAGE_ABSENT, PAGE_EXECUTABLE, PAGE_MODIFIABLE, PAGE_WRITABLE, PAGE_READABLE };

static inline enum page_kind page_kind(unsigned page)
{
    if (page >= PAGE_CODE && page < PAGE_CODE + CODE_PAGES)
        return page == PAGE_MODIFIED ? PAGE_MODIFIABLE : PAGE_EXECUTABLE;
    if ((page >= PAGE_DATA && page < PAGE_DATA + DATA_PAGES) ||
        (page >= PAGE_STACK && page < PAGE_STACK + STACK_PAGES) || page == PAGE_SAVE ||
        page == PAGE_COUNT)
        return PAGE_WRITABLE;
    return page == PAGE_CONST ? PAGE_READABLE : PAGE_ABSENT;
}

/*
 * Places in PAGE_SAVE. Saved x87 states hold the addresses of the last instruction and operand,
 * which processors keep differently: those bytes are not compared.
 */
enum {
    SAVE_FXSAVE = 0,    /* 512 bytes, 16-byte aligned */
    SAVE_FNSTENV = 512, /* 28 bytes, or 14 */
    SAVE_FNSAVE = 640,  /* 108 bytes, or 94 */
    SAVE_MXCSR = 1024,  /* 16 words for LDMXCSR, read only by agreement */
    SAVE_FCW = 1152,    /* 16 control words for FLDCW */
    SAVE_FXRSTOR = 2048,
    SAVE_FLDENV = 2560,
    SAVE_FRSTOR = 2688,
};

/* The selectors of a Linux process: 64-bit code, 32-bit code, data. */
enum { SELECTOR_64 = 0x33, SELECTOR_32 = 0x23, SELECTOR_DATA = 0x2b };

/* Registers as user code has them; numbered as instructions number them. */
struct registers {
    uint64_t gpr[16], rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t cs, ss, ds, es, fs, gs;
    uint32_t reserved;
    uint8_t fx[512] __attribute__((aligned(16))); /* FXSAVE64 */
};

enum { VECTOR_ENDLESS = 255 }; /* it had to be stopped */

/* How a sequence ended: always by an exception, INT3 behind its last instruction if none before. */
struct outcome {
    struct registers regs;
    uint32_t vector;
    uint32_t reserved;
    uint64_t code;
    uint64_t address; /* of a page fault */
};

/* Between the child and its parent, in a page of its own. */
enum { TURN_PARENT, TURN_CHILD };
struct control {
    uint32_t turn; /* futex */
    uint32_t reserved;
    struct registers in;
    struct outcome out;
};

/* The file that both map: the window's pages, absent ones unused, then the control structure. */
enum { FILE_CONTROL = PAGE_END * PAGE, FILE_SIZE = FILE_CONTROL + PAGE };
#define CHILD_CONTROL 0x5a5aa1000000ull
#define CHILD_FILE    3 /* descriptor */

#endif

/* guest.c - see guest.h. */
#include "guest.h"

#include <sys/mman.h>

#include "cpu/accel.h"
#include "cpu/jit/cpu.h"

/* Guest-physical; the first 2 MiB are at KERNEL for ring 0. */
#define KERNEL 0xffff800000000000ull
enum {
    MEMORY = 2 << 20,
    PML4 = 0x1000,
    PDPT_KERNEL = 0x2000,
    PD_KERNEL = 0x3000,
    TABLES = 0x4000, /* a PDPT, a PD and a PT for each place of the window */
    GDT = 0xa000,
    IDT = 0xb000,
    TSS = 0xc000,
    CODE = 0xd000,
    STACK = 0xf000, /* struct stack lies below and above */
    WINDOW_PAGES = 0x100000,
};
enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, LARGE = 0x80 };
#define NX (1ull << 63)

enum { PORT = 0x10, ENTRY_SIZE = 16, GDT_ENTRIES = 16, TSS_SELECTOR = 0x40, KERNEL_CS = 0x10 };

/* Where rsp points after the registers were pushed, with what lies around it. */
struct stack {
    uint8_t out_fx[512];
    uint64_t out_cr2, out_fs_base, out_gs_base;
    uint16_t out_ds, out_es, out_fs, out_gs;
    /* rsp is here: pushed by the entries, and by the exception */
    uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8_15[8];
    uint64_t vector, code, rip, cs, rflags, rsp, ss;
    /* The next sequence's. */
    uint64_t in_gpr[16], in_fs_base, in_gs_base;
    uint64_t in_ds, in_es, in_fs, in_gs, in_iret[5], pad[3];
    uint8_t in_fx[512];
};

enum {
    RSP_AT = offsetof(struct stack, rax),
    STACK_AT = STACK - offsetof(struct stack, in_gpr), /* TSS.RSP0 is STACK */
};
_Static_assert(offsetof(struct stack, in_fx) % 16 == 0 && offsetof(struct stack, in_gpr) % 16 == 0,
               "FXSAVE and the frame of an exception are aligned to 16 bytes");
_Static_assert(offsetof(struct stack, rax) == 544 && offsetof(struct stack, in_gpr) == 720,
               "the offsets in the code below");

struct guest {
    struct accel_vm *vm;
    struct accel_vcpu *cpu;
    uint8_t *memory;
    struct stack *stack;
    bool served;
};

/*
 * Offsets from rsp: fxsave -544, cr2 -32, bases -24 and -16, segments -8; in: gpr 176, bases 304,
 * segments 320, IRET frame 352, fxrstor 416.
 */
__asm__(".pushsection .rodata\n"
        "guest_entries:\n"
        ".set vector, 0\n"
        ".rept 256\n"
        ".balign 16\n"
        ".if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21\n"
        "push $0\n"
        ".endif\n"
        "pushq $vector\n"
        "jmp guest_common\n"
        ".set vector, vector + 1\n"
        ".endr\n"
        "guest_common:\n"
        "push %r15; push %r14; push %r13; push %r12; push %r11; push %r10; push %r9; push %r8\n"
        "push %rdi; push %rsi; push %rbp; push %rbx; push %rdx; push %rcx; push %rax\n"
        "cld\n"
        "fxsave64 -544(%rsp)\n"
        "mov %cr2, %rax; mov %rax, -32(%rsp)\n"
        "rdfsbase %rax; mov %rax, -24(%rsp)\n"
        "rdgsbase %rax; mov %rax, -16(%rsp)\n"
        "mov %ds, -8(%rsp); mov %es, -6(%rsp); mov %fs, -4(%rsp); mov %gs, -2(%rsp)\n"
        "out %al, $0x10\n"
        "guest_enter:\n"
        "mov 320(%rsp), %ds; mov 328(%rsp), %es; mov 336(%rsp), %fs; mov 344(%rsp), %gs\n"
        "mov 304(%rsp), %rax; wrfsbase %rax\n"
        "mov 312(%rsp), %rax; wrgsbase %rax\n"
        "fxrstor64 416(%rsp)\n"
        "mov 176(%rsp), %rax; mov 184(%rsp), %rcx; mov 192(%rsp), %rdx; mov 200(%rsp), %rbx\n"
        "mov 216(%rsp), %rbp; mov 224(%rsp), %rsi; mov 232(%rsp), %rdi\n"
        "mov 240(%rsp), %r8; mov 248(%rsp), %r9; mov 256(%rsp), %r10; mov 264(%rsp), %r11\n"
        "mov 272(%rsp), %r12; mov 280(%rsp), %r13; mov 288(%rsp), %r14; mov 296(%rsp), %r15\n"
        "lea 352(%rsp), %rsp\n"
        "iretq\n"
        "guest_entries_end:\n"
        ".popsection\n");
extern const uint8_t guest_entries[], guest_enter[], guest_entries_end[];

static void serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct guest *g = context;

    if (exit->kind == EXIT_PIO && exit->pio.port == PORT) {
        g->served = true;
        accel_jit.kick(g->cpu);
        return;
    }
    if (exit->kind == EXIT_RDMSR || exit->kind == EXIT_WRMSR)
        exit->msr.fault = true;
}

static uint64_t *entry(struct guest *g, uint64_t table, uint64_t n)
{
    return (uint64_t *)(g->memory + table) + n;
}

/* Neighbours in the window are none in memory. */
static uint64_t window_gpa(unsigned page)
{
    return WINDOW_PAGES + (PAGE_END - page) * 2ull * PAGE;
}

static void map_window(struct guest *g, uint64_t at, uint64_t tables)
{
    const uint64_t pdpt = tables, pd = tables + PAGE, pt = tables + 2 * PAGE;
    static const uint64_t bits[] = {
        [PAGE_EXECUTABLE] = P | U,
        [PAGE_MODIFIABLE] = P | U | W,
        [PAGE_WRITABLE] = P | U | W | NX,
        [PAGE_READABLE] = P | U | NX,
    };

    *entry(g, PML4, at >> 39 & 511) = pdpt | P | W | U;
    *entry(g, pdpt, at >> 30 & 511) = pd | P | W | U;
    *entry(g, pd, at >> 21 & 511) = pt | P | W | U;
    for (unsigned page = 0; page < PAGE_END; page++)
        if (page_kind(page) != PAGE_ABSENT)
            *entry(g, pt, (at >> 12 & 511) + page) = window_gpa(page) | bits[page_kind(page)];
}

static void build_tables(struct guest *g)
{
    *entry(g, PML4, KERNEL >> 39 & 511) = PDPT_KERNEL | P | W;
    *entry(g, PDPT_KERNEL, 0) = PD_KERNEL | P | W;
    *entry(g, PD_KERNEL, 0) = P | W | LARGE;
    map_window(g, WINDOW, TABLES);
    map_window(g, WINDOW_HIGH, TABLES + 3 * PAGE);
}

/* The segments of Linux, so that selectors mean the same (arch/x86/include/asm/segment.h). */
static void build_descriptors(struct guest *g)
{
    static const uint64_t descriptors[GDT_ENTRIES] = {
        [1] = 0x00cf9b000000ffff,  [2] = 0x00af9b000000ffff, [3] = 0x00cf93000000ffff,
        [4] = 0x00cffb000000ffff,  [5] = 0x00cff3000000ffff, [6] = 0x00affb000000ffff,
        [15] = 0x0040f50000000000, /* for LSL, which is not compared; but it can be loaded */
    };
    const uint64_t tss = KERNEL + TSS;

    memcpy(g->memory + GDT, descriptors, sizeof(descriptors));
    *entry(g, GDT, TSS_SELECTOR / 8) =
        0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56;
    *entry(g, GDT, TSS_SELECTOR / 8 + 1) = tss >> 32;
    qz_store_le64(g->memory + TSS + 4, KERNEL + STACK); /* RSP0 */
    qz_store_le16(g->memory + TSS + 0x66, 0x68);        /* no I/O permissions */
    memcpy(g->memory + CODE, guest_entries, (size_t)(guest_entries_end - guest_entries));
    for (unsigned vector = 0; vector < 256; vector++) {
        const uint64_t to = KERNEL + CODE + vector * ENTRY_SIZE;
        const uint64_t kind = vector == VECTOR_BP || vector == VECTOR_OF ? 0xee00 : 0x8e00;

        *entry(g, IDT, 2ull * vector) =
            (to & 0xffff) | KERNEL_CS << 16 | kind << 32 | (to >> 16 & 0xffff) << 48;
        *entry(g, IDT, 2ull * vector + 1) = to >> 32;
    }
}

static int set_start(struct guest *g)
{
    struct vcpu_state *s;
    int r;

    if (posix_memalign((void **)&s, 64, QZ_ALIGN_UP(sizeof(*s), 64ul)))
        return -ENOMEM;
    vcpu_state_reset(s, true, 0);
    vcpu_state_flat(s, 64);
    s->cs.selector = KERNEL_CS;
    s->ss.selector = s->ds.selector = s->es.selector = 0x18;
    s->gdt = (struct descriptor_table){KERNEL + GDT, GDT_ENTRIES * 8 - 1};
    s->idt = (struct descriptor_table){KERNEL + IDT, 4095};
    s->tr = (struct segment){KERNEL + TSS, 0x67, TSS_SELECTOR, SEG_P | 0xb};
    s->cr0 = CR0_PG | CR0_AM | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
    s->cr3 = PML4;
    s->cr4 = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE;
    s->efer = EFER_LME | EFER_LMA | EFER_NXE;
    s->rip = KERNEL + CODE + (uint64_t)(guest_enter - guest_entries);
    s->gpr[RSP] = KERNEL + STACK_AT + RSP_AT;
    s->mp_state = MP_RUNNABLE;
    r = accel_jit.set_state(g->cpu, s);
    free(s);
    return r;
}

void guest_close(struct guest *g)
{
    if (!g)
        return;
    if (g->cpu)
        accel_jit.vcpu_free(g->cpu);
    if (g->vm)
        accel_jit.vm_free(g->vm);
    if (g->memory)
        munmap(g->memory, MEMORY);
    free(g);
}

static int start(struct guest *g, bool interpret, struct qz_error *err)
{
    const struct accel_config config = {
        .vcpus = 1,
        .own_lapic = true,
        .interpret = interpret,
        .model = CPU_MODEL_HOST,
        .topology = {1, 1, 1},
        .serve = serve,
        .serve_context = g,
    };
    int r;

    g->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->memory == MAP_FAILED) {
        g->memory = NULL;
        return qz_fail(err, -errno, "the guest's memory: %s", strerror(errno));
    }
    g->stack = (struct stack *)(g->memory + STACK_AT);
    build_tables(g);
    build_descriptors(g);
    if ((r = accel_jit.vm_new(&config, &g->vm, err)) < 0 ||
        (r = accel_jit.memory_map(g->vm, 0, MEMORY, g->memory, false)) < 0 ||
        (r = accel_jit.vcpu_new(g->vm, 0, &g->cpu, err)) < 0)
        return r;
    r = set_start(g);
    return r < 0 ? qz_fail(err, r, "the guest's state is refused: %s", strerror(-r)) : 0;
}

int guest_open(struct guest **out, bool interpret, struct qz_error *err)
{
    struct guest *g = calloc(1, sizeof(*g));
    int r;

    if (!g)
        return qz_fail(err, -ENOMEM, "out of memory");
    r = start(g, interpret, err);
    if (r < 0) {
        guest_close(g);
        return r;
    }
    *out = g;
    return 0;
}

uint8_t *guest_page(struct guest *g, unsigned page)
{
    return g->memory + window_gpa(page);
}

void guest_code_written(struct guest *g)
{
    for (unsigned page = PAGE_CODE; page < PAGE_CODE + CODE_PAGES; page++)
        accel_jit.memory_written(g->vm, window_gpa(page), PAGE);
}

uint64_t guest_features(struct guest *g)
{
    return jit_cpu_of(g->cpu)->features;
}

static void give(struct stack *s, const struct registers *in)
{
    memcpy(s->in_gpr, in->gpr, sizeof(s->in_gpr));
    s->in_fs_base = in->fs_base;
    s->in_gs_base = in->gs_base;
    s->in_ds = in->ds;
    s->in_es = in->es;
    s->in_fs = in->fs;
    s->in_gs = in->gs;
    s->in_iret[0] = in->rip;
    s->in_iret[1] = in->cs;
    s->in_iret[2] = in->rflags;
    s->in_iret[3] = in->gpr[RSP];
    s->in_iret[4] = in->ss;
    memcpy(s->in_fx, in->fx, sizeof(s->in_fx));
}

static void take(const struct stack *s, struct outcome *out)
{
    struct registers *r = &out->regs;

    r->gpr[RAX] = s->rax;
    r->gpr[RCX] = s->rcx;
    r->gpr[RDX] = s->rdx;
    r->gpr[RBX] = s->rbx;
    r->gpr[RSP] = s->rsp;
    r->gpr[RBP] = s->rbp;
    r->gpr[RSI] = s->rsi;
    r->gpr[RDI] = s->rdi;
    memcpy(&r->gpr[R8], s->r8_15, sizeof(s->r8_15));
    r->rip = s->rip;
    r->rflags = s->rflags;
    r->fs_base = s->out_fs_base;
    r->gs_base = s->out_gs_base;
    r->cs = (uint16_t)s->cs;
    r->ss = (uint16_t)s->ss;
    r->ds = s->out_ds;
    r->es = s->out_es;
    r->fs = s->out_fs;
    r->gs = s->out_gs;
    memcpy(r->fx, s->out_fx, sizeof(r->fx));
    out->vector = (uint32_t)s->vector;
    out->code = s->code;
    out->address = s->out_cr2;
}

int guest_run(struct guest *g, const struct registers *in, struct outcome *out)
{
    struct vcpu_exit exit = {.kind = EXIT_FAIL};
    int r;

    give(g->stack, in);
    g->served = false;
    r = accel_jit.run(g->cpu, &exit);
    if (r < 0)
        return r;
    if (exit.kind != EXIT_KICKED || !g->served)
        return -EIO;
    take(g->stack, out);
    return 0;
}

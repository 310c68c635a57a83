/*
 * guest_fuzz.c - any bytes as guest code in every mode: the engine neither crashes nor hangs, and
 * touches nothing but the guest's memory.
 *
 * The first bytes of an input choose mode, ring, interpreter or translator, and registers; the rest
 * is code, in the middle of a guest with all the tables a system has. All of the guest's memory may
 * be overwritten by it, page tables and descriptors included. Every run is ended by a kick.
 */
#include <queztl/base.h>

#include <pthread.h>
#include <sys/mman.h>

#include "cpu/accel.h"
#include "cpu/jit/cpu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    MEMORY = 1 << 20,
    PML4 = 0x1000, /* a PDPT, a PD, a PT behind it */
    GDT = 0x8000,
    IDT = 0x9000,
    TSS = 0xb000,
    HANDLER = 0xc000,
    STACK = 0xf000,
    CODE = 0x10000,
    DATA = 0x20000,
    RING3_STACK = 0x30000,
};
enum { P = 1, W = 2, U = 4 };
enum { MODES = 8, RUN_US = 200, EXITS_MAX = 8 };
enum { SELECTOR_CODE = 0x08, SELECTOR_DATA = 0x10, SELECTOR_TSS = 0x28 };

struct header { /* of an input */
    uint8_t mode, options;
    uint16_t offset;
    uint64_t gpr[4];
};
enum { OPTION_INTERPRET = 1, OPTION_AC = 2, OPTION_TF = 4, OPTION_SMAP = 8 };

struct machine {
    struct accel_vm *vm;
    struct accel_vcpu *cpu;
    uint8_t *memory;
    unsigned served;
};

/* ---- the kick: a thread that waits until a run begins, and a little longer */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct accel_vcpu *running;
} kicker = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL};

static void *kick_later(void *unused)
{
    pthread_mutex_lock(&kicker.lock);
    for (;;) {
        struct timespec until;

        if (!kicker.running)
            pthread_cond_wait(&kicker.changed, &kicker.lock);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += RUN_US * 1000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&kicker.changed, &kicker.lock, &until);
        if (kicker.running)
            accel_jit.kick(kicker.running);
    }
    return unused;
}

static void set_running(struct accel_vcpu *cpu)
{
    pthread_mutex_lock(&kicker.lock);
    kicker.running = cpu;
    pthread_cond_signal(&kicker.changed);
    pthread_mutex_unlock(&kicker.lock);
}

static void start_kicker(void)
{
    static bool started;
    pthread_t thread;

    if (!started && pthread_create(&thread, NULL, kick_later, NULL) == 0)
        pthread_detach(thread);
    started = true;
}

/* ---- the machine */

static void serve(void *context, unsigned cpu, struct vcpu_exit *exit)
{
    struct machine *m = context;

    m->served++;
    switch (exit->kind) {
    case EXIT_PIO:
        if (!exit->pio.write)
            memset(exit->pio.data, 0x5a, (size_t)exit->pio.size * exit->pio.count);
        break;
    case EXIT_MMIO:
        if (!exit->mmio.write)
            memset(exit->mmio.data, 0xa5, exit->mmio.len);
        break;
    default:
        exit->msr.fault = m->served & 1;
        exit->msr.value = m->served;
        break;
    }
}

static struct machine *machine_of(bool interpret)
{
    static struct machine machines[2];
    struct machine *m = &machines[interpret];
    const struct accel_config config = {
        .vcpus = 1,
        .own_lapic = true,
        .interpret = interpret,
        .model = CPU_MODEL_HOST,
        .topology = {1, 1, 1},
        .serve = serve,
        .serve_context = m,
    };
    struct qz_error err = {0};

    if (m->vm)
        return m;
    m->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m->memory == MAP_FAILED || accel_jit.vm_new(&config, &m->vm, &err) < 0 ||
        accel_jit.memory_map(m->vm, 0, MEMORY, m->memory, false) < 0 ||
        accel_jit.vcpu_new(m->vm, 0, &m->cpu, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return m;
}

/* ---- what a system has set up */

static void put64(struct machine *m, uint64_t at, uint64_t value)
{
    qz_store_le64(m->memory + at, value);
}

/* The first MiB where it is, and again below the end of the address space; some pages are missing
 * or only to be read. */
static void build_long_tables(struct machine *m)
{
    put64(m, PML4, (PML4 + 0x1000) | P | W | U);
    put64(m, PML4 + 8 * 511, (PML4 + 0x1000) | P | W | U);
    put64(m, PML4 + 0x1000, (PML4 + 0x2000) | P | W | U);
    put64(m, PML4 + 0x1000 + 8 * 511, (PML4 + 0x2000) | P | W | U);
    put64(m, PML4 + 0x2000, (PML4 + 0x3000) | P | W | U);
    put64(m, PML4 + 0x2000 + 8 * 511, (PML4 + 0x3000) | P | W | U);
    for (uint64_t page = 0; page < MEMORY / 4096; page++)
        put64(m, PML4 + 0x3000 + 8 * page,
              page % 32 == 31 ? 0 : page << 12 | P | U | (page % 32 == 30 ? 0 : W));
}

/* Two levels of 32-bit entries: a directory at PML4, one table behind it. */
static void build_legacy_tables(struct machine *m)
{
    qz_store_le32(m->memory + PML4, (PML4 + 0x1000) | P | W | U);
    for (uint32_t page = 0; page < MEMORY / 4096; page++)
        qz_store_le32(m->memory + PML4 + 0x1000 + 4 * page,
                      page % 32 == 31 ? 0 : page << 12 | P | U | (page % 32 == 30 ? 0 : W));
}

static void build_descriptors(struct machine *m, unsigned bits)
{
    const uint64_t width = bits == 64 ? 0x20ull << 48 : bits == 32 ? 0x40ull << 48 : 0;
    const uint64_t data = bits == 16 ? 0 : 0x40ull << 48;

    put64(m, GDT, 0);
    put64(m, GDT + 8, 0x008f9b000000ffff | width);
    put64(m, GDT + 16, 0x008f93000000ffff | data);
    put64(m, GDT + 24, 0x008ffb000000ffff | width);
    put64(m, GDT + 32, 0x008ff3000000ffff | data);
    put64(m, GDT + SELECTOR_TSS, 0x0000890000000067 | (uint64_t)TSS << 16);
    put64(m, GDT + SELECTOR_TSS + 8, 0);
    qz_store_le64(m->memory + TSS + 4, STACK); /* RSP0, or ESP0 and SS0 */
    if (bits != 64)
        qz_store_le32(m->memory + TSS + 8, SELECTOR_DATA);
    qz_store_le16(m->memory + TSS + 0x66, 0x68);
}

/* Whatever is raised, the guest goes on one byte further: drops the error code, counts rip up. */
static void put_handler(uint8_t *to, unsigned bits, bool has_code)
{
    static const uint8_t drop[] = {0x48, 0x83, 0xc4, 0x08}; /* add $8, %rsp */
    static const uint8_t skip_16[] = {0x55, 0x89, 0xe5, 0xff, 0x46, 0x02, 0x5d, 0xcf};
    static const uint8_t skip_64[] = {0x48, 0xff, 0x04, 0x24, 0x48, 0xcf}; /* incq (%rsp); iretq */
    static const uint8_t skip_32[] = {0xff, 0x04, 0x24, 0xcf};

    if (has_code) {
        const unsigned rex = bits != 64;

        memcpy(to, drop + rex, sizeof(drop) - rex);
        to[3 - rex] = (uint8_t)(bits / 8);
        to += sizeof(drop) - rex;
    }
    memcpy(to,
           bits == 64   ? skip_64
           : bits == 32 ? skip_32
                        : skip_16,
           bits == 64   ? sizeof(skip_64)
           : bits == 32 ? sizeof(skip_32)
                        : sizeof(skip_16));
}

static void build_gates(struct machine *m, unsigned bits, bool real)
{
    const uint64_t kind = bits == 16 ? 0xe600 : 0xee00;

    for (unsigned v = 0; v < 256; v++) {
        const uint64_t at = HANDLER + 16 * v, gate = at | SELECTOR_CODE << 16 | kind << 32;

        put_handler(m->memory + at, bits,
                    !real &&
                        (v == VECTOR_DF || (v >= VECTOR_TS && v <= VECTOR_PF) || v == VECTOR_AC));
        if (real)
            qz_store_le32(m->memory + 4 * v, (uint32_t)at);
        else
            put64(m, IDT + (bits == 64 ? 16 : 8) * v, gate);
    }
}

/* ---- modes */

static const struct mode {
    uint8_t bits, ring;
    bool real, paging, virtual_8086;
} modes[MODES] = {
    {16, 0, true, false, false}, {16, 0, false, false, false}, {32, 0, false, false, false},
    {32, 0, false, true, false}, {32, 3, false, true, false},  {64, 0, false, true, false},
    {64, 3, false, true, false}, {16, 3, false, true, true},
};

static struct segment segment_of(const struct mode *mode, bool code)
{
    struct segment s = {.limit = 0xffffffff, .attr = SEG_P | SEG_S | SEG_G | (code ? 0xb : 3)};

    if (mode->real || mode->virtual_8086) {
        s.limit = 0xffff;
        s.attr = SEG_P | SEG_S | 3 | mode->ring << SEG_DPL_SHIFT;
        s.selector = code ? CODE >> 4 : DATA >> 4;
        s.base = (uint64_t)s.selector << 4;
        return s;
    }
    s.selector =
        (uint16_t)((code ? SELECTOR_CODE : SELECTOR_DATA) + (mode->ring ? 16 : 0)) | mode->ring;
    s.attr |= mode->ring << SEG_DPL_SHIFT;
    if (mode->bits == 64 && code)
        s.attr |= SEG_L;
    else if (mode->bits != 16)
        s.attr |= SEG_DB;
    return s;
}

static void set_registers(struct vcpu_state *s, const struct mode *mode, const struct header *h)
{
    const uint64_t offset = h->offset & 0xfff;

    for (unsigned n = 0; n < GPR_COUNT; n++)
        s->gpr[n] = n < 4 ? h->gpr[n] : DATA + 64ull * n;
    s->gpr[RSP] = mode->real || mode->virtual_8086 ? 0x8000 : mode->ring ? RING3_STACK : STACK;
    s->rip = (mode->real || mode->virtual_8086 ? 0 : CODE) + offset;
    s->rflags = 2 | 0x200 | (h->options & OPTION_AC ? RFLAGS_AC : 0) |
                (h->options & OPTION_TF ? RFLAGS_TF : 0) | (mode->virtual_8086 ? RFLAGS_VM : 0);
    s->cs = segment_of(mode, true);
    s->ds = s->es = s->fs = s->gs = s->ss = segment_of(mode, false);
    s->gdt = (struct descriptor_table){GDT, 0x37};
    s->idt = (struct descriptor_table){mode->real ? 0 : IDT, mode->real ? 0x3ff : 0xfff};
    s->tr = (struct segment){TSS, 0x67, SELECTOR_TSS, SEG_P | 0xb};
}

static void set_control(struct vcpu_state *s, const struct mode *mode, const struct header *h)
{
    s->cr0 = CR0_NE | CR0_ET | CR0_MP | (mode->real ? 0 : CR0_PE | CR0_AM);
    s->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (mode->paging) {
        s->cr0 |= CR0_PG | CR0_WP;
        s->cr3 = PML4;
    }
    if (mode->bits == 64) {
        s->cr4 |= CR4_PAE | CR4_PGE | CR4_FSGSBASE | (h->options & OPTION_SMAP ? CR4_SMAP : 0);
        s->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    }
    s->mp_state = MP_RUNNABLE;
}

static void prepare(struct machine *m, const struct mode *mode, const struct header *h,
                    const uint8_t *code, size_t len)
{
    static struct vcpu_state s __attribute__((aligned(64)));
    const size_t room = MEMORY - CODE - (h->offset & 0xfff);

    memset(m->memory, 0, MEMORY);
    build_descriptors(m, mode->bits == 16 && mode->virtual_8086 ? 32 : mode->bits);
    build_gates(m, mode->virtual_8086 ? 32 : mode->bits, mode->real);
    if (mode->bits == 64)
        build_long_tables(m);
    else if (mode->paging)
        build_legacy_tables(m);
    memcpy(m->memory + CODE + (h->offset & 0xfff), code, QZ_MIN(len, room));
    accel_jit.memory_written(m->vm, 0, MEMORY);
    vcpu_state_reset(&s, true, 0);
    set_registers(&s, mode, h);
    set_control(&s, mode, h);
    if (accel_jit.set_state(m->cpu, &s) < 0)
        abort(); /* ours */
}

/* Until it is kicked, or will not go on by itself. */
static void run(struct machine *m)
{
    struct vcpu_exit exit = {.kind = EXIT_FAIL};

    set_running(m->cpu);
    for (unsigned n = 0; n < EXITS_MAX; n++) {
        if (accel_jit.run(m->cpu, &exit) < 0)
            abort();
        if (exit.kind == EXIT_KICKED || exit.kind == EXIT_SHUTDOWN)
            break;
        if (exit.kind == EXIT_HALT && accel_jit.can_inject(m->cpu))
            accel_jit.inject(m->cpu, 0x20 + n);
        else if (exit.kind == EXIT_HALT)
            accel_jit.inject_nmi(m->cpu);
    }
    set_running(NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct header h = {0};
    struct machine *m;

    start_kicker();
    memcpy(&h, data, QZ_MIN(size, sizeof(h)));
    m = machine_of(h.options & OPTION_INTERPRET);
    prepare(m, &modes[h.mode % MODES], &h, data + QZ_MIN(size, sizeof(h)),
            size - QZ_MIN(size, sizeof(h)));
    /* More than once: the second time there is code of it. */
    run(m);
    run(m);
    return 0;
}

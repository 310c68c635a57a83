/*
 * platform.c - the driver's platform on a bare x86-64 machine: a pool of memory, PCI by ports, the
 * time stamp counter as clock, COM1 for words. Interrupts are not used: the driver polls.
 */
#include "platform.h"

enum { POOL = 48 << 20, COM1 = 0x3f8, PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc };

static uint8_t pool[POOL] __attribute__((aligned(4096)));
static size_t pool_used;

/* What a compiler expects everywhere. */
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    uint8_t *t = to;
    const uint8_t *f = from;

    if (t <= f || t >= f + n)
        return memcpy(to, from, n);
    __asm__ volatile("std\n\trep movsb\n\tcld"
                     : "=&D"(t), "=&S"(f), "+c"(n)
                     : "0"(t + n - 1), "1"(f + n - 1)
                     : "memory");
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(byte) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

static void out8(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static void out32(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static uint32_t in32(uint16_t port)
{
    uint32_t v;

    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

void bare_print(const char *text)
{
    for (; *text; text++)
        out8(COM1, (uint8_t)*text);
}

void bare_print_number(uint64_t n)
{
    char digits[21];
    unsigned i = sizeof(digits) - 1;

    digits[i] = 0;
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    bare_print(digits + i);
}

extern uint32_t bare_start_info; /* start.S */

bool bare_word(const char *word)
{
    /* struct hvm_start_info: magic, version, flags, modules; list of modules; command line. */
    const struct {
        uint32_t magic, version, flags, modules;
        uint64_t list, line;
    } *info = (const void *)(uintptr_t)bare_start_info;
    const char *at;

    if (!info || info->magic != 0x336ec578 || !info->line)
        return false;
    for (at = (const char *)(uintptr_t)info->line; *at; at++) {
        unsigned n = 0;

        while (word[n] && word[n] == at[n])
            n++;
        if (!word[n])
            return true;
    }
    return false;
}

void *bare_alloc(size_t size, size_t align)
{
    size_t at = (pool_used + align - 1) & ~(align - 1);

    if (at > POOL || size > POOL - at)
        return NULL;
    pool_used = at + size;
    return memset(pool + at, 0, size);
}

void bare_alloc_reset(void)
{
    pool_used = 0;
}

static void *dma_alloc(void *ctx, size_t size, size_t align, uint64_t *address)
{
    void *p = bare_alloc(size, align);

    *address = (uintptr_t)p;
    return p;
}

static void dma_free(void *ctx, void *memory, size_t size, uint64_t address) {}

static uint64_t reg_read(void *ctx, uint64_t address, unsigned width)
{
    switch (width) {
    case 1:
        return *(volatile uint8_t *)address;
    case 2:
        return *(volatile uint16_t *)address;
    case 4:
        return *(volatile uint32_t *)address;
    default:
        return *(volatile uint64_t *)address;
    }
}

static void reg_write(void *ctx, uint64_t address, unsigned width, uint64_t value)
{
    switch (width) {
    case 1:
        *(volatile uint8_t *)address = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)address = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)address = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)address = value;
    }
}

/* A function's name is its bus, device and function as mechanism #1 has them: bits 23 to 8. */
static uint32_t pci_read(void *ctx, uint32_t function, unsigned offset, unsigned width)
{
    uint32_t v;

    out32(PCI_ADDRESS, 0x80000000u | function << 8 | (offset & 0xfc));
    v = in32(PCI_DATA) >> 8 * (offset & 3);
    return width == 4 ? v : v & ((1u << 8 * width) - 1);
}

static void pci_write(void *ctx, uint32_t function, unsigned offset, unsigned width, uint32_t value)
{
    uint32_t mask = width == 4 ? ~0u : ((1u << 8 * width) - 1) << 8 * (offset & 3);
    uint32_t old = pci_read(ctx, function, offset & ~3u, 4);

    out32(PCI_DATA, (old & ~mask) | (value << 8 * (offset & 3) & mask));
}

/* Where the firmware put a memory BAR, and how long it is. */
static uint64_t pci_map(void *ctx, uint32_t function, unsigned bar, uint64_t *size)
{
    unsigned at = 0x10 + 4 * bar;
    uint32_t low = pci_read(ctx, function, at, 4), high = 0, mask;
    uint32_t command = pci_read(ctx, function, 4, 2);

    if (low & 1)
        return 0;
    if ((low & 6) == 4)
        high = pci_read(ctx, function, at + 4, 4);
    pci_write(ctx, function, 4, 2, command & ~2u); /* it does not answer while it is measured */
    pci_write(ctx, function, at, 4, ~0u);
    mask = pci_read(ctx, function, at, 4) & ~15u;
    pci_write(ctx, function, at, 4, low);
    pci_write(ctx, function, 4, 2, command);
    *size = mask ? (uint64_t)~mask + 1 : 0;
    return (uint64_t)high << 32 | (low & ~15u);
}

static uint64_t now_ns(void *ctx)
{
    return __builtin_ia32_rdtsc(); /* about a nanosecond: good enough for order and bounds here */
}

static void relax(void *ctx)
{
    __builtin_ia32_pause();
}

static void log_line(void *ctx, enum vblk_log_level level, const char *text, uint64_t a, uint64_t b)
{
    bare_print(text);
    bare_print(": ");
    bare_print_number(a);
    bare_print(", ");
    bare_print_number(b);
    bare_print("\n");
}

const struct vblk_platform bare_platform = {
    .dma_alloc = dma_alloc,
    .dma_free = dma_free,
    .reg_read = reg_read,
    .reg_write = reg_write,
    .pci_read = pci_read,
    .pci_write = pci_write,
    .pci_map = pci_map,
    .now_ns = now_ns,
    .relax = relax,
    .log = log_line,
};

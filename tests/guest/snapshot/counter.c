/*
 * counter.c - a bare-metal guest that counts, and looks whether its last moment is the one before
 * this: what a snapshot tears apart, loses or does twice, it says ("FAILED: ...") and stops.
 *
 * Memory: generation g is written into PAGES pages in order, by CPU g modulo their number; whoever
 * has the next finds g in all of them. Each CPU holds in its own registers, general and vector,
 * which generation it wrote last, and counts in pages of its own while others write. Its time-stamp
 * counter does not go back.
 *
 * Console (COM1): every LINE_TICKS a line of 16 bytes, "t " and its number, nothing else: any piece
 * of the output tells what it must be.
 *
 * Disk, where there is one: each line's number goes into a block and into the first one before the
 * line is said; what was written for the last lines is read and compared first.
 *
 * Network, with the word net=PORT: some datagrams before each line, and what comes back (net.h).
 *
 * Words of the command line: cpus=2, cpus=4; tick=1, tick=10, tick=50: no counting, but a byte on
 * the console every so many milliseconds, and sleep between (the benchmark's idle guest).
 */
#include "counter.h"
#include "cpus.h"
#include "net.h"
#include "platform.h"

enum { PAGES = 96, OWN_PAGES = 4, WORDS = 512, LINE_TICKS = 4000000, DIGITS = 13 };
enum { BLOCK = 4096, SECTORS = BLOCK / VBLK_SECTOR_SIZE, BLOCKS = 61, PCI_FUNCTIONS = 256 };

int main(void);

static uint64_t pages[PAGES][WORDS] __attribute__((aligned(4096)));
static uint64_t own[CPUS_MAX][OWN_PAGES][WORDS] __attribute__((aligned(4096)));
static volatile uint64_t generation; /* the one that is written now */
static unsigned cpus = 1;

static struct vblk_queue *queue;
static uint64_t *block;
static bool writes; /* the disk can be written */

_Noreturn void fail(const char *what, uint64_t wanted, uint64_t got)
{
    bare_print("FAILED: ");
    bare_print(what);
    bare_print(": wanted ");
    bare_print_number(wanted);
    bare_print(", got ");
    bare_print_number(got);
    bare_print("\n");
    for (;;)
        __asm__ volatile("cli; hlt");
}

void expect(const char *what, uint64_t wanted, uint64_t got)
{
    if (wanted != got)
        fail(what, wanted, got);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

/* A page has the last generations in words that wander, and the last of all in the first word. */
static unsigned word_of(uint64_t g)
{
    return 1 + (unsigned)(g % (WORDS - 1));
}

static void write_generation(uint64_t g)
{
    for (unsigned p = 0; p < PAGES; p++) {
        volatile uint64_t *page = pages[p];

        expect("a page's generation", g - 1, page[0]);
        expect("a page's word of the last generation", g - 1, page[word_of(g - 1)]);
        page[0] = g;
        page[word_of(g)] = g;
    }
}

/* What this CPU does while it is not its turn: nobody else sees these pages. */
static uint64_t count_alone(unsigned n, uint64_t count)
{
    for (unsigned p = 0; p < OWN_PAGES; p++) {
        volatile uint64_t *page = own[n][p];

        expect("a CPU's own page", count, page[word_of(count)]);
        page[word_of(count + 1)] = count + 1;
    }
    return count + 1;
}

struct progress {
    uint64_t last, alone, tsc;
};

/* Its own turn, once. */
static void take_turn(unsigned n, struct progress *p)
{
    const uint64_t next = p->last ? p->last + cpus : n ? n : cpus;
    uint64_t now;

    while (generation != next) {
        p->alone = count_alone(n, p->alone);
        __builtin_ia32_pause();
    }
    expect("the generation in a vector register", p->last, vector_get());
    write_generation(next);
    p->last = next;
    vector_set(next);
    now = rdtsc();
    if (now < p->tsc)
        fail("the time-stamp counter", p->tsc, now);
    p->tsc = now;
    generation = next + 1; /* x86 orders stores */
}

static void work(unsigned n)
{
    struct progress p = {0};

    vector_set(0);
    for (;;)
        take_turn(n, &p);
}

/* ---- disk -------------------------------------------------------------------------------------
 */

static void transfer(uint32_t op, uint64_t at)
{
    struct vblk_request r = {
        .op = op, .count = 1, .sector = at * SECTORS, .segment = {block, BLOCK}};
    struct vblk_request *list[] = {&r}, *done[1];
    int n = qz_vblk_submit(queue, list, 1);

    expect("requests submitted", 1, (uint64_t)n);
    while ((n = qz_vblk_poll(queue, done, 1)) == 0)
        __builtin_ia32_pause();
    expect("requests that ended", 1, (uint64_t)n);
    expect("a request's status", 0, (uint64_t)r.status);
}

static void check_block(const char *what, uint64_t at, uint64_t line)
{
    transfer(VBLK_OP_READ, at);
    for (unsigned i = 0; i < WORDS; i++)
        expect(what, line, block[i]);
}

static void write_block(uint64_t at, uint64_t line)
{
    for (unsigned i = 0; i < WORDS; i++)
        block[i] = line;
    transfer(VBLK_OP_WRITE, at);
}

static uint64_t block_of(uint64_t line)
{
    return 1 + line % BLOCKS;
}

static void disk_line(uint64_t line)
{
    const uint64_t oldest = line > BLOCKS ? line - BLOCKS : 0;

    if (!writes)
        return check_block("a disk that nobody writes", block_of(line), 0);
    check_block("the disk's first block", 0, line - 1);
    check_block("the disk's block of the last line", block_of(line - 1), line - 1);
    check_block("the disk's oldest block", block_of(line), oldest);
    write_block(block_of(line), line);
    write_block(0, line);
}

/* A disk is there or not; one that does not start is a failure. It begins with zeroes, and ends
 * with them where it can only be read. */
static void disk_start(void)
{
    static struct vblk_pci pci;
    struct vblk_device *dev;
    struct vblk_config c;
    struct vblk_info info;
    uint32_t f = 0;
    size_t size;

    while (f < PCI_FUNCTIONS && (bare_platform.pci_read(NULL, f, 0, 2) == 0xffff ||
                                 qz_vblk_pci_init(&pci, &bare_platform, f) < 0))
        f++;
    if (f == PCI_FUNCTIONS)
        return;
    qz_vblk_config_default(&c);
    size = qz_vblk_memory_size(&c);
    block = bare_alloc(BLOCK, BLOCK);
    expect("the disk's creation", 0,
           (uint64_t)qz_vblk_create(bare_alloc(size, 64), size, &pci.t, &c, &dev));
    expect("the disk's start", 0, (uint64_t)qz_vblk_start(dev));
    queue = qz_vblk_queue(dev, 0);
    qz_vblk_get_info(dev, &info);
    writes = !info.read_only;
}

/* ---- console ----------------------------------------------------------------------------------
 */

static void say_line(uint64_t line)
{
    char text[2 + DIGITS + 2] = "t ";

    for (unsigned i = DIGITS; i > 0; i--, line /= 10)
        text[1 + i] = (char)('0' + line % 10);
    text[2 + DIGITS] = '\n';
    bare_print(text);
}

static _Noreturn void beat(unsigned ms)
{
    timer_start(ms);
    for (;;) {
        timer_wait();
        bare_print(".");
    }
}

int main(void)
{
    struct progress p = {0};
    uint64_t line = 0, said = 0;

    cpus = bare_word("cpus=4") ? 4 : bare_word("cpus=2") ? 2 : 1;
    if (bare_word("tick=")) {
        cpus_start(1, NULL);
        beat(bare_word("tick=50") ? 50 : bare_word("tick=10") ? 10 : 1);
    }
    while (bare_word("busy"))
        bare_print(".");
    disk_start();
    net_start();
    generation = 1;
    cpus_start(cpus, work);
    vector_set(0);
    for (;;) {
        take_turn(0, &p);
        if (p.tsc - said < LINE_TICKS)
            continue;
        said = p.tsc;
        line++;
        if (queue)
            disk_line(line);
        net_line(line);
        say_line(line);
    }
}

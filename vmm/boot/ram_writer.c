/*
 * ram_writer.c - writing a kernel and an initrd into fresh guest RAM (boot_internal.h).
 *
 * Theory of operation. What costs time here is not copying but the first touch of each page: guest RAM is a memfd,
 * and a fault on a 4 KiB page of it takes longer than writing it. So each 2 MiB chunk that will be written
 * is first asked for as one huge page (MADV_COLLAPSE, Linux 6.1; it works where transparent huge pages are not
 * switched on for shared memory, and wants one page of the chunk present). The guest gains from it too: its
 * kernel then lies in huge pages. Where the host cannot or must search long for free huge pages, the
 * pages come by faults one at a time, and all is the same but slower.
 *
 * Pages of zeros (the .bss that a vmlinux carries in its file) are left untouched: they cost nothing.
 */
#include "boot/boot_internal.h"

QZ_SYSCALLS(main, "madvise");

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
    PAGE = 4096,
    WORTH_IT = RAM_CHUNK_SIZE / 4,   /* bytes written in a chunk below which single faults are cheaper */
    SLOW_CHUNK_NS = 1500000,         /* longer than faulting in the chunk by single pages takes */
    CHUNKS_BEFORE_STOP = 4,
};

void ram_writer_init(struct ram_writer *w, const struct guest_memory *m)
{
    *w = (struct ram_writer){.memory = m};
    /* A huge page's address in this process has to be as aligned as its offset in the memfd. */
    w->stopped = (uintptr_t)m->low % RAM_CHUNK_SIZE != 0;
}

static void make_huge(struct ram_writer *w, uint64_t first, uint64_t end)
{
    uint8_t *at = w->memory->low + first * RAM_CHUNK_SIZE;
    int64_t start = qz_now_ns(), spent;
    unsigned chunks;

    /* Reading a hole of a memfd puts a page there; a write could race with another thread's copy. */
    for (uint64_t i = 0; i < end - first; i++)
        (void)*(volatile uint8_t *)(at + i * RAM_CHUNK_SIZE);
    if (madvise(at, (end - first) * RAM_CHUNK_SIZE, MADV_COLLAPSE) < 0)
        __atomic_store_n(&w->stopped, true, __ATOMIC_RELAXED);
    spent = __atomic_add_fetch(&w->spent_ns, qz_now_ns() - start, __ATOMIC_RELAXED);
    chunks = __atomic_add_fetch(&w->chunks, (unsigned)(end - first), __ATOMIC_RELAXED);
    if (chunks >= CHUNKS_BEFORE_STOP && spent / chunks > SLOW_CHUNK_NS)
        __atomic_store_n(&w->stopped, true, __ATOMIC_RELAXED);
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Bytes from guest address a to the next page boundary, at most len. */
static uint64_t page_rest(uint64_t a, uint64_t len)
{
    return QZ_MIN(len, PAGE - a % PAGE);
}

/*
 * Whether chunk i is worth a huge page when [a, a+len) is written from data (NULL: not known yet, take it as
 * not zero), and nobody asked for one before.
 */
static bool claim(struct ram_writer *w, uint64_t i, uint64_t a, uint64_t len, const uint8_t *data)
{
    uint64_t begin = QZ_MAX(a, i * RAM_CHUNK_SIZE), end = QZ_MIN(a + len, (i + 1) * RAM_CHUNK_SIZE);

    if (end - begin < WORTH_IT || (i + 1) * RAM_CHUNK_SIZE > w->memory->low_size || i >= QZ_ARRAY_LEN(w->ready))
        return false;
    while (data && begin < end && is_zero(data + (begin - a), page_rest(begin, end - begin)))
        begin += page_rest(begin, end - begin);
    return begin < end && !__atomic_exchange_n(&w->ready[i], 1, __ATOMIC_RELAXED);
}

static void prepare(struct ram_writer *w, uint64_t a, uint64_t len, const uint8_t *data)
{
    uint64_t end = (a + len - 1) / RAM_CHUNK_SIZE + 1;

    for (uint64_t i = a / RAM_CHUNK_SIZE; i < end; i++) {
        uint64_t run = i;

        if (__atomic_load_n(&w->stopped, __ATOMIC_RELAXED))
            return;
        while (run < end && claim(w, run, a, len, data))
            run++;
        /* One call for many: each makes the kernel empty the per-CPU page lists of all CPUs. */
        if (run > i) {
            make_huge(w, i, run);
            i = run;
        }
    }
}

void ram_writer_prepare(struct ram_writer *w, uint64_t a, uint64_t len)
{
    if (len && a < w->memory->low_size && len <= w->memory->low_size - a)
        prepare(w, a, len, NULL);
}

int ram_writer_copy(struct ram_writer *w, uint64_t a, const uint8_t *data, uint64_t len)
{
    if (a > w->memory->low_size || len > w->memory->low_size - a)
        return -EFAULT;
    if (len)
        prepare(w, a, len, data);
    for (uint64_t done = 0, n; done < len; done += n) {
        n = page_rest(a + done, len - done);
        if (!is_zero(data + done, n))
            memcpy(w->memory->low + a + done, data + done, n);
    }
    return 0;
}

/* memory_hash.c - a number that stands for guest memory (memory_hash.h). */
#include "cpu/jit/memory_hash.h"

#include <sys/mman.h>

#include "cpu/jit/mmu_internal.h"
#include "cpu/jit/slots.h"

QZ_SYSCALLS(vcpu, "mincore");

enum { PAGE = 4096, WORDS = PAGE / 8, LANES = 4, MINCORE_PAGES = 4096 };

struct jit_written {
    uint64_t sum;    /* of the pages' numbers */
    uint64_t *page;  /* the number of each, 0: zeros */
    uint64_t bits[]; /* atomic: pages that may have changed since */
};

static uint64_t pages_of(const struct jit_slot *s)
{
    return s->size / PAGE;
}

static uint64_t words_of(const struct jit_slot *s)
{
    return (pages_of(s) + 63) / 64;
}

void memory_hash_free(struct jit_slot *s)
{
    if (!s->written)
        return;
    free(s->written->page);
    free(s->written);
    s->written = NULL;
}

void memory_hash_note(struct jit_slot *s, uint64_t gpa, uint64_t len)
{
    struct jit_written *w = __atomic_load_n(&s->written, __ATOMIC_ACQUIRE);
    const uint64_t first = (gpa - s->gpa) / PAGE, last = (gpa - s->gpa + len - 1) / PAGE;

    if (!w || len == 0)
        return;
    for (uint64_t p = first; p <= last; p++)
        __atomic_or_fetch(&w->bits[p / 64], 1ull << (p & 63), __ATOMIC_RELEASE);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15) * (b | 1);

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t number_of(const uint8_t *host, uint64_t gpa)
{
    uint64_t lane[LANES] = {1, 2, 3, 4}, all = 0, word[LANES];

    for (unsigned i = 0; i < WORDS; i += LANES) {
        memcpy(word, host + 8ul * i, sizeof(word));
        for (unsigned k = 0; k < LANES; k++) {
            all |= word[k];
            lane[k] = mix(lane[k] + i, word[k] ^ 0x632be59bd9b4e019) + word[k];
        }
    }
    return all ? mix(mix(lane[0], lane[1]) ^ mix(lane[2], lane[3]), gpa + 1) : 0;
}

/* What was never touched is not read: that would make it take memory. */
static void note_resident(struct jit_slot *s)
{
    unsigned char resident[MINCORE_PAGES];

    for (uint64_t at = 0; at < pages_of(s); at += MINCORE_PAGES) {
        const uint64_t n = QZ_MIN(pages_of(s) - at, (uint64_t)MINCORE_PAGES);

        if (mincore(s->host + at * PAGE, n * PAGE, resident) < 0)
            memset(resident, 1, n);
        for (uint64_t i = 0; i < n; i++)
            if (resident[i] & 1)
                memory_hash_note(s, s->gpa + (at + i) * PAGE, PAGE);
    }
}

static int begin(struct jit_slot *s)
{
    struct jit_written *w = calloc(1, sizeof(*w) + words_of(s) * sizeof(w->bits[0]));

    if (!w || !(w->page = calloc(pages_of(s), sizeof(w->page[0])))) {
        free(w);
        return -ENOMEM;
    }
    __atomic_store_n(&s->written, w, __ATOMIC_RELEASE);
    note_resident(s);
    return 0;
}

static void look_at(struct jit_slot *s)
{
    struct jit_written *w = s->written;

    for (uint64_t word = 0; word < words_of(s); word++) {
        uint64_t bits = __atomic_load_n(&w->bits[word], __ATOMIC_RELAXED);

        if (bits)
            bits = __atomic_exchange_n(&w->bits[word], 0, __ATOMIC_ACQUIRE);
        for (; bits; bits &= bits - 1) {
            const uint64_t p = word * 64 + (unsigned)__builtin_ctzll(bits);
            const uint64_t now = number_of(s->host + p * PAGE, s->gpa + p * PAGE);

            w->sum += now - w->page[p];
            w->page[p] = now;
        }
    }
}

int memory_hash(struct accel_vm *base, uint64_t *hash)
{
    struct jit_vm *vm = QZ_CONTAINER_OF(base, struct jit_vm, accel);
    int r = 0;

    *hash = 0;
    pthread_rwlock_rdlock(&vm->slots_lock);
    for (unsigned i = 0; i < vm->slots && r == 0; i++) {
        struct jit_slot *s = &vm->slot[i];

        if (!s->written && (r = begin(s)) < 0)
            break;
        look_at(s);
        *hash += s->written->sum;
    }
    pthread_rwlock_unlock(&vm->slots_lock);
    for (unsigned i = 0; i < vm->config.vcpus; i++)
        if (vm->cpus[i])
            tlb_drop_all_writes(vm->cpus[i]);
    return r;
}

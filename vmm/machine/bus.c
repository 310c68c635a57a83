/*
 * bus.c - which device answers which address (bus.h).
 *
 * Theory of operation. Regions are kept sorted by base, so a look-up is a binary search under a
 * read lock. The region is copied out and the lock dropped before the device is called, so
 * callbacks may add and remove regions. Writers go first: a guest whose CPUs all poll a device
 * cannot keep another one from moving its BAR.
 */
#include "machine/bus.h"

QZ_SYSCALLS(vcpu, "futex");

struct bus {
    pthread_rwlock_t lock;
    uint64_t last; /* highest address */
    struct bus_region *region;
    size_t count, capacity;
};

int bus_new(struct bus **out, uint64_t size)
{
    struct bus *b = calloc(1, sizeof(*b));
    pthread_rwlockattr_t attr;

    if (!b)
        return -ENOMEM;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&b->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    b->last = size - 1; /* 0 wraps to all of 64 bits */
    *out = b;
    return 0;
}

void bus_free(struct bus *b)
{
    if (!b)
        return;
    pthread_rwlock_destroy(&b->lock);
    free(b->region);
    free(b);
}

/* Index of the first region that ends behind address; lock held. */
static size_t find(const struct bus *b, uint64_t address)
{
    size_t low = 0, high = b->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (b->region[mid].base + (b->region[mid].size - 1) < address)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int insert(struct bus *b, const struct bus_region *r)
{
    size_t i = find(b, r->base);

    if (i < b->count && b->region[i].base <= r->base + (r->size - 1))
        return -EBUSY;
    if (b->count == b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 32;
        struct bus_region *bigger = realloc(b->region, capacity * sizeof(*bigger));

        if (!bigger)
            return -ENOMEM;
        b->region = bigger;
        b->capacity = capacity;
    }
    memmove(&b->region[i + 1], &b->region[i], (b->count - i) * sizeof(*b->region));
    b->region[i] = *r;
    b->count++;
    return 0;
}

int bus_add(struct bus *b, const struct bus_region *r)
{
    int result;

    if (r->size == 0 || r->base > b->last || r->size - 1 > b->last - r->base)
        return -EINVAL;
    pthread_rwlock_wrlock(&b->lock);
    result = insert(b, r);
    pthread_rwlock_unlock(&b->lock);
    return result;
}

void bus_remove(struct bus *b, uint64_t base, uint64_t size)
{
    pthread_rwlock_wrlock(&b->lock);
    size_t i = find(b, base);

    if (i < b->count && b->region[i].base == base && b->region[i].size == size) {
        memmove(&b->region[i], &b->region[i + 1], (b->count - i - 1) * sizeof(*b->region));
        b->count--;
    }
    pthread_rwlock_unlock(&b->lock);
}

/*
 * The region at address, or false; *room: bytes from address to its end, to the next region or to
 * the end of the bus (at most 8 matter).
 */
static bool look_up(struct bus *b, uint64_t address, struct bus_region *r, unsigned *room)
{
    uint64_t left = b->last - address; /* one less than the bytes left, which may be 2^64 */
    bool found = false;
    size_t i;

    pthread_rwlock_rdlock(&b->lock);
    i = find(b, address);
    if (i < b->count && b->region[i].base <= address) {
        *r = b->region[i];
        found = true;
        left = r->size - 1 - (address - r->base);
    } else if (i < b->count) {
        left = b->region[i].base - address - 1;
    }
    pthread_rwlock_unlock(&b->lock);
    *room = left >= 8 ? 8 : (unsigned)left + 1;
    return found;
}

/* The largest of 8, 4, 2, 1 that fits. */
static unsigned piece(unsigned len)
{
    return len >= 8 ? 8 : len >= 4 ? 4 : len >= 2 ? 2 : 1;
}

static uint64_t call_read(const struct bus_region *r, uint64_t offset, unsigned size)
{
    uint64_t v;

    if (!r->ops->read)
        return ~0ull;
    if (r->lock)
        pthread_mutex_lock(r->lock);
    v = r->ops->read(r->device, offset, size);
    if (r->lock)
        pthread_mutex_unlock(r->lock);
    return v;
}

static void call_write(const struct bus_region *r, uint64_t offset, unsigned size, uint64_t v)
{
    if (!r->ops->write)
        return;
    if (r->lock)
        pthread_mutex_lock(r->lock);
    r->ops->write(r->device, offset, size, v);
    if (r->lock)
        pthread_mutex_unlock(r->lock);
}

/* What lies past the end of the bus reads as ones and swallows writes; addresses do not wrap
 * around. */
void bus_read(struct bus *b, uint64_t address, void *data, unsigned len)
{
    uint8_t *p = data;

    while (len) {
        struct bus_region r;
        unsigned room, n;
        uint64_t v = ~0ull, le;

        if (address > b->last) {
            memset(p, 0xff, len);
            return;
        }
        bool found = look_up(b, address, &r, &room);

        n = piece(QZ_MIN(len, room));
        if (found)
            v = call_read(&r, address - r.base, n);
        qz_store_le64(&le, v);
        memcpy(p, &le, n);
        p += n;
        len -= n;
        if (len && n > b->last - address) { /* the last byte of 2^64 */
            memset(p, 0xff, len);
            return;
        }
        address += n;
    }
}

void bus_write(struct bus *b, uint64_t address, const void *data, unsigned len)
{
    const uint8_t *p = data;

    while (len && address <= b->last) {
        struct bus_region r;
        unsigned room, n;
        uint64_t le = 0;
        bool found = look_up(b, address, &r, &room);

        n = piece(QZ_MIN(len, room));
        memcpy(&le, p, n);
        if (found)
            call_write(&r, address - r.base, n, qz_load_le64(&le));
        p += n;
        len -= n;
        if (n > b->last - address)
            return;
        address += n;
    }
}

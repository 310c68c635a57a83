/*
 * integer.c - workloads of general registers and memory: an integer mix, calls, indirect jumps,
 * pointer chasing, copying.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "workload.h"

/* A mix of what small embedded programs do: a linked list, a matrix, a state machine over text, and
 * a CRC over all results. */
enum { NODES = 64, SIDE = 12, TEXT = 256 };

struct node {
    struct node *next;
    int16_t key, value;
};

static uint16_t crc16(uint16_t crc, uint32_t data, int bits)
{
    for (int i = 0; i < bits; i++) {
        bool carry = (crc ^ data) & 1;

        data >>= 1;
        crc = carry ? (crc >> 1) ^ 0xa001 : crc >> 1;
    }
    return crc;
}

static struct node *list_reverse(struct node *head)
{
    struct node *done = NULL;

    while (head) {
        struct node *next = head->next;

        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static struct node *list_merge(struct node *a, struct node *b)
{
    struct node head = {NULL, 0, 0}, *last = &head;

    while (a && b) {
        struct node **least = a->key <= b->key ? &a : &b;

        last->next = *least;
        last = *least;
        *least = last->next;
    }
    last->next = a ? a : b;
    return head.next;
}

static struct node *list_sort(struct node *head)
{
    struct node *slow = head, *fast = head->next, *right;

    if (!fast)
        return head;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    right = slow->next;
    slow->next = NULL;
    return list_merge(list_sort(head), list_sort(right));
}

static uint16_t list_part(struct node *nodes, uint64_t *seed, uint16_t crc)
{
    struct node *head = nodes;

    for (int i = 0; i < NODES; i++)
        nodes[i] =
            (struct node){i + 1 < NODES ? &nodes[i + 1] : NULL, next_random(seed) & 0x7fff, i};
    for (int i = 0; i < 8; i++) {
        const struct node *n = head;

        while (n && n->value != i * 7)
            n = n->next;
        crc = crc16(crc, n ? n->key : 0, 16);
        head = list_reverse(head);
    }
    for (head = list_sort(head); head; head = head->next)
        crc = crc16(crc, head->value, 8);
    return crc;
}

static uint16_t matrix_part(uint64_t *seed, uint16_t crc)
{
    static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    static int32_t c[SIDE][SIDE];
    uint64_t r = next_random(seed);

    for (int i = 0; i < SIDE * SIDE; i++) {
        a[i / SIDE][i % SIDE] = (r >> (i & 31)) & 0xff;
        b[i / SIDE][i % SIDE] = (r >> (i & 15)) & 0x7f;
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            int32_t sum = 0;

            for (int k = 0; k < SIDE; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
    }
    for (int i = 0; i < SIDE; i++)
        crc = crc16(crc, c[i][(i * 5) % SIDE], 32);
    return crc;
}

/* Counts numbers, words and signs of a text, one character at a time. */
static uint16_t text_part(uint64_t *seed, uint16_t crc)
{
    static const char letters[] = "0123456789+-.eE, abc";
    enum { START, SIGN, NUMBER, FRACTION, EXPONENT, WORD, STATES } state = START;
    uint32_t count[STATES] = {0};
    char text[TEXT];

    for (int i = 0; i < TEXT; i++)
        text[i] = letters[next_random(seed) % (sizeof(letters) - 1)];
    for (int i = 0; i < TEXT; i++) {
        char c = text[i];

        switch (state) {
        case START:
            state = c == '+' || c == '-'   ? SIGN
                    : c >= '0' && c <= '9' ? NUMBER
                    : c == '.'             ? FRACTION
                                           : WORD;
            break;
        case SIGN:
        case NUMBER:
            state = c >= '0' && c <= '9'   ? NUMBER
                    : c == '.'             ? FRACTION
                    : c == 'e' || c == 'E' ? EXPONENT
                                           : START;
            break;
        case FRACTION:
            state = c >= '0' && c <= '9' ? FRACTION : c == 'e' || c == 'E' ? EXPONENT : START;
            break;
        case EXPONENT:
            state = (c >= '0' && c <= '9') || c == '-' ? EXPONENT : START;
            break;
        default:
            state = c == ' ' || c == ',' ? START : WORD;
        }
        count[state]++;
    }
    for (int i = 0; i < STATES; i++)
        crc = crc16(crc, count[i], 16);
    return crc;
}

static void integer_mix(uint64_t n)
{
    static struct node nodes[NODES];
    uint64_t seed = 88172645463325252;
    uint16_t crc = 0;

    while (n--) {
        crc = list_part(nodes, &seed, crc);
        crc = matrix_part(&seed, crc);
        crc = text_part(&seed, crc);
    }
    sink = crc;
}

static __attribute__((noinline)) uint64_t fib(uint64_t n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

/* An operation is fib(20): 21,891 calls. */
static void fib_run(uint64_t n)
{
    uint64_t sum = 0;

    while (n--)
        sum += fib(20);
    sink = sum;
}

/* A machine of six instructions, each of which jumps to the next through a table. An operation is
 * 1,000 rounds of its program. */
static void jump_vm(uint64_t n)
{
    static const void *const at[] = {&&add, &&xor, &&shift, &&load, &&loop, &&stop};
    static const uint8_t program[] = {0, 1, 2, 0, 3, 1, 0, 2, 3, 0, 1, 4, 5};
    static uint64_t cells[16];
    const uint8_t *pc = program;
    uint64_t acc = 1, left = n * 1000;

    goto *at[*pc];
add:
    acc += left;
    goto *at[*++pc];
    xor : acc ^= 0x5bd1e995;
    goto *at[*++pc];
shift:
    acc = acc << 5 | acc >> 59;
    goto *at[*++pc];
load:
    acc += cells[acc & 15]++;
    goto *at[*++pc];
loop:
    pc = --left ? program : pc + 1;
    goto *at[*pc];
stop:
    sink = acc;
}

/* A ring of pointers in random order, one in each 64 bytes. An operation is 1,000 hops. */
struct cell {
    struct cell *next;
    uint64_t fill[7];
};

/* Memory that stays, and that fork does not copy: what fork-wait measures shall not depend on what
 * ran before it. */
static void *memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED || madvise(p, size, MADV_DONTFORK) < 0)
        die("memory");
    return p;
}

static struct cell *make_ring(size_t cells)
{
    struct cell *ring = memory(cells * sizeof(*ring));
    uint32_t *order = malloc(cells * sizeof(*order));
    uint64_t seed = 12345;

    if (!order)
        die("memory for a ring");
    for (size_t i = 0; i < cells; i++)
        order[i] = i;
    for (size_t i = cells - 1; i > 0; i--) {
        size_t j = next_random(&seed) % (i + 1);
        uint32_t t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (size_t i = 0; i < cells; i++)
        ring[order[i]].next = &ring[order[(i + 1) % cells]];
    free(order);
    return ring;
}

static void chase(struct cell *c, uint64_t n)
{
    for (n *= 1000; n; n--)
        c = c->next;
    sink = (uintptr_t)c;
}

static void chase_16k(uint64_t n)
{
    static struct cell *ring;

    if (!ring)
        ring = make_ring(16384 / sizeof(struct cell));
    chase(ring, n);
}

static void chase_8m(uint64_t n)
{
    static struct cell *ring;

    if (!ring)
        ring = make_ring((8 << 20) / sizeof(struct cell));
    chase(ring, n);
}

/* An operation is 1,024 words, each loaded, added to and stored; volatile keeps the compiler from
 * vectors. */
static void load_add_store(uint64_t n)
{
    static volatile uint64_t words[1024];

    while (n--) {
        for (int i = 0; i < 1024; i++)
            words[i] += n;
    }
    sink = words[7];
}

static void copy(uint64_t n, size_t size, size_t times)
{
    static char *from, *to;
    void *(*volatile copier)(void *, const void *, size_t) = memcpy; /* no copy written inline */

    if (!from) {
        from = memory(1 << 20);
        to = memory(1 << 20);
        memset(from, 1, 1 << 20);
        memset(to, 2, 1 << 20);
    }
    while (n--) {
        for (size_t i = 0; i < times; i++)
            copier(to + i * size, from + i * size, size);
    }
    sink = to[5];
}

static void memcpy_1m(uint64_t n)
{
    copy(n, 1 << 20, 1);
}

static void memcpy_256(uint64_t n)
{
    copy(n, 256, 64);
}

const struct workload integer_workloads[] = {
    {"integer-mix", "round", integer_mix, NULL, false},
    {"fib", "fib(20)", fib_run, NULL, false},
    {"jump-vm", "kround", jump_vm, NULL, false},
    {"chase-16k", "khop", chase_16k, NULL, false},
    {"chase-8m", "khop", chase_8m, NULL, false},
    {"load-add-store", "kword", load_add_store, NULL, false},
    {"memcpy-1m", "MiB", memcpy_1m, NULL, false},
    {"memcpy-256", "16KiB", memcpy_256, NULL, false},
    {NULL},
};

/*
 * base.h - what every room of Queztl stands on: errors, logging, sizes, scope cleanup, bytes.
 *
 * Functions return 0 (or a non-negative count) or a negative errno. Where a person will read the
 * cause, the last parameter is a struct qz_error, filled once at the place that knows object and
 * cause. The event loop has its own header, <queztl/loop.h>.
 */
#ifndef QUEZTL_BASE_H
#define QUEZTL_BASE_H

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- errors ---------------------------------------------------------------------------------- */

/* One failure, told for a person: "disk a.img: cannot open: No such file or directory". */
struct qz_error {
    int code;       /* negative errno, 0 while nothing failed */
    char text[480]; /* what, where, why and, where there is one, the cure */
};

/*
 * Fills *err (which may be NULL) and returns code, so that `return qz_fail(err, -EINVAL, "...")`
 * reads as one thing. code is a negative errno. The text is cut, never overrun.
 */
int qz_fail(struct qz_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the text of an error that a lower layer filled. Returns err->code, or
 * -EINVAL where nobody asks for the cause: a failure stays one. */
int qz_error_prefix(struct qz_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- logging --------------------------------------------------------------------------------- */

enum qz_log_level { QZ_LOG_ERROR, QZ_LOG_WARN, QZ_LOG_INFO, QZ_LOG_DEBUG };

/* Process-wide threshold, QZ_LOG_WARN at start. Lines go to standard error, one write(2) each. */
void qz_log_set_level(enum qz_log_level level);
enum qz_log_level qz_log_level(void);
void qz_log(enum qz_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define qz_error_log(...) qz_log(QZ_LOG_ERROR, __VA_ARGS__)
#define qz_warn(...)      qz_log(QZ_LOG_WARN, __VA_ARGS__)
#define qz_info(...)      qz_log(QZ_LOG_INFO, __VA_ARGS__)
#define qz_debug(...)     qz_log(QZ_LOG_DEBUG, __VA_ARGS__)

/*
 * A token bucket for messages that a guest can cause: at most `burst` at once, one more each
 * second. Static storage, zero initialised: `static struct qz_ratelimit rl;`. Any thread.
 */
struct qz_ratelimit {
    int64_t last_ns;
    int tokens_used;
};
bool qz_ratelimit_ok(struct qz_ratelimit *rl);
/* A warning about something the guest did; rate limited per call site. */
#define qz_guest_warn(...)                                                                         \
    do {                                                                                           \
        static struct qz_ratelimit qz_rl_;                                                         \
        if (qz_ratelimit_ok(&qz_rl_))                                                              \
            qz_log(QZ_LOG_WARN, __VA_ARGS__);                                                      \
    } while (0)

/* ---- sizes and numbers a person types -------------------------------------------------------- */

/*
 * "512M", "2GB" (10^9), "2GiB" (2^30), "4K": the plain letter means the binary unit. A bare number
 * is refused as ambiguous (-EINVAL), a size past 2^63 is -ERANGE.
 */
int qz_parse_size(const char *text, uint64_t *bytes, struct qz_error *err);
/* Decimal or 0x hexadecimal, whole string, min..max inclusive. `what` names it in the error. */
int qz_parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *value,
                 struct qz_error *err);
/* "1.5 GiB" into buf (at least 16 bytes); returns buf. */
const char *qz_format_size(uint64_t bytes, char *buf, size_t len);

/* ---- scope cleanup --------------------------------------------------------------------------- */

static inline void qz_cleanup_free_(void *p)
{
    free(*(void **)p);
}
static inline void qz_cleanup_fd_(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void qz_cleanup_file_(FILE **f)
{
    if (*f)
        fclose(*f);
}
static inline void qz_cleanup_unlock_(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}
#define QZ_AUTO_FREE __attribute__((cleanup(qz_cleanup_free_)))
#define QZ_AUTO_FD   __attribute__((cleanup(qz_cleanup_fd_)))
#define QZ_AUTO_FILE __attribute__((cleanup(qz_cleanup_file_)))
/* Locks m until the end of the scope. */
#define QZ_LOCKED(m)     QZ_LOCKED_(m, __LINE__)
#define QZ_LOCKED_(m, l) QZ_LOCKED__(m, l)
#define QZ_LOCKED__(m, l)                                                                          \
    pthread_mutex_t *qz_lock_##l __attribute__((cleanup(qz_cleanup_unlock_), unused)) =            \
        (pthread_mutex_lock(m), (m))

/* Takes the value out of an owned variable so that its cleanup leaves it alone. */
#define QZ_TAKE_PTR(p)                                                                             \
    ({                                                                                             \
        __auto_type qz_p_ = (p);                                                                   \
        (p) = NULL;                                                                                \
        qz_p_;                                                                                     \
    })
#define QZ_TAKE_FD(fd)                                                                             \
    ({                                                                                             \
        int qz_fd_ = (fd);                                                                         \
        (fd) = -1;                                                                                 \
        qz_fd_;                                                                                    \
    })

/* ---- small things ---------------------------------------------------------------------------- */

#define QZ_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
/* Each argument is evaluated once; the counter keeps nested uses from shadowing each other. */
#define QZ_MIN(a, b)          QZ_PICK_(a, b, <, __COUNTER__)
#define QZ_MAX(a, b)          QZ_PICK_(a, b, >, __COUNTER__)
#define QZ_PICK_(a, b, op, n) QZ_PICK__(a, b, op, n)
#define QZ_PICK__(a, b, op, n)                                                                     \
    ({                                                                                             \
        __auto_type a_##n = (a);                                                                   \
        __auto_type b_##n = (b);                                                                   \
        a_##n op b_##n ? a_##n : b_##n;                                                            \
    })
#define QZ_ALIGN_UP(x, a)        (((x) + ((__typeof__(x))(a)-1)) & ~((__typeof__(x))(a)-1))
#define QZ_ALIGN_DOWN(x, a)      ((x) & ~((__typeof__(x))(a)-1))
#define QZ_BIT(n)                (1ull << (n))
#define QZ_CONTAINER_OF(p, T, m) ((T *)((char *)(p)-offsetof(T, m)))

/* Little-endian loads and stores of unaligned bytes (guest and file formats are little-endian). */
#define QZ_LE_ACCESS(bits)                                                                         \
    static inline uint##bits##_t qz_load_le##bits(const void *p)                                   \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap##bits(v);           \
    }                                                                                              \
    static inline void qz_store_le##bits(void *p, uint##bits##_t v)                                \
    {                                                                                              \
        v = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? v : __builtin_bswap##bits(v);              \
        memcpy(p, &v, sizeof(v));                                                                  \
    }                                                                                              \
    static inline uint##bits##_t qz_load_be##bits(const void *p)                                   \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof(v));                                                                  \
        return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? v : __builtin_bswap##bits(v);              \
    }                                                                                              \
    static inline void qz_store_be##bits(void *p, uint##bits##_t v)                                \
    {                                                                                              \
        v = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? v : __builtin_bswap##bits(v);                 \
        memcpy(p, &v, sizeof(v));                                                                  \
    }
QZ_LE_ACCESS(16)
QZ_LE_ACCESS(32)
QZ_LE_ACCESS(64)

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t qz_now_ns(void);

/* The next number of a sequence that *state, any seed at first, decides (splitmix64). Not for
 * secrets. */
static inline uint64_t qz_random64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Reads a whole regular file of at most max bytes into malloc'ed *data (NUL-terminated past len).
 */
int qz_read_file(const char *path, size_t max, void **data, size_t *len, struct qz_error *err);

/*
 * A source file declares the system calls its code makes, beside that code:
 *     QZ_SYSCALLS(io, "io_uring_enter preadv2");
 * The monitor's build gathers these lines into one seccomp filter for each thread type (see
 * vmm/vm/confine.h): vcpu, io, main. The macro itself generates nothing.
 */
#define QZ_SYSCALLS(thread_type, names) _Static_assert(sizeof(names) > 1, "system call list")

#endif

/* log.c - log lines to standard error, one write(2) each so that threads do not interleave. */
#include <queztl/base.h>
#include <time.h>

QZ_SYSCALLS(all, "write clock_gettime");

static enum qz_log_level threshold = QZ_LOG_WARN;

void qz_log_set_level(enum qz_log_level level)
{
    threshold = level;
}

enum qz_log_level qz_log_level(void)
{
    return threshold;
}

void qz_log(enum qz_log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    va_list ap;
    int n, m;

    if (level > threshold)
        return;
    n = snprintf(line, sizeof(line), "queztl: %s: ", names[level]);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    if (m < 0)
        return;
    n = QZ_MIN(n + m, (int)sizeof(line) - 2);
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nowhere left to say it */
}

int64_t qz_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

bool qz_ratelimit_ok(struct qz_ratelimit *rl)
{
    enum { BURST = 5 };
    int64_t now = qz_now_ns(), last = __atomic_load_n(&rl->last_ns, __ATOMIC_RELAXED);
    int64_t refill = (now - last) / 1000000000ll;

    /* Races between threads cost at most a line too many: no ordering is needed. */
    if (refill > 0) {
        __atomic_store_n(&rl->last_ns, now, __ATOMIC_RELAXED);
        int used = __atomic_load_n(&rl->tokens_used, __ATOMIC_RELAXED);
        __atomic_store_n(&rl->tokens_used, refill > used ? 0 : used - (int)refill,
                         __ATOMIC_RELAXED);
    }
    if (__atomic_load_n(&rl->tokens_used, __ATOMIC_RELAXED) >= BURST)
        return false;
    __atomic_fetch_add(&rl->tokens_used, 1, __ATOMIC_RELAXED);
    return true;
}

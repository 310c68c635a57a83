/* overlay_lab.c - see overlay_lab.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "overlay_lab.h"

static char folder[200];
bool lab_has_qemu;

char *lab_text(const char *fmt, ...)
{
    static char buf[8][600];
    static unsigned next;
    char *p = buf[next++ % 8];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p, sizeof(buf[0]), fmt, ap);
    va_end(ap);
    return p;
}

const char *lab_path(const char *name)
{
    return lab_text("%s/%s", folder, name);
}

static void must(int r, const struct qz_error *err)
{
    if (r < 0)
        fail_msg("%s", err->text);
}

void lab_create(const char *options)
{
    struct qz_error err = {0};

    must(qz_disk_create(options, &err), &err);
}

void lab_create_overlay(const char *name, const char *below, const char *format)
{
    lab_create(lab_text(
        "%s,format=qcow2,overwrite,size=%dB,backing=%s,backing.format=%s,backing.unchecked",
        lab_path(name), SIZE, lab_path(below), format));
}

int lab_open_fd(const char *name, int flags)
{
    int fd = open(lab_path(name), flags | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static int begin(struct lab *m, const char *options, struct qz_error *err)
{
    int r = qz_disk_open(&m->d, options, err);

    if (r < 0)
        return r;
    m->random = 5;
    m->model = calloc(1, SIZE);
    assert_non_null(m->model);
    must(qz_disk_queue_new(&m->q, m->d, 32, err), err);
    return 0;
}

int lab_try_start(struct lab *m, const char *options)
{
    struct qz_error err = {0};

    return begin(m, options, &err);
}

struct lab lab_start(const char *options)
{
    struct qz_error err = {0};
    struct lab m;

    must(begin(&m, options, &err), &err);
    return m;
}

void lab_end(struct lab *m)
{
    struct qz_error err = {0};

    qz_disk_queue_free(m->q);
    must(qz_disk_close(m->d, &err), &err);
    free(m->model);
}

static uint32_t dice(struct lab *m)
{
    m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(m->random >> 33);
}

static int scribble_once(struct lab *m, uint8_t seed)
{
    static uint8_t bytes[200 << 10];
    uint64_t n = 512 * (1 + dice(m) % 300), at = 512 * (dice(m) % ((SIZE - n) / 512));
    unsigned what = dice(m) % 8;
    int r;

    if (what < 2) {
        r = qz_disk_zero(m->q, at, n, what ? QZ_DISK_MAY_UNMAP : 0);
        if (r == 0)
            memset(m->model + at, 0, n);
        return r;
    }
    for (uint64_t k = 0; k < n; k++)
        bytes[k] = (uint8_t)(seed + (at + k) / 512);
    r = qz_disk_write(m->q, at, bytes, n);
    if (r == 0)
        memcpy(m->model + at, bytes, n);
    return r;
}

int lab_try_scribble(struct lab *m, unsigned count, uint8_t seed)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < count; i++)
        r = scribble_once(m, (uint8_t)(seed + i));
    return r;
}

void lab_scribble(struct lab *m, unsigned count, uint8_t seed)
{
    assert_int_equal(lab_try_scribble(m, count, seed), 0);
}

void lab_holds(struct qz_disk_queue *q, const uint8_t *model, const char *what)
{
    uint8_t *b = malloc(SIZE);

    assert_int_equal(qz_disk_read(q, 0, b, SIZE), 0);
    for (uint64_t k = 0; k < SIZE; k++)
        if (b[k] != model[k])
            fail_msg("%s: at 0x%llx: 0x%02x, should be 0x%02x", what, (unsigned long long)k, b[k],
                     model[k]);
    free(b);
}

void lab_found(const char *options, const uint8_t *model)
{
    struct qz_disk_queue *q;
    struct qz_error err = {0};
    struct qz_disk *d;

    must(qz_disk_open(&d, options, &err), &err);
    must(qz_disk_queue_new(&q, d, 8, &err), &err);
    lab_holds(q, model, options);
    qz_disk_queue_free(q);
    must(qz_disk_close(d, &err), &err);
}

void lab_is_clean(const char *options)
{
    struct qz_disk_check c = {.repair = false};
    struct qz_error err = {0};

    must(qz_disk_check(options, &c, &err), &err);
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 0);
}

void lab_go_on(struct lab *m, const char *name)
{
    int fd = lab_open_fd(name, O_RDWR);
    struct qz_disk_info info;
    struct qz_error err = {0};

    must(qz_disk_overlay(m->d, fd, lab_path(name), &err), &err);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken over */
    qz_disk_get_info(m->d, &info);
    assert_string_equal(info.format, "qcow2");
    assert_string_equal(info.label, lab_path(name));
    assert_int_equal(info.size, SIZE);
    assert_false(info.readonly);
}

void lab_is_frozen(const char *options, const uint8_t *model)
{
    struct qz_error err = {0};
    struct qz_disk *d;

    assert_int_equal(qz_disk_open(&d, options, &err), -EBUSY);
    lab_found(lab_text("%s,readonly", options), model);
}

int lab_make_folder(void **state)
{
    char here[150];

    lab_has_qemu = system("command -v qemu-img >/dev/null") == 0;
    if (!getcwd(here, sizeof(here)))
        return -1;
    snprintf(folder, sizeof(folder), "%s/qz-overlay-XXXXXX", here);
    return mkdtemp(folder) ? 0 : -1;
}

int lab_remove_folder(void **state)
{
    return system(lab_text("rm -rf %s", folder));
}

/* rig.c - see rig.h. */
#include "rig.h"
#include "../options.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { TASKS_MAX = 64, FILE_MAX = 256 << 20 };

uint64_t rig_random(struct rig *r)
{
    uint64_t z = (r->random += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

int rig_run(struct rig *r, int (*fn)(struct disk_queue *q, void *argument), void *argument)
{
    return task_run(r->q, fn, argument);
}

/* ---- life */

struct life {
    struct rig *r;
    const struct format_create *create;
    struct format_open open;
    struct format_check check;
    struct layer *l;
    struct qz_error err;
};

static int in_create(struct disk_queue *q, void *argument)
{
    struct life *f = argument;

    return qcow2_create(f->r->file, q, f->create, &f->err);
}

static int in_open(struct disk_queue *q, void *argument)
{
    struct life *f = argument;

    return qcow2_open(&f->l, f->r->file, q, &f->open, &f->err);
}

static int in_close(struct disk_queue *q, void *argument)
{
    struct life *f = argument;
    int rc = layer_close(f->l, q, &f->err);

    f->l->ops->free(f->l);
    return rc;
}

static int in_check(struct disk_queue *q, void *argument)
{
    struct life *f = argument;

    return qcow2_check(f->l, q, &f->check, &f->err);
}

static void must(int rc, const struct life *f, const char *what)
{
    if (rc)
        fail_msg("%s: %d %s", what, rc, f->err.text);
}

int rig_open_layer(struct rig *r, struct layer **l, bool check, struct qz_error *err)
{
    struct options o = {0};
    struct life f = {.r = r, .open = {.label = "test.qcow2", .check = check, .options = &o}};
    int rc = r->log ? options_parse(&o, "metadata_log", NULL, &f.err) : 0;

    if (!rc)
        rc = rig_run(r, in_open, &f);
    options_clear(&o);

    if (rc && err)
        *err = f.err;
    if (!rc) {
        f.l->backing = r->backing;
        *l = f.l;
    }
    return rc;
}

void rig_open(struct rig *r, uint64_t size, const char *options, uint64_t backing)
{
    struct options o = {0};
    struct format_create c = {.size = size, .options = &o};
    struct life f = {.r = r, .create = &c};
    struct qz_error err = {0};

    r->size = size;
    assert_int_equal(queue_new(&r->q, 64, &err), 0);
    assert_int_equal(options_parse(&o, options ? options : "", NULL, &err), 0);
    r->model = calloc(1, size);
    assert_non_null(r->model);
    assert_int_equal(
        memory_open(&r->file,
                    &(struct memory_options){.size_max = r->file_max ? r->file_max : FILE_MAX,
                                             .defers = r->defers,
                                             .records = r->records},
                    &err),
        0);
    r->backing = NULL;
    if (backing) {
        c.backing_file = "base.raw";
        c.backing_format = "raw";
        assert_int_equal(memory_open(&r->backing, &(struct memory_options){.size = backing}, &err),
                         0);
        for (uint64_t n = 0; n < backing; n++)
            memory_bytes(r->backing)[n] = (uint8_t)rig_random(r);
        memcpy(r->model, memory_bytes(r->backing), QZ_MIN(size, backing));
    }
    must(rig_run(r, in_create, &f), &f, "create");
    if (options_check(&o, "test", &err))
        fail_msg("%s", err.text);
    options_clear(&o);
    must(rig_open_layer(r, &r->image, false, &f.err), &f, "open");
}

static void close_image(struct rig *r)
{
    struct life f = {.r = r, .l = r->image};

    must(rig_run(r, in_close, &f), &f, "close");
    r->image = NULL;
}

static void say(struct format_check *c, const char *text)
{
    if (c->errors + c->leaks < 8)
        print_message("  %s\n", text);
}

void rig_check(struct rig *r, const char *what)
{
    struct life f = {.r = r, .l = r->image, .check = {.say = say}};

    must(rig_run(r, in_check, &f), &f, what);
    if (f.check.errors || f.check.leaks)
        fail_msg("%s: %llu errors, %llu leaks", what, (unsigned long long)f.check.errors,
                 (unsigned long long)f.check.leaks);
}

void rig_reopen(struct rig *r)
{
    struct life f = {.r = r};

    close_image(r);
    must(rig_open_layer(r, &r->image, false, &f.err), &f, "open again");
    rig_check(r, "after closing");
}

void rig_close(struct rig *r)
{
    rig_reopen(r);
    close_image(r);
    r->file->ops->free(r->file);
    if (r->backing)
        r->backing->ops->free(r->backing);
    queue_free(r->q);
    free(r->model);
}

void rig_save(struct rig *r, const char *path)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(memory_bytes(r->file), 1, r->file->info.size, f), r->file->info.size);
    assert_int_equal(fclose(f), 0);
}

/* ---- reading all of it */

static int in_compare(struct disk_queue *q, void *argument)
{
    enum { STEP = 1 << 20 };
    struct rig *r = argument;
    uint8_t *b = malloc(STEP);
    int rc = b ? 0 : -ENOMEM;

    for (uint64_t at = 0; !rc && at < r->size; at += STEP) {
        uint64_t n = QZ_MIN(r->size - at, (uint64_t)STEP);

        rc = layer_read(r->image, q, at, b, n);
        for (uint64_t k = 0; !rc && k < n; k++)
            if (b[k] != r->model[at + k]) {
                print_message("at 0x%llx: 0x%02x, should be 0x%02x\n", (unsigned long long)at + k,
                              b[k], r->model[at + k]);
                rc = -EBADMSG;
            }
    }
    free(b);
    return rc;
}

void rig_compare(struct rig *r, const char *what)
{
    int rc = rig_run(r, in_compare, r);

    if (rc)
        fail_msg("%s: %d", what, rc);
}

/* ---- the storm */

struct storm {
    struct rig *r;
    unsigned left, tasks, running;
    uint64_t max;
    struct {
        uint64_t from, to;
    } busy[TASKS_MAX];
    struct task *waiting;
    int error;
};

struct worker {
    struct storm *s;
    unsigned index;
};

static bool overlaps(const struct storm *s, uint64_t from, uint64_t to)
{
    for (unsigned n = 0; n < s->tasks; n++)
        if (s->busy[n].from < to && from < s->busy[n].to)
            return true;
    return false;
}

/* A discarded byte is what it was or zero; from now on it must stay what it is. */
static int after_discard(struct storm *s, struct disk_queue *q, uint64_t from, uint64_t n)
{
    uint8_t *b = malloc(n);
    int rc = b ? layer_read(s->r->image, q, from, b, n) : -ENOMEM;

    for (uint64_t k = 0; !rc && k < n; k++) {
        if (b[k] && b[k] != s->r->model[from + k])
            rc = -EBADMSG;
        s->r->model[from + k] = b[k];
    }
    free(b);
    return rc;
}

static int one_write(struct storm *s, struct disk_queue *q, uint64_t from, uint64_t n,
                     uint64_t seed)
{
    uint8_t *b = malloc(n);
    struct iovec v[3];
    uint64_t a = n / 3, c = n / 2;
    int rc;

    if (!b)
        return -ENOMEM;
    for (uint64_t k = 0; k < n; k++)
        b[k] = (uint8_t)(seed + k * 7 + (k >> 9));
    v[0] = (struct iovec){b, a};
    v[1] = (struct iovec){b + a, c - a};
    v[2] = (struct iovec){b + c, n - c};
    rc = layer_writev(s->r->image, q, from, v, 3);
    if (!rc)
        memcpy(s->r->model + from, b, n);
    free(b);
    return rc;
}

static int one_read(struct storm *s, struct disk_queue *q, uint64_t from, uint64_t n)
{
    uint8_t *b = malloc(n);
    int rc = b ? layer_read(s->r->image, q, from, b, n) : -ENOMEM;

    if (!rc && memcmp(b, s->r->model + from, n))
        rc = -EBADMSG;
    free(b);
    return rc;
}

static int one(struct storm *s, struct disk_queue *q, uint64_t from, uint64_t n)
{
    uint64_t what = rig_random(s->r) % 100;
    int rc;

    if (what < 55)
        return one_write(s, q, from, n, rig_random(s->r));
    if (what < 75)
        return one_read(s, q, from, n);
    if (what < 85) {
        rc = layer_write_zeroes(s->r->image, q, from, n, what & 1 ? REQUEST_MAY_UNMAP : 0);
        if (!rc)
            memset(s->r->model + from, 0, n);
        return rc;
    }
    if (what < 95) {
        rc = layer_discard(s->r->image, q, from, n);
        return rc ? rc : after_discard(s, q, from, n);
    }
    return layer_flush(s->r->image, q);
}

static void work(struct disk_queue *q, void *argument)
{
    struct worker *w = argument;
    struct storm *s = w->s;

    while (s->left && !s->error) {
        uint64_t n, from;
        int rc;

        s->left--;
        n = 512 * (1 + rig_random(s->r) % (s->max / 512));
        if (rig_random(s->r) % 4 == 0)
            n = QZ_MIN(s->max, s->r->size);
        n = QZ_MIN(n, s->r->size);
        from = QZ_ALIGN_DOWN(rig_random(s->r) % (s->r->size - n + 1), 512);
        if (overlaps(s, from, from + n))
            continue;
        s->busy[w->index].from = from;
        s->busy[w->index].to = from + n;
        rc = one(s, q, from, n);
        s->busy[w->index].from = s->busy[w->index].to = 0;
        if (rc) {
            print_message("at 0x%llx, 0x%llx bytes: %d\n", (unsigned long long)from,
                          (unsigned long long)n, rc);
            s->error = rc;
        }
    }
    if (!--s->running)
        task_resume(s->waiting);
}

static int in_storm(struct disk_queue *q, void *argument)
{
    struct storm *s = argument;
    struct worker workers[TASKS_MAX];

    s->waiting = task_current();
    s->running = s->tasks;
    for (unsigned n = 0; n < s->tasks; n++) {
        workers[n] = (struct worker){s, n};
        assert_int_equal(task_start(q, work, &workers[n]), 0);
    }
    while (s->running)
        task_suspend();
    return s->error;
}

void rig_storm(struct rig *r, unsigned count, unsigned tasks, uint64_t max)
{
    struct storm s = {.r = r, .left = count, .tasks = tasks, .max = max};
    int rc = rig_run(r, in_storm, &s);

    if (rc)
        fail_msg("storm: %d", rc);
}

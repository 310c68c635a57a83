/* compare.c - queztl-disk compare: do two disks hold the same? */
#include "disk_tool.h"

enum { PIECE = 2 << 20 };

const struct qz_option compare_options[] = {{0}};

struct side {
    struct qz_disk *d;
    struct qz_disk_queue *q;
    uint64_t size;
    const char *label;
    uint8_t *bytes;
};

static int side_open(struct side *s, const char *image, struct qz_error *err)
{
    QZ_AUTO_FREE char *text = disk_text_to_read(image, "");
    struct qz_disk_info info;
    int r;

    if (!text || posix_memalign((void **)&s->bytes, 4096, PIECE))
        return qz_fail(err, -ENOMEM, "no memory");
    if ((r = qz_disk_open(&s->d, text, err)) < 0 ||
        (r = qz_disk_queue_new(&s->q, s->d, 16, err)) < 0)
        return r;
    qz_disk_get_info(s->d, &info);
    s->size = info.size;
    s->label = info.label;
    return 0;
}

static void side_close(struct side *s)
{
    qz_disk_queue_free(s->q);
    qz_disk_close(s->d, NULL);
    free(s->bytes);
}

/* Length of what both maps say alike of offset, at most PIECE; *zero: both read as zeroes. Behind
 * the end of the shorter one are zeroes. */
static int common(struct side s[2], uint64_t offset, uint64_t *length, bool zero[2])
{
    uint64_t all = QZ_MAX(s[0].size, s[1].size), alike = all - offset;

    for (unsigned i = 0; i < 2; i++) {
        struct qz_disk_extent e;
        int r;

        if (offset >= s[i].size) {
            zero[i] = true;
            continue;
        }
        if ((r = qz_disk_map(s[i].q, offset, s[i].size - offset, true, &e)) < 0)
            return r;
        zero[i] = e.zero;
        alike = QZ_MIN(alike, e.length);
    }
    *length = zero[0] && zero[1] ? alike : QZ_MIN(alike, (uint64_t)PIECE);
    return 0;
}

static int fetch(struct side *s, uint64_t offset, uint64_t length, bool zero)
{
    if (!zero)
        return qz_disk_read(s->q, offset, s->bytes, length);
    memset(s->bytes, 0, length);
    return 0;
}

/* Where they differ first; UINT64_MAX: nowhere. */
static int first_difference(struct side s[2], uint64_t *where, struct qz_error *err)
{
    uint64_t all = QZ_MAX(s[0].size, s[1].size), length;
    struct progress p;
    bool zero[2];

    *where = UINT64_MAX;
    progress_begin(&p, "comparing");
    for (uint64_t at = 0; at < all && *where == UINT64_MAX; at += length) {
        int r = common(s, at, &length, zero);

        for (unsigned i = 0; i < 2 && r == 0; i++)
            if (!(zero[0] && zero[1]))
                r = fetch(&s[i], at, length, zero[i]);
        if (r < 0) {
            progress_end(&p);
            return qz_fail(err, r, "cannot read at %llu: %s", (unsigned long long)at, strerror(-r));
        }
        if (!(zero[0] && zero[1]) && memcmp(s[0].bytes, s[1].bytes, length))
            for (*where = at; s[0].bytes[*where - at] == s[1].bytes[*where - at];)
                ++*where;
        progress_show(&p, at, all);
    }
    progress_end(&p);
    return 0;
}

int disk_compare(int argc, char **argv)
{
    struct side s[2] = {0};
    struct qz_error err = {0};
    uint64_t where = UINT64_MAX;
    int i = disk_parse(compare_options, argc, argv, NULL, 2, 2), r, code = QZ_EXIT_OK;

    if (i < 0)
        return QZ_EXIT_USAGE;
    disk_start_helpers();
    r = side_open(&s[0], argv[i], &err);
    if (r == 0)
        r = side_open(&s[1], argv[i + 1], &err);
    if (r == 0)
        r = first_difference(s, &where, &err);
    if (r < 0) {
        code = disk_failed(&err);
    } else if (where != UINT64_MAX) {
        printf("they differ from byte %llu on\n", (unsigned long long)where);
        code = QZ_EXIT_FAILED;
    } else {
        printf("they hold the same%s\n",
               s[0].size == s[1].size ? "" : "; one of them is longer and goes on with zeroes");
    }
    side_close(&s[0]);
    side_close(&s[1]);
    return code;
}

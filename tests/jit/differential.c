/*
 * differential.c - random instruction sequences on the host's CPU, in the interpreter and in the
 * translator: they have to agree in everything that the architecture defines.
 *
 *     jit-differential --child PATH [--count N] [--seed N] [--first N] [--coverage] [--precise]
 *                    [--first-only] [--whole]
 *     jit-differential --child PATH --bytes HEX [--width 32|64] [--seed N] [--first N]
 *
 * The unit suite executes 100000; a night, --count 10000000 with a seed of its own. Sequence n of a
 * seed is always the same. What differs is shortened and printed; then the exit
 * status is 1. --precise counts flags in translated code that nothing reads,
 * --first-only ends with the first difference, --whole does not shorten it. --bytes executes these
 * bytes with the registers and the memory of sequence --first.
 */
#include "coverage.h"
#include "watchdog.h"

#include <getopt.h>

#include "cpu/jit/insn_print.h"

enum { DIFFERENCES_MAX = 10, STALLED_SECONDS = 30, WIDTH_32_EACH = 5 };

struct options {
    const char *child, *bytes;
    uint64_t count, seed, first;
    unsigned width; /* 0: both */
    bool coverage, precise, first_only, whole;
};

struct totals {
    unsigned differences;
    uint64_t same, not_compared;
};

static struct rig rig;
static struct coverage coverage[2];

/* ---- what differs */

static void print_code(const struct sequence *s, const struct forms *forms)
{
    printf("--width %u --bytes ", s->width == CODE_64 ? 64 : 32);
    for (unsigned n = 0; n < s->code_len; n++)
        printf("%02x", s->code[n]);
    printf("\n");
    for (unsigned k = 0; k < s->count; k++) {
        const struct item *item = &s->item[k];
        char text[120];
        struct insn i;

        if (item->bytes[0] == 0x90 && item->form == NO_FORM)
            continue;
        insn_decode(&i, s->code + item->at, item->len, s->width, forms->features);
        printf("  %llx: %-32s", (unsigned long long)(s->rip + item->at),
               insn_print(&i, text, sizeof(text)));
        for (unsigned n = 0; n < item->len; n++)
            printf(" %02x", item->bytes[n]);
        printf("\n");
    }
}

static bool still_differs(struct sequence *s, struct comparison *c)
{
    struct qz_error err = {0};
    enum verdict verdict = SAME;

    return rig_compare(&rig, s, c, &verdict, &err) == 0 && verdict == DIFFERENT;
}

/* Instructions that the difference does not need become NOP. */
static void shorten(struct sequence *s, struct comparison *c, const struct forms *forms)
{
    for (unsigned k = s->count - 1; k-- > 0;) {
        struct sequence shorter = *s;
        struct comparison of = *c;
        struct item *item = &shorter.item[k];

        item->form = NO_FORM;
        item->target = NO_ITEM;
        item->rel = item->label = item->rip = 0;
        memset(item->bytes, 0x90, item->len);
        sequence_define_flags(&shorter, forms, of.undefined);
        if (still_differs(&shorter, &of)) {
            *s = shorter;
            *c = of;
        }
    }
}

static void report(const struct options *o, uint64_t n, struct sequence *s, struct comparison *c,
                   const struct forms *forms)
{
    printf("--seed %llu --first %llu --count 1: %s:%s\n", (unsigned long long)o->seed,
           (unsigned long long)n, c->who, c->what);
    if (!o->whole && !strstr(c->what, "machine stopped")) {
        shorten(s, c, forms);
        printf("shortened: %s:%s\n", c->who, c->what);
    }
    print_code(s, forms);
    printf("before:\n");
    registers_print(&s->in);
    outcome_print("host's CPU", &c->native);
    outcome_print(c->who, &c->other);
    fflush(stdout);
}

/* ---- sequences */

static const struct forms *forms_of(const struct options *o, uint64_t n)
{
    const bool is_32 = o->width ? o->width == 32 : n % WIDTH_32_EACH == 0;

    return &rig.forms[!is_32];
}

static int replace_by_bytes(struct sequence *s, const struct forms *forms, const char *hex)
{
    s->count = 0;
    s->code_len = 0;
    for (; hex[0] && hex[1] && s->code_len < 255; hex += 2) {
        unsigned byte;

        if (sscanf(hex, "%2x", &byte) != 1)
            return -EINVAL;
        s->code[s->code_len++] = (uint8_t)byte;
    }
    s->code[s->code_len++] = 0xcc;
    for (unsigned at = 0; at < s->code_len && s->count < ITEMS_MAX;) {
        struct item *item = &s->item[s->count++];
        struct insn i;

        insn_decode(&i, s->code + at, s->code_len - at, s->width, forms->features);
        *item = (struct item){.form = NO_FORM, .target = NO_ITEM, .len = i.len};
        memcpy(item->bytes, s->code + at, i.len);
        at += i.len;
    }
    return 0;
}

static int run_one(const struct options *o, uint64_t n, struct totals *t, struct qz_error *err)
{
    const struct forms *forms = forms_of(o, n);
    static struct sequence s;
    static struct comparison c;
    enum verdict verdict;
    int e;

    sequence_generate(&s, forms, o->seed << 32 | n);
    if (o->bytes && replace_by_bytes(&s, forms, o->bytes) < 0)
        return qz_fail(err, -EINVAL, "--bytes %s: not hexadecimal digits", o->bytes);
    sequence_define_flags(&s, forms, c.undefined);
    e = rig_compare(&rig, &s, &c, &verdict, err);
    if (e < 0)
        return e;
    t->same += verdict == SAME;
    t->not_compared += verdict == NOT_COMPARED;
    t->differences += verdict == DIFFERENT;
    if (verdict == SAME)
        coverage_add(&coverage[forms->width == CODE_64], &s, forms, &c.native);
    if (verdict != DIFFERENT)
        return 0;
    report(o, n, &s, &c, forms);
    if (!strstr(c.what, "machine stopped"))
        return 0;
    rig_close(&rig);
    e = rig_open(&rig, o->child, err);
    rig.precise = o->precise;
    return e;
}

static int run_all(const struct options *o, struct totals *t, struct qz_error *err)
{
    const unsigned most = o->first_only ? 1 : DIFFERENCES_MAX;

    for (uint64_t n = o->first; n < o->first + o->count && t->differences < most; n++) {
        int e;

        watchdog(n, STALLED_SECONDS);
        e = run_one(o, n, t, err);
        if (e < 0)
            return e;
    }
    return 0;
}

static void print_coverage(const struct options *o)
{
    for (unsigned w = 0; w < 2; w++)
        coverage_print(&coverage[w], &rig.forms[w], o->coverage);
    printf("ended by:");
    for (unsigned v = 0; v < 256; v++)
        if (coverage[0].vector[v] + coverage[1].vector[v])
            printf(" %u: %llu", v,
                   (unsigned long long)(coverage[0].vector[v] + coverage[1].vector[v]));
    printf("\n");
}

/* ---- the command line */

static int parse(struct options *o, int argc, char **argv)
{
    static const struct option options[] = {{"child", required_argument, NULL, 'c'},
                                            {"count", required_argument, NULL, 'n'},
                                            {"seed", required_argument, NULL, 's'},
                                            {"first", required_argument, NULL, 'f'},
                                            {"bytes", required_argument, NULL, 'b'},
                                            {"width", required_argument, NULL, 'w'},
                                            {"coverage", no_argument, NULL, 'v'},
                                            {"precise", no_argument, NULL, 'p'},
                                            {"first-only", no_argument, NULL, '1'},
                                            {"whole", no_argument, NULL, 'l'},
                                            {NULL, 0, NULL, 0}};
    bool counted = false;

    *o = (struct options){.seed = 1};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) >= 0;)
        switch (option) {
        case 'c':
            o->child = optarg;
            break;
        case 'n':
            o->count = strtoull(optarg, NULL, 0);
            counted = true;
            break;
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            o->first = strtoull(optarg, NULL, 0);
            break;
        case 'b':
            o->bytes = optarg;
            break;
        case 'w':
            o->width = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'v':
            o->coverage = true;
            break;
        case 'p':
            o->precise = true;
            break;
        case 'l':
            o->whole = true;
            break;
        case '1':
            o->first_only = true;
            break;
        default:
            return -EINVAL;
        }
    if (!counted)
        o->count = o->bytes ? 1 : 10000;
    if (o->bytes && !o->width)
        o->width = 64;
    return o->child && optind == argc && (!o->width || o->width == 32 || o->width == 64) ? 0
                                                                                         : -EINVAL;
}

int main(int argc, char **argv)
{
    struct totals totals = {0};
    struct qz_error err = {0};
    struct options o;
    int e;

    if (parse(&o, argc, argv) < 0) {
        fprintf(
            stderr,
            "usage: %s --child PATH [--count N] [--seed N] [--first N] [--coverage] [--precise]\n"
            "          [--first-only] [--whole]\n"
            "          [--bytes HEX] [--width 32|64]\n",
            argv[0]);
        return 2;
    }
    qz_log_set_level(QZ_LOG_WARN);
    e = rig_open(&rig, o.child, &err);
    rig.precise = o.precise;
    if (e == 0)
        e = run_all(&o, &totals, &err);
    watchdog(0, 0);
    if (e < 0) {
        fprintf(stderr, "%s\n", err.text);
        rig_close(&rig);
        return 2;
    }
    print_coverage(&o);
    printf("%llu sequences are the same, %u differ, %llu were not compared (%llu system calls)\n",
           (unsigned long long)totals.same, totals.differences,
           (unsigned long long)totals.not_compared, (unsigned long long)rig.lost);
    rig_close(&rig);
    return totals.differences ? 1 : 0;
}

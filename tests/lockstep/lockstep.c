/*
 * lockstep.c - interpreter and translator run the same machine, and are compared as they go.
 *
 *     lockstep [--slice N] [--seconds N] [--translator VMM] VMM -- OPTION...
 *
 * Two deterministic machines (jit,deterministic and jit,interpret,deterministic) start with the
 * same options. At the end of every slice of instructions their states have to agree: the registers
 * of the vCPU whose turn it is, everything else of all vCPUs, and all of memory (state_log.h).
 *
 * Where they do not, the translator is run again with one slice cut short, and the cut is moved
 * until the first instruction is found behind which they differ. Up to there a cut block is
 * interpreted, so that instruction is the last one of the block that is wrong; all of the block is
 * printed.
 *
 * 0: they agree, until the guest or the time ended; 1: they differ; 2: could not be tried.
 */
#include "machine.h"

#include <getopt.h>

#include "cpu/jit/insn_print.h"
#include "difference.h"

enum { BLOCK_MAX = 32, SLICE_DEFAULT = 10000 };

struct run {
    struct lock_machine translated, interpreted;
    uint64_t slice, slices;
    int64_t until; /* qz_now_ns(); INT64_MAX: no limit */
    bool over;     /* the time is */
};

/* The last equal time, and the first different one; false: there is none. */
static bool compare(struct run *run, uint64_t *equal, uint64_t *different)
{
    const struct state_log_config when = {.every = run->slice};
    struct state_record a, b;
    bool has_a, has_b, found = false;

    *equal = 0;
    lock_start(&run->translated, &when);
    lock_start(&run->interpreted, &when);
    while (!found) {
        if (run->until != INT64_MAX &&
            !lock_wait(&run->translated, &run->interpreted, run->until)) {
            run->over = true;
            break;
        }
        has_a = lock_next(&run->translated, &a);
        has_b = lock_next(&run->interpreted, &b);
        if (!has_a && !has_b)
            break;
        found = has_a != has_b || memcmp(&a, &b, sizeof(a)) != 0;
        *different = has_b ? b.time : a.time;
        if (!found) {
            *equal = a.time;
            run->slices++;
        }
    }
    lock_stop(&run->translated);
    lock_stop(&run->interpreted);
    return found;
}

/* What the interpreter passes through in the slice, one record for each instruction. */
static struct state_record *trace(struct run *run, uint64_t from, uint64_t till, size_t *count)
{
    const struct state_log_config when = {.every = run->slice, .dense = from};
    struct state_record *all = calloc(till - from + 2, sizeof(*all)), r;

    *count = 0;
    if (!all)
        return NULL;
    lock_start(&run->interpreted, &when);
    while (lock_next(&run->interpreted, &r) && r.time <= till)
        if (r.time >= from)
            all[(*count)++] = r;
    lock_stop(&run->interpreted);
    return all;
}

/* The translator's state with the slice cut at `when`. False: it ended before. */
static bool cut(struct run *run, uint64_t when, struct state_record *r)
{
    const struct state_log_config config = {.every = run->slice, .also = when};
    bool there;

    lock_start(&run->translated, &config);
    while ((there = lock_next(&run->translated, r)) && r->time < when)
        ;
    lock_stop(&run->translated);
    return there;
}

static bool agrees(struct run *run, const struct state_record *wanted)
{
    struct state_record r;

    return cut(run, wanted->time, &r) && memcmp(&r, wanted, sizeof(r)) == 0;
}

static void show_trace(const struct state_record *r, size_t from, size_t till)
{
    for (size_t i = from; i < till; i++) {
        struct insn insn;
        char text[96] = "?";
        char bytes[3 * STATE_CODE_BYTES + 1] = "";
        unsigned len = r[i].code_len;

        if (r[i].code_len &&
            insn_decode(&insn, r[i].code, r[i].code_len, CODE_64, ~0ull) == DECODE_OK) {
            len = insn.len;
            insn_print(&insn, text, sizeof(text));
        }
        for (unsigned k = 0; k < len; k++)
            snprintf(bytes + 3 * k, 4, "%02x ", r[i].code[k]);
        printf("  %16llx  %-46s%s\n", (unsigned long long)r[i].rip, bytes, text);
    }
}

static void find(struct run *run, uint64_t equal, uint64_t different)
{
    size_t count, low = 0, high;
    struct state_record *r = trace(run, QZ_MAX(equal, 1ull), different, &count), at;

    if (!r || count < 2) {
        printf("the slice could not be repeated\n");
        free(r);
        return;
    }
    high = count - 1;
    if (agrees(run, &r[high]))
        printf("what differs depends on where slices end: they agree where this one is cut\n");
    while (high - low > 1) { /* equal at low, different at high */
        const size_t middle = low + (high - low) / 2;

        if (agrees(run, &r[middle]))
            low = middle;
        else
            high = middle;
    }
    printf("first different after instruction %llu; the code that led there:\n",
           (unsigned long long)r[high].time);
    show_trace(r, high > BLOCK_MAX ? high - BLOCK_MAX : 0, high);
    if (cut(run, r[high].time, &at))
        difference_print(&at, &r[high], &r[low]);
    else
        printf("the translator's machine ended here\n");
    free(r);
}

static int usage(void)
{
    fprintf(stderr, "usage: lockstep [--slice N] [--seconds N] [--translator VMM] VMM -- "
                    "OPTION...\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"slice", 1, NULL, 'n'}, {"seconds", 1, NULL, 's'}, {"translator", 1, NULL, 't'}, {0}};
    struct run run = {.slice = SLICE_DEFAULT, .until = INT64_MAX};
    const char *translator = NULL;
    uint64_t equal, different, seconds;
    int c;

    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (c == 't')
            translator = optarg;
        else if (c == 'n' && qz_parse_u64(optarg, "slice", 100, 1000000000, &run.slice, NULL) < 0)
            return usage();
        else if (c == 's' && qz_parse_u64(optarg, "seconds", 1, 1000000, &seconds, NULL) < 0)
            return usage();
        else if (c == 's')
            run.until = qz_now_ns() + (int64_t)seconds * 1000000000;
        else if (c == '?')
            return usage();
    }
    if (optind >= argc)
        return usage();
    run.interpreted = (struct lock_machine){
        .vmm = argv[optind], .accel = "jit,interpret,deterministic", .args = argv + optind + 1};
    if (run.interpreted.args[0] && !strcmp(run.interpreted.args[0], "--"))
        run.interpreted.args++;
    run.translated = run.interpreted;
    run.translated.accel = "jit,deterministic";
    if (translator)
        run.translated.vmm = translator;
    if (compare(&run, &equal, &different)) {
        printf("interpreter and translator differ between instructions %llu and %llu\n",
               (unsigned long long)equal, (unsigned long long)different);
        fflush(stdout);
        find(&run, equal, different);
        return 1;
    }
    printf("interpreter and translator agree after each of %llu slices of %llu instructions%s\n",
           (unsigned long long)run.slices, (unsigned long long)run.slice,
           run.over ? "; the time was over before the guest" : ", to the guest's end");
    return run.slices ? 0 : 2;
}

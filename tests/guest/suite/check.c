/* check.c - verdicts, the command line, CPUID (suite.h). */
#include "suite.h"

enum { COMMAND_LINE_MAX = 256 };

static struct {
    const char *name, *what, *reason;
    uint64_t expected, got;
    bool failed;
    unsigned number, passed, failures, skipped;
} now;

static void (*before_each)(void);
static char words[COMMAND_LINE_MAX];

/* ---- the command line --------------------------------------------------------------------------
 */

void options_read(const char *cmdline)
{
    for (unsigned i = 0; i + 1 < COMMAND_LINE_MAX && cmdline[i]; i++)
        words[i] = cmdline[i];
}

/* The text after `word` where the line has it as the start of a word. */
static const char *after(const char *word)
{
    for (const char *p = words; *p; p++) {
        const char *a = p, *b = word;

        if (p != words && p[-1] != ' ')
            continue;
        while (*b && *a == *b) {
            a++;
            b++;
        }
        if (!*b)
            return a;
    }
    return NULL;
}

bool option(const char *word)
{
    const char *end = after(word);

    return end && (*end == ' ' || *end == '\0');
}

uint64_t option_number(const char *word, uint64_t otherwise)
{
    const char *p = after(word);
    uint64_t v = 0;

    if (!p || *p != '=')
        return otherwise;
    for (p++; *p >= '0' && *p <= '9'; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    return v;
}

/* `only=TEXT`, where _ stands for a space. */
static bool is_wanted(const char *name)
{
    char part[64];
    const char *p = after("only");
    unsigned n = 0;

    if (!p || *p != '=')
        return true;
    for (p++; *p && *p != ' ' && n + 1 < sizeof(part); p++)
        part[n++] = *p == '_' ? ' ' : *p;
    part[n] = '\0';
    return text_has(name, part);
}

/* ---- verdicts ----------------------------------------------------------------------------------
 */

static void put_verdict(const char *verdict)
{
    put_text(verdict);
    put_char(' ');
    put_number(now.number);
    put_char(' ');
    put_text(now.name);
}

static void put_end(void)
{
    if (now.failed) {
        now.failures++;
        put_verdict("not ok");
        put_text(": ");
        put_text(now.what);
        put_text(": expected ");
        put_hex(now.expected);
        put_text(", got ");
        put_hex(now.got);
    } else if (now.reason) {
        now.skipped++;
        put_verdict("skip");
        put_text(": ");
        put_text(now.reason);
    } else {
        now.passed++;
        put_verdict("ok");
    }
    put_char('\n');
}

void tests_before_each(void (*reset)(void))
{
    before_each = reset;
}

void tests_run(const struct test *tests, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        now.number++;
        if (!is_wanted(tests[i].name))
            continue;
        now.name = tests[i].name;
        now.failed = false;
        now.reason = NULL;
        before_each();
        tests[i].run();
        put_end();
    }
}

void tests_summary(void)
{
    put_text("suite: ");
    put_number(now.passed);
    put_text(" passed, ");
    put_number(now.failures);
    put_text(" failed, ");
    put_number(now.skipped);
    put_text(" skipped\n");
}

const char *test_name(void)
{
    return now.name ? now.name : "no test";
}

void check(const char *what, uint64_t expected, uint64_t got)
{
    if (expected == got || now.failed)
        return;
    now.failed = true;
    now.what = what;
    now.expected = expected;
    now.got = got;
}

bool test_failed(void)
{
    return now.failed;
}

void skip(const char *reason)
{
    now.reason = reason;
}

bool skip_on_tcg(const char *reason)
{
    if (option("tcg"))
        skip(reason);
    return option("tcg");
}

/* ---- CPUID -------------------------------------------------------------------------------------
 */

bool has_feature(uint32_t leaf, unsigned reg, unsigned bit)
{
    struct cpuid r = cpuid(leaf & 0x80000000, 0);
    const uint32_t max = r.eax;

    if (leaf > max)
        return false;
    r = cpuid(leaf, 0);
    return (reg == 0 ? r.eax : reg == 1 ? r.ebx : reg == 2 ? r.ecx : r.edx) >> bit & 1;
}

bool is_amd(void)
{
    const uint32_t vendor = cpuid(0, 0).ebx;

    return vendor == 0x68747541 || vendor == 0x6f677948; /* "Auth", "Hygo" */
}

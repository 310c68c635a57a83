/*
 * iasl_test.c - the reference compiler and interpreter (Debian's acpica-tools) on everything this
 * library makes.
 *
 * Every table of the test PC, with 2 and with 300 processors, goes through `iasl -dl` and back
 * through iasl with optimisation off: no error, no warning, and the same bytes again. `acpiexec`
 * then runs methods, whose results are known. Without iasl the whole test is skipped (exit 77).
 */
#include "testpc.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>

enum { HEADER = 36, OUTPUT_MAX = 1 << 20 };

static char dir[256];
static char output[OUTPUT_MAX];

/* Runs a command in `dir`, its output in `output`; the exit status. */
static int run(const char *fmt, ...)
{
    char command[1400], line[900];
    size_t n;
    va_list ap;
    FILE *p;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    snprintf(command, sizeof(command), "cd '%s' && timeout 60 %s 2>&1 </dev/null", dir, line);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(output, 1, sizeof(output) - 1, p);
    output[n] = 0;
    return pclose(p);
}

static void write_table(const char *name, const uint8_t *p, size_t n)
{
    char path[300];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void read_back(const char *file, void **data, size_t *len)
{
    char path[300];
    struct qz_error err;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    if (qz_read_file(path, OUTPUT_MAX, data, len, &err) < 0)
        fail_msg("%s\n%s", err.text, output);
}

/* What a disassembly must say, by table. */
static const struct {
    char signature[5];
    const char *text;
} expected[] = {
    {"DSDT", "\"PNP0A08\""},
    {"DSDT", "Name (_HID"},
    {"DSDT", "Scope (\\_SB)"},
    {"DSDT", "ToUUID (\"33db4d5b-1ff7-401c-9657-7441c03dd766\")"},
    {"DSDT", "DWordMemory (ResourceProducer"},
    {"DSDT", "0x000038FFFFFFFFFF"},
    {"DSDT", "Interrupt (ResourceConsumer, Level, ActiveLow, Shared"},
    {"DSDT", "Name (_S5"},
    {"SSDT", "\"ACPI0007\""},
    {"FACP", "SCI Interrupt : 0009"},
    {"FACP", "Reset Register : [Generic Address Structure]"},
    {"FACP", "FADT Minor Revision : 04"},
    {"APIC", "[Interrupt Source Override]"},
    {"MCFG", "Base Address : 00000000B0000000"},
    {"SPCR", "Baud Rate : 07"},
    {"SRAT", "[Memory Affinity]"},
    {"SRAT", "[Generic Initiator Affinity]"},
    {"SLIT", "Localities : 0000000000000003"},
    {"HMAT", "[System Locality Latency and Bandwidth Information]"},
    {"HMAT", "[Memory Side Cache Information]"},
};

static void check_disassembly(const char *name, const char *text)
{
    static const char *const bad[] = {"Invalid", "**** Unknown", "Error", "Warning"};

    for (size_t i = 0; i < QZ_ARRAY_LEN(bad); i++)
        if (strstr(text, bad[i]))
            fail_msg("%s: the disassembly says \"%s\"", name, bad[i]);
    if (memcmp(name, "FACS", 4) != 0 && !strstr(text, "hecksum"))
        fail_msg("%s: no checksum in the disassembly", name);
    if (strstr(text, "ncorrect checksum"))
        fail_msg("%s: wrong checksum", name);
    for (size_t i = 0; i < QZ_ARRAY_LEN(expected); i++)
        if (memcmp(name, expected[i].signature, 4) == 0 && !strstr(text, expected[i].text))
            fail_msg("%s: the disassembly does not say \"%s\"", name, expected[i].text);
}

/* Disassembles, compiles again and compares. */
static void round_trip(const char *name, const uint8_t *p, size_t n)
{
    QZ_AUTO_FREE void *text = NULL, *again = NULL;
    char file[32];
    size_t len;

    write_table(name, p, n);
    if (run("iasl -dl %s.aml", name) != 0 || strstr(output, "rror") || strstr(output, "arning"))
        fail_msg("iasl -dl %s: %s", name, output);
    snprintf(file, sizeof(file), "%s.dsl", name);
    read_back(file, &text, &len);
    check_disassembly(name, text);

    if (run("iasl -oa -of -on -p %s_again %s.dsl", name, name) != 0 ||
        !strstr(output, " 0 Errors, 0 Warnings"))
        fail_msg("iasl %s: %s", name, output);
    snprintf(file, sizeof(file), "%s_again.aml", name);
    read_back(file, &again, &len);
    assert_int_equal(len, n);
    /* The header differs: iasl writes its own creator id. */
    if (memcmp(name, "FACS", 4) != 0)
        assert_memory_equal((uint8_t *)again + HEADER, p + HEADER, n - HEADER);
    else
        assert_memory_equal(again, p, n);
}

static void tables_survive_iasl(unsigned n_cpus, bool x2apic_only)
{
    struct qz_acpi_tables t;
    struct qz_acpi_blob out;
    struct qz_error err = {0};
    uint8_t rsdp[QZ_ACPI_RSDP_SIZE];

    qz_acpi_tables_init(&t, "QUEZTL", "TESTPC");
    testpc_build(&t, n_cpus, x2apic_only);
    qz_acpi_blob_init(&out, 1 << 20);
    if (qz_acpi_place(&t, 0xe0000, 0x100000, rsdp, &out, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < t.n_tables; i++) {
        char name[8];

        snprintf(name, sizeof(name), "%.4s", t.table[i].signature);
        round_trip(name, out.data + t.table[i].offset, t.table[i].len);
    }
    qz_acpi_blob_fini(&out);
    qz_acpi_tables_fini(&t);
}

static void many_processors(void **state)
{
    tables_survive_iasl(300, false);
}

/* Last, so that its DSDT and SSDT remain for the interpreter. */
static void few_processors(void **state)
{
    tables_survive_iasl(2, true);
}

static void methods_compute(void **state)
{
    static const struct {
        const char *call, *result;
    } cases[] = {
        {"_SB.TEST.MATH", "[Integer] = 000000000003FFFF"},
        {"_SB.TEST.SUM 10", "[Integer] = 000000000000001E"},
        {"_SB.TEST.SUM 1000", "[Integer] = 00000000000009F6"},
        {"_SB.TEST.CLAS 9", "[Integer] = 0000000000000001"},
        {"_SB.TEST.CLAS 20", "[Integer] = 0000000000000002"},
        {"_SB.TEST.CLAS 4096", "[Integer] = 0000000000000003"},
        {"_SB.TEST.CLAS 21", "[Integer] = 0000000000000004"},
        {"_SB.TEST.LIST", "[String] Length 03 = \"two\""},
        {"_SB.TEST.POKE", "No object was returned"},
        {"_SB.C001._UID", "[Integer] = 0000000000000001"},
        {"_SB.C001._PXM", "[Integer] = 0000000000000001"},
        {"_SB.PCI0._PRT", "[Package] Contains 128 Elements"},
    };

    char calls[800] = "";
    const char *at = output, *next, *result;

    if (system("command -v acpiexec >/dev/null 2>&1") != 0) {
        print_message("skipped: acpiexec (Debian's acpica-tools) is not there\n");
        skip();
    }
    /* One run for all: the interpreter takes a second to leave. */
    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        size_t n = strlen(calls);

        snprintf(calls + n, sizeof(calls) - n, "%sexecute \\%s", i ? ";" : "", cases[i].call);
    }
    run("acpiexec -da -b '%s' DSDT.aml SSDT.aml", calls);
    assert_null(strstr(output, "ACPI Error"));
    for (size_t i = 0; i < QZ_ARRAY_LEN(cases); i++) {
        at = strstr(at, "Evaluating \\");
        if (!at)
            fail_msg("%s was not run:\n%s", cases[i].call, output);
        at += strlen("Evaluating \\");
        next = strstr(at, "Evaluating \\");
        result = strstr(at, cases[i].result);
        if (!result || (next && result > next))
            fail_msg("%s is not %s:\n%s", cases[i].call, cases[i].result, at);
    }
}

static void remove_dir(void)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d)))
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_processors),
        cmocka_unit_test(few_processors),
        cmocka_unit_test(methods_compute),
    };
    const char *tmp;
    int rc;

    if (system("command -v iasl >/dev/null 2>&1") != 0) {
        printf("skipped: iasl (Debian's acpica-tools) is not there\n");
        return 77;
    }
    tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/qz-iasl-XXXXXX", tmp && strlen(tmp) < 200 ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    remove_dir();
    return rc;
}

/*
 * testpc_main.c - writes the test PC's tables to files: `acpi_testpc_dump image FILE` one block for
 * guest-physical 0xe0000 (RSDP, then the tables at 0xe0040), the seed of verify_fuzz; `testpc
 * tables DIR` one file for each table, for a look by hand.
 */
#include "testpc.h"

static int write_file(const char *path, const void *a, size_t n)
{
    QZ_AUTO_FILE FILE *f = fopen(path, "w");

    return f && fwrite(a, 1, n, f) == n ? 0 : -EIO;
}

int main(int argc, char **argv)
{
    struct qz_acpi_tables t;
    struct qz_acpi_blob out;
    struct qz_error err = {0};
    uint8_t rsdp[QZ_ACPI_RSDP_SIZE];
    int rc;

    if (argc != 3) {
        fprintf(stderr, "usage: %s image FILE | tables DIR\n", argv[0]);
        return 2;
    }
    qz_acpi_tables_init(&t, "QUEZTL", "TESTPC");
    testpc_build(&t, 2, false);
    qz_acpi_blob_init(&out, 1 << 20);
    qz_acpi_put_zeros(&out, 64);
    rc = qz_acpi_place(&t, 0xe0000, 0xe0040, rsdp, &out, &err);
    if (rc == 0)
        memcpy(out.data, rsdp, sizeof(rsdp));
    if (rc == 0 && strcmp(argv[1], "image") == 0)
        rc = write_file(argv[2], out.data, out.len);
    for (size_t i = 0; rc == 0 && strcmp(argv[1], "tables") == 0 && i < t.n_tables; i++) {
        char path[4096];

        snprintf(path, sizeof(path), "%s/%.4s.aml", argv[2], t.table[i].signature);
        rc = write_file(path, out.data + 64 + t.table[i].offset, t.table[i].len);
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", err.text[0] ? err.text : "cannot write");
    qz_acpi_blob_fini(&out);
    qz_acpi_tables_fini(&t);
    return rc < 0;
}

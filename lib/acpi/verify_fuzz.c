/*
 * verify_fuzz.c - hostile bytes into the verifier.
 *
 * Each input is tried as it is, and once more with the checksums put right, because a mutated table
 * would otherwise never get past them.
 */
#include <queztl/acpi.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t missing(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

static void put_checksums_right(uint8_t *p, size_t size)
{
    for (size_t at = 0; at + 36 <= size;) {
        uint32_t len = qz_load_le32(p + at + 4);

        if (p[at] == 0) {
            at++;
        } else if (memcmp(p + at, "RSD PTR ", 8) == 0) {
            p[at + 8] += missing(p + at, 20);
            p[at + 32] += missing(p + at, 36);
            at += 36;
        } else if (len >= 36 && len <= size - at) {
            if (memcmp(p + at, "FACS", 4) != 0)
                p[at + 9] += missing(p + at, len);
            at += len;
        } else {
            return;
        }
    }
}

static void verify_both(const uint8_t *p, size_t size)
{
    struct qz_error err = {0};

    if (qz_acpi_verify(p, size, &err) < 0 && !err.text[0])
        abort();
    /* The layout of the seed file: RSDP first, the tables 64 bytes later, made for 0xe0000. */
    qz_acpi_verify_linked(p, size, 0xe0000, 0xe0000, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    verify_both(data, size);
    copy = malloc(size ? size : 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    put_checksums_right(copy, size);
    verify_both(copy, size);
    free(copy);
    return 0;
}

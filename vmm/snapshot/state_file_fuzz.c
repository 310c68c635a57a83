/* state_file_fuzz.c - any bytes as a state file, and tables of any numbers with a good checksum. */
#include <assert.h>
#include <zlib.h>

#include "snapshot/state_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 16, ENTRY = STATE_FILE_NAME + 24 };

static uint64_t seen;

/* Every byte of every section is there. */
static void look(const void *bytes, size_t len)
{
    struct state_file f;
    struct qz_error err;

    if (state_file_parse(bytes, len, &f, &err) < 0)
        return;
    for (unsigned i = 0; i < f.count; i++)
        for (size_t k = 0; k < f.section[i].len; k++)
            seen += ((const uint8_t *)f.section[i].data)[k];
}

/* The input behind the magic, with the checksum of what is then the table. */
static void look_behind_the_checksum(const uint8_t *data, size_t size)
{
    uint8_t *bytes = calloc(1, size + HEAD);
    uint64_t table;

    assert(bytes);
    memcpy(bytes, "QZSTATE\n\1\0\0\0", 12);
    memcpy(bytes + 12, data, size);
    bytes[13] = bytes[14] = bytes[15] = 0;
    table = HEAD + (uint64_t)bytes[12] * ENTRY;
    if (size + HEAD >= table + 4)
        qz_store_le32(bytes + table, (uint32_t)crc32_z(0, bytes, table));
    look(bytes, size + HEAD);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    look(data, size);
    look_behind_the_checksum(data, size);
    return 0;
}

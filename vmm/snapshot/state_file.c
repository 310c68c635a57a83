/* state_file.c - writing and checking the file of state_file.h. */
#include "snapshot/state_file.h"
#include "snapshot/files.h"

#include <fcntl.h>
#include <zlib.h>

enum { VERSION = 1, HEAD = 16, ENTRY = STATE_FILE_NAME + 24, CHECK = 4 };
static const char magic[8] = "QZSTATE\n";

static uint32_t checksum(const void *data, size_t len)
{
    return (uint32_t)crc32_z(0, data, len);
}

static size_t table_size(unsigned count)
{
    return HEAD + (size_t)count * ENTRY + CHECK;
}

/* ---- writing */

static void put_entry(uint8_t *e, const struct state_section *s, uint64_t offset)
{
    memset(e, 0, ENTRY);
    memcpy(e, s->name, strlen(s->name));
    qz_store_le64(e + STATE_FILE_NAME, offset);
    qz_store_le64(e + STATE_FILE_NAME + 8, s->len);
    qz_store_le32(e + STATE_FILE_NAME + 16, checksum(s->data, s->len));
}

/* Head and table; the caller's to free. */
static uint8_t *make_table(const struct state_section *section, unsigned count)
{
    const size_t size = table_size(count);
    uint64_t offset = size;
    uint8_t *t = malloc(size);

    if (!t)
        return NULL;
    memcpy(t, magic, sizeof(magic));
    qz_store_le32(t + 8, VERSION);
    qz_store_le32(t + 12, count);
    for (unsigned i = 0; i < count; i++) {
        put_entry(t + HEAD + (size_t)i * ENTRY, &section[i], offset);
        offset += section[i].len;
    }
    qz_store_le32(t + size - CHECK, checksum(t, size - CHECK));
    return t;
}

static int write_sections(int fd, const struct state_section *section, unsigned count)
{
    QZ_AUTO_FREE uint8_t *table = make_table(section, count);
    uint64_t at = table_size(count);
    int r = table ? write_all(fd, table, at, 0) : -ENOMEM;

    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = write_all(fd, section[i].data, section[i].len, at);
        at += section[i].len;
    }
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    return r;
}

static int check_sections(const struct state_section *section, unsigned count, struct qz_error *err)
{
    uint64_t size = table_size(count);

    if (count > STATE_FILE_SECTIONS)
        return qz_fail(err, -E2BIG, "%u sections, at most %d are possible", count,
                       STATE_FILE_SECTIONS);
    for (unsigned i = 0; i < count; i++) {
        const size_t len = strnlen(section[i].name, STATE_FILE_NAME);

        if (len == 0 || len == STATE_FILE_NAME)
            return qz_fail(err, -EINVAL, "section %u: no name", i);
        for (unsigned k = 0; k < i; k++)
            if (!strcmp(section[k].name, section[i].name))
                return qz_fail(err, -EEXIST, "two sections are called %s", section[i].name);
        size += section[i].len;
    }
    return size > STATE_FILE_MAX ? qz_fail(err, -EFBIG, "%llu bytes, at most %d are possible",
                                           (unsigned long long)size, STATE_FILE_MAX)
                                 : 0;
}

int state_file_write(int folder, const char *name, const struct state_section *section,
                     unsigned count, struct qz_error *err)
{
    char beside[256];
    QZ_AUTO_FD int fd = -1;
    int r = check_sections(section, count, err);

    if (r < 0) {
        qz_error_prefix(err, "%s", name); /* whose answer is 0 when err is NULL */
        return r;
    }
    if (snprintf(beside, sizeof(beside), "%s.new", name) >= (int)sizeof(beside))
        return qz_fail(err, -ENAMETOOLONG, "%s: %s", name, strerror(ENAMETOOLONG));
    fd = openat(folder, beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return qz_fail(err, -errno, "%s: cannot be created: %s", beside, strerror(errno));
    r = write_sections(fd, section, count);
    if (r == 0 && renameat(folder, beside, folder, name) < 0)
        r = -errno;
    if (r == 0 && fsync(folder) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(folder, beside, 0);
        return qz_fail(err, r, "%s: cannot be written: %s", name, strerror(-r));
    }
    return 0;
}

int state_file_pack(const struct state_section *section, unsigned count, void **bytes, size_t *len,
                    struct qz_error *err)
{
    QZ_AUTO_FREE uint8_t *table = NULL;
    uint8_t *to;

    if (check_sections(section, count, err) < 0)
        return err->code;
    *len = table_size(count);
    for (unsigned i = 0; i < count; i++)
        *len += section[i].len;
    table = make_table(section, count);
    to = *bytes = table ? malloc(*len) : NULL;
    if (!to)
        return qz_fail(err, -ENOMEM, "no memory for %zu bytes of state", *len);
    to = mempcpy(to, table, table_size(count));
    for (unsigned i = 0; i < count; i++)
        to = mempcpy(to, section[i].data, section[i].len);
    return 0;
}

/* ---- reading */

/* A name that ends, of characters that a message may show. */
static bool take_name(char name[STATE_FILE_NAME], const uint8_t *from)
{
    const size_t len = strnlen((const char *)from, STATE_FILE_NAME);

    if (len == 0 || len == STATE_FILE_NAME)
        return false;
    for (size_t i = 0; i < STATE_FILE_NAME; i++)
        if (i < len ? from[i] <= ' ' || from[i] > '~' : from[i] != 0)
            return false;
    memcpy(name, from, STATE_FILE_NAME);
    return true;
}

/* *offset: where it has to begin; moved behind it. */
static int take_entry(struct state_section *s, const uint8_t *bytes, size_t len, unsigned i,
                      uint64_t *offset, struct qz_error *err)
{
    const uint8_t *e = bytes + HEAD + (size_t)i * ENTRY;
    const uint64_t at = qz_load_le64(e + STATE_FILE_NAME),
                   size = qz_load_le64(e + STATE_FILE_NAME + 8);

    if (!take_name(s->name, e))
        return qz_fail(err, -EINVAL, "section %u: no proper name", i);
    if (at != *offset || size > len - at)
        return qz_fail(err, -EINVAL, "section %s: %llu bytes at %llu, in a file of %zu", s->name,
                       (unsigned long long)size, (unsigned long long)at, len);
    s->data = bytes + at;
    s->len = size;
    if (checksum(s->data, s->len) != qz_load_le32(e + STATE_FILE_NAME + 16))
        return qz_fail(err, -EBADMSG, "section %s: its checksum is wrong: the file is damaged",
                       s->name);
    *offset += size;
    return 0;
}

static int check_table(const uint8_t *bytes, size_t len, unsigned *count, struct qz_error *err)
{
    size_t size;

    if (len < table_size(0) || memcmp(bytes, magic, sizeof(magic)) != 0)
        return qz_fail(err, -EINVAL, "no state of a snapshot");
    if (qz_load_le32(bytes + 8) != VERSION)
        return qz_fail(err, -ENOTSUP, "format version %u, this program reads %d",
                       qz_load_le32(bytes + 8), VERSION);
    *count = qz_load_le32(bytes + 12);
    if (*count > STATE_FILE_SECTIONS)
        return qz_fail(err, -EINVAL, "%u sections, at most %d are possible", *count,
                       STATE_FILE_SECTIONS);
    size = table_size(*count);
    if (len < size)
        return qz_fail(err, -EINVAL, "%zu bytes are too few for %u sections", len, *count);
    if (checksum(bytes, size - CHECK) != qz_load_le32(bytes + size - CHECK))
        return qz_fail(err, -EBADMSG, "the checksum of its table is wrong: the file is damaged");
    return 0;
}

int state_file_parse(const void *data, size_t len, struct state_file *file, struct qz_error *err)
{
    const uint8_t *bytes = data;
    unsigned count = 0;
    uint64_t offset;
    int r = check_table(bytes, len, &count, err);

    file->count = 0;
    file->bytes = NULL;
    if (r < 0)
        return r;
    offset = table_size(count);
    for (unsigned i = 0; i < count; i++) {
        r = take_entry(&file->section[i], bytes, len, i, &offset, err);
        if (r < 0)
            return r;
        if (state_file_find(file, file->section[i].name))
            return qz_fail(err, -EINVAL, "two sections are called %s", file->section[i].name);
        file->count++;
    }
    return offset == len ? 0
                         : qz_fail(err, -EINVAL, "%llu bytes behind its last section",
                                   (unsigned long long)(len - offset));
}

int state_file_read(int folder, const char *name, struct state_file *file, struct qz_error *err)
{
    void *bytes = NULL;
    size_t len = 0;
    int r = read_file(folder, name, STATE_FILE_MAX, &bytes, &len, err);

    file->count = 0;
    file->bytes = NULL;
    if (r < 0)
        return r;
    r = state_file_parse(bytes, len, file, err);
    file->bytes = bytes;
    if (r < 0) {
        state_file_free(file);
        qz_error_prefix(err, "%s", name);
    }
    return r;
}

void state_file_free(struct state_file *file)
{
    free(file->bytes);
    file->bytes = NULL;
    file->count = 0;
}

const struct state_section *state_file_find(const struct state_file *file, const char *name)
{
    for (unsigned i = 0; i < file->count; i++)
        if (!strcmp(file->section[i].name, name))
            return &file->section[i];
    return NULL;
}

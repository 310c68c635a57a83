/* units.c - sizes and numbers as people type and read them. */
#include <queztl/base.h>
#include <strings.h>

int qz_parse_size(const char *text, uint64_t *bytes, struct qz_error *err)
{
    static const struct {
        const char *name;
        uint64_t scale;
    } units[] = {
        {"K", 1ull << 10},   {"M", 1ull << 20},   {"G", 1ull << 30},     {"T", 1ull << 40},
        {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30},   {"TiB", 1ull << 40},
        {"KB", 1000ull},     {"MB", 1000000ull},  {"GB", 1000000000ull}, {"TB", 1000000000000ull},
        {"B", 1ull},
    };
    char *end;
    unsigned long long n;

    if (text[0] < '0' || text[0] > '9')
        return qz_fail(err, -EINVAL,
                       "size \"%s\": a number with a unit is needed, such as 512M or 2GiB", text);
    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno == ERANGE)
        return qz_fail(err, -ERANGE, "size \"%s\" is too large", text);
    if (*end == '\0') {
        if (n == 0) {
            *bytes = 0;
            return 0;
        }
        return qz_fail(err, -EINVAL, "size \"%s\" has no unit: write %sM, %sMB or %sB", text, text,
                       text, text);
    }
    for (size_t i = 0; i < QZ_ARRAY_LEN(units); i++) {
        if (strcasecmp(end, units[i].name) != 0)
            continue;
        if (n > (uint64_t)INT64_MAX / units[i].scale)
            return qz_fail(err, -ERANGE, "size \"%s\" is too large", text);
        *bytes = n * units[i].scale;
        return 0;
    }
    return qz_fail(err, -EINVAL,
                   "size \"%s\": unknown unit \"%s\" (use K, M, G, T, or KB, KiB and so on)", text,
                   end);
}

int qz_parse_u64(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *value,
                 struct qz_error *err)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(text, &end, 0);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno == EINVAL)
        return qz_fail(err, -EINVAL, "%s \"%s\" is not a number", what, text);
    if (errno == ERANGE || n < min || n > max)
        return qz_fail(err, -ERANGE, "%s %s is out of range (%llu to %llu)", what, text,
                       (unsigned long long)min, (unsigned long long)max);
    *value = n;
    return 0;
}

const char *qz_format_size(uint64_t bytes, char *buf, size_t len)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t whole = bytes, rest = 0;

    while (whole >= 1024 && unit + 1 < QZ_ARRAY_LEN(names)) {
        rest = whole % 1024;
        whole /= 1024;
        unit++;
    }
    if (rest)
        snprintf(buf, len, "%u.%u %s", (unsigned)whole, (unsigned)(rest * 10 / 1024), names[unit]);
    else
        snprintf(buf, len, "%u %s", (unsigned)whole, names[unit]);
    return buf;
}

/* io_test.c - random requests, many at once, over images of all kinds. */
#include "rig.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    const char *options;
    uint64_t size, backing, max;
} kinds[] = {
    {"", 8 << 20, 0, 200 << 10},
    {"", 8 << 20, 5 << 20, 200 << 10},
    {"cluster_size=512B", 1 << 20, 0, 16 << 10},
    {"cluster_size=512B", 1 << 20, (1 << 20) + 4096, 16 << 10},
    {"cluster_size=512B,refcount_bits=64", 1 << 20, 0, 16 << 10},
    {"cluster_size=4KiB,refcount_bits=1", 4 << 20, 2 << 20, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=2", 4 << 20, 0, 64 << 10},
    {"cluster_size=4KiB,refcount_bits=8,metadata_memory", 4 << 20, 1 << 20, 64 << 10},
    {"cluster_size=2MiB", (16 << 20) - 512, 8 << 20, 5 << 20},
    {"compat=0.10", 8 << 20, 0, 200 << 10},
    {"compat=0.10,cluster_size=1KiB", 1 << 20, 512 << 10, 16 << 10},
    {"lazy_refcounts", 8 << 20, 0, 200 << 10},
    {"extended_l2,cluster_size=16KiB", 4 << 20, 0, 64 << 10},
    {"extended_l2,cluster_size=64KiB", 8 << 20, 6 << 20, 200 << 10},
    {"extended_l2,cluster_size=128KiB,preallocation=metadata", 8 << 20, 6 << 20, 300 << 10},
    {"preallocation=full", 8 << 20, 0, 200 << 10},
};

static void storm(bool defers, bool log)
{
    for (unsigned n = 0; n < QZ_ARRAY_LEN(kinds); n++) {
        struct rig r = {
            .random = n, .defers = defers, .log = log && !strstr(kinds[n].options, "0.10")};
        char options[200];

        /* metadata_memory belongs to opening. */
        snprintf(options, sizeof(options), "%s", kinds[n].options);
        if (strstr(options, ",metadata_memory"))
            *strstr(options, ",metadata_memory") = 0;
        rig_open(&r, kinds[n].size, options, kinds[n].backing);
        if (strstr(kinds[n].options, "metadata_memory"))
            layer_set_memory(r.image, 64 << 10);
        rig_compare(&r, kinds[n].options);
        rig_storm(&r, 300, 1, kinds[n].max);
        rig_compare(&r, kinds[n].options);
        rig_storm(&r, 600, 16, kinds[n].max);
        rig_check(&r, kinds[n].options);
        rig_reopen(&r);
        rig_compare(&r, kinds[n].options);
        rig_storm(&r, 300, 32, 4096);
        rig_compare(&r, kinds[n].options);
        rig_close(&r);
    }
}

static void storm_at_once(void **state)
{
    storm(false, false);
}

static void storm_deferred(void **state)
{
    storm(true, false);
}

static void storm_logged(void **state)
{
    storm(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(storm_at_once),
        cmocka_unit_test(storm_deferred),
        cmocka_unit_test(storm_logged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* crc32c_test.c - known sums, the two ways against each other, and pieces. */
#include "snapshot/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* RFC 3720 appendix B.4; its bytes are little-endian. */
static void test_known_sums(void **state)
{
    uint8_t bytes[32] = {0};

    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c_by_table(0, bytes, 32), 0x46dd794e);
    assert_int_equal(crc32c(0, bytes, 0), 0);
}

static void test_both_ways_and_in_pieces(void **state)
{
    static uint8_t bytes[100000];
    uint64_t seed = 7;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)qz_random64(&seed);
    for (unsigned i = 0; i < 300; i++) {
        const size_t at = qz_random64(&seed) % 64, len = qz_random64(&seed) % (sizeof(bytes) - at),
                     cut = qz_random64(&seed) % (len + 1);
        const uint32_t whole = crc32c(0, bytes + at, len);

        assert_int_equal(whole, crc32c_by_table(0, bytes + at, len));
        assert_int_equal(whole, crc32c(crc32c(0, bytes + at, cut), bytes + at + cut, len - cut));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_sums),
        cmocka_unit_test(test_both_ways_and_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

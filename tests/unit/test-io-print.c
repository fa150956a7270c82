/* SPDX-License-Identifier: MIT */
/*
 * test-io-print.c - the figures of `lamella io`, and the numbers it takes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "io-print.h"

static const struct { double bytes; const char *text; } sizes[] = {
    { 0, "0 bytes" },
    { 1, "1 bytes" },
    { 1000, "1000 bytes" },
    { 801.083089, "801.083089 bytes" },
    { 1024, "1 KiB" },
    { 1536, "1.500 KiB" },
    { 66563, "65.003 KiB" },
    { 1024 * 1024 - 1, "1023.999 KiB" },
    { 536870912, "512 MiB" },
    { 2147418112, "2 GiB" },            /* 1.99994, rounded */
    { 9223372036854775807.0, "8 EiB" },
};

static void test_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char buf[IO_SIZE_MAX];

        assert_string_equal(io_size(sizes[i].bytes, buf), sizes[i].text);
    }
}

static const struct { const char *text; int rc; uint64_t value; } numbers[] = {
    { "0", 0, 0 },
    { "010", 0, 10 },                   /* never octal */
    { "0x10", 0, 16 },
    { "64k", 0, 65536 },
    { "1.5M", 0, 1572864 },
    { "3b", 0, 3 },
    { "7E", 0, UINT64_C(7) << 60 },
    { "9223372036854775807", 0, INT64_MAX },
    { "9223372036854775808", -EINVAL, 0 },
    { "8E", -EINVAL, 0 },
    { "-1", -EINVAL, 0 },
    { "", -EINVAL, 0 },
    { "k", -EINVAL, 0 },
    { "1kk", -EINVAL, 0 },
    { "1.5", -EINVAL, 0 },
    { "0x10k", -EINVAL, 0 },
};

static const struct { const char *text; int rc; uint8_t value; } patterns[] = {
    { "0", 0, 0 },
    { "0xcd", 0, 0xcd },
    { "010", 0, 8 },                    /* octal, unlike sizes */
    { "255", 0, 255 },
    { "256", -EINVAL, 0 },
    { "-1", -EINVAL, 0 },
    { "1x", -EINVAL, 0 },
    { "", -EINVAL, 0 },
};

/* Their complaints go to stdout, which is the test's report. */
static int silence(void)
{
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_non_null(freopen("/dev/null", "w", stdout));
    return saved;
}

static void restore(int saved)
{
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
}

static void test_numbers(void **state)
{
    int rc[sizeof numbers / sizeof numbers[0]];
    uint64_t value[sizeof numbers / sizeof numbers[0]] = { 0 };

    (void)state;
    int saved = silence();
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        rc[i] = io_number(numbers[i].text, &value[i]);
    restore(saved);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_int_equal(rc[i], numbers[i].rc);
        if (rc[i] == 0)
            assert_true(value[i] == numbers[i].value);
    }
}

static void test_patterns(void **state)
{
    int rc[sizeof patterns / sizeof patterns[0]];
    uint8_t value[sizeof patterns / sizeof patterns[0]] = { 0 };

    (void)state;
    int saved = silence();
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++)
        rc[i] = io_pattern(patterns[i].text, &value[i]);
    restore(saved);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        assert_int_equal(rc[i], patterns[i].rc);
        assert_int_equal(value[i], patterns[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

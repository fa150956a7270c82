/* SPDX-License-Identifier: MIT */
/*
 * test-zeroes.c - every method, every misalignment, every place of one byte.
 */
#include "unit.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/zeroes.h"

enum { MAX_LENGTH = 600, MAX_SHIFT = 65 };

static void check_length(const struct zeroes_method *method, uint8_t *area,
                         size_t shift, size_t length)
{
    uint8_t *p = area + 1 + shift;
    /* Its neighbours are not its business. */
    p[-1] = p[length] = 0xff;
    if (!method->is_zero(p, length))
        fail_msg("%s: shift %zu length %zu", method->name, shift, length);
    p[-1] = p[length] = 0;
    size_t step = length > 300 ? 7 : 1;
    for (size_t at = 0; at < length; at += step) {
        p[at] = 0x80;
        if (method->is_zero(p, length))
            fail_msg("%s: shift %zu length %zu: missed byte %zu",
                     method->name, shift, length, at);
        p[at] = 0;
    }
    if (length) {
        p[length - 1] = 1;
        assert_false(method->is_zero(p, length));
        p[length - 1] = 0;
    }
}

/* The methods of this architecture, best first. */
static const char *const expected[] = {
#if defined(__x86_64__)
    "avx512", "avx2",
#elif defined(__aarch64__)
    "neon",
#endif
    "portable",
};

static void compiled_in(void **state)
{
    (void)state;
    size_t count;
    const struct zeroes_method *methods = zeroes_methods(&count);
    assert_int_equal(count, LAM_ARRAY_SIZE(expected));
    for (size_t m = 0; m < count; m++)
        assert_string_equal(methods[m].name, expected[m]);
    assert_true(methods[count - 1].usable());
}

/* Skips the test where the processor has it not. */
static const struct zeroes_method *method_named(const char *name)
{
    size_t count;
    const struct zeroes_method *methods = zeroes_methods(&count);
    for (size_t m = 0; m < count; m++)
        if (!strcmp(methods[m].name, name) && methods[m].usable())
            return &methods[m];
    print_message("SKIP: %s: not on this processor\n", name);
    skip();
    return NULL;
}

static void every_place(const struct zeroes_method *method)
{
    uint8_t area[MAX_LENGTH + MAX_SHIFT + 2] = { 0 };
    for (size_t shift = 0; shift < MAX_SHIFT; shift += 1 + shift / 9)
        for (size_t n = 0; n <= MAX_LENGTH; n += 1 + n / 40)
            check_length(method, area, shift, n);
}

/* Memory that may not be read, before and behind. */
static void nothing_beside(const struct zeroes_method *method)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *area = mmap(NULL, 3 * page, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(area, MAP_FAILED);
    uint8_t *start = area + page, *end = start + page;
    assert_int_equal(mprotect(start, page, PROT_READ | PROT_WRITE), 0);
    for (size_t n = 0; n <= page; n += n < MAX_LENGTH ? 1 : 97) {
        assert_true(method->is_zero(start, n));
        assert_true(method->is_zero(end - n, n));
    }
    munmap(area, 3 * page);
}

static void one_method(void **state)
{
    const struct zeroes_method *method = method_named(*state);
    every_place(method);
    nothing_beside(method);
}

static void memory(void **state)
{
    (void)state;
    static uint8_t area[70000];
    assert_true(memory_is_zero(area, 0));
    assert_true(memory_is_zero(area, sizeof area));
    area[sizeof area - 1] = 1;
    assert_false(memory_is_zero(area, sizeof area));
    assert_true(memory_is_zero(area, sizeof area - 1));
    area[sizeof area - 1] = 0;
    area[3] = 1;
    assert_false(memory_is_zero(area, 4));
    assert_true(memory_is_zero(area, 3));
    area[3] = 0;
}

static void runs(void **state)
{
    (void)state;
    /* 'z' is a zero byte in @map, 'x' another. */
    static const struct {
        const char *map;
        size_t unit, run;
        bool zero;
    } cases[] = {
        { "z", 1, 1, true },
        { "x", 1, 1, false },
        { "zzzx", 1, 3, true },
        { "xxz", 1, 2, false },
        { "zzzx", 4, 4, false },
        { "zzzzxzzz", 4, 4, true },
        { "xzzzzzxz", 4, 8, false },
        { "xzzzzzzz", 4, 4, false },
        { "zzzzzz", 4, 6, true },           /* the last block is short */
        { "zzzzzx", 4, 4, true },
        { "zz", 4096, 2, true },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        uint8_t bytes[16];
        size_t length = strlen(cases[i].map);
        for (size_t k = 0; k < length; k++)
            bytes[k] = cases[i].map[k] == 'x';
        bool zero;
        assert_int_equal(zero_run(bytes, length, cases[i].unit, &zero),
                         cases[i].run);
        assert_int_equal(zero, cases[i].zero);
    }
}

/* A test for each, so that what was left out is told. */
#define TEST_OF(name)                                                       \
    { "method " name, one_method, NULL, NULL, (void *)(name) }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compiled_in),
#if defined(__x86_64__)
        TEST_OF("avx512"),
        TEST_OF("avx2"),
#elif defined(__aarch64__)
        TEST_OF("neon"),
#endif
        TEST_OF("portable"),
        cmocka_unit_test(memory),
        cmocka_unit_test(runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

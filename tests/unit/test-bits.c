/* SPDX-License-Identifier: MIT */
/*
 * test-bits.c - rows of bits, against an array of bool.
 */
#include "unit.h"

#include <string.h>

#include "format/qcow2/bits.h"

enum { PAGE = 512, PER = PAGE * 8, MOST = 5 * PER };

static bool model[MOST];

static void check(const struct bits *b)
{
    uint64_t at = 0, i = 0;

    for (;;) {
        uint64_t first, n;
        bool found = bits_next(b, at, &first, &n);

        while (i < b->count && !model[i])
            i++;
        if (!found) {
            assert_int_equal(i, b->count);
            break;
        }
        assert_int_equal(first, i);
        assert_true(n > 0 && bits_get(b, first));
        while (i < b->count && model[i])
            i++;
        assert_int_equal(first + n, i);
        at = first + n;
    }
}

static void set(struct bits *b, uint64_t first, uint64_t n)
{
    assert_int_equal(bits_set(b, first, n), 0);
    for (uint64_t i = first; i < first + n && i < b->count; i++)
        model[i] = true;
    check(b);
}

static const struct { const char *name; uint64_t count, first, n; } sets[] = {
    { "one", 100, 7, 1 },
    { "in a byte", 100, 1, 3 },
    { "across bytes", 100, 5, 20 },
    { "the last", 99, 98, 1 },
    { "past the end", 99, 90, 1000 },
    { "behind the end", 99, 99, 5 },
    { "far behind", 99, 1u << 20, 5 },
    { "all of a cut page", 99, 0, 99 },
    { "a whole page", 2 * PER, 0, PER },
    { "whole pages and a bit", 3 * PER, PER - 1, PER + 2 },
    { "all", MOST, 0, MOST },
    { "all but the ends", MOST - 3, 1, MOST - 5 },
    { "none", 100, 3, 0 },
};

static void test_set(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sets); i++) {
        struct bits b;

        memset(model, 0, sizeof model);
        assert_int_equal(bits_init(&b, sets[i].count, PAGE), 0);
        check(&b);
        set(&b, sets[i].first, sets[i].n);
        set(&b, sets[i].first, sets[i].n);
        bits_deinit(&b);
    }
}

/* Whole pages take no memory. */
static void test_pages(void **state)
{
    struct bits b;
    uint8_t page[PAGE];

    (void)state;
    memset(model, 0, sizeof model);
    memset(page, 0xff, sizeof page);
    assert_int_equal(bits_init(&b, 2 * PER + 9, PAGE), 0);
    assert_int_equal(b.nb_pages, 3);
    set(&b, 0, PER);
    assert_ptr_equal(b.pages[0], bits_ones);
    set(&b, 5, 1);
    assert_ptr_equal(b.pages[0], bits_ones);
    assert_null(b.pages[1]);

    /* What is stored behind the end does not count. */
    assert_int_equal(bits_put_page(&b, 2, page), 0);
    assert_int_equal(b.pages[2][0], 0xff);
    assert_int_equal(b.pages[2][1], 0x01);
    assert_int_equal(b.pages[2][2], 0x00);
    memset(page, 0, sizeof page);
    assert_int_equal(bits_put_page(&b, 0, page), 0);
    assert_null(b.pages[0]);
    assert_int_equal(bits_put_ones(&b, 2), 0);
    assert_ptr_not_equal(b.pages[2], bits_ones);
    assert_int_equal(b.pages[2][1], 0x01);
    bits_clear_all(&b);
    memset(model, 0, sizeof model);
    check(&b);
    bits_deinit(&b);
}

static void test_random(void **state)
{
    struct bits b, copy;
    uint64_t seed = 1;

    (void)state;
    memset(model, 0, sizeof model);
    assert_int_equal(bits_init(&b, 3 * PER, PAGE), 0);
    for (unsigned i = 0; i < 400; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t a = (seed >> 33) % MOST, n = (seed >> 20) % 97;

        if (i % 40 == 39) {     /* another size: what is cut off is gone */
            uint64_t old = b.count;
            assert_int_equal(bits_resize(&b, a + 1), 0);
            for (uint64_t k = min_u64(old, a + 1); k < MOST; k++)
                model[k] = false;
            check(&b);
        } else if (i % 40 == 20) {
            set(&b, a / PER * PER, PER);
        } else {
            set(&b, a, n);
        }
        if (i % 50 == 0) {
            assert_int_equal(bits_copy(&copy, &b), 0);
            check(&copy);
            bits_deinit(&copy);
        }
    }
    bits_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

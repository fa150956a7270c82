/* SPDX-License-Identifier: MIT */
/*
 * test-refblock.c - refcounts of every width (format document 5.1, A.6), and
 * the sparse map in which a check counts.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "format/qcow2/refblock.h"
#include "format/qcow2/refmap.h"

static const struct { unsigned order; const char *bytes; } blocks[] = {
    { 0, "\x3f\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
    { 1, "\x55\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0" },
    { 2, "\x11\x11\x11\0\0\0\0\0\0\0\0\0\0\0\0\0" },
    { 3, "\1\1\1\1\1\1\0\0\0\0\0\0\0\0\0\0" },
    { 4, "\0\1\0\1\0\1\0\1\0\1\0\1\0\0\0\0" },
    { 5, "\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1" },
    { 6, "\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\1" },
};

static void six_clusters_as_in_the_document(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(blocks); i++) {
        uint8_t block[512] = { 0 };

        for (uint64_t c = 0; c < 6; c++)
            refblock_set(block, blocks[i].order, c, 1);
        assert_memory_equal(block, blocks[i].bytes, 16);
        for (uint64_t c = 0; c < UINT64_C(64) >> blocks[i].order; c++)
            assert_int_equal(refblock_get(block, blocks[i].order, c), c < 6);
    }
}

static void what_is_set_is_got(void **state)
{
    (void)state;
    unsigned seed = 3;

    for (unsigned order = 0; order <= 6; order++) {
        uint64_t entries = 512 * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX
                                  : (UINT64_C(1) << (1 << order)) - 1;
        uint8_t block[512];
        uint64_t *model = calloc(entries, sizeof *model);

        memset(block, 0, sizeof block);
        for (unsigned n = 0; n < 5000; n++) {
            uint64_t i = (uint64_t)rand_r(&seed) % entries;
            uint64_t v = n % 7 == 0 ? max : (uint64_t)rand_r(&seed) & max;

            refblock_set(block, order, i, v);
            model[i] = v;
        }
        for (uint64_t i = 0; i < entries; i++)
            assert_int_equal(refblock_get(block, order, i), model[i]);
        free(model);
    }
}

/* Against the plain loop, with blocks from nearly empty to nearly full and
 * with the values that a search for zero bytes could take for zero. */
static void free_counters_are_found(void **state)
{
    (void)state;
    unsigned seed = 5;

    for (unsigned order = 0; order <= 6; order++) {
        uint64_t entries = 512 * 8 >> order;
        uint64_t max = order == 6 ? UINT64_MAX
                                  : (UINT64_C(1) << (1 << order)) - 1;
        for (unsigned round = 0; round < 400; round++) {
            uint64_t values[] = { 1 & max, max, max / 2 + 1, 256 & max };
            uint8_t block[512] = { 0 };
            unsigned holes = round % 50;

            for (uint64_t i = 0; i < entries; i++) {
                uint64_t v = values[rand_r(&seed) % 4];
                bool hole = (unsigned)rand_r(&seed) % 100 < holes;
                refblock_set(block, order, i, hole ? 0 : v ? v : 1);
            }
            uint64_t from = (uint64_t)rand_r(&seed) % (entries + 1);
            uint64_t end = from +
                (uint64_t)rand_r(&seed) % (entries - from + 1);
            uint64_t expected = from;
            while (expected < end && refblock_get(block, order, expected))
                expected++;
            assert_int_equal(refblock_find_free(block, order, from, end),
                             expected);
        }
    }
}

static void references_widen_and_saturate_nowhere(void **state)
{
    (void)state;
    struct refmap map;

    assert_int_equal(refmap_init(&map, 5000, NULL), 0);
    assert_int_equal(refmap_get(&map, 4999), 0);
    assert_int_equal(refmap_get(&map, 5000), 0);
    assert_int_equal(refmap_add(&map, 4999, 65535, NULL), 0);
    assert_int_equal(refmap_get(&map, 4999), 65535);
    assert_int_equal(refmap_add(&map, 4998, 3, NULL), 0);
    assert_int_equal(refmap_add(&map, 4999, 1, NULL), 0);
    assert_int_equal(refmap_get(&map, 4999), 65536);
    assert_int_equal(refmap_get(&map, 4998), 3);
    assert_int_equal(refmap_add(&map, 4998, UINT64_C(1) << 40, NULL), 0);
    assert_int_equal(refmap_get(&map, 4998), (UINT64_C(1) << 40) + 3);
    assert_int_equal(refmap_get(&map, 0), 0);
    refmap_deinit(&map);
}

/* One reference in each leaf of a huge sparse file: the budget ends it. */
static void scattered_references_hit_the_budget(void **state)
{
    (void)state;
    struct refmap map;
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t i;
    int rc = 0;

    assert_int_equal(refmap_init(&map, UINT64_C(1) << 32, NULL), 0);
    for (i = 0; i < (1 << 20) && rc == 0; i++)
        rc = refmap_add(&map, i * REFMAP_LEAF, 1, &err);
    assert_int_equal(rc, -ENOMEM);
    assert_in_range(i, 10000, 200000);
    assert_non_null(strstr(err.message, "scattered"));
    refmap_deinit(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(six_clusters_as_in_the_document),
        cmocka_unit_test(what_is_set_is_got),
        cmocka_unit_test(free_counters_are_found),
        cmocka_unit_test(references_widen_and_saturate_nowhere),
        cmocka_unit_test(scattered_references_hit_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

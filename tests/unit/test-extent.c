/* SPDX-License-Identifier: MIT */
/*
 * test-extent.c - ranges taken apart, extents merged, clipped and overlaid.
 */
#include "unit.h"

#include "extent/overlay.h"
#include "extent/range.h"

static void ranges_split(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t offset, length, head, body, tail;
    } cases[] = {
        { "empty",              0x1000,      0,     0,      0,     0 },
        { "whole unit",         0x1000, 0x1000,     0, 0x1000,     0 },
        { "head only",          0x1200,  0xe00, 0xe00,      0,     0 },
        { "tail only",          0x1000,  0x200,     0,      0, 0x200 },
        { "inside one unit",    0x1200,  0x200, 0x200,      0,     0 },
        { "across a boundary",  0x1f00,  0x200, 0x100,      0, 0x100 },
        { "all three",          0x1f00, 0x2200, 0x100, 0x2000, 0x100 },
        { "from zero",               0, 0x2001,     0, 0x2000,     1 },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct range r = range_make(cases[i].offset, cases[i].length);
        struct range_split s = range_split(r, 0x1000);
        if (s.head.length != cases[i].head || s.body.length != cases[i].body ||
            s.tail.length != cases[i].tail)
            fail_msg("%s", cases[i].name);
        assert_int_equal(s.head.offset, r.offset);
        assert_int_equal(s.body.offset, range_end(s.head));
        assert_int_equal(s.tail.offset, range_end(s.body));
        assert_int_equal(range_end(s.tail), range_end(r));
    }
}

static void ranges(void **state)
{
    (void)state;
    struct range r = range_intersect(range_make(10, 10), range_make(15, 10));
    assert_int_equal(r.offset, 15);
    assert_int_equal(r.length, 5);
    assert_int_equal(range_intersect(range_make(0, 5),
                                     range_make(5, 5)).length, 0);
    assert_false(range_overlaps(range_make(0, 5), range_make(5, 5)));
    assert_true(range_overlaps(range_make(0, 6), range_make(5, 5)));
    assert_true(range_fits(5, 5, 10));
    assert_false(range_fits(5, 6, 10));
    assert_false(range_fits(UINT64_MAX, 2, 10));
    r = range_widen(range_make(0x1fff, 2), 0x1000);
    assert_int_equal(r.offset, 0x1000);
    assert_int_equal(r.length, 0x2000);
}

#define U LAM_EXTENT_UNALLOCATED
#define Z LAM_EXTENT_ZERO
#define D LAM_EXTENT_DATA
#define C LAM_EXTENT_COMPRESSED
#define H LAM_EXTENT_HAS_HOST

/* offset, length, host offset, host length, depth, state, flags */
typedef struct lam_extent E;

static void appends(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        E first, second;
        size_t count;
    } cases[] = {
        { "data goes on", { 0, 10, 100, 0, 0, D, H },
          { 10, 5, 110, 0, 0, D, H }, 1 },
        { "data elsewhere", { 0, 10, 100, 0, 0, D, H },
          { 10, 5, 120, 0, 0, D, H }, 2 },
        { "another layer", { 0, 10, 100, 0, 0, D, H },
          { 10, 5, 110, 0, 1, D, H }, 2 },
        { "other flags", { 0, 10, 100, 0, 0, D, H },
          { 10, 5, 110, 0, 0, D, H | LAM_EXTENT_HOST_HOLE }, 2 },
        { "zeroes", { 0, 10, 0, 0, 0, Z, 0 }, { 10, 5, 0, 0, 0, Z, 0 }, 1 },
        { "zeroes, stale host", { 0, 10, 7, 0, 0, Z, 0 },
          { 10, 5, 9, 0, 0, Z, 0 }, 1 },
        { "zeroes with hosts apart", { 0, 10, 100, 0, 0, Z, H },
          { 10, 5, 200, 0, 0, Z, H }, 2 },
        { "zero and nothing", { 0, 10, 0, 0, 0, Z, 0 },
          { 10, 5, 0, 0, 0, U, 0 }, 2 },
        { "compressed stay apart", { 0, 10, 100, 5, 0, C, H },
          { 10, 10, 110, 5, 0, C, H }, 2 },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_extents list = LAM_EXTENTS_INIT;
        assert_works(extents_append(&list, &cases[i].first, &err), &err);
        assert_works(extents_append(&list, &cases[i].second, &err), &err);
        if (list.count != cases[i].count)
            fail_msg("%s: %zu", cases[i].name, list.count);
        lam_extents_deinit(&list);
        assert_null(list.items);
    }
}

static void grows(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_extents list = LAM_EXTENTS_INIT;
    for (uint64_t i = 0; i < 1000; i++) {
        E e = { .offset = i * 4, .length = 4, .state = i % 2 ? Z : U };
        assert_works(extents_append(&list, &e, &err), &err);
    }
    assert_int_equal(list.count, 1000);
    assert_int_equal(extents_total(&list, Z), 2000);
    assert_int_equal(extents_total(&list, D), 0);
    lam_extents_deinit(&list);
}

static void clips(void **state)
{
    (void)state;
    E data = { 100, 50, 1000, 0, 2, D, H };
    E cut = extent_clip(&data, 110, 20);
    assert_int_equal(cut.offset, 110);
    assert_int_equal(cut.length, 20);
    assert_int_equal(cut.host_offset, 1010);
    assert_int_equal(cut.depth, 2);
    E packed = { 100, 50, 1000, 33, 0, C, H };
    cut = extent_clip(&packed, 110, 20);
    assert_int_equal(cut.host_offset, 1000);
    assert_int_equal(cut.host_length, 33);
}

static void reads_zero(void **state)
{
    (void)state;
    assert_true(extent_reads_zero(&(E){ .state = Z }));
    assert_true(extent_reads_zero(&(E){ .state = U }));
    assert_false(extent_reads_zero(&(E){ .state = D }));
    assert_true(extent_reads_zero(
        &(E){ .state = D, .flags = LAM_EXTENT_HOST_HOLE }));
    assert_false(extent_reads_zero(&(E){ .state = C }));
}

/* Lists of up to five, ended by length 0. */
static const struct {
    const char *name;
    E top[5], below[5], out[5];
} overlays[] = {
    { "both empty", { { 0 } }, { { 0 } }, { { 0 } } },
    { "top hides all",
      { { 0, 100, 500, 0, 0, D, H } },
      { { 0, 50, 900, 0, 1, D, H }, { 50, 50, 0, 0, 1, Z, 0 } },
      { { 0, 100, 500, 0, 0, D, H } } },
    { "top is glass",
      { { 0, 100, 0, 0, 0, U, 0 } },
      { { 0, 50, 900, 0, 1, D, H }, { 50, 50, 0, 0, 1, Z, 0 } },
      { { 0, 50, 900, 0, 1, D, H }, { 50, 50, 0, 0, 1, Z, 0 } } },
    { "a window in the top",
      { { 0, 40, 500, 0, 0, D, H }, { 40, 20, 0, 0, 0, U, 0 },
        { 60, 40, 700, 0, 0, D, H } },
      { { 0, 100, 900, 0, 1, D, H } },
      { { 0, 40, 500, 0, 0, D, H }, { 40, 20, 940, 0, 1, D, H },
        { 60, 40, 700, 0, 0, D, H } } },
    { "nothing in either: the top's space is kept",
      { { 0, 10, 500, 0, 0, U, H }, { 10, 10, 0, 0, 0, U, 0 } },
      { { 0, 20, 0, 0, 1, U, 0 } },
      { { 0, 10, 500, 0, 0, U, H }, { 10, 10, 0, 0, 0, U, 0 } } },
    { "pieces that meet again are merged",
      { { 0, 30, 0, 0, 0, U, 0 }, { 30, 30, 0, 0, 0, U, 0 } },
      { { 0, 20, 900, 0, 1, D, H }, { 20, 40, 920, 0, 1, D, H } },
      { { 0, 60, 900, 0, 1, D, H } } },
};

static void fill(struct lam_extents *list, const E *items, bool raw)
{
    struct lam_error err = LAM_ERROR_INIT;
    for (size_t i = 0; i < 5 && items[i].length; i++) {
        E e = items[i];
        assert_works(extents_append(list, &e, &err), &err);
        /* Keep apart what append would merge: inputs need not be merged. */
        if (raw && list->count != i + 1)
            fail_msg("the case's list is merged already");
    }
}

static void lays_over(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(overlays); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_extents top = LAM_EXTENTS_INIT, below = LAM_EXTENTS_INIT,
                           out = LAM_EXTENTS_INIT, want = LAM_EXTENTS_INIT;
        fill(&top, overlays[i].top, false);
        fill(&below, overlays[i].below, false);
        fill(&want, overlays[i].out, true);
        assert_works(extents_overlay(&top, &below, &out, &err), &err);
        if (out.count != want.count)
            fail_msg("%s: %zu extents", overlays[i].name, out.count);
        for (size_t k = 0; k < out.count; k++)
            assert_memory_equal(&out.items[k], &want.items[k], sizeof(E));
        lam_extents_deinit(&top);
        lam_extents_deinit(&below);
        lam_extents_deinit(&out);
        lam_extents_deinit(&want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_split),
        cmocka_unit_test(ranges),
        cmocka_unit_test(appends),
        cmocka_unit_test(grows),
        cmocka_unit_test(clips),
        cmocka_unit_test(reads_zero),
        cmocka_unit_test(lays_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

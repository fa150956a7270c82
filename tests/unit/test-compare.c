/* SPDX-License-Identifier: MIT */
/*
 * test-compare.c - the walk over two images' maps, on memory objects.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/image.h"

enum { KIB = 1024, GUEST = 4096 * KIB };

static uint8_t guest[GUEST];

/* Two thirds data, one third zeroes, in runs that end anywhere. */
static void fill_guest(void)
{
    for (size_t i = 0; i < GUEST; i++)
        guest[i] = i / 50000 % 3 ? (uint8_t)(1 + i % 251) : 0;
}

static struct lam_image *make_raw(uint64_t size)
{
    struct lam_image *image;
    struct lam_io *io;

    assert_int_equal(lam_io_memory_new(guest, size, &io, NULL), 0);
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &image, NULL), 0);
    return image;
}

static struct lam_image *make_qcow2(uint64_t size, uint64_t cluster_size,
                                    struct lam_image *below)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;
    struct lam_io *io;

    create.format = "qcow2";
    create.size = size;
    create.cluster_size = cluster_size;
    if (below) {
        create.backing_file = "below";
        create.backing_format = "raw";
    }
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, NULL), 0);
    assert_int_equal(format_qcow2.create(io, NULL, &create, NULL), 0);
    open.flags = LAM_OPEN_WRITE;
    assert_int_equal(image_open_io(io, "qcow2", &open, below, &image, NULL), 0);
    return image;
}

/* Holds the guest where it is not zero; its clusters in descending order. */
static struct lam_image *make_copy(uint64_t size, uint64_t cluster_size,
                                   bool compress)
{
    struct lam_image *image = make_qcow2(size, cluster_size, NULL);

    for (uint64_t at = align_down(size - 1, cluster_size);;
         at -= cluster_size) {
        uint64_t n = min_u64(cluster_size, size - at);
        int rc = lam_image_write(image, guest + at, n, at,
                                 compress ? LAM_WRITE_COMPRESSED : 0, NULL);
        assert_int_equal(rc, 0);
        if (!at)
            return image;
    }
}

enum shape { RAW, SMALL, LARGE, DEFLATE, OVERLAY, NB_SHAPES };

static struct lam_image *make(enum shape shape, uint64_t size)
{
    switch (shape) {
    case SMALL:
        return make_copy(size, 4096, false);
    case LARGE:
        return make_copy(size, 1024 * KIB, false);
    case DEFLATE:
        return make_copy(size, 64 * KIB, true);
    case OVERLAY:
        return make_qcow2(size, 64 * KIB, make_raw(size));
    default:
        return make_raw(size);
    }
}

static struct lam_compare_result compare(struct lam_image *a,
                                         struct lam_image *b, unsigned flags)
{
    struct lam_compare_result result;
    struct lam_error err = LAM_ERROR_INIT;

    if (lam_image_compare(a, b, flags, NULL, NULL, &result, &err) < 0)
        fail_msg("%s", err.message);
    return result;
}

/* ----------------------------------------------------------------- the same */

static void test_shapes_are_equal(void **state)
{
    (void)state;
    for (int a = 0; a < NB_SHAPES; a++) {
        for (int b = 0; b < NB_SHAPES; b++) {
            struct lam_image *x = make(a, GUEST - 512);
            struct lam_image *y = make(b, GUEST - 512);
            struct lam_compare_result r = compare(x, y, 0);

            assert_int_equal(r.verdict, LAM_COMPARE_EQUAL);
            assert_false(r.sizes_differ);
            lam_image_close(x, NULL);
            lam_image_close(y, NULL);
        }
    }
}

/* -------------------------------------------------------------- differences */

static const struct { const char *name; uint64_t at, sector; } places[] = {
    { "first byte", 0, 0 },
    { "end of the first sector", 511, 0 },
    { "in zeroes", 150000, 149504 },
    { "in data", 70000, 69632 },
    { "before a chunk's end", 256 * KIB - 1, 256 * KIB - 512 },
    { "at a chunk's start", 256 * KIB, 256 * KIB },
    { "last byte", GUEST - 1, GUEST - 512 },
};

static void test_differences(void **state)
{
    (void)state;
    for (int a = 0; a < NB_SHAPES; a++) {
        for (size_t i = 0; i < LAM_ARRAY_SIZE(places); i++) {
            struct lam_image *x = make(a, GUEST);
            struct lam_image *y = make(SMALL, GUEST);
            const uint8_t other = guest[places[i].at] ^ 0x80;

            assert_int_equal(lam_image_write(y, &other, 1, places[i].at, 0,
                                             NULL), 0);
            struct lam_compare_result r = compare(x, y, 0);
            if (r.verdict != LAM_COMPARE_CONTENT ||
                r.offset != places[i].sector)
                fail_msg("shape %d, %s: %d at %llu", a, places[i].name,
                         r.verdict, (unsigned long long)r.offset);
            assert_false(r.beyond_end);
            lam_image_close(x, NULL);
            lam_image_close(y, NULL);
        }
    }
}

/* Whatever order the workers finish in. */
static void test_lowest_offset_wins(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct lam_image *x = make(RAW, GUEST);
        struct lam_image *y = make(LARGE, GUEST);
        uint64_t first = (uint64_t)round * 131 * 512;

        for (uint64_t at = first; at < GUEST; at += 100 * KIB) {
            const uint8_t other = guest[at] ^ 1;
            lam_image_write(y, &other, 1, at, 0, NULL);
        }
        assert_int_equal(compare(x, y, 0).offset, first);
        assert_int_equal(compare(y, x, 0).offset, first);
        lam_image_close(x, NULL);
        lam_image_close(y, NULL);
    }
}

/* -------------------------------------------------------------------- sizes */

static void test_longer_by_zeroes(void **state)
{
    struct lam_image *x = make_qcow2(GUEST, 64 * KIB, NULL);
    struct lam_image *y = make_qcow2(GUEST / 2 + 512, 64 * KIB, NULL);
    struct lam_compare_result r = compare(x, y, 0);

    (void)state;
    assert_int_equal(r.verdict, LAM_COMPARE_EQUAL);
    assert_true(r.sizes_differ);
    assert_int_equal(compare(x, y, LAM_COMPARE_STRICT).verdict,
                     LAM_COMPARE_SIZE);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

static void test_longer_by_data(void **state)
{
    struct lam_image *x = make(RAW, GUEST);
    struct lam_image *y = make(SMALL, 100 * KIB);
    struct lam_compare_result r = compare(y, x, 0);

    (void)state;
    assert_int_equal(r.verdict, LAM_COMPARE_CONTENT);
    assert_true(r.sizes_differ && r.beyond_end);
    assert_int_equal(r.offset, 100 * KIB);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

static void test_empty(void **state)
{
    struct lam_image *x = make_raw(0), *y = make_raw(0);

    (void)state;
    assert_int_equal(compare(x, y, LAM_COMPARE_STRICT).verdict,
                     LAM_COMPARE_EQUAL);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

/* -------------------------------------------------------------- strict mode */

static const struct {
    const char *name;
    bool write, compress, zero;     /* what is done to the second cluster */
} strict[] = {
    { "written as zeroes", true, false, false },
    { "compressed zeroes", true, true, false },
    { "a zero cluster", false, false, true },
};

static void test_strict_finds_allocation(void **state)
{
    static const uint8_t zeroes[64 * KIB];

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(strict); i++) {
        struct lam_image *x = make_qcow2(GUEST, 64 * KIB, NULL);
        struct lam_image *y = make_qcow2(GUEST, 64 * KIB, NULL);

        if (strict[i].write)
            lam_image_write(y, zeroes, sizeof zeroes, 64 * KIB,
                            strict[i].compress ? LAM_WRITE_COMPRESSED : 0,
                            NULL);
        if (strict[i].zero)
            lam_image_zero(y, 64 * KIB, 64 * KIB, 0, NULL);
        assert_int_equal(compare(x, y, 0).verdict, LAM_COMPARE_EQUAL);
        struct lam_compare_result r = compare(x, y, LAM_COMPARE_STRICT);
        assert_int_equal(r.verdict, LAM_COMPARE_ALLOCATION);
        assert_int_equal(r.offset, 64 * KIB);
        lam_image_close(x, NULL);
        lam_image_close(y, NULL);
    }
}

/* ------------------------------------------------------------------- errors */

static void test_unreadable(void **state)
{
    struct lam_image *x = make(SMALL, GUEST), *y = make(RAW, GUEST);
    struct lam_compare_result r;
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    /* The file shrinks under the image, which thinks it has all of it. */
    assert_int_equal(lam_io_truncate(x->io, 1024 * KIB, NULL), 0);
    assert_true(lam_image_compare(y, x, 0, NULL, NULL, &r, &err) < 0);
    assert_int_equal(r.failed_image, 2);
    assert_false(r.failed_mapping);
    assert_true(err.message[0]);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

/* Whether a worker meets the error before the difference is chance. */
static void test_difference_before_the_unreadable(void **state)
{
    struct lam_image *x = make(RAW, GUEST), *y = make(SMALL, GUEST);
    const uint8_t other = guest[1000 * KIB] ^ 1;

    (void)state;
    assert_int_equal(lam_io_truncate(x->io, 1200 * KIB, NULL), 0);
    lam_image_write(y, &other, 1, 1000 * KIB, 0, NULL);
    for (int round = 0; round < 20; round++)
        assert_int_equal(compare(x, y, 0).offset, 1000 * KIB);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

static uint64_t last_done;

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    assert_true(done >= last_done && done <= total);
    last_done = done;
}

static void test_progress_never_goes_back(void **state)
{
    struct lam_image *x = make(RAW, GUEST), *y = make(DEFLATE, GUEST);
    struct lam_compare_result r;

    (void)state;
    last_done = 0;
    assert_int_equal(lam_image_compare(x, y, 0, on_progress, NULL, &r, NULL),
                     0);
    assert_true(last_done > GUEST / 2);
    lam_image_close(x, NULL);
    lam_image_close(y, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_are_equal),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_lowest_offset_wins),
        cmocka_unit_test(test_longer_by_zeroes),
        cmocka_unit_test(test_longer_by_data),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_strict_finds_allocation),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_difference_before_the_unreadable),
        cmocka_unit_test(test_progress_never_goes_back),
    };
    fill_guest();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

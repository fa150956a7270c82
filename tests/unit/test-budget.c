/* SPDX-License-Identifier: MIT */
/*
 * test-budget.c - memory for metadata stays within what was asked for, and
 * bytes of zero that are written become zero clusters.
 */
#include "unit.h"

#include <string.h>

#include "format/qcow2/qcow2.h"
#include "image/image.h"

enum { PLACES = 512 };

static const uint64_t STEP = 16 * LAM_MIB;

static struct lam_io *create(uint64_t size)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    o.format = "qcow2";
    o.size = size;
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, &err), 0);
    if (format_qcow2.create(io, NULL, &o, &err) < 0)
        fail_msg("%s", err.message);
    return io;
}

static struct lam_image *open_image(struct lam_io *io,
                                    const struct lam_open_options *o)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (image_open_io(io, "qcow2", o, NULL, &image, &err) < 0)
        fail_msg("%s", err.message);
    return image;
}

static const struct budget_case {
    uint64_t budget, entry_size;    /* bytes; 0: not said */
    uint64_t limit;             /* what the cache may take */
    uint64_t slice;
} budget_cases[] = {
    { 0, 0, 32 * LAM_MIB, 65536 },
    { 1, 0, 8 * 4096, 4096 },
    { 65536, 0, 65536, 4096 },
    { 256 * LAM_KIB, 0, 256 * LAM_KIB, 4096 },
    { 256 * LAM_KIB, 512, 256 * LAM_KIB, 512 },
    { 4 * LAM_MIB, 0, 4 * LAM_MIB, 65536 },
};

static void check_memory(const struct lam_image *image,
                         const struct budget_case *c)
{
    const struct qcow2 *q = image->format;
    uint64_t bytes = q->l2.count * q->l2.slice_size;

    assert_int_equal(q->l2.slice_size, c->slice);
    if (bytes > c->limit)
        fail_msg("%llu bytes of L2 slices, budget %llu",
                 (unsigned long long)bytes, (unsigned long long)c->budget);
}

static void run_budget_case(const struct budget_case *c)
{
    struct lam_io *disk = create(PLACES * STEP);
    struct format_open o = { .io = disk, .l2_cache_size = c->budget,
                             .l2_entry_size = c->entry_size };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_extents extents = LAM_EXTENTS_INIT;

    for (int writable = 1; writable >= 0; writable--) {
        struct lam_image image = { .ops = &format_qcow2 };

        o.writable = writable;
        if (format_qcow2.open(&o, &image.format, &err) < 0)
            fail_msg("%s", err.message);
        for (uint64_t i = 0; i < PLACES; i++) {
            struct format_allocation a;

            if (!writable) {
                assert_int_equal(qcow2_map(image.format, i * STEP, STEP,
                                           &extents, &err), 0);
                continue;
            }
            assert_int_equal(qcow2_write_begin(image.format, i * STEP, 65536,
                                               &a, &err), 0);
            assert_int_equal(qcow2_write_finish(image.format, &a, &err), 0);
        }
        check_memory(&image, c);
        assert_int_equal(format_qcow2.close(image.format, &err), 0);
    }
    lam_extents_deinit(&extents);
    lam_io_close(disk);
}

static void test_budget(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(budget_cases); i++)
        run_budget_case(&budget_cases[i]);
}

static void test_entry_size(void **state)
{
    static const uint64_t bad[] = { 256, 5000, 131072 };
    struct lam_io *disk = create(LAM_MIB);
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(bad); i++) {
        struct format_open o = { .io = disk, .l2_entry_size = bad[i] };
        void *format;

        assert_int_equal(format_qcow2.open(&o, &format, &err), -EINVAL);
    }
    lam_io_close(disk);
}

static const struct detect_case {
    enum lam_detect_zeroes mode;
    unsigned flags;             /* of the write */
    enum lam_extent_state state;
    bool owns;                  /* it keeps its host cluster */
} detect_cases[] = {
    { LAM_DETECT_ZEROES_OFF, 0, LAM_EXTENT_DATA, true },
    { LAM_DETECT_ZEROES_ON, 0, LAM_EXTENT_ZERO, true },
    { LAM_DETECT_ZEROES_ON, LAM_WRITE_FUA, LAM_EXTENT_ZERO, true },
    { LAM_DETECT_ZEROES_UNMAP, 0, LAM_EXTENT_ZERO, false },
};

static void run_detect_case(const struct detect_case *c)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    static uint8_t buf[65536];

    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.detect_zeroes = c->mode;
    struct lam_image *image = open_image(create(LAM_MIB), &o);
    memset(buf, 1, sizeof buf);
    assert_int_equal(lam_image_write(image, buf, sizeof buf, 0, 0, &err), 0);
    memset(buf, 0, sizeof buf);
    assert_int_equal(lam_image_write(image, buf, sizeof buf, 0, c->flags,
                                     &err), 0);
    assert_int_equal(lam_image_map(image, 0, sizeof buf, 1, 0, &extents,
                                   &err), 0);
    assert_int_equal(extents.items[0].state, c->state);
    assert_int_equal(!!(extents.items[0].flags & LAM_EXTENT_HAS_HOST),
                     c->owns);
    lam_extents_deinit(&extents);
    /* One byte that is not zero: data, as ever. */
    buf[65535] = 1;
    assert_int_equal(lam_image_write(image, buf, sizeof buf, 65536, 0, &err),
                     0);
    assert_int_equal(lam_image_map(image, 65536, sizeof buf, 1, 0, &extents,
                                   &err), 0);
    assert_int_equal(extents.items[0].state, LAM_EXTENT_DATA);
    lam_extents_deinit(&extents);
    assert_int_equal(lam_image_close(image, &err), 0);
}

static void test_detect_zeroes(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(detect_cases); i++)
        run_detect_case(&detect_cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_entry_size),
        cmocka_unit_test(test_detect_zeroes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

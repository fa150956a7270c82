/* SPDX-License-Identifier: MIT */
/*
 * test-image.c - qcow2 over what is below it, through the image layer.
 *
 * Everything lives in memory objects; each guest is held against an array.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "io/record.h"

enum { KIB = 1024, GUEST_MAX = 4096 * KIB };

static uint8_t model[GUEST_MAX];
static uint8_t scratch[GUEST_MAX];

static struct lam_image *make_raw(uint64_t size, uint8_t seed)
{
    struct lam_io *io;
    struct lam_image *image;
    memset(scratch, 0, sizeof scratch);
    for (uint64_t i = 0; i < size; i++)
        scratch[i] = (uint8_t)(seed + i % 239 + i / 4096);
    assert_int_equal(lam_io_memory_new(scratch, size, &io, NULL), 0);
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &image, NULL), 0);
    return image;
}

/* The guest to compare with starts as this one. */
static struct lam_image *make_base(uint64_t size, uint8_t seed)
{
    struct lam_image *image = make_raw(size, seed);
    memcpy(model, scratch, sizeof model);
    return image;
}

static struct lam_create_options layout(unsigned version, uint64_t cluster_size,
                                        bool extended)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    o.format = "qcow2";
    o.version = version;
    o.cluster_size = cluster_size;
    o.extended_l2 = extended;
    return o;
}

static struct lam_image *make_overlay(struct lam_create_options o,
                                      uint64_t size, struct lam_image *below)
{
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    o.size = size;
    if (below) {
        o.backing_file = "below";
        o.backing_format = "raw";
    }
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, NULL), 0);
    if (format_qcow2.create(io, NULL, &o, &err) < 0)
        fail_msg("%s", err.message);
    open.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    if (image_open_io(io, "qcow2", &open, below, &image, &err) < 0)
        fail_msg("%s", err.message);
    return image;
}

static void check_content(struct lam_image *image)
{
    uint64_t size = lam_image_size(image);
    struct lam_error err = LAM_ERROR_INIT;
    memset(scratch, 0xcc, size);
    if (lam_image_read(image, scratch, size, 0, &err) < 0)
        fail_msg("%s", err.message);
    assert_memory_equal(scratch, model, size);
    for (uint64_t at = 3; at < size; at += 41 * KIB + 5) {
        uint64_t n = min_u64(70 * KIB + 1, size - at);
        assert_int_equal(lam_image_read(image, scratch, n, at, NULL), 0);
        assert_memory_equal(scratch, model + at, n);
    }
}

static void write_byte(struct lam_image *image, uint64_t offset,
                       uint64_t length, uint8_t byte)
{
    struct lam_error err = LAM_ERROR_INIT;
    memset(model + offset, byte, length);
    if (lam_image_write(image, model + offset, length, offset, 0, &err) < 0)
        fail_msg("%s", err.message);
}

static void zero(struct lam_image *image, uint64_t offset, uint64_t length)
{
    struct lam_error err = LAM_ERROR_INIT;
    memset(model + offset, 0, length);
    if (lam_image_zero(image, offset, length, 0, &err) < 0)
        fail_msg("%s", err.message);
}

static void check_sound(struct lam_image *image)
{
    struct lam_check_result result;
    struct lam_error err = LAM_ERROR_INIT;
    /* What the first flush sets free the second one counts as free. */
    assert_int_equal(lam_image_flush(image, &err), 0);
    assert_int_equal(lam_image_flush(image, &err), 0);
    if (lam_image_check(image, NULL, NULL, &result, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(result.corruptions, 0);
    assert_int_equal(result.leaks, 0);
    assert_int_equal(result.check_errors, 0);
}

static const struct {
    const char *name;
    unsigned version;
    uint64_t cluster_size;
    bool extended;
    uint64_t below, size;       /* below 0: no backing file */
} shapes[] = {
    { "no backing file", 3, 65536, false, 0, 1000 * KIB },
    { "same size", 3, 65536, false, 1024 * KIB, 1024 * KIB },
    { "longer", 3, 65536, false, 700 * KIB + 512, 1024 * KIB },
    { "shorter", 3, 65536, false, 1024 * KIB, 700 * KIB + 512 },
    { "version 2, longer", 2, 65536, false, 700 * KIB + 512, 1024 * KIB },
    { "version 2 alone", 2, 4096, false, 0, 100 * KIB },
    { "smallest clusters", 3, 512, false, 90 * KIB + 512, 100 * KIB },
    { "largest clusters", 3, 2048 * KIB, false, 3000 * KIB, 3500 * KIB + 512 },
    { "subclusters", 3, 65536, true, 700 * KIB + 512, 1024 * KIB },
    { "subclusters alone", 3, 16384, true, 0, 1000 * KIB },
};

static void change_at(struct lam_image *image, uint64_t at, uint64_t n,
                      unsigned step)
{
    uint64_t size = lam_image_size(image);
    if (at >= size)
        return;
    n = min_u64(n, size - at);
    if (step % 3 == 2)
        zero(image, at, n);
    else
        write_byte(image, at, n, (uint8_t)(0xa0 + step));
}

static void test_shapes(void **state)
{
    (void)state;
    static const uint64_t lengths[] = { 1, 512, 4096, 65536, 100001, 3 };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(shapes); i++) {
        struct lam_image *below = shapes[i].below
            ? make_base(shapes[i].below, (uint8_t)i) : NULL;
        if (!below)
            memset(model, 0, sizeof model);
        struct lam_image *image =
            make_overlay(layout(shapes[i].version, shapes[i].cluster_size,
                                shapes[i].extended), shapes[i].size, below);
        check_content(image);
        unsigned step = 0;
        for (uint64_t at = 100; at < shapes[i].size; at += 57 * KIB + 77) {
            change_at(image, at, lengths[step % LAM_ARRAY_SIZE(lengths)], step);
            step++;
        }
        /* Around the end of what is below, and the end of the disk. */
        change_at(image, shapes[i].below - min_u64(shapes[i].below, 100), 200,
                  0);
        change_at(image, shapes[i].size - 1, 1, 1);
        check_content(image);
        check_sound(image);
        assert_int_equal(lam_image_close(image, NULL), 0);
    }
}

/* Three layers, each smaller or larger than the one below. */
static void test_three_layers(void **state)
{
    (void)state;
    struct lam_image *base = make_base(900 * KIB, 9);
    struct lam_image *middle = make_overlay(layout(3, 65536, false), 600 * KIB,
                                            base);
    write_byte(middle, 100 * KIB, 150 * KIB, 1);
    zero(middle, 300 * KIB, 65536);
    memset(model + 600 * KIB, 0, GUEST_MAX - 600 * KIB);
    struct lam_image *top = make_overlay(layout(3, 4096, false), 1200 * KIB,
                                         middle);
    assert_int_equal(image_depth(top), 3);
    check_content(top);
    write_byte(top, 90 * KIB + 1, 20 * KIB, 2);
    write_byte(top, 599 * KIB, 3 * KIB, 3);
    write_byte(top, 1100 * KIB + 7, 9, 4);
    check_content(top);
    check_sound(top);
    assert_int_equal(lam_image_close(top, NULL), 0);
}

static void test_discard(void **state)
{
    (void)state;
    struct lam_image *image = make_overlay(layout(3, 65536, false), 1024 * KIB,
                                           make_base(1024 * KIB, 3));
    write_byte(image, 0, 256 * KIB, 1);
    assert_int_equal(lam_image_discard(image, 1, 200 * KIB, NULL), 0);
    memset(model + 64 * KIB, 0, 128 * KIB);     /* whole clusters inside */
    check_content(image);
    check_sound(image);
    /* Without being asked for at opening it does nothing. */
    image->unmap = false;
    assert_int_equal(lam_image_discard(image, 512 * KIB, 65536, NULL), 0);
    check_content(image);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void test_compressed(void **state)
{
    (void)state;
    struct lam_image *image = make_overlay(layout(3, 65536, false),
                                           1000 * KIB, NULL);
    struct lam_error err = LAM_ERROR_INIT;
    memset(model, 0, sizeof model);
    for (uint64_t i = 0; i < 1000 * KIB; i++)
        model[i] = (uint8_t)(i / 100);
    if (lam_image_write(image, model, 1000 * KIB, 0, LAM_WRITE_COMPRESSED,
                        &err) < 0)
        fail_msg("%s", err.message);
    check_content(image);
    assert_int_equal(lam_image_write(image, model, 512, 0,
                                     LAM_WRITE_COMPRESSED, NULL), -EINVAL);
    assert_int_equal(lam_image_write(image, model, 65536, 512,
                                     LAM_WRITE_COMPRESSED, NULL), -EINVAL);
    /* Part of one is changed: it is stored plain then. */
    write_byte(image, 70 * KIB, 10, 0xff);
    zero(image, 200 * KIB, 7 * KIB);
    check_content(image);
    check_sound(image);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static const struct {
    unsigned version;
    uint64_t cluster_size, below, before, after;
} growths[] = {
    { 3, 65536, 0, 100 * KIB, 200 * KIB },
    { 3, 65536, 1000 * KIB, 512 * KIB, 800 * KIB },
    { 3, 65536, 1000 * KIB, 500 * KIB, 510 * KIB },
    { 3, 65536, 1000 * KIB, 500 * KIB, 2000 * KIB },
    { 3, 512, 100 * KIB, 30 * KIB, 400 * KIB },
    { 2, 65536, 1000 * KIB, 500 * KIB, 800 * KIB },
    { 3, 65536, 300 * KIB, 500 * KIB, 800 * KIB },
};

/* A larger disk is zero where it was not before, whatever is below. */
static void test_growth(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(growths); i++) {
        struct lam_image *below = growths[i].below
            ? make_base(growths[i].below, 77) : NULL;
        if (!below)
            memset(model, 0, sizeof model);
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_image *image =
            make_overlay(layout(growths[i].version, growths[i].cluster_size,
                                false), growths[i].before, below);
        write_byte(image, 10 * KIB, 5000, 0x55);
        memset(model + growths[i].before, 0, GUEST_MAX - growths[i].before);
        if (lam_image_truncate(image, growths[i].after, 0, &err) < 0)
            fail_msg("%s", err.message);
        assert_int_equal(lam_image_size(image), growths[i].after);
        check_content(image);
        write_byte(image, growths[i].after - 700, 600, 0x56);
        check_content(image);
        check_sound(image);
        assert_int_equal(lam_image_truncate(image, 1000, 0, NULL), -EINVAL);
        assert_int_equal(lam_image_truncate(image, growths[i].after + 1, 0,
                                            NULL), -EINVAL);
        assert_int_equal(lam_image_close(image, NULL), 0);
    }
}

/* The new area is zero whenever the power fails while the disk grows. */
static void test_growth_crash(void **state)
{
    (void)state;
    enum { BEFORE = 500 * KIB, AFTER = 900 * KIB };
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_create_options c = layout(3, 65536, false);
    struct lam_io *disk, *io, *crashed;
    struct lam_image *image;
    static uint8_t bytes[512 * KIB];
    uint64_t length;
    size_t count;

    c.size = BEFORE;
    c.backing_file = "below";
    c.backing_format = "raw";
    assert_int_equal(lam_io_memory_new(NULL, 0, &disk, NULL), 0);
    assert_int_equal(format_qcow2.create(disk, NULL, &c, NULL), 0);
    assert_int_equal(lam_io_size(disk, &length, NULL), 0);
    assert_int_equal(lam_io_read(disk, bytes, length, 0, NULL), 0);
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(image_open_io(io, "qcow2", &o, make_base(1000 * KIB, 5),
                                   &image, NULL), 0);
    assert_int_equal(lam_image_truncate(image, AFTER, 0, NULL), 0);
    lam_io_record_events(io, &count);
    memset(model + BEFORE, 0, GUEST_MAX - BEFORE);
    for (size_t n = 0; n <= count; n++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct lam_image *after;
            assert_int_equal(lam_io_record_replay(io, n, seed, bytes, length,
                                                  &crashed, NULL), 0);
            assert_int_equal(image_open_io(crashed, "qcow2", NULL,
                                           make_raw(1000 * KIB, 5), &after,
                                           NULL), 0);
            assert_true(lam_image_size(after) == BEFORE
                        || lam_image_size(after) == AFTER);
            check_content(after);
            lam_image_close(after, NULL);
        }
    }
    assert_true(count > 4);
    assert_int_equal(lam_image_close(image, NULL), 0);
    lam_io_close(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_three_layers),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_growth_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * test-raw.c - raw disks: sizes, holes, windows, the guarded first sector.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/image.h"

static char path[] = "/var/tmp/lamella-raw-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void fill_file(uint64_t length)
{
    lam_autofree uint8_t *bytes = malloc(length + 1);
    lam_autoclose int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0 && bytes);
    for (uint64_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)(1 + i % 251);
    assert_int_equal(write(fd, bytes, length), length);
}

static struct lam_image *open_raw(const char *name, unsigned flags)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    o.flags = flags;
    o.format = strncmp(name, "json:", 5) ? "raw" : NULL;
    if (lam_image_open(name, &o, &image, &err) < 0)
        fail_msg("%s", err.message);
    return image;
}

static const struct { uint64_t length, size; } size_cases[] = {
    { 0, 0 }, { 1, 512 }, { 511, 512 }, { 512, 512 }, { 513, 1024 },
    { 100000, 100352 },
};

static void test_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(size_cases); i++) {
        uint64_t length = size_cases[i].length, size = size_cases[i].size;
        fill_file(length);
        struct lam_image *image = open_raw(path, 0);
        assert_int_equal(lam_image_size(image), size);
        assert_string_equal(lam_image_format(image), "raw");
        assert_int_equal(lam_image_cluster_size(image), 0);

        /* What the last sector lacks is zero. */
        lam_autofree uint8_t *bytes = malloc(size + 1);
        memset(bytes, 0xcc, size + 1);
        assert_int_equal(lam_image_read(image, bytes, size, 0, NULL), 0);
        for (uint64_t b = 0; b < size; b++)
            assert_int_equal(bytes[b], b < length ? 1 + b % 251 : 0);
        assert_int_equal(lam_image_read(image, bytes, 1, size, NULL), -EINVAL);
        lam_image_close(image, NULL);
    }
}

/* The map splits where the file really ends. */
static void test_map_end(void **state)
{
    (void)state;
    struct lam_extents out = LAM_EXTENTS_INIT;
    fill_file(100000);
    struct lam_image *image = open_raw(path, 0);
    assert_int_equal(lam_image_map(image, 0, 100352, 1, 0, &out, NULL), 0);
    assert_true(out.count >= 2);
    struct lam_extent *last = &out.items[out.count - 1];
    assert_int_equal(last->state, LAM_EXTENT_ZERO);
    assert_int_equal(last->offset + last->length, 100352);
    assert_true(last->offset >= 100000 - 4096 && last->offset <= 100000);
    for (size_t i = 0; i < out.count; i++)
        assert_int_equal(out.items[i].host_offset, out.items[i].offset);
    lam_extents_deinit(&out);
    lam_image_close(image, NULL);
}

static void test_write_grows_into_the_sector(void **state)
{
    (void)state;
    fill_file(1000);
    struct lam_image *image = open_raw(path, LAM_OPEN_WRITE);
    uint8_t byte = 7, got[1024];
    assert_int_equal(lam_image_write(image, &byte, 1, 1023, 0, NULL), 0);
    assert_int_equal(lam_image_write(image, &byte, 1, 1024, 0, NULL), -EINVAL);
    assert_int_equal(lam_image_read(image, got, 1024, 0, NULL), 0);
    assert_int_equal(got[999], 1 + 999 % 251);
    assert_int_equal(got[1000], 0);
    assert_int_equal(got[1023], 7);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void window_name(char *name, size_t size, unsigned offset,
                        unsigned length)
{
    snprintf(name, size, "json:{\"driver\":\"raw\",\"offset\":%u,\"size\":%u,"
             "\"file\":{\"driver\":\"file\",\"filename\":\"%s\"}}",
             offset, length, path);
}

static void test_window(void **state)
{
    (void)state;
    char name[256];
    uint8_t bytes[2048];
    struct lam_extents out = LAM_EXTENTS_INIT;

    fill_file(8192);
    window_name(name, sizeof name, 1024, 2048);
    struct lam_image *image = open_raw(name, LAM_OPEN_WRITE);
    assert_int_equal(lam_image_size(image), 2048);
    assert_int_equal(lam_image_read(image, bytes, 2048, 0, NULL), 0);
    for (unsigned i = 0; i < 2048; i++)
        assert_int_equal(bytes[i], 1 + (1024 + i) % 251);
    assert_int_equal(lam_image_map(image, 0, 2048, 1, 0, &out, NULL), 0);
    assert_int_equal(out.items[0].host_offset, 1024);
    assert_int_equal(lam_image_truncate(image, 4096, 0, NULL), -ENOTSUP);
    lam_extents_deinit(&out);

    /* Nothing outside the window changes. */
    assert_int_equal(lam_image_zero(image, 0, 2048, 0, NULL), 0);
    assert_int_equal(lam_image_close(image, NULL), 0);
    image = open_raw(path, 0);
    uint8_t all[8192];
    assert_int_equal(lam_image_read(image, all, 8192, 0, NULL), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(all[i], i >= 1024 && i < 3072 ? 0 : 1 + i % 251);
    lam_image_close(image, NULL);
}

static const struct { unsigned offset, size; } bad_windows[] = {
    { 9000, 0 }, { 0, 8704 }, { 4096, 4608 }, { 0, 1000 },
};

static void test_bad_windows(void **state)
{
    (void)state;
    fill_file(8192);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(bad_windows); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_image *image;
        char name[256];
        window_name(name, sizeof name, bad_windows[i].offset,
                    bad_windows[i].size);
        assert_int_equal(lam_image_open(name, NULL, &image, &err), -EINVAL);
    }
}

/* A disk that was guessed to be raw does not turn into another format. */
static void test_guard(void **state)
{
    (void)state;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    uint8_t magic[512] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 3 };
    struct lam_image *image;

    fill_file(8192);
    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(lam_image_open(path, &o, &image, NULL), 0);
    assert_string_equal(lam_image_format(image), "raw");
    assert_int_equal(lam_image_write(image, magic, 512, 0, 0, NULL), -EPERM);
    assert_int_equal(lam_image_write(image, magic, 512, 512, 0, NULL), 0);
    /* Not in two steps either. */
    assert_int_equal(lam_image_write(image, magic + 4, 508, 4, 0, NULL), 0);
    assert_int_equal(lam_image_write(image, magic, 4, 0, 0, NULL), -EPERM);
    assert_int_equal(lam_image_close(image, NULL), 0);

    image = open_raw(path, LAM_OPEN_WRITE);
    assert_int_equal(lam_image_write(image, magic, 512, 0, 0, NULL), 0);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void test_truncate(void **state)
{
    (void)state;
    fill_file(8192);
    struct lam_image *image = open_raw(path, LAM_OPEN_WRITE);
    assert_int_equal(lam_image_truncate(image, 16384, 0, NULL), 0);
    assert_int_equal(lam_image_size(image), 16384);
    assert_int_equal(lam_image_truncate(image, 4096, 0, NULL), -EINVAL);
    assert_int_equal(lam_image_truncate(image, 4096, LAM_TRUNCATE_SHRINK,
                                        NULL), 0);
    assert_int_equal(lam_image_size(image), 4096);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void test_create(void **state)
{
    (void)state;
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    fill_file(8192);
    o.format = "raw";
    o.size = 1000;
    o.preallocation = LAM_PREALLOC_METADATA;
    assert_int_equal(lam_image_create(path, &o, &err), -EINVAL);
    struct lam_image *image = open_raw(path, 0);
    assert_int_equal(lam_image_size(image), 8192);
    lam_image_close(image, NULL);

    static const enum lam_preallocation modes[] = {
        LAM_PREALLOC_OFF, LAM_PREALLOC_FALLOC, LAM_PREALLOC_FULL,
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(modes); i++) {
        uint8_t bytes[1024], zeroes[1024] = { 0 };
        fill_file(8192);
        o.preallocation = modes[i];
        assert_int_equal(lam_image_create(path, &o, &err), 0);
        image = open_raw(path, 0);
        assert_int_equal(lam_image_size(image), 1024);
        assert_int_equal(lam_image_read(image, bytes, 1024, 0, NULL), 0);
        assert_memory_equal(bytes, zeroes, 1024);
        lam_image_close(image, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_map_end),
        cmocka_unit_test(test_write_grows_into_the_sector),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_bad_windows),
        cmocka_unit_test(test_guard),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_create),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}

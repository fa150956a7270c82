/* SPDX-License-Identifier: MIT */
/*
 * test-arguments.c - what public functions refuse before they do anything:
 * flags that they do not know, values that an enum does not have.
 */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lamella.h"

enum { SIZE = 1 << 20, UNKNOWN = 1 << 30 };

static char folder[] = "/tmp/lamella-arguments-XXXXXX";
static char path[64], other[64];
static struct lam_image *image;
static struct lam_error err;

static void refused(int rc)
{
    assert_int_equal(rc, -EINVAL);
    assert_int_equal(err.code, EINVAL);
    assert_true(*err.message);
    memset(&err, 0, sizeof err);
}

static struct lam_create_options layout(void)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

    o.format = "qcow2";
    o.size = SIZE;
    return o;
}

static int setup(void **state)
{
    (void)state;
    struct lam_create_options o = layout();
    struct lam_open_options how = LAM_OPEN_OPTIONS_INIT;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.qcow2", folder);
    snprintf(other, sizeof other, "%s/b.qcow2", folder);
    how.flags = LAM_OPEN_WRITE | LAM_OPEN_CHECK;
    assert_int_equal(lam_image_create(path, &o, NULL), 0);
    return lam_image_open(path, &how, &image, NULL);
}

static int teardown(void **state)
{
    (void)state;
    int rc = lam_image_close(image, NULL);
    unlink(path);
    return rmdir(folder) < 0 ? -1 : rc;
}

static void test_flags_of_requests(void **state)
{
    (void)state;
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_check_result found;
    struct lam_compare_result verdict;
    char buf[512] = { 0 };

    refused(lam_image_write(image, buf, sizeof buf, 0, UNKNOWN, &err));
    refused(lam_image_write(image, buf, sizeof buf, 0, LAM_ZERO_UNMAP, &err));
    refused(lam_image_zero(image, 0, SIZE, UNKNOWN, &err));
    refused(lam_image_zero(image, 0, SIZE, LAM_WRITE_COMPRESSED, &err));
    refused(lam_image_resize(image, 2 * SIZE, LAM_PREALLOC_OFF, UNKNOWN, &err));
    refused(lam_image_truncate(image, 2 * SIZE, UNKNOWN, &err));
    refused(lam_image_map(image, 0, SIZE, 1, UNKNOWN, &extents, &err));
    refused(lam_image_map(image, 0, SIZE, 0, 0, &extents, &err));
    refused(lam_image_bitmap_add(image, "b", 0, UNKNOWN, &err));
    refused(lam_image_repair(image, UNKNOWN, NULL, NULL, &found, &err));
    refused(lam_image_compare(image, image, UNKNOWN, NULL, NULL, &verdict,
                              &err));
    assert_int_equal(extents.count, 0);
    assert_int_equal(lam_image_size(image), SIZE);
    assert_int_equal(lam_image_map(image, 0, SIZE, 1, 0, &extents, NULL), 0);
    assert_int_equal(extents.count, 1);
    assert_int_equal(extents.items[0].state, LAM_EXTENT_UNALLOCATED);
    lam_extents_deinit(&extents);
}

static void test_choices(void **state)
{
    (void)state;
    struct lam_amend_options amend = LAM_AMEND_OPTIONS_INIT;
    struct lam_create_options create = layout();

    amend.lazy_refcounts = 3;
    refused(lam_image_amend(image, &amend, &err));
    amend.lazy_refcounts = LAM_SETTING_KEEP;
    amend.data_file_raw = 3;
    refused(lam_image_amend(image, &amend, &err));
    refused(lam_image_resize(image, 2 * SIZE, 4, 0, &err));
    create.preallocation = 4;
    refused(lam_image_create(other, &create, &err));
    create = layout();
    create.policy = 3;
    refused(lam_image_create(other, &create, &err));
    assert_int_equal(access(other, F_OK), -1);
}

static void test_opening(void **state)
{
    (void)state;
    const struct lam_open_options plain = LAM_OPEN_OPTIONS_INIT;
    struct lam_open_options cases[] = { plain, plain, plain, plain };

    cases[0].flags = UNKNOWN;
    cases[1].cache = LAM_CACHE_UNSAFE + 1;
    cases[2].policy = LAM_POLICY_NONE + 1;
    cases[3].detect_zeroes = LAM_DETECT_ZEROES_UNMAP + 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lam_image *out = image;
        refused(lam_image_open(path, &cases[i], &out, &err));
        assert_null(out);
    }
}

static void test_conversion(void **state)
{
    (void)state;
    struct lam_convert_options how = LAM_CONVERT_OPTIONS_INIT;

    refused(lam_convert(&image, 1, image, &how, NULL, &err));
    how.flags = UNKNOWN;
    refused(lam_convert(NULL, 0, image, &how, NULL, &err));
    refused(lam_convert_to_fd(&image, 1, STDOUT_FILENO, &how, NULL, &err));
}

/* poll() waits for ever for a descriptor below zero. */
static void test_no_descriptor(void **state)
{
    (void)state;
    int closed = dup(STDIN_FILENO);

    close(closed);
    assert_int_equal(lam_convert_to_fd(&image, 1, -1, NULL, NULL, &err),
                     -EBADF);
    assert_int_equal(lam_convert_to_fd(&image, 1, closed, NULL, NULL, &err),
                     -EBADF);
}

/* Extents out of a map that a change of the chain has made old. */
static void test_extent_of_a_layer_that_went(void **state)
{
    (void)state;
    const struct lam_extent extent = { .length = 1, .depth = 7 };

    assert_null(lam_image_extent_file(image, &extent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags_of_requests),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_opening),
        cmocka_unit_test(test_conversion),
        cmocka_unit_test(test_no_descriptor),
        cmocka_unit_test(test_extent_of_a_layer_that_went),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT */
/*
 * test-open.c - opening and creating chains of files: loops, limits, formats
 * that are not said, policies, what a failure leaves behind.
 */
#include "unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "image/image.h"

static char root[] = "/var/tmp/lamella-open-XXXXXX";

static int enter_directory(void **state)
{
    (void)state;
    return !mkdtemp(root) || chdir(root);
}

static int leave_directory(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", root);
    return chdir("/") || system(command);
}

static void create(const char *name, const char *format, const char *backing,
                   const char *backing_format)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    o.format = format;
    o.size = 1 << 20;
    o.backing_file = backing;
    o.backing_format = backing_format;
    o.backing_unchecked = true;
    if (lam_image_create(name, &o, &err) < 0)
        fail_msg("%s", err.message);
}

/* The backing format is forgotten: its header extension becomes an unknown
 * one. */
static void forget_format(const char *name)
{
    uint8_t head[1024];
    lam_autoclose int fd = open(name, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
    for (size_t i = 0; i + 4 <= sizeof head; i++) {
        if (be32_get(head + i) != 0xe2792aca)
            continue;
        be32_put(head + i, 0x12345678);
        assert_int_equal(pwrite(fd, head, sizeof head, 0), sizeof head);
        return;
    }
    fail_msg("no backing format in %s", name);
}

static int try_open(const char *name, const struct lam_open_options *options,
                    struct lam_error *err)
{
    struct lam_image *image;
    int rc = lam_image_open(name, options, &image, err);
    return rc < 0 ? rc : lam_image_close(image, err);
}

static void test_loops(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_error err = LAM_ERROR_INIT;
    create("self", "qcow2", "./self", "qcow2");
    assert_int_equal(try_open("self", NULL, &err), -ELOOP);
    create("a", "qcow2", "b", "qcow2");
    create("b", "qcow2", "c", "qcow2");
    create("c", "qcow2", "a", "qcow2");
    assert_int_equal(try_open("a", NULL, &err), -ELOOP);
    assert_non_null(strstr(err.message, "infinite loop"));
    /* By another name it is the same file. */
    assert_int_equal(link("self", "other"), 0);
    create("top", "qcow2", "other", "qcow2");
    assert_int_equal(try_open("top", NULL, &err), -ELOOP);
}

static void test_depth(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    create("l0", "raw", NULL, NULL);
    for (unsigned i = 1; i < 10; i++) {
        char name[16], below[16];
        snprintf(name, sizeof name, "l%u", i);
        snprintf(below, sizeof below, "l%u", i - 1);
        create(name, "qcow2", below, i == 1 ? "raw" : "qcow2");
    }
    o.max_depth = 10;
    assert_int_equal(try_open("l9", &o, &err), 0);
    o.max_depth = 9;
    assert_int_equal(try_open("l9", &o, &err), -ELOOP);
    o.flags = LAM_OPEN_NO_BACKING;
    assert_int_equal(try_open("l9", &o, &err), 0);
    o.max_depth = 1 << 20;
    assert_int_equal(try_open("l9", &o, &err), -EINVAL);
}

static void test_missing(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    assert_int_equal(try_open("nothing", NULL, &err), -ENOENT);
    assert_string_equal(err.message, "Could not open 'nothing': Could not open "
                        "'nothing': No such file or directory");
    create("m1", "qcow2", "nothing", "raw");
    create("m2", "qcow2", "m1", "qcow2");
    assert_int_equal(try_open("m2", NULL, &err), -ENOENT);
    assert_string_equal(err.message, "Could not open 'm2': Could not open "
                        "backing file: Could not open backing file: Could not "
                        "open 'nothing': No such file or directory");
    /* info needs no second file. */
    o.flags = LAM_OPEN_METADATA;
    struct lam_image *image;
    struct lam_image_info *info;
    assert_int_equal(lam_image_open("m1", &o, &image, &err), 0);
    assert_int_equal(lam_image_info(image, &info, &err), 0);
    assert_string_equal(info->backing_filename, "nothing");
    assert_string_equal(info->backing_format, "raw");
    lam_image_info_free(info);
    lam_image_close(image, NULL);
}

/* What the header does not say is looked at only so far. */
static void test_format_not_said(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_open_options trust = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    trust.policy = LAM_POLICY_TRUST;
    create("base.raw", "raw", NULL, NULL);
    create("base.qcow2", "qcow2", NULL, NULL);
    create("over-raw", "qcow2", "base.raw", "raw");
    create("over-qcow2", "qcow2", "base.qcow2", "qcow2");
    forget_format("over-raw");
    forget_format("over-qcow2");
    assert_int_equal(try_open("over-qcow2", NULL, &err), 0);
    assert_int_equal(try_open("over-raw", NULL, &err), -EINVAL);
    assert_non_null(strstr(err.message, "does not say the format"));
    assert_int_equal(try_open("over-qcow2", &trust, &err), 0);
    assert_int_equal(try_open("over-raw", &trust, &err), 0);

    /* A wrong one is not mended by looking. */
    create("wrong", "qcow2", "base.raw", "qcow2");
    assert_int_equal(try_open("wrong", &trust, &err), -EINVAL);
    create("unknown", "qcow2", "base.raw", "nosuch");
    assert_int_equal(try_open("unknown", &trust, &err), -ENOTSUP);
}

static void format_of(const char *name, enum lam_policy policy,
                      const char *format)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image_info *info;
    struct lam_image *image;

    o.policy = policy;
    assert_int_equal(lam_image_open(name, &o, &image, NULL), 0);
    assert_int_equal(lam_image_info(image, &info, NULL), 0);
    assert_string_equal(info->format, format);
    lam_image_info_free(info);
    lam_image_close(image, NULL);
}

/* Who does not trust an image is not offered every parser to attack. */
static void test_format_guessed(void **state)
{
    (void)state;
    create("image.qcow2", "qcow2", NULL, NULL);
    format_of("image.qcow2", LAM_POLICY_NONE, "qcow2");
    struct lam_format_info vdi;
    if (lam_format_describe("vdi", &vdi, NULL) < 0)
        skip();
    create("image.vdi", "vdi", NULL, NULL);
    format_of("image.vdi", LAM_POLICY_TRUST, "vdi");
    format_of("image.vdi", LAM_POLICY_SIBLINGS, "raw");
    format_of("image.vdi", LAM_POLICY_NONE, "raw");
}

static void test_data_file(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    c.format = "qcow2";
    c.size = 1 << 20;
    c.data_file = "data.raw";
    assert_int_equal(lam_image_create("with-data", &c, &err), 0);
    struct stat st;
    assert_int_equal(stat("data.raw", &st), 0);
    assert_int_equal(st.st_size, 1 << 20);

    /* A guess is not followed. */
    assert_int_equal(try_open("with-data", &o, &err), -EPERM);
    o.format = "qcow2";
    assert_int_equal(try_open("with-data", &o, &err), 0);
    o.policy = LAM_POLICY_NONE;
    assert_int_equal(try_open("with-data", &o, &err), -EPERM);
    o.policy = LAM_POLICY_SIBLINGS;
    unlink("data.raw");
    assert_int_equal(try_open("with-data", &o, &err), -ENOENT);
    o.flags = LAM_OPEN_METADATA;
    assert_int_equal(try_open("with-data", &o, &err), 0);
}

/* What is there stays if the request is wrong; what was made goes again. */
static void test_create_failures(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_create_options good = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    create("kept", "raw", NULL, NULL);
    good.format = "qcow2";
    good.size = 4096;
    struct lam_create_options bad[] = { good, good, good, good, good };
    bad[0].cluster_size = 1000;
    bad[1].backing_file = "nothing";
    bad[1].backing_format = "raw";
    bad[2].size = LAM_SIZE_FROM_BACKING;
    bad[3].format = "nosuch";
    bad[4].data_file = "missing/data";
    for (size_t i = 0; i < LAM_ARRAY_SIZE(bad); i++) {
        assert_true(lam_image_create("kept", &bad[i], &err) < 0);
        assert_int_equal(lam_image_open("kept", NULL, &image, &err), 0);
        assert_int_equal(lam_image_size(image), 1 << 20);
        lam_image_close(image, NULL);
        assert_true(lam_image_create("fresh", &bad[i], &err) < 0);
        assert_int_equal(access("fresh", F_OK), -1);
    }
    /* The data file was made before the image failed. */
    good.data_file = "fresh-data";
    assert_true(lam_image_create("missing/image", &good, &err) < 0);
    assert_int_equal(access("fresh-data", F_OK), -1);
    /* An image is not put over one that its own chain needs. */
    create("low", "qcow2", NULL, NULL);
    create("high", "qcow2", "low", "qcow2");
    good.data_file = NULL;
    good.backing_file = "high";
    good.backing_format = "qcow2";
    assert_int_equal(lam_image_create("low", &good, &err), -EINVAL);
    assert_int_equal(try_open("high", NULL, &err), 0);
}

static void test_size_from_backing(void **state)
{
    (void)state;
    needs_openat2();
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    assert_int_equal(mkdir("sub", 0700), 0);
    create("sub/base", "raw", NULL, NULL);
    o.format = "qcow2";
    o.size = LAM_SIZE_FROM_BACKING;
    o.backing_file = "base";        /* beside the new image, not beside us */
    o.backing_format = "raw";
    assert_int_equal(lam_image_create("sub/over", &o, &err), 0);
    assert_int_equal(lam_image_open("sub/over", NULL, &image, &err), 0);
    assert_int_equal(lam_image_size(image), 1 << 20);
    assert_string_equal(lam_image_name(lam_image_backing(image)), "sub/base");
    lam_image_close(image, NULL);
}

static void test_locks(void **state)
{
    (void)state;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *writer, *reader;
    create("locked", "qcow2", NULL, NULL);
    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(lam_image_open("locked", &o, &writer, &err), 0);
    assert_int_equal(try_open("locked", &o, &err), -EAGAIN);
    assert_int_equal(try_open("locked", NULL, &err), -EAGAIN);
    o.flags = LAM_OPEN_FORCE_SHARE;
    assert_int_equal(try_open("locked", &o, &err), 0);
    lam_image_close(writer, NULL);
    /* Readers stand each other. */
    assert_int_equal(lam_image_open("locked", NULL, &reader, &err), 0);
    assert_int_equal(try_open("locked", NULL, &err), 0);
    lam_image_close(reader, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loops),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_format_not_said),
        cmocka_unit_test(test_format_guessed),
        cmocka_unit_test(test_data_file),
        cmocka_unit_test(test_create_failures),
        cmocka_unit_test(test_size_from_backing),
        cmocka_unit_test(test_locks),
    };
    return cmocka_run_group_tests(tests, enter_directory, leave_directory);
}

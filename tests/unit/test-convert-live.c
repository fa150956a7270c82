/* SPDX-License-Identifier: MIT */
/*
 * test-convert-live.c - a snapshot is taken of an image while it is converted.
 *
 * What the target's backing file has is not copied: the conversion counts the
 * layers above it.  A layer that is put on top meanwhile must not be taken for
 * one of those.
 */
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PLACES = 64, BYTES = 4096 };

static const uint64_t SIZE = 64 * LAM_GIB;

static char directory[] = "test-convert-live-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = { "base", "top", "over", "target" };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        unlink(names[i]);
    return chdir("..") || rmdir(directory);
}

static void open_image(const char *name, unsigned flags, struct lam_image **out)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.flags = flags;
    o.format = "qcow2";
    assert_works(lam_image_open(name, &o, out, &err), &err);
}

static void make(const char *name, const char *backing)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.format = "qcow2";
    o.size = SIZE;
    o.backing_file = backing;
    o.backing_format = backing ? "qcow2" : NULL;
    assert_works(lam_image_create(name, &o, &err), &err);
}

static void write_places(struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t buf[BYTES];

    for (unsigned i = 0; i < PLACES; i++) {
        memset(buf, (int)i + 1, sizeof buf);
        assert_works(lam_image_write(image, buf, BYTES, i * (SIZE / PLACES), 0,
                                     &err), &err);
    }
}

static void check_places(struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t buf[BYTES];

    for (unsigned i = 0; i < PLACES; i++) {
        assert_works(lam_image_read(image, buf, BYTES, i * (SIZE / PLACES),
                                    &err), &err);
        if (buf[0] != i + 1 || memcmp(buf, buf + 1, BYTES - 1))
            fail_msg("place %u is %#x", i, buf[0]);
    }
}

/* ------------------------------------------------------------- the snapshot */

struct snapshot {
    struct lam_image *image;
    pthread_t thread;
    bool started;
    atomic_bool done;
    struct lam_error err;
    int rc;
};

static void *take(void *opaque)
{
    struct snapshot *s = opaque;

    s->rc = lam_image_snapshot_external(s->image, "over", NULL, &s->err);
    atomic_store(&s->done, true);
    return NULL;
}

/* In the middle of the conversion: give it the time that it would need if it
 * had not to wait. */
static void in_between(void *opaque, uint64_t done, uint64_t total)
{
    static const struct timespec moment = { 0, 1000000 };
    struct snapshot *s = opaque;

    if (s->started || !done || done == total)
        return;
    s->started = true;
    assert_int_equal(pthread_create(&s->thread, NULL, take, s), 0);
    for (int i = 0; i < 200 && !atomic_load(&s->done); i++)
        nanosleep(&moment, NULL);
}

static void test_snapshot(void **state)
{
    struct lam_convert_options o = LAM_CONVERT_OPTIONS_INIT;
    struct snapshot s = { .err = LAM_ERROR_INIT };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *target;

    (void)state;
    make("base", NULL);
    make("top", "base");
    make("target", "base");
    open_image("top", LAM_OPEN_WRITE, &s.image);
    write_places(s.image);
    open_image("target", LAM_OPEN_WRITE, &target);
    o.flags = LAM_CONVERT_TARGET_HAS_BACKING;
    o.workers = 1;
    o.progress = in_between;
    o.progress_opaque = &s;
    assert_works(lam_convert(&s.image, 1, target, &o, NULL, &err), &err);
    assert_true(s.started);
    pthread_join(s.thread, NULL);
    assert_works(s.rc, &s.err);
    assert_non_null(lam_image_backing(lam_image_backing(s.image)));
    check_places(s.image);
    check_places(target);
    assert_works(lam_image_close(target, &err), &err);
    assert_works(lam_image_close(s.image, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_snapshot, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

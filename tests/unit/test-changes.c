/* SPDX-License-Identifier: MIT */
/*
 * test-changes.c - what a guest changes while it is copied: noted once, taken
 * once, and no faster than the copying allows.
 */
#include "unit.h"

#include <time.h>
#include <unistd.h>

#include "image/changes.h"
#include "image/graph.h"

enum { BLOCK = 64 * 1024, BLOCKS = 16 };

static const char path[] = "test-changes.qcow2";

static struct lam_image *open_noting(void)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    create.format = open.format = "qcow2";
    create.size = BLOCKS * BLOCK;
    open.flags = LAM_OPEN_WRITE;
    unlink(path);
    assert_works(lam_image_create(path, &create, &err), &err);
    assert_works(lam_image_open(path, &open, &image, &err), &err);
    image_graph_lock(image);
    assert_works(changes_begin(image, &err), &err);
    image_graph_unlock(image);
    return image;
}

static void end(struct lam_image *image)
{
    image_graph_lock(image);
    changes_end(image);
    image_graph_unlock(image);
    lam_image_close(image, NULL);
    unlink(path);
}

static void write_at(struct lam_image *image, uint64_t offset, uint64_t length)
{
    static uint8_t buf[2 * BLOCK];
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(lam_image_write(image, buf, length, offset, 0, &err), &err);
}

static void taken_once(void **state)
{
    struct lam_image *image = open_noting();
    struct changes *c = image->changes;
    struct range r;

    (void)state;
    write_at(image, 3 * BLOCK + 512, 512);
    write_at(image, 3 * BLOCK, 512);
    write_at(image, 6 * BLOCK - 512, 1024);
    assert_int_equal(changes_total(c), 3 * BLOCK);
    assert_true(changes_take(c, 0, &r));
    assert_true(r.offset == 3 * BLOCK && r.length == BLOCK);
    assert_true(changes_take(c, range_end(r), &r));
    assert_int_equal(r.offset, 5 * BLOCK);
    assert_int_equal(changes_total(c), BLOCK);
    assert_true(changes_take(c, 0, &r));
    assert_int_equal(r.offset, 6 * BLOCK);
    assert_false(changes_take(c, 0, &r));
    end(image);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Only what is noted anew is counted, and a sleep is never too short; nothing
 * waits for ever. */
static void takes_its_time(void **state)
{
    struct lam_image *image = open_noting();
    struct changes *c = image->changes;

    (void)state;
    write_at(image, 0, 512);
    changes_pace(c, true);
    changes_allow(c, 2 * BLOCK);
    write_at(image, 512, 512);
    assert_int_equal(atomic_load(&c->allowance), 2 * BLOCK);
    write_at(image, BLOCK, 2 * BLOCK);
    assert_int_equal(atomic_load(&c->allowance), 0);
    uint64_t before = now();
    write_at(image, 5 * BLOCK, 512);
    assert_true(now() - before >= 10 * UINT64_C(1000000));
    assert_int_equal(atomic_load(&c->allowance), -BLOCK);
    changes_pace(c, false);
    assert_int_equal(atomic_load(&c->allowance), 0);
    end(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taken_once),
        cmocka_unit_test(takes_its_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

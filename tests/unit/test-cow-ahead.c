/* SPDX-License-Identifier: MIT */
/*
 * test-cow-ahead.c - copies whose old bytes were read before: that they are,
 * that the guest cannot tell, and that what is out of date is not used.
 */
#include "queue-disk.h"

#include "image/access.h"
#include "image/graph.h"

enum { CLUSTER = 65536, CLUSTERS = DISK / CLUSTER };

static struct lam_image *open_overlay(void)
{
    make("base", "raw", NULL);
    struct lam_image *base = open_named("base", "raw", LAM_OPEN_WRITE);
    fill(1);
    assert_works(lam_image_write(base, memory, DISK, 0, 0, &err), &err);
    assert_works(lam_image_close(base, &err), &err);
    make("disk", "qcow2", "base");
    return open_named("disk", "qcow2", LAM_OPEN_WRITE);
}

static void write_block(struct lam_image *image, uint64_t cluster,
                        unsigned at)
{
    static uint8_t block[BLOCK] __attribute__((aligned(BLOCK)));
    uint64_t offset = cluster * CLUSTER + at * BLOCK;

    memset(block, (int)(0x80 + cluster), BLOCK);
    memcpy(memory + offset, block, BLOCK);
    assert_works(lam_image_write(image, block, BLOCK, offset, 0, &err), &err);
}

/* In the middle of a cluster. */
static void write_into(struct lam_image *image, uint64_t cluster)
{
    write_block(image, cluster, 5);
}

static void read_back(struct lam_image *image)
{
    uint8_t *now = aligned_alloc(BLOCK, DISK);

    assert_non_null(now);
    assert_works(lam_image_read(image, now, DISK, 0, &err), &err);
    assert_memory_equal(now, memory, DISK);
    free(now);
}

/* What was guessed has been read, or given up. */
static enum cow_ahead_state settle(struct lam_image *image)
{
    struct cow_ahead *a = &image->ahead;

    for (;;) {
        pthread_mutex_lock(&a->lock);
        enum cow_ahead_state state = a->state;
        if (state == COW_AHEAD_READING)
            pthread_cond_wait(&a->ended, &a->lock);
        pthread_mutex_unlock(&a->lock);
        if (state != COW_AHEAD_READING && state != COW_AHEAD_ASKED)
            return state;
        sched_yield();
    }
}

static uint64_t write_strided(uint64_t first, uint64_t step, unsigned count)
{
    struct lam_image *image = open_overlay();

    for (uint64_t i = 0; i < count; i++) {
        write_into(image, first + i * step);
        settle(image);
    }
    uint64_t used = image->ahead.used;
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
    return used;
}

/* Three copies make a pattern, whichever way it goes; all but these and the
 * one that makes it known are read ahead. */
static void test_strides(void **state)
{
    (void)state;
    if (!has_direct) {
        print_message("SKIP: no O_DIRECT in this directory\n");
        skip();
    }
    assert_int_equal(write_strided(0, 1, CLUSTERS), CLUSTERS - 4);
    assert_int_equal(write_strided(0, 3, 5), 1);
    assert_int_equal(write_strided(CLUSTERS - 1, UINT64_MAX, CLUSTERS),
                     CLUSTERS - 4);
    assert_int_equal(write_strided(0, 1, 3), 0);
}

/* Guesses that come to nothing become rare: three in a row are no pattern any
 * more when the last ones are written. */
static void test_no_pattern(void **state)
{
    static const unsigned order[] = { 0, 1, 2, 3, 8, 9, 10, 11, 14,
                                      4, 5, 6, 7 };
    struct lam_image *image = open_overlay();

    (void)state;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        write_into(image, order[i]);
        settle(image);
    }
    assert_true(!has_direct || image->ahead.in_vain == 1);
    assert_int_equal(image->ahead.used, 0);
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
}

static void change_base(uint64_t cluster)
{
    int fd = open("base", O_WRONLY);

    memset(memory + cluster * CLUSTER, 0x11, CLUSTER);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, memory + cluster * CLUSTER, CLUSTER,
                            (off_t)(cluster * CLUSTER)), CLUSTER);
    close(fd);
}

/* A job has changed the layers: their bytes are read again. */
static void test_change(void **state)
{
    struct lam_image *image = open_overlay();

    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        write_into(image, i);
    assert_int_equal(settle(image),
                     has_direct ? COW_AHEAD_READY : COW_AHEAD_NOTHING);
    image_graph_lock(image);
    image_graph_begin_change(image);
    change_base(4);
    image_graph_end_change(image);
    image_graph_unlock(image);
    write_into(image, 4);
    assert_int_equal(image->ahead.used, 0);
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
}

/* The bytes are below, and the top has them by now. */
static void test_written_meanwhile(void **state)
{
    struct lam_image *image = open_overlay();

    (void)state;
    for (uint64_t i = 0; i < 4; i++)
        write_into(image, i);
    settle(image);
    memset(memory + 4 * CLUSTER, 0x22, CLUSTER);
    assert_works(lam_image_write(image, memory + 4 * CLUSTER, CLUSTER,
                                 4 * CLUSTER, 0, &err), &err);
    write_into(image, 4);
    write_into(image, 5);
    assert_int_equal(image->ahead.used, 0);
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
}

/* Behind a block at a cluster's start less is read than around one in its
 * middle: the buffer has the length of what it is for. */
static void test_lengths(void **state)
{
    struct lam_image *image = open_overlay();

    (void)state;
    for (uint64_t i = 0; i < 10; i++) {
        write_block(image, i, i < 4 ? 0 : 5);
        settle(image);
        if (i == 3)
            assert_true(!has_direct ||
                        image->ahead.capacity == CLUSTER - BLOCK);
    }
    assert_true(!has_direct || image->ahead.capacity == CLUSTER);
    assert_true(!has_direct || image->ahead.used > 0);
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
}

/* A job writes to the layer below. */
static void test_lower_written(void **state)
{
    struct lam_image *image = open_overlay();
    struct lam_image *base = image->layers[1];

    (void)state;
    image_graph_lock(image);
    assert_works(layer_set_writable(base, true, &err), &err);
    image_graph_unlock(image);
    for (uint64_t i = 0; i < 5; i++)
        write_into(image, i);
    assert_int_equal(settle(image), COW_AHEAD_NOTHING);
    assert_false(image->ahead.has_thread);
    read_back(image);
    assert_works(lam_image_close(image, &err), &err);
}

/* The last read is under way, or about to be, when the image is closed. */
static void test_close(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct lam_image *image = open_overlay();

        for (uint64_t k = 0; k < 5; k++)
            write_into(image, k);
        assert_works(lam_image_close(image, &err), &err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_no_pattern),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_written_meanwhile),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_lower_written),
        cmocka_unit_test(test_close),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

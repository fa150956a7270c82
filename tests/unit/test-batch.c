/* SPDX-License-Identifier: MIT */
/*
 * test-batch.c - a job's batch into what an overlay lacks, and a guest that has
 * written there between the two steps.
 */
#include "memory-image.h"

#include <inttypes.h>
#include <string.h>

#include "image/batch.h"

/* Four clusters and a cut one; @SUB is what the guest writes. */
enum { CLUSTER = 16 * 1024, SUB = 512, SIZE = 4 * CLUSTER + 5 * SUB };

static const struct {
    const char *name;
    bool extended, compress, zero;
    uint64_t at, length;                /* of the guest's write */
    unsigned nb_compressed;
} cases[] = {
    { "nothing written", true, true, false, 0, 0, 5 },
    { "first cluster", true, true, false, 0, SUB, 4 },
    { "in the middle", true, true, false, 2 * CLUSTER + 3 * SUB, SUB, 4 },
    { "over a boundary", true, true, false, 2 * CLUSTER - SUB, 2 * SUB, 3 },
    { "cut cluster", true, true, false, 4 * CLUSTER + SUB, SUB, 4 },
    { "whole cluster", true, true, false, CLUSTER, CLUSTER, 4 },
    { "all", true, true, false, 0, SIZE, 0 },
    { "zeroes", true, true, true, CLUSTER + SUB, SUB, 4 },
    { "zeroes, a whole cluster", true, true, true, CLUSTER, CLUSTER, 4 },
    { "data", true, false, false, CLUSTER + SUB, SUB, 0 },
    { "without subclusters", false, true, false, CLUSTER + SUB, SUB, 4 },
};

static struct lam_image *open_overlay(const uint8_t *below, bool extended)
{
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    c.size = SIZE;
    c.cluster_size = CLUSTER;
    c.extended_l2 = extended;
    c.backing_file = "below";
    c.backing_format = "raw";
    o.flags = LAM_OPEN_WRITE;
    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    assert_works(format_qcow2.create(io, NULL, &c, &err), &err);
    assert_works(image_open_io(io, "qcow2", &o, open_memory(below, SIZE, 0),
                               &image, &err), &err);
    return image;
}

/* Nothing is absent any more. */
static void verify_map(struct lam_image *image, size_t i)
{
    struct lam_extents map = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    unsigned compressed = 0;

    assert_works(lam_image_map(image, 0, SIZE, 1, 0, &map, &err), &err);
    for (size_t k = 0; k < map.count; k++) {
        if (map.items[k].state == LAM_EXTENT_UNALLOCATED)
            fail_msg("%s: absent at %" PRIu64, cases[i].name,
                     map.items[k].offset);
        compressed += map.items[k].state == LAM_EXTENT_COMPRESSED;
    }
    if (compressed != cases[i].nb_compressed)
        fail_msg("%s: %u compressed clusters", cases[i].name, compressed);
    lam_extents_deinit(&map);
}

static void guest(struct lam_image *image, size_t i, uint8_t *expected)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t at = cases[i].at, length = cases[i].length;

    memset(expected + at, cases[i].zero ? 0 : 0xee, length);
    if (cases[i].zero)
        assert_works(lam_image_zero(image, at, length, 0, &err), &err);
    else
        assert_works(lam_image_write(image, expected + at, length, at, 0,
                                     &err), &err);
}

static void run_case(size_t i)
{
    static uint8_t below[SIZE], expected[SIZE], shown[SIZE];
    struct lam_error err = LAM_ERROR_INIT;
    struct batch b;

    for (size_t k = 0; k < SIZE; k++)
        expected[k] = below[k] = (uint8_t)(1 + k / SUB % 200);
    struct lam_image *image = open_overlay(below, cases[i].extended);
    batch_init(&b, image, true);
    if (cases[i].compress)
        assert_works(batch_compress(&b, below, SIZE, 0, &err), &err);
    else
        assert_works(batch_data(&b, below, SIZE, 0, &err), &err);
    guest(image, i, expected);
    assert_works(batch_place(&b, &err), &err);
    assert_works(batch_store(&b, &err), &err);
    batch_deinit(&b);
    verify_map(image, i);
    assert_works(lam_image_read(image, shown, SIZE, 0, &err), &err);
    if (memcmp(shown, expected, SIZE) != 0)
        fail_msg("%s: wrong bytes", cases[i].name);
    assert_works(lam_image_close(image, &err), &err);
}

static void test_absent(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        run_case(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_absent) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

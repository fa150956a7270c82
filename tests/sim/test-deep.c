/* SPDX-License-Identifier: MIT */
/*
 * test-deep.c - a chain of a thousand layers against an array.
 *
 * Each layer has a few clusters of its own, of a size of its own, and some are
 * shorter or longer than what is below them.  What is read through all of them
 * must be what was written, from the top and from layers further down; and it
 * stays that while layers are committed and streamed until one is left, in
 * memory and when the chain is opened again.
 */
#include "files.h"

#include "base/cleanup.h"

enum {
    LAYERS = 1000, MAX_SIZE = 3 << 20, SMALL_CLUSTER = 4096, LOOKS = 60,
    LEVELS = 4,
};

struct world {
    uint64_t random;
    struct sim_files files[LAYERS];     /* from the bottom */
    uint64_t sizes[LAYERS];
    unsigned count;
    uint64_t size;
    uint8_t model[MAX_SIZE];
    struct {
        unsigned count;
        uint64_t size;
        uint8_t model[MAX_SIZE];
    } levels[LEVELS];           /* as it was, some layers further down */
};

static struct world world;

/* The lowest @count layers. */
static struct lam_image *open_layers(unsigned count, bool writable)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    for (unsigned i = 0; i < count; i++) {
        o.flags = writable && i + 1 == count ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP
                                             : 0;
        if (sim_files_open(&world.files[i], &o, image, &image, &err) < 0)
            fail_msg("layer %u: %s", i, err.message);
    }
    return image;
}

static void check_range(struct lam_image *image, const uint8_t *model,
                        uint64_t offset, uint64_t length, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    lam_autofree uint8_t *buf = malloc(length);

    if (lam_image_read(image, buf, length, offset, &err) < 0)
        fail_msg("%s: %s", when, err.message);
    for (uint64_t i = 0; i < length; i++)
        if (buf[i] != model[offset + i])
            fail_msg("%s: byte %llu is %#x, not %#x", when,
                     (unsigned long long)(offset + i), buf[i],
                     model[offset + i]);
}

static void check(struct lam_image *image, const char *when)
{
    for (unsigned i = 0; i < LOOKS; i++) {
        uint64_t offset = sim_below(&world.random, world.size);
        uint64_t length = 1 + sim_below(&world.random, 8192);
        check_range(image, world.model, offset,
                    min_u64(length, world.size - offset), when);
    }
    check_range(image, world.model, 0, world.size, when);
}

static void close_image(struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (lam_image_close(image, &err) < 0)
        fail_msg("%s", err.message);
}

static void change(struct lam_image *image, uint64_t unit, bool zero)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t offset = sim_below(&world.random, world.size / unit) * unit;
    uint64_t length = min_u64(unit * (1 + sim_below(&world.random, 3)),
                              world.size - offset);
    uint8_t *to = world.model + offset;

    for (uint64_t i = 0; i < length; i++)
        to[i] = zero ? 0 : (uint8_t)sim_random(&world.random);
    int rc = zero ? lam_image_zero(image, offset, length, LAM_ZERO_UNMAP, &err)
                  : lam_image_write(image, to, length, offset, 0, &err);
    if (rc < 0)
        fail_msg("%s", err.message);
}

/* ----------------------------------------------------------------- building */

static const struct sim_shape *small_shape(void)
{
    const struct sim_shape *shape;

    do
        shape = &sim_shapes[sim_below(&world.random,
                                      LAM_ARRAY_SIZE(sim_shapes))];
    while (shape->kind.cluster_size > SMALL_CLUSTER ||
           shape->store != SIM_INSIDE);
    return shape;
}

/* Alone, for opening all that is below takes as long as there is of it: so
 * whole clusters of data. */
static void add_layer(void)
{
    const struct sim_shape *shape = small_shape();
    uint64_t size = sim_below(&world.random, 20) ? MAX_SIZE - SMALL_CLUSTER
        : (1 + sim_below(&world.random, MAX_SIZE / SMALL_CLUSTER))
          * SMALL_CLUSTER;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;

    assert_true(sim_files_create(shape, size, "below", NULL,
                                 &world.files[world.count]));
    if (size > world.size)
        memset(world.model + world.size, 0, size - world.size);
    world.size = world.sizes[world.count] = size;
    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(sim_files_open(&world.files[world.count], &o, NULL,
                                    &image, NULL), 0);
    for (unsigned i = 0; i < 3; i++)
        change(image, shape->kind.cluster_size, false);
    close_image(image);
    world.count++;
}

static void note_level(unsigned i)
{
    world.levels[i].count = world.count;
    world.levels[i].size = world.size;
    memcpy(world.levels[i].model, world.model, world.size);
}

/* Zeroes, and parts of clusters, over all that is below. */
static void change_top(unsigned count)
{
    struct lam_image *image = open_layers(world.count, true);

    for (unsigned i = 0; i < count; i++)
        change(image, 512, sim_below(&world.random, 2));
    check(image, "written to");
    close_image(image);
}

static void make_chain(void)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        while (world.count < LAYERS / LEVELS * (level + 1))
            add_layer();
        change_top(20);
        note_level(level);
    }
}

static void check_levels(void)
{
    for (unsigned i = 0; i < LEVELS; i++) {
        struct lam_image *image = open_layers(world.levels[i].count, false);
        assert_int_equal(lam_image_size(image), world.levels[i].size);
        check_range(image, world.levels[i].model, 0, world.levels[i].size,
                    "further down");
        close_image(image);
    }
}

/* ------------------------------------------------------------------ merging */

/* Layers [@from, @to), counted from the top, are of the chain no more. */
static void drop(unsigned from, unsigned to)
{
    unsigned first = world.count - to, n = to - from;

    for (unsigned i = first; i < first + n; i++)
        sim_files_close(&world.files[i]);
    memmove(world.files + first, world.files + first + n,
            from * sizeof *world.files);
    world.count -= n;
}

static unsigned depth_of(struct lam_image *image)
{
    unsigned depth = 0;

    for (; image; image = lam_image_backing(image))
        depth++;
    return depth;
}

static void check_again(const char *when)
{
    struct lam_image *image = open_layers(world.count, false);

    check(image, when);
    close_image(image);
}

/* Layers @from to @depth - 1 into layer @depth; 0: the top, which stays. */
static void commit(unsigned from, unsigned depth, const char *when)
{
    struct lam_image *image = open_layers(world.count, true);
    struct lam_commit_options o = LAM_COMMIT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.from = from;
    o.depth = depth;
    if (lam_image_commit(image, &o, &err) < 0)
        fail_msg("%s: %s", when, err.message);
    unsigned left = from ? world.count - (depth - from) : world.count;
    assert_int_equal(depth_of(image), left);
    check(image, when);
    close_image(image);
    if (from)
        drop(from, depth);
    check_again(when);
}

static void stream(unsigned depth, const char *when)
{
    struct lam_image *image = open_layers(world.count, true);
    struct lam_stream_options o = LAM_STREAM_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.depth = depth < world.count ? depth : LAM_DEPTH_ALL;
    if (lam_image_stream(image, &o, &err) < 0)
        fail_msg("%s: %s", when, err.message);
    check(image, when);
    close_image(image);
    drop(1, depth);
    check_again(when);
}

static void check_metadata(void)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_check_result r;
    struct lam_image *image;

    o.flags = LAM_OPEN_CHECK;
    assert_int_equal(sim_files_open(&world.files[0], &o, NULL, &image, NULL),
                     0);
    assert_int_equal(lam_image_check(image, NULL, NULL, &r, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    close_image(image);
}

static void test_thousand(void **state)
{
    (void)state;
    world.random = 1;
    make_chain();
    check_levels();
    commit(200, 400, "commit in the middle");
    stream(300, "stream of the upper ones");
    commit(0, 1, "commit of the top");
    change_top(20);
    commit(1, world.count - 1, "commit into the lowest");
    assert_int_equal(world.count, 2);
    stream(2, "the last one");
    assert_int_equal(world.count, 1);
    check_metadata();
    sim_files_close(&world.files[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thousand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

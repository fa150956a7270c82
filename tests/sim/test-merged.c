/* SPDX-License-Identifier: MIT */
/*
 * test-merged.c - deep chains of every kind of layer against an array.
 *
 * Layers with clusters and subclusters of all sizes, compressed, encrypted and
 * with external data files, over a raw image, longer and shorter than what is
 * below them.  The memory for the map of the layers is so small that regions
 * are forgotten all the time.  What is read must be what was written, and each
 * extent of a map must be what its layer says itself, with nothing above it.
 */
#include "files.h"

#include <pthread.h>

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/merged.h"

enum { THREADS = 8 };
enum { MAX_LAYERS = 10, MAX_SIZE = 5 << 20, UNIT = 512, BASE_SIZE = 2 << 20 };

struct layer {
    const struct sim_shape *shape;
    struct sim_files files;
};

struct world {
    uint64_t seed, random;
    struct lam_io *base;
    struct layer layers[MAX_LAYERS];    /* from the bottom */
    unsigned count;
    uint64_t size;
    uint8_t model[MAX_SIZE];
    uint64_t budget;
};

static struct lam_io *record(struct lam_io *io)
{
    struct lam_io *out;

    assert_int_equal(lam_io_record_new(io, &out, NULL), 0);
    return out;
}

/* The chain, anew; the top writable or not. */
static struct lam_image *open_chain(struct world *w, bool writable)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    assert_int_equal(image_open_io(record(w->base), "raw", NULL, NULL, &image,
                                   NULL), 0);
    for (unsigned i = 0; i < w->count; i++) {
        bool top = i + 1 == w->count;
        o.flags = top && writable ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP : 0;
        o.map_cache_size = w->budget;
        if (sim_files_open(&w->layers[i].files, &o, image, &image, &err) < 0)
            fail_msg("seed %llu: %s", (unsigned long long)w->seed,
                     err.message);
    }
    return image;
}

static void check_read(struct world *w, struct lam_image *image,
                       uint64_t offset, uint64_t length)
{
    struct lam_error err = LAM_ERROR_INIT;
    lam_autofree uint8_t *buf = malloc(length);

    int rc = lam_image_read(image, buf, length, offset, &err);
    SIM_CHECK(rc == 0, w->seed, "%s", err.message);
    for (uint64_t i = 0; i < length; i++)
        SIM_CHECK(buf[i] == w->model[offset + i], w->seed,
                  "byte %llu is %#x, not %#x",
                  (unsigned long long)(offset + i), buf[i],
                  w->model[offset + i]);
}

/* ------------------------------------------------------------------- maps */

static bool is_absent(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED ||
           e->flags & LAM_EXTENT_BEYOND_BACKING;
}

/* What @layer says of @e alone, or as much of it as it has. */
static void map_alone(struct world *w, struct lam_image *layer,
                      const struct lam_extent *e, struct lam_extents *out)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t end = min_u64(e->offset + e->length, lam_image_size(layer));

    out->count = 0;
    if (e->offset >= end)
        return;
    int rc = lam_image_map(layer, e->offset, end - e->offset, 1, 0, out, &err);
    SIM_CHECK(rc == 0, w->seed, "%s", err.message);
}

static void check_extent(struct world *w, struct lam_image *image,
                         const struct lam_extent *e)
{
    struct lam_extents alone lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct lam_image *layer = image;
    unsigned level = 0;

    for (; layer; layer = lam_image_backing(layer), level++) {
        map_alone(w, layer, e, &alone);
        if (!is_absent(e) && level == e->depth)
            break;
        for (size_t i = 0; i < alone.count; i++)
            SIM_CHECK(alone.items[i].state == LAM_EXTENT_UNALLOCATED, w->seed,
                      "at %llu level %u has something, and the map says %u",
                      (unsigned long long)e->offset, level, e->depth);
        if (e->offset >= lam_image_size(layer))
            break;
    }
    if (is_absent(e))
        return;
    SIM_CHECK(layer && alone.count == 1 &&
              alone.items[0].state == e->state &&
              alone.items[0].flags == e->flags &&
              alone.items[0].length == e->length &&
              alone.items[0].host_length == e->host_length &&
              alone.items[0].host_offset == e->host_offset, w->seed,
              "at %llu the map is not that of level %u",
              (unsigned long long)e->offset, e->depth);
}

static void check_map(struct world *w, struct lam_image *image,
                      uint64_t offset, uint64_t length)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t at = offset;

    int rc = lam_image_map(image, offset, length, LAM_DEPTH_ALL, 0, &map, &err);
    SIM_CHECK(rc == 0, w->seed, "%s", err.message);
    for (size_t i = 0; i < map.count; i++) {
        const struct lam_extent *e = &map.items[i];
        SIM_CHECK(e->offset == at, w->seed, "a gap in the map");
        at += e->length;
        check_extent(w, image, e);
    }
    SIM_CHECK(at == offset + length, w->seed, "the map is too short");
}

/* ----------------------------------------------------------------- changes */

static void change(struct world *w, struct lam_image *image, uint64_t offset,
                   uint64_t length, bool zero, unsigned flags)
{
    struct lam_error err = LAM_ERROR_INIT;

    for (uint64_t i = 0; i < length; i++)
        w->model[offset + i] = zero ? 0 : (uint8_t)sim_random(&w->random);
    int rc = zero ? lam_image_zero(image, offset, length, flags, &err)
                  : lam_image_write(image, w->model + offset, length, offset,
                                    flags, &err);
    SIM_CHECK(rc == 0, w->seed, "%s", err.message);
}

static void change_somewhere(struct world *w, struct lam_image *image)
{
    const struct sim_shape *shape = w->layers[w->count - 1].shape;
    uint64_t cluster = shape->kind.cluster_size;
    uint64_t offset = sim_below(&w->random, w->size / UNIT) * UNIT;
    uint64_t length = UNIT * (1 + sim_below(&w->random, 100));

    length = min_u64(length, w->size - offset);
    if (shape->store == SIM_INSIDE && sim_below(&w->random, 4) == 0) {
        offset = align_down(offset, cluster);
        length = min_u64(cluster, w->size - offset);
        change(w, image, offset, length, false, LAM_WRITE_COMPRESSED);
        return;
    }
    bool zero = sim_below(&w->random, 4) == 0;
    change(w, image, offset, length, zero,
           zero && sim_below(&w->random, 2) ? LAM_ZERO_UNMAP : 0);
}

static void look_somewhere(struct world *w, struct lam_image *image)
{
    uint64_t offset = sim_below(&w->random, w->size);
    uint64_t most = sim_below(&w->random, 16) ? 16384 : w->size;
    uint64_t length = min_u64(1 + sim_below(&w->random, most),
                              w->size - offset);

    if (sim_below(&w->random, 3))
        check_read(w, image, offset, length);
    else
        check_map(w, image, offset, length);
}

/* One layer more; it may be longer or shorter than what is below. */
static bool add_layer(struct world *w)
{
    struct layer *l = &w->layers[w->count];
    uint64_t size = sim_below(&w->random, 3) ? w->size
        : UNIT * (2048 + sim_below(&w->random, MAX_SIZE / UNIT - 2048));

    do
        l->shape = &sim_shapes[sim_below(&w->random,
                                         LAM_ARRAY_SIZE(sim_shapes))];
    while (l->shape->kind.version < 3 || l->shape->store == SIM_DATA_RAW);
    if (!sim_files_create(l->shape, size, "below", "data", &l->files))
        return false;
    if (size > w->size)
        memset(w->model + w->size, 0, size - w->size);
    w->size = size;
    w->count++;
    return true;
}

static void run_layer(struct world *w)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_chain(w, true);

    for (int i = 0; i < 30; i++) {
        change_somewhere(w, image);
        look_somewhere(w, image);
    }
    if (lam_image_close(image, &err) < 0)
        fail_msg("%s", err.message);
    image = open_chain(w, false);
    for (int i = 0; i < 10; i++)
        look_somewhere(w, image);
    check_read(w, image, 0, w->size);
    lam_image_close(image, NULL);
}

static void make_base(struct world *w)
{
    for (size_t i = 0; i < BASE_SIZE; i++)
        w->model[i] = (uint8_t)(i / 4096 % 3 ? sim_random(&w->random) : 0);
    w->size = BASE_SIZE;
    assert_int_equal(lam_io_memory_new(w->model, BASE_SIZE, &w->base, NULL), 0);
}

static void run_seed(uint64_t seed)
{
    static struct world world;
    struct world *w = &world;

    *w = (struct world){ .seed = seed, .random = seed };
    w->budget = sim_below(&w->random, 2) ? 1 : 64 * LAM_KIB;
    make_base(w);
    while (w->count < MAX_LAYERS)
        if (add_layer(w))
            run_layer(w);
    for (unsigned i = 0; i < w->count; i++)
        sim_files_close(&w->layers[i].files);
    lam_io_close(w->base);
}

static void test_model(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(3, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed);
}

/* What is asked for again is not built again, as long as there is room. */
static void test_built_once(void **state)
{
    static struct world world;
    struct merged_statistics before, after;

    (void)state;
    world = (struct world){ .seed = 5, .random = 5 };
    make_base(&world);
    while (world.count < 3)
        if (add_layer(&world))
            run_layer(&world);
    while (!add_layer(&world))      /* with nothing of its own */
        ;
    struct lam_image *image = open_chain(&world, true);
    check_read(&world, image, 0, world.size);
    merged_statistics(image_merged(image), &before);
    assert_true(before.built > 0 && before.bytes > 0);
    for (int i = 0; i < 100; i++)
        look_somewhere(&world, image);
    merged_statistics(image_merged(image), &after);
    assert_int_equal(after.built, before.built);
    lam_image_close(image, NULL);
    for (unsigned i = 0; i < world.count; i++)
        sim_files_close(&world.layers[i].files);
    lam_io_close(world.base);
}

/* Many at once, who evict each other's regions and wait for each other's. */
struct reader {
    pthread_t thread;
    const struct world *world;
    struct lam_image *image;
    uint64_t random;
    bool failed;
};

static void *read_much(void *arg)
{
    struct reader *r = arg;
    uint8_t buf[8192];

    for (int i = 0; i < 400 && !r->failed; i++) {
        uint64_t offset = sim_below(&r->random, r->world->size - sizeof buf);
        uint64_t length = 1 + sim_below(&r->random, sizeof buf);
        r->failed = lam_image_read(r->image, buf, length, offset, NULL) < 0 ||
                    memcmp(buf, r->world->model + offset, length);
    }
    return NULL;
}

static void test_threads(void **state)
{
    static struct world world;
    static struct reader readers[THREADS];

    (void)state;
    world = (struct world){ .seed = 9, .random = 9, .budget = 1 };
    make_base(&world);
    while (world.count < 5)
        if (add_layer(&world))
            run_layer(&world);
    struct lam_image *image = open_chain(&world, false);
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){ .world = &world, .image = image,
                                      .random = 100 + i };
        pthread_create(&readers[i].thread, NULL, read_much, &readers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_false(readers[i].failed);
    }
    lam_image_close(image, NULL);
    for (unsigned i = 0; i < world.count; i++)
        sim_files_close(&world.layers[i].files);
    lam_io_close(world.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_built_once),
        cmocka_unit_test(test_threads),
    };
    sim_threads_only("test_threads");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

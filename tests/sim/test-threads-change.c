/* SPDX-License-Identifier: MIT */
/*
 * test-threads-change.c - an image changes under those who write to it.
 *
 * Twelve threads write and read slots of their own, smaller than a cluster, so
 * that neighbours of one cluster meet inside the library.  Four others make
 * and drop bitmaps, grow and shrink the disk behind the slots, amend what can
 * be amended, take snapshots or add passphrases.  In the end the slots hold
 * what their owners wrote, the bitmap that always recorded knows of all of it,
 * and check finds nothing.
 */
#include "files.h"

#include <errno.h>
#include <pthread.h>

enum { THREADS = 16, CHANGERS = 4, SLOT = 1536, NB_SLOTS = 252,
       SIZE = SLOT * NB_SLOTS };

struct world {
    uint64_t seed, ops;
    const struct sim_shape *shape;
    struct lam_image *image;
    atomic_bool failed;
    bool snapshot, bitmap, key;     /* there is one; its changer's */
};

struct worker {
    struct world *world;
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint8_t model[NB_SLOTS];        /* of its own slots */
    struct lam_error err;
};

/* ----------------------------------------------------------------- writers */

static int write_slot(struct worker *t, uint64_t slot, uint8_t value)
{
    uint64_t offset = slot * SLOT;
    uint8_t buf[SLOT];

    memset(buf, value, sizeof buf);
    t->model[slot] = value;
    if (value)
        return lam_image_write(t->world->image, buf, SLOT, offset, 0, &t->err);
    return lam_image_zero(t->world->image, offset, SLOT, LAM_ZERO_UNMAP,
                          &t->err);
}

static int read_slot(struct worker *t, uint64_t slot)
{
    uint8_t buf[SLOT], want[SLOT];
    int rc = lam_image_read(t->world->image, buf, SLOT, slot * SLOT, &t->err);

    memset(want, t->model[slot], sizeof want);
    if (rc < 0 || !memcmp(buf, want, sizeof buf))
        return rc;
    return lam_fail(&t->err, EIO, "slot %llu is %#x, not %#x",
                    (unsigned long long)slot, buf[0], want[0]);
}

static int write_or_read(struct worker *t)
{
    uint64_t mine = NB_SLOTS / (THREADS - CHANGERS);
    uint64_t slot = sim_below(&t->random, mine) * (THREADS - CHANGERS) +
                    t->number - CHANGERS;
    uint64_t what = sim_below(&t->random, 16);

    if (what == 0)
        return lam_image_flush(t->world->image, &t->err);
    return what < 6 ? read_slot(t, slot)
                    : write_slot(t, slot, (uint8_t)(what < 8 ? 0 : what));
}

/* ---------------------------------------------------------------- changers */

static int change_bitmap(struct worker *t)
{
    struct world *w = t->world;
    int rc;

    if (!w->bitmap)
        rc = lam_image_bitmap_add(w->image, "now and then", 0, 0, &t->err);
    else if (sim_below(&t->random, 2))
        return lam_image_bitmap_merge(w->image, "now and then", w->image,
                                      "always", &t->err);
    else
        rc = lam_image_bitmap_remove(w->image, "now and then", &t->err);
    w->bitmap = !w->bitmap;
    return rc;
}

static int change_size(struct worker *t)
{
    uint64_t size = SIZE + 512 * sim_below(&t->random, 600);

    return lam_image_resize(t->world->image, size, LAM_PREALLOC_OFF,
                            LAM_TRUNCATE_SHRINK, &t->err);
}

static int change_header(struct worker *t)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;

    o.lazy_refcounts = sim_below(&t->random, 2) ? LAM_SETTING_ON
                                                : LAM_SETTING_OFF;
    o.refcount_bits = 16u << sim_below(&t->random, 3);
    return lam_image_amend(t->world->image, &o, &t->err);
}

static int change_snapshot(struct worker *t)
{
    struct world *w = t->world;
    int rc = w->snapshot
           ? lam_image_snapshot_delete(w->image, "s", &t->err)
           : lam_image_snapshot_create(w->image, "s", &t->err);

    w->snapshot = !w->snapshot;
    return rc;
}

static int change_key(struct worker *t)
{
    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;
    struct world *w = t->world;

    o.active = !w->key;
    o.keyring = sim_keyring();
    o.iter_time = 1;
    *(o.active ? &o.new_secret : &o.old_secret) = "other";
    w->key = !w->key;
    return lam_image_key_slot(w->image, &o, &t->err);
}

static int change(struct worker *t)
{
    switch (t->number) {
    case 0:
        return change_bitmap(t);
    case 1:
        return change_size(t);
    case 2:
        return change_header(t);
    default:
        if (t->world->shape->store == SIM_LUKS && sim_below(&t->random, 2))
            return change_key(t);
        return sim_has_data_file(t->world->shape)
             ? lam_image_flush(t->world->image, &t->err) : change_snapshot(t);
    }
}

/* --------------------------------------------------------------- the world */

static void *run_worker(void *opaque)
{
    struct worker *t = opaque;
    struct world *w = t->world;
    uint64_t ops = t->number < CHANGERS ? w->ops / 10 : w->ops;

    for (uint64_t i = 0; i < ops && !atomic_load(&w->failed); i++)
        if ((t->number < CHANGERS ? change(t) : write_or_read(t)) < 0)
            atomic_store(&w->failed, true);
    return NULL;
}

static void open_world(struct world *w, const struct sim_files *files)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    int rc = sim_files_open(files, &o, NULL, &w->image, &err);
    SIM_CHECK(rc == 0, w->seed, "%s: open: %s", w->shape->kind.name,
              err.message);
}

static void close_world(struct world *w, const struct sim_files *files)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    bool dirty = false;

    int rc = lam_image_close(w->image, &err);
    SIM_CHECK(rc == 0, w->seed, "close: %s", err.message);
    rc = sim_check(files->image, &r, &dirty, &err);
    SIM_CHECK(rc == 0 && !dirty && !r.corruptions && !r.leaks, w->seed,
              "%s: %llu corruptions, %llu leaks, dirty %d %s",
              w->shape->kind.name, (unsigned long long)r.corruptions,
              (unsigned long long)r.leaks, dirty, err.message);
}

static void verify(struct world *w, struct worker *workers)
{
    for (unsigned i = CHANGERS; i < THREADS; i++)
        for (uint64_t slot = i - CHANGERS; slot < NB_SLOTS;
             slot += THREADS - CHANGERS) {
            uint64_t start, length;

            SIM_CHECK(read_slot(&workers[i], slot) == 0, w->seed, "%s: %s",
                      w->shape->kind.name, workers[i].err.message);
            if (!workers[i].model[slot])
                continue;
            assert_int_equal(lam_image_bitmap_next(w->image, "always",
                                                   slot * SLOT, &start,
                                                   &length, NULL), 0);
            SIM_CHECK(start == slot * SLOT && length >= SLOT, w->seed,
                      "%s: slot %llu is clean", w->shape->kind.name,
                      (unsigned long long)slot);
        }
}

static void run_threads(struct world *w, struct worker *workers)
{
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].world = w;
        workers[i].number = i;
        workers[i].random = w->seed * THREADS + i;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, run_worker,
                                        &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        SIM_CHECK(!workers[i].err.code, w->seed, "%s, thread %u: %s",
                  w->shape->kind.name, i, workers[i].err.message);
}

static void run_shape(const struct sim_shape *shape, uint64_t seed,
                      uint64_t ops)
{
    struct world w = { .seed = seed, .ops = ops, .shape = shape };
    struct worker *workers = calloc(THREADS, sizeof *workers);
    struct sim_files files;

    assert_non_null(workers);
    if (sim_files_create(shape, SIZE, NULL, "data", &files)) {
        open_world(&w, &files);
        assert_int_equal(lam_image_bitmap_add(w.image, "always", 512, 0,
                                              NULL), 0);
        run_threads(&w, workers);
        verify(&w, workers);
        close_world(&w, &files);
        open_world(&w, &files);
        verify(&w, workers);
        close_world(&w, &files);
        sim_files_close(&files);
    }
    free(workers);
}

/* 16 bits and wider ones, version 3: all that is done here can be done. */
static bool fits(const struct sim_shape *shape)
{
    const struct sim_kind *k = &shape->kind;

    return k->version == 3 && k->refcount_bits == 16 &&
           (k->cluster_size == 4096 || k->cluster_size == 16384);
}

static void test_changes(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 150);

    (void)state;
    sim_seeds(1, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        for (size_t i = 0; i < LAM_ARRAY_SIZE(sim_shapes); i++)
            if (fits(&sim_shapes[i]))
                run_shape(&sim_shapes[i], seed, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_changes) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

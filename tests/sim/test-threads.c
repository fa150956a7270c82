/* SPDX-License-Identifier: MIT */
/*
 * test-threads.c - many threads at one image, at overlapping places.
 *
 * The disk is divided into slots, smaller than a cluster, each with a lock of
 * the test's own that makes a change and its entry in the model one step;
 * neighbouring slots of one cluster meet inside the library.  One thread also
 * takes and deletes internal snapshots meanwhile.  In the second part threads
 * write to the very same places without any lock: afterwards each sector is
 * from one of them.
 */
#include "sim.h"

#include <pthread.h>

enum { THREADS = 16, SLOT = 1536, NB_SLOTS = 512, SIZE = SLOT * NB_SLOTS };

struct world {
    uint64_t seed, ops;
    const struct sim_kind *kind;
    struct lam_image *image;
    pthread_mutex_t locks[NB_SLOTS];
    uint8_t model[NB_SLOTS];        /* every byte of the slot */
    atomic_bool failed;
    bool shared;                    /* part two: no locks */
    bool snapshot;                  /* there is one; thread 0's */
};

struct worker {
    struct world *world;
    pthread_t thread;
    uint64_t random;
    unsigned number;
    struct lam_error err;
    char what[128];
};

static bool all_are(const uint8_t *p, size_t n, uint8_t value)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != value)
            return false;
    return true;
}

static int write_slot(struct worker *t, uint64_t slot, uint8_t value)
{
    uint8_t buf[SLOT];

    memset(buf, value, sizeof buf);
    if (!value)
        return lam_image_zero(t->world->image, slot * SLOT, SLOT,
                              sim_below(&t->random, 2) ? LAM_ZERO_UNMAP : 0,
                              &t->err);
    return lam_image_write(t->world->image, buf, SLOT, slot * SLOT, 0,
                           &t->err);
}

static int read_slot(struct worker *t, uint64_t slot)
{
    uint8_t buf[SLOT], want = t->world->model[slot];
    int rc = lam_image_read(t->world->image, buf, SLOT, slot * SLOT, &t->err);

    if (rc < 0 || all_are(buf, sizeof buf, want))
        return rc;
    return lam_fail(&t->err, EIO, "slot %llu is %#x, not %#x",
                    (unsigned long long)slot, buf[0], want);
}

/* Small counters overflow. */
static int change_snapshot(struct worker *t)
{
    struct world *w = t->world;

    if (w->kind->refcount_bits < 8)
        return 0;
    int rc = w->snapshot
           ? lam_image_snapshot_delete(w->image, "s", &t->err)
           : lam_image_snapshot_create(w->image, "s", &t->err);
    if (rc == 0)
        w->snapshot = !w->snapshot;
    return rc;
}

static int step_locked(struct worker *t)
{
    struct world *w = t->world;
    uint64_t slot = sim_below(&t->random, NB_SLOTS);
    uint64_t what = sim_below(&t->random, 64);
    uint64_t writes = t->number < 4 ? 48 : 12;
    uint8_t value = (uint8_t)(what < 8 ? 0 : 1 + sim_below(&t->random, 255));

    if (what == 63)
        return lam_image_flush(w->image, &t->err);
    if (what > 58 && t->number == 0)
        return change_snapshot(t);
    pthread_mutex_lock(&w->locks[slot]);
    int rc = what < writes ? write_slot(t, slot, value) : read_slot(t, slot);
    if (rc == 0 && what < writes)
        w->model[slot] = value;
    pthread_mutex_unlock(&w->locks[slot]);
    return rc;
}

/* Whole clusters, several at a time, each thread its own value. */
static int step_shared(struct worker *t)
{
    struct world *w = t->world;
    uint64_t cs = w->kind->cluster_size;
    uint64_t length = min_u64(cs * (1 + sim_below(&t->random, 3)), SIZE / 2);
    uint64_t offset = align_down(sim_below(&t->random, SIZE - length), 512);
    uint64_t what = sim_below(&t->random, 32);
    uint8_t *buf = malloc(length);
    int rc;

    if (!buf)
        return -ENOMEM;
    memset(buf, (int)t->number + 1, length);
    if (what < 2)
        rc = lam_image_flush(w->image, &t->err);
    else if (what < 5)
        rc = lam_image_discard(w->image, offset, length, &t->err);
    else if (what < 9)
        rc = lam_image_read(w->image, buf, length, offset, &t->err);
    else if (what < 13 && length >= cs)
        rc = lam_image_write(w->image, buf, cs, align_down(offset, cs),
                             LAM_WRITE_COMPRESSED, &t->err);
    else if (what < 16)
        rc = lam_image_zero(w->image, offset, length, 0, &t->err);
    else
        rc = lam_image_write(w->image, buf, length, offset, 0, &t->err);
    free(buf);
    return rc;
}

static void *run_worker(void *opaque)
{
    struct worker *t = opaque;
    struct world *w = t->world;

    for (uint64_t i = 0; i < w->ops && !atomic_load(&w->failed); i++) {
        int rc = w->shared ? step_shared(t) : step_locked(t);

        if (rc < 0)
            atomic_store(&w->failed, true);
    }
    return NULL;
}

static void run_all(struct world *w)
{
    struct worker workers[THREADS] = { 0 };

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
        SIM_CHECK(!workers[i].err.code, w->seed, "kind %s, thread %u: %s",
                  w->kind->name, i, workers[i].err.message);
}

static void verify_model(struct world *w)
{
    struct worker reader = { .world = w };

    for (uint64_t slot = 0; slot < NB_SLOTS; slot++)
        SIM_CHECK(read_slot(&reader, slot) == 0, w->seed, "kind %s: %s",
                  w->kind->name, reader.err.message);
}

static void verify_sectors(struct world *w)
{
    uint8_t *buf = malloc(SIZE);

    assert_non_null(buf);
    assert_int_equal(lam_image_read(w->image, buf, SIZE, 0, NULL), 0);
    for (size_t at = 0; at < SIZE; at += 512)
        SIM_CHECK(buf[at] <= THREADS && all_are(buf + at, 512, buf[at]),
                  w->seed, "kind %s: sector at %#zx is a mixture",
                  w->kind->name, at);
    free(buf);
}

static void open_world(struct world *w, struct lam_io *file)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(file, &io, NULL), 0);
    lam_io_grow_ahead(io, w->kind->cluster_size);
    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    int rc = image_open_io(io, "qcow2", &o, NULL, &w->image, &err);
    SIM_CHECK(rc == 0, w->seed, "open: %s", err.message);
}

static void close_world(struct world *w, struct lam_io *file)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    bool dirty = false;

    int rc = lam_image_close(w->image, &err);
    SIM_CHECK(rc == 0, w->seed, "close: %s", err.message);
    rc = sim_check(file, &r, &dirty, &err);
    SIM_CHECK(rc == 0, w->seed, "check: %s", err.message);
    SIM_CHECK(!dirty && !r.corruptions && !r.leaks && !r.check_errors, w->seed,
              "kind %s: %llu corruptions, %llu leaks", w->kind->name,
              (unsigned long long)r.corruptions, (unsigned long long)r.leaks);
}

static void run_seed(uint64_t seed, uint64_t ops)
{
    struct world w = { .seed = seed, .ops = ops };

    w.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    for (size_t i = 0; i < NB_SLOTS; i++)
        pthread_mutex_init(&w.locks[i], NULL);
    struct lam_io *file = sim_create(w.kind, SIZE, false);

    open_world(&w, file);
    run_all(&w);
    verify_model(&w);
    close_world(&w, file);
    open_world(&w, file);
    verify_model(&w);
    assert_int_equal(lam_image_zero(w.image, 0, SIZE, 0, NULL), 0);
    if (w.snapshot)
        assert_int_equal(lam_image_snapshot_delete(w.image, "s", NULL), 0);
    w.shared = true;
    run_all(&w);
    verify_sectors(&w);
    close_world(&w, file);

    lam_io_close(file);
    for (size_t i = 0; i < NB_SLOTS; i++)
        pthread_mutex_destroy(&w.locks[i]);
}

static void test_threads(void **state)
{
    /* TSan sees a race in the order of locks, not by meeting it. */
    uint64_t most = sim_setting("LAM_THREADS", 0) ? 150 : 350;
    uint64_t first, end, ops = sim_setting("LAM_OPS", most);

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

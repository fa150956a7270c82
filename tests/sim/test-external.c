/* SPDX-License-Identifier: MIT */
/*
 * test-external.c - external snapshots of an image that is being written to.
 *
 * Sixteen threads write to the image and read it while overlays are put over
 * it, on real files.  The disk is divided into slots, smaller than a cluster,
 * each with a lock of the test's own that makes a change and its entry in the
 * model one step.  What a snapshot has covered must not change any more; in
 * the end the chain, opened anew, reads as the model.
 */
#include "sim.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

enum {
    THREADS = 16, SLOT = 1536, NB_SLOTS = 512, SIZE = SLOT * NB_SLOTS,
    SNAPSHOTS = 12,
};

struct world {
    char directory[64];
    struct lam_image *image;
    pthread_mutex_t locks[NB_SLOTS];
    uint8_t model[NB_SLOTS];        /* every byte of the slot */
    atomic_bool failed, done;
};

struct worker {
    struct world *world;
    pthread_t thread;
    uint64_t random;
    struct lam_error err;
};

static void path_of(const struct world *w, unsigned layer, char *out)
{
    sprintf(out, "%s/layer%u.qcow2", w->directory, layer);
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

static int check_slot(struct lam_image *image, uint64_t slot, uint8_t want,
                      struct lam_error *err)
{
    uint8_t buf[SLOT];
    int rc = lam_image_read(image, buf, SLOT, slot * SLOT, err);

    for (size_t i = 0; i < SLOT && rc == 0; i++)
        if (buf[i] != want)
            rc = lam_fail(err, EIO, "byte %zu of slot %llu is %#x, not %#x", i,
                          (unsigned long long)slot, buf[i], want);
    return rc;
}

static int step(struct worker *t)
{
    struct world *w = t->world;
    uint64_t slot = sim_below(&t->random, NB_SLOTS);
    LAM_LOCKED(&w->locks[slot]);

    switch (sim_below(&t->random, 8)) {
    case 0: case 1: case 2:
        return check_slot(w->image, slot, w->model[slot], &t->err);
    case 3:
        return sim_below(&t->random, 8) ? 0 : lam_image_flush(w->image,
                                                              &t->err);
    default:
        w->model[slot] = (uint8_t)(sim_below(&t->random, 4)
                                   ? sim_below(&t->random, 255) + 1 : 0);
        return write_slot(t, slot, w->model[slot]);
    }
}

static void *work(void *arg)
{
    struct worker *t = arg;

    while (!atomic_load(&t->world->done) && !atomic_load(&t->world->failed))
        if (step(t) < 0)
            atomic_store(&t->world->failed, true);
    return NULL;
}

static void open_layer(const char *path, unsigned flags,
                       struct lam_image **image)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.flags = flags;
    o.format = "qcow2";
    if (lam_image_open(path, &o, image, &err) < 0)
        fail_msg("%s", err.message);
}

static void read_all(const char *path, uint8_t *out)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    open_layer(path, 0, &image);
    assert_int_equal(lam_image_size(image), SIZE);
    if (lam_image_read(image, out, SIZE, 0, &err) < 0)
        fail_msg("%s", err.message);
    lam_image_close(image, NULL);
}

/* Layers of other cluster sizes, and with subclusters, on top of each other. */
static void take_snapshot(struct world *w, unsigned number)
{
    struct lam_overlay_options o = LAM_OVERLAY_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    char path[96];

    o.cluster_size = number % 3 == 0 ? 16 * LAM_KIB : number % 3 == 1
                     ? 4 * LAM_KIB : 64 * LAM_KIB;
    o.extended_l2 = number % 3 == 0;
    path_of(w, number, path);
    if (lam_image_snapshot_external(w->image, path, &o, &err) < 0)
        fail_msg("snapshot %u: %s", number, err.message);
    /* Once more at the same place is refused, and changes nothing. */
    assert_int_equal(lam_image_snapshot_external(w->image, path, &o, &err),
                     -EEXIST);
}

static void make_first(struct world *w)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    char path[96];

    o.format = "qcow2";
    o.size = SIZE;
    o.cluster_size = 4 * LAM_KIB;
    path_of(w, 0, path);
    assert_int_equal(lam_image_create(path, &o, NULL), 0);
    open_layer(path, LAM_OPEN_WRITE, &w->image);
}

static void check_clean(const char *path)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    open_layer(path, LAM_OPEN_CHECK | LAM_OPEN_NO_BACKING, &image);
    if (lam_image_check(image, NULL, NULL, &r, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
    lam_image_close(image, NULL);
}

/* Snapshots, and what each covered, at once and in the end. */
static void run_snapshots(struct world *w)
{
    static uint8_t covered[SNAPSHOTS][SIZE], again[SIZE];
    char path[96];

    for (unsigned i = 0; i < SNAPSHOTS && !atomic_load(&w->failed); i++) {
        usleep(20000);
        take_snapshot(w, i + 1);
        path_of(w, i, path);
        read_all(path, covered[i]);
        check_clean(path);
    }
    usleep(20000);
    atomic_store(&w->done, true);
    for (unsigned i = 0; i < SNAPSHOTS && !atomic_load(&w->failed); i++) {
        path_of(w, i, path);
        read_all(path, again);
        assert_memory_equal(covered[i], again, SIZE);
    }
}

static void check_model(struct world *w)
{
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned slot = 0; slot < NB_SLOTS; slot++)
        if (check_slot(w->image, slot, w->model[slot], &err) < 0)
            fail_msg("%s", err.message);
}

static void test_threads(void **state)
{
    static struct world w;
    static struct worker workers[THREADS];
    struct lam_error err = LAM_ERROR_INIT;
    char path[96];

    (void)state;
    w = (struct world){ .directory = "/tmp/lamella-external-XXXXXX" };
    assert_non_null(mkdtemp(w.directory));
    make_first(&w);
    for (unsigned i = 0; i < NB_SLOTS; i++)
        pthread_mutex_init(&w.locks[i], NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ .world = &w, .random = 77 + i };
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    run_snapshots(&w);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].err.code)
            fail_msg("%s", workers[i].err.message);
    }
    check_model(&w);
    if (lam_image_close(w.image, &err) < 0)
        fail_msg("%s", err.message);
    path_of(&w, SNAPSHOTS, path);
    open_layer(path, 0, &w.image);
    check_model(&w);
    lam_image_close(w.image, NULL);
    for (unsigned i = 0; i <= SNAPSHOTS; i++) {
        path_of(&w, i, path);
        check_clean(path);
        unlink(path);
    }
    rmdir(w.directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

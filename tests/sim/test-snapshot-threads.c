/* SPDX-License-Identifier: MIT */
/*
 * test-snapshot-threads.c - snapshots of an image that others write to.
 *
 * Each write fills one slot of the writer's own, smaller than a cluster, with
 * one value, so that in a snapshot every slot has one: a write is in it or
 * is not.
 * Neighbouring slots of one cluster belong to different writers.  And what a
 * snapshot shows right after it was made is what it shows in the end, although
 * the writers never stopped.
 */
#include "sim.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

enum { WRITERS = 6, SLOT = 1536, NB_SLOTS = 252, SIZE = SLOT * NB_SLOTS,
       SNAPSHOTS = 6 };

struct world {
    uint64_t seed;
    const struct sim_kind *kind;
    struct lam_io *file;
    struct lam_image *image;
    atomic_bool end, failed;
    atomic_ulong steps;             /* of all writers */
};

struct writer {
    struct world *world;
    pthread_t thread;
    unsigned number;                /* whose slots these are */
    uint64_t random;
    struct lam_error err;
};

static struct lam_io_ops slow_ops;
static ssize_t (*fast_writev)(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset);

/* Between the decision where to write and the write others get their turn. */
static ssize_t slow_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    for (unsigned i = 0; i < 3; i++)
        sched_yield();
    return fast_writev(io, iov, iovcnt, offset);
}

static void make_slow(struct lam_io *io)
{
    fast_writev = io->ops->writev;
    slow_ops = *io->ops;
    slow_ops.writev = slow_writev;
    io->ops = &slow_ops;
}

static struct lam_image *open_on(struct world *w, bool writable,
                                 const char *snapshot)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(w->file, &io, NULL), 0);
    if (writable) {
        make_slow(io);
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    }
    o.l2_cache_size = o.refcount_cache_size = 1;
    o.snapshot = snapshot;
    int rc = image_open_io(io, "qcow2", &o, NULL, &image, &err);
    SIM_CHECK(rc == 0, w->seed, "kind %s: open: %s", w->kind->name,
              err.message);
    return image;
}

static int step(struct writer *t)
{
    struct lam_image *image = t->world->image;
    uint64_t slot = sim_below(&t->random, NB_SLOTS / WRITERS) * WRITERS +
                    t->number;
    uint64_t what = sim_below(&t->random, 16);
    uint8_t buf[SLOT];

    memset(buf, 1 + (int)sim_below(&t->random, 255), sizeof buf);
    if (what < 12)
        return lam_image_write(image, buf, SLOT, slot * SLOT, 0, &t->err);
    if (what < 15)
        return lam_image_read(image, buf, SLOT, slot * SLOT, &t->err);
    return lam_image_flush(image, &t->err);
}

static void *run_writer(void *opaque)
{
    struct writer *t = opaque;

    while (!atomic_load(&t->world->end) && !atomic_load(&t->world->failed)) {
        if (step(t) < 0)
            atomic_store(&t->world->failed, true);
        else
            atomic_fetch_add(&t->world->steps, 1);
    }
    return NULL;
}

/* The contents of a snapshot, with every slot of one piece. */
static uint8_t *contents(struct world *w, const char *name)
{
    struct lam_image *image = open_on(w, false, name);
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t *bytes = malloc(SIZE);

    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, SIZE, 0, &err);
    SIM_CHECK(rc == 0, w->seed, "kind %s: read %s: %s", w->kind->name, name,
              err.message);
    for (size_t at = 0; at < SIZE; at += SLOT)
        SIM_CHECK(!memcmp(bytes + at, bytes + at + 1, SLOT - 1), w->seed,
                  "kind %s: %s: the slot at %#zx is a mixture", w->kind->name,
                  name, at);
    lam_image_close(image, NULL);
    return bytes;
}

static void verify(struct world *w, const char *name, const uint8_t *want)
{
    uint8_t *bytes = contents(w, name);

    SIM_CHECK(!memcmp(bytes, want, SIZE), w->seed,
              "kind %s: %s has changed since it was made", w->kind->name,
              name);
    free(bytes);
}

static void start(struct world *w, struct writer *writers)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].world = w;
        writers[i].number = i;
        writers[i].random = w->seed * WRITERS + i;
        assert_int_equal(pthread_create(&writers[i].thread, NULL, run_writer,
                                        &writers[i]), 0);
    }
}

static void stop(struct world *w, struct writer *writers)
{
    atomic_store(&w->end, true);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    for (unsigned i = 0; i < WRITERS; i++)
        SIM_CHECK(!writers[i].err.code, w->seed, "kind %s, thread %u: %s",
                  w->kind->name, i, writers[i].err.message);
}

/* Let the writers do something. */
static void let_write(struct world *w)
{
    unsigned long until = atomic_load(&w->steps) + 100;

    while (atomic_load(&w->steps) < until && !atomic_load(&w->failed))
        sched_yield();
}

static void change(struct world *w, int rc, const struct lam_error *err,
                   const char *what)
{
    SIM_CHECK(rc == 0, w->seed, "kind %s: %s: %s", w->kind->name, what,
              err->message);
}

/* Create all, apply one, delete every other one, while the others write. */
static void use_snapshots(struct world *w, uint8_t **kept)
{
    struct lam_error err = LAM_ERROR_INIT;
    char name[16];

    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        snprintf(name, sizeof name, "s%u", i);
        let_write(w);
        change(w, lam_image_snapshot_create(w->image, name, &err), &err, name);
        kept[i] = contents(w, name);
        if (i == SNAPSHOTS / 2)
            change(w, lam_image_snapshot_apply(w->image, "s1", &err), &err,
                   "apply");
        if (i % 2)
            continue;
        change(w, lam_image_snapshot_delete(w->image, name, &err), &err,
               "delete");
        free(kept[i]);
        kept[i] = NULL;
    }
}

static void run_seed(uint64_t seed)
{
    struct world w = { .seed = seed };
    struct writer writers[WRITERS] = { 0 };
    uint8_t *kept[SNAPSHOTS] = { NULL };
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;
    char name[16];

    w.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    if (w.kind->refcount_bits <= 2)
        return;                     /* no room for another reference */
    w.file = sim_create(w.kind, SIZE, false);
    w.image = open_on(&w, true, NULL);
    start(&w, writers);
    use_snapshots(&w, kept);
    stop(&w, writers);
    change(&w, lam_image_close(w.image, &err), &err, "close");

    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        snprintf(name, sizeof name, "s%u", i);
        if (kept[i])
            verify(&w, name, kept[i]);
        free(kept[i]);
    }
    change(&w, sim_check(w.file, &r, &dirty, &err), &err, "check");
    SIM_CHECK(!dirty && !r.corruptions && !r.leaks && !r.check_errors, seed,
              "kind %s: %llu corruptions, %llu leaks", w.kind->name,
              (unsigned long long)r.corruptions, (unsigned long long)r.leaks);
    lam_io_close(w.file);
}

static void test_threads(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

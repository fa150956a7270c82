/* SPDX-License-Identifier: MIT */
/*
 * test-layers-threads.c - threads write, zero and read while the layers below
 * them are committed and streamed away, and others put in their place.
 *
 * The disk is cut into small blocks, dealt out to the threads in turn, so that
 * clusters have several owners.  Each knows what its blocks hold.
 */
#include "layers.h"

#include <pthread.h>
#include <stdatomic.h>

#include "image/graph.h"
#include "job/rebase.h"

enum { THREADS = 4, BLOCK = 3 * LAYER_SECTOR, LAYERS = 6 };

/* Blocks at the end that nobody touches, and that are zero from the start. */
enum { ZEROES = 24 };

struct crew {
    struct layer_chain c;
    struct lam_image *image;
    uint8_t *bytes;                 /* what the disk holds */
    uint64_t blocks;                /* without those */
    atomic_bool stop;
    atomic_uint rounds;
};

struct hand {
    struct crew *crew;
    unsigned number;
    uint64_t random;
    pthread_t thread;
    char failure[sizeof ((struct lam_error *)0)->message + 80];
};

static void check(struct hand *h, bool fine, const char *what, uint64_t at,
                  const struct lam_error *err)
{
    if (!fine && !*h->failure)
        snprintf(h->failure, sizeof h->failure, "thread %u: %s at %#llx: %s",
                 h->number, what, (unsigned long long)at, err->message);
}

static void one_request(struct hand *h)
{
    struct crew *w = h->crew;
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t buf[BLOCK];
    uint64_t b = sim_below(&h->random, w->blocks / THREADS) * THREADS +
                 h->number;
    uint64_t at = b * BLOCK, what = sim_below(&h->random, 8);
    uint8_t *mine = w->bytes + at;
    int rc;

    if (what < 3) {
        memset(mine, (int)sim_below(&h->random, 256), BLOCK);
        rc = lam_image_write(w->image, mine, BLOCK, at, 0, &err);
        check(h, rc == 0, "write", at, &err);
    } else if (what == 3) {
        memset(mine, 0, BLOCK);
        rc = lam_image_zero(w->image, at, BLOCK, LAM_ZERO_UNMAP, &err);
        check(h, rc == 0, "zero", at, &err);
    } else {
        rc = lam_image_read(w->image, buf, BLOCK, at, &err);
        check(h, rc == 0, "read", at, &err);
        check(h, rc < 0 || !memcmp(buf, mine, BLOCK), "wrong bytes", at, &err);
    }
}

static void *run_hand(void *opaque)
{
    struct hand *h = opaque;

    while (!atomic_load(&h->crew->stop) && !*h->failure) {
        for (unsigned i = 0; i < 8; i++)
            one_request(h);
        atomic_fetch_add(&h->crew->rounds, 1);
    }
    return NULL;
}

/* All have done something since. */
static void let_them_work(struct crew *w, const struct hand *hands)
{
    unsigned until = atomic_load(&w->rounds) + 4 * THREADS;
    bool failed = false;

    while (atomic_load(&w->rounds) < until && !failed) {
        sched_yield();
        for (unsigned i = 0; i < THREADS; i++)
            failed |= *hands[i].failure != 0;
    }
}

static void remove_disks(struct layer_chain *c, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        layer_disk_free(&c->disks[i]);
    memmove(&c->disks[from], &c->disks[to],
            (c->count - to) * sizeof c->disks[0]);
    c->count -= to - from;
}

static void commit(struct crew *w, unsigned from, unsigned depth)
{
    struct lam_commit_options o = LAM_COMMIT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    unsigned count = w->c.count;

    o.from = from;
    o.depth = depth;
    o.job.workers = 2;
    int rc = lam_image_commit(w->image, &o, &err);
    SIM_CHECK(rc == 0, w->c.seed, "commit %u into %u: %s", from, depth,
              err.message);
    if (from)
        remove_disks(&w->c, count - depth, count - from);
}

static void stream(struct crew *w, unsigned depth)
{
    struct lam_stream_options o = LAM_STREAM_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    unsigned count = w->c.count;

    o.depth = depth;
    o.compress = w->c.seed % 2;
    o.job.workers = 2;
    int rc = lam_image_stream(w->image, &o, &err);
    SIM_CHECK(rc == 0, w->c.seed, "stream to %u: %s", depth, err.message);
    remove_disks(&w->c, depth == LAM_DEPTH_ALL ? 0 : count - depth, count - 1);
}

/* Onto a chain of its own, or (NULL) nothing. */
static void rebase(struct crew *w, struct layer_chain *onto)
{
    struct lam_rebase_options o = LAM_REBASE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *below = NULL;
    struct layer_chain *c = &w->c;

    if (onto) {
        below = layers_open(onto, onto->count, false, NULL);
        o.backing_file = layers_top(onto)->name;
        o.backing_format = layers_top(onto)->kind ? "qcow2" : "raw";
    }
    o.compress = w->c.seed % 2;
    o.job.workers = 2;
    image_graph_lock(w->image);
    int rc = rebase_onto(w->image, &below, &o, &err);
    image_graph_unlock(w->image);
    SIM_CHECK(rc == 0, c->seed, "rebase: %s", err.message);
    remove_disks(c, 0, c->count - 1);
    if (!onto)
        return;
    c->disks[onto->count] = c->disks[0];
    memcpy(c->disks, onto->disks, onto->count * sizeof c->disks[0]);
    c->count += onto->count;
}

/* A raw file full of noise, and an overlay above it, as large as it likes. */
static void rebase_onto_others(struct crew *w)
{
    struct layer_chain other = { .seed = w->c.seed, .random = w->c.random,
                                 .names = w->c.names };

    layers_add_raw(&other);
    layers_add_overlay(&other);
    rebase(w, &other);
    w->c.names = other.names;
}

static void run_jobs(struct crew *w, const struct hand *hands)
{
    let_them_work(w, hands);
    commit(w, 2, 3);                /* 6 layers; 5 are left */
    let_them_work(w, hands);
    commit(w, 0, 1);
    let_them_work(w, hands);
    commit(w, 1, 2);
    let_them_work(w, hands);
    stream(w, 2);                   /* 4; 3 */
    let_them_work(w, hands);
    commit(w, 0, 1);
    let_them_work(w, hands);
    if (w->c.seed % 2)
        stream(w, LAM_DEPTH_ALL);
    let_them_work(w, hands);
    rebase_onto_others(w);          /* from two layers, or from none */
    let_them_work(w, hands);
    rebase(w, NULL);
    let_them_work(w, hands);
    rebase_onto_others(w);
    let_them_work(w, hands);
}

/* In every third chain the top one is of version 2, where what reads as zero
 * without a backing file does not over one. */
static void add_layer(struct layer_chain *c, bool top)
{
    layers_add_overlay(c);
    while (top && c->seed % 3 == 0 && layers_top(c)->kind->version != 2) {
        layer_disk_free(layers_top(c));
        c->count--;
        layers_add_overlay(c);
    }
}

/* Sizes are one, so that every layer may drop out. */
static void make_chain(struct crew *w, uint64_t size)
{
    struct layer_chain *c = &w->c;
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned i = 0; i < LAYERS; i++) {
        add_layer(c, i == LAYERS - 1);
        struct lam_image *image = layers_open(c, c->count, true, NULL);
        int rc = lam_image_resize(image, size, LAM_PREALLOC_OFF,
                                  LAM_TRUNCATE_SHRINK, &err);
        SIM_CHECK(rc == 0, c->seed, "resize: %s", err.message);
        layers_resize_model(layers_top(c), size);
        for (unsigned k = 0; k < 10; k++)
            layers_guest(c, image);
        layers_close(c, image);
    }
}

static void run_seed(uint64_t seed)
{
    struct crew w = { .c = { .seed = seed, .random = seed } };
    struct hand hands[THREADS] = { 0 };

    w.blocks = 20 * THREADS + 1;
    const uint64_t size = (w.blocks + ZEROES) * BLOCK;
    make_chain(&w, size);
    w.bytes = calloc(1, size);
    assert_non_null(w.bytes);
    memcpy(w.bytes, layers_top(&w.c)->bytes, w.blocks * BLOCK);
    w.image = layers_open(&w.c, LAYERS, true, NULL);
    assert_int_equal(lam_image_zero(w.image, w.blocks * BLOCK, ZEROES * BLOCK,
                                    LAM_ZERO_UNMAP, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        hands[i] = (struct hand){ .crew = &w, .number = i,
                                  .random = seed * 100 + i };
        assert_int_equal(pthread_create(&hands[i].thread, NULL, run_hand,
                                        &hands[i]), 0);
    }
    run_jobs(&w, hands);
    atomic_store(&w.stop, true);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(hands[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        SIM_CHECK(!*hands[i].failure, seed, "%s", hands[i].failure);
    layers_close(&w.c, w.image);
    memcpy(layers_top(&w.c)->bytes, w.bytes, size);
    layers_verify(&w.c, w.c.count, "at the end");
    layers_check(&w.c, true, "at the end");
    layers_free(&w.c);
    free(w.bytes);
}

static void test_layers_threads(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(12, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_layers_threads) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

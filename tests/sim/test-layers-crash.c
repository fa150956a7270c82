/* SPDX-License-Identifier: MIT */
/*
 * test-layers-crash.c - power fails at any moment of a commit, a rebase or a
 * stream.
 *
 * All files of the chain are on one recording.  At every event of the job, what
 * each disk may hold is built; then the chain that the top's header names reads
 * as it did before, check finds leaks at worst, and the job, run once more,
 * ends as it would have.
 */
#include "layers.h"

#include "image/graph.h"
#include "job/rebase.h"

enum job_kind { COMMIT, COMMIT_LOW, STREAM, STREAM_ALL, REBASE, FLATTEN, JOBS };

/* Of the chain, and one behind it that a rebase goes to. */
enum { MAX_OBJECTS = 4 };

struct crash {
    struct layer_chain c;           /* and the other one behind it */
    enum job_kind job;
    unsigned layers, objects;       /* of the chain, and with the other one */
    uint8_t *bases[MAX_OBJECTS];    /* the files before the job */
    uint64_t lengths[MAX_OBJECTS];
    struct lam_io *records[MAX_OBJECTS];
    uint64_t replays;
};

static struct lam_image *open_other(struct layer_chain *c,
                                    struct lam_io *record)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    int rc = image_open_io(io, "raw", NULL, NULL, &image, &err);
    SIM_CHECK(rc == 0, c->seed, "open the new backing file: %s", err.message);
    return image;
}

static int rebase(struct crash *t, struct lam_image *image,
                  struct lam_io *other, struct lam_error *err)
{
    struct lam_rebase_options o = LAM_REBASE_OPTIONS_INIT;
    struct lam_image *below = NULL;

    if (t->job == REBASE) {
        below = open_other(&t->c, other);
        o.backing_file = t->c.disks[t->layers].name;
        o.backing_format = "raw";
    }
    o.compress = t->c.seed % 2;
    o.job.workers = 1;
    image_graph_lock(image);
    int rc = rebase_onto(image, &below, &o, err);
    image_graph_unlock(image);
    lam_image_close(below, NULL);
    return rc;
}

static int run_job(struct crash *t, struct lam_image *image,
                   struct lam_io *other, struct lam_error *err)
{
    struct lam_commit_options commit = LAM_COMMIT_OPTIONS_INIT;
    struct lam_stream_options stream = LAM_STREAM_OPTIONS_INIT;

    commit.job.workers = stream.job.workers = 1;
    switch (t->job) {
    case COMMIT_LOW:
        commit.depth = 2;
        return lam_image_commit(image, &commit, err);
    case COMMIT:
        return lam_image_commit(image, &commit, err);
    case STREAM:
        stream.depth = 2;
        return lam_image_stream(image, &stream, err);
    case STREAM_ALL:
        return lam_image_stream(image, &stream, err);
    default:
        return rebase(t, image, other, err);
    }
}

/* ------------------------------------------------------------ after a crash */

/* The name in the header on @io; "": none. */
static void backing_name(struct lam_io *io, char name[16])
{
    struct qcow2_header h = { 0 };
    uint64_t length;
    uint8_t *bytes = sim_bytes(io, &length);

    assert_int_equal(header_decode(bytes, length, &h, NULL), 0);
    snprintf(name, 16, "%s", h.backing_file ? h.backing_file : "");
    header_deinit(&h);
    free(bytes);
}

/* The chain as the top's header names it: its layers in @out, with the disks
 * that are borrowed from @t. */
static void chain_of(struct crash *t, struct layer_chain *out)
{
    struct layer_chain *c = &t->c;
    char name[16];

    *out = (struct layer_chain){ .seed = c->seed, .random = c->random };
    backing_name(c->disks[t->layers - 1].io, name);
    for (unsigned i = 0; i < t->objects; i++) {
        if (strcmp(name, c->disks[i].name))
            continue;
        unsigned first = i == t->layers ? i : 0;
        for (unsigned k = first; k <= i; k++)
            out->disks[out->count++] = c->disks[k];
    }
    SIM_CHECK(out->count || !*name, c->seed, "the header names '%s'", name);
    out->disks[out->count++] = c->disks[t->layers - 1];
}

/* True if there is nothing left to do. */
static bool is_done(const struct crash *t, const struct layer_chain *now)
{
    switch (t->job) {
    case STREAM:
        return now->count == 2;
    case STREAM_ALL:
    case FLATTEN:
        return now->count == 1;
    case REBASE:
        return !strcmp(now->disks[0].name, t->c.disks[t->layers].name);
    default:
        return false;
    }
}

static void run_again(struct crash *t, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct layer_chain now;

    chain_of(t, &now);
    if (is_done(t, &now))
        return;
    struct lam_image *image = layers_open(&now, now.count, true, NULL);
    int rc = run_job(t, image, t->c.disks[t->layers].io, &err);
    SIM_CHECK(rc == 0, t->c.seed, "%s: once more: %s", when, err.message);
    layers_close(&now, image);
    chain_of(t, &now);
    SIM_CHECK(is_done(t, &now) || t->job == COMMIT || t->job == COMMIT_LOW,
              t->c.seed, "%s: the job left %u layers", when, now.count);
    layers_verify(&now, now.count, when);
    layers_check(&now, false, when);
}

/* The base shows what the top does, once the job has ended. */
static void verify_base(struct crash *t, const char *when)
{
    const struct layer_disk *top = &t->c.disks[t->layers - 1];
    struct layer_chain low = t->c;

    if (t->job != COMMIT && t->job != COMMIT_LOW)
        return;
    low.count = t->job == COMMIT ? t->layers - 1 : t->layers - 2;
    struct layer_disk *base = &low.disks[low.count - 1];
    struct layer_disk saved = *base;
    base->bytes = NULL;
    base->size = 0;
    layers_resize_model(base, max_u64(saved.size, top->size));
    memcpy(base->bytes, saved.bytes, saved.size);
    memcpy(base->bytes, top->bytes, top->size);
    layers_verify(&low, low.count, when);
    free(base->bytes);
}

static void crash_at(struct crash *t, size_t n, struct record_pick pick)
{
    struct lam_io *whole[MAX_OBJECTS];
    struct layer_chain now;
    char when[96];

    snprintf(when, sizeof when, "job %d, power cut after event %zu, pick %d "
             "%llu", (int)t->job, n, (int)pick.how,
             (unsigned long long)pick.value);
    for (unsigned i = 0; i < t->objects; i++) {
        whole[i] = t->c.disks[i].io;
        assert_int_equal(lam_io_record_rebuild(t->records[i], n, pick,
                                               t->bases[i], t->lengths[i],
                                               &t->c.disks[i].io, NULL), 0);
    }
    chain_of(t, &now);
    layers_verify(&now, now.count, when);
    layers_check(&now, false, when);
    if (t->replays++ % 3 == 0) {
        run_again(t, when);
        verify_base(t, when);
    }
    for (unsigned i = 0; i < t->objects; i++) {
        lam_io_close(t->c.disks[i].io);
        t->c.disks[i].io = whole[i];
    }
}

/* ------------------------------------------------------------------ a seed */

static void make_chain(struct crash *t)
{
    struct layer_chain *c = &t->c;

    if (c->seed / JOBS % 2)
        layers_add_raw(c);
    else
        layers_add_overlay(c);
    while (c->count < t->layers) {
        struct lam_image *image;

        if (c->disks[c->count - 1].kind) {
            image = layers_open(c, c->count, true, NULL);
            for (unsigned i = 0; i < 12; i++)
                layers_guest(c, image);
            layers_close(c, image);
        }
        layers_add_overlay(c);
    }
    struct lam_image *image = layers_open(c, t->layers, true, NULL);
    for (unsigned i = 0; i < 12; i++)
        layers_guest(c, image);
    layers_close(c, image);
    layers_add_raw(c);
    c->count = t->layers;
}

static void record(struct crash *t)
{
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned i = 0; i < t->objects; i++) {
        struct lam_io *io = t->c.disks[i].io;
        t->bases[i] = sim_bytes(io, &t->lengths[i]);
        int rc = i ? lam_io_record_join(io, t->records[0], &t->records[i], NULL)
                   : lam_io_record_new(io, &t->records[0], NULL);
        assert_int_equal(rc, 0);
    }
    struct lam_image *image = layers_open(&t->c, t->layers, true, t->records);
    int rc = run_job(t, image, t->records[t->layers], &err);
    SIM_CHECK(rc == 0, t->c.seed, "job %d: %s", (int)t->job, err.message);
    layers_close(&t->c, image);
}

static void cut_power(struct crash *t)
{
    size_t count;

    lam_io_record_events(t->records[0], &count);
    size_t step = count / sim_setting("LAM_CUTS", 40) + 1;
    for (size_t n = sim_below(&t->c.random, step); n <= count; n += step) {
        uint64_t last = n ? n - 1 : 0;

        crash_at(t, n, (struct record_pick){ RECORD_ALL, 0 });
        crash_at(t, n, (struct record_pick){ RECORD_SEEDED,
                                             sim_random(&t->c.random) | 1 });
        crash_at(t, n, (struct record_pick){ RECORD_ONLY, last });
        crash_at(t, n, (struct record_pick){ RECORD_ALL_BUT,
                                             last - min_u64(last, n % 5) });
    }
}

static void run_seed(uint64_t seed)
{
    struct crash t = { .c = { .seed = seed, .random = seed },
                       .job = (enum job_kind)(seed % JOBS) };

    t.layers = t.job == COMMIT && seed / JOBS % 2 ? 2 : 3;
    t.objects = t.layers + 1;

    make_chain(&t);
    record(&t);
    cut_power(&t);
    for (unsigned i = 0; i < t.objects; i++) {
        lam_io_close(t.records[t.objects - 1 - i]);
        free(t.bases[i]);
    }
    t.c.count = t.objects;
    layers_free(&t.c);
}

static void test_layers_crash(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(3 * JOBS, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_layers_crash) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

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
#include "layers-record.h"

struct crash {
    struct layers_job j;
    struct layers_record r;
    uint64_t replays;
};

static void crash_at(struct crash *t, size_t n, struct record_pick pick)
{
    struct layer_chain now;
    char when[96];

    layers_record_cut(&t->j, &t->r, n, pick, when);
    job_chain_of(&t->j, &now);
    layers_verify(&now, now.count, when);
    layers_check(&now, false, when);
    if (t->replays++ % 3 == 0) {
        job_run_again(&t->j, when);
        job_verify_base(&t->j, when);
    }
    layers_record_restore(&t->j, &t->r);
}

/* ------------------------------------------------------------------ a seed */

static void record(struct crash *t)
{
    struct lam_error err = LAM_ERROR_INIT;

    layers_record_begin(&t->j, &t->r);
    struct lam_image *image = layers_open(&t->j.c, t->j.layers, true,
                                          t->r.records);
    int rc = job_run(&t->j, image, t->r.records[t->j.layers], &err);
    SIM_CHECK(rc == 0, t->j.c.seed, "job %d: %s", (int)t->j.job, err.message);
    layers_close(&t->j.c, image);
}

static void crash_around(struct crash *t, size_t n)
{
    uint64_t last = n ? n - 1 : 0;

    crash_at(t, n, (struct record_pick){ RECORD_ALL, 0 });
    crash_at(t, n, (struct record_pick){ RECORD_SEEDED,
                                         sim_random(&t->j.c.random) | 1 });
    crash_at(t, n, (struct record_pick){ RECORD_ONLY, last });
    crash_at(t, n, (struct record_pick){ RECORD_ALL_BUT,
                                         last - min_u64(last, n % 5) });
}

/* Here and there; and each of the last events, where the job is decided. */
static void cut_power(struct crash *t)
{
    size_t count = layers_record_events(&t->r);
    size_t step = count / sim_setting("LAM_CUTS", 30) + 1;
    size_t end = count - min_u64(count, 16);

    for (size_t n = sim_below(&t->j.c.random, step); n < end; n += step)
        crash_around(t, n);
    for (size_t n = end; n <= count; n++)
        crash_around(t, n);
}

static void run_seed(uint64_t seed)
{
    struct crash t = { .j.c = { .seed = seed, .random = seed } };

    job_make_chain(&t.j);
    record(&t);
    cut_power(&t);
    layers_record_free(&t.j, &t.r);
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

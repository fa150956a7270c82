/* SPDX-License-Identifier: MIT */
/*
 * test-rate.c - the limit on bytes a second.
 */
#include <stdatomic.h>
#include <time.h>

#include "unit.h"

#include "base/workers.h"
#include "job/rate.h"

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void test_pieces(void **state)
{
    static const struct { uint64_t rate, min, max, piece; } cases[] = {
        { 0,             4096, 1 << 20, 1 << 20 },  /* no limit */
        { 1,             4096, 1 << 20, 4096 },
        { 8 * 4096,      4096, 1 << 20, 4096 },
        { 8 * 8192 - 1,  4096, 1 << 20, 4096 },
        { 8 * 8192,      4096, 1 << 20, 8192 },
        { UINT64_MAX,    4096, 1 << 20, 1 << 20 },
        { 1,             4096, 4096,    4096 },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct rate rate;
        rate_init(&rate, cases[i].rate);
        assert_int_equal(rate_piece(&rate, cases[i].min, cases[i].max),
                         cases[i].piece);
        rate_deinit(&rate);
    }
}

enum { PIECE = 1000, PIECES = 40 };

struct job {
    struct rate rate;
    _Atomic int left;
};

static int step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct job *job = opaque;

    (void)worker, (void)err;
    if (atomic_fetch_sub(&job->left, 1) <= 0)
        return 0;
    int rc = rate_take(&job->rate, PIECE, NULL);
    return rc < 0 ? rc : 1;
}

/* However many ask: the sum takes its time (less the last piece's). */
static void test_sum(void **state)
{
    (void)state;
    for (unsigned workers = 1; workers <= 4; workers += 3) {
        struct job job = { .left = PIECES };
        rate_init(&job.rate, PIECE * 200);      /* 5 ms a piece */
        double start = seconds();
        assert_int_equal(workers_run(workers, step, &job, NULL), 0);
        assert_true(seconds() - start >= 0.005 * (PIECES - 1));
        rate_deinit(&job.rate);
    }
}

/* A pause is not made up for by a burst. */
static void test_no_burst(void **state)
{
    const struct timespec pause = { 0, 50 * 1000 * 1000 };
    struct rate rate;

    (void)state;
    rate_init(&rate, 100000);
    assert_int_equal(rate_take(&rate, 100, NULL), 0);
    nanosleep(&pause, NULL);
    double start = seconds();
    for (int i = 0; i < 3; i++)
        assert_int_equal(rate_take(&rate, 2000, NULL), 0);
    assert_true(seconds() - start >= 0.040);
    rate_deinit(&rate);
}

static void test_cancel(void **state)
{
    const volatile int cancel = 1;
    struct rate rate;

    (void)state;
    rate_init(&rate, 1);
    assert_int_equal(rate_take(&rate, UINT64_MAX, &cancel), 0);
    assert_int_equal(rate_take(&rate, 1, &cancel), -ECANCELED);
    rate_deinit(&rate);
    rate_init(&rate, 0);
    assert_int_equal(rate_take(&rate, UINT64_MAX, &cancel), 0);
    assert_int_equal(rate_take(&rate, UINT64_MAX, &cancel), 0);
    rate_deinit(&rate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_no_burst),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

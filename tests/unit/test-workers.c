/* SPDX-License-Identifier: MIT */
/*
 * test-workers.c - all is done once, by all, and the first failure ends it.
 */
#include "unit.h"

#include <signal.h>
#include <stdatomic.h>

#include "base/thread.h"
#include "base/workers.h"

enum { STEPS = 2000 };

struct job {
    atomic_int next, fail_at;
    atomic_int done[STEPS];
};

static int step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct job *job = opaque;
    int n = atomic_fetch_add(&job->next, 1);
    assert(worker < 8);
    if (n >= STEPS)
        return 0;
    atomic_fetch_add(&job->done[n], 1);
    if (n == atomic_load(&job->fail_at))
        return lam_fail(err, EIO, "step %d", n);
    return 1;
}

static void does_all_once(void **state)
{
    (void)state;
    static const unsigned counts[] = { 0, 1, 2, 8 };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(counts); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct job job = { .fail_at = -1 };
        assert_works(workers_run(counts[i], step, &job, &err), &err);
        for (int n = 0; n < STEPS; n++)
            assert_int_equal(atomic_load(&job.done[n]), 1);
    }
}

static void stops_at_a_failure(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct job job = { .fail_at = 3 };
    assert_int_equal(workers_run(1, step, &job, &err), -EIO);
    assert_string_equal(err.message, "step 3");
    assert_int_equal(atomic_load(&job.next), 4);
    struct job wide = { .fail_at = 3 };
    assert_int_equal(workers_run(4, step, &wide, NULL), -EIO);
}

static void counts_processors(void **state)
{
    (void)state;
    assert_true(workers_default() >= 1);
}

static void *look_at_mask(void *opaque)
{
    pthread_sigmask(SIG_SETMASK, NULL, opaque);
    return NULL;
}

/* Of what may be blocked, all is; the caller's mask stays what it was. */
static void lets_no_signal_in(void **state)
{
    sigset_t its, mine;
    pthread_t thread;

    (void)state;
    sigemptyset(&its);
    assert_int_equal(thread_start(&thread, look_at_mask, &its), 0);
    pthread_join(thread, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &mine);
    for (int s = 1; s < 32; s++) {
        assert_true(sigismember(&its, s) || s == SIGKILL || s == SIGSTOP);
        assert_false(sigismember(&mine, s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(does_all_once),
        cmocka_unit_test(stops_at_a_failure),
        cmocka_unit_test(counts_processors),
        cmocka_unit_test(lets_no_signal_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

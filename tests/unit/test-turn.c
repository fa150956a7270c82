/* SPDX-License-Identifier: MIT */
/*
 * test-turn.c - what is done in turn is done in order, whoever is first; a
 * failure wakes all; and who holds a claim gets past him who waits for all.
 */
#include "unit.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/turn.h"
#include "base/workers.h"
#include "format/inflight.h"

enum { NUMBERS = 3000, THREADS = 8 };

struct race {
    struct turn turn;
    atomic_uint next;
    uint64_t done[NUMBERS];     /* in the order in which turns came */
    size_t count;               /* in turn only */
    uint64_t fail_at;
};

/* A third of all need no turn, and pass at once. */
static bool needs_turn(uint64_t number)
{
    return number % 3 != 1;
}

static int in_turn(struct race *r, uint64_t number, struct lam_error *err)
{
    int rc = turn_wait(&r->turn, number, err);

    if (rc < 0)
        return rc;
    if (number == r->fail_at) {
        rc = lam_fail(err, EIO, "number %u failed", (unsigned)number);
        turn_abort(&r->turn, rc, err);
        return rc;
    }
    r->done[r->count++] = number;
    return 0;
}

static int race_step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct race *r = opaque;
    uint64_t number = atomic_fetch_add(&r->next, 1);
    int rc = 0;

    if (number >= NUMBERS)
        return 0;
    for (unsigned i = 0; i < (worker * 7 + number) % 5; i++)
        sched_yield();
    if (needs_turn(number))
        rc = in_turn(r, number, err);
    if (rc == 0)
        rc = turn_pass(&r->turn, number, err);
    return rc < 0 ? rc : 1;
}

static int race_run(struct race *r, uint64_t fail_at, struct lam_error *err)
{
    memset(r, 0, sizeof *r);
    r->fail_at = fail_at;
    turn_init(&r->turn);
    int rc = workers_run(THREADS, race_step, r, err);
    turn_deinit(&r->turn);
    for (size_t i = 1; i < r->count; i++)
        assert_true(r->done[i] > r->done[i - 1]);
    return rc;
}

static struct race race;

static void keeps_the_order(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(race_run(&race, UINT64_MAX, &err), &err);
    assert_int_equal(race.count, NUMBERS / 3 * 2);
}

static void a_failure_ends_all(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;

    assert_int_equal(race_run(&race, 999, &err), -EIO);
    assert_string_equal(err.message, "number 999 failed");
    assert_int_equal(race.count, 666);
}

static uint64_t whose_turn(struct turn *turn)
{
    pthread_mutex_lock(&turn->lock);
    uint64_t next = turn->next;
    pthread_mutex_unlock(&turn->lock);
    return next;
}

/* Without a turn nobody gets further ahead than the slots reach. */
static int pass_far(void *opaque, unsigned worker, struct lam_error *err)
{
    struct race *r = opaque;
    uint64_t number = worker ? r->done[0]++ : 0;

    if (worker == 0) {
        while (atomic_load(&r->next) < TURN_SLOTS - 1)
            sched_yield();
        int rc = turn_pass(&r->turn, 0, err);
        return rc < 0 ? rc : 0;
    }
    if (number == 2 * TURN_SLOTS)
        return 0;
    int rc = turn_pass(&r->turn, number + 1, err);
    if (number + 1 >= TURN_SLOTS)
        assert_true(whose_turn(&r->turn) > 0);
    atomic_fetch_add(&r->next, 1);
    return rc < 0 ? rc : 1;
}

static void passing_has_a_limit(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;

    memset(&race, 0, sizeof race);
    turn_init(&race.turn);
    assert_works(workers_run(2, pass_far, &race, &err), &err);
    assert_int_equal(race.turn.next, 2 * TURN_SLOTS + 1);
    turn_deinit(&race.turn);
}

/* ------------------------------------------------------------------ claims */

struct claims {
    struct inflight all;
    atomic_bool waiting, granted;
};

static void *claim_everything(void *opaque)
{
    struct claims *c = opaque;
    struct claim claim;

    atomic_store(&c->waiting, true);
    claim_all(&c->all, &claim);
    atomic_store(&c->granted, true);
    claim_drop(&c->all, &claim);
    return NULL;
}

static bool everything_is_wanted(struct claims *c)
{
    pthread_mutex_lock(&c->all.lock);
    bool wanted = c->all.first && c->all.first->waiting;
    pthread_mutex_unlock(&c->all.lock);
    return wanted;
}

static void a_holder_goes_on(void **state)
{
    (void)state;
    struct claims c = { .granted = false };
    struct claim first = { .range = { 0, 65536 } };
    struct claim second = { .range = { 131072, 65536 } };
    pthread_t thread;

    inflight_init(&c.all);
    assert_true(claim_try(&c.all, &first));
    assert_int_equal(pthread_create(&thread, NULL, claim_everything, &c), 0);
    while (!everything_is_wanted(&c))
        sched_yield();
    assert_true(claim_try(&c.all, &second));
    assert_false(atomic_load(&c.granted));
    claim_wait(&c.all, 65536);      /* nobody has it: does not wait */
    claim_drop(&c.all, &second);
    claim_drop(&c.all, &first);
    pthread_join(thread, NULL);
    assert_true(atomic_load(&c.granted));
    /* Nor does he let pass who holds nothing. */
    struct claim all;
    claim_all(&c.all, &all);
    assert_false(all.waiting);
    assert_false(claim_try(&c.all, &first));
    claim_drop(&c.all, &all);
    inflight_deinit(&c.all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_order),
        cmocka_unit_test(a_failure_ends_all),
        cmocka_unit_test(passing_has_a_limit),
        cmocka_unit_test(a_holder_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

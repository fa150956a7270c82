/* SPDX-License-Identifier: MIT */
/*
 * test-progress.c - what is told of what many threads have done.
 */
#include "job/progress.h"

#include <semaphore.h>

#include "unit.h"

struct told {
    sem_t inside, go_on;        /* the first callback waits for the other */
    unsigned calls;
    uint64_t last;
};

static void hear(void *opaque, uint64_t done, uint64_t total)
{
    struct told *told = opaque;

    assert_true(done >= told->last && done <= total);
    told->last = done;
    if (told->calls++ == 0) {
        sem_post(&told->inside);
        sem_wait(&told->go_on);
    }
}

static void *first(void *opaque)
{
    progress_add(opaque, 10);
    return NULL;
}

/* The last one finds the callback busy: its bytes must be told all the same. */
static void test_the_end_is_told(void **state)
{
    struct told told = { .calls = 0 };
    struct progress progress;
    pthread_t thread;

    (void)state;
    sem_init(&told.inside, 0, 0);
    sem_init(&told.go_on, 0, 0);
    progress_init(&progress, 30, hear, &told);
    assert_int_equal(pthread_create(&thread, NULL, first, &progress), 0);
    sem_wait(&told.inside);
    progress_add(&progress, 20);
    assert_int_equal(told.last, 10);
    sem_post(&told.go_on);
    pthread_join(thread, NULL);
    assert_int_equal(told.last, 30);
    assert_int_equal(told.calls, 2);
    progress_deinit(&progress);
}

static void test_no_more_than_the_total(void **state)
{
    struct told told = { .calls = 1 };
    struct progress progress;

    (void)state;
    progress_init(&progress, 10, hear, &told);
    progress_add(&progress, 25);
    assert_int_equal(told.last, 10);
    progress_deinit(&progress);
}

static void test_nobody_asks(void **state)
{
    struct progress progress;

    (void)state;
    progress_init(&progress, 10, NULL, NULL);
    progress_add(&progress, 10);
    assert_int_equal(progress.done, 10);
    progress_deinit(&progress);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_end_is_told),
        cmocka_unit_test(test_no_more_than_the_total),
        cmocka_unit_test(test_nobody_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

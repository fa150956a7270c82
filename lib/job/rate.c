/* SPDX-License-Identifier: MIT */
/*
 * rate.c - so many bytes a second and no more, for all workers of a job
 * together.
 *
 * Each request takes the next slot of a time line on which bytes take as long
 * as the rate says, and waits until its slot begins.  What was not used is not
 * saved up: a slot never begins in the past.
 */
#include "job/rate.h"

#include <errno.h>
#include <time.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "job/cancel.h"

#define SECOND UINT64_C(1000000000)
/* How long a cancel may go unseen. */
#define NAP (SECOND / 10)
/* A piece should take no longer than this part of a second. */
enum { PIECES_A_SECOND = 8 };

void rate_init(struct rate *rate, uint64_t per_second)
{
    rate->per_second = per_second;
    rate->next = 0;
    pthread_mutex_init(&rate->lock, NULL);
}

void rate_deinit(struct rate *rate)
{
    pthread_mutex_destroy(&rate->lock);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* How long @bytes take; years at the most. */
static uint64_t duration(const struct rate *rate, uint64_t bytes)
{
    long double ns = (long double)bytes * SECOND /
                     (long double)rate->per_second;

    return ns < (long double)(UINT64_MAX / 4) ? (uint64_t)ns : UINT64_MAX / 4;
}

static uint64_t take_slot(struct rate *rate, uint64_t bytes)
{
    LAM_LOCKED(&rate->lock);
    uint64_t start = max_u64(rate->next, now());
    uint64_t end;

    if (add_overflows(start, duration(rate, bytes), &end))
        end = UINT64_MAX;
    rate->next = end;
    return start;
}

int rate_take(struct rate *rate, uint64_t bytes, const volatile int *cancel)
{
    if (!rate->per_second)
        return 0;

    uint64_t start = take_slot(rate, bytes);
    for (uint64_t t = now(); t < start; t = now()) {
        uint64_t nap = min_u64(start - t, NAP);
        const struct timespec wait = { 0, (long)nap };

        if (cancel_wanted(cancel))
            return -ECANCELED;
        nanosleep(&wait, NULL);
    }
    return 0;
}

uint64_t rate_piece(const struct rate *rate, uint64_t min, uint64_t max)
{
    uint64_t piece = max;

    if (!rate->per_second)
        return max;
    while (piece > min && piece > rate->per_second / PIECES_A_SECOND)
        piece /= 2;
    return piece;
}

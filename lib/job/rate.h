/* SPDX-License-Identifier: MIT */
/*
 * rate.h - so many bytes a second and no more, for all workers of a job
 * together.
 */
#ifndef LAM_JOB_RATE_H
#define LAM_JOB_RATE_H

#include <pthread.h>

#include "lamella.h"

struct rate {
    uint64_t per_second;        /* bytes; 0: no limit */
    pthread_mutex_t lock;
    uint64_t next;              /* nanoseconds of the monotonic clock: when
                                   what was let through so far is paid for */
};

void rate_init(struct rate *rate, uint64_t per_second);
void rate_deinit(struct rate *rate);

/*
 * Wait until @bytes may be moved.  -ECANCELED without a message once *@cancel
 * (may be NULL) is set; else 0.
 */
int rate_take(struct rate *rate, uint64_t bytes, const volatile int *cancel);

/*
 * The largest power of two, from @min to @max (both such), of which several
 * fit into a second: what a worker should move at once.
 */
uint64_t rate_piece(const struct rate *rate, uint64_t min, uint64_t max);

#endif

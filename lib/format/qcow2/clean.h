/* SPDX-License-Identifier: MIT */
/*
 * clean.h - cached tables that nobody has used for a while give up their
 * memory (cache-clean-interval).
 *
 * There is no thread and no timer: requests look at the clock, one that costs
 * a few nanoseconds, and the first after an interval cleans up.  What nobody
 * has touched since the last time goes, so it is gone after one or two
 * intervals.  An image that gets no requests at all keeps what it has, within
 * the budgets of its caches: a library should not run threads of its own in
 * somebody else's program for the sake of that.
 */
#ifndef LAM_QCOW2_CLEAN_H
#define LAM_QCOW2_CLEAN_H

#include <stdatomic.h>
#include <stdint.h>

struct qcow2;

struct cleaner {
    uint64_t interval;          /* seconds; 0: never */
    _Atomic uint64_t due;       /* seconds of the monotonic clock */
};

void cleaner_init(struct cleaner *cleaner, uint64_t interval);

/* Once for each request, no lock held. */
void qcow2_clean_if_due(struct qcow2 *q);

/* What has not been used since the last call, at once. */
void qcow2_clean(struct qcow2 *q);

#endif

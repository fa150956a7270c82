/* SPDX-License-Identifier: MIT */
/*
 * uring.h - transfers by the kernel's io_uring.
 *
 * Every function may be called by any number of threads at once, but for
 * uring_free().  Who fills in a transfer and who collects it take a lock of
 * their own in between: what passes through the kernel orders nothing.
 */
#ifndef LAM_IO_URING_H
#define LAM_IO_URING_H

#include "io/async.h"

struct uring;

/* For up to @depth transfers at once, or fewer where that is beyond the limit
 * of the kernel.  -errno: there is none to be had. */
int uring_new(unsigned depth, struct uring **out);

/* None is under way; NULL is allowed. */
void uring_free(struct uring *ring);

/* Begins transfers that have begun (async.h); how many, from the first on.  It
 * may be too full for the others, or take none at all any more. */
size_t uring_submit(struct uring *ring, struct io_async *const *transfers,
                    size_t count);

struct uring_result {
    struct io_async *transfer;
    int64_t got;                /* bytes, or -errno */
};

/* Those that have ended, at most @max; does not wait. */
unsigned uring_collect(struct uring *ring, struct uring_result *out,
                       unsigned max);

/* Until there is something to collect, somebody has called uring_wake(), a
 * signal has come, or @timeout_ms are over; negative: no limit. */
void uring_wait(struct uring *ring, int timeout_ms);
void uring_wake(struct uring *ring);

/* From now on the kernel adds to @eventfd whenever a transfer ends; 0 or
 * -errno. */
int uring_set_eventfd(struct uring *ring, int eventfd);

#endif

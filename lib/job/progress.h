/* SPDX-License-Identifier: MIT */
/*
 * progress.h - what many threads have done, told to one callback.
 */
#ifndef LAM_JOB_PROGRESS_H
#define LAM_JOB_PROGRESS_H

#include <pthread.h>
#include <stdatomic.h>

#include <lamella.h>

struct progress {
    lam_progress_fn *fn;        /* or NULL: nobody asks */
    void *opaque;
    uint64_t total;             /* bytes to go through */
    _Atomic uint64_t done;      /* may grow beyond the total; told up to it */
    pthread_mutex_t telling;    /* the callback runs in one thread at a time */
};

void progress_init(struct progress *p, uint64_t total, lam_progress_fn *fn,
                   void *opaque);
void progress_deinit(struct progress *p);

/* @bytes more are done.  What is told never falls, and ends with all of it. */
void progress_add(struct progress *p, uint64_t bytes);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * workers.h - a fixed number of threads that run one function until it says
 * that there is nothing left.
 *
 * The shape of a job: workers_run(n, step, job, err) calls step(job, err) in n
 * threads (the caller's is one of them), each again and again.  step() returns
 * 1 when it did something, 0 when nothing is left, negative on failure.  After
 * the first failure every thread stops after its current step and that failure
 * is returned with its message.
 */
#ifndef LAM_BASE_WORKERS_H
#define LAM_BASE_WORKERS_H

#include "lamella.h"

typedef int worker_step_fn(void *job, unsigned worker, struct lam_error *err);

int workers_run(unsigned nb_workers, worker_step_fn *step, void *job,
                struct lam_error *err);

/* Processors this process may run on (sched_getaffinity), at least 1. */
unsigned workers_default(void);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * job.h - progress, rate and cancelling of a job on the layers of a chain.
 */
#ifndef LAM_JOB_JOB_H
#define LAM_JOB_JOB_H

#include "job/progress.h"
#include "job/rate.h"

struct job {
    const struct lam_job_options *options;
    const char *what;           /* "commit", for messages */
    struct progress progress;
    struct rate rate;
};

void job_init(struct job *job, const char *what, uint64_t total,
              const struct lam_job_options *options);
void job_deinit(struct job *job);

/* Threads to run it with. */
unsigned job_workers(const struct job *job);

/* -ECANCELED once the caller has said so. */
int job_check(const struct job *job, struct lam_error *err);

/* Waits until @bytes may be moved; -ECANCELED. */
int job_pay(struct job *job, uint64_t bytes, struct lam_error *err);

/* Nothing is in the way, and nothing is done yet: progress of 0. */
void job_announce(struct job *job);

/* @bytes of the total are behind us. */
void job_advance(struct job *job, uint64_t bytes);

#endif

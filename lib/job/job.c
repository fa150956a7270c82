/* SPDX-License-Identifier: MIT */
/*
 * job.c - progress, rate and cancelling of a job on the layers of a chain.
 */
#include "job/job.h"

#include "base/arith.h"
#include "base/error.h"
#include "base/workers.h"
#include "job/cancel.h"

enum { MAX_WORKERS = 256 };

void job_init(struct job *job, const char *what, uint64_t total,
              const struct lam_job_options *options)
{
    *job = (struct job){ .options = options, .what = what };
    progress_init(&job->progress, total, options->progress,
                  options->progress_opaque);
    rate_init(&job->rate, options->rate);
}

void job_deinit(struct job *job)
{
    rate_deinit(&job->rate);
    progress_deinit(&job->progress);
}

unsigned job_workers(const struct job *job)
{
    return job->options->workers
        ? (unsigned)min_u64(job->options->workers, MAX_WORKERS)
        : workers_default();
}

int job_check(const struct job *job, struct lam_error *err)
{
    if (cancel_wanted(job->options->cancel))
        return lam_fail(err, ECANCELED, "%s was cancelled", job->what);
    return 0;
}

int job_pay(struct job *job, uint64_t bytes, struct lam_error *err)
{
    int rc = job_check(job, err);

    if (rc == 0 && rate_take(&job->rate, bytes, job->options->cancel) < 0)
        rc = lam_fail(err, ECANCELED, "%s was cancelled", job->what);
    return rc;
}

void job_announce(struct job *job)
{
    progress_add(&job->progress, 0);
}

void job_advance(struct job *job, uint64_t bytes)
{
    progress_add(&job->progress, bytes);
}

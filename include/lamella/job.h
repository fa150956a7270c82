/* SPDX-License-Identifier: MIT */
/* lamella/job.h - what long work has in common. */
#ifndef LAMELLA_JOB_H
#define LAMELLA_JOB_H

#include <lamella/api.h>

LAM_BEGIN_DECLS

/*
 * Called now and then by long work: @done of @total, in a unit of the job's
 * own, for a share to be made of them; @total is 0 where there is nothing to
 * do.  On whatever thread does the work, never on two at once.  It must not
 * call the library with the images of the job, and should not take long.
 * Commit, rebase and stream call it with 0 first, when all that could be in the
 * way has been looked at and before anything is copied.
 */
typedef void lam_progress_fn(void *opaque, uint64_t done, uint64_t total);

/* What jobs on the layers of a chain take (lamella/chain.h). */
struct lam_job_options {
    unsigned workers;           /* threads; 0: one a core */
    uint64_t rate;              /* bytes a second to move; 0: no limit */
    lam_progress_fn *progress;  /* called from one thread at a time; or NULL */
    void *progress_opaque;
    const volatile int *cancel; /* non-zero: stop with -ECANCELED; any thread
                                   or a signal handler sets it; or NULL */
};

#define LAM_JOB_OPTIONS_INIT { 0, 0, NULL, NULL, NULL }

LAM_END_DECLS

#endif

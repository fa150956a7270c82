/* SPDX-License-Identifier: MIT */
/*
 * pull-plan.h - which ranges of an overlay a pull has to look at.
 *
 * The maps of the overlay and of both sides are asked for in windows, and laid
 * over each other: nothing is read where they say that it would be for nothing.
 */
#ifndef LAM_JOB_PULL_PLAN_H
#define LAM_JOB_PULL_PLAN_H

#include "job/pull.h"

/* A range that the overlay lacks, in whole units of its, and in which the sides
 * may differ. */
struct pull_task {
    struct range range;
    bool old_zero, new_zero;    /* that side is known to read as zero */
    uint64_t sequence;          /* 0, 1, 2 ... in ascending order */
};

struct pull_plan {
    const struct pull *pull;
    uint64_t size;              /* of the overlay */
    uint64_t unit;              /* what the overlay may lack, a power of two */
    uint64_t piece;             /* bytes of a task at most */
    pthread_mutex_t lock;       /* all below */
    uint64_t planned;           /* bytes of the overlay looked at so far */
    uint64_t window;            /* bytes to look at next */
    struct pull_task *tasks;    /* from @first on not handed out */
    size_t first, count, capacity;
    uint64_t sequence;          /* of the next one handed out */
};

void pull_plan_init(struct pull_plan *plan, const struct pull *pull);
void pull_plan_deinit(struct pull_plan *plan);

/* 1: *@task is next; 0: that was all; negative.  Safe from any thread. */
int pull_plan_next(struct pull_plan *plan, struct pull_task *task,
                   struct lam_error *err);

#endif

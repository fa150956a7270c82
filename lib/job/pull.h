/* SPDX-License-Identifier: MIT */
/*
 * pull.h - copies into an overlay what would change under it if another image
 * took the place of the one below.
 */
#ifndef LAM_JOB_PULL_H
#define LAM_JOB_PULL_H

#include "image/image.h"
#include "job/job.h"

/* What is, or is to be, below the overlay. */
struct pull_side {
    struct lam_image *image;    /* NULL: nothing, zeroes */
    uint32_t depth;             /* layers of it that the other side has not;
                                   LAM_DEPTH_ALL: they have none in common */
};

struct pull {
    struct job *job;
    struct lam_image *image;    /* the overlay, open for writing */
    struct pull_side old, new;
    bool compare;               /* copy only what differs; else all that the
                                   old side has alone */
    bool compress;
};

/* What the overlay shows stays the same at every moment, and is the same over
 * the new side when this returns 0.  Nothing is flushed. */
int pull_run(const struct pull *pull, struct lam_error *err);

#endif

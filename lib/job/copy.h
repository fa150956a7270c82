/* SPDX-License-Identifier: MIT */
/*
 * copy.h - moves the guest data of a walk into a target, with several workers.
 *
 * Each worker takes a chunk, reads what is not known to be zero, looks for
 * zeroes in it, and hands data and zero ranges to the target.  Memory is one
 * chunk a worker, and another one if it compresses.  Only where each chunk lies
 * in an image with tables is settled in the order of the chunks (order.h).
 */
#ifndef LAM_JOB_COPY_H
#define LAM_JOB_COPY_H

#include "job/digest.h"
#include "job/journal.h"
#include "job/offload.h"
#include "job/order.h"
#include "job/passthrough.h"
#include "job/progress.h"
#include "job/rate.h"
#include "job/salvage.h"
#include "job/walk.h"
#include "job/zeroing.h"

struct copy_options {
    struct lam_image *target;
    struct zeroing *zeroing;
    bool compress;
    bool detect;            /* look for zeroes in data */
    uint64_t grain;         /* blocks that are zero or are data: the unit of
                               zero detection, a power of two */
    uint64_t sparse_min;    /* blocks of zeroes that are left out; a power of
                               two, at least @grain */
    unsigned workers;
    bool direct;            /* something of it goes past the page cache */
    const struct lam_convert_options *convert;  /* progress, cancel */
    struct rate *rate;          /* NULL: no limit */
    struct salvage *salvage;    /* NULL: what cannot be read is an error */
    struct digest *digest;      /* NULL: none */
    struct journal *journal;    /* NULL: none; begun with the walk */
    struct passthrough *pass;   /* NULL: no chunks of payloads */
    struct offload *offload;    /* NULL: none that the host may copy */
};

struct copy_counts {
    uint64_t bytes_read, bytes_written;
};

/* Copy all of @walk; nothing is flushed. */
int copy_run(struct walk *walk, const struct copy_options *options,
             struct copy_counts *counts, struct lam_error *err);

/* Read a data chunk into @buf, which takes all of it.  @salvage may be NULL. */
int copy_read_chunk(const struct walk_chunk *chunk, struct salvage *salvage,
                    uint8_t *buf, uint64_t *bytes_read, struct lam_error *err);

/* -ECANCELED once the caller has said so. */
int copy_cancelled(const struct lam_convert_options *convert,
                   struct lam_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * before-write.h - a filter that copies what is about to be overwritten into
 * another object, and what the object below it held when the filter came.
 */
#ifndef LAM_IO_BEFORE_WRITE_H
#define LAM_IO_BEFORE_WRITE_H

#include "io/io.h"

struct io_before_options {
    uint64_t cluster;           /* copied at a time; a power of two */
    bool break_snapshot;        /* what cannot be copied is overwritten all the
                                   same, and the snapshot is lost; else the
                                   write fails */
    uint64_t timeout;           /* seconds that a copy may take; 0: any */
};

/* Takes @inner and @target over, also on failure. */
int lam_io_before_write_new(struct lam_io *inner, struct lam_io *target,
                            const struct io_before_options *options,
                            struct lam_io **out, struct lam_error *err);

/* What was there before the first write.  Only a filter as above has that:
 * requests to anything else answer -ENOTSUP.  Takes @inner over, also on
 * failure. */
int lam_io_snapshot_access_new(struct lam_io *inner, struct lam_io **out,
                               struct lam_error *err);

#endif

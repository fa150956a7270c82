/* SPDX-License-Identifier: MIT */
/*
 * stream.h - writes a walk as raw bytes, in order, into a file descriptor.
 */
#ifndef LAM_JOB_STREAM_H
#define LAM_JOB_STREAM_H

#include "job/copy.h"

/* Several workers read ahead; the bytes leave in order.  All kinds of chunk
 * are written; @walk has bare_max no larger than data_max. */
/* Of @options, what concerns a target that is an image does not count. */
int stream_run(struct walk *walk, int fd, const struct copy_options *options,
               struct copy_counts *counts, struct lam_error *err);

#endif

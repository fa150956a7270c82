/* SPDX-License-Identifier: MIT */
/*
 * resize.h - what growing and shrinking share (resize.c).
 */
#ifndef LAM_QCOW2_RESIZE_H
#define LAM_QCOW2_RESIZE_H

#include "format/qcow2/qcow2.h"

/* Whether an image of version @version can have that size. */
int resize_check(struct qcow2 *q, unsigned version, uint64_t size,
                 unsigned flags, struct lam_error *err);

/* The size field, durably: the step that decides. */
int resize_set_size(struct qcow2 *q, uint64_t size, struct lam_error *err);

/* Host bytes behind the end @from, up to @to and no further than its cluster,
 * are not to come back.  A cluster that cannot be changed in place is left to
 * the image layer. */
int resize_zero_tail(struct qcow2 *q, uint64_t from, uint64_t to,
                     struct lam_error *err);

/* Map all whole clusters behind the end of the disk, in which nothing is
 * mapped, up to the new one, to clusters that read as zero, even where a
 * backing file has something.  L1 is long enough.  (preallocate.c) */
int preallocate_clusters(struct qcow2 *q, const struct format_resize *to,
                         struct lam_error *err);

#endif

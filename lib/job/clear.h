/* SPDX-License-Identifier: MIT */
/*
 * clear.h - frees a block device at the start of a conversion onto it.
 */
#ifndef LAM_JOB_CLEAR_H
#define LAM_JOB_CLEAR_H

#include "image/image.h"

/*
 * The units in which a device frees blocks, in offsets of the image on it: what
 * is asked to be freed and covers a granule in part is kept.  They need not be
 * powers of two.
 */
struct granules {
    uint64_t size;
    uint64_t first;             /* where the first whole one begins, < size */
};

/* @base: where on the device the image begins. */
struct granules granules_of(const struct lam_io_limits *limits, uint64_t base);
uint64_t granule_floor(const struct granules *g, uint64_t offset);
uint64_t granule_ceil(const struct granules *g, uint64_t offset);

/* Where on its device a raw image begins. */
int clear_base(struct lam_image *target, uint64_t *base,
               struct lam_error *err);

enum clear_how { CLEAR_BY_PUNCH, CLEAR_BY_DISCARD };

/* What is cleared of the first @total bytes: all but a part of a block. */
uint64_t clear_end(uint64_t total);

/*
 * Free [0, clear_end(@total)) of a raw image on a block device, in pieces that
 * end with granules and last a moment each, so that a cancel is seen between
 * them.  -ENOTSUP where the device does not do it, -ECANCELED.
 */
int clear_device(struct lam_image *target, uint64_t total, enum clear_how how,
                 const struct lam_convert_options *options,
                 struct lam_error *err);

#endif

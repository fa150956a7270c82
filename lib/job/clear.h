/* SPDX-License-Identifier: MIT */
/*
 * clear.h - frees a block device at the start of a conversion onto it.
 */
#ifndef LAM_JOB_CLEAR_H
#define LAM_JOB_CLEAR_H

#include "image/image.h"

/*
 * The unit in which a device frees blocks: what a request covers in part is
 * kept, and may keep its contents.  Where units begin is not relied upon.
 */
uint64_t clear_granule(const struct lam_io_limits *limits);

enum clear_how { CLEAR_BY_PUNCH, CLEAR_BY_DISCARD };

/* What is cleared of the first @total bytes: all but a part of a block. */
uint64_t clear_end(uint64_t total);

/*
 * Free [0, clear_end(@total)) of a raw image on a block device, in pieces that
 * last a moment each, so that a cancel is seen between them.  Each granule that
 * lies in there as a whole is inside one of the requests.  -ENOTSUP where the
 * device does not do it, -ECANCELED.
 */
int clear_device(struct lam_image *target, uint64_t total, enum clear_how how,
                 const struct lam_convert_options *options,
                 struct lam_error *err);

/* Free the first @length bytes of a raw image on a block device that says it
 * can punch; -ENOTSUP if it does not. */
int clear_start(struct lam_image *target, uint64_t length,
                struct lam_error *err);

#endif

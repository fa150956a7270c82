/* SPDX-License-Identifier: MIT */
/*
 * populate.h - data into the top layer only where it has nothing.
 *
 * For copying what the guest sees already: a write of the guest's that comes
 * first stays.  For a whole job: batch.h.
 */
#ifndef LAM_IMAGE_POPULATE_H
#define LAM_IMAGE_POPULATE_H

#include "image/image.h"

/* The range is whole units of what the format allocates (but for the end of the
 * disk), and @buf what the layers below show there. */
int image_populate(struct lam_image *image, const void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * populate.h - data and zeroes into the top layer only where it has nothing.
 *
 * For jobs that copy what the guest sees already: a write of the guest's that
 * comes first stays.
 */
#ifndef LAM_IMAGE_POPULATE_H
#define LAM_IMAGE_POPULATE_H

#include "image/image.h"

/* The range is whole units of what the format allocates (but for the end of the
 * disk), and @buf what the layers below show there. */
int image_populate(struct lam_image *image, const void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err);
/* The same, compressed where whole clusters shrink; -ENOTSUP where the image
 * cannot have compressed clusters. */
int image_populate_compressed(struct lam_image *image, const void *buf,
                              uint64_t length, uint64_t offset,
                              struct lam_error *err);
int image_populate_zeroes(struct lam_image *image, uint64_t offset,
                          uint64_t length, struct lam_error *err);

#endif

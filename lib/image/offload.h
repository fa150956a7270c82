/* SPDX-License-Identifier: MIT */
/*
 * offload.h - host bytes that become guest data without passing through us.
 */
#ifndef LAM_IMAGE_OFFLOAD_H
#define LAM_IMAGE_OFFLOAD_H

#include "image/image.h"

/* Is what @image stores what is written to it? */
bool image_can_offload(const struct lam_image *image);

/*
 * Guest [offset, offset + length) of @image becomes what is at @host_offset of
 * @from.  -ENOTSUP: that has to be done by reading and writing, whatever the
 * reason; part of it may have been done.
 */
int image_offload(struct lam_image *image, uint64_t offset, uint64_t length,
                  const struct lam_io *from, uint64_t host_offset,
                  struct lam_error *err);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * image-io.h - an image as the host object of another one: a qcow2 file inside
 * a disk, or the image behind a filter.
 */
#ifndef LAM_IMAGE_IMAGE_IO_H
#define LAM_IMAGE_IMAGE_IO_H

#include "image/image.h"

/* Takes @image over, also on failure. */
int image_io_new(struct lam_image *image, struct lam_io **out,
                 struct lam_error *err);

/* The image behind @io, through filters but no window; NULL: it stands on a
 * host object. */
struct lam_image *image_io_image(const struct lam_io *io);

/* What changes on the way: data that are read are copied into the top layer;
 * what is written is compressed. */
enum image_io_twist {
    IMAGE_IO_COPY_ON_READ = 1 << 0,
    IMAGE_IO_COMPRESS = 1 << 1,
};

/* Of the image behind @io, which must be there. */
void image_io_set_twist(struct lam_io *io, unsigned twist);

/*
 * Whoever asks where data lie, for snapshots or the like, asks the image itself
 * where @image is only a filter on it; else @image.
 */
struct lam_image *image_through(struct lam_image *image);

#endif

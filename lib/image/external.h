/* SPDX-License-Identifier: MIT */
/*
 * external.h - the file of an overlay, and going on in it.
 */
#ifndef LAM_IMAGE_EXTERNAL_H
#define LAM_IMAGE_EXTERNAL_H

#include "image/image.h"

/* A new file @overlay with @image, its size and its format recorded; replaces
 * what is there.  It is made at @path, which is where it is now or NULL. */
int external_create(struct lam_image *image, const char *overlay,
                    const char *path,
                    const struct lam_overlay_options *options,
                    struct lam_error *err);

/* The rest of lam_image_snapshot_external(): @overlay is an empty overlay of
 * @image, open without a backing file, and @image's resize_lock is held.  Takes
 * @overlay over.  *@changed: @image is the overlay now, also after a
 * failure. */
int external_put_above(struct lam_image *image, struct lam_image *overlay,
                       bool *changed, struct lam_error *err);

#endif

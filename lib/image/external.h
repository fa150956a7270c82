/* SPDX-License-Identifier: MIT */
/*
 * external.h - the file of an overlay.
 */
#ifndef LAM_IMAGE_EXTERNAL_H
#define LAM_IMAGE_EXTERNAL_H

#include "image/image.h"

/* A new file @overlay with @image, its size and its format recorded; replaces
 * what is there. */
int external_create(struct lam_image *image, const char *overlay,
                    const struct lam_overlay_options *options,
                    struct lam_error *err);

#endif

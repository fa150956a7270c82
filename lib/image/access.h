/* SPDX-License-Identifier: MIT */
/*
 * access.h - what jobs change of single layers: may it be written to, has it
 * anything of its own, what does its header call its backing file.
 */
#ifndef LAM_IMAGE_ACCESS_H
#define LAM_IMAGE_ACCESS_H

#include "image/image.h"

/*
 * @layer, of any level, may be written to from now on, or only be read: its
 * files, its locks, its format.  Requests may run on the chain; when writing
 * ends, none that writes to @layer.  The caller holds image_graph_lock() of the
 * chain's top, and is not inside the gate.
 *
 * -EAGAIN if somebody else uses the file, -EACCES, -EROFS, -EUCLEAN and so on:
 * it is as it was.  Ending always succeeds, but may say that what was written
 * is not all on disk.
 */
int layer_set_writable(struct lam_image *layer, bool writable,
                       struct lam_error *err);

/* The second half of that, where @layer->writable is false already. */
int layer_end_writing(struct lam_image *layer, struct lam_error *err);

/* The top layer has nothing any more, at once and durably: what is below it
 * shows.  -ENOTSUP for formats that cannot. */
int image_empty(struct lam_image *image, struct lam_error *err);

/* The top layer's header names @name (NULL: nothing) of @format (NULL: not
 * said); what was written before is on disk first.  No layer changes. */
int image_record_backing(struct lam_image *image, const char *name,
                         const char *format, struct lam_error *err);

/* What reads as zero is stored so that it does over a backing file, too, which
 * the top layer is to get; or no longer. */
void image_expect_backing(struct lam_image *image, bool expected);

#endif

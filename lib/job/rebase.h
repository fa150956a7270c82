/* SPDX-License-Identifier: MIT */
/*
 * rebase.h - lam_image_rebase() for a new backing image that is open already.
 */
#ifndef LAM_JOB_REBASE_H
#define LAM_JOB_REBASE_H

#include "image/image.h"

/*
 * *@below (NULL: none), the top of a chain of its own, is to be the backing
 * image of @image; taken over, and NULL afterwards, if that works.  Names and
 * the rest are in @options.  The caller holds image_graph_lock().
 */
int rebase_onto(struct lam_image *image, struct lam_image **below,
                const struct lam_rebase_options *options,
                struct lam_error *err);

#endif
